"""The append-only journal: one SQLite file in WAL mode, the only thing the request path writes.

Any number of threads and processes append. A call that has returned is on disk for a killed process;
``full_sync=True`` keeps it through a power cut as well. Chroma is an index that is rebuilt from here.

    journal = Journal(home.journal)
    journal.append_interaction(interaction)   # True: new; False: this run_id was there already
    journal.append_feedback(Feedback(run_id=interaction.run_id, score=1.0))
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from langchain_uno.errors import InputError, StoreBusyError, StoreError
from langchain_uno.logs.conversation import link, run_ref
from langchain_uno.logs.migrations import migrate
from langchain_uno.records import Feedback, Interaction

__all__ = ["FILE_NAME", "Journal", "JournalRow"]

FILE_NAME = "journal.sqlite3"
_T = TypeVar("_T")
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) if hasattr(sqlite3, "SQLITE_BUSY") else (5, 6)
_INSERT = (
    "INSERT OR IGNORE INTO interactions (run_id, root_run_id, thread_id, user_id, created_at, "
    "has_answer, before, turn, after, redacted, body) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
)
_INSERT_FEEDBACK = (
    "INSERT INTO feedback (feedback_id, run_id, user_id, created_at, redacted, body) "
    "VALUES (?,?,?,?,?,?) ON CONFLICT(feedback_id) DO "
)
_REPLACE_FEEDBACK = (
    "UPDATE SET created_at = excluded.created_at, redacted = excluded.redacted, "
    "body = excluded.body WHERE excluded.run_id = feedback.run_id "
    "AND excluded.created_at > feedback.created_at"
)


class JournalRow(NamedTuple):
    """What joining needs of one interaction; the text stays on disk."""

    seq: int
    run_id: str
    root_run_id: str | None
    thread_id: str | None
    user_id: str | None
    has_answer: int
    before: bytes | None
    turn: bytes | None
    after: bytes | None


class Journal:
    """One namespace's journal. Thread-safe, process-safe and fork-safe.

    Args:
        path: the journal's folder (``home.journal``); created unless ``readonly``.
        readonly: only read; a missing journal reads as empty.
        full_sync: fsync every append (slower; survives power cuts).
        timeout_s: how long an append waits for other writers.

    Raises:
        StoreError: the file can't be opened, is no journal, or is of a newer schema.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readonly: bool = False,
        full_sync: bool = False,
        timeout_s: float = 5.0,
    ) -> None:
        self.path = Path(path) / FILE_NAME
        self._readonly = readonly
        self._full_sync = full_sync
        self._timeout_s = timeout_s
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._inherited: list[sqlite3.Connection] = []
        self._closed = False
        self._db = self._guard(self._open)

    # -- writing ------------------------------------------------------------------------------

    def append_interaction(
        self, interaction: Interaction, *, redacted: Mapping[str, int] | None = None
    ) -> bool:
        """Append one answer, with the feedback it carries; False when its run_id is there already.

        Raises:
            StoreError: the journal can't be written (``StoreBusyError``: others kept it locked).
        """
        if interaction.feedback:
            return self.append_many([(interaction, redacted)])[0] > 0
        row = _interaction_row(interaction, redacted)
        return self._write(lambda db: db.execute(_INSERT, row).rowcount > 0)

    def append_record(
        self, record: Mapping[str, Any], *, redacted: Mapping[str, int] | None = None
    ) -> bool:
        """Append one answer given as the plain dict of an ``Interaction`` without feedback.

        For the request path: building and dumping pydantic objects costs ten times the append. The
        caller vouches for the form (``created_at`` is a datetime); it is validated when read.
        """
        row = _record_row(record, redacted)
        return self._write(lambda db: db.execute(_INSERT, row).rowcount > 0)

    def append_feedback(
        self, feedback: Feedback, *, redacted: Mapping[str, int] | None = None
    ) -> bool:
        """Append one feedback; of the same ``feedback_id`` and run, the later-made one stands.

        The run need not be known yet: the feedback waits for it. False when nothing changed.

        Raises:
            StoreError: the journal can't be written.
        """
        row = _feedback_row(feedback, redacted)
        sql = _INSERT_FEEDBACK + _REPLACE_FEEDBACK
        return self._write(lambda db: db.execute(sql, row).rowcount > 0)

    def append_many(
        self, items: Iterable[tuple[Interaction, Mapping[str, int] | None]]
    ) -> tuple[int, int]:
        """Append many answers with their feedback in one transaction: all of them, or none.

        What is there already stays as it is. Returns how many interactions and feedbacks were new.
        """
        rows = [
            (
                _interaction_row(interaction, redacted),
                [_feedback_row(f.model_copy(update={"run_id": f.run_id or interaction.run_id}))
                 for f in interaction.feedback],
            )
            for interaction, redacted in items
        ]

        def work(db: sqlite3.Connection) -> tuple[int, int]:
            new = new_feedback = 0
            db.execute("BEGIN IMMEDIATE")
            try:
                for row, feedback in rows:
                    new += max(db.execute(_INSERT, row).rowcount, 0)
                    for one in feedback:
                        cursor = db.execute(_INSERT_FEEDBACK + "NOTHING", one)
                        new_feedback += max(cursor.rowcount, 0)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return new, new_feedback

        return self._write(work)

    # -- reading ------------------------------------------------------------------------------

    def rows(self) -> list[JournalRow]:
        """Every interaction's ids and digests, in the order of arrival."""
        sql = (
            "SELECT seq, run_id, root_run_id, thread_id, user_id, has_answer, before, turn, after "
            "FROM interactions ORDER BY seq"
        )
        return [JournalRow(*row) for row in self._read(sql)]

    def interactions(self, run_ids: Sequence[str]) -> Iterator[Interaction]:
        """The named interactions without any feedback, in the order asked; unknown ids are left out."""
        for start in range(0, len(run_ids), 500):
            part = list(run_ids[start : start + 500])
            marks = ",".join("?" * len(part))
            sql = f"SELECT run_id, body FROM interactions WHERE run_id IN ({marks})"  # noqa: S608
            bodies = dict(self._read(sql, part))
            for run_id in part:
                if run_id in bodies:
                    yield Interaction.model_validate_json(bodies[run_id])

    def feedback(self) -> list[Feedback]:
        """Every feedback as it was given (``run_id`` as given too), in the order of arrival."""
        found = self._read("SELECT body FROM feedback ORDER BY seq")
        return [Feedback.model_validate_json(row[0]) for row in found]

    def counts(self) -> tuple[int, int]:
        """How many interactions and feedbacks there are."""
        sql = "SELECT (SELECT count(*) FROM interactions), (SELECT count(*) FROM feedback)"
        row = self._read(sql)[0]
        return int(row[0]), int(row[1])

    def redacted(self) -> dict[str, int]:
        """How much was taken out before storing, by kind."""
        total: dict[str, int] = {}
        for table in ("interactions", "feedback"):
            for (text,) in self._read(f"SELECT redacted FROM {table} WHERE redacted IS NOT NULL"):  # noqa: S608
                for kind, n in json.loads(text).items():
                    total[kind] = total.get(kind, 0) + int(n)
        return total

    # -- what the index has -------------------------------------------------------------------

    def indexed(self) -> dict[str, bytes]:
        """run_id -> digest of the joined record that the Chroma index has."""
        return dict(self._read("SELECT run_id, digest FROM indexed"))

    def mark_indexed(self, digests: Mapping[str, bytes]) -> None:
        """Note that the index has these records now."""
        rows = list(digests.items())
        self._transaction("INSERT OR REPLACE INTO indexed VALUES (?, ?)", rows)

    def clear_indexed(self) -> None:
        """Forget what the index has (before it is rebuilt)."""
        self._transaction("DELETE FROM indexed", [()])

    # -- life ---------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and shrink it, as far as readers allow."""
        self._write(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())

    def close(self) -> None:
        """Close the file; further calls raise StoreError. Closing twice is fine."""
        with self._lock:
            if not self._closed and os.getpid() == self._pid:
                self._db.close()
            self._closed = True

    def __enter__(self) -> Journal:
        """Return self."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    # -- inside -------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        name = str(self.path)
        if self._readonly:
            return self._open_readonly()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(
            name, timeout=self._timeout_s, isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if self._full_sync else 'NORMAL'}")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        migrate(db, name)
        # From here on _write waits by itself: SQLite's own waiting sleeps a millisecond or more.
        db.execute("PRAGMA busy_timeout = 0")
        return db

    def _open_readonly(self) -> sqlite3.Connection:
        if not self.path.is_file():
            db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            migrate(db, ":memory:")
            return db
        base = self.path.resolve().as_uri()
        # A WAL journal in a folder that can't be written opens only as immutable.
        for mode in ("?mode=ro", "?immutable=1"):
            db = sqlite3.connect(
                base + mode,
                uri=True,
                timeout=self._timeout_s,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                migrate(db, str(self.path))
                return db
            except sqlite3.OperationalError:
                db.close()
                if "immutable" in mode:
                    raise
        raise AssertionError("unreachable")

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"The journal {str(self.path)!r} is closed: open it again.")
        if os.getpid() != self._pid:
            # SQLite must not use a connection across a fork, nor close the parent's one.
            self._inherited.append(self._db)
            self._db, self._pid = self._open(), os.getpid()
        return self._db

    def _read(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._guard(lambda: self._retry(lambda db: db.execute(sql, args).fetchall()))

    def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if self._readonly:
            raise StoreError(f"The journal {str(self.path)!r} was opened for reading only.")
        with self._lock:
            return self._guard(lambda: self._retry(work))

    def _transaction(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany(sql, rows)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

        self._write(work)

    def _retry(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        db = self._connection()
        deadline = 0.0
        while True:
            try:
                return work(db)
            except sqlite3.OperationalError as error:
                if (getattr(error, "sqlite_errorcode", 5) & 0xFF) not in _BUSY or (
                    "locked" not in str(error)
                ):
                    raise
                now = time.monotonic()
                deadline = deadline or now + self._timeout_s
                if now > deadline:
                    raise StoreBusyError(
                        f"The journal {str(self.path)!r} stayed locked by another process for "
                        f"{self._timeout_s:g} s; is something holding it open for writing?"
                    ) from error
                time.sleep(random.uniform(5e-5, 5e-4))  # noqa: S311

    def _guard(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except sqlite3.Error as error:
            raise StoreError(
                f"The journal {str(self.path)!r} can't be used ({error}). If the disk is full or "
                "the folder read-only, mend that; if the file is damaged, move it away or restore it."
            ) from error
        except OSError as error:
            raise StoreError(
                f"The journal {str(self.path)!r} can't be opened ({error.strerror or error})."
            ) from error


def _interaction_row(i: Interaction, redacted: Mapping[str, int] | None = None) -> tuple[Any, ...]:
    links = link([(m.role, m.content) for m in i.messages], i.answer)
    return (
        i.run_id,
        i.root_run_id,
        i.thread_id,
        i.user_id,
        i.created_at.timestamp(),
        1 if links.after is not None else 0,
        *links,
        json.dumps(redacted) if redacted else None,
        _body(i, i.run_id, {"feedback", "verdict"}),
    )


def _record_row(r: Mapping[str, Any], redacted: Mapping[str, int] | None = None) -> tuple[Any, ...]:
    links = link([(m["role"], m["content"]) for m in r["messages"]], r["answer"])
    created_at = r["created_at"]
    return (
        r["run_id"],
        r.get("root_run_id"),
        r.get("thread_id"),
        r.get("user_id"),
        created_at.timestamp(),
        1 if links.after is not None else 0,
        *links,
        json.dumps(redacted) if redacted else None,
        json.dumps({**r, "created_at": created_at.isoformat()}, ensure_ascii=False),
    )


def _feedback_row(f: Feedback, redacted: Mapping[str, int] | None = None) -> tuple[Any, ...]:
    return (
        f.feedback_id,
        run_ref(f.run_id),
        f.user_id,
        f.created_at.timestamp(),
        json.dumps(redacted) if redacted else None,
        _body(f, f.feedback_id, set()),
    )


def _body(record: Interaction | Feedback, name: str, exclude: set[str]) -> str:
    try:
        return record.model_dump_json(exclude_none=True, exclude=exclude)
    except ValueError as error:  # text that is not valid Unicode
        raise InputError(f"The record {name!r} can't be stored as JSON ({error}).") from error
