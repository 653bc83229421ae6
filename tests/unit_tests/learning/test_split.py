"""Held-out users, held-out queries, and nothing on both sides."""

from __future__ import annotations

import random
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_uno.learning.split import Split, people_for, query_key, split_logs
from langchain_uno.records import Interaction, voices_of
from tests.unit_tests.learning.toy_language import log


def of(users: list[str | None], queries: list[str] | None = None) -> list[Interaction]:
    texts = queries or [f"query {i}" for i in range(len(users))]
    return [
        log(f"r{i}", q, "a", user_id=u) for i, (u, q) in enumerate(zip(users, texts, strict=True))
    ]


def divide(logs: list[Interaction], held_out: float, seed: int, **more: Any) -> Split:
    """Split with each log's own voice; for the share alone unless told otherwise."""
    return split_logs(logs, voices_of(logs), held_out, seed, **{"deciding": 0, **more})


def test_whole_users_are_held_out() -> None:
    logs = of([f"user-{i % 8}" for i in range(40)])
    split = divide(logs, 0.25, seed=3)
    who = {i.run_id: i.user_id for i in logs}
    assert len(split.verify) == 10
    assert not {who[r] for r in split.train} & {who[r] for r in split.verify}
    assert len(split.train) + len(split.verify) == 40


def test_so_many_people_are_enough_and_one_fewer_is_not() -> None:
    for held, share, people in ((5, 0.2, 10), (6, 0.2, 12), (8, 0.2, 24), (10, 0.2, 50)):
        assert people_for(held, share) == people
        for n, enough in ((people, True), (people - 1 - (held == 10) * 2, False)):
            split = divide(of([f"user-{i}" for i in range(n)]), share, 1, deciding=8)
            assert (len(split.verify) >= held) == enough, (held, n)


def test_seeded_and_independent_of_the_order() -> None:
    logs = of([f"user-{i % 8}" for i in range(40)])
    shuffled = random.Random(1).sample(logs, len(logs))
    first, again = divide(logs, 0.25, seed=3), divide(shuffled, 0.25, seed=3)
    assert set(first.verify) == set(again.verify)
    assert any(set(divide(logs, 0.25, s).verify) != set(first.verify) for s in range(4, 8))


def test_one_user_is_split_by_query() -> None:
    split = divide(of(["only"] * 10), 0.2, seed=0)
    assert len(split.verify) == 2
    assert len(split.train) == 8


def test_logs_of_nobody_known_are_held_out_by_query() -> None:
    logs = of([None] * 10, [f"query {i % 5}" for i in range(10)])
    split = divide(logs, 0.2, seed=0)
    text = {i.run_id: i.query for i in logs}
    assert len(split.verify) == 2
    assert not {text[r] for r in split.train} & {text[r] for r in split.verify}


def test_a_query_that_everybody_asks_is_not_verified_on() -> None:
    logs = of(
        [f"user-{i}" for i in range(10)], ["Hello  there", "hello there"] * 2 + list("abcdef")
    )
    for seed in range(20):
        split = divide(logs, 0.3, seed)
        text = {i.run_id: query_key(i) for i in logs}
        assert not {text[r] for r in split.train} & {text[r] for r in split.verify}


def test_people_who_ask_the_same_are_held_out_together() -> None:
    logs = of([f"user-{i}" for i in range(40)], [f"query {i % 20}" for i in range(40)])
    for seed in range(20):
        split = divide(logs, 0.2, seed, deciding=8)
        assert len(split.verify) == 8
        assert len(split.train) == 32
        assert len(divide(logs, 0.2, seed, teachers={"r0"}, deciding=8).verify) == 8


def test_a_question_of_most_people_leaves_the_others_to_verify_on() -> None:
    logs = of([f"user-{i}" for i in range(40)], ["the same"] * 24 + list("abcdefghijklmnop"))
    for seed in range(20):
        split = divide(logs, 0.2, seed, deciding=8)
        assert len(split.verify) == 8
        assert len(split.train) == 32


def test_people_who_share_all_their_questions_are_split_by_query() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        queries = [f"query {chance.randrange(30)}" for _ in range(200)]
        logs = of([f"user-{i // 2}" for i in range(200)], queries)
        who = {i.run_id: i.user_id for i in logs}
        split = divide(logs, 0.2, seed, deciding=8)
        assert len({who[r] for r in split.verify}) >= 20
        assert len(split.train) + len(split.verify) == 200


def test_time_grows_with_the_people_who_ask_the_same_not_with_their_square() -> None:
    logs = of([f"user-{i}" for i in range(10_000)], ["same"] * 10_000)
    start = time.process_time()
    assert divide(logs, 0.2, seed=0).verify == []
    assert time.process_time() - start < 4.0


def test_nothing_to_hold_out_when_all_ask_the_same() -> None:
    split = divide(of(["a", "b", "c"], ["same"] * 3), 0.2, seed=0)
    assert split.verify == []
    assert split.train
    assert divide(of(["a"]), 0.2, seed=0).train == ["r0"]


def test_one_heavy_user_does_not_swallow_the_training_side() -> None:
    logs = of(["heavy"] * 16 + ["light-1", "light-2", "light-3", "light-4"])
    for seed in range(20):
        split = divide(logs, 0.2, seed)
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
    logs = of(
        [u for u, _ in rows], [f"Query  {q}" if q % 2 else f"query {q // 2}" for _, q in rows]
    )
    split = divide(logs, held_out, seed)
    text = {i.run_id: query_key(i) for i in logs}
    parts = [*split.train, *split.verify]
    assert len(set(parts)) == len(parts)
    assert {text[r] for r in text.keys() - {*parts}} <= {text[r] for r in split.train}
    assert not {text[r] for r in split.train} & {text[r] for r in split.verify}
    assert bool(logs) == bool(split.train)


def test_people_who_flood_a_cluster_leave_the_others_in_training() -> None:
    users: list[str | None] = [f"flood-{i % 5}" for i in range(30)]
    users += [f"user-{i}" for i in range(14)]
    honest = {f"r{i}" for i in range(30, 44)}
    for deciding in (0, 8):
        split = divide(of(users), 0.25, seed=0, deciding=deciding)
        assert len(honest & set(split.train)) >= 8
        assert 8 <= len(split.verify) <= 16


def test_half_of_the_people_stay_in_training_however_little_they_write() -> None:
    logs = of(["editor"] * 40 + [f"user-{i}" for i in range(9)])
    for seed in range(10):
        split = divide(logs, 0.25, seed, deciding=8)
        assert len(split.verify) == 5
        assert {"r0", "r39"} < set(split.train)


def test_case_and_spaces_do_not_make_another_query() -> None:
    a, b, c = of(["u"] * 3, ["Hello  there\n you", "hello THERE you", "hello there, you"])
    assert query_key(a) == query_key(b) != query_key(c)


def test_enough_people_to_decide_are_held_back_where_there_are_enough() -> None:
    def held(people: int) -> int:
        logs = of([f"user-{i % people}" for i in range(people)])
        split = divide(logs, 0.1, 0, deciding=8)
        assert len(split.train) >= len(logs) / 2
        return len(split.verify)

    assert [held(n) for n in (40, 24, 21, 18, 12, 11, 6)] == [8, 8, 7, 6, 6, 5, 3]
    logs = of([f"user-{i}" for i in range(40)])
    assert len(divide(logs, 0.1, 0, deciding=0).verify) == 4
    assert len(divide(logs, 0.5, 0, deciding=8).verify) == 20


def test_people_with_few_logs_are_held_back_first_to_decide() -> None:
    logs = of(["heavy-1"] * 10 + ["heavy-2"] * 10 + [f"light-{i}" for i in range(10)])
    who = {i.run_id: i.user_id or "" for i in logs}
    for seed in range(10):
        split = divide(logs, 0.1, seed, deciding=8)
        assert len(split.verify) == 6  # of twelve
        assert all(who[r].startswith("light") for r in split.verify)


def test_who_taught_a_module_stays_in_training() -> None:
    logs = of([f"user-{i % 6}" for i in range(24)])
    for seed in range(10):
        split = divide(logs, 0.3, seed, teachers={"r0", "r1", "r2", "r3"})
        who = {i.run_id: i.user_id for i in logs}
        assert {who[r] for r in split.verify} <= {"user-4", "user-5"}
        assert split.verify
    everybody = {i.run_id for i in logs}
    assert divide(logs, 0.3, 0, teachers=everybody).verify == []
