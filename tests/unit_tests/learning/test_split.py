"""Held-out users, held-out queries, and nothing on both sides."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_uno.learning.split import split_logs
from langchain_uno.records import Interaction
from tests.unit_tests.learning.toy_language import log


def of(users: list[str | None], queries: list[str] | None = None) -> list[Interaction]:
    texts = queries or [f"query {i}" for i in range(len(users))]
    return [
        log(f"r{i}", q, "a", user_id=u) for i, (u, q) in enumerate(zip(users, texts, strict=True))
    ]


def test_whole_users_are_held_out() -> None:
    logs = of([f"user-{i % 8}" for i in range(40)])
    split = split_logs(logs, 0.25, seed=3)
    who = {i.run_id: i.user_id for i in logs}
    assert split.by == "user"
    assert len(split.verify) == 10
    assert not {who[r] for r in split.train} & {who[r] for r in split.verify}
    assert len(split.train) + len(split.verify) == 40


def test_seeded_and_independent_of_the_order() -> None:
    logs = of([f"user-{i % 8}" for i in range(40)])
    shuffled = random.Random(1).sample(logs, len(logs))
    first, again = split_logs(logs, 0.25, seed=3), split_logs(shuffled, 0.25, seed=3)
    assert set(first.verify) == set(again.verify)
    assert any(set(split_logs(logs, 0.25, s).verify) != set(first.verify) for s in range(4, 8))


def test_one_user_is_split_by_query() -> None:
    split = split_logs(of(["only"] * 10), 0.2, seed=0)
    assert split.by == "query"
    assert len(split.verify) == 2
    assert len(split.train) == 8


def test_logs_of_nobody_known_are_held_out_by_query() -> None:
    logs = of([None] * 10, [f"query {i % 5}" for i in range(10)])
    split = split_logs(logs, 0.2, seed=0)
    text = {i.run_id: i.query for i in logs}
    assert len(split.verify) == 2
    assert not {text[r] for r in split.train} & {text[r] for r in split.verify}
    assert not split.left_out


def test_a_query_that_everybody_asks_is_not_verified_on() -> None:
    logs = of(
        [f"user-{i}" for i in range(10)], ["Hello  there", "hello there"] * 2 + list("abcdef")
    )
    for seed in range(20):
        split = split_logs(logs, 0.3, seed)
        text = {i.run_id: " ".join(i.query.split()).casefold() for i in logs}
        assert not {text[r] for r in split.train} & {text[r] for r in split.verify}


def test_nothing_to_hold_out_when_all_ask_the_same() -> None:
    split = split_logs(of(["a", "b", "c"], ["same"] * 3), 0.2, seed=0)
    assert split.verify == []
    assert len(split.train) + len(split.left_out) == 3
    assert split_logs(of(["a"]), 0.2, seed=0).train == ["r0"]


def test_one_heavy_user_does_not_swallow_the_training_side() -> None:
    logs = of(["heavy"] * 16 + ["light-1", "light-2", "light-3", "light-4"])
    for seed in range(20):
        split = split_logs(logs, 0.2, seed)
        assert "r0" in split.train
        assert 1 <= len(split.verify) <= 6


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(0, 5)), max_size=30),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_always_disjoint_and_complete(
    rows: list[tuple[str | None, int]], held_out: float, seed: int
) -> None:
    logs = of([u for u, _ in rows], [f"query {q}" for _, q in rows])
    split = split_logs(logs, held_out, seed)
    parts = [*split.train, *split.verify, *split.left_out]
    assert sorted(parts) == sorted(i.run_id for i in logs)
    text = {i.run_id: i.query for i in logs}
    assert not {text[r] for r in split.train} & {text[r] for r in split.verify}
    assert bool(logs) == bool(split.train)


def test_people_who_flood_a_cluster_leave_the_others_in_training() -> None:
    users: list[str | None] = [f"flood-{i % 5}" for i in range(30)]
    users += [f"user-{i}" for i in range(14)]
    split = split_logs(of(users), 0.25, seed=0)
    honest = {f"r{i}" for i in range(30, 44)}
    assert split.by == "user"
    assert len(honest & set(split.train)) >= 8
    assert 4 <= len(split.verify) <= 8


def test_where_few_logs_can_be_verified_on_enough_of_them_are_held_back() -> None:
    logs = of([f"user-{i}" for i in range(30)])
    edited = {f"r{i}" for i in range(0, 30, 3)}
    for seed in range(10):
        plain = split_logs(logs, 0.25, seed)
        split = split_logs(logs, 0.25, seed, telling=edited)
        assert len(edited & set(split.verify)) >= 5
        assert len(edited & set(split.train)) >= 3
        assert len(split.verify) == len(plain.verify) == 8
    two = {"r0", "r1"}  # one to learn from, one to verify on: never both held back
    for seed in range(10):
        split = split_logs(logs[:6], 0.25, seed, telling=two)
        assert two & set(split.verify) and len(split.train) >= 3
