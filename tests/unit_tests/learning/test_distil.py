"""Distilling: what is asked, what is kept, what is counted."""

from __future__ import annotations

import pytest

from langchain_uno.learning.distil import GUESSED_RULES, distil, edits_to_read, unique_rules
from langchain_uno.models.prompts.bundled import BundledPromptSet
from langchain_uno.models.prompts.real import RealPromptSet
from langchain_uno.recipe import Recipe
from langchain_uno.records import Feedback
from tests.unit_tests.learning.toy_language import ToyEngine, ToyPrompts, log

RECIPE = Recipe(name="test")


def test_rules_with_and_without_feedback() -> None:
    logs = [log("a", "q (guess: be brief)", "text", "please use bullets; please be brief")]
    [rules] = distil(logs, ToyEngine(), ToyPrompts(), RECIPE)
    assert [r.text for r in rules.with_feedback] == ["use bullets", "be brief"]
    assert [r.text for r in rules.without_feedback] == ["be brief"]
    assert {r.source for r in rules.with_feedback} == {"feedback"}
    assert {r.source for r in rules.without_feedback} == {"prior"}


def test_only_logs_with_words_are_asked_and_guesses_only_where_there_are_rules() -> None:
    silent = log("s", "q1", "text", extra=[Feedback(run_id="s", key="score", score=0.0)])
    thanks = log("t", "q2", "text", "thanks")
    asking = log("p", "q3", "text", "please use bullets")
    engine, done = ToyEngine(), []
    out = distil([silent, thanks, asking], engine, ToyPrompts(), RECIPE, done.append)
    assert [r.run_id for r in out] == ["s", "t", "p"]
    assert [len(r.with_feedback) for r in out] == [0, 0, 1]
    assert engine.roles() == ["distil", "distil", "predict"]
    assert [r.outcome for r in out] == ["no_words", "empty", "rules"]
    assert sum(done) == 6  # every log twice


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_edit_is_quoted_data(language: str) -> None:
    prompts, edit = RealPromptSet(), "1. Unplug it.\n2. Wait.\n\nRules: []"
    turn = log("e", "How?", "Wait.", extra=[Feedback(run_id="e", correction=edit)])
    [worded] = edits_to_read([turn.model_copy(update={"language": language})], prompts)
    shown = worded[-1].content
    assert "\n> 1. Unplug it.\n> 2. Wait.\n> \n> Rules: []" in shown
    assert shown.index("> How?") < shown.index("> Wait.") < shown.index("> 1. Unplug")
    assert edits_to_read([turn], BundledPromptSet()) == [[]]


def test_unparsable_text_gives_no_rules_and_is_told() -> None:
    logs = [log("a", "q", "text", "garble"), log("b", "q", "text", "please sing")]
    out = distil(logs, ToyEngine(), ToyPrompts(), RECIPE)
    assert [len(r.with_feedback) for r in out] == [0, 1]
    assert [r.outcome for r in out] == ["unparsable", "rules"]


def test_a_log_that_the_filters_keep_is_learnt_from_in_any_language() -> None:
    """They leave out a language without prompts, unless the recipe ignores that."""
    german = log("d", "Wie?", "text", "please sing", language="de")
    [rules] = distil([german], ToyEngine(), ToyPrompts(("en",)), RECIPE)
    assert (rules.outcome, [rule.text for rule in rules.with_feedback]) == ("rules", ["sing"])
    edited = log("e", "Wie?", "text", extra=[Feedback(run_id="e", correction="text [sing]")])
    edited = edited.model_copy(update={"language": "de"})
    assert all(edits_to_read([edited], ToyPrompts(("en",))))


def test_equal_prompts_are_asked_once_and_progress_is_whole() -> None:
    logs = [log(str(i), "q", "text", "please sing") for i in range(5)]
    engine, done = ToyEngine(), []
    out = distil(logs, engine, ToyPrompts(), RECIPE, done.append)
    assert engine.roles() == ["distil", "predict"]
    assert all(len(r.with_feedback) == 1 for r in out)
    assert sum(done) == 10


def test_rules_are_unique_and_guesses_capped() -> None:
    assert unique_rules(["Use  bullets.", "use bullets", "", " ", "Sing"]) == [
        "Use bullets.",
        "Sing",
    ]
    guesses = "; ".join(f"rule {i}" for i in range(9))
    logs = [log("a", f"q (guess: {guesses})", "text", "please sing; please SING")]
    [rules] = distil(logs, ToyEngine(), ToyPrompts(), RECIPE)
    assert len(rules.with_feedback) == 1
    assert len(rules.without_feedback) == GUESSED_RULES == 5


def test_the_guess_is_the_base_models_even_with_a_teacher() -> None:
    teacher, base = ToyEngine(), ToyEngine()
    logs = [log("a", "q", "text", "please sing")]
    distil(logs, teacher, ToyPrompts(), RECIPE, predictor=base)
    assert teacher.roles() == ["distil"]
    assert base.roles() == ["predict"]
