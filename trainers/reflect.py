"""The reflective path as verification runs it: draft, critique, revise, in the words of serving.

    finals = reflected(side, "critic-adapter", engine, prompts, recipe, on_done, cluster)
    finals = reflected(side, None, ...)  # a memory: no critique, the rules that hold are the advice

Serving takes one request through it at a time (``graphs/respond_steps.py``); here a cluster's
held-out requests go through together. What decides whether a revision stands is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_uno.learning.content import kept_share, request_text
from langchain_uno.learning.remind import Remembered, remind
from langchain_uno.models.protocols import BASE, Engine, GenerateRequest, OnDone, Sampling
from langchain_uno.models.roles import PromptSet, RoleError
from langchain_uno.recipe import Recipe
from langchain_uno.records import routing_text
from langchain_uno.trainers.sides import BaseSide, greedy

__all__ = ["reflected"]


def reflected(
    side: BaseSide,
    critic: str | None,
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None,
    known: Remembered | None,
) -> list[str]:
    """Return the final answers, one an item of ``side``, whose answers are the drafts.

    Args:
        side: the base's answers.
        critic: name of the loaded adapter that criticises; None: nobody does, and the rules of
            ``known`` that hold for a request are all that its draft is revised by.
        engine: answers.
        prompts: words critique and revision.
        recipe: token limits, ``remind``, ``revision_min_kept``.
        on_done: hears of one item per critique and one per revision.
        known: the cluster.

    Raises:
        EngineError: the model can't answer.
    """
    finals = list(side.answers)
    drafted = [i for i, draft in enumerate(finals) if draft.strip()]  # no draft, no revision
    if critic is None:
        advice: Mapping[int, list[str]] = {i: [] for i in drafted}
    else:
        advice = _critiques(side, drafted, critic, engine, prompts, recipe, on_done)
    requests: dict[int, GenerateRequest] = {}
    for i, suggestions in advice.items():
        item = side.items[i]
        if known is not None and (recipe.remind or critic is None):
            suggestions = remind(suggestions, routing_text(item.messages), known)
        if suggestions:
            messages = prompts.revise_draft_prompt(
                item.messages, finals[i], suggestions, item.language
            )
            requests[i] = GenerateRequest(messages, BASE, greedy(recipe))
    _hear_of(on_done, len(finals) - len(requests))
    for i, revision in zip(requests, engine.generate([*requests.values()], on_done), strict=True):
        # As in serving: an empty revision, or one that lost facts, leaves the draft.
        asked = request_text(side.items[i].messages)
        kept = kept_share(asked, finals[i], revision.text)
        if revision.text.strip() and kept >= recipe.revision_min_kept:
            finals[i] = revision.text
    return finals


def _critiques(
    side: BaseSide,
    drafted: Sequence[int],
    critic: str,
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None,
) -> Mapping[int, list[str]]:
    """Return what the critic suggests for each draft; nothing where it wrote no critique."""
    sampling = Sampling(
        temperature=recipe.critique_temperature,
        max_tokens=recipe.max_critique_tokens,
        seed=0,  # as in serving, for a request that asks for a repeatable answer
    )
    requests = []
    for i in drafted:
        item = side.items[i]
        prompt = prompts.critique_prompt(item.messages, side.answers[i], item.language)
        requests.append(GenerateRequest(prompt, critic, sampling))
    _hear_of(on_done, len(side.items) - len(drafted))
    found = {}
    for i, critique in zip(drafted, engine.generate(requests, on_done), strict=True):
        try:
            found[i] = prompts.parse_critique(critique.text)
        except RoleError:
            found[i] = []
    return found


def _hear_of(on_done: OnDone | None, skipped: int) -> None:
    if on_done is not None and skipped:
        on_done(skipped)
