"""What a refresh takes over from the release that is current (paper, stage 10).

A cluster goes on from the cluster of that release with which it shares most logs. The release holds
opaque ids of its logs. The ids of the present logs are computed with the home's key and compared,
so nothing that was forgotten is needed.

A module stays, and nothing is trained, if it passes verification on today's logs, its cluster has
the same rules, and the cluster has grown little. Any other module that passes is replaced only by a
better one. A module that today's logs are too few to decide on is replaced by one that passes and
does not lose against it; it also goes if something speaks against it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from langchain_uno.errors import ReleaseError
from langchain_uno.learning.work import ClusterData, Work
from langchain_uno.models.protocols import FloatArray, known_as
from langchain_uno.records import Cluster, ModuleKind, VerifierReport, run_of
from langchain_uno.releases.checks import CONFIG_FILE
from langchain_uno.releases.load import Release, find_manifest, load_release, read_current
from langchain_uno.releases.manifest import ADAPTER_ROUTES, lineage_key, opaque_id
from langchain_uno.releases.traffic import read_traffic

MAX_GROWTH = 0.5
"""New training logs, as a share of those that a module was trained on, beyond which it is old."""
_NAME = re.compile(r"c(\d+)\Z")

Verify = Callable[[ModuleKind, list[Path]], VerifierReport]


@dataclass(frozen=True)
class Parent:
    """A new cluster's name, and what it continues."""

    name: str
    module: str | None = None
    """The cluster of the parent release that answered its requests, where it has a module."""
    trained_on: frozenset[str] = frozenset()
    """Ids, among the present logs, that this module was trained on."""


class Incumbent(BaseModel):
    """A module of the current release, as it does on its cluster's logs of today."""

    kind: ModuleKind
    made_in: str
    """The release whose refresh made it."""
    trained_on: list[str]
    """Opaque ids, as its release has them: of logs that are gone by now too."""
    report: VerifierReport
    adapter: str
    """Its folder, relative to the work folder."""
    rules: list[str] = Field(default_factory=list)
    """The rules that it was taught."""
    stale: str | None = None
    """Why it may not simply stay; None: it may, if it passed."""

    @property
    def stays(self) -> bool:
        """Whether nothing is to be trained in its place."""
        return self.stale is None and self.report.passed

    @property
    def stands(self) -> bool:
        """Whether nothing in today's logs speaks against it."""
        return self.report.passed or self.report.undecided


def _parent_release(work: Work) -> Release | None:
    """Return the release that this refresh goes on from; None when there is none that fits.

    It is the one that was current when the clusters were made, also in a later call: what one call
    has settled another goes on with. After an erasure it is what is left of the one that was, and
    the modules that answer today in place of those that are lost. A release of another model or
    prompt set is nothing to go on from; another recipe or seed is: what a module is worth is
    verified anew.
    """
    if not work.recipe.keep:
        return None
    left, name, known = None, None, work.folder.has("parent.json")
    with suppress(ReleaseError):  # a broken release is no reason against making a sound one
        traffic = read_traffic(work.home)
        left = traffic.stands_in_for if traffic else None
        current = None if left or known else read_current(work.home)
        name = left or (current.id if current else None)
    if not known:
        work.folder.write_json("parent.json", name)
    name = work.folder.read_json("parent.json")
    if name is None:
        return None
    fits: dict[str, Any] = {
        "base_fingerprint": known_as(work.engine),
        "embedder_fingerprint": known_as(work.embedder),
        "prompt_set_fingerprint": work.prompts.fingerprint,
    }
    try:
        release = load_release(work.home, name, **fits, remains=name == left)
    except ReleaseError:  # revoked meanwhile, or of other models
        return None
    if name == left:
        with suppress(ReleaseError):  # what answers is broken, or of other models
            today = read_current(work.home, **fits)
            return _mended(release, today) if today else release
    return release


def _mended(remains: Release, today: Release) -> Release:
    """Give the clusters of the remains that lost their module the one that answers today.

    It is the module of the cluster that has more than half of its logs, of those that the remains
    know, in the cluster that lost its own.
    """
    told, then = remains.manifest, today.manifest.figures.get("review", {})
    review = {what: dict(of) for what, of in told.figures.get("review", {}).items()}
    known = {one for cluster in told.clusters for one in cluster.run_ids}
    clusters, lent = [], {}
    for lost in told.clusters:
        members = {*lost.run_ids}
        found = next(
            (
                one
                for one in today.manifest.clusters
                if one.adapter and 2 * len(members & {*one.run_ids}) > len(known & {*one.run_ids})
            ),
            None,
        )
        if found is None or found.adapter is None or lost.adapter or not lost.trained_on:
            clusters.append(lost)
            continue
        place = lost.model_dump(include={"id", "size", "run_ids"})
        made_in = found.made_in or today.id
        clusters.append(found.model_copy(update={**place, "made_in": made_in}))
        lent[found.adapter] = today.adapters[found.adapter]
        for what, of in then.items():
            if found.id in of:
                review.setdefault(what, {})[lost.id] = of[found.id]
    update = {"clusters": clusters, "figures": {**told.figures, "review": review}}
    return replace(remains, manifest=told.model_copy(update=update), lent=lent)


def keep_apart(work: Work, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a cluster for each log, in which the release's modules are apart (:func:`part`)."""
    release = _parent_release(work)
    if release is None:
        return labels
    known_by, rows = _present(work), work.rows
    modules = [
        (
            {*taught_rules(cluster)},
            [rows[i] for o in cluster.run_ids for i in known_by.get(o, ()) if i in rows],
        )
        for cluster in release.manifest.clusters
        if cluster.route in ADAPTER_ROUTES
    ]
    return part(labels, work.queries, modules)


def part(
    labels: NDArray[np.int64], queries: FloatArray, modules: Sequence[tuple[set[str], list[int]]]
) -> NDArray[np.int64]:
    """Return labels in which no cluster joins modules that were taught apart.

    Where a cluster has more than half of the logs of two modules, and each of these was taught a
    rule that the other was not, one module for both would teach either's users what the other's
    asked for. So both go on, and other logs go to the nearer one, as serving would send them. Logs
    of both, of one answer that several people spoke about, say nothing.

    Args:
        labels: a cluster for each log, from 0, shape (n,).
        queries: vectors of the requests, (n, d).
        modules: what each was taught, and the rows of its logs.
    """
    labels = labels.copy()
    parts: dict[int, list[tuple[list[set[str]], list[int]]]] = {}
    claims = Counter(row for _, rows in modules for row in rows)
    for taught, rows in modules:
        own = [row for row in rows if claims[row] == 1]
        label, most = Counter(labels[own].tolist()).most_common(1)[0] if own else (0, 0)
        if 2 * most <= len(own):
            continue
        there = [row for row in own if labels[row] == label]
        for known, others in parts.setdefault(label, []):
            if all(rules <= taught or taught <= rules for rules in known):
                known.append(taught)
                others += there
                break
        else:
            parts[label].append(([taught], there))
    for label, joined in parts.items():
        centres = np.stack([queries[own].mean(axis=0) for _, own in joined])
        members = np.flatnonzero(labels == label)
        near = (queries[members] @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
        names = np.array([label, *range(int(labels.max()) + 1, int(labels.max()) + len(joined))])
        labels[members] = names[near]
        for name, (_, own) in zip(names, joined, strict=True):
            labels[own] = name
    return labels


def match_parents(work: Work, groups: Sequence[set[str]]) -> list[Parent]:
    """Return a parent (at least a name) for every group of log ids.

    A group continues the cluster with which it shares most logs, when these are more than half of
    what is left of that cluster and more than half of the group's logs that the release knew: at
    most one group continues a cluster, and what drifted apart is new. A part that came off has the
    module for a parent all the same, and so has a group of which the release knew nothing and
    answered most: it is what their users get today.
    """
    release = _parent_release(work)
    if release is None:
        width = len(str(len(groups) - 1))
        return [Parent(f"c{n:0{width}d}") for n in range(len(groups))]
    known_by = _present(work)
    old = {
        c.id: {i for o in c.run_ids for i in known_by.get(o, ())} & set(work.logs)
        for c in release.manifest.clusters
    }
    known = set().union(*old.values())
    numbers = [int(m.group(1)) for c in old if (m := _NAME.match(c))]
    fresh = max(numbers, default=-1) + 1
    parents = []
    for group in groups:
        name = max(old, key=lambda c: len(old[c] & group), default=None)
        shared = len(old[name] & group) if name is not None else 0
        if name is None or not shared or 2 * shared <= len(known & group):
            answered = None if known & group else _answered_by(work, release, group)
            parents.append(Parent(f"c{fresh}", module=answered))
            fresh += 1
            continue
        goes_on = 2 * shared > len(old[name])
        cluster = release.cluster(name)
        taught = {i for o in cluster.trained_on for i in known_by.get(o, ())}
        parents.append(
            Parent(
                name if goes_on else f"c{fresh}",
                module=name if cluster.route in ADAPTER_ROUTES else None,
                trained_on=frozenset(taught),
            )
        )
        fresh += not goes_on
    return parents


def _answered_by(work: Work, release: Release, group: set[str]) -> str | None:
    """Return the cluster whose module answered more than half of a group; None: none did.

    It is what its users have, where no log is left of those that the release knows.
    """
    there = {c.id for c in release.manifest.clusters if c.route in ADAPTER_ROUTES}
    logs = [work.logs[log_id] for log_id in group]
    count = Counter(log.cluster for log in logs if log.release == release.id)
    name, most = max(count.items(), key=lambda one: one[1], default=(None, 0))
    return name if name in there and 2 * most > len(group) else None


def given_rules(work: Work) -> dict[str, list[str]]:
    """Return, for every log that a module answered, the rules that this module was taught.

    Logs whose release is gone, or that the base answered, are left out.
    """
    known: dict[str, dict[str, list[str]]] = {}
    out: dict[str, list[str]] = {}
    for log_id, log in work.logs.items():
        if log.release is None or log.cluster is None or log.route in (None, "base"):
            continue
        if log.release not in known:
            manifest = find_manifest(work.home, log.release)  # None: deleted since
            clusters = manifest.clusters if manifest else ()
            known[log.release] = {c.id: taught_rules(c) for c in clusters}
        if rules := known[log.release].get(log.cluster):
            out[log_id] = rules
    return out


def known_wordings(work: Work) -> dict[str | None, list[str]]:
    """Return the rules of the release that is gone on from, by cluster."""
    release = _parent_release(work)
    return {c.id: taught_rules(c) for c in release.manifest.clusters} if release else {}


def taught_rules(cluster: Cluster) -> list[str]:
    """Return the rules that the module of a release's cluster was taught."""
    return cluster.rules if cluster.learnt is None else cluster.learnt


def mark_reviewed(
    work: Work,
    clusters: Sequence[ClusterData],
    decided: Collection[str],
    touched: Mapping[str, Collection[str]],
) -> None:
    """Say of each cluster what decisions mean for the module that it continues.

    Args:
        work: the refresh.
        clusters: ``overruled`` and ``restored`` are set.
        decided: ids of all decisions.
        touched: those that take out or change something, and the logs they are about.
    """
    release = _parent_release(work)
    if release is None:
        return
    then = release.manifest.figures.get("review", {})
    in_force: dict[str, list[str]] = then.get("in_force", {})
    known = set().union(*in_force.values())
    new = {log_id for one, logs in touched.items() if one not in known for log_id in logs}
    known_by = _present(work) if new else {}
    for cluster in (c for c in clusters if c.parent is not None):
        old = release.cluster(str(cluster.parent))
        gone = then.get("own", {}).get(old.id, {}).keys() - cluster.own.keys()
        learnt = {i for opaque in old.trained_on for i in known_by.get(opaque, ())}
        cluster.overruled = bool(gone or learnt & new)
        cluster.restored = bool({*decided} & {*in_force.get(old.id, ())} - touched.keys())


def incumbent(work: Work, cluster: ClusterData, verify: Verify | None) -> Incumbent | None:
    """Return the present module of a cluster, verified anew; None when it has none.

    Also None where it learnt what a person has taken out since.

    It can't be verified where nobody is held out, or somebody who was in training then, or where an
    old release does not say who was: they would speak for a module that knows them. Nothing is
    decided then, so it is what users have.

    Args:
        work: the refresh.
        cluster: with a parent.
        verify: compares a module with the base on the cluster's held-out queries; None: there are
            none.
    """
    name, said = (f"clusters/{cluster.id}/incumbent{end}" for end in (".json", "-compared.jsonl"))
    if work.folder.has(name):
        found = Incumbent.model_validate(work.folder.read_json(name))
        if not found.report.n or work.folder.has(said):
            return found
    release = _parent_release(work)
    if cluster.parent is None or release is None or cluster.overruled:
        return None
    old = release.cluster(cluster.parent)
    if old.adapter is None:
        return None
    known_by = _present(work)
    taught = {i for o in old.trained_on for i in known_by.get(o, ())}
    folder = work.folder.fresh_folder(f"clusters/{cluster.id}/incumbent")
    for file in release.adapters[old.adapter].iterdir():
        shutil.copyfile(file, folder / file.name)  # the release may be swept meanwhile
    config = json.loads((folder / CONFIG_FILE).read_bytes())
    # The model may lie elsewhere by now: its fingerprint says that it is the same.
    config["base_model_name_or_path"] = work.engine.model_name
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2))
    kind: ModuleKind = "expert" if old.route == "expert" else "critic"
    stale = _stale(cluster, old, len(taught))
    if verify is None or not old.trained_on or taught & {*cluster.verify, *cluster.unlabelled}:
        why = "no held-out request is left that it was surely not trained on"
        report = unverified(kind, why)
        stale = stale or report.reason
    else:
        report = verify(kind, [folder])
    found = Incumbent(
        kind=kind,
        made_in=old.made_in or release.id,
        trained_on=old.trained_on,
        rules=taught_rules(old),
        report=report,
        adapter=str(folder.relative_to(work.folder.root)),
        stale=stale,
    )
    work.folder.write_json(name, found.model_dump(mode="json"))
    return found


def unverified(kind: ModuleKind, reason: str) -> VerifierReport:
    """Return the report of a module of which nothing is known, for this reason."""
    return VerifierReport(
        kind=kind,
        n=0,
        people=0,
        win_rate=0.0,
        interval=(0.0, 1.0),
        passed=False,
        undecided=True,
        reason=reason,
    )


def _present(work: Work) -> dict[str, list[str]]:
    """Return the present logs by the opaque ids that a release has for them."""
    key = lineage_key(work.home)
    found: dict[str, list[str]] = {}
    for log_id in [*work.logs, *work.unheard]:
        found.setdefault(opaque_id(key, run_of(log_id)), []).append(log_id)
    return found


def _stale(cluster: ClusterData, old: Cluster, taught: int) -> str | None:
    # The teacher words rules of thumbs anew each time: the verifier alone decides.
    if not cluster.by_thumbs and set(cluster.rules) != set(taught_rules(old)):
        return "its rules changed"
    if cluster.restored:
        return "what it was made without was restored"
    new = len(cluster.train) - taught
    return f"{new} logs are new, it was trained on {taught}" if new > MAX_GROWTH * taught else None
