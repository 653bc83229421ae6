"""The append-only journal: one SQLite file in WAL mode, the only thing the request path writes.

Any number of threads and processes append. A call that has returned is on disk for a killed
process; ``full_sync=True`` keeps it through a power cut as well. Chroma is an index that is
rebuilt from here.

    journal = Journal(home.journal)
    journal.append_interaction(interaction)   # True: new; False: this run_id was there already
    journal.append_feedback(Feedback(run_id=interaction.run_id, score=1.0))
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from pydantic import BaseModel, TypeAdapter, ValidationError

from langchain_uno.errors import EmptyLogError, InputError, StoreError, reason_of
from langchain_uno.home import Home
from langchain_uno.logs import run_names
from langchain_uno.logs.conversation import language_of, link, run_name, run_ref
from langchain_uno.logs.database import Closing, Database, in_parts
from langchain_uno.logs.machine_turns import client_task
from langchain_uno.logs.tombstones import any_tombstones, feedback_is_forgotten, is_forgotten
from langchain_uno.logs.trace import OWN_CALL
from langchain_uno.messages import without_thinking
from langchain_uno.records import Feedback, Interaction, Verdict, person

FILE_NAME = "journal.sqlite3"
_R = TypeVar("_R", bound=BaseModel)
_to_json = TypeAdapter(Any).dump_json  # twice as fast as json
_INSERT = (
    "INSERT OR IGNORE INTO interactions (run_id, root_run_id, thread_id, user_id, created_at, "
    "has_answer, before, turn, after, redacted, body, rank, release, reached, nonce) "
    "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,randomblob(8))"
)
_INSERT_FEEDBACK = (
    "INSERT INTO feedback (feedback_id, run_id, user_id, created_at, redacted, body, nonce) "
    "VALUES (?,?,?,?,?,?,randomblob(8)) ON CONFLICT(feedback_id) DO "
)
_REPLACE_FEEDBACK = (
    "UPDATE SET user_id = coalesce(feedback.user_id, excluded.user_id), "
    "created_at = excluded.created_at, redacted = excluded.redacted, "
    "body = excluded.body WHERE excluded.run_id = feedback.run_id "
    "AND excluded.created_at > feedback.created_at"
)

EMPTY = (
    "The log of {!r} is empty: attach UNOFeedbackHandler(home=...) to a chat model, or import one "
    "(langchain-uno logs import FILE --home DIR). A tenant's log is named by --namespace."
)

IN = "IN (SELECT value FROM json_each(?))"
"""For conditions in SQL: the values are a JSON list, of any length. A NUL ends a text there."""


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
    rank: int | None
    """How far its request is the user's turn (:class:`~langchain_uno.logs.trace.Trace`)."""
    created_at: float
    """Seconds since 1970."""


class Appended(NamedTuple):
    """What an append of many did."""

    interactions: int
    """New ones."""
    feedback: int
    """New ones."""
    forgotten: int
    """Interactions that were refused because somebody had them forgotten."""


def require_log(home: Home) -> None:
    """Check that a home has a log at all; costs nothing, so it comes before models are loaded.

    Raises:
        HomeError: there is no such home.
        EmptyLogError: nothing was ever captured in it.
    """
    home.require()
    if not (home.journal / FILE_NAME).exists():
        raise EmptyLogError(EMPTY.format(str(home.path)))


class Journal(Closing):
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
        self.readonly = readonly
        self._db = Database(self.path, readonly=readonly, full_sync=full_sync, timeout_s=timeout_s)

    # -- writing ------------------------------------------------------------------------------

    def append_interaction(
        self, interaction: Interaction, *, redacted: Mapping[str, int] | None = None
    ) -> bool:
        """Append one answer, with the feedback it carries; False when its run_id is there already.

        Raises:
            StoreError: the journal can't be written (``StoreBusyError``: others kept it locked).
        """
        return self.append_many([(interaction, redacted)]).interactions > 0

    def append_record(
        self,
        record: Mapping[str, Any],
        *,
        redacted: Mapping[str, int] | None = None,
        rank: int | None = None,
        timeout_s: float | None = None,
    ) -> str | None:
        """Append one answer given as the plain dict of an ``Interaction`` without feedback.

        For the request path: building and dumping pydantic objects costs ten times the append. The
        caller vouches for the form (``created_at`` is a datetime); it is validated when read. A run
        that began before its user, thread or trace was forgotten is left out.

        Args:
            record: the answer.
            redacted: what was taken out, by kind.
            rank: how far its request is the user's turn; None: unknown.
            timeout_s: how long to wait for other writers; None: as long as the journal does.

        Returns:
            The run id under which it stands; None: it was left out. Where another run had its own
            before, it is kept apart under a new one, and feedback under the old one is about it
            from here on.

        Raises:
            StoreError: the journal can't be written.
        """
        row = _record_row(record, redacted, rank)
        names = record.get("message_ids") or ()

        def work(db: sqlite3.Connection) -> str | None:
            run_id: str = row[0]
            # What it says is no sign: the same may be asked again.
            if any_tombstones(db) and is_forgotten(db, row, None):
                return None
            if db.execute(_INSERT, row).rowcount > 0:
                run_names.give_names(db, run_names.own_names(db, row))
            elif run_names.is_there(db, row, record):
                return run_id
            else:
                run_id = str(uuid4())
                db.execute(_INSERT, _record_row({**record, "run_id": run_id}, redacted, rank))
                run_names.rename(db, [(row[0], run_id)], again=True)
            run_names.give_names(db, [(name, run_id) for name in names])
            return run_id

        return self._db.transaction(work, timeout_s)

    def append_names(self, names: Sequence[tuple[str, str]], wait_s: float | None = None) -> None:
        """Note other names of runs: pairs (name, run id). Of one name, the latest run is meant.

        Feedback that came before under a name finds its run by it.

        Raises:
            StoreError: the journal can't be written.
        """
        self._db.transaction(lambda db: run_names.rename(db, names), wait_s)

    def append_feedback(
        self, feedback: Feedback, *, redacted: Mapping[str, int] | None = None, replace: bool = True
    ) -> bool:
        """Append one feedback; of the same ``feedback_id`` and run, the later-made one stands.

        With ``replace=False`` (imports), the one that is there already.

        The run need not be known yet: the feedback waits for it. False when nothing changed, or
        when it belongs to what was forgotten (:mod:`langchain_uno.logs.erase`).

        Raises:
            StoreError: the journal can't be written.
        """
        row = _feedback_row(feedback, redacted)
        sql = _INSERT_FEEDBACK + (_REPLACE_FEEDBACK if replace else "NOTHING")

        def work(db: sqlite3.Connection) -> bool:
            filed = run_names.filed_under(db, row)
            if any_tombstones(db):
                sql_end = "SELECT after FROM interactions WHERE run_id = ?"
                about = db.execute(sql_end, (filed[1],)).fetchone()
                after = about[0] if about else None
                if feedback_is_forgotten(db, row, (run_name(row[1]), filed[1]), after, replace):
                    return False
            return db.execute(sql, filed).rowcount > 0

        return self._db.transaction(work)

    def own_id(self, given: Feedback) -> str:
        """Return the id of somebody's feedback: the one given, unless another person has it."""
        told = f"{given.feedback_id}\0{given.user_id}".encode("utf-8", "replace")
        own = f"{given.feedback_id[:150]}-{blake2b(told, digest_size=8).hexdigest()}"
        sql = "SELECT feedback_id, user_id, json_extract(body, '$.user_id') FROM feedback "
        rows = self._db.read(sql + "WHERE feedback_id IN (?, ?)", (given.feedback_id, own))
        people = {name: {person(one) for one in named if one} for name, *named in rows}
        others = people.get(given.feedback_id, set()) if given.user_id else set()
        taken = others and person(given.user_id) not in others
        return own if taken or own in people else given.feedback_id

    def feedback_of(self, feedback_id: str) -> Feedback | None:
        """Return the feedback that stands under an id, with its run's own id; None: none does."""
        sql = "SELECT body, run_id FROM feedback WHERE feedback_id = ?"
        for body, run_id in self._db.read(sql, (feedback_id,)):
            return self._record(Feedback, body).model_copy(update={"run_id": run_id})
        return None

    def names(self, only: Sequence[str] | None = None) -> dict[str, str]:
        """Every further name of a run (or of ``only`` these) -> its run id."""
        some = "" if only is None else f" WHERE name {IN}"
        args = () if only is None else (json.dumps(only),)
        return dict(self._db.read(f"SELECT name, run_id FROM names{some}", args))  # noqa: S608

    def run_named(self, name: str) -> str:
        """Return the run id that a name of an answer stands for; the name itself: none is known."""
        return str(self._db.read(run_names.NAMED, (run_name(name), run_ref(name)))[0][0])

    def append_many(
        self, items: Iterable[tuple[Interaction, Mapping[str, int] | None]]
    ) -> Appended:
        """Append many answers with their feedback in one transaction: all of them, or none.

        What is there already stays as it is; what was forgotten stays away.

        Raises:
            InputError: a record can't be stored as JSON.
            StoreError: the journal can't be written.
        """
        rows = [
            (
                _interaction_row(interaction, redacted),
                [(name, interaction.run_id) for name in interaction.message_ids],
                interaction.language if "language" in interaction.model_fields_set else None,
                [
                    _feedback_row(f.model_copy(update={"run_id": f.run_id or interaction.run_id}))
                    for f in interaction.feedback
                ],
            )
            for interaction, redacted in items
        ]

        def work(db: sqlite3.Connection) -> Appended:
            new = new_feedback = forgotten = 0
            ask = any_tombstones(db)
            for row, names, language, feedback in rows:
                if ask and is_forgotten(db, row, row[8]):
                    forgotten += 1
                    continue
                if db.execute(_INSERT, row).rowcount > 0:
                    new += 1
                    run_names.give_names(db, [*run_names.own_names(db, row), *names])
                if language:
                    db.execute("INSERT OR IGNORE INTO languages VALUES (?, ?)", (row[0], language))
                for one in feedback:
                    filed = run_names.filed_under(db, one)
                    forms = (run_name(one[1]), filed[1])
                    if ask and feedback_is_forgotten(db, one, forms, row[8], False):
                        continue
                    cursor = db.execute(_INSERT_FEEDBACK + "NOTHING", filed)
                    new_feedback += max(cursor.rowcount, 0)
            return Appended(new, new_feedback, forgotten)

        return self._db.transaction(work)

    # -- reading ------------------------------------------------------------------------------

    def rows(self) -> list[JournalRow]:
        """The ids and digests of all interactions, in the order of arrival."""
        return self.rows_where("1")

    def rows_where(self, condition: str, *args: Any) -> list[JournalRow]:
        """Those of which an SQL condition holds, in the order of arrival; a list is JSON text."""
        sql = (
            "SELECT seq, run_id, root_run_id, thread_id, user_id, has_answer, before, turn, after, "  # noqa: S608
            # By "seq" alone SQLite walks through all rows, whatever the condition has an index for.
            f"rank, created_at FROM interactions WHERE {condition} ORDER BY +seq"
        )
        return [JournalRow(*row) for row in self._db.read(sql, args)]

    def interactions(self, run_ids: Sequence[str]) -> Iterator[Interaction]:
        """The named interactions without feedback, in the order asked; unknown ids are left out.

        The language is what was said with the record, else what its text is written in.
        """
        return (self.record(body, language) for _, body, language in self.bodies(run_ids))

    def bodies(self, run_ids: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
        """The named interactions as they are stored: run id, JSON text, language if it is known."""
        for part, marks in in_parts(run_ids):
            sql = (
                "SELECT run_id, body, language FROM interactions "  # noqa: S608
                f"LEFT JOIN languages USING (run_id) WHERE run_id IN ({marks})"
            )
            found = {row[0]: row for row in self._db.read(sql, part)}
            yield from (found[run_id] for run_id in part if run_id in found)

    def record(self, body: str, language: str | None) -> Interaction:
        """Read an interaction as it is stored."""
        log = self._record(Interaction, body)
        if language or log.language == "en":  # not said, or by an older version
            users = [m.content for m in log.messages if m.role == "user"]
            log.language = language or language_of(users, log.answer)
        return log

    def note_languages(self, logs: Iterable[Interaction]) -> None:
        """Keep the languages that these records were read with, so that none is detected again."""
        rows = [(log.run_id, log.language) for log in logs]
        sql = "INSERT OR IGNORE INTO languages VALUES (?, ?)"
        self._db.transaction(lambda db: db.executemany(sql, rows))

    def feedback(
        self, about: Sequence[str] | None = None, ids: Sequence[str] = ()
    ) -> list[Feedback]:
        """Every feedback, in the order of arrival; ``run_id`` is what it is filed under.

        Args:
            about: only what names one of these runs; None: all.
            ids: and these pieces of feedback.
        """
        sql = "SELECT seq, run_id, body FROM feedback"
        found = set(self._db.read(sql)) if about is None else set()
        for column, names in (("run_id", about or ()), ("feedback_id", ids)):
            for part, marks in in_parts(names):
                found.update(self._db.read(f"{sql} WHERE {column} IN ({marks})", part))
        return [
            self._record(Feedback, body).model_copy(update={"run_id": run_id})
            for _, run_id, body in sorted(found)
        ]

    def counts(self) -> tuple[int, int]:
        """How many interactions and feedbacks there are."""
        sql = "SELECT (SELECT count(*) FROM interactions), (SELECT count(*) FROM feedback)"
        row = self._db.read(sql)[0]
        return int(row[0]), int(row[1])

    def waiting(self) -> list[str]:
        """The names of answers that are not here, one for each piece of feedback about them."""
        sql = (
            "SELECT run_id FROM feedback f WHERE NOT EXISTS "
            "(SELECT 1 FROM interactions WHERE run_id = f.run_id) AND NOT EXISTS "
            "(SELECT 1 FROM interactions WHERE root_run_id = f.run_id) ORDER BY seq"
        )
        return [name for (name,) in self._db.read(sql)]

    def nameless(self) -> int:
        """How many answers nobody's name: no user, and no feedback of a named person."""
        sql = (
            "SELECT count(*) FROM interactions i WHERE user_id IS NULL AND NOT EXISTS "
            "(SELECT 1 FROM feedback f WHERE f.run_id = i.run_id AND f.user_id IS NOT NULL)"
        )
        return int(self._db.read(sql)[0][0])

    def feedback_since(self, moment: float) -> int:
        """How many pieces of feedback were made after a moment (seconds since 1970)."""
        sql = "SELECT count(*) FROM feedback WHERE created_at > ?"
        return int(self._db.read(sql, (moment,))[0][0])

    def redacted(self) -> dict[str, int]:
        """How much was taken out before storing, by kind."""
        sql = (
            "SELECT key, sum(value) FROM (SELECT redacted taken FROM interactions UNION ALL "
            "SELECT redacted FROM feedback), json_each(taken) GROUP BY key"
        )
        return dict(self._db.read(sql))

    def _record(self, kind: type[_R], body: str) -> _R:
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            raise StoreError(
                f"The journal {str(self.path)!r} holds a row that is no record "
                f"({reason_of(error)}): restore it from a backup."
            ) from error

    # -- what models said ---------------------------------------------------------------------

    def model_verdicts(self) -> dict[str, tuple[bytes, Verdict]]:
        """run_id -> (digest of the feedback it was said of, verdict), of the latest refresh."""
        sql = "SELECT run_id, digest, reason, detail FROM model_verdicts"
        made = cache(lambda *why: Verdict(usable=False, reason=why[0], detail=why[1]))
        return {run_id: (digest, made(*why)) for run_id, digest, *why in self._db.read(sql)}

    def set_model_verdicts(self, found: Mapping[str, tuple[bytes, Verdict]]) -> None:
        """Replace them all."""
        rows = [(r, digest, v.reason, v.detail) for r, (digest, v) in found.items()]

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM model_verdicts")
            db.executemany("INSERT INTO model_verdicts VALUES (?, ?, ?, ?)", rows)

        self._db.transaction(work)

    # -- what the index has -------------------------------------------------------------------

    def indexed(self) -> dict[str, bytes]:
        """run_id -> digest of the joined record that the Chroma index has."""
        return dict(self._db.read("SELECT run_id, digest FROM indexed"))

    def mark_indexed(self, digests: Mapping[str, bytes]) -> None:
        """Note that the index has these records now."""
        sql = "INSERT OR REPLACE INTO indexed VALUES (?, ?)"
        self._db.transaction(lambda db: db.executemany(sql, digests.items()))

    def clear_indexed(self) -> None:
        """Forget what the index has (before it is rebuilt)."""
        self._db.transaction(lambda db: db.execute("DELETE FROM indexed"))

    def index_identity(self) -> str | None:
        """Which index the marks are about (``identity`` of the collection); None: never said."""
        rows = self._db.read("SELECT value FROM meta WHERE name = 'index'")
        return bytes(rows[0][0]).decode() if rows else None

    def set_index_identity(self, identity: str) -> None:
        """Note which index the marks are about."""
        row = ("index", identity.encode())
        self._db.write(lambda db: db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row))

    # -- life ---------------------------------------------------------------------------------

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file and empty it; return whether readers hinder it."""
        sql = "PRAGMA wal_checkpoint(TRUNCATE)"
        return bool(self._db.write(lambda db: db.execute(sql).fetchone()[0]))

    @property
    def database(self) -> Database:
        """The file below, for erasing and repairing."""
        return self._db

    def close(self) -> None:
        """Close the file; further calls raise StoreError. Closing twice is fine."""
        self._db.close()


def _interaction_row(i: Interaction, redacted: Mapping[str, int] | None = None) -> tuple[Any, ...]:
    answer = without_thinking(i.answer)
    if answer != i.answer:
        i = i.model_copy(update={"answer": answer})
    body = _body(i, i.run_id, {"feedback", "verdict"})
    return _record_row(i.model_dump(exclude={"feedback"}), redacted, None, body)


def _record_row(
    r: Mapping[str, Any],
    redacted: Mapping[str, int] | None,
    rank: int | None,
    body: str | None = None,
) -> tuple[Any, ...]:
    said = [(m["role"], m["content"]) for m in r["messages"]]
    links = link(said, r["answer"])
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
        body or _to_json({**r, "created_at": created_at.isoformat()}).decode(),
        _rank(rank, r.get("tags") or {}, said),
        r.get("release"),
        r.get("cluster") is not None,
    )


def _rank(
    rank: int | None, tags: Mapping[str, str], messages: Sequence[tuple[str, str]]
) -> int | None:
    """Return how far a request is the user's turn, as it stands in the journal."""
    asked = next((text for role, text in reversed(messages) if role == "user"), "")
    return OWN_CALL if "own_call" in tags or client_task(asked) else rank


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
