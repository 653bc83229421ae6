"""Which answers of an import are there already: logs of requests repeat the whole history.

A request's row holds all turns so far, so that the third answer's row holds the first two again.
An answer with the same conversation before it, of the same user (and thread, where both are named),
is the same answer. Where nobody is named it is the same only where the one conversation goes on
from the other: many people may ask the same once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from langchain_uno.logs.conversation import link, run_name
from langchain_uno.logs.join import FOLLOW_UP
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Feedback, Interaction

_PAGE = 5000


class Answers:
    """The answers of a journal and of the import under way, in a temporary file of SQLite's."""

    def __init__(self, journal: Journal) -> None:
        self._db = sqlite3.connect("")
        self._db.execute(
            "CREATE TABLE answers (run_id TEXT PRIMARY KEY, after BLOB, user_id TEXT, "
            "thread_id TEXT) WITHOUT ROWID"
        )
        self._db.execute("CREATE TABLE other_names (run_id TEXT PRIMARY KEY, stored TEXT)")
        self._db.execute("CREATE TABLE turns (run_id TEXT, turn BLOB, PRIMARY KEY (run_id, turn))")
        rows = "run_id, after, user_id, thread_id FROM interactions WHERE after IS NOT NULL"
        for row in _pages(journal, rows):
            self._db.execute("INSERT INTO answers VALUES (?, ?, ?, ?)", row)
        turns = "body FROM feedback WHERE feedback_id LIKE 'follow-up-%'"
        for (body,) in _pages(journal, turns):
            self._note_turn(Feedback.model_validate_json(body))
        self._db.execute("CREATE INDEX by_text ON answers (after)")

    def settle(self, one: Interaction, *, may_repeat: bool) -> Interaction | list[Feedback]:
        """Return the record as it is to be stored, or the feedback for the answer that it repeats.

        Args:
            one: with its feedback, redacted as it will be stored.
            may_repeat: whether it may be an answer that is there under another id.
        """
        after = link([(m.role, m.content) for m in one.messages], one.answer).after
        if after is None:
            return one
        same = self._same(one, after) if may_repeat else None
        if same is not None:
            name = run_name(one.run_id)
            self._db.execute("INSERT OR IGNORE INTO other_names VALUES (?, ?)", (name, same))
            said = [f.model_copy(update={"run_id": same}) for f in one.feedback]
            return [f for f in said if self._note_turn(f)]
        row = (one.run_id, after, one.user_id, one.thread_id)
        self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", row)
        return one.model_copy(update={"feedback": [f for f in one.feedback if self._note_turn(f)]})

    def name_of(self, run_id: str) -> str:
        """Return the run id under which this import stored an answer; others as they are."""
        sql = "SELECT stored FROM other_names WHERE run_id = ?"
        found = self._db.execute(sql, (run_name(run_id),)).fetchone()
        return str(found[0]) if found else run_id

    def _same(self, one: Interaction, after: bytes) -> str | None:
        found = self._db.execute(
            "SELECT run_id, user_id, thread_id FROM answers WHERE after = ?", (after,)
        ).fetchall()
        if any(run_id == one.run_id for run_id, _, _ in found):
            return None
        goes_on = {_digest(f) for f in one.feedback if f.key == FOLLOW_UP}
        for run_id, user_id, thread_id in found:
            if user_id != one.user_id or (
                thread_id and one.thread_id and thread_id != one.thread_id
            ):
                continue
            if user_id or (thread_id and thread_id == one.thread_id):
                return str(run_id)
            turns = "SELECT turn FROM turns WHERE run_id = ?"
            known = {turn for (turn,) in self._db.execute(turns, (run_id,))}
            if (goes_on or known) and (goes_on <= known or known <= goes_on):
                return str(run_id)
        return None

    def _note_turn(self, said: Feedback) -> bool:
        """Note a follow-up turn; False when the answer has it already."""
        if said.key != FOLLOW_UP:
            return True
        row = (said.run_id, _digest(said))
        return self._db.execute("INSERT OR IGNORE INTO turns VALUES (?, ?)", row).rowcount > 0

    def close(self) -> None:
        """Throw the temporary file away."""
        self._db.close()


def _pages(journal: Journal, what: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table a page at a time."""
    seq = 0
    while page := journal.database.read(
        f"SELECT seq, {what} AND seq > ? ORDER BY seq LIMIT {_PAGE}", (seq,)
    ):
        yield from (row[1:] for row in page)
        seq = page[-1][0]


def _digest(said: Feedback) -> bytes:
    text = (said.comment or "").strip()
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
