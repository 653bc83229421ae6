"""Releases that learnt from a forgotten log: revoked for good, and emptied.

What is left of one is its manifest without a word of anybody's (its name, its parent, opaque ids,
numbers), so that a lineage can still be followed. Revoked releases are refused by every loader, so
traffic moves to the nearest sound ancestor, or to the base model, before a file is touched; what a
running server holds in memory it gives up when it sees the traffic change.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection

from langchain_uno.errors import NameError_, ReleaseError
from langchain_uno.home import Home, safe_name
from langchain_uno.records import Cluster
from langchain_uno.releases import checks
from langchain_uno.releases.load import revocation_file
from langchain_uno.releases.manifest import Manifest, read_manifest_file
from langchain_uno.releases.publish import revoke
from langchain_uno.releases.traffic import write_atomic

__all__ = ["taint"]

_KEPT = {"id", "size", "run_ids", "gap", "n_gap_logs", "route", "adapter", "radius", "trained_on"}
_KEPT |= {"made_in", "reports"}
"""What stays of a cluster: named one by one, so that no field added later keeps users' words."""

REASON = "tainted: it learnt from a log that was forgotten"


def taint(home: Home, opaque: Collection[str]) -> list[str]:
    """Revoke and empty every release that learnt from one of these logs; return their ids.

    Args:
        home: the namespace.
        opaque: lineage ids (:func:`~langchain_uno.releases.manifest.opaque_id`).

    Raises:
        HomeError: the home can't be written.
    """
    wanted = set(opaque)
    hit: list[tuple[str, Manifest | None]] = []
    folders = sorted(home.releases.iterdir()) if home.releases.is_dir() else []
    for folder in (f for f in folders if f.is_dir() and not f.is_symlink()):
        if folder.name.startswith("."):  # left by a publish that was killed; none is under way
            shutil.rmtree(folder)
            continue
        try:
            manifest = read_manifest_file(folder / checks.MANIFEST_FILE)
        except (ReleaseError, OSError):
            hit.append((folder.name, None))  # can't be read, so it can't be told: it goes too
            continue
        taught = {one for c in manifest.clusters for one in (*c.run_ids, *c.trained_on)}
        if wanted & {*manifest.lineage, *taught}:
            hit.append((folder.name, manifest))
    named = [release for release, _ in hit if _is_safe(release)]  # no other can be served
    for release in named:  # all are marked before traffic looks for an heir
        write_atomic(revocation_file(home, release), (REASON + "\n").encode())
    for release in named:
        revoke(home, release, REASON)
    for release, told in hit:
        _empty(home, release, told)
    return [release for release, _ in hit]


def _is_safe(name: str) -> bool:
    try:
        return bool(safe_name(name, "release"))
    except NameError_:
        return False


def _empty(home: Home, release: str, manifest: Manifest | None) -> None:
    folder = home.releases / release
    folder.chmod(0o755)
    if manifest is not None:
        bare = [Cluster(**c.model_dump(include=_KEPT)) for c in manifest.clusters]
        told = manifest.model_copy(update={"clusters": bare, "figures": {}})
        write_atomic(folder / checks.MANIFEST_FILE, told.to_json())
    for inside in folder.iterdir():
        if inside.is_dir():
            shutil.rmtree(inside)
        elif inside.name != checks.MANIFEST_FILE or manifest is None:
            inside.unlink()
