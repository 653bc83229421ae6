"""The journal's schema, as numbered steps: ``PRAGMA user_version`` says how many were taken.

A step is never changed once released; a new one is appended. Opening a journal takes the missing
steps in one transaction each, so two processes that open an old journal at once do it once.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Callable
from uuid import UUID

from langchain_uno.errors import StoreError


def m001_records(db: sqlite3.Connection) -> None:
    """Interactions, feedback, and which of them the Chroma index has (derived, rebuildable).

    before, turn and after are digests (see ``conversation.link``).
    """
    db.execute(
        """CREATE TABLE interactions (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL UNIQUE,
            root_run_id TEXT,
            thread_id TEXT,
            user_id TEXT,
            created_at REAL NOT NULL,
            has_answer INTEGER NOT NULL,
            before BLOB,    -- of the conversation up to the answer that the user turn follows
            turn BLOB,      -- of that user turn
            after BLOB,     -- of the conversation with this answer
            redacted TEXT,  -- {"email": 2}: what was taken out before storing, counts only
            body TEXT NOT NULL
        )"""
    )
    db.execute(
        """CREATE TABLE feedback (
            seq INTEGER PRIMARY KEY,
            feedback_id TEXT NOT NULL UNIQUE,
            run_id TEXT NOT NULL,
            user_id TEXT,
            created_at REAL NOT NULL,
            redacted TEXT,
            body TEXT NOT NULL
        )"""
    )
    db.execute("CREATE TABLE indexed (run_id TEXT PRIMARY KEY, digest BLOB NOT NULL)")


def m002_meta_and_erasures(db: sqlite3.Connection) -> None:
    """Facts about the journal; what was forgotten, as keyed hashes; erasures and their receipts."""
    db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL)")
    # The key of the tombstones' hashes; it never leaves this file.
    db.execute("INSERT INTO meta VALUES ('tombstone_key', ?)", (secrets.token_bytes(32),))
    db.execute(
        """CREATE TABLE tombstones (
            hash BLOB PRIMARY KEY,   -- of "run:...", "user:...", "thread:..." or "feedback:..."
            forgotten_at REAL NOT NULL
        ) WITHOUT ROWID"""
    )
    db.execute(
        """CREATE TABLE erasures (
            seq INTEGER PRIMARY KEY,
            pending TEXT,            -- opaque ids of the forgotten logs until it is finished
            receipt TEXT NOT NULL    -- counts and times, nobody's ids
        )"""
    )


def m003_model_verdicts(db: sqlite3.Connection) -> None:
    """What a refresh's models said of a log, with the feedback it had then (derived)."""
    db.execute(
        """CREATE TABLE model_verdicts (
            run_id TEXT PRIMARY KEY,
            digest BLOB NOT NULL,    -- of its feedback; another one: to be judged again
            reason TEXT NOT NULL,
            detail TEXT NOT NULL
        )"""
    )


def m004_languages(db: sqlite3.Connection) -> None:
    """The language of a record, where it was told or was detected once (derived)."""
    db.execute("CREATE TABLE languages (run_id TEXT PRIMARY KEY, language TEXT NOT NULL)")


def m005_names(db: sqlite3.Connection) -> None:
    """Other names of a run (a provider's message id, say), and how far it answers the user's turn.

    Feedback is filed under the run that its name stands for; it is looked for when a name comes.
    """
    db.execute(
        "ALTER TABLE interactions ADD COLUMN rank INTEGER"
    )  # see capture.Rank; NULL: unknown
    db.execute("CREATE TABLE names (name TEXT PRIMARY KEY, run_id TEXT NOT NULL) WITHOUT ROWID")
    db.execute("CREATE INDEX names_of_run ON names (run_id)")
    db.execute("CREATE INDEX feedback_of_run ON feedback (run_id)")
    # Whoever deletes a record (an erasure, a retention) deletes its names with it.
    db.execute(
        """CREATE TRIGGER names_go_with_their_run AFTER DELETE ON interactions BEGIN
            DELETE FROM names WHERE run_id = OLD.run_id;
        END"""
    )


def m006_expired(db: sqlite3.Connection) -> None:
    """What people taught whose records retention took: keyed hashes, in case they ask later."""
    db.execute(
        """CREATE TABLE expired (
            who BLOB NOT NULL,       -- of "user:...", "thread:..." or "run:...", as in tombstones
            opaque TEXT NOT NULL,    -- lineage id of a record of theirs
            PRIMARY KEY (who, opaque)
        ) WITHOUT ROWID"""
    )


def m007_figures(db: sqlite3.Connection) -> None:
    """What counts of the whole log need: who answered, whom, when; read from indexes alone."""
    for column in (
        "release TEXT AS (json_extract(body, '$.release')) VIRTUAL",
        "reached INTEGER AS (json_extract(body, '$.cluster') IS NOT NULL) VIRTUAL",
    ):
        db.execute(f"ALTER TABLE interactions ADD COLUMN {column}")
    db.execute(
        "CREATE INDEX interactions_of_release ON interactions (release, reached, created_at)"
    )
    db.execute("CREATE INDEX interactions_of_user ON interactions (user_id, created_at)")
    db.execute(
        "CREATE INDEX interactions_of_trace ON interactions (root_run_id) "
        "WHERE root_run_id IS NOT NULL"
    )
    db.execute("CREATE INDEX feedback_of_user ON feedback (user_id, created_at)")


def m008_plain_figures(db: sqlite3.Connection) -> None:
    """Release and reached as plain columns: to read them from the body cost every append."""
    db.execute("DROP INDEX interactions_of_release")
    for column, kind in (("release", "TEXT"), ("reached", "INTEGER")):
        db.execute(f"ALTER TABLE interactions DROP COLUMN {column}")
        db.execute(f"ALTER TABLE interactions ADD COLUMN {column} {kind}")
    db.execute(
        "UPDATE interactions SET release = json_extract(body, '$.release'), "
        "reached = json_extract(body, '$.cluster') IS NOT NULL"
    )
    db.execute(
        "CREATE INDEX interactions_of_release ON interactions (release, reached, created_at)"
    )


def m009_changes(db: sqlite3.Connection) -> None:
    """What changed of records that are there, for those who read what is new alone.

    The names are of runs and traces; who has read them deletes them.
    """
    db.execute("CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL)")
    db.execute(
        """CREATE TRIGGER feedback_changes AFTER UPDATE ON feedback BEGIN
            INSERT INTO changes (name) VALUES (OLD.run_id), (NEW.run_id);
        END"""
    )


def m010_digits_and_nonces(db: sqlite3.Connection) -> None:
    """A UUID's 32 digits mean the UUID; rows and changes tell one history from another.

    Feedback that waits, and names, are filed under the UUID's text. Where the digits are a run's or
    a trace's own id, the text is a name of it, unless another one has it for its own id. A nonce is
    random: a journal that was restored and written to again has another one at the same number.
    """

    def uuid_of(name: str | None) -> str | None:
        return str(UUID(name)) if name and re.fullmatch("[0-9a-fA-F]{32}", name) else None

    db.create_function("uuid_of", 1, uuid_of)
    db.execute("UPDATE OR REPLACE names SET name = uuid_of(name) WHERE uuid_of(name) IS NOT NULL")
    db.execute(
        "INSERT OR IGNORE INTO names SELECT uuid_of(id), id FROM (SELECT run_id AS id FROM "
        "interactions UNION SELECT root_run_id FROM interactions) WHERE uuid_of(id) IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM interactions i WHERE i.run_id = uuid_of(id) "
        "OR i.root_run_id = uuid_of(id))"
    )
    db.execute(
        "UPDATE feedback SET run_id = uuid_of(run_id) WHERE uuid_of(run_id) IS NOT NULL AND NOT "
        "EXISTS (SELECT 1 FROM interactions i WHERE i.run_id = feedback.run_id "
        "OR i.root_run_id = feedback.run_id)"
    )
    db.execute(
        "UPDATE feedback SET run_id = (SELECT n.run_id FROM names n WHERE n.name = feedback.run_id)"
        " WHERE run_id IN (SELECT name FROM names) AND NOT "
        "EXISTS (SELECT 1 FROM interactions i WHERE i.run_id = feedback.run_id)"
    )
    db.execute("DROP TRIGGER names_go_with_their_run")
    db.execute(
        """CREATE TRIGGER names_go_with_their_run AFTER DELETE ON interactions BEGIN
            DELETE FROM names WHERE run_id = OLD.run_id OR (
                run_id = OLD.root_run_id AND NOT EXISTS (SELECT 1 FROM interactions
                WHERE run_id = OLD.root_run_id OR root_run_id = OLD.root_run_id));
        END"""
    )
    db.execute("ALTER TABLE interactions ADD COLUMN nonce BLOB")
    db.execute("ALTER TABLE feedback ADD COLUMN nonce BLOB")
    db.execute("DROP TABLE changes")  # what was joined before is joined anew
    db.execute(
        """CREATE TABLE changes (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL,
            nonce BLOB NOT NULL DEFAULT (randomblob(8))
        )"""
    )
    db.execute(
        "UPDATE interactions SET nonce = randomblob(8) "
        "WHERE seq = (SELECT max(seq) FROM interactions)"
    )
    db.execute(
        "UPDATE feedback SET nonce = randomblob(8) WHERE seq = (SELECT max(seq) FROM feedback)"
    )


STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    m001_records, m002_meta_and_erasures, m003_model_verdicts, m004_languages, m005_names,
    m006_expired, m007_figures, m008_plain_figures, m009_changes, m010_digits_and_nonces,
)  # fmt: skip
SCHEMA = len(STEPS)


def migrate(db: sqlite3.Connection, name: str) -> None:
    """Bring ``db`` (in autocommit mode) to :data:`SCHEMA`.

    Raises:
        StoreError: the journal was written by a newer release of this package.
    """
    found = _version(db)
    if found > SCHEMA:
        raise StoreError(
            f"The journal {name!r} has schema {found}, this release knows up to {SCHEMA}: upgrade "
            "langchain-uno, or use the release that wrote it."
        )
    while found < SCHEMA:
        db.execute("BEGIN IMMEDIATE")
        with db:  # commits, or rolls back
            found = _version(db)  # another process may have been quicker
            if found < SCHEMA:
                STEPS[found](db)
                db.execute(f"PRAGMA user_version = {found + 1}")
        found = _version(db)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
