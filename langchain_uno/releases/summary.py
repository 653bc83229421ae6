"""What people are told of a home and its releases: by commands, and by the console."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home
from langchain_uno.logs.figures import traffic_since
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.stats import summed
from langchain_uno.records import Cluster
from langchain_uno.releases.history import held, rolled_back, waiting
from langchain_uno.releases.load import list_releases, read_manifest, revocation_file
from langchain_uno.releases.manifest import Manifest
from langchain_uno.releases.prune import PRUNED
from langchain_uno.releases.traffic import read_traffic

_DAYS = 7


def summary_of(
    home: Home, journal: Journal, read: Callable[[str], Manifest] | None = None
) -> dict[str, Any]:
    """Return what answers, how many requests of a week reach a cluster, and what waits.

    Args:
        home: the namespace.
        journal: its journal.
        read: reads the manifest of a release; None: from its file.

    Raises:
        StoreError: the journal can't be read.
        ReleaseError: ``traffic.json`` is damaged.
    """
    traffic = read_traffic(home)
    shares = traffic.shares if traffic else ()
    releases = list_releases(home)
    read = read or (lambda release: read_manifest(home, release))
    made = _newest(releases, read)
    answers, feedback = journal.counts()
    week = traffic_since(journal, time.time() - _DAYS * 86400)
    by_uno = sum(n for release, _, n in week if release)
    reached = sum(n for _, cluster, n in week if cluster)
    return {
        "home": str(home.path),
        "answers": traffic.answers if traffic else {},
        "without_a_module": [s.release for s in shares if s.release and _is_bare(s.release, read)],
        "rolled_back": rolled_back(home),
        "releases": len(releases),
        "last_release": made.isoformat(timespec="seconds") if made else None,
        "held": held(home),
        "waits_for_approval": waiting(home),
        "logged": answers,
        "feedback": feedback,
        "feedback_since_the_last_release": journal.feedback_since(made.timestamp() if made else 0),
        "feedback_that_waits_for_its_answer": len(journal.waiting()),
        "requests_in_7_days": sum(n for _, _, n in week),
        "reach_a_cluster": round(reached / by_uno, 4) if by_uno else None,
        "answered_by": dict(summed((r or "no release, or imported", n) for r, _, n in week)),
    }


def said_of(answers: Mapping[str, float]) -> str:
    """Say in words who answers (:attr:`~langchain_uno.releases.traffic.Traffic.answers`)."""
    told = [r if share > 0.999 else f"{r} ({100 * share:.0f} %)" for r, share in answers.items()]
    return ", ".join(told) or "the base model"


def _is_bare(release: str, read: Callable[[str], Manifest]) -> bool:
    with suppress(ReleaseError):
        return all(cluster.route == "base" for cluster in read(release).clusters)
    return False


def _newest(releases: Sequence[str], read: Callable[[str], Manifest]) -> datetime | None:
    """Return when the newest release was made that can be read."""
    for release in reversed(releases):
        with suppress(ReleaseError):
            return read(release).created
    return None


def shares_of(home: Home) -> dict[str, float]:
    """Return which release gets which share of the requests; the base model answers the rest.

    Raises:
        ReleaseError: ``traffic.json`` is damaged.
    """
    traffic = read_traffic(home)
    return {s.release: s.share for s in traffic.shares if s.release} if traffic else {}


def row_of(home: Home, release: str, manifest: Manifest | None, share: float) -> dict[str, Any]:
    """Return what a list says of a release.

    Args:
        home: the namespace.
        release: its id.
        manifest: what it says of itself; None: that can't be read.
        share: its part of the requests.
    """
    routes = [cluster.route for cluster in manifest.clusters] if manifest else []
    broken = "broken: it can't be read"
    return {
        "id": release,
        "share": share,
        "created": manifest.created.isoformat(timespec="seconds") if manifest else None,
        "parent": manifest.parent if manifest else None,
        "routes": {route: routes.count(route) for route in dict.fromkeys(routes)},
        "coverage": manifest.figures.get("coverage") if manifest else None,
        "bytes": sum(adapter.n_bytes for adapter in manifest.adapters) if manifest else 0,
        "state": state_of(home, release, share, routes) if manifest else broken,
    }


def state_of(home: Home, release: str, share: float, routes: Collection[str] = ()) -> str:
    """Return in some words what a sound release does: answers, is ready, revoked or pruned.

    Of one that answers ``routes`` say whether its modules do, or the base model.
    """
    if share:
        how = " by the base model alone: no module" if {*routes} == {"base"} else ""
        return f"answers{'' if share > 0.999 else f' {100 * share:.0f} %'}{how}"
    try:
        why = revocation_file(home, release).read_text(encoding="utf-8")
    except FileNotFoundError:
        return "ready"
    return "pruned" if why.startswith(PRUNED) else "revoked"


def win_rate_of(cluster: Cluster) -> str:
    """Return the win rate of what answers a cluster, else of the last try; "-": it is unknown."""
    answering = [report for report in cluster.reports if report.kind == cluster.route]
    if not (reports := answering or cluster.reports) or not reports[-1].n:
        return "-"
    report = reports[-1]
    low, high = report.interval
    return f"{report.win_rate:.2f} ({low:.2f}-{high:.2f})"


def changes_of(old: Manifest | None, new: Manifest | None) -> list[dict[str, Any]]:
    """Return what changed from one release to another, by cluster; None: the base model alone."""
    before = {c.id: c for c in old.clusters} if old else {}
    after = {c.id: c for c in new.clusters} if new else {}
    names = [*after, *(name for name in before if name not in after)]
    sizes = [{a.cluster: a.n_bytes for a in m.adapters} if m else {} for m in (old, new)]
    changes = [_change(name, before.get(name), after.get(name)) for name in names]
    return [{**one, "bytes": [size.get(one["cluster"], 0) for size in sizes]} for one in changes]


def _change(name: str, old: Cluster | None, new: Cluster | None) -> dict[str, Any]:
    rules = [set(c.rules) if c else set() for c in (old, new)]
    return {
        "cluster": name,
        "route": [c.route if c else None for c in (old, new)],
        "won": [win_rate_of(c) if c else None for c in (old, new)],
        "logs": [c.size if c else None for c in (old, new)],
        "rules_added": sorted(rules[1] - rules[0]),
        "rules_removed": sorted(rules[0] - rules[1]),
    }
