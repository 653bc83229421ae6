"""Which cluster of the current release a new cluster continues, by the logs that both hold.

A release holds opaque ids of its logs; with the home's key those of the present logs are computed
again and looked for, so nothing that was forgotten is needed. A cluster that goes on keeps its
name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_uno.errors import ReleaseError
from langchain_uno.graphs.refresh_context import RefreshContext
from langchain_uno.releases.load import Release, load_release, read_current
from langchain_uno.releases.manifest import lineage_key, opaque_id

__all__ = ["Parent", "match_parents", "parent_release"]

_NAME = re.compile(r"c(\d+)\Z")


@dataclass(frozen=True)
class Parent:
    """A new cluster's name, and what it continues."""

    name: str
    module: str | None = None
    """The cluster of the parent release that answered its requests, where it has a module."""
    trained_on: frozenset[str] = frozenset()
    """Run ids, among the present logs, that this module was trained on."""


def parent_release(ctx: RefreshContext) -> Release | None:
    """Return the release that this refresh goes on from; None when there is none that fits.

    It is the one that was current when the clusters were made, also in a later call: what one call
    has settled another goes on with. A release of another model or prompt set, or made by another
    recipe, is nothing to go on from.
    """
    if not ctx.recipe.evolve.keep:
        return None
    if not ctx.work.has("parent.json"):
        try:
            current = read_current(ctx.home)
        except ReleaseError:  # a broken release is no reason against making a sound one
            current = None
        ctx.work.write_json("parent.json", current.id if current else None)
    name = ctx.work.read_json("parent.json")
    if name is None:
        return None
    try:
        release = load_release(
            ctx.home,
            name,
            base_fingerprint=ctx.engine.fingerprint,
            embedder_fingerprint=ctx.embedder.fingerprint,
            prompt_set_fingerprint=ctx.prompts.fingerprint,
        )
    except ReleaseError:  # revoked meanwhile, or of other models
        return None
    same = release.manifest.recipe == ctx.recipe.model_dump(mode="json")
    return release if same else None


def match_parents(ctx: RefreshContext, groups: Sequence[set[str]]) -> list[Parent]:
    """Return a parent (at least a name) for every group of run ids.

    A group continues the cluster with which it shares most logs, when these are more than half of
    what is left of that cluster and more than half of the group's logs that the release knew: at
    most one group continues a cluster, and what drifted apart is new. A part that came off has the
    module for a parent all the same: it is what its users get today.
    """
    release = parent_release(ctx)
    if release is None:
        width = len(str(len(groups) - 1))
        return [Parent(f"c{n:0{width}d}") for n in range(len(groups))]
    key = lineage_key(ctx.home)
    run_of = {opaque_id(key, run_id): run_id for run_id in ctx.logs}
    run_of |= {opaque_id(key, run_id): run_id for run_id in ctx.unheard}
    old = {c.id: {run_of[o] for o in c.run_ids if o in run_of} for c in release.manifest.clusters}
    known = set().union(*old.values())
    numbers = [int(m.group(1)) for c in old if (m := _NAME.match(c))]
    fresh = max(numbers, default=-1) + 1
    parents = []
    for group in groups:
        name = max(old, key=lambda c: len(old[c] & group), default=None)
        shared = len(old[name] & group) if name is not None else 0
        labelled = old[name] & set(ctx.logs) if name is not None else set()
        if name is None or not shared or 2 * shared <= len(known & group):
            parents.append(Parent(f"c{fresh}"))
            fresh += 1
            continue
        goes_on = 2 * shared > len(labelled)
        cluster = release.cluster(name)
        parents.append(
            Parent(
                name if goes_on else f"c{fresh}",
                module=name if cluster.route != "base" else None,
                trained_on=frozenset(run_of[o] for o in cluster.trained_on if o in run_of),
            )
        )
        fresh += not goes_on
    return parents
