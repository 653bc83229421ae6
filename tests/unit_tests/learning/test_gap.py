"""The cognitive gap: maximum over pairs, minimum over rules, mean over logs."""

from __future__ import annotations

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


def test_or_the_mean_which_does_not_fall_with_the_number_of_wishes() -> None:
    logs = [rules("a", ["fly", "sing"], ["sing"]), rules("b", ["fly"], ["sing"])]
    both = cognitive_gap(logs, ToyReranker(), over_rules="mean")
    assert [s.novelty for s in both] == [0.5, 1.0]


def test_logs_that_lack_a_list_have_no_novelty_and_do_not_count() -> None:
    sets = cognitive_gap(
        [rules("a", [], ["sing"]), rules("b", ["sing"], []), rules("c", ["fly"], ["sing"])],
        ToyReranker(),
    )
    assert [s.novelty for s in sets] == [None, None, 1.0]
    assert cluster_gap(sets) == (1.0, 1)
    assert cluster_gap(sets[:2]) == (0.0, 0)
    assert cluster_gap([]) == (0.0, 0)


def test_a_clusters_gap_is_the_mean() -> None:
    sets = cognitive_gap(
        [rules("a", ["fly"], ["sing"]), rules("b", ["sing"], ["sing"])], ToyReranker()
    )
    gap, n = cluster_gap(sets)
    assert gap == pytest.approx(0.5)
    assert n == 2


def test_equal_questions_are_asked_once_and_the_input_is_not_changed() -> None:
    reranker, done = ToyReranker(), []
    sets = [rules(str(i), ["fly"], ["sing", "dance"]) for i in range(4)]
    out = cognitive_gap(sets, reranker, done.append)
    assert len(reranker.asked) == 2 == count_questions(sets) == sum(done)
    assert all(s.novelty is None for s in sets)
    assert all(s.novelty == 1.0 for s in out)


def test_nothing_is_asked_when_there_is_nothing_to_ask() -> None:
    reranker = ToyReranker()
    assert cognitive_gap([rules("a", [], [])], reranker)[0].novelty is None
    assert not reranker.asked
