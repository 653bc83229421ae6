"""A module takes another one's place only where it is proven better than it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from langchain_uno.recipe import Recipe, load_recipe
from langchain_uno.records import Message, VerifierReport
from langchain_uno.trainers.deciding import decide, wilson
from langchain_uno.trainers.verifier import Compared, HeldOut, Rated, Said, compare_modules

DEFAULT = load_recipe("default")


def items(people: Sequence[str], **more: Any) -> list[HeldOut]:
    asked = [Message(role="user", content="Where does the ferry leave?")]
    return [
        HeldOut(str(n), asked, ["Name the quay."], voice=w, **more) for n, w in enumerate(people)
    ]


def said(scores: Sequence[float | None], name: str, **more: Any) -> dict[str, Compared]:
    """What a module said: it wins on every query against the base."""
    return {
        str(n): Compared(
            id=str(n),
            base=Said(text="At nine."),
            module=Said(text=f"{name} {n}", score=score, **more),
            outcome=1.0,
        )
        for n, score in enumerate(scores)
    }


def compare(
    new: dict[str, Compared],
    old: dict[str, Compared],
    asked: list[HeldOut] | None = None,
    recipe: Recipe = DEFAULT,
) -> VerifierReport:
    return compare_modules(asked or items([f"u{n}" for n in old]), new, old, "expert", recipe)


@pytest.mark.parametrize(
    ("people", "passed", "p_value"), [(4, False, 1 / 16), (5, True, 1 / 32), (8, True, 1 / 256)]
)
def test_the_better_module_needs_five_people(people: int, passed: bool, p_value: float) -> None:
    report = compare(said([9.0] * people, "new"), said([6.0] * people, "old"))
    assert (report.passed, report.win_rate, report.p_value) == (passed, 1.0, p_value)


def test_both_win_always_against_the_base_and_the_worse_one_stays_out() -> None:
    report = compare(said([6.0] * 8, "new"), said([9.0] * 8, "old"))
    assert not report.passed and report.win_rate == 0.0


def test_one_person_is_one_voice() -> None:
    asked = items(["loud"] * 8 + ["a", "b"])
    report = compare(said([9.0] * 8 + [5.0] * 2, "new"), said([6.0] * 10, "old"), asked)
    assert report.people == 3 and report.win_rate == pytest.approx(1 / 3)
    assert not report.passed


def test_equal_answers_tie_whatever_the_judge_says() -> None:
    report = compare(said([9.0] * 6, "same"), said([6.0] * 6, "same"))
    assert report.win_rate == 0.5 and not report.passed


def test_an_answer_without_its_end_loses_against_one_that_has_it() -> None:
    cut, whole = said([9.0] * 6, "new", cut=True), said([6.0] * 6, "old")
    assert compare(cut, whole).win_rate == 0.0
    assert compare(cut, said([6.0] * 6, "old", cut=True)).win_rate == 1.0


def test_what_could_not_be_judged_on_both_sides_says_nothing() -> None:
    report = compare(said([9.0, None, 9.0], "new"), said([6.0, 6.0, None], "old"))
    assert (report.n, report.people) == (1, 1)


def test_a_query_that_one_of_them_never_got_is_left_out() -> None:
    new = said([9.0] * 6, "new")
    del new["0"]
    assert compare(new, said([6.0] * 6, "old")).n == 5


def test_thumbs_compare_what_each_does_against_the_base() -> None:
    liked = items([f"u{n}" for n in range(6)], rated=Rated("At quay 3.", True, (5, 20)))
    new, old = said([None] * 6, "new"), said([None] * 6, "old")
    assert compare(new, old, liked).win_rate == 0.5
    for one in old.values():
        one.outcome = 0.0
    assert compare(new, old, liked).passed
    assert compare(old, new, liked).win_rate == 0.0


def test_the_papers_rule_looks_at_the_rate_alone() -> None:
    report = compare(said([9.0] * 2, "new"), said([6.0] * 2, "old"), recipe=load_recipe("paper"))
    assert report.passed


def test_an_interval_is_of_what_its_win_rate_counts() -> None:
    outcomes, voices = [[1.0] * 18 + [0.0] * 4], [*("a" * 18), *"bcde"]
    for level, rate, n in ((0.05, 0.2, 5), (None, 18 / 22, 22)):
        found = decide(outcomes, voices, level=level, win_rate=0.53)
        assert found.win_rate == pytest.approx(rate)
        assert found.interval == pytest.approx(wilson(rate, n, 0.95))
