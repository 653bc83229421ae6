"""The journal joined, kept: what came or changed since the last time is joined, and nothing else.

    with KeptLog(home, journal) as kept:   # brings it up to date
        joined = kept.joined()             # as join(journal) would be

It lies in ``work/joined.sqlite3`` and is derived from the journal alone. It is made anew where it
is missing, damaged, of another version of this code or older than an erasure, and where the journal
is another one or was restored from a backup. An erasure deletes it, as it does all that a refresh
made.

Records that share a trace, a thread or the text of a conversation are a *part*: one may be what
another's user was shown, or go on from it. Where a record comes, or feedback comes or changes, the
parts that it touches are joined anew, whole. So it is the same as if all had been joined at once,
whatever comes in which order.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial, wraps
from hashlib import blake2b
from itertools import chain
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

from langchain_uno.errors import StoreError
from langchain_uno.home import Home
from langchain_uno.logs.database import Closing, in_parts
from langchain_uno.logs.filters import Supports, sameness
from langchain_uno.logs.heard import Facts, Heard, facts_of, heard_of, part_of
from langchain_uno.logs.join import Joined, attach, join_part, read, turn_of
from langchain_uno.logs.journal import IN, Journal, JournalRow
from langchain_uno.models.answers import open_cache
from langchain_uno.records import Feedback, Interaction, Verdict

FILE_NAME = "joined.sqlite3"
VERSION = 7
"""Raised when joining, filters or the facts below change what they say of a record."""
_PAGE = 1000
_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])
_FEEDBACK: TypeAdapter[list[Feedback]] = TypeAdapter(list[Feedback])
_TABLES = """
    DROP TABLE IF EXISTS logs; DROP TABLE IF EXISTS keys; DROP TABLE IF EXISTS facts;
    DROP TABLE IF EXISTS seen; DROP TABLE IF EXISTS checks; DROP TABLE IF EXISTS heard;
    CREATE TABLE logs (
        seq INTEGER PRIMARY KEY,   -- the journal's
        run_id TEXT NOT NULL UNIQUE,
        part INTEGER NOT NULL,
        created_at REAL NOT NULL,
        digest BLOB NOT NULL,      -- of its feedback
        own INTEGER NOT NULL,      -- whether the app asked for itself
        feedback TEXT,             -- joined, as JSON, or NULL
        thread INTEGER,            -- a hash
        same INTEGER NOT NULL,     -- a hash of what duplicates have in common
        facts INTEGER NOT NULL
    );
    CREATE INDEX logs_of_part ON logs (part);
    CREATE INDEX logs_alike ON logs (same, facts);
    CREATE INDEX logs_by_time ON logs (created_at, run_id);
    CREATE TABLE heard (           -- a row for each person who said something of a record
        seq INTEGER, n INTEGER, log_id TEXT, user_id TEXT, said TEXT, content TEXT, plain TEXT,
        words INTEGER, same BLOB, facts INTEGER, PRIMARY KEY (seq, n)
    ) WITHOUT ROWID;
    CREATE TABLE keys (key INTEGER PRIMARY KEY, part INTEGER NOT NULL);
    CREATE TABLE facts (id INTEGER PRIMARY KEY, facts TEXT NOT NULL UNIQUE);
    CREATE TABLE seen (interactions INTEGER, feedback INTEGER, changes INTEGER, erasures INTEGER,
        mark INTEGER);           -- a hash: of which journal, and of the last rows seen
    INSERT INTO seen VALUES (0, 0, 0, 0, 0);
    CREATE TABLE checks (by TEXT, run_id TEXT, verdict TEXT, PRIMARY KEY (by, run_id))
        WITHOUT ROWID;
"""


def _whole(method: _F) -> _F:
    """Run a method of :class:`KeptLog`; the whole of it once more where its file is damaged."""

    @wraps(method)
    def run(self: KeptLog, *args: Any, **more: Any) -> Any:
        return self._use(lambda: method(self, *args, **more))

    return cast(_F, run)


class KeptLog(Closing):
    """The joined journal of a home; a context manager. Open one for a short while.

    Args:
        home: whose ``work`` folder has the file; where it can't be written all is joined in memory.
        journal: the home's.

    Raises:
        StoreError: the journal can't be used.
    """

    def __init__(self, home: Home, journal: Journal) -> None:
        self._journal = journal
        self._path = home.work / FILE_NAME
        self._db = self._open()
        self.update()

    def update(self) -> None:
        """Join what came or changed since."""
        read = self._use(self._look)
        in_file = self._db.execute("PRAGMA database_list").fetchone()[2]
        if read and in_file and not self._journal.readonly:
            self._journal.database.write(
                # The last one tells later whether the journal is the same one.
                lambda db: db.execute("DELETE FROM changes WHERE seq < ?", (read,))
            )

    @_whole
    def joined(self, run_ids: Sequence[str] | None = None, *, heard: bool = False) -> Joined:
        """Return feedback by record, as :func:`~langchain_uno.logs.join.join` does.

        What waits is left out: the journal knows it.

        Args:
            run_ids: only these records.
            heard: only records with feedback.
        """
        out = Joined()
        some = " AND feedback IS NOT NULL" if heard else ""
        for _, run_id, own, feedback in self._logs(run_ids, some):
            out.order.append(run_id)
            if own:
                out.own.add(run_id)
            if feedback:
                out.feedback[run_id] = _FEEDBACK.validate_json(feedback)
        return out

    def _logs(self, run_ids: Sequence[str] | None, some: str = "") -> list[tuple[Any, ...]]:
        """Return number, run id, own and feedback of all records, or of these, by number."""
        sql = "SELECT seq, run_id, own, feedback FROM logs WHERE "
        if run_ids is None:
            return self._read(f"{sql} 1{some} ORDER BY seq")
        parts = in_parts(list(dict.fromkeys(run_ids)))
        found = (self._read(f"{sql} run_id IN ({marks}){some}", part) for part, marks in parts)
        return sorted(chain.from_iterable(found))

    @_whole
    def heard(self) -> list[Heard]:
        """Return what is known of the logs that people reacted to."""
        facts = self._kinds()
        sql = (
            "SELECT log_id, run_id, user_id, created_at, digest, content, plain, h.same, said, "
            "words, h.facts FROM heard h JOIN logs USING (seq)"
        )
        return [
            Heard._make([*one, tuple(json.loads(said)), bool(words), facts[told]])
            for *one, said, words, told in self._read(sql)
        ]

    @_whole
    def reader(self, heard: Sequence[Heard]) -> dict[str, Callable[[], Interaction]]:
        """Return, by id, what reads each of these logs, with its feedback of this moment.

        Of the journal, whose records stay as they are, a page is read when a log of it is.
        """
        run_ids = list(dict.fromkeys(one.run_id for one in heard))
        page_of = {run_id: n // _PAGE for n, run_id in enumerate(run_ids)}
        said = {run_id: rest for _, run_id, *rest in self._logs(run_ids)}

        @cache
        def page(n: int) -> dict[str, list[Any]]:
            with Journal(self._journal.path.parent, readonly=True) as journal:
                found = journal.bodies(run_ids[n * _PAGE : (n + 1) * _PAGE])
                return {run_id: rest for run_id, *rest in found}

        def read_one(one: Heard) -> Interaction:
            try:
                own, feedback = said[one.run_id]
                log = self._journal.record(*page(page_of[one.run_id])[one.run_id])
                given = _FEEDBACK.validate_json(feedback)
            except (LookupError, ValueError):  # its message would quote the row
                self._path.unlink(missing_ok=True)
                raise StoreError(
                    f"The file {str(self._path)!r} was damaged and is deleted: run the same call "
                    "again, which makes it anew."
                ) from None
            return part_of(attach(log, given, own=bool(own)), one)

        return {one.log_id: partial(read_one, one) for one in heard}

    @_whole
    def digests(self) -> dict[str, bytes]:
        """run_id -> digest of the feedback, of every record in the order of arrival."""
        return dict(self._read("SELECT run_id, digest FROM logs ORDER BY seq"))

    @property
    def nameless(self) -> int:
        """How many records with feedback name neither who asked nor who spoke."""
        return sum(n for _, facts, n in self.facts() if facts.nameless)

    @_whole
    def facts(self) -> list[tuple[int, Facts, int]]:
        """Return (id, facts, of how many records they are true)."""
        kinds, sql = self._kinds(), "SELECT facts, count(*) FROM logs GROUP BY facts"
        return [(id_, kinds[id_], n) for id_, n in self._read(sql)]

    def _kinds(self) -> dict[int, Facts]:
        return {id_: Facts(*json.loads(told)) for id_, told in self._read("SELECT * FROM facts")}

    @_whole
    def distinct(self, supports: Supports) -> int:
        """How many records the filters let pass, those that say the same counted once."""
        sql = f"SELECT count(DISTINCT same) FROM logs WHERE facts {IN}"  # noqa: S608
        return int(self._read(sql, (self._passed(supports),))[0][0])

    @_whole
    def first_of_equals(self, supports: Supports) -> dict[str, bytes]:
        """Return the records that the filters let pass, of equal ones the first.

        Returns:
            run_id -> digest of the feedback.
        """
        sql = (
            "SELECT run_id, digest FROM logs WHERE seq IN "  # noqa: S608
            f"(SELECT min(seq) FROM logs WHERE facts {IN} GROUP BY same)"
        )
        return dict(self._read(sql, (self._passed(supports),)))

    def _passed(self, supports: Supports) -> str:
        return json.dumps([i for i, one in self._kinds().items() if one.reason(supports) == "ok"])

    @_whole
    def latest(
        self, passing: Callable[[Facts], bool], most: int, skip: int = 0, *, equal: bool = False
    ) -> list[str]:
        """Return the latest records, the latest first.

        Args:
            passing: told by the facts of a record whether it will do.
            most: how many at most.
            skip: so many of the latest are passed over.
            equal: whether duplicates of earlier ones count.
        """
        ids = json.dumps([i for i, one in self._kinds().items() if passing(one)])
        sql = (
            f"SELECT run_id FROM logs a WHERE facts {IN} AND (? OR NOT EXISTS ("  # noqa: S608
            f"SELECT 1 FROM logs b WHERE b.same = a.same AND b.facts {IN} "
            "AND (b.created_at, b.run_id) < (a.created_at, a.run_id))) "
            "ORDER BY created_at DESC, run_id DESC LIMIT ? OFFSET ?"
        )
        return [run_id for (run_id,) in self._read(sql, (ids, equal, ids, most, skip))]

    @_whole
    def span(self) -> tuple[int, int, float | None, float | None]:
        """How many records and threads there are, and when the first and last was made."""
        sql = "SELECT count(*), count(DISTINCT thread), min(created_at), max(created_at) FROM logs"
        found: tuple[int, int, float | None, float | None] = self._read(sql)[0]
        return found

    def checked(
        self, by: str, logs: Mapping[str, Interaction], check: Callable[..., Mapping[str, Verdict]]
    ) -> dict[str, Verdict]:
        """Return the verdicts of a costly check that looks at request and answer alone.

        Args:
            by: stands for the check and the model that makes it.
            logs: records by id; each is checked, and read, once.
            check: given records, returns a verdict for those that fail.
        """
        known = self._checked(by)
        new = [log_id for log_id in logs if log_id not in known]
        if new:
            found = check([logs[log_id] for log_id in new])
            fresh = {log_id: found.get(log_id) for log_id in new}
            rows = [(by, i, one.model_dump_json() if one else "") for i, one in fresh.items()]
            sql = "INSERT OR REPLACE INTO checks VALUES (?, ?, ?)"
            self._use(lambda: self._in_transaction(lambda: self._db.executemany(sql, rows)))
            known |= fresh
        return {log_id: one for log_id in logs if (one := known[log_id])}

    @_whole
    def _checked(self, by: str) -> dict[str, Verdict | None]:
        rows = self._read("SELECT run_id, verdict FROM checks WHERE by = ?", (by,))
        return {i: Verdict.model_validate_json(told) if told else None for i, told in rows}

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        self._db.close()

    # -- bringing it up to date -----------------------------------------------------------------

    def _open(self, *, in_file: bool = True) -> sqlite3.Connection:
        """Open the file, or memory where it can't be used: a read-only home, say."""
        if in_file and self._journal.path.exists():  # looking at an empty home leaves no trace
            with suppress(StoreError):
                return open_cache(self._path, "PRAGMA user_version")
        return sqlite3.connect(":memory:", check_same_thread=False)

    def _use(self, work: Callable[[], _T]) -> _T:
        """Do it; where the file is damaged or can't be used, once more with what is joined anew."""
        try:
            return work()
        except (sqlite3.Error, LookupError, TypeError, ValueError) as error:  # or a row is none
            self._db.close()
            # Locked, or the disk is full; a text that is no UTF-8 is the same error.
            good = isinstance(error, sqlite3.OperationalError) and "UTF-8" not in str(error)
            if not good:
                self._path.unlink(missing_ok=True)
            self._db = self._open(in_file=not good)
            self._look()
            return work()

    def _read(self, sql: str, args: Sequence[object] = ()) -> list[Any]:
        return self._db.execute(sql, args).fetchall()

    def _in_transaction(self, work: Callable[[], _T]) -> _T:
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            return work()

    def _look(self) -> int:
        """Join what is new; first make the tables, where they are missing or of another version."""
        if self._db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            self._in_transaction(lambda: _make_tables(self._db))
        return self._in_transaction(self._update)

    def _update(self) -> int:
        """Do it in a transaction; return up to which of the journal's changes it read."""
        seen = self._db.execute("SELECT * FROM seen").fetchone()
        *now, unread = self._journal.database.read(
            "SELECT (SELECT max(seq) FROM interactions), (SELECT max(seq) FROM feedback), "
            "(SELECT seq FROM sqlite_sequence WHERE name = 'changes'), "
            "(SELECT count(*) FROM erasures), (SELECT count(*) FROM changes WHERE seq > ?)",
            (seen[2],),
        )[0]
        now = [n or 0 for n in now]
        # Changes have numbers without gaps: a missing one was deleted before it was read here.
        lost = unread != now[2] - seen[2]
        if lost or seen[3] != now[3] or seen[4] != self._mark(*seen[:3]):
            _make_tables(self._db)
            seen = (0, 0, 0)
        told = self._journal.database.read(
            "SELECT run_id, feedback_id FROM feedback WHERE seq > ? UNION ALL "
            "SELECT name, '' FROM changes WHERE seq > ?",
            seen[1:3],
        )
        touched = json.dumps(sorted({n for name, said in told for n in (name, turn_of(said))}))
        rows = self._journal.rows_where(
            f"seq > ? OR run_id {IN} OR root_run_id {IN}", seen[0], touched, touched
        )
        if rows:
            self._join_anew(rows)
        self._db.execute("DELETE FROM seen")
        marks = (*now, self._mark(*now[:3]))
        self._db.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", marks)
        return int(now[2])

    def _mark(self, interactions: int, feedback: int, changes: int) -> int:
        """Identify the journal up to these of its numbers, by random nonces."""
        found = self._journal.database.read(
            "SELECT value, (SELECT nonce FROM interactions WHERE seq = ?), "
            "(SELECT nonce FROM feedback WHERE seq = ?), (SELECT nonce FROM changes WHERE seq = ?) "
            "FROM meta WHERE name = 'tombstone_key'",
            (interactions, feedback, changes),
        )
        return _hash("journal", repr(found))

    def _join_anew(self, rows: list[JournalRow]) -> None:
        """Join the parts that these records belong to, and write what is another thing now."""
        keys = self._keys(rows)
        sql = f"SELECT seq FROM logs WHERE part IN (SELECT part FROM keys WHERE key {IN})"  # noqa: S608
        marks = json.dumps([key for many in keys.values() for key in many])
        others = [seq for (seq,) in self._db.execute(sql, (marks,)) if seq not in keys]
        if others:
            more = self._journal.rows_where(f"seq {IN}", json.dumps(others))
            rows, keys = [*rows, *more], {**keys, **self._keys(more)}
        sql = f"SELECT seq, digest, own FROM logs WHERE seq {IN}"  # noqa: S608
        found = self._db.execute(sql, (json.dumps(list(keys)),))
        before = {seq: (digest, own) for seq, digest, own in found}
        joined = join_part(self._journal, rows)
        changed = {
            row.run_id: row
            for row in rows
            if before.get(row.seq) != (joined.digest(row.run_id), row.run_id in joined.own)
        }
        for start in range(0, len(changed), _PAGE):
            self._write(joined, list(changed)[start : start + _PAGE], changed)
        parts = _parts(keys)
        of_logs = [(part, seq) for seq, part in parts.items()]
        self._db.executemany("UPDATE logs SET part = ? WHERE seq = ?", of_logs)
        of_keys = ((key, parts[seq]) for seq, many in keys.items() for key in many)
        self._db.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?)", of_keys)

    def _keys(self, rows: Sequence[JournalRow]) -> dict[int, list[int]]:
        """Return what ties each record to others, as hashes, by its number in the journal."""
        roots = {row.seq: row.root_run_id or row.run_id for row in rows}
        shown = self._journal.names(list(set(roots.values())))
        return {
            row.seq: [
                _hash(kind, name)
                for kind, name in (
                    ("run", row.run_id),
                    ("run", roots[row.seq]),
                    ("run", shown.get(roots[row.seq])),
                    ("thread", row.thread_id),
                    ("said", row.before),
                    ("said", row.after),
                )
                if name
            ]
            for row in rows
        }

    def _write(
        self, joined: Joined, run_ids: Sequence[str], rows: Mapping[str, JournalRow]
    ) -> None:
        logs = list(read(self._journal, joined, run_ids))
        if not self._journal.readonly:
            self._journal.note_languages(logs)
        for log in logs:
            row = rows[log.run_id]
            facts = self._id_of(facts_of(log))
            self._db.execute(
                "INSERT OR REPLACE INTO logs VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
                (
                    row.seq,
                    log.run_id,
                    row.created_at,
                    joined.digest(log.run_id),
                    log.run_id in joined.own,
                    _FEEDBACK.dump_json(log.feedback, exclude_none=True) if log.feedback else None,
                    _hash("thread", row.thread_id) if row.thread_id else None,
                    int.from_bytes(sameness(log)[:8], "little", signed=True),
                    facts,
                ),
            )
            self._db.execute("DELETE FROM heard WHERE seq = ?", (row.seq,))
            self._db.executemany(
                "INSERT INTO heard VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        row.seq,
                        n,
                        one.log_id,
                        one.user_id,
                        json.dumps(one.said),
                        one.content,
                        one.plain,
                        one.words,
                        one.same,
                        self._id_of(one.facts),
                    )
                    for n, one in enumerate(heard_of(log))
                ),
            )

    def _id_of(self, facts: Facts) -> int:
        told = (json.dumps(facts),)
        self._db.execute("INSERT OR IGNORE INTO facts (facts) VALUES (?)", told)
        return int(self._db.execute("SELECT id FROM facts WHERE facts = ?", told).fetchone()[0])


def _make_tables(db: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")


def _hash(kind: str, name: str | bytes) -> int:
    """Return a number for SQLite's keys; two names with one number join two parts, no more."""
    said = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
    digest = blake2b(kind.encode() + said, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _parts(keys: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Return the part of each record: the first of all that it is tied to."""
    first = {seq: seq for seq in keys}
    by_key: dict[int, int] = {}

    def root(seq: int) -> int:
        while first[seq] != seq:
            first[seq] = first[first[seq]]
            seq = first[seq]
        return seq

    for seq, many in keys.items():
        for key in many:
            a, b = sorted((root(seq), root(by_key.setdefault(key, seq))))
            first[b] = a
    return {seq: root(seq) for seq in keys}
