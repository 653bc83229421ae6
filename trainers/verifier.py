"""Stage 7: the simulated performance verifier. No module ships that was not seen to beat the base.

    report = verify_expert(items, epochs, engine, judge_engine, prompts, recipe)
    if report.passed: ship(epochs[report.epoch - 1])

Held-out queries are answered by the base and by the module; the judge scores both with the users'
rules as the standard; :mod:`langchain_uno.trainers.decide` turns scores into a decision. A critic
passes the same check over its whole draft-critique-revise path, the base's answer being the draft;
a memory over the same path without a critique.
The judge is the model's own (or a teacher's): these figures are its opinion, never the truth.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from langchain_uno.learning.content import request_text
from langchain_uno.models.judge import JudgeItem, judge_averaged
from langchain_uno.learning.remind import Remembered
from langchain_uno.models.protocols import BASE, Engine, GenerateRequest, OnDone
from langchain_uno.models.roles import PromptSet
from langchain_uno.recipe import Recipe
from langchain_uno.records import ModuleKind, VerifierReport
from langchain_uno.trainers import decide
from langchain_uno.trainers.reflect import reflected
from langchain_uno.trainers.restraint import Restraint, look_for_overreach
from langchain_uno.trainers.sides import BaseSide, VerifyItem, greedy

__all__ = [
    "BaseSide",
    "VerifyItem",
    "answer_as_base",
    "verify_critic",
    "verify_expert",
    "verify_memory",
]


def answer_as_base(
    items: Sequence[VerifyItem],
    engine: Engine,
    judge_engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
) -> BaseSide:
    """Answer and judge the items with the base model.

    More than ``recipe.verify.max_queries`` items are cut to a seeded sample. ``on_done`` hears of
    one item per answer and one per judgement.
    """
    chosen = list(items)
    if len(chosen) > recipe.verify.max_queries:
        order = np.random.default_rng(recipe.seed).permutation(len(chosen))
        chosen = [chosen[i] for i in sorted(order[: recipe.verify.max_queries])]
    answers = _answers(chosen, BASE, engine, recipe, on_done)
    return BaseSide(
        chosen, answers, _scores(chosen, answers, judge_engine, prompts, recipe, on_done)
    )


def verify_expert(
    items: Sequence[VerifyItem],
    epochs: Sequence[Path],
    engine: Engine,
    judge_engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
    *,
    base: BaseSide | None = None,
) -> VerifierReport:
    """Compare an expert's epochs with the base; the report names the epoch that would ship, from 1.

    Args:
        items: held-out queries of the cluster.
        epochs: adapter folders, first epoch first; ``recipe.verify.max_epochs`` of them are tried.
        engine: answers; adapters are loaded under names of their own, and unloaded at the end.
        judge_engine: judges (the base model itself, or a teacher).
        prompts: words the judge's prompt.
        recipe: ``verify`` settings, token limits, seed.
        on_done: hears of one item per answer and one per judgement.
        base: the base's side of the same items when it is known already.

    Raises:
        EngineError: the model can't answer.
    """
    side = base or answer_as_base(items, engine, judge_engine, prompts, recipe, on_done)
    if not side.items or not epochs:
        return _undecided("expert", "there is no held-out query" if epochs else "no epoch was kept")
    tried = decide.spread_epochs(len(epochs), recipe.verify.max_epochs)
    outcomes: list[list[decide.Outcome]] = []
    scores: list[list[float | None]] = []
    finals: list[list[str]] = []
    for index in tried:
        with _loaded(engine, epochs[index]) as name:
            finals.append(_answers(side.items, name, engine, recipe, on_done))
        scores.append(_scores(side.items, finals[-1], judge_engine, prompts, recipe, on_done))
        outcomes.append(_outcomes(side, finals[-1], scores[-1], recipe))
    lost = [_lost(side, answers, recipe) for answers in finals]
    # An epoch that lost too much can't ship: where another one exists, the choice is among those.
    bound = max(recipe.verify.max_lost * len(side.items), min(lost))
    fit = [i for i, n in enumerate(lost) if n <= bound]
    outcomes, scores = [outcomes[i] for i in fit], [scores[i] for i in fit]
    choice = decide.choose_epoch(outcomes, scores, _users(side), recipe.verify.confidence)
    chosen = fit[choice.epoch]
    restraint = look_for_overreach(
        side.items, side.answers, finals[chosen], judge_engine, prompts, recipe, on_done
    )
    harm = _Harm(lost[chosen], restraint)
    return _report("expert", side, choice, scores[choice.epoch], harm, recipe, tried[chosen] + 1)


def verify_critic(
    items: Sequence[VerifyItem],
    adapter: Path,
    engine: Engine,
    judge_engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
    *,
    base: BaseSide | None = None,
    known: Remembered | None = None,
) -> VerifierReport:
    """Compare the whole draft-critique-revise path of a critic with the draft (the base answer).

    The arguments are those of :func:`verify_expert`; ``on_done`` hears of one item per critique,
    one per revision and one per judgement. A draft that the critic would leave as it is, is a
    tie. ``known``, the cluster, is what ``recipe.remind`` reminds of.

    Raises:
        EngineError: the model can't answer.
    """
    side = base or answer_as_base(items, engine, judge_engine, prompts, recipe, on_done)
    if not side.items:
        return _undecided("critic", "there is no held-out query")
    with _loaded(engine, adapter) as name:
        finals = reflected(side, name, engine, prompts, recipe, on_done, known)
    return _compared("critic", side, finals, judge_engine, prompts, recipe, on_done)


def verify_memory(
    items: Sequence[VerifyItem],
    known: Remembered,
    engine: Engine,
    judge_engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
    *,
    base: BaseSide | None = None,
) -> VerifierReport:
    """Compare drafts revised by a cluster's rules alone with the drafts (the base answers).

    The arguments are those of :func:`verify_critic`; ``on_done`` hears of one item per revision and
    one per judgement. A draft for which no rule holds stands, and is a tie. Restraint is not looked
    at: a memory is told only the rules that hold.

    Raises:
        EngineError: the model can't answer.
    """
    side = base or answer_as_base(items, engine, judge_engine, prompts, recipe, on_done)
    if not side.items:
        return _undecided("memory", "there is no held-out query")
    finals = reflected(side, None, engine, prompts, recipe, on_done, known)
    return _compared("memory", side, finals, judge_engine, prompts, recipe, on_done)


def _compared(
    kind: ModuleKind,
    side: BaseSide,
    finals: Sequence[str],
    judge_engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None,
) -> VerifierReport:
    """Judge the answers of a module that has no epochs to choose from."""
    scores = _scores(side.items, finals, judge_engine, prompts, recipe, on_done)
    outcomes = _outcomes(side, finals, scores, recipe)
    choice = decide.choose_epoch([outcomes], [scores], _users(side), recipe.verify.confidence)
    # A memory is told no rule but those that hold: what the judge would see there is its own error.
    restraint = Restraint(could=0, did=0)
    if kind != "memory":
        restraint = look_for_overreach(
            side.items, side.answers, finals, judge_engine, prompts, recipe, on_done
        )
    harm = _Harm(_lost(side, finals, recipe), restraint)
    return _report(kind, side, choice, scores, harm, recipe, None)


def _answers(
    items: Sequence[VerifyItem],
    adapter: str | None,
    engine: Engine,
    recipe: Recipe,
    on_done: OnDone | None,
) -> list[str]:
    requests = [GenerateRequest(item.messages, adapter, greedy(recipe)) for item in items]
    return [generation.text for generation in engine.generate(requests, on_done)]


def _scores(
    items: Sequence[VerifyItem],
    answers: Sequence[str],
    judge_engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None,
) -> list[float | None]:
    scores: list[float | None] = [None] * len(items)
    todo: list[int] = []
    for i, (item, answer) in enumerate(zip(items, answers, strict=True)):
        if item.edit is not None and not item.rules:
            scores[i] = 10.0 * decide.bleu4(answer, item.edit, item.language)
        else:
            todo.append(i)
    if on_done is not None and len(todo) < len(items):
        on_done(len(items) - len(todo))
    judged = judge_averaged(
        [JudgeItem(items[i].messages, items[i].rules, answers[i], items[i].language) for i in todo],
        judge_engine,
        prompts,
        recipe,
        on_done,
        seed=recipe.seed,
    )
    for i, judgement in zip(todo, judged, strict=True):
        scores[i] = None if judgement is None else judgement.score
    return scores


def _outcomes(
    side: BaseSide, answers: Sequence[str], scores: Sequence[float | None], recipe: Recipe
) -> list[decide.Outcome]:
    return [
        decide.outcome(
            answer,
            base,
            score,
            base_score,
            item.language,
            recipe.verify,
            request_text(item.messages),
        )
        for item, answer, base, score, base_score in zip(
            side.items, answers, side.answers, scores, side.scores, strict=True
        )
    ]


def _lost(side: BaseSide, answers: Sequence[str], recipe: Recipe) -> int:
    """Return how many answers lost content of the base answer."""
    return sum(
        decide.lost_content(answer, base, item.language, recipe.verify, request_text(item.messages))
        for item, answer, base in zip(side.items, answers, side.answers, strict=True)
    )


class _Harm(NamedTuple):
    """What a module's answers did besides what they were judged for."""

    lost: int
    restraint: Restraint


def _report(
    kind: ModuleKind,
    side: BaseSide,
    choice: decide.Choice,
    scores: Sequence[float | None],
    harm: _Harm,
    recipe: Recipe,
    epoch: int | None,
) -> VerifierReport:
    settings = recipe.verify
    reasons = []
    undecided = False
    if choice.n == 0:
        reasons.append("the judge could not be read on any query")
    elif choice.point < settings.win_rate:
        reasons.append(f"win rate {choice.point:.2f} is below {settings.win_rate:.2f}")
    elif settings.decision == "interval" and choice.interval[0] <= 0.5:
        undecided = True
        reasons.append(
            f"not decided: {settings.confidence:.0%} interval of the win rate "
            f"{choice.interval[0]:.2f} to {choice.interval[1]:.2f} does not lie above 0.50"
        )
    if harm.lost > settings.max_lost * len(side.items):
        reasons.append(f"{harm.lost} of {len(side.items)} answers lost content")
        undecided = False
    could, did = harm.restraint
    if did > settings.max_overreach * could:
        reasons.append(f"{did} of {could} answers obey a rule that does not hold for the request")
        undecided = False
    passed = not reasons
    users = len(set(_users(side)))
    reasons.append(
        f"{choice.n} queries of {users} users (worth {choice.n_effective:.1f})"
        + (
            f", epoch {epoch} at {choice.point:.2f}, cross-fitted {choice.rate:.2f}"
            if epoch is not None
            else ""
        )
    )
    return VerifierReport(
        kind=kind,
        n=choice.n,
        win_rate=choice.rate,
        interval=choice.interval,
        passed=passed,
        undecided=undecided,
        epoch=epoch,
        reason="; ".join(reasons),
        lost=harm.lost,
        overreached=did,
        mean_score=_mean(scores),
        mean_base_score=_mean(side.scores),
    )


def _undecided(kind: ModuleKind, reason: str) -> VerifierReport:
    return VerifierReport(
        kind=kind,
        n=0,
        win_rate=0.0,
        interval=(0.0, 1.0),
        passed=False,
        reason=reason,
    )


@contextmanager
def _loaded(engine: Engine, path: Path) -> Iterator[str]:
    """Load an adapter under a name that nothing else ever has, for the time of the block."""
    name = f"verify-{secrets.token_hex(6)}"
    engine.load_adapter(name, path)
    try:
        yield name
    finally:
        engine.unload_adapter(name)


def _users(side: BaseSide) -> list[str]:
    """Who asked; a query without a user is a user of its own."""
    return [f"user {i.user_id}" if i.user_id else f"query {i.id}" for i in side.items]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
