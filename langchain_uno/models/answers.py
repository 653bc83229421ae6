"""What models answered, kept on disk so that no call is paid for twice.

    answers = Answers(home.work / "answers.sqlite3")
    answers.put(key, generation)        # as soon as it is there: a killed process loses none

Keyed by a digest of all that an answer came of. The file is a cache: deleting it costs calls only.
An erasure deletes it, since answers quote users.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from langchain_uno.errors import StoreError
from langchain_uno.models.protocols import GenerateRequest, Generation

T = TypeVar("T")
_KEPT = TypeAdapter(Generation)
_KEPT_S = 90 * 24 * 3600.0
"""Seconds after which an answer that no refresh asked for is deleted: a quarter of a year."""


def key_of(fingerprint: str, request: GenerateRequest) -> bytes:
    """Return what stands for a request to a model: other words or another seed, another key."""
    sampling = asdict(request.sampling)
    asked = [m.model_dump(mode="json") for m in request.messages]
    text = json.dumps([fingerprint, asked, sampling, request.json_schema], sort_keys=True)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def open_cache(path: Path, table: str, *, again: bool = True) -> sqlite3.Connection:
    """Open a SQLite file that may be lost; a damaged one is put aside and begun anew.

    Args:
        path: the file; made with its folder if missing.
        table: the statement that makes its table where it is missing.
        again: whether a damaged one is.

    Raises:
        StoreError: the file can't be used.
    """
    db: sqlite3.Connection | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(table)
        return db
    except (OSError, sqlite3.DatabaseError, UnicodeError) as error:  # a message may quote damage
        if db is not None:
            db.close()
        if not again or isinstance(error, OSError | sqlite3.OperationalError):
            raise StoreError(f"The cache {str(path)!r} can't be opened ({error}).") from error
        os.replace(path, path.with_suffix(".damaged"))
    return open_cache(path, table, again=False)


class Cache:
    """A SQLite file of one table that may be lost; thread-safe.

    Args:
        path: the file; made if missing.
        table: the statement that makes its table where it is missing.

    Raises:
        StoreError: the file can't be used (all methods).
    """

    def __init__(self, path: Path, table: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db = open_cache(path, table)

    def run(self, sql: str, *values: object) -> list[Any]:
        """Run a statement and return its rows."""
        return self._do(lambda db: db.execute(sql, values).fetchall())

    def run_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement for each row, all of them or none."""
        self._do(lambda db: db.executemany(sql, rows))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._lock, self._db:
                return work(self._db)
        except sqlite3.Error as error:
            raise StoreError(
                f"The cache {str(self._path)!r} can't be used ({error}): make room on the disk, or "
                "delete the file."
            ) from error


class Answers(Cache):
    """A table of answers by key.

    Args:
        path: the SQLite file; made if missing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            "CREATE TABLE IF NOT EXISTS answers "
            "(key BLOB PRIMARY KEY, answer TEXT, used REAL) WITHOUT ROWID",
        )

    def get(self, key: bytes) -> Generation | None:
        """Return the answer kept under a key; None: there is none."""
        found = self.run("SELECT answer FROM answers WHERE key = ?", key)
        if not found:
            return None
        self.run("UPDATE answers SET used = ? WHERE key = ?", time.time(), key)
        return _KEPT.validate_json(found[0][0])

    def put(self, key: bytes, answer: Generation) -> None:
        """Keep an answer."""
        sql = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)"
        self.run(sql, key, _KEPT.dump_json(answer).decode(), time.time())

    def drop(self, key: bytes) -> None:
        """Delete the answer kept under a key, if there is one."""
        self.run("DELETE FROM answers WHERE key = ?", key)

    def close(self) -> None:
        """Delete what nobody asked for in a long time, and close the file."""
        self.run("DELETE FROM answers WHERE used < ?", time.time() - _KEPT_S)
        super().close()
