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


def m010_names_and_figures(db: sqlite3.Connection) -> None:
    """Other names of a run, figures of the whole log, and what changed since somebody read it.

    - A name (a provider's message id, say) stands for a run. A UUID's 32 digits mean the UUID:
      feedback that waits is filed under the UUID's text. Where the digits are a run's or a trace's
      own id, the text is a name of it, unless another one has it for its own id.
    - ``rank`` says how far a run answers the user's turn; NULL: unknown.
    - ``expired`` has what people taught whose records retention took, in case they ask later.
    - Release, ``reached`` and the indexes are for counts that read no record.
    - The changes are of records that are there, by names of runs and traces; who has read them
      deletes them. A nonce is random: a journal that was restored and written to again has another
      one at the same number.
    """

    def uuid_of(name: str | None) -> str | None:
        return str(UUID(name)) if name and re.fullmatch("[0-9a-fA-F]{32}", name) else None

    db.create_function("uuid_of", 1, uuid_of)
    for column in ("rank INTEGER", "release TEXT", "reached INTEGER", "nonce BLOB"):
        db.execute(f"ALTER TABLE interactions ADD COLUMN {column}")
    db.execute("ALTER TABLE feedback ADD COLUMN nonce BLOB")
    db.execute(
        "UPDATE interactions SET release = json_extract(body, '$.release'), "
        "reached = json_extract(body, '$.cluster') IS NOT NULL"
    )
    db.execute("CREATE TABLE names (name TEXT PRIMARY KEY, run_id TEXT NOT NULL) WITHOUT ROWID")
    db.execute(
        """CREATE TABLE expired (
            who BLOB NOT NULL,       -- of "user:...", "thread:..." or "run:...", as in tombstones
            opaque TEXT NOT NULL,    -- lineage id of a record of theirs
            PRIMARY KEY (who, opaque)
        ) WITHOUT ROWID"""
    )
    for index in (
        "names_of_run ON names (run_id)",
        "feedback_of_run ON feedback (run_id)",
        "feedback_of_user ON feedback (user_id, created_at)",
        "interactions_of_release ON interactions (release, reached, created_at)",
        "interactions_of_user ON interactions (user_id, created_at)",
        "interactions_of_trace ON interactions (root_run_id) WHERE root_run_id IS NOT NULL",
    ):
        db.execute(f"CREATE INDEX {index}")
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
    # Whoever deletes a record (an erasure, a retention) deletes its names with it.
    db.execute(
        """CREATE TRIGGER names_go_with_their_run AFTER DELETE ON interactions BEGIN
            DELETE FROM names WHERE run_id = OLD.run_id OR (
                run_id = OLD.root_run_id AND NOT EXISTS (SELECT 1 FROM interactions
                WHERE run_id = OLD.root_run_id OR root_run_id = OLD.root_run_id));
        END"""
    )
    db.execute(
        """CREATE TABLE changes (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL,
            nonce BLOB NOT NULL DEFAULT (randomblob(8))
        )"""
    )
    db.execute(
        """CREATE TRIGGER feedback_changes AFTER UPDATE ON feedback BEGIN
            INSERT INTO changes (name) VALUES (OLD.run_id), (NEW.run_id);
        END"""
    )


STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {
    1: m001_records,
    2: m002_meta_and_erasures,
    3: m003_model_verdicts,
    4: m004_languages,
    10: m010_names_and_figures,
}
"""By the schema that each leads to; no release had one of those between 4 and 10."""
SCHEMA = max(STEPS)


def migrate(db: sqlite3.Connection, name: str) -> None:
    """Bring ``db`` (in autocommit mode) to :data:`SCHEMA`.

    Raises:
        StoreError: the journal was written by a newer release of this package, or by none.
    """
    found = _version(db)
    if found not in (0, *STEPS):
        raise StoreError(
            f"The journal {name!r} has schema {found}, this release knows up to {SCHEMA} and none "
            "between releases: upgrade langchain-uno, or use the version that wrote it."
        )
    for schema, step in STEPS.items():
        if schema > found:
            db.execute("BEGIN IMMEDIATE")
            with db:  # commits, or rolls back
                if schema > _version(db):  # another process may have been quicker
                    step(db)
                    db.execute(f"PRAGMA user_version = {schema}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
