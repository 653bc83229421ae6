"""Restraint: does a module obey a rule on requests that nobody wants it on?

Wishes with a condition are taught by example, and a small adapter takes the wish for all requests
and the condition for noise. The judge, asked whether the users' rules are met, does not see it: the
rule is not in its standard. So it is asked once more, with the rules that do *not* hold for the
request as the standard; who scores well above the base there has overreached. Not in the paper
(``recipe.verify.max_overreach``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from langchain_uno.models.judge import JudgeItem, judge_averaged
from langchain_uno.models.protocols import Engine, OnDone
from langchain_uno.models.roles import PromptSet
from langchain_uno.recipe import Recipe
from langchain_uno.records import Message

__all__ = ["ABOVE", "Restraint", "look_for_overreach"]

ABOVE = 1.0
"""Points of ten above the base, under rules that do not hold, from which an answer overreached."""


class Request(Protocol):
    """What is known of a held-out request (``verifier.VerifyItem``)."""

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation."""

    @property
    def idle(self) -> Sequence[str]:
        """Rules of its cluster that do not hold for it."""

    @property
    def language(self) -> str:
        """Of the conversation."""


class Restraint(NamedTuple):
    """How often a module could overreach, and how often it did."""

    could: int = 0
    did: int = 0


def look_for_overreach(
    requests: Sequence[Request],
    base_answers: Sequence[str],
    answers: Sequence[str],
    judge_engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
) -> Restraint:
    """Count the answers that obey a rule which does not hold, where the base's answer does not.

    Args:
        requests: held-out ones; those without idle rules are not asked about.
        base_answers: the base's, one a request.
        answers: the module's, one a request.
        judge_engine: judges, each rule by itself.
        prompts: words the judge's prompt.
        recipe: ``verify.max_overreach`` (1: nothing is asked), token limits, seed.
        on_done: hears of every judgement.

    Raises:
        EngineError: the judge can't answer.
    """
    if recipe.verify.max_overreach >= 1:
        return Restraint()
    where: list[int] = []
    items: list[JudgeItem] = []
    for i, (one, base, answer) in enumerate(zip(requests, base_answers, answers, strict=True)):
        for rule in one.idle:
            where.append(i)
            items += [JudgeItem(one.messages, [rule], a, one.language) for a in (answer, base)]
    judged = judge_averaged(items, judge_engine, prompts, recipe, on_done, seed=recipe.seed)
    over = set()
    for k, i in enumerate(where):
        mine, theirs = judged[2 * k], judged[2 * k + 1]
        if mine is not None and theirs is not None and mine.score >= theirs.score + ABOVE:
            over.add(i)
    return Restraint(could=len(set(where)), did=len(over))
