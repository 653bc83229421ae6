"""The cognitive gap: a rule against a list or its best pair, the least of a log's, logs' mean."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from langchain_uno.learning.gap import cluster_gap, cognitive_gap, count_questions
from langchain_uno.records import Rule, RuleSet
from tests.unit_tests.learning.toy_language import ToyReranker


def rules(run_id: str, wanted: list[str], guessed: list[str]) -> RuleSet:
    return RuleSet(
        run_id=run_id,
        with_feedback=[Rule(text=t) for t in wanted],
        without_feedback=[Rule(text=t, source="prior") for t in guessed],
    )


def test_a_covered_rule_is_not_new_and_a_foreign_one_is() -> None:
    known, foreign, half = cognitive_gap(
        [
            rules("a", ["use bullets"], ["sing", "use bullets"]),
            rules("b", ["use bullets"], ["sing", "dance"]),
            rules("c", ["use bullets"], ["use numbers", "dance"]),
        ],
        ToyReranker(),
    )
    assert known.novelty == 0.0
    assert foreign.novelty == 1.0
    assert half.novelty == 0.5


def test_a_logs_novelty_is_the_minimum_over_its_rules() -> None:
    [one] = cognitive_gap([rules("a", ["fly", "sing"], ["sing"])], ToyReranker())
    assert one.novelty == 0.0


def test_a_rule_is_held_against_the_whole_list_or_against_every_pair() -> None:
    class Split(ToyReranker):
        """Sees in a list what it sees in no single rule."""

        def covered_by_list(self, items, on_done=None):  # type: ignore[no-untyped-def]
            super().covered_by_list(items, on_done)
            return np.full(len(items), 0.75, np.float32)

    sets = [rules("a", ["sing loudly"], ["sing", "loudly"]), rules("b", ["fly"], ["sing"])]
    whole, pairs = Split(), Split()
    assert [s.novelty for s in cognitive_gap(sets, whole, over="list")] == [0.25, 0.25]
    assert whole.asked == []
    assert whole.asked_of_lists == [("sing loudly", ("sing", "loudly")), ("fly", ("sing",))]
    assert [s.novelty for s in cognitive_gap(sets, pairs, over="pairs")] == [0.5, 1.0]
    assert pairs.asked_of_lists == []
    assert pairs.asked == [("sing loudly", "sing"), ("sing loudly", "loudly"), ("fly", "sing")]


def test_logs_that_lack_a_list_have_no_novelty_and_do_not_count() -> None:
    sets = cognitive_gap(
        [rules("a", [], ["sing"]), rules("b", ["sing"], []), rules("c", ["fly"], ["sing"])],
        ToyReranker(),
    )
    assert [s.novelty for s in sets] == [None, None, 1.0]
    assert cluster_gap(sets) == (1.0, 1)
    assert cluster_gap(sets[:2]) == (None, 0)  # unknown, which is not low
    assert cluster_gap([]) == (None, 0)


def test_a_clusters_gap_is_the_mean() -> None:
    sets = cognitive_gap(
        [rules("a", ["fly"], ["sing"]), rules("b", ["sing"], ["sing"])], ToyReranker()
    )
    gap, n = cluster_gap(sets)
    assert gap == pytest.approx(0.5)
    assert n == 2


@pytest.mark.parametrize(("over", "questions"), [("list", 1), ("pairs", 2)])
def test_equal_questions_are_asked_once_and_the_input_is_not_changed(
    over: Literal["list", "pairs"], questions: int
) -> None:
    reranker, done = ToyReranker(), []
    sets = [rules(str(i), ["fly"], ["sing", "dance"]) for i in range(4)]
    out = cognitive_gap(sets, reranker, done.append, over=over)
    assert len(reranker.asked + reranker.asked_of_lists) == questions
    assert count_questions(sets, over) == questions == sum(done)
    assert all(s.novelty is None for s in sets)
    assert all(s.novelty == 1.0 for s in out)


def test_nothing_is_asked_when_there_is_nothing_to_ask() -> None:
    reranker = ToyReranker()
    assert cognitive_gap([rules("a", [], [])], reranker)[0].novelty is None
    assert not reranker.asked and not reranker.asked_of_lists
