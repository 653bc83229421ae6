"""Which records an erasure takes, and taking them out of the journal so that their bytes are gone.

Later turns of a conversation carry the text of the earlier ones, so what quotes a forgotten record
goes with it. Everything is decided and deleted in one transaction, together with the tombstones and
a note of what is left to do elsewhere; see :mod:`langchain_uno.erasure` for the whole.

Tombstones keep an old export from bringing anything back. One tells nothing by itself: it is an
HMAC under a random key that lies in the journal. A run's or a feedback's stands for ever; a user's
or a thread's stops what was made before the erasure, so that the same person may come back and be
recorded anew.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from langchain_uno.errors import StoreBusyError
from langchain_uno.logs.conversation import run_ref
from langchain_uno.logs.redaction import pseudonym

if TYPE_CHECKING:  # the journal asks for tombstones
    from langchain_uno.logs.journal import Journal, JournalRow

__all__ = [
    "Chosen",
    "Kind",
    "Pending",
    "any_tombstones",
    "choose",
    "feedback_is_forgotten",
    "finish",
    "is_forgotten",
    "pending",
    "shrink",
    "take_out",
]

Kind = Literal["run", "user", "thread", "feedback"]


@dataclass
class Chosen:
    """What an erasure takes."""

    run_ids: list[str] = field(default_factory=list)
    quoting: int = 0
    """How many of them were not named, but quote those that were."""
    feedback_ids: list[str] = field(default_factory=list)
    heard_them: list[str] = field(default_factory=list)
    """Records that stay, but had feedback that goes: releases may have learnt it from them."""


@dataclass
class Pending:
    """An erasure that the journal has done and that is not finished elsewhere."""

    seq: int
    opaque: list[str]
    """Lineage ids of the logs that go, and of those that had feedback which goes."""
    run_ids: list[str]
    """Their plain ids, kept until the erasure is finished."""
    receipt: dict[str, Any]


def choose(
    journal: Journal,
    *,
    user_id: str | None = None,
    thread_id: str | None = None,
    run_ids: Collection[str] = (),
    before: float | None = None,
) -> Chosen:
    """Find what is meant: a user's, a thread's or the named runs, or all that is older.

    Args:
        journal: read, not changed.
        user_id: everything that this user asked, and the feedback this user gave on any run.
        thread_id: everything of this conversation.
        run_ids: model runs, root runs or message ids.
        before: seconds since 1970; records and feedback made earlier.
    """
    from langchain_uno.logs.join import join  # which reads the journal, and that asks here

    rows = journal.rows()
    users, threads = ({one, pseudonym(one)} if one else {} for one in (user_id, thread_id))
    named, known = {run_ref(r) for r in run_ids}, {row.run_id for row in rows}
    old: set[str] = set()
    if before is not None:
        sql = "SELECT run_id FROM interactions WHERE created_at < ?"
        old = {run_id for (run_id,) in journal.database.read(sql, (before,))}
    # What an app recorded without saying who asked, in a thread of theirs, is theirs.
    own = {row.thread_id for row in rows if row.user_id in users} - {None}
    first = {
        row.run_id
        for row in rows
        if row.user_id in users
        or (row.user_id is None and row.thread_id in own)
        or row.thread_id in threads
        or row.run_id in named
        or row.root_run_id in named
        or row.run_id in old
    }
    whole = user_id is not None or thread_id is not None
    every = first | (_quoting(journal, rows, first, whole) if before is None else set())
    targets = named | every | {r.root_run_id for r in rows if r.run_id in every and r.root_run_id}
    feedback = [
        feedback_id
        for feedback_id, run_id, author, at in journal.database.read(
            "SELECT feedback_id, run_id, user_id, created_at FROM feedback"
        )
        if run_id in targets
        or author in users
        or (before is not None and at < before and run_id not in known)
    ]
    order = [row.run_id for row in rows if row.run_id in every]
    gone = {*feedback, *(f"follow-up-{run_id}" for run_id in every)}
    heard_them = [
        run_id
        for run_id, said in join(journal).feedback.items()
        if run_id not in every and any(f.feedback_id in gone for f in said)
    ]
    return Chosen(order, len(every - first), feedback, heard_them)


def _quoting(
    journal: Journal, rows: Sequence[JournalRow], first: set[str], whole: bool
) -> set[str]:
    """Find later records of the same conversations that carry a forgotten one's text.

    Its text is its user turn and its answer; with ``whole`` also the history before them, which is
    a forgotten person's too.
    """
    began: dict[str, int] = {}
    for row in rows:
        if row.run_id in first and row.thread_id:
            began.setdefault(row.thread_id, row.seq)
    by_id = {row.run_id: row for row in rows}
    ends = {r.after for r in rows if r.run_id in first and r.after is not None}
    taken: set[str] = set()
    said = _said(journal, first, whole)
    while True:
        near = [
            r.run_id
            for r in rows
            if r.run_id not in first
            and r.run_id not in taken
            and (
                r.seq > began.get(r.thread_id or "", r.seq)
                or (r.before is not None and r.before in ends)
            )
        ]
        new = {
            log.run_id
            for log in journal.interactions(near)
            if any(m.role != "system" and m.content.strip() in said for m in log.messages)
        }
        if not new:
            return taken
        taken |= new
        said |= _said(journal, new, False)
        ends |= {end for run in new if (end := by_id[run].after) is not None}


def _said(journal: Journal, run_ids: Iterable[str], whole: bool) -> set[str]:
    texts: set[str] = set()
    for log in journal.interactions(sorted(run_ids)):
        for message in reversed(log.messages):
            if message.role == "assistant" and not whole:
                break
            if message.role != "system":
                texts.add(message.content.strip())
        texts.add(log.answer.strip())
    return texts - {""}


def take_out(
    journal: Journal,
    chosen: Chosen,
    opaque: Callable[[str], str],
    receipt: dict[str, Any],
    *,
    tombstones: Iterable[tuple[Kind, str]] = (),
    at: float,
) -> int:
    """Delete the chosen records in one transaction, and note what is left to do.

    Args:
        journal: open for writing.
        chosen: see :func:`choose`.
        opaque: run_id -> its lineage id.
        receipt: counts to keep; no ids.
        tombstones: to plant beside those of the runs and feedbacks.
        at: seconds since 1970.

    Returns:
        The erasure's number, for :func:`finish`.
    """
    names: list[tuple[Kind, str]] = list(tombstones)
    names += [(kind, pseudonym(name)) for kind, name in names]  # an old export is redacted anew
    touched = [*chosen.run_ids, *chosen.heard_them]
    note = {"opaque": [opaque(r) for r in touched], "run_ids": touched}

    def work(db: sqlite3.Connection) -> int:
        db.execute("PRAGMA secure_delete = ON")
        _plant(db, names, at)
        for table, column, ids in (
            ("interactions", "run_id", chosen.run_ids),
            ("indexed", "run_id", touched),
            ("model_verdicts", "run_id", touched),
            ("languages", "run_id", chosen.run_ids),
            ("feedback", "feedback_id", chosen.feedback_ids),
        ):
            sql = f"DELETE FROM {table} WHERE {column} = ?"  # noqa: S608 - our own names
            db.executemany(sql, [(one,) for one in ids])
        cursor = db.execute(
            "INSERT INTO erasures (pending, receipt) VALUES (?, ?)",
            (json.dumps(note), json.dumps(receipt)),
        )
        return int(cursor.lastrowid or 0)

    # The pragma must stand before the transaction begins.
    journal.database.write(lambda db: db.execute("PRAGMA secure_delete = ON"))
    return journal.database.transaction(work)


def pending(journal: Journal) -> list[Pending]:
    """Return the erasures that were interrupted, oldest first."""
    found = journal.database.read(
        "SELECT seq, pending, receipt FROM erasures WHERE pending IS NOT NULL ORDER BY seq"
    )
    out = []
    for seq, note, receipt in found:
        told = json.loads(note)
        out.append(Pending(seq, told["opaque"], told["run_ids"], json.loads(receipt)))
    return out


def finish(journal: Journal, seq: int, receipt: dict[str, Any]) -> None:
    """Note that an erasure is finished: the ids go, the receipt stays."""
    row = (json.dumps(receipt), seq)
    journal.database.write(lambda db: db.execute("PRAGMA secure_delete = ON"))
    journal.database.write(
        lambda db: db.execute("UPDATE erasures SET pending = NULL, receipt = ? WHERE seq = ?", row)
    )


def shrink(journal: Journal, timeout_s: float = 30.0) -> None:
    """Write the file anew without free pages, and empty the write-ahead log: bytes are gone.

    Raises:
        StoreBusyError: other processes kept the write-ahead log in use.
    """
    journal.database.write(lambda db: db.execute("VACUUM"))
    deadline = time.monotonic() + timeout_s
    while True:
        busy = journal.database.write(
            lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        )
        if not busy:
            return
        if time.monotonic() > deadline:
            raise StoreBusyError(
                f"The journal {str(journal.path)!r} is read by another process all the time, so "
                "that forgotten bytes can't be wiped yet: run the same call again later."
            )
        time.sleep(0.05)


# -- tombstones -----------------------------------------------------------------------------------


def _plant(db: sqlite3.Connection, names: Iterable[tuple[Kind, str]], at: float) -> None:
    """Write tombstones for ids, in the caller's transaction, at a time in seconds since 1970."""
    key = _key(db)
    rows = [(_hash(key, kind, name), at) for kind, name in names]
    db.executemany(
        "INSERT INTO tombstones VALUES (?, ?) ON CONFLICT(hash) DO UPDATE SET "
        "forgotten_at = max(forgotten_at, excluded.forgotten_at)",
        rows,
    )


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
    return bytes(db.execute("SELECT value FROM meta WHERE name = 'tombstone_key'").fetchone()[0])
