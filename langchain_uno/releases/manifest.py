"""What a release says about itself, and how manifests of older versions are read.

A release is an immutable folder::

    releases/<id>/
      manifest.json                            this file's model; lists sha256 of every other file
      centroids.safetensors                    "centroids": float32 (clusters, d), in manifest order
                                               "centre" (1, d) and "damped" (d, r), unless
                                               requests are compared as they are: see space.py
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
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_uno.errors import ReleaseError, bad_value
from langchain_uno.home import Home, safe_name
from langchain_uno.records import Cluster, utc_now

MANIFEST_SCHEMA = 6
MAX_JSON = 64 << 20

_NAMES_OF_4 = {"embedded": "bundled"}
"""What the bundled model and its prompt set were called up to schema 3, and are called now."""

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
    """The recipe as it was applied (``recipe.model_dump(mode="json")``); never validated."""
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


def adapter_name(release: str, cluster: Cluster) -> str | None:
    """Return ``<release>-<cluster>-<kind>``, the adapter's name for ever; None: it has none.

    Raises:
        NameError_: the parts don't make a safe name.
    """
    if cluster.route not in ADAPTER_ROUTES:
        return None
    return safe_name(f"{release}-{cluster.id}-{cluster.route}", "adapter name")


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
    """Bring a raw manifest to the present schema.

    What schemas added may be left out: 2, what lies beside the centroids, and what modules learnt
    from; 3, the route "memory", which has no adapter; 5, a space of the release's own, where the
    threshold is 1 - cosine; 6, what rules a module that was kept had been taught. Schema 4 changed
    what was there: rules hold for every request of their cluster, and the toy model is the bundled
    one.

    Raises:
        ReleaseError: no schema version, one from the future, or values that a step can't
            read.
    """
    version = data.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ReleaseError(f"its manifest has no usable schema_version (found {version!r})")
    if version > MANIFEST_SCHEMA:
        raise ReleaseError(
            f"its manifest has schema {version}, this software knows up to {MANIFEST_SCHEMA}: "
            "upgrade langchain-uno"
        )
    try:
        if version < 4:
            data = _without_conditions(_with_names_of_4(data))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ReleaseError(f"its manifest of schema {version} is malformed ({error})") from error
    return {**data, "schema_version": MANIFEST_SCHEMA}


def _with_names_of_4(data: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with the present names of the bundled model and of what serving reads."""
    recipe = dict(data.get("recipe") or {})
    recipe |= {
        "prompt_set": base_name(str(recipe.get("prompt_set", "real"))),
        "min_kept": recipe.get("revision_min_kept", 0.0),
        "role_tokens": recipe.get("max_critique_tokens", 512),
    }
    return {**data, "base_model": base_name(data["base_model"]), "recipe": recipe}


def _without_conditions(data: dict[str, Any]) -> dict[str, Any]:
    """Keep of each cluster the rules that hold for every request and fit each other."""
    clusters = []
    for cluster in data.get("clusters") or []:
        rules = cluster.get("rules") or []
        conditions = cluster.get("conditions") or [[]] * len(rules)
        if len(conditions) != len(rules):
            raise ValueError(
                f"cluster {cluster.get('id')!r} has {len(conditions)} conditions for "
                f"{len(rules)} rules"
            )
        rivals = {frozenset(pair) for pair in cluster.get("rivals") or []}
        held: list[str] = []
        for rule, words in zip(rules, conditions, strict=True):
            if not words and not any({rule, other} in rivals for other in held):
                held.append(rule)
        reports = [
            {key: value for key, value in report.items() if key != "overreached"}
            for report in cluster.get("reports") or []
            if report.get("kind") in ADAPTER_ROUTES
        ]
        kept = {k: v for k, v in cluster.items() if k not in ("conditions", "rivals")}
        clusters.append({**kept, "rules": held, "reports": reports})
    return {**data, "clusters": clusters}


def base_name(name: str) -> str:
    """Return the present name of a base model or prompt set that a release names."""
    return _NAMES_OF_4.get(name, name)


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
        raise ReleaseError(f"its manifest has a bad value at {bad_value(error)}") from error


def read_manifest_file(path: Path) -> Manifest:
    """Read a ``manifest.json``.

    Raises:
        ReleaseError: it is too large, or :func:`parse_manifest` refuses it.
        OSError: it can't be read.
    """
    return parse_manifest(read_limited(path, MAX_JSON))


def read_limited(path: Path, limit: int) -> bytes:
    """Return the file's bytes, refusing more than ``limit`` of them (a bomb is not a manifest)."""
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise ReleaseError(f"its {path.name} is larger than {limit:,} bytes")
    return raw
