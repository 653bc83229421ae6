"""Wishes that went or came are noticed; chance, floods and rows without a time are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from langchain_uno.learning.aggregate import aggregate_rules
from langchain_uno.learning.drift import find_change, find_swap
from langchain_uno.records import Rule, RuleSet

N = 40


def look(mentions: Any, *, gap: float = 60.0, people: Any = None, alpha: float = 0.05) -> Any:
    said = np.asarray(mentions, dtype=np.bool_)
    who = np.arange(len(said)) if people is None else np.asarray(people)
    return find_change(said, gap * np.arange(len(said), dtype=np.float64), who, alpha=alpha)


def every_other(n: int) -> list[bool]:
    return [i % 2 == 0 for i in range(n)]


def test_a_wish_that_stops_has_gone_and_one_that_begins_has_come() -> None:
    gone = look(every_other(20) + [False] * 20)
    assert gone is not None
    assert gone.kind == "gone"
    assert 18 <= gone.at <= 22
    come = look([False] * 20 + every_other(20))
    assert come is not None
    assert come.kind == "come"
    assert 18 <= come.at <= 22


def test_what_never_changed_is_seldom_taken_for_changed() -> None:
    rng = np.random.default_rng(0)
    found = [look(rng.random(N) < 0.4) is not None for _ in range(300)]
    assert sum(found) <= 0.05 * 300


@pytest.mark.parametrize(
    ("gap", "people", "why"),
    [
        (1e-5, None, "rows without a time are imported at once"),
        (60.0, [*range(20), *[99] * 16, 3, 7, 11, 15], "one person floods the later half"),
    ],
)
def test_no_change_without_time_or_by_one_person(gap: float, people: Any, why: str) -> None:
    mentions = every_other(20) + [False] * 16 + [people is not None] * 4
    assert look(mentions, gap=gap, people=people) is None, why
    assert look(every_other(20) + [False] * 20) is not None


def test_two_weak_signs_at_one_time_are_a_strong_one() -> None:
    old = [True, True, False, True, True, True, False, True, True, False, *[False] * 4]
    new = [*[False] * 10, True, False, True, True]
    always = every_other(14)
    times, people = 60.0 * np.arange(14), np.arange(14)
    assert look(old, alpha=0.01) is None  # too few afterwards to say so of one wish alone
    swap = find_swap(np.array([always, old, new]).T, times, people, alpha=0.02)
    assert swap is not None
    assert (swap.gone, swap.come) == (1, 2)
    assert 8 <= swap.at <= 11
    assert find_swap(np.array([always, old]).T, times, people, alpha=0.02) is None
    rng = np.random.default_rng(1)
    by_chance = [
        find_swap(rng.random((20, 5)) < 0.4, 60.0 * np.arange(20), np.arange(20), alpha=0.05)
        for _ in range(200)
    ]
    assert sum(one is not None for one in by_chance) <= 0.05 * 200


@pytest.mark.parametrize("n", [0, 1, 2, 5, 6, 11])
@pytest.mark.parametrize("wishes", [0, 1, 2, 3])
def test_few_logs_and_few_wishes_are_no_change(n: int, wishes: int) -> None:
    mentions = np.zeros((n, wishes), dtype=np.bool_)
    mentions[: n // 2] = True
    times, people = 60.0 * np.arange(n), np.arange(n)
    assert find_swap(mentions, times, people, alpha=0.05) is None
    logs = [
        RuleSet(run_id=str(i), with_feedback=[Rule(text=f"Wish {j}.") for j in range(wishes)])
        for i in range(n)
    ]
    found = aggregate_rules(logs, ["please"] * n, times=times.tolist(), min_users=3)
    assert found.gone == ()


@pytest.mark.parametrize("own_rules", [False, True])
def test_what_went_is_taught_no_more_and_what_came_counts_from_then_on(own_rules: bool) -> None:
    logs = []
    for i in range(N):
        # "thank" always; "warn" until half time; "sign" since then, by a fifth of all people.
        said = ["Thank the reader."]
        said += ["Add a warning."] if i < 20 and i % 2 else []
        said += ["Sign off."] if i >= 20 and i % 5 < 2 else []
        rules = [Rule(text=text, source="feedback") for text in said]
        logs.append(RuleSet(run_id=str(i), with_feedback=rules))
    queries = ["please help"] * N
    given: dict[str, Any] = {"votes": "users", "own_rules": own_rules}
    blind = aggregate_rules(logs, queries, **given)
    assert [rule.text for rule in blind.recurring] == ["Thank the reader.", "Add a warning."]
    seen = aggregate_rules(logs, queries, times=[60.0 * i for i in range(N)], **given)
    assert [rule.text for rule in seen.recurring] == ["Thank the reader.", "Sign off."]
    assert seen.gone == ("Add a warning.",)
    old = seen.complete(logs[1], queries[1])
    assert [rule.text for rule in old.wanted] == ["Thank the reader.", "Sign off."]
    assert [rule.text for rule in old.with_feedback] == ["Thank the reader."]
