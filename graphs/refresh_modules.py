"""The train node of a refresh: make and verify a module per cluster.

    kept by the evolve node: nothing is trained
    low gap   -> expert -> verified? -> else memory -> verified? -> else critic -> verified? -> base
    high gap  ----------------------->      memory -> verified? -> else critic -> verified? -> base
    an expert that the memory beats on the same queries gives way to it
    and a module of the current release that does better on the same queries stays,
    or that nothing decided can replace

The memory (``recipe.memory``) is not in the paper: a cluster that its recurring rules alone serve
needs no critic.

Every training and every verification is kept as soon as it is done, so that a refresh that was
stopped repeats one of them at most.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from pydantic import BaseModel, Field

from langchain_uno.graphs.refresh_context import ClusterData, ClusterResult, RefreshContext
from langchain_uno.graphs.refresh_evolve import Incumbent, incumbent, is_kept
from langchain_uno.graphs.refresh_trials import NothingToLearn, Trial, held_out, try_module
from langchain_uno.records import ModuleKind, Route, VerifierReport

__all__ = ["KINDS", "Decision", "best_of", "read_decision", "train_node"]

KINDS: tuple[ModuleKind, ...] = ("expert", "memory", "critic")
"""In the order in which they are tried: the cheapest answers first."""


class Decision(BaseModel):
    """What a cluster's queries are answered by, and why."""

    route: Route = "base"
    adapter: str | None = None
    """Folder of the chosen adapter, relative to the work folder; a memory has none."""
    reports: list[VerifierReport] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    seconds: float = 0.0
    kept: Incumbent | None = None
    """The module of the current release, when that is the choice."""


def train_node(ctx: RefreshContext) -> None:
    """Make and verify a module for every cluster that is large enough."""
    ctx.once("train", "train.json", lambda: _train(ctx))


def _train(ctx: RefreshContext) -> str:
    clusters = ctx.clusters()
    ctx.progress.start("train", len(clusters), "experts, memories and critics")
    results = []
    for cluster in clusters:
        name = f"clusters/{cluster.id}/decision.json"
        if not ctx.work.has(name):
            start = time.perf_counter()
            decision = _decide(ctx, cluster)
            decision.seconds = round(time.perf_counter() - start, 3)
            ctx.work.write_json(name, decision.model_dump(mode="json"))
        results.append(_summary(ctx, cluster, read_decision(ctx, cluster.id)))
        ctx.progress.advance("train")
    ctx.work.write_json("train.json", [r.model_dump(mode="json") for r in results])
    count: Counter[str] = Counter(r.route for r in results)
    return ", ".join(f"{count[kind]} {kind}" for kind in [*KINDS, "base"])


def read_decision(ctx: RefreshContext, cluster_id: str) -> Decision:
    """Return what the train node settled for a cluster."""
    return Decision.model_validate(ctx.work.read_json(f"clusters/{cluster_id}/decision.json"))


def _decide(ctx: RefreshContext, cluster: ClusterData) -> Decision:
    """Try what the gap says, then what is left, and settle for the base model."""
    decision = Decision()
    smallest = ctx.smallest_cluster()
    if len(cluster.run_ids) < smallest:
        decision.notes.append(f"fewer than {smallest} logs")
        return decision
    if not held_out(ctx, cluster):
        decision.notes.append("no held-out log to verify on")
        return decision
    present = incumbent(ctx, cluster)
    if present is not None and is_kept(ctx, cluster):
        _keep(decision, present, "kept")
    else:
        _try_new(ctx, cluster, decision, present)
    if ctx.recipe.everything:
        for kind in KINDS:
            _tried(ctx, cluster, kind)
    return decision


def _try_new(
    ctx: RefreshContext, cluster: ClusterData, decision: Decision, present: Incumbent | None
) -> None:
    """Choose among what is new; the present module stays unless what is new does as well."""
    if present is not None and present.stale:
        decision.notes.append(f"made anew: {present.stale}")
    new = _choose_new(ctx, cluster, decision, present)
    if new is not None:
        assert new.report is not None
        decision.route, decision.adapter = new.report.kind, new.adapter
        # The last report is that of what answers.
        decision.reports = [r for r in decision.reports if r != new.report] + [new.report]
    if present is None or not present.stands:
        return
    if not present.trial.passed:
        if new is None:
            _keep(decision, present, "kept, undecided as what is new is")
    elif new is None or _rate(present.trial) > _rate(new):
        _keep(decision, present, "kept: what is new does no better")


def _choose_new(
    ctx: RefreshContext, cluster: ClusterData, decision: Decision, present: Incumbent | None
) -> Trial | None:
    """Try the kinds of module in their order and return what passed; None: nothing did.

    An expert is the cheaper answer, but the memory shows what the rules can do, and costs no
    training to look at. A critic is trained only where neither passed.
    """
    passed: dict[ModuleKind, Trial] = {}
    ruled_out = {"expert": not ctx.is_low(cluster), "memory": not ctx.recipe.memory}
    for kind in (one for one in KINDS if not ruled_out.get(one)):
        if kind == "critic" and passed:
            break
        if kind == "memory" and present is not None and present.kind == "memory":
            trial = present.trial  # today's rules on today's queries: the same again
        else:
            trial = _tried(ctx, cluster, kind)
        if trial.report is not None:
            decision.reports.append(trial.report)
        if trial.passed:
            passed[kind] = trial
        elif not passed:
            decision.notes.append(f"{kind}: {trial.note}")
    best = best_of(passed)
    if "expert" in passed and best != "expert":
        decision.notes.append("expert: the memory does better on the same queries")
    return passed[best] if best else None


def best_of(passed: Mapping[ModuleKind, Trial]) -> ModuleKind | None:
    """Return which of the kinds that passed is to answer; None where none did.

    The first in the order of :data:`KINDS`, but an expert gives way to a memory with a higher win
    rate.
    """
    kinds = [kind for kind in KINDS if kind in passed]
    if {"expert", "memory"} <= passed.keys() and _rate(passed["memory"]) > _rate(passed["expert"]):
        return "memory"
    return kinds[0] if kinds else None


def _rate(trial: Trial) -> float:
    assert trial.report is not None
    return trial.report.win_rate


def _keep(decision: Decision, present: Incumbent, why: str) -> None:
    assert present.trial.report is not None
    decision.route, decision.adapter = present.kind, present.trial.adapter
    decision.kept = present
    decision.reports.append(present.trial.report)
    decision.notes.append(f"{why}, made in {present.made_in}")


def _tried(ctx: RefreshContext, cluster: ClusterData, kind: ModuleKind) -> Trial:
    """Make and verify one module, or read what an earlier call found."""
    name = f"clusters/{cluster.id}/{kind}.json"
    if not ctx.work.has(name):
        start = time.perf_counter()
        try:
            trial = try_module(ctx, cluster, kind)
        except NothingToLearn as reason:
            trial = Trial(note=str(reason))
        trial.seconds = round(time.perf_counter() - start, 3)
        ctx.work.write_json(name, trial.model_dump(mode="json"))
    return Trial.model_validate(ctx.work.read_json(name))


def _summary(ctx: RefreshContext, cluster: ClusterData, decision: Decision) -> ClusterResult:
    last = decision.reports[-1] if decision.reports else None
    return ClusterResult(
        id=cluster.id,
        size=len(cluster.run_ids),
        train=len(cluster.train),
        verify=len(cluster.verify),
        unlabelled=len(cluster.unlabelled),
        gap=cluster.gap or 0.0,
        gap_logs=cluster.n_gap_logs,
        route=decision.route,
        pairs=len(ctx.pairs(cluster)),
        epoch=last.epoch if last and decision.route != "base" and not decision.kept else None,
        win_rate=last.win_rate if last else None,
        interval=last.interval if last else None,
        judged=last.n if last else 0,
        seconds=decision.seconds,
        rules=cluster.rules,
        note="; ".join(decision.notes),
    )
