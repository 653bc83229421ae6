"""Making releases, and moving between them. Every step is atomic.

A release is written to a hidden folder beside its place, synced, *checked by the same code that
serves it*, renamed, and only then named in ``traffic.json``. A kill at any moment leaves the former
release current; the hidden folder is swept by the next publish.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from safetensors.numpy import save

from langchain_uno.errors import HomeError, ReleaseError, ReleaseMismatchError
from langchain_uno.home import Home, safe_name
from langchain_uno.models.protocols import FloatArray
from langchain_uno.models.server_adapters import LinearShapes, adapter_config
from langchain_uno.records import Cluster
from langchain_uno.releases import checks
from langchain_uno.releases.history import note
from langchain_uno.releases.load import (
    Release,
    check_folder,
    find_manifest,
    load_release,
    models_of,
    revocation_file,
)
from langchain_uno.releases.manifest import (
    AdapterEntry,
    Manifest,
    adapter_name,
    lineage_key,
    new_release_id,
    opaque_id,
)
from langchain_uno.releases.space import Space
from langchain_uno.releases.traffic import (
    Share,
    Traffic,
    fsync_folder,
    read_traffic,
    write_atomic,
    write_traffic,
)


def publish(
    home: Home,
    draft: Manifest,
    adapters: Mapping[str, Path],
    centroids: FloatArray,
    *,
    linear_shapes: LinearShapes | None = None,
    taught: Mapping[str, Sequence[str]] | None = None,
    space: Space | None = None,
    promote: bool = True,
) -> str:
    """Write a release and make it current; return its id.

    Args:
        home: the namespace that will own it.
        draft: manifest with fingerprints, recipe, clusters (``run_ids`` in clear: they are replaced
            by opaque ids), threshold and figures. Its id is chosen here when empty.
        adapters: cluster id -> folder of a PEFT adapter, for exactly the clusters whose route is
            ``"expert"`` or ``"critic"`` (a memory has none). Two files are copied, the rest of the
            folder is left.
        centroids: shape (clusters, d), rows in the order of ``draft.clusters``.
        linear_shapes: when given, the adapters' shapes are compared with the base model's.
        taught: cluster id -> opaque ids of the logs that its module was trained on, for modules
            taken over from a former release: who taught them stays in the lineage for ever.
        space: where requests are compared with the centroids; None: as they are.
        promote: False leaves the traffic as it is.

    Raises:
        ReleaseError: an adapter is not sound; says which and why.
        HomeError: the home can't be written.
    """
    release_id = safe_name(draft.id or new_release_id(), "release")
    home.ensure()
    for left in home.releases.glob(".new-*"):  # by a publish that was killed; none is under way
        shutil.rmtree(left, ignore_errors=True)
    final = home.releases / release_id
    if final.exists() or final.is_symlink():
        raise ReleaseError(f"Release {release_id!r} is there already: releases are never replaced.")
    temp = home.releases / f".new-{os.getpid()}-{release_id}"
    try:
        tensors = {"centroids": centroids}
        if space is not None:
            tensors |= {"centre": space.centre[None], "damped": space.damped}
        manifest = _write(home, temp, draft, release_id, adapters, tensors, taught or {})
        manifest_sha256 = check_folder(temp, manifest.id, linear_shapes).manifest_sha256
        os.rename(temp, final)
        fsync_folder(home.releases)
    except ReleaseError as error:
        raise ReleaseError(f"The new release is refused: {str(error).rstrip('.')}.") from error
    except OSError as error:
        raise HomeError(
            f"The release can't be written to {str(home.releases)!r} ({error.strerror or error})."
        ) from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    if promote:
        share = Share(release=release_id, manifest_sha256=manifest_sha256)
        direct(home, Traffic(shares=(share,)), "publish", release_id)
    else:
        note(home, "publish, not promoted", release_id)
    return release_id


def _write(
    home: Home,
    temp: Path,
    draft: Manifest,
    release_id: str,
    adapters: Mapping[str, Path],
    tensors: Mapping[str, FloatArray],
    taught: Mapping[str, Sequence[str]],
) -> Manifest:
    """Fill the hidden folder, durably, and return the finished manifest."""
    temp.mkdir()
    key = lineage_key(home)
    files: dict[str, str] = {}

    def put(name: str, data: bytes) -> None:
        target = temp / name
        write_atomic(target, data)
        target.chmod(0o444)
        files[name] = checks.file_sha256(target)

    arrays = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in tensors.items()}
    put(checks.CENTROIDS_FILE, save(arrays))
    clusters: list[Cluster] = []
    entries: list[AdapterEntry] = []
    for cluster in draft.clusters:
        name = adapter_name(release_id, cluster)
        if name is not None:
            source = adapters[cluster.id]
            rank = adapter_config(source, f"the adapter of cluster {cluster.id!r}").get("r")
            for file_name in (checks.CONFIG_FILE, checks.WEIGHTS_FILE):
                put(f"adapters/{name}/{file_name}", (source / file_name).read_bytes())
            entries.append(
                AdapterEntry(
                    name=name,
                    cluster=cluster.id,
                    kind=cast(Literal["expert", "critic"], cluster.route),
                    rank=rank if isinstance(rank, int) else 0,  # which the check refuses
                    n_bytes=(source / checks.WEIGHTS_FILE).stat().st_size,
                )
            )
        members, teachers = (
            {opaque_id(key, run_id) for run_id in ids}
            for ids in (cluster.run_ids, cluster.trained_on)
        )
        teachers |= set(taught.get(cluster.id, ()))
        hidden = {"run_ids": sorted(members), "trained_on": sorted(teachers)}
        clusters.append(cluster.model_copy(update={"adapter": name, **hidden}))
    parent = _traffic_or_none(home).current
    manifest = draft.model_copy(
        update={
            "id": release_id,
            "parent": parent.release if parent else None,
            "clusters": clusters,
            "adapters": entries,
            "files": dict(files),
            "lineage": sorted({one for c in clusters for one in (*c.run_ids, *c.trained_on)}),
        }
    )
    put(checks.MANIFEST_FILE, manifest.to_json())
    for folder in {(temp / name).parent for name in files} | {temp / "adapters", temp}:
        if folder.is_dir():
            fsync_folder(folder)
    return manifest


def make_current(
    home: Home,
    release_id: str,
    *,
    linear_shapes: LinearShapes | None = None,
    what: str = "promote",
    why: str = "",
    by: str = "",
    seen: Traffic | None = None,
) -> Release:
    """Check a release and give it all traffic (a switch forwards or backwards).

    Args:
        home: the namespace.
        release_id: its name.
        linear_shapes: when given, the adapters' shapes are compared with the base model's. Without
            them the release's models are compared with those of what answers.
        what: as the history calls it.
        why: for the history.
        by: who did it; the name of the process's user by default.
        seen: as for :func:`direct`.

    Raises:
        ReleaseError: it is not sound, or was revoked; the present traffic stays.
        ReleaseMismatchError: it is of another base model or embedder than what answers.
    """
    current = _traffic_or_none(home).current
    serves = find_manifest(home, current.release) if current else None
    fits: Any = models_of(serves) if serves and linear_shapes is None else {}
    try:
        release = load_release(home, release_id, linear_shapes=linear_shapes, **fits)
    except ReleaseMismatchError as error:
        raise ReleaseMismatchError(
            f"{error} The latter is of what answers. To change the models of the service, call "
            "`langchain-uno releases rollback --to base` first, then this again."
        ) from error
    share = Share(release=release.id, manifest_sha256=release.manifest_sha256)
    direct(home, Traffic(shares=(share,)), what, release.id, why, by, seen)
    return release


def rollback(home: Home, to: str | None = None, why: str = "", by: str = "") -> Release | None:
    """Go back to release ``to``, or to the parent of the current one; return it.

    ``"base"`` is the base model: then no release answers, and None is returned.

    It stays: a refresh without new logs, decisions or settings changes nothing. Works even when the
    current release is broken, as long as its manifest can still be read. Before a home's first
    release the base model answered: then it does again.

    Raises:
        ReleaseError: nothing to go back to, or nobody can tell to what without ``to``, or the
            target is refused; the present traffic stays.
    """
    if to is None:
        share = (read_traffic(home) or Traffic()).current
        if share is None or share.release is None:
            raise ReleaseError("No release is current: there is nothing to roll back.")
        if (found := find_manifest(home, share.release)) is None:
            told = f"The manifest of release {share.release!r} can't be read."
            raise ReleaseError(f"{told} Name what to go back to: --to RELEASE.")
        to = found.parent or "base"
    if to == "base":
        retire(home, why, by)
        return None
    return make_current(home, to, what="rollback", why=why, by=by)


def retire(home: Home, why: str = "", by: str = "") -> None:
    """Take every release out of the traffic: the base model answers all queries."""
    direct(home, Traffic(), "retire", None, why, by)


def revoke(home: Home, release_id: str, reason: str, *, go_on: bool = False) -> None:
    """Mark a release so that it is never served or rolled back to again (an erasure, say).

    Its share of the traffic goes to the others that have one; a canary ends with it. Where none
    has, or where a canary would inherit from what it is compared with, the nearest ancestor that is
    sound and of the same models takes over, or else the base model.

    Args:
        home: the namespace.
        release_id: its name.
        reason: for whoever asks for it, and for the history.
        go_on: whether the next refresh may keep what is left of it, if it answers now.
    """
    write_atomic(revocation_file(home, release_id), (reason.strip() + "\n").encode())
    note(home, "revoke", release_id, reason)
    before = _traffic_or_none(home)
    traffic, shared = _without(home, before, release_id, go_on)
    if traffic is before:
        return
    if shared:
        write_traffic(home, traffic)
        if before.canary:
            note(home, "end canary", release_id, reason)
        return
    heir = traffic.current.release if traffic.current else None
    what = "rollback" if heir else "retire"
    direct(home, traffic, what, heir, f"{release_id} was revoked")


def traffic_without(home: Home, gone: Collection[str]) -> Traffic:
    """Return the traffic as it would be without some releases; nothing is changed."""
    traffic = _traffic_or_none(home)
    for release_id in gone:
        traffic, _ = _without(home, traffic, release_id, gone=gone)
    return traffic


def _without(
    home: Home, traffic: Traffic, release_id: str, go_on: bool = False, gone: Collection[str] = ()
) -> tuple[Traffic, bool]:
    """Return the traffic without a release, and whether others that have a share take it over."""
    rest = [share for share in traffic.shares if share.release != release_id]
    if len(rest) == len(traffic.shares):
        return traffic, False
    compared = traffic.canary and traffic.current and traffic.current.release == release_id
    if rest and not compared:
        whole = sum(share.share for share in rest)
        kept = [s.model_copy(update={"share": s.share / whole}) for s in rest]
        shares = tuple(kept) if any(s.release for s in kept) else ()
        return Traffic(shares=shares, stands_in_for=traffic.stands_in_for), True
    one = revoked = find_manifest(home, release_id)
    fits: Any = models_of(revoked) if revoked else {}
    shares = ()
    while one and one.parent and not shares:
        with suppress(ReleaseError):
            sha256 = load_release(home, one.parent, **fits).manifest_sha256
            if one.parent not in gone:
                shares = (Share(release=one.parent, manifest_sha256=sha256),)
        one = find_manifest(home, one.parent)
    before = traffic.stands_in_for or (release_id if go_on else None)
    return Traffic(shares=shares, stands_in_for=before), False


def _traffic_or_none(home: Home) -> Traffic:
    """Return the traffic, or an empty one where the file is missing or damaged (to mend it)."""
    with suppress(ReleaseError):
        return read_traffic(home) or Traffic()
    return Traffic()


def direct(
    home: Home,
    traffic: Traffic,
    what: str,
    release: str | None,
    why: str = "",
    by: str = "",
    seen: Traffic | None = None,
) -> None:
    """Replace the traffic and tell the history; a canary that another change ends is told too.

    A release that was revoked or pruned since it was checked gets nothing. ``prune`` writes its
    mark before it reads the traffic and this looks for a mark after it wrote the traffic, so that
    one of them sees the other.

    Args:
        home: the namespace.
        traffic: who gets which share from here on.
        what: as the history calls it.
        release: what the change is about; None: the base model.
        why: for the history.
        by: who did it; the name of the process's user by default.
        seen: what answered when this was decided; None: whatever answers is replaced.

    Raises:
        ReleaseError: a release with a share was revoked or pruned meanwhile, or something else
            answers than what was seen; the traffic stays.
    """
    before = _traffic_or_none(home)
    if seen and (seen.shares, seen.canary) != (before.shares, before.canary):
        raise ReleaseError("Somebody changed just then what answers: look, and decide again.")
    write_traffic(home, traffic)
    for name in (share.release for share in traffic.shares):
        if name is not None and revocation_file(home, name).exists():
            write_traffic(home, before)
            raise ReleaseError(
                f"Release {name!r} is refused: it was revoked or pruned just then. Choose another."
            )
    note(home, what, release, why, by)
    if before.canary and before.canary != traffic.canary and what != "end canary":
        tried = next((s.release for s in before.shares if s is not before.current), None)
        note(home, "end canary", tried, f"by {what}", by)
