"""``traffic.json``: which release gets which share of the requests.

One small file per namespace, replaced atomically; a request reads it once at its start and keeps
what it read to its end. No file, or no shares, means that the base model answers everything. Each
share carries the sha256 of its release's manifest, so that a manifest edited in place is noticed.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from langchain_uno.errors import HomeError, NameError_, ReleaseError
from langchain_uno.home import Home, safe_name
from langchain_uno.records import utc_now
from langchain_uno.releases.manifest import read_limited

__all__ = ["TRAFFIC_SCHEMA", "Share", "Traffic", "read_traffic", "write_atomic", "write_traffic"]

TRAFFIC_SCHEMA = 1
_LIMIT = 1 << 20


class Share(BaseModel):
    """One release's part of the traffic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: str
    share: float = Field(default=1.0, gt=0.0, le=1.0)
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Traffic(BaseModel):
    """What ``traffic.json`` holds. Shares sum to 1, or there are none (base only)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = TRAFFIC_SCHEMA
    updated: datetime = Field(default_factory=utc_now)
    shares: tuple[Share, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Traffic:
        if self.shares and abs(sum(s.share for s in self.shares) - 1.0) > 1e-6:
            raise ValueError("the shares do not sum to 1")
        if len({s.release for s in self.shares}) != len(self.shares):
            raise ValueError("a release is named twice")
        return self

    @property
    def current(self) -> Share | None:
        """The share of the release that gets most of the traffic; None when base answers."""
        return max(self.shares, key=lambda s: s.share) if self.shares else None


def read_traffic(home: Home) -> Traffic | None:
    """Return the traffic of a home, or None when nothing was ever released there.

    Raises:
        ReleaseError: the file is damaged, of a newer schema, or names an unsafe release.
    """
    try:
        raw = read_limited(home.traffic, _LIMIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeError(
            f"{str(home.traffic)!r} can't be read ({error.strerror or error})."
        ) from error
    try:
        data = json.loads(raw)
        if isinstance(data, dict) and data.get("schema_version") != TRAFFIC_SCHEMA:
            raise ValueError(f"schema {data.get('schema_version')!r} is unknown here")
        traffic = Traffic.model_validate(data)
        for share in traffic.shares:
            safe_name(share.release, "release")
    except (ValidationError, ValueError, NameError_, RecursionError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ReleaseError(
            f"{str(home.traffic)!r} is not usable: {detail}. Choose a release by a rollback."
        ) from error
    return traffic


def write_traffic(home: Home, traffic: Traffic) -> None:
    """Replace ``traffic.json`` atomically and durably."""
    write_atomic(home.traffic, (traffic.model_dump_json(indent=2) + "\n").encode())


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary file beside ``path``, fsync, and replace ``path`` by it.

    Folders that are missing are made.

    Raises:
        HomeError: the folder can't be written.
    """
    temp = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temp.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise HomeError(
            f"{str(path)!r} can't be written ({error.strerror or error}): free some space or mend "
            "its permissions, then call this again."
        ) from error
    finally:
        with suppress(OSError):
            temp.unlink()


def fsync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable (a no-op where folders can't be opened)."""
    if os.name == "nt":  # pragma: no cover
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
