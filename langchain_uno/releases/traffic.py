"""``traffic.json``: which release gets which share of the requests.

One small file per namespace, replaced atomically; a request reads it once at its start and keeps
what it read to its end. No file, or no shares, means that the base model answers everything. Each
share carries the sha256 of its release's manifest, so that a manifest edited in place is noticed.
Where there are several shares, a person stays on the share that they are on: a keyed hash decides.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from langchain_uno.errors import HomeError, NameError_, ReleaseError, reason_of
from langchain_uno.home import Home, safe_name
from langchain_uno.records import utc_now
from langchain_uno.releases.manifest import read_limited

TRAFFIC_SCHEMA = 3
_LIMIT = 1 << 20


class Share(BaseModel):
    """One release's part of the traffic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: str | None
    """None: the base model."""
    share: float = Field(default=1.0, gt=0.0, le=1.0)
    manifest_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """None for the base model alone."""

    @model_validator(mode="after")
    def _named(self) -> Share:
        if (self.release is None) != (self.manifest_sha256 is None):
            raise ValueError("a share has the sha256 of its manifest, and the base model none")
        return self


class Traffic(BaseModel):
    """What ``traffic.json`` holds. Shares sum to 1, or there are none (base only)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = TRAFFIC_SCHEMA
    updated: datetime = Field(default_factory=utc_now)
    shares: tuple[Share, ...] = ()
    canary: str | None = None
    """The canary that is running (:mod:`langchain_uno.releases.canary`): it divides the shares."""
    stands_in_for: str | None = None
    """The release that answered until an erasure revoked it. The next refresh keeps of it what the
    forgotten did not teach; whoever promotes or rolls back ends that. A canary leaves it as it is
    until its candidate is promoted."""

    @model_validator(mode="after")
    def _whole(self) -> Traffic:
        if self.shares and abs(sum(s.share for s in self.shares) - 1.0) > 1e-6:
            raise ValueError("the shares do not sum to 1")
        if len({s.release for s in self.shares}) != len(self.shares):
            raise ValueError("a release is named twice")
        return self

    @property
    def current(self) -> Share | None:
        """The share that gets most of the traffic; None when base answers everything.

        Of two halves it is the first.
        """
        return max(self.shares, key=lambda s: s.share) if self.shares else None

    @property
    def answers(self) -> dict[str, float]:
        """Who answers which share of the requests; nothing: the base model answers all."""
        return {s.release or "the base model": s.share for s in self.shares}

    def chosen(self, who: str) -> Share | None:
        """Return the share that answers somebody: while a canary runs, always the same one.

        Everybody has a number between 0 and 1, a hash of the canary's name and ``who``. The current
        share has the upper end of the scale: where another share grows, people join it and nobody
        leaves it.

        Args:
            who: any text that stands for one person, one thread, or one request.

        Returns:
            None: there are no shares, so the base answers.
        """
        key = (self.canary or "").encode()[:64]
        digest = blake2b(who.encode("utf-8", "replace"), key=key, digest_size=8).digest()
        left = int.from_bytes(digest, "big") / 2**64
        for share in self.shares:
            if share is not self.current:
                left -= share.share
                if left < 0:
                    return share
        return self.current


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
        if isinstance(data, dict):
            data = _migrated(data)
        traffic = Traffic.model_validate(data)
        for name in (*(share.release for share in traffic.shares), traffic.stands_in_for):
            if name is not None:
                safe_name(name, "release")
    except (ValidationError, ValueError, NameError_, RecursionError) as error:
        detail = reason_of(error) if isinstance(error, ValidationError) else str(error)
        raise ReleaseError(
            f"{str(home.traffic)!r} is not usable: {detail}. Choose what answers by `langchain-uno "
            f"releases rollback --to RELEASE`, with the name of a folder in {str(home.releases)!r}."
        ) from error
    return traffic


def answering(home: Home) -> str | None:
    """Return the release that most requests go to; None: the base model answers.

    Raises:
        ReleaseError: as :func:`read_traffic`.
    """
    traffic = read_traffic(home)
    return traffic.current.release if traffic and traffic.current else None


def _migrated(data: dict[str, Any]) -> dict[str, Any]:
    """Bring a file of an older schema to the present one: what came since may be left out.

    2: a share may be the base model's, and a canary may divide the shares. 3: the traffic may stand
    in for a release that an erasure revoked.
    """
    found = data.get("schema_version")
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= TRAFFIC_SCHEMA:
        raise ValueError(
            f"schema {found!r} is unknown here, this version knows up to {TRAFFIC_SCHEMA}"
        )
    return {**data, "schema_version": TRAFFIC_SCHEMA}


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
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temp.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
            fsync_folder(path.parent)
    finally:
        with suppress(OSError):
            temp.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell what to do where a file can't be written.

    Raises:
        HomeError: it can't.
    """
    try:
        yield
    except OSError as error:
        raise HomeError(
            f"{str(path)!r} can't be written ({error.strerror or error}): free some space or mend "
            "its permissions, then call this again."
        ) from error


def fsync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable (a no-op where folders can't be opened)."""
    if os.name == "nt":  # pragma: no cover
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
