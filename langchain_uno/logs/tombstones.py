"""Tombstones: what keeps an old export from bringing back what was forgotten.

One tells nothing by itself: it is an HMAC under a random key that lies in the journal. A run's and
a text's stand for ever, a feedback's for all imports; a user's or a thread's stops what was made
before the erasure, so that the same person may come back and be recorded anew.

Retention plants none. It leaves keyed hashes of names beside the lineage ids of what goes, so that
releases can be revoked when one of these people asks to be forgotten later.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

from langchain_uno.logs.redaction import pseudonym

Kind = Literal["run", "user", "thread", "feedback", "about", "said", "words"]
"""What a tombstone is of. ``about``: feedback that names this run. ``said``: a conversation with
its answer. ``words``: what a feedback says about such a conversation."""


def plant(db: sqlite3.Connection, names: Sequence[tuple[Kind, str]], at: float) -> None:
    """Write tombstones for names, in the caller's transaction, at a time in seconds since 1970."""
    key = tombstone_key(db)
    rows = [(_hash(key, kind, name), at) for kind, name in names]
    # An old export is redacted anew when it is imported.
    rows += [(_hash(key, k, pseudonym(n)), at) for k, n in names if k not in ("said", "words")]
    db.executemany(
        "INSERT INTO tombstones VALUES (?, ?) ON CONFLICT(hash) DO UPDATE SET "
        "forgotten_at = max(forgotten_at, excluded.forgotten_at)",
        rows,
    )


def any_tombstones(db: sqlite3.Connection) -> bool:
    """Whether anything was ever forgotten here: most journals need not hash at all."""
    return bool(db.execute("SELECT EXISTS(SELECT 1 FROM tombstones)").fetchone()[0])


def is_forgotten(db: sqlite3.Connection, row: Sequence[Any], after: bytes | None) -> bool:
    """Whether a record may not come in.

    Its ids tell, or its user or thread and its time: a run that began before they were forgotten is
    not recorded when it ends. A record of an export in another form, without ids, is known by what
    it says: at the same millisecond, or where it names nobody but who was forgotten.

    Args:
        db: of the journal.
        row: its run, its trace's root run, the thread, who asked, when (seconds since 1970), ...
        after: digest of the conversation with the answer (``conversation.link``); None: what is
            said is no sign.
    """
    run_id, root_run_id, thread_id, user_id, created_at = row[:5]
    planted = _Planted(db)
    if any(planted.at("run", one) for one in (run_id, root_run_id) if one):
        return True
    names: list[tuple[Kind, str]] = [("user", user_id)] if user_id else []
    names += [("thread", thread_id)] if thread_id else []
    if any(planted.at(kind, name) >= created_at for kind, name in names):
        return True
    if after is None:
        return False
    if planted.at("said", _said_at(after, created_at)):
        return True
    if not names:
        return bool(planted.at("said", _said_by_nobody(after)))
    # The user tells whose it is; the thread does where no user is named.
    return bool(planted.at("said", after.hex())) and bool(planted.at(*names[0]))


def feedback_is_forgotten(
    db: sqlite3.Connection, row: Sequence[Any], runs: Iterable[str], after: bytes | None, new: bool
) -> bool:
    """Whether a feedback may not come back: its own, its run's or its user's tombstone.

    Args:
        db: of the journal.
        row: its id, the run that it names, who said it, when (seconds since 1970), ... and last its
            body: forgotten words come back under no other id.
        runs: other forms of the run's id.
        after: digest of the conversation that it is about.
        new: somebody says it now, perhaps anew; forgotten words under their own id are a call that
            was sent twice. Else it is imported, and its time may be wrong.
    """
    planted = _Planted(db)
    feedback_id, run_id, user_id, created_at = row[:4]
    kinds: tuple[Kind, ...] = ("run", "about")
    forgotten = planted.at("feedback", feedback_id)
    if forgotten > (created_at if new else 0.0):
        return True
    if any(planted.at(kind, one) for kind in kinds for one in {run_id, *runs}):
        return True
    if user_id and planted.at("user", user_id) >= created_at:
        return True
    if after is None or (new and not forgotten) or (user_id and not planted.at("user", user_id)):
        return False
    said = json.loads(row[-1])
    texts = [str(said[name]) for name in ("comment", "correction", "value") if name in said]
    return any(planted.at("words", words_about(after, text)) for text in texts)


def said_names(after: bytes, created_at: float, *, distinct: bool) -> list[tuple[Kind, str]]:
    """Name a conversation by itself and by when it was held.

    Args:
        after: its digest.
        created_at: in seconds; milliseconds are named, as other exports have them.
        distinct: whether a row without user, thread and time is of it: not "Hi" and "Hello!", which
            many say.
    """
    names = [after.hex(), _said_at(after, created_at)]
    names += [_said_by_nobody(after)] if distinct else []
    return [("said", name) for name in names]


def _said_at(after: bytes, created_at: float) -> str:
    return f"{after.hex()} {round(created_at * 1e6) // 1000}"


def _said_by_nobody(after: bytes) -> str:
    return f"{after.hex()} -"


def words_about(after: bytes, text: str) -> str:
    """Name a text that was said about a conversation."""
    said = blake2b(text.strip().encode("utf-8", "replace"), digest_size=16)
    return f"{after.hex()} {said.hexdigest()}"


# -- what retention leaves -------------------------------------------------------------------------


def note_expired(db: sqlite3.Connection, askers: Mapping[str, Iterable[tuple[Kind, str]]]) -> None:
    """Keep, in the caller's transaction, who may ask later for what a record taught.

    Args:
        db: of the journal.
        askers: lineage id -> names: users, threads, runs.
    """
    key = tombstone_key(db)
    rows = [(_hash(key, *name), opaque) for opaque, names in askers.items() for name in names]
    db.executemany("INSERT OR IGNORE INTO expired VALUES (?, ?)", rows)


def taught_before(db: sqlite3.Connection, names: Iterable[tuple[Kind, str]]) -> list[str]:
    """Return the lineage ids of what these names taught before retention took their records."""
    key = tombstone_key(db)
    found: set[str] = set()
    for one in {_hash(key, *name) for name in names}:
        rows = db.execute("SELECT opaque FROM expired WHERE who = ?", (one,))
        found |= {opaque for (opaque,) in rows}
    return sorted(found)


# -- inside ----------------------------------------------------------------------------------------


class _Planted:
    """Looks names up among the tombstones."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db, self._key = db, tombstone_key(db)

    def at(self, kind: Kind, name: str) -> float:
        """Return when a name was forgotten, in seconds since 1970; 0: never."""
        sql = "SELECT forgotten_at FROM tombstones WHERE hash = ?"
        found = self._db.execute(sql, (_hash(self._key, kind, name),)).fetchone()
        return float(found[0]) if found else 0.0


def _hash(key: bytes, kind: Kind, name: str) -> bytes:
    return hmac.digest(key, f"{kind}:{name}".encode("utf-8", "replace"), "sha256")[:20]


def tombstone_key(db: sqlite3.Connection) -> bytes:
    """Return the key of a journal's tombstones; it is the same for the life of the file."""
    return bytes(db.execute("SELECT value FROM meta WHERE name = 'tombstone_key'").fetchone()[0])
