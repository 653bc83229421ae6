"""What was forgotten stays forgotten: keyed hashes that keep an old export from bringing it back.

A tombstone tells nothing by itself: it is an HMAC under a random key that lies in the journal.
A run's or a feedback's stands for ever; a user's or a thread's stops what was made before the
erasure, so that the same person may come back and be recorded anew.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Literal

__all__ = ["Kind", "any_tombstones", "feedback_is_forgotten", "is_forgotten", "plant"]

Kind = Literal["run", "user", "thread", "feedback"]
_KEY = "SELECT value FROM meta WHERE name = 'tombstone_key'"


def plant(db: sqlite3.Connection, names: Iterable[tuple[Kind, str]], at: float) -> int:
    """Write tombstones for ids, in the caller's transaction; return how many were new.

    Args:
        db: the journal's connection.
        names: (kind, plain id).
        at: seconds since 1970; what users and threads did after it is not touched.
    """
    key = _key(db)
    rows = [(_hash(key, kind, name), at) for kind, name in names]
    before = db.total_changes
    db.executemany(
        "INSERT INTO tombstones VALUES (?, ?) ON CONFLICT(hash) DO UPDATE SET "
        "forgotten_at = max(forgotten_at, excluded.forgotten_at)",
        rows,
    )
    return db.total_changes - before


def any_tombstones(db: sqlite3.Connection) -> bool:
    """Whether anything was ever forgotten here: most journals need not hash at all."""
    return bool(db.execute("SELECT EXISTS(SELECT 1 FROM tombstones)").fetchone()[0])


def is_forgotten(
    db: sqlite3.Connection,
    *,
    run_ids: Iterable[str | None],
    user_id: str | None,
    thread_id: str | None,
    created_at: float,
) -> bool:
    """Whether a record may not come back."""
    return _found(db, [("run", r) for r in run_ids if r], user_id, thread_id, created_at)


def feedback_is_forgotten(
    db: sqlite3.Connection,
    *,
    feedback_id: str,
    run_id: str,
    user_id: str | None,
    created_at: float,
) -> bool:
    """Whether a feedback may not come back: its own, its run's or its user's tombstone."""
    return _found(db, [("feedback", feedback_id), ("run", run_id)], user_id, None, created_at)


def _found(
    db: sqlite3.Connection,
    for_ever: list[tuple[Kind, str]],
    user_id: str | None,
    thread_id: str | None,
    created_at: float,
) -> bool:
    key = _key(db)
    until: list[tuple[Kind, str]] = [("user", user_id)] if user_id else []
    until += [("thread", thread_id)] if thread_id else []
    for hashes, at in ((_hashes(key, for_ever), 0.0), (_hashes(key, until), created_at)):
        for one in hashes:
            sql = "SELECT 1 FROM tombstones WHERE hash = ? AND forgotten_at >= ?"
            if db.execute(sql, (one, at)).fetchone():
                return True
    return False


def _hashes(key: bytes, names: Iterable[tuple[Kind, str]]) -> Iterator[bytes]:
    return (_hash(key, kind, name) for kind, name in names)


def _hash(key: bytes, kind: Kind, name: str) -> bytes:
    return hmac.digest(key, f"{kind}:{name}".encode("utf-8", "replace"), "sha256")[:20]


def _key(db: sqlite3.Connection) -> bytes:
    return bytes(db.execute(_KEY).fetchone()[0])
