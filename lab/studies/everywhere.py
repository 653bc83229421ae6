"""Experts, critics, memories everywhere: releases of what one refresh made and kept.

The refresh must have run with ``recipe.everything``: then every kind of module lies in its work
folder, whether they passed or not. Each kind becomes a release of a namespace of its own, with the
clusters and centroids of the true one, so that all systems route alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.studies.rivals import Past
from langchain_uno.errors import InputError
from langchain_uno.graphs.checkpoints import WorkFolder
from langchain_uno.graphs.refresh_context import ClusterData, RefreshResult
from langchain_uno.graphs.refresh_modules import KINDS
from langchain_uno.graphs.refresh_trials import Trial
from langchain_uno.home import Home
from langchain_uno.learning.aggregate import ClusterRules
from langchain_uno.learning.revise import wanted_rules
from langchain_uno.records import Interaction, ModuleKind, Route, RuleSet
from langchain_uno.releases.load import Release, load_release
from langchain_uno.releases.publish import publish

__all__ = ["Kept", "publish_kind", "read_kept", "was_made"]


@dataclass(frozen=True)
class Kept:
    """What a refresh left in its work folder."""

    work: WorkFolder
    release: Release
    clusters: list[ClusterData]
    trials: dict[str, dict[ModuleKind, Trial]]
    recurring: dict[str, ClusterRules]
    past: Past


def read_kept(home: Home, result: RefreshResult) -> Kept:
    """Read a finished refresh of ``recipe.everything``.

    Raises:
        InputError: its work folder is gone, or not everything was trained.
    """
    work = WorkFolder(home.work / result.refresh_id)
    if result.release is None or not work.has("gaps.jsonl"):
        raise InputError(
            f"The refresh of {str(home.path)!r} left nothing to compare: run the cell again."
        )
    clusters = work.read_records("gaps.jsonl", ClusterData)
    trials: dict[str, dict[ModuleKind, Trial]] = {}
    recurring = {}
    for cluster in clusters:
        folder = f"clusters/{cluster.id}"
        trials[cluster.id] = {
            kind: Trial.model_validate(work.read_json(f"{folder}/{kind}.json"))
            for kind in KINDS
            if work.has(f"{folder}/{kind}.json")
        }
        [recurring[cluster.id]] = work.read_records(f"{folder}/recurring.jsonl", ClusterRules)
    release = load_release(home, result.release)
    return Kept(work, release, clusters, trials, recurring, _past(work, clusters))


def publish_kind(kept: Kept, home: Home, kind: ModuleKind, *, remind: bool = True) -> Home:
    """Publish one kind for every cluster that has one; the rest stays with the base.

    Args:
        kept: what the refresh left.
        home: its home.
        kind: of module.
        remind: False: critics are not reminded, whatever the recipe says.

    Returns:
        The namespace it was published in.
    """
    how = "everywhere" if remind else "alone"
    place = Home.locate(home.root, f"{home.namespace}-{kind}-{how}").ensure()
    adapters: dict[str, Path] = {}
    clusters = []
    for cluster in kept.release.manifest.clusters:
        trial = kept.trials.get(cluster.id, {}).get(kind)
        route: Route = "base"
        if trial is not None and was_made(trial, kind):
            route = kind
            if trial.adapter is not None:
                adapters[cluster.id] = kept.work.path(trial.adapter)
        clusters.append(cluster.model_copy(update={"route": route, "adapter": None, "reports": []}))
    manifest = kept.release.manifest
    recipe = {**manifest.recipe, "remind": manifest.recipe["remind"] and remind}
    mine: dict[str, Any] = {"clusters": clusters, "recipe": recipe, "id": "", "parent": None}
    draft = manifest.model_copy(update={**mine, "adapters": [], "files": {}})
    publish(place, draft, adapters, kept.release.centroids, projection=kept.release.projection)
    return place


def was_made(trial: Trial | None, kind: ModuleKind) -> bool:
    """Whether there is a module to ask, passed or not; a memory has no adapter."""
    if trial is None or trial.report is None:
        return False
    return kind == "memory" or trial.adapter is not None


def _past(work: WorkFolder, clusters: list[ClusterData]) -> Past:
    logs = {log.run_id: log for log in work.read_records("logs.jsonl", Interaction)}
    rules = {one.run_id: one for one in work.read_records("rules.jsonl", RuleSet)}
    rows = {run_id: i for i, run_id in enumerate(logs)}
    train = [i for cluster in clusters for i in cluster.train]
    said = [i for i in train if rules[i].with_feedback]
    vectors = work.read_array("queries.npy")[[rows[i] for i in said]]
    return Past([logs[i].query for i in said], vectors, [wanted_rules(rules[i]) for i in said])
