"""Reading releases: nothing is served that was not checked whole.

release = read_current(home, base_fingerprint=engine.fingerprint, ...)   # None: base answers
for name, path in release.adapters.items(): engine.load_adapter(name, path)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
from typing_extensions import Unpack

from langchain_uno.errors import HomeError, NameError_, ReleaseError, ReleaseMismatchError
from langchain_uno.home import Home, is_safe, safe_name
from langchain_uno.models.prompts import worded_alike
from langchain_uno.models.protocols import FloatArray, Known
from langchain_uno.models.server_adapters import LinearShapes
from langchain_uno.records import Cluster
from langchain_uno.releases import checks
from langchain_uno.releases.manifest import Manifest, read_manifest_file
from langchain_uno.releases.space import Space
from langchain_uno.releases.traffic import read_traffic


@dataclass(frozen=True)
class Release:
    """A checked release."""

    path: Path
    manifest: Manifest
    centroids: FloatArray
    """Shape (clusters, d), rows in the order of ``manifest.clusters``."""
    manifest_sha256: str
    space: Space | None = None
    """Shape (d, m): the nearest cluster is the nearest centroid after this map, if there is one."""
    lent: Mapping[str, Path] = field(default_factory=dict)
    """Adapters of another release that a refresh goes on from as if they were this one's."""

    @property
    def id(self) -> str:
        """The release's name."""
        return self.manifest.id

    @property
    def adapters(self) -> dict[str, Path]:
        """Unique adapter name -> folder that plain ``PeftModel.from_pretrained`` loads."""
        own = {a.name: self.path / "adapters" / a.name for a in self.manifest.adapters}
        return {**own, **self.lent}

    def cluster(self, cluster_id: str) -> Cluster:
        """Return one cluster.

        Raises:
            ReleaseError: this release has no such cluster.
        """
        for cluster in self.manifest.clusters:
            if cluster.id == cluster_id:
                return cluster
        raise ReleaseError(f"Release {self.id!r} has no cluster {cluster_id!r}.")


class Fits(TypedDict, total=False):
    """What a release is compared with; what is left out or None is not compared."""

    base_fingerprint: str | Known | None
    """Of the serving engine, or all that it is ``known_as``."""
    embedder_fingerprint: str | Known | None
    """Of the serving embedder, or all that it is ``known_as``."""
    prompt_set_fingerprint: str | None
    """``prompts.fingerprint`` of the serving prompt set."""
    linear_shapes: LinearShapes | None
    """Module name -> (out, in) of the base model, to compare the adapters with."""


def load_release(
    home: Home,
    release_id: str,
    *,
    manifest_sha256: str | None = None,
    remains: bool = False,
    **fits: Unpack[Fits],
) -> Release:
    """Read a release and check everything about it.

    Args:
        home: the namespace that owns the release; no other's can be reached.
        release_id: its name.
        manifest_sha256: what ``traffic.json`` says the manifest's hash is.
        remains: read what an erasure left of the release, to learn on, never to serve: the modules
            that the forgotten did not teach, and no centroids.
        fits: what it has to fit.

    Raises:
        ReleaseError: unknown, revoked, incomplete, tampered with or malformed; says where.
        ReleaseMismatchError: sound, but made for another base model, embedder or prompt set.
    """
    try:
        folder = home.releases / safe_name(release_id, "release")
    except NameError_ as error:
        raise ReleaseError(str(error)) from error
    if folder.is_symlink() or not folder.is_dir():
        raise ReleaseError(f"There is no release {release_id!r} in {str(home.releases)!r}.")
    try:
        mark = revocation_file(home, release_id)
        if not remains and mark.exists():
            reason = mark.read_text(encoding="utf-8").strip() or "no reason given"
            raise ReleaseError(f"it was revoked ({reason})")
        release = check_folder(folder, release_id, fits.get("linear_shapes"), remains=remains)
        if manifest_sha256 is not None and release.manifest_sha256 != manifest_sha256:
            raise ReleaseError("its manifest is not the one that traffic.json names by its sha256")
    except (ReleaseError, OSError) as error:
        why = str(error).rstrip(".")
        if isinstance(error, OSError):
            why = f"a file can't be read ({error.strerror or error})"
        raise ReleaseError(f"Release {release_id!r} is refused: {why}.") from error
    made = release.manifest
    base, embedder = models_of(made).values()
    prompts = Known.of(made.prompt_set_fingerprint, None)
    for what, wanted, own in (
        ("base model", fits.get("base_fingerprint") if made.adapters else None, base),
        ("embedder", fits.get("embedder_fingerprint"), embedder),
        ("prompt set", fits.get("prompt_set_fingerprint"), prompts),
    ):
        ours = Known.of(wanted, None) if isinstance(wanted, str) else wanted
        # Of a server whose weights can't be read here only the name is known.
        named = {*own, f"served:{own.name}"}
        if ours and not any(name in named or worded_alike(name, own[0]) for name in ours):
            here, there = ours.beside(own)
            raise ReleaseMismatchError(
                f"Release {release_id!r} is refused: it was made for {what} {there!r} and this is "
                f"{here!r}. Serve it with the former, or refresh this home with the latter."
            )
    return release


def models_of(manifest: Manifest) -> dict[str, Known]:
    """Return what a release was made for, by the names of :class:`Fits`."""
    base = Known.of(manifest.base_fingerprint, manifest.base_model)
    embedder = Known.of(manifest.embedder_fingerprint, manifest.figures.get("embedder"))
    return {"base_fingerprint": base, "embedder_fingerprint": embedder}


def read_manifest(home: Home, release_id: str) -> Manifest:
    """Read what a release says of itself, its files unchecked: to look back on, never to serve.

    Raises:
        ReleaseError: there is none, or it can't be read.
        NameError_: the id is not a safe name.
    """
    path = home.releases / safe_name(release_id, "release") / checks.MANIFEST_FILE
    try:
        return read_manifest_file(path)
    except (OSError, ReleaseError) as error:
        why = getattr(error, "strerror", None) or error
        raise ReleaseError(
            f"The manifest of release {release_id!r} can't be read ({why})."
        ) from error


def find_manifest(home: Home, release_id: str | None) -> Manifest | None:
    """Return what :func:`read_manifest` does; None where it can't be read, or none is named."""
    try:
        return read_manifest(home, release_id) if release_id else None
    except (ReleaseError, NameError_):
        return None


def check_folder(
    folder: Path, release_id: str, shapes: LinearShapes | None, *, remains: bool = False
) -> Release:
    """Check a release's folder wherever it lies (publishing checks it before the rename)."""
    manifest_path = folder / checks.MANIFEST_FILE
    if manifest_path.is_symlink() or not manifest_path.is_file():
        raise ReleaseError("it has no manifest.json")
    manifest = read_manifest_file(manifest_path)
    checks.check_names(manifest, release_id)
    checks.check_files(folder, manifest, remains=remains)
    centroids, space = np.zeros((0, 1), dtype=np.float32), None
    if not remains:
        file = folder / checks.CENTROIDS_FILE
        centroids, space = checks.parse_centroids(file, len(manifest.clusters))
    for entry in manifest.adapters:
        checks.check_adapter(folder / "adapters" / entry.name, entry, manifest, shapes)
    return Release(folder, manifest, centroids, checks.file_sha256(manifest_path), space)


def read_current(home: Home, **fits: Unpack[Fits]) -> Release | None:
    """Return the release that gets most of the traffic, checked; None when base answers all.

    Raises:
        ReleaseError: ``traffic.json`` or the release is not usable (see :func:`load_release`).
    """
    traffic = read_traffic(home)
    share = traffic.current if traffic else None
    if share is None or share.release is None:
        return None
    return load_release(home, share.release, manifest_sha256=share.manifest_sha256, **fits)


def list_releases(home: Home) -> list[str]:
    """Return the ids of the releases that lie in the home, oldest first (unchecked).

    Linked folders are left out: they are refused everywhere, and what they hold is another home's.
    """
    if not home.releases.is_dir():
        return []
    try:
        found = [
            p.name
            for p in home.releases.iterdir()
            if not p.is_symlink() and (p / checks.MANIFEST_FILE).is_file()
        ]
    except OSError as error:
        raise HomeError(f"{str(home.releases)!r} can't be read ({error.strerror}).") from error
    return sorted(name for name in found if is_safe(name))


def revocation_file(home: Home, release_id: str) -> Path:
    """Where the mark lies that a release was revoked: beside its immutable folder."""
    return home.releases / f"{safe_name(release_id, 'release')}.revoked"
