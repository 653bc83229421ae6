"""Reading the files of a release without trusting them.

Only safetensors and JSON are ever opened, every byte is hashed before it is parsed, and each
refusal says which file and why. :class:`ReleaseError` messages here are fragments ("its ... is
..."); ``load`` puts the release's name in front.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from langchain_uno.errors import NameError_, ReleaseError
from langchain_uno.home import safe_name
from langchain_uno.models.protocols import FloatArray
from langchain_uno.models.server_adapters import (
    LinearShapes,
    adapter_config,
    check_matrices,
    read_tensors,
)
from langchain_uno.releases.manifest import AdapterEntry, Manifest, adapter_name, base_name
from langchain_uno.releases.space import Space

MANIFEST_FILE = "manifest.json"
CENTROIDS_FILE = "centroids.safetensors"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_names(manifest: Manifest, folder_id: str) -> None:
    """Check ids, clusters and adapter names against each other."""
    if manifest.id != folder_id:
        raise ReleaseError(f"its manifest belongs to release {manifest.id!r}")
    try:
        if manifest.parent is not None:
            safe_name(manifest.parent, "parent release")
        for cluster in manifest.clusters:
            safe_name(cluster.id, "cluster")
    except NameError_ as error:
        raise ReleaseError(str(error)) from error
    if manifest.parent == manifest.id:
        raise ReleaseError("it names itself as its parent")
    ids = [cluster.id for cluster in manifest.clusters]
    if len(set(ids)) != len(ids):
        raise ReleaseError("two of its clusters have the same id")
    wanted = {}
    for cluster in manifest.clusters:
        name = adapter_name(manifest.id, cluster)
        if name is not None:
            wanted[name] = (cluster.id, cluster.route)
        if cluster.adapter != name:
            raise ReleaseError(
                f"its cluster {cluster.id!r} goes to the {cluster.route} and names adapter "
                f"{cluster.adapter!r}, not {name!r}"
            )
    have = {entry.name: (entry.cluster, entry.kind) for entry in manifest.adapters}
    if have != wanted or len(have) != len(manifest.adapters):
        odd = sorted(set(have) ^ set(wanted)) or sorted(have)
        raise ReleaseError(f"its list of adapters does not fit its clusters (see {odd[:3]})")


def check_files(folder: Path, manifest: Manifest, *, remains: bool = False) -> None:
    """Check that exactly the expected files are there, plain, and have the stated hashes."""
    expected = set() if remains else {CENTROIDS_FILE}
    for entry in manifest.adapters:
        expected |= {f"adapters/{entry.name}/{f}" for f in (CONFIG_FILE, WEIGHTS_FILE)}
    _refuse_odd(set(manifest.files), expected, "its manifest lists")
    found = set(_walk(folder)) - {MANIFEST_FILE}
    _refuse_odd(found, expected, "it contains")
    for name in sorted(expected):
        if file_sha256(folder / name) != manifest.files[name]:
            raise ReleaseError(f"its file {name!r} has another sha256 than the manifest states")


def _refuse_odd(found: set[str], expected: set[str], what: str) -> None:
    for name in sorted(found - expected):
        if name.lower().endswith(_PICKLES):
            raise ReleaseError(f"{what} {name!r}: only safetensors are accepted, never pickles")
        raise ReleaseError(f"{what} {name!r}, which has no place in a release")
    if missing := sorted(expected - found):
        raise ReleaseError(f"{what} no {missing[0]!r}")


def _walk(folder: Path) -> list[str]:
    names = []
    for root, folders, files in os.walk(folder, followlinks=False):
        for name in folders + files:
            path = Path(root) / name
            place, mode = path.relative_to(folder).as_posix(), path.lstat().st_mode
            if stat.S_ISREG(mode):
                names.append(place)
            elif not stat.S_ISDIR(mode):
                raise ReleaseError(f"its {place!r} is a link or a special file")
    return names


def parse_centroids(path: Path, n_clusters: int) -> tuple[FloatArray, Space | None]:
    """Return the centroids, (clusters, d) float32, and the space if there is one.

    Releases of schema 4 and before may hold a projection. It is left out: their requests go to the
    nearest centroid.
    """
    tensors = read_tensors(path, f"its {CENTROIDS_FILE}")
    names = set(tensors) - {"projection"}
    if names not in ({"centroids"}, {"centroids", "centre", "damped"}):
        raise ReleaseError(f"its {CENTROIDS_FILE} holds {sorted(tensors)}, not ['centroids']")
    centroids = _matrix(tensors["centroids"], "centroids", n_clusters)
    if "centre" not in names:
        return centroids, None
    centre = _matrix(tensors["centre"], "centre", 1)[0]
    damped = _matrix(tensors["damped"], "damped directions", centroids.shape[1])
    if len(centre) != centroids.shape[1]:
        raise ReleaseError(
            f"its centre has {len(centre)} numbers, its centroids {centroids.shape[1]}"
        )
    return centroids, Space(centre, damped)


def _matrix(info: dict[str, Any], what: str, rows: int) -> FloatArray:
    shape = info["shape"]
    if info["dtype"] != "F32" or len(shape) != 2 or shape[0] != rows or not shape[1]:
        raise ReleaseError(
            f"its {what} are {info['dtype']} of shape {shape}, not F32 of ({rows}, d)"
        )
    values = np.frombuffer(bytes(info["data"]), dtype="<f4").reshape(shape).astype(np.float32)
    if not np.isfinite(values).all():
        raise ReleaseError(f"its {what} are not all finite")
    return values


def check_adapter(
    folder: Path, entry: AdapterEntry, manifest: Manifest, shapes: LinearShapes | None
) -> None:
    """Check one PEFT adapter folder: kind, base model, pairs of A and B, shapes, finite values."""
    where = f"adapters/{entry.name}"
    config = adapter_config(folder, f"its {where}")
    if base_name(str(config.get("base_model_name_or_path"))) != manifest.base_model:
        raise ReleaseError(
            f"its {where} was made for base model {config.get('base_model_name_or_path')!r}, the "
            f"release for {manifest.base_model!r}"
        )
    if config.get("auto_mapping"):
        raise ReleaseError(f"its {where} asks for classes to be imported (auto_mapping)")
    rank = config.get("r")
    if rank != entry.rank or not isinstance(rank, int) or rank < 1:
        raise ReleaseError(f"its {where} has rank {rank!r}, the manifest says {entry.rank}")
    ranks = check_matrices(folder / WEIGHTS_FILE, f"its {where}", shapes)
    if ranks != {rank}:
        raise ReleaseError(f"its {where} has matrices of rank {sorted(ranks)}, not {rank}")
