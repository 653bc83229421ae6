"""Draft, critique, revise: what is asked, what stands, and many plans in full batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from langchain_uno.models.loading import load_prompt_set
from langchain_uno.models.protocols import GenerateRequest, Generation, Sampling
from langchain_uno.records import Message, Usage
from langchain_uno.reflect import (
    CRITIQUE_TEMPERATURE,
    Plan,
    Reflected,
    kept_share,
    quoted,
    reflect,
    run_together,
)

REQUEST = "Tell the buyer about the lamp Brailon: the price is 45 euros; the maker is Skond."
FIRST = "About the lamp Brailon: The price is 45 euros. The maker is Skond."
PROMPTS = load_prompt_set("real")


def asked(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def ask(text: str = "what now?", **settings: Any) -> GenerateRequest:
    return GenerateRequest(asked(text), sampling=Sampling(**settings))


def drive(plan: Plan, *said: str | Generation) -> tuple[Reflected, list[Any]]:
    """Answer a plan's asks one after the other, all of them."""
    asks = [next(plan)] if said else []
    for i, text in enumerate(said):
        done = text if isinstance(text, Generation) else spent(text)
        try:
            asks.append(plan.send(done))
        except StopIteration as stop:
            assert i == len(said) - 1, "it ended early"
            return stop.value, asks
    raise AssertionError(f"it wants more: {asks[-1]}")


def spent(text: str, **more: Any) -> Generation:
    return Generation(text, Usage(input_tokens=1, output_tokens=10), **more)


def test_draft_critique_and_revision_are_asked_for_in_turn() -> None:
    plan = reflect(ask(max_tokens=9, temperature=0.7, seed=5), PROMPTS, critic="c", min_kept=0.0)
    result, [draft, critique, revision] = drive(plan, "the draft", "1. Be brief.", "better")
    assert [a.stage for a in (draft, critique, revision)] == ["draft", "critique", "revise"]
    assert [a.final for a in (draft, critique, revision)] == [False, False, True]
    asked = ask().messages
    assert draft.request.messages == asked
    assert critique.request.adapter == "c"
    assert critique.request.messages == PROMPTS.critique_prompt(asked, "the draft", "en")
    assert critique.request.sampling == Sampling(CRITIQUE_TEMPERATURE, max_tokens=512, seed=5)
    assert revision.request.adapter is None
    assert revision.request.messages == PROMPTS.revise_draft_prompt(
        asked, "the draft", ["Be brief."], "en"
    )
    assert revision.request.sampling == draft.request.sampling
    assert revision.suggestions == ("Be brief.",)
    assert (result.text, result.draft, result.revised) == ("better", "the draft", True)
    assert result.usage == Usage(input_tokens=3, output_tokens=30)


def test_a_greedy_request_gets_a_repeatable_critique() -> None:
    _, asks = drive(reflect(ask(), PROMPTS, critic="c"), "the draft", "1. Be brief.", "better")
    assert asks[1].request.sampling.seed == 0


def test_given_suggestions_need_no_critic_and_a_given_draft_is_not_asked_for() -> None:
    room = Sampling(max_tokens=99)
    plan = reflect(ask(), PROMPTS, suggestions=["Wave."], draft="hello", revision=room)
    result, [revision] = drive(plan, "hello o/")
    assert revision.stage == "revise"
    assert revision.request.sampling == room
    assert (result.text, result.revised) == ("hello o/", True)
    assert result.usage == Usage(input_tokens=1, output_tokens=10)


@pytest.mark.parametrize(
    ("said", "more"),
    [
        ((" ",), {}),
        ((spent("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),), {}),
        (("the draft", "not numbered; no list"), {}),
        (("the draft", "1. Be brief.", "  "), {}),
        (("the draft",), {"critic": None}),
    ],
)
def test_the_draft_stands(said: Any, more: Any) -> None:
    if len(said) == 2:
        with pytest.raises(ValueError, match="."):
            PROMPTS.parse_critique(said[1])
    result, _ = drive(reflect(ask(), PROMPTS, **{"critic": "c", **more}), *said)
    first = said[0] if isinstance(said[0], str) else said[0].text
    assert (result.text, result.revised, result.kept) == (first, False, None)
    assert result.usage.output_tokens == 10 * len(said)


@pytest.mark.parametrize(("revision", "stands"), [("what now!", False), ("what then!", True)])
def test_a_revision_that_loses_what_the_draft_quotes_is_thrown_away(
    revision: str, stands: bool
) -> None:
    plan = reflect(ask(), PROMPTS, suggestions=["Be brief."], min_kept=1.0)
    result, asks = drive(plan, "what, now?", revision)
    assert not any(a.final for a in asks)
    assert result.revised is not stands
    assert result.text == ("what, now?" if stands else revision)
    assert result.kept == (0.5 if stands else 1.0)


def test_a_revision_of_a_draft_that_quotes_nothing_streams() -> None:
    plan = reflect(ask(), PROMPTS, suggestions=["Be brief."], min_kept=1.0)
    result, asks = drive(plan, "zzz", "yyy")
    assert [a.final for a in asks] == [False, True]
    assert (result.text, result.kept) == ("yyy", 1.0)


class Echo:
    """Answers by the last word of what it is asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: Any = None
    ) -> list[Generation]:
        self.batches.append(len(requests))
        if on_done is not None:
            on_done(len(requests))
        return [
            Generation("1. Shout." if r.adapter else f"said {len(r.messages[-1].content)}")
            for r in requests
        ]


def test_many_plans_go_through_together() -> None:
    engine: Any = Echo()
    done: list[int] = []
    plans = [
        reflect(ask("a"), PROMPTS, critic="c"),
        reflect(ask("bb"), PROMPTS),
        reflect(ask("ccc"), PROMPTS, critic="c", draft="known"),
        reflect(ask("d"), PROMPTS, draft=" "),
    ]
    results = run_together(plans, engine, done.append)
    assert [r.revised for r in results] == [True, False, True, False]
    assert [r.draft for r in results] == ["said 1", "said 2", "known", " "]
    assert engine.batches == [3, 2, 1]  # drafts and a critique; a critique, a revision; a revision
    assert sum(done) == 6
    assert run_together([], engine) == []
    assert len(engine.batches) == 3


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (FIRST, True),
        ("Hello!\nABOUT the lamp Brailon:\n- The maker is Skond.\n- The price is 45 euros.", True),
        (FIRST.replace("45", "54"), False),
        (FIRST.replace("45", "455"), False),
        (FIRST.replace("Brailon", "Brailo"), False),
        (FIRST.replace(" The maker is Skond.", ""), False),
        ("", False),
    ],
)
def test_a_lost_word_shows(answer: str, whole: bool) -> None:
    share = kept_share(asked(REQUEST), FIRST, answer)
    assert (share == 1.0) == whole
    assert 0.0 <= share <= 1.0


def test_one_word_of_ten_is_a_tenth() -> None:
    request = asked("a b c d e f g h i j")
    assert kept_share(request, "j i h g f e d c b a", "a b c d e f g h i") == 0.9


def test_nothing_quoted_is_nothing_lost() -> None:
    assert kept_share(asked("What is love?"), "Baby, don't hurt me.", "") == 1.0
    assert kept_share(asked(""), "", "x") == 1.0


def test_chinese_is_read_character_by_character() -> None:
    request, first = asked("介绍台灯:价格是45欧元"), "台灯的价格是45欧元。"
    assert kept_share(request, first, "你好!台灯,价格:45欧元,是的。") == 1.0
    assert kept_share(request, first, "你好!台灯,价格:54欧元,是的。") < 1.0


def test_only_what_users_wrote_is_the_request() -> None:
    roles: Any = (("system", "s"), ("user", "one"), ("assistant", "two"), ("user", "three"))
    messages = [Message(role=r, content=c) for r, c in roles]
    assert quoted(messages, "s one two three") == {"one", "three"}
