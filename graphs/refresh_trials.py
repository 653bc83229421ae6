"""One module of one cluster: make it of training logs, verify it on held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from langchain_uno.errors import InputError
from langchain_uno.graphs.refresh_context import ClusterData, RefreshContext
from langchain_uno.learning.aggregate import ClusterRules
from langchain_uno.learning.distil import unique_rules
from langchain_uno.models.judge import stable_seed
from langchain_uno.learning.pairs import was_content, weight_of
from langchain_uno.learning.revise import wanted_rules
from langchain_uno.models.teacher import judged_by
from langchain_uno.records import ModuleKind, VerifierReport

if TYPE_CHECKING:
    from langchain_uno.trainers.critic import CriticExample
    from langchain_uno.trainers.sides import BaseSide, VerifyItem

__all__ = [
    "NothingToLearn",
    "Trial",
    "critic_examples",
    "held_out",
    "try_module",
    "verify_module",
]

_BAR = "module"


class NothingToLearn(Exception):
    """A cluster gives no example for a kind of module; the message says why."""


class Trial(BaseModel):
    """How one module was made and verified."""

    report: VerifierReport | None = None
    note: str = ""
    adapter: str | None = None
    """Its folder, relative to the work folder; None: a memory has none, and one that failed is
    kept only under ``recipe.everything``."""
    seconds: float = 0.0
    """Of training and verification, in the call that finished them."""

    @property
    def passed(self) -> bool:
        """Whether it may ship."""
        return self.report is not None and self.report.passed


def try_module(ctx: RefreshContext, cluster: ClusterData, kind: ModuleKind) -> Trial:
    """Train and verify an expert or a critic, or verify a memory.

    Raises:
        NothingToLearn: no pairs, or no rules, to train on.
    """
    if kind == "memory":
        if not cluster.rules:
            raise NothingToLearn("no rule recurs")
        report = verify_module(ctx, cluster, kind, [])
        return Trial(report=report, note=report.reason)
    done = f"clusters/{cluster.id}/{kind}-trained.json"
    if not ctx.work.has(done):
        folder = ctx.work.fresh_folder(f"clusters/{cluster.id}/{kind}")
        epochs = (_train_expert if kind == "expert" else _train_critic)(ctx, cluster, folder)
        ctx.work.write_json(done, [str(e.relative_to(ctx.work.root)) for e in epochs])
    epochs = [ctx.work.path(name) for name in ctx.work.read_json(done)]
    report = verify_module(ctx, cluster, kind, epochs)
    chosen = epochs[report.epoch - 1] if kind == "expert" and report.epoch else epochs[-1]
    module = str(chosen.relative_to(ctx.work.root))
    kept = module if report.passed or ctx.recipe.everything else None
    for folder in epochs:  # the others are megabytes that nobody asks for again
        name = str(folder.relative_to(ctx.work.root))
        if name != kept:
            ctx.work.remove(name)
    return Trial(report=report, note=report.reason, adapter=kept)


def held_out(ctx: RefreshContext, cluster: ClusterData) -> list[VerifyItem]:
    """Return a cluster's verification queries, each with the judge's standard.

    See ``recipe.verify.standard``. Where a user said nothing but edited the answer, the edit is the
    standard if no rule recurs or more of the cluster's people edited than said a word. The rules
    that recur come from training logs alone.

    A log whose user asked for nothing and liked the answer as it was is no witness for other
    wishes: left out, and so is one for which nothing is wanted (any more), unless that goes for
    all of the cluster. Requests that nobody reacted to fill up to ``recipe.verify.max_queries``.
    """
    from langchain_uno.trainers.sides import VerifyItem

    [recurring] = ctx.work.read_records(f"clusters/{cluster.id}/recurring.jsonl", ClusterRules)
    standard = ctx.recipe.verify.standard
    items: list[VerifyItem] = []
    bare: list[VerifyItem] = []
    for run_id in cluster.verify:
        log, own = ctx.logs[run_id], ctx.wishes[run_id]
        still = recurring.still_wanted(own.with_feedback)
        own = own.model_copy(update={"with_feedback": still})
        if standard == "completed" and own.with_feedback:
            rules = wanted_rules(recurring.complete(own, log.query))
        elif own.with_feedback:
            # Asked of a module's answer: what it lacks, besides what it was there for.
            known = [*wanted_rules(own), *ctx.given.get(run_id, ())]
            rules = unique_rules(known)
        elif standard == "own" or was_content(log):
            continue
        else:
            rules = [rule.text for rule in recurring.wanted_for(log.query)]
        idle = recurring.idle_for(log.query, rules)
        edit = None
        if log.correction and not own.with_feedback and (cluster.edited or not rules):
            rules, edit = [], log.correction
        item = VerifyItem(run_id, log.messages, rules, log.language, log.user_id, idle, edit)
        (items if rules or edit else bare).append(item)
    for run_id in cluster.unlabelled if standard != "own" and not cluster.edited else ():
        if len(items) >= ctx.recipe.verify.max_queries:
            break
        log = ctx.unheard[run_id]
        rules = [rule.text for rule in recurring.wanted_for(log.query)]
        if rules:
            idle = recurring.idle_for(log.query, rules)
            items.append(VerifyItem(run_id, log.messages, rules, log.language, log.user_id, idle))
    # Where nobody edited or wrote a wish, the judge's own sense has to do.
    return items or bare


def critic_examples(ctx: RefreshContext, cluster: ClusterData) -> list[CriticExample]:
    """Return what a critic learns: for each training log with rules, draft -> wanted rules."""
    from langchain_uno.trainers.critic import CriticExample

    examples = []
    for log, rules in zip(*ctx.training(cluster), strict=True):
        if rules.with_feedback and log.answer.strip():
            examples.append(
                CriticExample(
                    prompt=ctx.prompts.critique_prompt(log.messages, log.answer, log.language),
                    completion=ctx.prompts.critique_completion(wanted_rules(rules)),
                    weight=weight_of(log),
                )
            )
    return examples


def _train_expert(ctx: RefreshContext, cluster: ClusterData, folder: Path) -> list[Path]:
    from langchain_uno.trainers.expert import train_expert

    pairs = ctx.pairs(cluster)
    if not pairs:
        raise NothingToLearn("no preference pairs")
    seed = stable_seed(ctx.recipe.seed, "expert", cluster.id)
    return _with_base(
        ctx,
        lambda model, tokenizer: train_expert(
            model,
            tokenizer,
            pairs,
            folder,
            ctx.recipe.expert,
            seed,
            _steps(ctx, cluster, "expert"),
            base_name=ctx.engine.model_name,
        ),
    )


def _train_critic(ctx: RefreshContext, cluster: ClusterData, folder: Path) -> list[Path]:
    from langchain_uno.trainers.critic import train_critic

    examples = critic_examples(ctx, cluster)
    if not examples:
        raise NothingToLearn("no rules to teach")
    seed = stable_seed(ctx.recipe.seed, "critic", cluster.id)
    return _with_base(
        ctx,
        lambda model, tokenizer: [
            train_critic(
                model,
                tokenizer,
                examples,
                folder,
                ctx.recipe.critic,
                seed,
                _steps(ctx, cluster, "critic"),
                base_name=ctx.engine.model_name,
            )
        ],
    )


def _with_base(ctx: RefreshContext, train: Callable[[Any, Any], list[Path]]) -> list[Path]:
    """Train on the engine's own base model while it answers nobody."""
    try:
        with cast(Any, ctx.engine).exclusive() as (model, tokenizer):
            return train(model, tokenizer)
    except InputError as error:
        # All examples too long, say: this cluster's module can't be trained, others can.
        raise NothingToLearn(str(error)) from error


def verify_module(
    ctx: RefreshContext, cluster: ClusterData, kind: ModuleKind, epochs: Sequence[Path]
) -> VerifierReport:
    """Compare a module with the base on held-out queries.

    ``epochs`` are an expert's, of a critic the last one alone; a memory has none.
    """
    from langchain_uno.trainers import verifier

    items = held_out(ctx, cluster)
    ctx.progress.start(_BAR, None, f"{cluster.id} {kind}: verifying on {len(items)} queries")
    words = judged_by(ctx.prompts, ctx.teacher_prompts)
    count = ctx.counter(_BAR)
    base = _base_side(ctx, cluster, items)
    if kind == "expert":
        return verifier.verify_expert(
            items, epochs, ctx.engine, ctx.teacher, words, ctx.recipe, count, base=base
        )
    if kind == "memory":
        return verifier.verify_memory(
            items, cluster, ctx.engine, ctx.teacher, words, ctx.recipe, count, base=base
        )
    return verifier.verify_critic(
        items, epochs[-1], ctx.engine, ctx.teacher, words, ctx.recipe, count, base=base,
        known=cluster,
    )  # fmt: skip


def _base_side(ctx: RefreshContext, cluster: ClusterData, items: Sequence[VerifyItem]) -> BaseSide:
    """Return the base's answers and scores, asked once for all kinds of module."""
    from langchain_uno.trainers.sides import BaseSide
    from langchain_uno.trainers.verifier import answer_as_base

    name = f"clusters/{cluster.id}/base-side.json"
    if not ctx.work.has(name):
        words = judged_by(ctx.prompts, ctx.teacher_prompts)
        side = answer_as_base(items, ctx.engine, ctx.teacher, words, ctx.recipe, ctx.counter(_BAR))
        stored = {
            "ids": [item.id for item in side.items],
            "answers": side.answers,
            "scores": side.scores,
        }
        ctx.work.write_json(name, stored)
    kept = ctx.work.read_json(name)
    by_id = {item.id: item for item in items}
    return BaseSide([by_id[i] for i in kept["ids"]], kept["answers"], kept["scores"])


def _steps(ctx: RefreshContext, cluster: ClusterData, kind: str) -> Callable[[int, int], None]:
    """Return a trainer's progress callback that drives the module's bar."""
    seen = 0

    def on_step(done: int, total: int) -> None:
        nonlocal seen
        if seen == 0:
            ctx.progress.start(_BAR, total, f"{cluster.id} {kind}: training")
        ctx.progress.advance(_BAR, done - seen)
        seen = done

    return on_step
