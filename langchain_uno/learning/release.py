"""Stage "release": publish what passed as one release, and make it current.

The id is chosen and kept before anything is written: a refresh killed between publishing and noting
it makes no second release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_uno.errors import ReleaseError
from langchain_uno.learning.cluster import labels_of, reach_of
from langchain_uno.learning.controls import scorer_figures
from langchain_uno.learning.decisions import INDEX
from langchain_uno.learning.train import read_decision
from langchain_uno.learning.work import ClusterData, Work
from langchain_uno.models.protocols import known_as
from langchain_uno.records import Cluster, digest_of, run_of
from langchain_uno.releases.canary import running
from langchain_uno.releases.history import NEW_LOGS, held, note, read_history, rolled_back
from langchain_uno.releases.load import find_manifest, read_current, read_manifest
from langchain_uno.releases.manifest import Manifest, lineage_key, new_release_id, opaque_id
from langchain_uno.releases.publish import make_current, publish


def release_stage(work: Work) -> dict[str, Any]:
    """Write the release atomically, and give it all traffic.

    Unless that is left to a person, or a canary is running, which must not be cut short.
    """
    from langchain_uno.models.adapters import linear_shapes

    work.progress.start("release", 1)
    if not work.folder.has("release-id.json"):
        work.folder.write_json("release-id.json", new_release_id())
    release_id: str = work.folder.read_json("release-id.json")
    shapes = linear_shapes(getattr(work.engine, "model", None))
    if (work.home.releases / release_id).is_dir():
        waits = _waits(work, read_manifest(work.home, release_id).clusters)
        if not waits:
            make_current(work.home, release_id, linear_shapes=shapes)
        elif not any(one.get("release") == release_id for one in read_history(work.home)):
            note(work.home, "publish, not promoted", release_id)  # it was killed before that
    else:
        waits = _publish(work, release_id, shapes)
    work.progress.advance("release")
    coverage = read_manifest(work.home, release_id).figures.get("coverage")
    reached = f"; {100 * coverage:.0f} % of other wordings reach their cluster" if coverage else ""
    told = f"{release_id}{', not promoted' if waits else ''}{reached}"
    counts = {"release": release_id, "coverage": coverage, "promoted": not waits, "note": told}
    return {**counts, "notes": [_STANDS] if waits and _rollback_stands(work) else []}


_STANDS = "A rollback stands, as nothing is new but what is gone: the release waits for a person."


def _publish(work: Work, release_id: str, shapes: Mapping[str, tuple[int, int]]) -> bool:
    """Write the release; return whether it waits for a person."""
    found = work.clusters()
    decisions = {c.id: read_decision(work, c.id) for c in found}
    reach = reach_of(work, labels_of(work, found))
    described = [_cluster(work, c) for c in found]
    waits = _waits(work, described)
    draft = Manifest(
        id=release_id,
        base_model=work.engine.model_name,
        base_fingerprint=work.engine.fingerprint,
        embedder_fingerprint=work.embedder.fingerprint,
        prompt_set_fingerprint=work.prompts.fingerprint,
        recipe=work.recipe.model_dump(mode="json"),
        clusters=described,
        threshold=reach.limit,
        figures={
            "refresh": work.id,
            "settled": _settled(work),
            "said_until": _said_until(work),
            "embedder": known_as(work.embedder).name,
            "teacher": work.teacher.fingerprint,
            "scorers": scorer_figures(work),
            "seconds": work.seconds,
            "coverage": reach.coverage,
            "pairs": {c.id: len(work.pairs(c)) for c in found},
            "train": {c.id: len(c.train) for c in found},
            "verify": {c.id: len(c.verify) for c in found},
            "review": {
                "in_force": work.folder.read_json(INDEX)["in_force"],
                "own": {c.id: c.own for c in found if c.own},
            },
        },
    )
    publish(
        work.home,
        draft,
        {i: work.folder.path(d.adapter) for i, d in decisions.items() if d.adapter},
        reach.centroids,
        linear_shapes=shapes,
        taught={i: d.kept.trained_on for i, d in decisions.items() if d.kept},
        space=reach.space,
        promote=not waits,
    )
    return waits


def _waits(work: Work, clusters: Sequence[Cluster]) -> bool:
    """Whether a release of these clusters is left to a person, or must not end a canary.

    A hold of changes lets a release through whose modules answer the same clusters, by the same
    routes, as those of the current one.
    """
    hold = held(work.home)
    if not work.promote or running(work.home) or (hold is not None and hold["when"] != "routes"):
        return True
    if (stands := _rollback_stands(work)) or hold is None:
        return stands
    try:
        current = read_current(work.home)
    except ReleaseError:  # nobody can tell what changes
        return True
    before = current.manifest.clusters if current else []
    then, now = ({c.id: c.route for c in some if c.route != "base"} for some in (before, clusters))
    return then != now


def _settled(work: Work) -> str:
    """Return a digest of recipe, models and decisions."""
    return digest_of(work.fit, *sorted(work.folder.read_json(INDEX)["known"]))


def _said_until(work: Work) -> float:
    """Return when the latest feedback was given, in seconds since 1970."""
    said = (one for log in work.logs.values() for one in log.feedback)
    return max((one.created_at.timestamp() for one in said), default=0.0)


def _rollback_stands(work: Work) -> bool:
    """Whether a rollback stands: the release before knew all these logs, decisions and settings."""
    back, this = rolled_back(work.home), work.folder.read_json("release-id.json")
    if not back or back["until"] != NEW_LOGS:
        return False
    told = [one for one in read_history(work.home) if "publish" in str(one.get("what"))]
    made = [str(one["release"]) for one in told if one.get("release") != this]
    last = find_manifest(work.home, made[-1]) if made else None
    if last is None or last.figures.get("settled") != _settled(work):
        return False
    key, known = lineage_key(work.home), set(last.lineage)
    new = _said_until(work) > last.figures.get("said_until", 0.0)
    return not new and all(opaque_id(key, run_of(log_id)) in known for log_id in work.logs)


def _cluster(work: Work, cluster: ClusterData) -> Cluster:
    """Return what a manifest says of a cluster."""
    decision = read_decision(work, cluster.id)
    new = decision.route != "base" and not decision.kept
    return Cluster(
        **cluster.model_dump(include={"id", "gap", "n_gap_logs", "rules", "people"}),
        size=len(cluster.run_ids),
        run_ids=list(dict.fromkeys(map(run_of, cluster.run_ids))),
        route=decision.route,
        # A kept module's are opaque already.
        trained_on=list(dict.fromkeys(map(run_of, cluster.train))) if new else [],
        made_in=decision.kept.made_in if decision.kept else None,
        learnt=decision.kept.rules if decision.kept else None,
        reports=decision.reports,
        note="; ".join(decision.notes),
    )
