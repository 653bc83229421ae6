"""Judging: what is asked, averages, and answers that can't be read."""

from __future__ import annotations

import pytest

from langchain_uno.models.judge import JudgeItem, judge, judge_averaged, stable_seed
from langchain_uno.recipe import Recipe, VerifySettings
from langchain_uno.records import Message
from tests.unit_tests.learning.toy_language import ToyEngine, ToyPrompts, plain

RECIPE = Recipe(
    name="test",
    temperature=0.7,
    top_p=0.8,
    role_tokens=77,
    verify=VerifySettings(judgements=3),
)
ASK = [Message(role="user", content="q")]


def test_scores_follow_the_rules() -> None:
    items = [JudgeItem(ASK, ["a", "b"], text) for text in ("plain", "[a]", "[a] [b]")]
    assert judge(items, ToyEngine(), ToyPrompts(), RECIPE) == [1.0, 5.5, 10.0]


def test_empty_answers_are_worst_without_asking_and_equal_items_are_asked_once() -> None:
    engine, done = ToyEngine(), []
    items = [JudgeItem(ASK, ["a"], t) for t in ("[a]", "  ", "[a]")]
    assert judge(items, engine, ToyPrompts(), RECIPE, done.append) == [10.0, 1.0, 10.0]
    assert len(engine.asked) == 1
    assert sum(done) == 3


def test_unreadable_judgements_are_none() -> None:
    texts = iter(["no number here", "fine 9", "bad 3"])
    engine = ToyEngine(lambda what, request: next(texts))
    items = [JudgeItem(ASK, ["a"], t) for t in "xyz"]
    assert judge(items, engine, ToyPrompts(), RECIPE) == [None, 9.0, 3.0]


def test_the_average_has_one_greedy_and_further_sampled_judgements() -> None:
    scores = iter(["g 4", "s 7", "unreadable"])
    engine = ToyEngine(lambda what, request: next(scores))
    done: list[int] = []
    [score] = judge_averaged(
        [JudgeItem(ASK, ["a"], "x")], engine, ToyPrompts(), RECIPE, done.append
    )
    assert score == pytest.approx(5.5)
    assert [r.sampling.temperature for _, r in engine.asked] == [0.0, 0.7, 0.7]
    assert [r.sampling.top_p for _, r in engine.asked] == [1.0, 0.8, 0.8]
    assert {r.sampling.max_tokens for _, r in engine.asked} == {77}
    seeds = [r.sampling.seed for _, r in engine.asked]
    assert seeds[0] is None
    assert seeds[1] != seeds[2]
    assert sum(done) == 3


def test_an_item_that_no_judgement_could_be_read_for_is_none() -> None:
    engine = ToyEngine(
        lambda what, request: "?" if what["answer"] == "bad" else plain(what, request)
    )
    items = [JudgeItem(ASK, ["a"], t) for t in ("bad", "[a]")]
    assert judge_averaged(items, engine, ToyPrompts(), RECIPE) == [None, 10.0]


def test_seeds_are_stable_and_differ() -> None:
    assert stable_seed(0, "a", "b") == stable_seed(0, "a", "b") == 2045252555
    assert len({stable_seed(s, p) for s in (0, 1) for p in ("a", "b", "ab")}) == 6
