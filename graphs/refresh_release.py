"""The last node of a refresh: publish what passed as one release, and make it current."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langchain_uno.graphs.refresh_clusters import routing_projection
from langchain_uno.graphs.refresh_context import ClusterData, ClusterResult, RefreshContext
from langchain_uno.graphs.refresh_modules import Decision, read_decision
from langchain_uno.learning.cluster import centroids
from langchain_uno.learning.reach import unseen_threshold
from langchain_uno.models.protocols import FloatArray
from langchain_uno.records import Cluster

__all__ = ["release_node"]


def release_node(ctx: RefreshContext) -> None:
    """Write the release atomically and give it all traffic.

    The id is chosen and kept before anything is written: a refresh killed between publishing and
    noting it makes no second release.
    """
    ctx.once("release", "release.json", lambda: _release(ctx))


def _release(ctx: RefreshContext) -> str:
    from langchain_uno.models.adapters import linear_shapes
    from langchain_uno.releases.manifest import Manifest, new_release_id
    from langchain_uno.releases.publish import make_current, publish

    ctx.progress.start("release", 1)
    if not ctx.work.has("release-id.json"):
        ctx.work.write_json("release-id.json", new_release_id())
    release_id: str = ctx.work.read_json("release-id.json")
    shapes = linear_shapes(getattr(ctx.engine, "model", None))
    if (ctx.home.releases / release_id).is_dir():
        make_current(ctx.home, release_id, linear_shapes=shapes)
    else:
        found = [ClusterResult.model_validate(c) for c in ctx.work.read_json("train.json")]
        labels = _labels(ctx, found)
        clusters, centres, threshold = _clusters(ctx, found, labels)
        decisions = {c.id: read_decision(ctx, c.id) for c in found}
        draft = Manifest(
            id=release_id,
            base_model=ctx.engine.model_name,
            base_fingerprint=ctx.engine.fingerprint,
            embedder_fingerprint=ctx.embedder.fingerprint,
            prompt_set_fingerprint=ctx.prompts.fingerprint,
            recipe=ctx.recipe.model_dump(mode="json"),
            clusters=clusters,
            threshold=threshold,
            figures={
                "refresh": ctx.id,
                "teacher": ctx.teacher.fingerprint,
                "seconds": {k: v for k, v in ctx.seconds.items() if k != "release"},
                "pairs": {c.id: c.pairs for c in found},
                "train": {c.id: c.train for c in found},
                "verify": {c.id: c.verify for c in found},
            },
        )
        adapters = {
            cluster_id: ctx.work.path(decision.adapter)
            for cluster_id, decision in decisions.items()
            if decision.adapter is not None
        }
        taught = {c: d.kept.trained_on for c, d in decisions.items() if d.kept}
        publish(
            ctx.home,
            draft,
            adapters,
            centres,
            linear_shapes=shapes,
            taught=taught,
            projection=routing_projection(ctx, ctx.queries, labels),
        )
    ctx.progress.advance("release")
    ctx.work.write_json("release.json", {"release": release_id})
    return release_id


def _trained_on(cluster: ClusterData, decision: Decision) -> list[str]:
    """Return the run ids that a new module learnt from; a kept one's are opaque already."""
    if decision.route == "base":
        return []
    return [] if decision.kept else cluster.train + cluster.practice


def _labels(ctx: RefreshContext, found: list[ClusterResult]) -> NDArray[np.int64]:
    """Return each log's cluster as a row of ``found``, in the order of the logs."""
    members: dict[str, ClusterData] = {c.id: c for c in ctx.clusters()}
    rows = {run_id: i for i, run_id in enumerate(ctx.logs)}
    labels = np.empty(len(rows), dtype=np.int64)
    for label, cluster in enumerate(found):
        labels[[rows[run_id] for run_id in members[cluster.id].run_ids]] = label
    return labels


def _clusters(
    ctx: RefreshContext, found: list[ClusterResult], labels: NDArray[np.int64]
) -> tuple[list[Cluster], FloatArray, float]:
    """Return the manifest's clusters, their centroids (k, d), and the unseen threshold."""
    members: dict[str, ClusterData] = {c.id: c for c in ctx.clusters()}
    centres = centroids(ctx.queries, labels)
    distances = np.linalg.norm(ctx.queries - centres[labels], axis=1)
    out = []
    for label, cluster in enumerate(found):
        decision = read_decision(ctx, cluster.id)
        out.append(
            Cluster(
                id=cluster.id,
                size=cluster.size,
                run_ids=members[cluster.id].run_ids + members[cluster.id].practice,
                gap=cluster.gap,
                n_gap_logs=cluster.gap_logs,
                route=decision.route,
                radius=float(distances[labels == label].max()),
                rules=members[cluster.id].rules,
                conditions=members[cluster.id].conditions,
                rivals=members[cluster.id].rivals,
                trained_on=_trained_on(members[cluster.id], decision),
                made_in=decision.kept.made_in if decision.kept else None,
                reports=decision.reports,
                note=cluster.note,
            )
        )
    threshold = unseen_threshold(ctx.queries, labels, ctx.recipe.cluster.unseen_quantile)
    return out, centres, threshold
