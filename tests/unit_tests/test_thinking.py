"""A model that thinks aloud before everything it says: no role takes its thoughts for an answer."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.learning.acts import edited_pairs
from langchain_uno.learning.distil import distil
from langchain_uno.learning.pairs import build_pairs, revise
from langchain_uno.models.judge import LOWEST, JudgeItem, judge
from langchain_uno.models.loading import load_prompt_set
from langchain_uno.models.protocols import GenerateRequest, Generation, OnDone
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Feedback, Interaction, Message, Rule, RuleSet
from langchain_uno.reflect import reflect, run_together
from langchain_uno.trainers import verifier
from langchain_uno.trainers.verifier import Exam, HeldOut

THOUGHT = '<think>\nSCRATCH: perhaps ["no"]?\n1. {"score": 1}\n</think>\n\n'
PROMPTS, RECIPE = load_prompt_set("real"), load_recipe("paper")


class Thinker:
    """Answers "Good." and judges that 9, and anything else 2; ``says`` replaces free answers."""

    def __init__(self, says: str = "Good.") -> None:
        self.says = says
        self.asked: list[str] = []

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: OnDone | None = None
    ) -> list[Generation]:
        return [Generation(THOUGHT + self._said(request)) for request in requests]

    def _said(self, request: GenerateRequest) -> str:
        prompt = "\n".join(m.content for m in request.messages)
        self.asked.append(prompt)
        if (request.json_schema or {}).get("type") == "array":
            return '["Be brief."]'
        if request.json_schema is not None:
            return f'{{"reason": "", "score": {9 if "Good." in prompt else 2}}}'
        return "1. Be brief." if request.adapter is not None else self.says


def a_log(**more: Any) -> Interaction:
    run_id = str(uuid.uuid4())
    said = Feedback(run_id=run_id, **{"comment": "shorter", **more})
    asked = [Message(role="user", content="How do I reset it?")]
    return Interaction(run_id=run_id, messages=asked, answer="Long.", feedback=[said])


def rules_of(log: Interaction) -> RuleSet:
    return RuleSet(run_id=log.run_id, with_feedback=[Rule(text="Be brief.")])


def test_rules_candidates_and_pairs() -> None:
    log, model = a_log(), Thinker()
    assert [r.text for r in distil([log], model, PROMPTS, RECIPE)[0].with_feedback] == ["Be brief."]
    assert revise([log], [rules_of(log)], model, PROMPTS, RECIPE) == [["Good."]]
    [pair] = build_pairs([log], [rules_of(log)], model, model, PROMPTS, RECIPE).pairs
    assert (pair.chosen, pair.rejected, pair.chosen_score) == ("Good.", "Long.", 9)
    assert not any("SCRATCH" in prompt for prompt in model.asked)


@pytest.mark.parametrize("says", ["", "<think>I was cut off"])
def test_a_candidate_that_is_only_thought_is_empty(says: str) -> None:
    log, model = a_log(), Thinker(says)
    assert revise([log], [rules_of(log)], model, PROMPTS, RECIPE) == [[]]
    assert build_pairs([log], [rules_of(log)], model, model, PROMPTS, RECIPE).pairs == []


def test_an_edit_is_chosen_without_its_thoughts() -> None:
    [pair] = edited_pairs([a_log(comment=None, correction=THOUGHT + "Good.")])
    assert pair.chosen == "Good."
    assert edited_pairs([a_log(comment=None, correction=THOUGHT)]) == []


def test_the_judge_sees_no_thoughts() -> None:
    model = Thinker()
    asked = [Message(role="user", content="How?")]
    items = [JudgeItem(asked, ["Be brief."], answer) for answer in (THOUGHT + "Good.", THOUGHT)]
    good, empty = judge(items, model, PROMPTS, RECIPE)
    assert (good, empty) == (9, LOWEST)
    assert len(model.asked) == 1 and "SCRATCH" not in model.asked[0]


def test_drafts_and_critiques() -> None:
    model = Thinker()
    request = GenerateRequest([Message(role="user", content="How do I reset it?")])
    [made] = run_together([reflect(request, PROMPTS, critic="critic")], model)
    assert made.suggestions == ("Be brief.",) and made.revised
    assert not any("SCRATCH" in prompt for prompt in model.asked[1:])
    [made] = run_together([reflect(request, PROMPTS, critic="critic")], Thinker(""))
    assert not made.revised and not made.suggestions, "there is no draft to criticise"


def test_the_verifier_compares_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @contextmanager
    def loaded(engine: Any, path: Path) -> Iterator[str]:
        yield "critic"

    monkeypatch.setattr(verifier, "_loaded", loaded)
    model = Thinker()
    exam = Exam(model, model, PROMPTS, RECIPE)
    asked = [Message(role="user", content="How do I reset it?")]
    side = exam.answer_as_base([HeldOut("1", asked, ["Be brief."], "en", "ann")])
    assert [(said.text, said.score) for said in side.said] == [("Good.", 9)]
    [made] = exam.by_critic(side.items, [None], tmp_path)
    assert (made.text, made.draft) == ("Good.", "Good.")
