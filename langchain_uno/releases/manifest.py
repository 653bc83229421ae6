"""What a release says about itself, and how manifests of older versions are read.

A release is an immutable folder::

    releases/<id>/
      manifest.json                            this file's model; lists sha256 of every other file
      centroids.safetensors                    "centroids": float32 (clusters, d), in manifest order
                                               "projection", if there is one: float32 (d, m)
      adapters/<name>/adapter_config.json      PEFT's; <name> is <release>-<cluster>-<kind>
      adapters/<name>/adapter_model.safetensors

Nothing else may lie in it: no pickle, no code, no users' text beside the recurring rules. Logs
appear as opaque ids only (a keyed hash, see :func:`opaque_id`), so that an erasure can be followed
into every release that learnt from a log, while the manifest alone tells nothing about anybody.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home, safe_name
from langchain_uno.records import Cluster, utc_now

__all__ = [
    "ADAPTER_ROUTES",
    "MANIFEST_SCHEMA",
    "AdapterEntry",
    "Manifest",
    "adapter_name",
    "lineage_key",
    "migrate",
    "new_release_id",
    "opaque_id",
    "parse_manifest",
]

MANIFEST_SCHEMA = 4


def _rules_for_all(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out the rules that held only for requests with certain words; rename two settings."""
    out = {**data, "schema_version": 4}
    if isinstance(data.get("clusters"), list):
        out["clusters"] = [_unbound(c) if isinstance(c, dict) else c for c in data["clusters"]]
    if isinstance(data.get("recipe"), dict):
        new = dict(data["recipe"])
        for old, name in (("revision_min_kept", "min_kept"), ("max_critique_tokens", "role_tokens")):
            if old in new:
                new.setdefault(name, new[old])
        out["recipe"] = new
    return out


def _unbound(cluster: dict[str, Any]) -> dict[str, Any]:
    rules, words = cluster.get("rules"), cluster.get("conditions")
    if not (isinstance(rules, list) and isinstance(words, list)):
        return cluster
    kept = [rule for rule, bound in zip_longest(rules, words[: len(rules)]) if not bound]
    return {**cluster, "rules": kept}


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    # 2: a projection may lie beside the centroids; clusters say what their modules learnt from.
    1: lambda data: {**data, "schema_version": 2},
    # 3: a cluster's route may be "memory", which has no adapter.
    2: lambda data: {**data, "schema_version": 3},
    # 4: a cluster's rules hold for every request.
    3: _rules_for_all,
}
"""Step n turns the raw manifest of schema n into schema n + 1. Steps are added, never edited."""

ADAPTER_ROUTES = ("expert", "critic")
"""The routes of clusters that have an adapter."""


class AdapterEntry(BaseModel):
    """One adapter of a release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    cluster: str
    kind: Literal["expert", "critic"]
    rank: int
    n_bytes: int


class Manifest(BaseModel):
    """Everything a serving side must know and check before it trusts a release.

    A draft (before :func:`langchain_uno.releases.publish.publish`) leaves ``id``, ``parent``,
    ``adapters``, ``files`` and ``lineage`` at their defaults; publishing fills them.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = MANIFEST_SCHEMA
    id: str = ""
    parent: str | None = None
    """The release that was current when this one was made; what a rollback goes back to."""
    created: datetime = Field(default_factory=utc_now)
    base_model: str
    """The name or path that the base model was loaded by."""
    base_fingerprint: str
    embedder_fingerprint: str
    prompt_set_fingerprint: str
    recipe: dict[str, Any] = Field(default_factory=dict)
    """The whole recipe as it was applied (``recipe.model_dump(mode="json")``)."""
    clusters: list[Cluster] = Field(default_factory=list)
    """In the order of the centroids' rows; ``run_ids`` are opaque ids once published."""
    threshold: float | None = None
    """A query farther than this (Euclidean) from its nearest centroid is unseen; None: no limit."""
    adapters: list[AdapterEntry] = Field(default_factory=list)
    files: dict[str, str] = Field(default_factory=dict)
    """Relative path (``/``) to sha256 (hex) of every file but ``manifest.json``."""
    lineage: list[str] = Field(default_factory=list)
    """Opaque ids of all logs that this release learnt from, sorted."""
    figures: dict[str, Any] = Field(default_factory=dict)
    """Counts and times of the refresh that made it, for people."""

    def to_json(self) -> bytes:
        """Return the bytes that ``manifest.json`` holds."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def new_release_id(now: datetime | None = None) -> str:
    """Return a new id such as ``r20260301-120000-4f1c9a``: sorts by time, never repeats."""
    return f"r{now or utc_now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def adapter_name(release: str, cluster: str, kind: str) -> str:
    """Return ``<release>-<cluster>-<kind>``, the adapter's name for ever.

    Raises:
        NameError_: the parts don't make a safe name.
    """
    return safe_name(f"{release}-{cluster}-{kind}", "adapter name")


def lineage_key(home: Home) -> bytes:
    """Return the home's secret key for opaque log ids (created on first use, mode 0600)."""
    path = home.path / "lineage.key"
    if not path.exists():
        temp = path.with_name(f".lineage.key-{os.getpid()}-{secrets.token_hex(4)}")
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temp, path)  # unlike a rename, fails when another process was first
        except FileExistsError:
            return lineage_key(home)
        finally:
            temp.unlink()
    return path.read_bytes()


def opaque_id(key: bytes, run_id: str) -> str:
    """Return the keyed hash (32 hex digits) that stands for ``run_id`` in releases."""
    return hmac.new(key, run_id.encode(), hashlib.sha256).hexdigest()[:32]


def migrate(data: dict[str, Any]) -> dict[str, Any]:
    """Bring a raw manifest to the present schema by the numbered steps.

    Raises:
        ReleaseError: no schema version, one from the future, or one with no step onwards.
    """
    while True:
        version = data.get("schema_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ReleaseError(f"its manifest has no usable schema_version (found {version!r})")
        if version == MANIFEST_SCHEMA:
            return data
        if version > MANIFEST_SCHEMA:
            raise ReleaseError(
                f"its manifest has schema {version}, this software knows up to {MANIFEST_SCHEMA}: "
                "upgrade langchain-uno"
            )
        if version not in _MIGRATIONS:
            raise ReleaseError(
                f"its manifest has schema {version}, for which there is no migration"
            )
        data = _MIGRATIONS[version]({**data})


def parse_manifest(raw: bytes) -> Manifest:
    """Parse and migrate the bytes of a ``manifest.json``.

    Raises:
        ReleaseError: not JSON, not an object, of an unknown schema, or with a wrong field.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"its manifest is not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise ReleaseError("its manifest is not a JSON object")
    try:
        return Manifest.model_validate(migrate(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReleaseError(f"its manifest has a bad value at {where!r}: {first['msg']}") from error


def read_limited(path: Path, limit: int) -> bytes:
    """Return the file's bytes, refusing more than ``limit`` of them (a bomb is not a manifest)."""
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise ReleaseError(f"its {path.name} is larger than {limit:,} bytes")
    return raw
