"""Releases that learnt from a forgotten log: revoked for good, and emptied.

What is left of one is its manifest without the words of clusters that the log was in (its name, its
parent, opaque ids, numbers), so that a lineage can still be followed, and the modules of the other
clusters, which the next refresh may keep. Revoked releases are refused by every loader, so traffic
moves to the nearest sound ancestor, or to the base model, before a file is touched; what a running
server holds in memory it gives up when it sees the traffic change.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home, is_safe
from langchain_uno.records import Cluster
from langchain_uno.releases import checks
from langchain_uno.releases.load import revocation_file
from langchain_uno.releases.manifest import Manifest, read_manifest_file
from langchain_uno.releases.publish import revoke
from langchain_uno.releases.traffic import write_atomic

_KEPT = {"id", "size", "run_ids", "gap", "n_gap_logs", "trained_on", "made_in", "reports"}
"""What stays of a tainted cluster: named one by one, so that no later field keeps users' words."""

REASON = "tainted: it learnt from a log that was forgotten"


def taint(home: Home, opaque: Collection[str]) -> list[str]:
    """Revoke and empty every release that learnt from one of these logs; return their ids.

    Args:
        home: the namespace.
        opaque: lineage ids (:func:`~langchain_uno.releases.manifest.opaque_id`).

    Raises:
        HomeError: the home can't be written.
    """
    if home.releases.is_dir():
        for left in home.releases.glob(".*"):  # by a publish that was killed; none is under way
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
    hit = tainted_by(home, opaque)
    named = [release for release in hit if is_safe(release)]  # no other can be served
    for release in named:  # all are marked before traffic looks for an heir
        write_atomic(revocation_file(home, release), (REASON + "\n").encode())
    for release in named:
        revoke(home, release, REASON, go_on=True)
    for release, told in hit.items():
        empty_release(home.releases / release, told and _without(told, set(opaque)))
    return list(hit)


def tainted_by(home: Home, opaque: Collection[str]) -> dict[str, Manifest | None]:
    """Return the releases that learnt from one of these logs, by id; nothing is changed.

    None stands for a manifest that can't be read, so that nobody can tell what it learnt from.
    """
    hit: dict[str, Manifest | None] = {}
    folders = sorted(home.releases.iterdir()) if home.releases.is_dir() else []
    for folder in (f for f in folders if f.is_dir() and not f.is_symlink()):
        try:
            manifest = read_manifest_file(folder / checks.MANIFEST_FILE)
        except (ReleaseError, OSError):
            if not folder.name.startswith("."):
                hit[folder.name] = None
            continue
        if set(opaque) & {*manifest.lineage, *(i for c in manifest.clusters for i in _taught(c))}:
            hit[folder.name] = manifest
    return hit


def _taught(cluster: Cluster) -> set[str]:
    return {*cluster.run_ids, *cluster.trained_on}


def _without(manifest: Manifest, gone: set[str]) -> Manifest:
    """Return a manifest without the words and modules of the clusters that these logs are in."""
    clusters = [
        Cluster(**c.model_dump(include=_KEPT)) if gone & _taught(c) else c
        for c in manifest.clusters
    ]
    sound = {c.id for c in clusters if c.adapter}
    adapters = [a for a in manifest.adapters if a.cluster in sound]
    own = tuple(f"adapters/{a.name}/" for a in adapters)
    review = {
        name: {c: found for c, found in by_cluster.items() if c in sound}
        for name, by_cluster in manifest.figures.get("review", {}).items()
    }
    update = {
        "clusters": clusters,
        "adapters": adapters,
        "files": {name: sha for name, sha in manifest.files.items() if name.startswith(own)},
        "figures": {"review": review} if review else {},
    }
    return manifest.model_copy(update=update)


def empty_release(folder: Path, left: Manifest | None) -> None:
    """Delete all files of a release but those that a manifest lists; None: all of them."""
    folder.chmod(0o755)
    if left is not None:
        write_atomic(folder / checks.MANIFEST_FILE, left.to_json())
    kept = {checks.MANIFEST_FILE, *left.files} if left else set()
    for path in sorted(folder.rglob("*"), reverse=True):  # what lies in a folder before the folder
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in kept:
            path.unlink()
