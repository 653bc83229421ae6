"""Judge answers: a score from 1 to 10 with the users' rules as the standard (paper, stage 3).

The judge writes its reason first, then the score; the prompt set words it and reads it back. An
answer whose judgement can't be read gets ``None``: it counts neither for nor against anybody.
Pairs use one greedy judgement each; the verifier averages several (:func:`judge_averaged`), because
a single one is noisy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from langchain_uno.messages import without_thinking
from langchain_uno.models.protocols import Engine, GenerateRequest, Generation, OnDone, Sampling
from langchain_uno.models.roles import PromptSet, RoleError
from langchain_uno.models.teacher import forget
from langchain_uno.models.together import ask_once
from langchain_uno.recipe import Recipe
from langchain_uno.records import Message, mean_of

LOWEST = 1.0
"""The worst score; an empty answer gets it without asking anybody."""


@dataclass(frozen=True)
class JudgeItem:
    """One answer to judge: the conversation before it, the rules (the standard), the answer."""

    messages: Sequence[Message]
    rules: Sequence[str]
    answer: str
    language: str = "en"


def judge(
    items: Sequence[JudgeItem],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[float | None]:
    """Judge every item once, in the order given; equal items are asked once.

    Thoughts are not shown to the judge: an answer that is nothing else is empty.

    Args:
        items: what to judge.
        engine: the judge (the base model itself, or a teacher).
        prompts: words the judge's prompt and parses its text.
        recipe: ``role_tokens``; ``top_p`` where judgements are sampled.
        on_done: is told of every judged item, those that needed no asking included.
        temperature: 0 judges greedily.
        seed: makes a sampled judgement repeatable; another seed is another judgement.

    Returns:
        One score an item, or None where the judge's text had no readable form.

    Raises:
        EngineError: the judge can't answer at all.
    """
    items = [replace(item, answer=without_thinking(item.answer)) for item in items]
    spoken = [item for item in items if item.answer.strip()]
    requests = [
        GenerateRequest(
            messages=prompts.judge_prompt(item.messages, item.rules, item.answer, item.language),
            sampling=Sampling(
                temperature=temperature,
                top_p=recipe.top_p if temperature > 0 else 1.0,
                max_tokens=recipe.role_tokens,
                seed=stable_seed(seed, item.answer, *item.rules) if temperature > 0 else None,
            ),
            json_schema=prompts.judge_schema(),
        )
        for item in spoken
    ]
    made = zip(requests, ask_once(engine, requests, on_done), strict=True)
    scores = iter([_read(engine, prompts, *one) for one in made])
    if on_done is not None and len(items) > len(spoken):
        on_done(len(items) - len(spoken))
    return [next(scores) if item.answer.strip() else LOWEST for item in items]


def judge_averaged(
    items: Sequence[JudgeItem],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
    *,
    seed: int = 0,
) -> list[float | None]:
    """Judge every item once greedily and ``judgements - 1`` times sampled, and average the scores.

    There are ``recipe.verify.judgements``, sampled at ``recipe.temperature`` and
    ``recipe.top_p``. ``on_done`` is told of ``len(items) * judgements`` items. Unreadable
    judgements are left out of the average; an item with none that can be read gets None.

    Raises:
        EngineError: the judge can't answer at all.
    """
    per_round = [
        judge(
            items,
            engine,
            prompts,
            recipe,
            on_done,
            temperature=0.0 if k == 0 else recipe.temperature,
            seed=stable_seed(seed, str(k)),
        )
        for k in range(recipe.verify.judgements)
    ]
    return [mean_of(each) for each in zip(*per_round, strict=True)]


def stable_seed(base: int, *parts: str) -> int:
    """Return a 31-bit seed that is the same in every process for the same parts."""
    digest = hashlib.sha256("\x1f".join([str(base), *parts]).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def _read(
    engine: Engine, prompts: PromptSet, request: GenerateRequest, made: Generation
) -> float | None:
    try:
        return prompts.parse_judgement(made.text)
    except RoleError:
        forget(engine, request)
        return None
