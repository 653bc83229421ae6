"""The journal's SQLite file, in WAL mode: written by many threads and processes."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from langchain_uno.errors import StoreBusyError, StoreError
from langchain_uno.forks import survive_forks
from langchain_uno.logs.migrations import migrate

_T = TypeVar("_T")
_C = TypeVar("_C", bound="Closing")


class Closing:
    """What is closed at the end of a ``with`` block."""

    def close(self) -> None:
        """Close it."""
        raise NotImplementedError

    def __enter__(self: _C) -> _C:
        """Return self."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()


def in_parts(ids: Sequence[str]) -> Iterator[tuple[list[str], str]]:
    """Yield ids, 500 at a time, each part with its marks for SQL's IN.

    Marks match every id; ``json_each`` ends a text at a NUL.
    """
    for start in range(0, len(ids), 500):
        part = list(ids[start : start + 500])
        yield part, ",".join("?" * len(part))


class Database:
    """Thread-safe, process-safe and fork-safe; every sqlite3 error becomes a StoreError.

    Args:
        path: the file; made with its folder unless ``readonly``.
        readonly: only read; a missing file reads as an empty one.
        full_sync: fsync every commit.
        timeout_s: how long a write waits for other writers.

    Raises:
        StoreError: the file can't be opened, or is of a newer schema.
    """

    def __init__(self, path: Path, *, readonly: bool, full_sync: bool, timeout_s: float) -> None:
        self._path = path
        self._readonly = readonly
        self._full_sync = full_sync
        self._timeout_s = timeout_s
        # One connection and a lock: waiting for a lock costs microseconds, SQLite's own waiting for
        # another connection a millisecond and more.
        self._lock = threading.RLock()
        self._inherited: list[sqlite3.Connection] = []
        self._closed = False
        self._db: sqlite3.Connection | None = self._guard(self._open)
        # SQLite keeps locks and open files of its own, which a child must not inherit: the
        # connection is closed before a fork, and each side opens one when it needs it.
        survive_forks(
            self, hold=lambda one: one._lock, before=Database._shut, child=Database._in_child
        )

    def read(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """Run a query and return its rows."""
        return self._run(lambda db: db.execute(sql, args).fetchall())

    def write(self, work: Callable[[sqlite3.Connection], _T], timeout_s: float | None = None) -> _T:
        """Run ``work`` (one statement: it commits by itself) and return its result.

        Args:
            work: gets the connection.
            timeout_s: how long to wait for other writers; None: what the database was made with.
        """
        if self._readonly:
            raise StoreError(f"The journal {str(self._path)!r} was opened for reading only.")
        return self._run(work, timeout_s)

    def transaction(
        self, work: Callable[[sqlite3.Connection], _T], timeout_s: float | None = None
    ) -> _T:
        """Run ``work`` in one transaction: all of it is kept, or nothing. See :meth:`write`."""

        def whole(db: sqlite3.Connection) -> _T:
            db.execute("BEGIN IMMEDIATE")
            with db:  # commits, or rolls back
                return work(db)

        return self.write(whole, timeout_s)

    def close(self) -> None:
        """Close the file; further calls raise StoreError. Closing twice is fine."""
        with self._lock:
            self._shut()
            self._closed = True

    # -- inside -------------------------------------------------------------------------------

    def _run(self, work: Callable[[sqlite3.Connection], _T], timeout_s: float | None = None) -> _T:
        wait = self._timeout_s if timeout_s is None else timeout_s
        # Another thread may hold the lock while it waits for another process.
        if not self._lock.acquire(timeout=-1 if timeout_s is None else wait):
            raise self._busy(wait)
        try:
            if self._closed:
                raise StoreError(f"The journal {str(self._path)!r} is closed: open it again.")
            return self._guard(lambda: self._retry(work, wait))
        finally:
            self._lock.release()

    def _shut(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    def _in_child(self, held: bool) -> None:
        self._lock = threading.RLock()
        if not held and self._db is not None:  # in use just then: never to be touched here
            self._inherited.append(self._db)
            self._db = None

    def _open(self) -> sqlite3.Connection:
        return self._open_readonly() if self._readonly else self._connect()

    def _file(self, name: str) -> sqlite3.Connection:
        return sqlite3.connect(
            name,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,
            uri=name.startswith("file:"),
        )

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        name = str(self._path)
        db = self._file(name)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if self._full_sync else 'NORMAL'}")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA secure_delete = ON")
        migrate(db, name)
        # From here on _retry waits by itself: SQLite's own waiting sleeps a millisecond or more.
        db.execute("PRAGMA busy_timeout = 0")
        return db

    def _open_readonly(self) -> sqlite3.Connection:
        if not self._path.is_file():
            db = self._file(":memory:")
            migrate(db, ":memory:")
            return db
        base = self._path.resolve().as_uri()
        # A WAL journal in a folder that can't be written opens only as immutable.
        for mode in ("?mode=ro", "?immutable=1"):
            db = self._file(base + mode)
            try:
                migrate(db, str(self._path))
                return db
            except sqlite3.OperationalError as error:
                db.close()
                if "readonly" in str(error):  # of an older schema: bring it up to date, then read
                    self._connect().close()
                    return self._open_readonly()
                if "immutable" in mode:
                    raise
        raise AssertionError("unreachable")

    def _retry(self, work: Callable[[sqlite3.Connection], _T], wait: float) -> _T:
        deadline = 0.0
        while True:
            try:
                if self._db is None:
                    self._db = self._open()
                return work(self._db)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                now = time.monotonic()
                deadline = deadline or now + wait
                if now > deadline:
                    raise self._busy(wait) from error
                time.sleep(random.uniform(5e-5, 5e-4))

    def _busy(self, wait: float) -> StoreBusyError:
        return StoreBusyError(
            f"The journal {str(self._path)!r} stayed locked by another process for "
            f"{wait:g} s; is something holding it open for writing?"
        )

    def _guard(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except sqlite3.Error as error:
            raise StoreError(
                f"The journal {str(self._path)!r} can't be used ({error}). If the disk is "
                "full or the folder read-only, mend that; if the file is damaged, move it away or "
                "restore it."
            ) from error
        except OSError as error:
            raise StoreError(
                f"The journal {str(self._path)!r} can't be opened ({error.strerror or error})."
            ) from error
