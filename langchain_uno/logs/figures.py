"""Figures of a whole journal that pages and commands show, each from an index."""

from __future__ import annotations

from typing import NamedTuple

from langchain_uno.logs.journal import Journal


class Person(NamedTuple):
    """How much one user asked and said."""

    user_id: str
    answers: int
    """Answers that this user got."""
    feedback: int
    """Pieces of feedback that this user gave, on whatever answer."""
    last: float
    """When the latest of both was made, in seconds since 1970."""


def log_mark(journal: Journal) -> str:
    """Return what is another one after every record, changed record, name or erasure."""
    sql = (
        "SELECT count(*), max(seq), 0 FROM interactions UNION ALL "
        "SELECT count(*), total(created_at), max(created_at) FROM feedback UNION ALL "
        "SELECT count(*), 0, 0 FROM names UNION ALL SELECT count(*), 0, 0 FROM erasures"
    )
    return str(journal.database.read(sql))


def people_in(journal: Journal, part: str = "", offset: int = 0, limit: int = 50) -> list[Person]:
    """Who asked and who gave feedback, who gave most first.

    Equals stand by name, and by the number at its end: "u-2" before "u-10".

    Args:
        journal: the journal.
        part: only ids that it is a part of; "": all.
        offset: how many to leave out.
        limit: how many to return at most.
    """
    sql = (
        "SELECT who, sum(asked), sum(said), max(last) FROM ("
        "SELECT user_id who, count(*) asked, 0 said, max(created_at) last FROM interactions "
        "WHERE user_id IS NOT NULL AND instr(user_id, ?1) GROUP BY user_id UNION ALL "
        "SELECT user_id, 0, count(*), max(created_at) FROM feedback "
        "WHERE user_id IS NOT NULL AND instr(user_id, ?1) GROUP BY user_id"
        ") GROUP BY who ORDER BY 3 DESC, 2 DESC, "
        "rtrim(who, '0123456789'), length(who), who LIMIT ?2 OFFSET ?3"
    )
    return [Person(*row) for row in journal.database.read(sql, (part, limit, offset))]


def traffic_since(journal: Journal, since: float) -> list[tuple[str | None, bool, int]]:
    """Count the answers made after a moment: (release, whether a cluster took it, how many)."""
    sql = (
        "SELECT release, reached, count(*) FROM interactions WHERE created_at > ? "
        "GROUP BY release, reached ORDER BY release, reached"
    )
    return [(release, bool(c), n) for release, c, n in journal.database.read(sql, (since,))]
