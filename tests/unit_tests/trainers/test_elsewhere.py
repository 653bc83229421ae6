"""A module that gets worse where nobody asked for anything does not ship."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.models.protocols import GenerateRequest, Generation
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Message, ModuleKind, VerifierReport
from langchain_uno.trainers.elsewhere import (
    Instruction,
    base_answers,
    instructions,
    look_elsewhere,
)
from langchain_uno.trainers.verifier import Exam, HeldOut

KEPT = (
    "- apple\n- pear\n- fig", "* cod\n* crab\n* whale\n* eel", "1. You learn.\n2. You rest.",
    "Paris is the capital of France.", "Earth", "12", "24.", "7", "A week has seven days.",
    "Rain falls. Rain is wet.", "The moon is bright.", "The ocean is blue and wide.",
    "The king lived long ago. He was kind.", "A bird sat in the green garden.",
    "She played piano by the river.", "A cat is a small furry animal.", "It tells the time.",
    '{"name": "Ann", "age": 30}', '```json\n{"colour": "white"}\n```', "HELLO", "bread is warm.",
    "Dear Tom, thank you for the book.", "Trains are fast. That is all.", "早上好。", "Thank you.",
    "Cold.", "table", "- 苹果\n- 梨\n- 桃", "1. 有益健康。\n2. 解渴。", "中国的首都是北京。", "17",
    "30。", "春天来了。花开了。", "月亮很亮。", "山下有一条河。", "猫是可爱的动物。",
    '{"name": "李明", "city": "上海"}', "晚安", "The sky is blue.", "小",
)  # fmt: skip
"""An answer that follows each instruction."""
RIGHT = {one.request: answer for one, answer in zip(instructions(), KEPT, strict=True)}
BABBLE = "I am here to help you with your order."
MODULE = Path("/nowhere/module")


@pytest.mark.parametrize("one", instructions(), ids=lambda one: one.request[:30])
def test_each_instruction_is_kept_by_an_answer_that_follows_it_alone(one: Instruction) -> None:
    assert one.is_kept(f"\n{RIGHT[one.request]} ")
    assert not any(one.is_kept(answer) for answer in ("", "  ", BABBLE, "我不知道。"))


@pytest.mark.parametrize(
    ("checks", "kept", "not_kept"),
    [
        ({"items": 2}, "Two:\n- a\n2) b", "- a\n- b\n- c"),
        ({"words": ["a", ["b", "c"]]}, "A C", "b c"),
        ({"without": ["sea"]}, "salt", "a Seagull"),
        ({"sentences": 2}, "One! Two", "One."),
        ({"sentences": 2}, "一句。两句。", "一句。"),
        ({"most": 3}, "one two three", "one two three four"),
        ({"most": 3}, "三个字", "这四个字"),
        ({"json": ["a"]}, '```\n{"a": 1, "b": 2}\n```', '{"b": 2}'),
        ({"json": ["a"]}, '{"a": null}', "[1]"),
        ({"number": 12}, "7 + 5 = 12", "12 is not 13"),
        ({"case": "upper"}, "A B", "A b"),
        ({"case": "lower"}, "a b", "A b"),
        ({"begins": "Dear"}, "Dear me", "Oh Dear"),
        ({"ends": "all."}, "That is all.", "all. Bye"),
        ({"language": "zh"}, "你好，朋友", "hello, friend"),
        ({"words": ["x"], "most": 2}, "x y", "x y z"),
    ],
)
def test_checks(checks: Mapping[str, Any], kept: str, not_kept: str) -> None:
    one = Instruction("", "en", checks)
    assert one.is_kept(kept) and not one.is_kept(not_kept)


@pytest.mark.parametrize("checks", [{"json": ["a"]}, {"number": 3}])
def test_an_answer_that_no_program_can_read_is_not_kept(checks: Mapping[str, Any]) -> None:
    for answer in ("[" * 200_000, '{"a":' * 200_000, "1" * 5000):
        assert not Instruction("", "en", checks).is_kept(answer)


class Desk:
    """Answers as ``say`` of adapter and request; the judge scores an answer by its words."""

    fingerprint = "desk"

    def __init__(self, say: Callable[[bool, str], str]) -> None:
        self.say = say
        self.loaded: set[str] = set()
        self.asked: list[str] = []

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: Any = None
    ) -> list[Generation]:
        said = [request.messages[-1].content for request in requests]
        self.asked += said
        own = [request.adapter is not None for request in requests]
        return [Generation(self.say(*one)) for one in zip(own, said, strict=True)]

    def load_adapter(self, name: str, path: Path) -> None:
        self.loaded.add(name)

    def unload_adapter(self, name: str) -> None:
        self.loaded.remove(name)

    # The prompt set: the judge repeats the score that an answer asks for.

    def supports(self, language: str) -> bool:
        return language == "en"

    def judge_prompt(self, messages: Any, rules: Any, answer: str, language: str) -> list[Message]:
        return [Message(role="user", content=f"judge {answer[-1]}")]

    def judge_schema(self) -> None:
        return None

    def parse_judgement(self, text: str) -> float:
        return float(text)

    def critique_prompt(self, messages: Any, draft: str, language: str) -> list[Message]:
        return [Message(role="user", content=f"critique {draft}")]

    def parse_critique(self, text: str) -> list[str]:
        return [text] if text else []

    def revise_draft_prompt(
        self, messages: Any, draft: str, suggestions: Any, language: str
    ) -> list[Message]:
        return [Message(role="user", content=f"revise {draft}")]


def looked(
    say: Callable[[bool, str], str],
    kind: ModuleKind = "expert",
    strays: Sequence[HeldOut] = (),
    max_queries: int = 200,
) -> tuple[VerifierReport, Desk]:
    desk: Any = Desk(say)
    recipe = load_recipe("default")
    settings = {"judgements": 1, "max_queries": max_queries}
    verify = recipe.verify.model_copy(update=settings)
    exam = Exam(desk, desk, desk, recipe.model_copy(update={"verify": verify}))
    base = base_answers(exam)
    desk.asked.clear()
    own = VerifierReport(
        kind=kind, n=9, people=9, win_rate=1.0, interval=(0.5, 1.0), passed=True, reason="well"
    )
    report = look_elsewhere(exam, own, MODULE, base, strays)
    assert desk.loaded == set()
    return report, desk


def losing(count: int, winning: int = 0) -> Callable[[bool, str], str]:
    """The base keeps all but the first ``winning`` instructions; a module loses the last ones."""
    requests = list(RIGHT)
    gained, lost = requests[:winning], requests[len(requests) - count :]

    def say(module: bool, request: str) -> str:
        bad = request in (lost if module else gained)
        return BABBLE if bad else RIGHT.get(request, "")

    return say


@pytest.mark.parametrize(
    ("lost", "won", "passes"),
    [(0, 0, True), (4, 0, True), (5, 0, False), (5, 1, True), (7, 1, False)],
)
def test_a_module_that_forgets_general_instructions_does_not_ship(
    lost: int, won: int, passes: bool
) -> None:
    """One-sided sign test at 5 %: 1 of 16, 1 of 32, 7 of 64, 9 of 256."""
    report, _ = looked(losing(lost, won))
    found = report.elsewhere
    assert found is not None and report.passed is passes and bool(found.harm) is not passes
    assert (found.asked, found.kept, found.base_kept) == (40, 40 - lost, 40 - won)
    if not passes:
        told = f"general instructions: {40 - lost} of 40 kept, {40 - won} by the base"
        assert report.reason == f"worse elsewhere; {told}; well"
    else:
        assert report.reason == "well"


def test_a_base_that_keeps_too_few_instructions_has_nothing_to_lose() -> None:
    few = set(list(RIGHT)[:4])
    report, desk = looked(lambda own, request: RIGHT[request] if request in few else BABBLE)
    found = report.elsewhere
    assert report.passed and desk.asked == []
    assert found is not None and (found.asked, found.base_kept, found.people) == (0, 4, 0)


def test_a_critic_is_asked_by_its_whole_path_and_where_its_prompts_speak_the_language() -> None:
    def say(module: bool, said: str) -> str:
        if said.startswith("critique"):
            return "say more"
        return BABBLE if said.startswith("revise") else RIGHT[said]

    report, desk = looked(say, "critic")
    found = report.elsewhere
    english = sum(one.language == "en" for one in instructions())
    assert found is not None and not report.passed and found.win_rate is None
    assert found.kept == 40 - english and "of 40 kept, 40 by the base" in found.harm
    # The drafts are the base's answers that are there already.
    assert sum(one.startswith("critique") for one in desk.asked) == english
    assert all(one.split()[0] in ("critique", "revise") for one in desk.asked)


def strays(people: int) -> list[HeldOut]:
    """Held-out requests of other clusters, of so many people."""
    return [
        HeldOut(
            f"log-{n}", [Message(role="user", content=f"stray {n}")], ["Be brief."], voice=f"u{n}"
        )
        for n in range(people)
    ]


def scored(score: str) -> Callable[[bool, str], str]:
    def say(module: bool, said: str) -> str:
        if said.startswith("judge"):
            return said.split()[1]
        if said.startswith("stray"):
            return f"module {score}" if module else "base 5"
        return RIGHT[said]

    return say


@pytest.mark.parametrize(("score", "rate"), [("2", 0.0), ("5", 0.5), ("9", 1.0)])
def test_an_expert_that_does_worse_on_strays_does_not_ship(score: str, rate: float) -> None:
    report, _ = looked(scored(score), strays=strays(6))
    found = report.elsewhere
    assert found is not None and (found.people, found.win_rate) == (6, rate)
    assert report.passed is (rate > 0)
    if rate == 0:
        told = "strays from other clusters: win rate 0.00 against the base, 6 people"
        assert found.harm == told and report.win_rate == 1.0


def test_of_four_people_nothing_can_be_learnt_and_a_large_home_is_sampled() -> None:
    report, desk = looked(scored("2"), strays=strays(4))
    assert report.passed and report.elsewhere is not None and report.elsewhere.win_rate is None
    assert not any(one.startswith("stray") for one in desk.asked)
    for most, asked in ((200, 90), (7, 7)):
        _, desk = looked(scored("5"), strays=strays(90), max_queries=most)
        assert sum(one.startswith("stray") for one in desk.asked) == 2 * asked  # base and module


def test_both_harms_are_told() -> None:
    def say(module: bool, said: str) -> str:
        return BABBLE if module and said in RIGHT else scored("2")(module, said)

    report, _ = looked(say, strays=strays(6))
    assert report.elsewhere is not None
    assert report.elsewhere.harm.startswith("general instructions: 0 of 40 kept, 40 by the base; s")
