"""Revising: two kinds of input, seeds, and what is dropped."""

from __future__ import annotations

from langchain_uno.learning.pairs import count_work, revise
from langchain_uno.recipe import PairSettings, Recipe
from langchain_uno.records import Rule, RuleSet
from tests.unit_tests.learning.toy_language import ToyEngine, ToyPrompts, log

RECIPE = Recipe(name="test", temperature=0.8, pairs=PairSettings(candidates=2))


def rule_set(run_id: str, own: list[str], wanted: list[str] | None = None) -> RuleSet:
    return RuleSet(
        run_id=run_id,
        with_feedback=[Rule(text=t) for t in own],
        wanted=[Rule(text=t, source="aggregated") for t in wanted or []],
    )


def test_candidates_come_from_raw_feedback_and_from_rules() -> None:
    engine, done = ToyEngine(), []
    logs, rules = [log("a", "q", "old", "please sing")], [rule_set("a", ["sing"])]
    [candidates] = revise(logs, rules, engine, ToyPrompts(), RECIPE, done.append)
    # The second try of either is equal and is dropped.
    assert candidates == ["fresh [sing]", "old [sing]"]
    assert engine.roles() == ["fresh", "fresh", "edit", "edit"]
    assert all("answer" not in what for what, _ in engine.asked[:2])
    assert len({r.sampling.seed for _, r in engine.asked}) == 4
    assert {r.sampling.temperature for _, r in engine.asked} == {0.8}
    assert {r.sampling.max_tokens for _, r in engine.asked} == {RECIPE.revision_tokens}
    # With as many judgements, and one of the logged answer.
    assert sum(done) == 4 and count_work(logs, rules, RECIPE) == 9


def test_seeds_are_the_same_in_a_second_run_and_follow_the_recipes() -> None:
    logs, rules = [log("a", "q", "old", "please sing")], [rule_set("a", ["sing"])]

    def seeds(recipe: Recipe) -> list[int | None]:
        engine = ToyEngine()
        revise(logs, rules, engine, ToyPrompts(), recipe)
        return [r.sampling.seed for _, r in engine.asked]

    assert seeds(RECIPE) == seeds(RECIPE)
    assert seeds(RECIPE) != seeds(RECIPE.model_copy(update={"seed": 1}))


def test_aggregated_rules_are_the_ones_that_are_used() -> None:
    logs = [log("a", "q", "old", "please sing")]
    [candidates] = revise(
        logs, [rule_set("a", ["sing"], ["sing", "dance"])], ToyEngine(), ToyPrompts(), RECIPE
    )
    assert candidates[-1] == "old [sing] [dance]"


def test_no_rules_no_candidates() -> None:
    engine = ToyEngine()
    logs = [log("a", "q", "old", "thanks")]
    assert revise(logs, [rule_set("a", [])], engine, ToyPrompts(), RECIPE) == [[]]
    assert not engine.asked


def test_a_language_that_the_filter_let_pass_is_revised() -> None:
    logs = [log("b", "q", "old", "please sing", language="zh")]
    (made,) = revise(logs, [rule_set("b", ["sing"])], ToyEngine(), ToyPrompts(), RECIPE)
    assert "old [sing]" in made


def test_empty_cut_off_and_unchanged_candidates_are_dropped() -> None:
    logs, rules = [log("a", "q", "old", "please sing")], [rule_set("a", ["sing"])]
    for text in ("", "  ", "old", " old "):
        engine = ToyEngine(lambda what, request, text=text: text)
        assert revise(logs, rules, engine, ToyPrompts(), RECIPE) == [[]]
    engine = ToyEngine()
    engine.finish_reason = "length"
    assert revise(logs, rules, engine, ToyPrompts(), RECIPE) == [[]]
