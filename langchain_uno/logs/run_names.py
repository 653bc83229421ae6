"""The names of a run beside its own id, in the journal: a provider's, a trace's, an app's.

Feedback is filed under the run that its name stands for, as soon as both are there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_uno.logs.conversation import run_name, run_ref

NAMED = (  # ?1: a name (run_name), ?2: the same as it was given; digits may be a run's own id
    "SELECT coalesce((SELECT run_id FROM names WHERE name = ?1), (SELECT ?2 WHERE EXISTS "
    "(SELECT 1 FROM interactions WHERE run_id = ?2 OR root_run_id = ?2)), ?1)"
)

_OTHERS = (  # a run of another trace has the name as its id
    "SELECT 1 FROM interactions a JOIN interactions b ON b.run_id = ?2 WHERE a.run_id = ?1 "
    "AND a.root_run_id IS NOT b.root_run_id"
)
_TICK = 0.001
"""Seconds by which two clocks of one host may differ."""


def own_names(db: sqlite3.Connection, row: tuple[Any, ...]) -> list[tuple[str, str]]:
    """Return the text of a UUID whose digits are this id, unless the text is another one's id."""
    names = []
    sql = "SELECT 1 FROM interactions WHERE run_id = ?1 OR root_run_id = ?1"
    for one in dict.fromkeys(filter(None, row[:2])):
        name, digits = run_name(one), one.replace("-", "")
        if name == one == run_name(digits):
            db.execute("DELETE FROM names WHERE name = ? AND lower(run_id) = ?", (one, digits))
        elif name != run_ref(one) and not db.execute(sql, (name,)).fetchone():
            names.append((name, one))
    return names


def is_there(db: sqlite3.Connection, row: tuple[Any, ...], record: Mapping[str, Any]) -> bool:
    """Whether the same run stands under a row's run id: two handlers saw it at one time, say."""
    sql = (
        "SELECT created_at, json_extract(body, '$.latency_s'), before, turn, after "
        "FROM interactions WHERE run_id = ?"
    )
    at, took, *links = db.execute(sql, (row[0],)).fetchone()
    began = row[4]
    before = at <= began <= at + (took or 0) + _TICK
    after = began <= at <= began + (record.get("latency_s") or 0) + _TICK
    return at == began or ((before or after) and tuple(links) == row[6:9])


def give_names(
    db: sqlite3.Connection, names: Iterable[tuple[str, str]], again: bool = False
) -> None:
    """Let names stand for runs; ``again``: also ids of runs, which are used once more.

    Otherwise the id of a run stays with it. LangChain's cache gives an answer with the id of its
    first run; a model around another one gives back the other's, in the same trace.
    """
    for given, run_id in names:
        name = run_name(given)
        if name == run_id or (not again and db.execute(_OTHERS, (name, run_id)).fetchone()):
            continue
        db.execute("INSERT OR REPLACE INTO names VALUES (?, ?)", (name, run_id))
        # Feedback that waits under the name; what names a run of its own stays with that.
        db.execute(
            "UPDATE feedback SET run_id = ?1 WHERE run_id = ?2 "
            "AND NOT EXISTS (SELECT 1 FROM interactions WHERE run_id = ?2)",
            (run_id, name),
        )


def rename(db: sqlite3.Connection, names: Sequence[tuple[str, str]], again: bool = False) -> None:
    """Give names that traces or runs may be known by: what was shown of them is another answer.

    Names of runs that are not here (forgotten meanwhile, say) are left out.
    """
    sql = "SELECT 1 FROM interactions WHERE run_id = ?"
    here = [(name, run) for name, run in names if db.execute(sql, (run,)).fetchone()]
    give_names(db, here, again)
    db.executemany("INSERT INTO changes (name) VALUES (?)", [(name,) for name, _ in here])


def filed_under(db: sqlite3.Connection, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a feedback's row under the run that it names."""
    (run_id,) = db.execute(NAMED, (run_name(row[1]), row[1])).fetchone()
    return (row[0], run_id, *row[2:])
