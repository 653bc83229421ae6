"""The evolve node of a refresh: verify the modules of the current release on today's logs.

A module whose cluster wants what it wanted, and has grown little, stays if it passes: nothing is
trained there. Any other module that passes is the one to beat: what is trained in its place must
not have a lower win rate on the same queries (:mod:`langchain_uno.graphs.refresh_modules`). One
that today's queries are too few to decide on, in a part that came off a cluster say, is what its
users have: it goes only if something decided takes its place, or something speaks against it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from langchain_uno.graphs.refresh_context import ClusterData, RefreshContext
from langchain_uno.graphs.refresh_parents import parent_release
from langchain_uno.graphs.refresh_trials import Trial, held_out, verify_module
from langchain_uno.records import Cluster, ModuleKind

__all__ = ["Incumbent", "evolve_node", "incumbent", "is_kept"]


class Incumbent(BaseModel):
    """A module of the current release, as it does on its cluster's logs of today."""

    kind: ModuleKind
    made_in: str
    """The release whose refresh made it."""
    trained_on: list[str]
    """Opaque ids, as its release has them: of logs that are gone by now too."""
    trial: Trial
    stale: str | None = None
    """Why it may not simply stay; None: it may, if it passed."""

    @property
    def stands(self) -> bool:
        """Whether nothing in today's logs speaks against it."""
        report = self.trial.report
        return report is not None and (report.passed or report.undecided)


def evolve_node(ctx: RefreshContext) -> None:
    """Verify the modules that could stay."""
    ctx.once("evolve", "evolve.json", lambda: _evolve(ctx))


def _evolve(ctx: RefreshContext) -> str:
    release = parent_release(ctx)
    work = [c for c in ctx.clusters() if c.parent is not None]
    ctx.progress.start("evolve", len(work), "modules that could stay")
    kept = 0
    for cluster in work if release else ():
        assert release is not None and cluster.parent is not None
        old = release.cluster(cluster.parent)
        taught = _taught(ctx, old)
        # Who was in training then and is held out now (their logs of then may be left out by now)
        # would speak for a module that knows them. Old releases do not say who that was.
        tested = {*cluster.verify, *cluster.unlabelled}
        honest = bool(old.trained_on and not taught & tested and held_out(ctx, cluster))
        if honest and not ctx.work.has(_name(cluster)):
            folder = None
            if old.adapter is not None:
                folder = ctx.work.fresh_folder(f"clusters/{cluster.id}/incumbent")
                for file in release.adapters[old.adapter].iterdir():
                    shutil.copyfile(file, folder / file.name)  # the release may be swept meanwhile
            found = _verified(ctx, cluster, old, folder, release.id, len(taught))
            ctx.work.write_json(_name(cluster), found.model_dump(mode="json"))
        kept += is_kept(ctx, cluster)
        ctx.progress.advance("evolve")
    ctx.work.write_json("evolve.json", {"parent": release.id if release else None, "kept": kept})
    return f"{kept} of {len(work)} stay"


def _verified(
    ctx: RefreshContext,
    cluster: ClusterData,
    old: Cluster,
    folder: Path | None,
    release: str,
    taught: int,
) -> Incumbent:
    """Verify a module on today's logs; what it is reminded of are today's rules."""
    kind = cast(ModuleKind, old.route)
    report = verify_module(ctx, cluster, kind, [folder] if folder else [])
    return Incumbent(
        kind=kind,
        made_in=old.made_in or release,
        trained_on=old.trained_on,
        trial=Trial(
            report=report,
            note=report.reason,
            adapter=str(folder.relative_to(ctx.work.root)) if folder else None,
        ),
        stale=_stale(ctx, cluster, old, taught),
    )


def _taught(ctx: RefreshContext, old: Cluster) -> set[str]:
    """Return those of the present logs that a module was trained on."""
    from langchain_uno.releases.manifest import lineage_key, opaque_id

    key, taught = lineage_key(ctx.home), set(old.trained_on)
    present = [*ctx.logs, *ctx.unheard]
    return {run_id for run_id in present if opaque_id(key, run_id) in taught}


def _stale(ctx: RefreshContext, cluster: ClusterData, old: Cluster, taught: int) -> str | None:
    if old.route == "expert" and not ctx.is_low(cluster):
        return "its gap is high now"
    now = dict(zip(cluster.rules, map(frozenset, cluster.conditions), strict=True))
    then = dict(zip(old.rules, map(frozenset, old.conditions), strict=True))
    if now != then:
        return "its rules changed"
    new = len(cluster.train) + len(cluster.practice) - taught
    if new > ctx.recipe.evolve.max_growth * taught:
        return f"{new} logs are new, it was trained on {taught}"
    return None


def _name(cluster: ClusterData) -> str:
    return f"clusters/{cluster.id}/incumbent.json"


def incumbent(ctx: RefreshContext, cluster: ClusterData) -> Incumbent | None:
    """Return the present module of a cluster, verified anew; None when it has none."""
    if cluster.parent is None or not ctx.work.has(_name(cluster)):
        return None
    return Incumbent.model_validate(ctx.work.read_json(_name(cluster)))


def is_kept(ctx: RefreshContext, cluster: ClusterData) -> bool:
    """Whether a cluster's module stays, so that none is trained."""
    found = incumbent(ctx, cluster)
    return found is not None and found.stale is None and found.trial.passed
