"""Which records an erasure takes, and taking them out of the journal so that their bytes are gone.

Later turns of a conversation carry the text of the earlier ones, and so do other calls of the same
trace, so what quotes a forgotten record goes with it. Everything is decided and deleted in one
transaction, together with the tombstones and a note of what is left to do elsewhere; see
:mod:`langchain_uno.erasure` for the whole.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langchain_uno.errors import StoreBusyError
from langchain_uno.logs.conversation import MAX_ID, run_name, run_ref
from langchain_uno.logs.join import Joined, join
from langchain_uno.logs.journal import IN, Journal, JournalRow
from langchain_uno.logs.redaction import pseudonym
from langchain_uno.logs.tombstones import Kind, note_expired, plant, said_names, words_about
from langchain_uno.messages import clean_text
from langchain_uno.records import Feedback, Interaction, person


@dataclass
class Chosen:
    """What an erasure takes."""

    run_ids: list[str] = field(default_factory=list)
    quoting: int = 0
    """How many of them were not named, but quote those that were."""
    feedback_ids: list[str] = field(default_factory=list)
    heard_them: list[str] = field(default_factory=list)
    """Records that stay, but had feedback that goes: releases may have learnt it from them."""
    roots: list[str] = field(default_factory=list)
    """Traces that go whole: what was recorded of them meanwhile goes too."""
    names: list[tuple[Kind, str]] = field(default_factory=list)
    """What tombstones are planted for."""
    askers: dict[str, set[tuple[Kind, str]]] = field(default_factory=dict)
    """For retention: who may ask later for what a record taught, by run id."""

    @property
    def touched(self) -> list[str]:
        """The records that go, and those that had feedback which goes."""
        return [*self.run_ids, *self.heard_them]

    def __bool__(self) -> bool:
        """Whether anything was found."""
        return bool(self.run_ids or self.feedback_ids)


@dataclass
class Pending:
    """An erasure that the journal has done and that is not finished elsewhere."""

    seq: int
    opaque: list[str]
    """Lineage ids of the logs that go, and of those that had feedback which goes."""
    run_ids: list[str]
    """Their plain ids, kept until the erasure is finished."""
    receipt: dict[str, Any]


def named(kind: Kind, ids: Iterable[str]) -> list[tuple[Kind, str]]:
    """Return users, threads or runs as names of tombstones.

    In every form that the log may have: as it is, as capture cuts it, and redacted; of a run's UUID
    the text and the digits alone.
    """
    forms: set[str] = set()
    for one in ids:
        asked = {one}
        if kind == "run":
            name = run_name(one)
            digits = name.replace("-", "")
            asked = {run_ref(one), name, digits if run_name(digits) == name else name}
        if kind == "user":
            asked = {one, person(one) or one}
        for form in asked:
            clean = clean_text(form)
            forms |= {clean, clean.strip(), clean.strip()[:MAX_ID]} - {""}
    return [(kind, name) for form in forms for name in (form, pseudonym(form))]


def choose(journal: Journal, asked: Sequence[tuple[Kind, str]]) -> Chosen:
    """Find all that belongs to a user, a thread or runs, and all that quotes it.

    To a user belongs the feedback that this user gave on any run too.

    Args:
        journal: read, not changed.
        asked: whom or what (:func:`named`).
    """
    joined, given = join(journal), _given(journal)
    # Logs of older versions have users as they were named.
    rows = [row._replace(user_id=person(row.user_id)) for row in journal.rows()]
    users, threads, runs = (
        {name for kind, name in asked if kind == wanted} for wanted in ("user", "thread", "run")
    )
    other_names = journal.names()
    runs |= {other_names[one] for one in runs if one in other_names}
    # What an app recorded without saying who asked, in a thread of theirs, is theirs.
    own = {row.thread_id for row in rows if row.user_id in users} - {None}
    first = {
        row.run_id
        for row in rows
        if row.user_id in users
        or (row.user_id is None and row.thread_id in own)
        or row.thread_id in threads
        or row.run_id in runs
        or row.root_run_id in runs
    }
    whole = bool(users or threads)
    if whole:
        first |= _of_their_traces(rows, first)
    texts = _said(journal, first, whole)
    every = first | _quoting(journal, rows, first, texts, everywhere=whole)

    # Their feedback on other people's answers, and what repeats its words.
    by_them = {one.feedback_id for one in given if one.authors & users}
    words = {text for one in given if one.feedback_id in by_them for text in one.texts}
    heard = {
        run_id
        for run_id, many in joined.feedback.items()
        if run_id not in every and any(f.feedback_id in by_them for f in many)
    }
    spoken = _Words(set(), words)
    every |= _quoting(journal, rows, heard, spoken, everywhere=whole) - heard
    beside = {row.run_id for row in _near(rows, first | heard)} | heard
    needles = texts.distinct_words | spoken.distinct_words
    repeating = {
        f.feedback_id
        for run_id in beside - every
        for f in joined.feedback.get(run_id, ())
        if _contains(texts_of(f), needles)
    }

    roots = _gone_traces(rows, every)
    on_them = {f.feedback_id for run_id in every for f in joined.feedback.get(run_id, ())}
    targets = runs | every | roots
    gone = [
        one
        for one in given
        if one.run_id in targets or one.feedback_id in by_them | repeating | on_them
    ]
    chosen = _chosen(rows, joined, every, {one.feedback_id for one in gone})
    chosen.quoting = len(every - first)
    chosen.roots = sorted(roots)
    chosen.names = [*asked, *(("run", one) for one in (*chosen.run_ids, *chosen.roots))]
    chosen.names += [("thread", one) for one in _gone_threads(rows, every)]
    chosen.names += [("feedback", one) for one in chosen.feedback_ids]
    chosen.names += [("about", name) for name, one in other_names.items() if one in every | roots]
    chosen.names += [("about", one.run_id) for one in gone if one.feedback_id in on_them]
    chosen.names += _contents(journal, rows, every)
    ends = {row.run_id: row.after for row in rows}
    lost = {*chosen.feedback_ids, *(f"follow-up-{run_id}" for run_id in every)}
    chosen.names += [
        ("words", words_about(after, text))
        for run_id in chosen.heard_them
        if (after := ends[run_id]) is not None
        for f in joined.feedback[run_id]
        if f.feedback_id in lost
        for text in texts_of(f)
    ]
    return chosen


def choose_older(journal: Journal, before: float) -> Chosen:
    """Find all records and feedback made before a time, in seconds since 1970."""
    sql = "SELECT run_id FROM interactions WHERE created_at < ?"
    every = {run_id for (run_id,) in journal.database.read(sql, (before,))}
    rows, joined = journal.rows(), join(journal)
    known = {row.run_id for row in rows}
    targets = every | _gone_traces(rows, every)
    on_them = {f.feedback_id for run_id in every for f in joined.feedback.get(run_id, ())}
    given = _given(journal)
    authors = {one.feedback_id: one.authors for one in given}
    gone = {
        one.feedback_id
        for one in given
        if one.run_id in targets
        or one.feedback_id in on_them
        or (one.created_at < before and one.run_id not in known)
    }
    chosen = _chosen(rows, joined, every, gone)
    for row in rows:
        if row.run_id in every:
            names: list[tuple[Kind, str | None]] = [("run", row.run_id), ("run", row.root_run_id)]
            names += [("user", row.user_id), ("thread", row.thread_id)]
            for f in joined.feedback.get(row.run_id, ()):
                names += [("user", name) for name in authors.get(f.feedback_id, {f.user_id})]
            chosen.askers[row.run_id] = {(kind, name) for kind, name in names if name}
    return chosen


def _chosen(rows: Sequence[JournalRow], joined: Joined, every: set[str], gone: set[str]) -> Chosen:
    lost = gone | {f"follow-up-{run_id}" for run_id in every}
    heard_them = [
        run_id
        for run_id, said in joined.feedback.items()
        if run_id not in every and any(f.feedback_id in lost for f in said)
    ]
    order = [row.run_id for row in rows if row.run_id in every]
    return Chosen(order, feedback_ids=sorted(gone), heard_them=heard_them)


class _Given(NamedTuple):
    """A feedback as it was given."""

    feedback_id: str
    run_id: str
    created_at: float
    authors: set[str]
    """Who gave it: whoever said it first, and whoever the latest version names."""
    texts: list[str]


def _given(journal: Journal) -> list[_Given]:
    first = journal.database.read("SELECT user_id, run_id, created_at FROM feedback ORDER BY seq")
    out = []
    for (author, run_id, at), one in zip(first, journal.feedback(), strict=True):
        authors = {name for name in (author, person(author), one.user_id) if name}
        out.append(_Given(one.feedback_id, run_id, at, authors, texts_of(one)))
    return out


def texts_of(one: Feedback) -> list[str]:
    """Return the words of a feedback."""
    texts = [one.comment, one.correction, one.value if isinstance(one.value, str) else None]
    return [text.strip() for text in texts if text and text.strip()]


def _traces(rows: Sequence[JournalRow]) -> Iterator[list[JournalRow]]:
    """Yield the runs of each trace."""
    found: dict[str, list[JournalRow]] = {}
    for row in rows:
        found.setdefault(row.root_run_id or row.run_id, []).append(row)
    yield from found.values()


def _of_their_traces(rows: Sequence[JournalRow], first: set[str]) -> set[str]:
    """Find the other runs of traces in which nobody else is named: a title's, a guard's."""
    taken: set[str] = set()
    for runs in _traces(rows):
        ours = [row for row in runs if row.run_id in first]
        users = {None, *(row.user_id for row in ours)}
        threads = {None, *(row.thread_id for row in ours)}
        if ours and all(row.user_id in users and row.thread_id in threads for row in runs):
            taken |= {row.run_id for row in runs}
    return taken


def _gone_traces(rows: Sequence[JournalRow], every: set[str]) -> set[str]:
    """Return the root runs of traces that go whole."""
    return {
        runs[0].root_run_id
        for runs in _traces(rows)
        if runs[0].root_run_id and all(row.run_id in every for row in runs)
    }


def _gone_threads(rows: Sequence[JournalRow], every: set[str]) -> set[str]:
    """Return the threads that go whole."""
    stay = {row.thread_id for row in rows if row.run_id not in every}
    return {row.thread_id for row in rows if row.run_id in every and row.thread_id} - stay


# -- what quotes them ------------------------------------------------------------------------------

_DISTINCT = 12
"""Bytes from which a text inside another one is a quotation: shorter ones ("thanks") are not."""


@dataclass
class _Words:
    """What forgotten records say."""

    texts: set[str]
    """Whole messages: user turns and answers."""
    turns: set[str]
    """What people said: user turns, comments, corrections."""

    @property
    def distinct_words(self) -> set[str]:
        """What people said, where it is long enough to be told inside another text."""
        return {text for text in self.turns if _is_distinct(text)}


def _is_distinct(text: str) -> bool:
    return len(text.encode("utf-8", "replace")) >= _DISTINCT


def _near(rows: Sequence[JournalRow], anchors: set[str]) -> list[JournalRow]:
    """Return the records that may quote the anchors: of the same conversation or trace."""
    ours = [row for row in rows if row.run_id in anchors]
    began: dict[str, float] = {}
    for row in ours:
        if row.thread_id:
            began[row.thread_id] = min(began.get(row.thread_id, row.created_at), row.created_at)
    ends = {row.after for row in ours} - {None}
    starts = {row.before for row in ours} - {None}
    traces = {row.root_run_id or row.run_id for row in ours}
    return [
        row
        for row in rows
        if row.run_id not in anchors
        and (
            row.created_at > began.get(row.thread_id or "", row.created_at)
            or row.before in ends
            or (row.root_run_id or row.run_id) in traces
            # The same conversation, recorded another time without saying whose it is. One question
            # and its answer may be the same in many threads.
            or (
                row.user_id is None
                and (row.thread_id is None or row.before is not None)
                and (row.after in starts or row.after in ends)
            )
        )
    ]


def _quoting(
    journal: Journal,
    rows: Sequence[JournalRow],
    anchors: set[str],
    words: _Words,
    *,
    everywhere: bool,
) -> set[str]:
    """Find records of the same conversations and traces that carry these words.

    Args:
        journal: has the texts.
        rows: all records.
        anchors: the records whose words they are, or about which they were said.
        words: what was said.
        everywhere: look also at all records that name neither user nor thread.
    """
    taken: set[str] = set()
    texts, needles = set(words.texts), words.distinct_words
    inside = needles | {text for text in texts if _is_distinct(text)}
    while True:
        near = [r.run_id for r in _near(rows, anchors | taken) if r.run_id not in taken]
        new = {
            log.run_id
            for log in journal.interactions(near)
            if any(m.role != "system" and m.content.strip() in texts for m in log.messages)
            or _contains([m.content for m in log.messages], inside)
            or _contains(_other_texts(log), needles)
        }
        if not new:
            break
        taken |= new
        more = _said(journal, new, False)
        texts |= more.texts
        inside |= {text for text in more.texts if _is_distinct(text)}
    if everywhere and needles:
        nobodys = [
            r.run_id
            for r in rows
            if r.user_id is None and r.thread_id is None and r.run_id not in taken | anchors
        ]
        taken |= {
            log.run_id
            for log in journal.interactions(nobodys)
            if _contains([*(m.content for m in log.messages), *_other_texts(log)], needles)
        }
    return taken


def _contains(texts: Iterable[str], needles: Collection[str]) -> bool:
    return any(one in text for text in texts if text for one in needles)


def _other_texts(log: Interaction) -> list[str]:
    """Return the texts of a record beside its messages."""
    calls = [*log.tool_calls, *(call for m in log.messages for call in m.tool_calls)]
    args = [json.dumps(call.get("args"), ensure_ascii=False, default=str) for call in calls]
    return [log.answer, log.error or "", *log.tags.values(), *args]


def _said(journal: Journal, run_ids: Iterable[str], whole: bool) -> _Words:
    """Return what records say; with ``whole`` also the history before, which is theirs too."""
    texts: set[str] = set()
    turns: set[str] = set()
    for log in journal.interactions(sorted(run_ids)):
        for message in reversed(log.messages):
            if message.role == "assistant" and not whole:
                break
            if message.role != "system":
                texts.add(message.content.strip())
            if message.role == "user":
                turns.add(message.content.strip())
        texts.add(log.answer.strip())
    return _Words(texts - {""}, turns - {""})


def _contents(
    journal: Journal, rows: Sequence[JournalRow], every: set[str]
) -> list[tuple[Kind, str]]:
    """Return names for what records say, by which another form of an old export is known."""
    ends = {row.run_id: row.after for row in rows if row.run_id in every}
    names: list[tuple[Kind, str]] = []
    for log in journal.interactions(list(ends)):
        if (after := ends[log.run_id]) is None:
            continue
        distinct = any(m.role == "user" and _is_distinct(m.content) for m in log.messages)
        names += said_names(after, log.created_at.timestamp(), distinct=distinct)
    return names


# -- taking it out ---------------------------------------------------------------------------------


def take_out(
    journal: Journal,
    chosen: Chosen,
    opaque: Callable[[str], str],
    receipt: dict[str, Any],
    *,
    also: Iterable[str] = (),
    at: float,
) -> None:
    """Delete the chosen records in one transaction, and note what is left to do.

    Args:
        journal: open for writing.
        chosen: see :func:`choose`.
        opaque: run_id -> its lineage id.
        receipt: counts to keep; no ids. Feedback that came meanwhile is added to ``feedback``.
        also: lineage ids of records that retention took before (``tombstones.taught_before``).
        at: seconds since 1970.
    """
    touched = chosen.touched
    note = {"opaque": sorted({*map(opaque, touched), *also}), "run_ids": touched}
    named = [*chosen.run_ids, *chosen.roots]
    named += [name for kind, name in chosen.names if kind in ("run", "about")]

    def work(db: sqlite3.Connection) -> None:
        plant(db, chosen.names, at)
        note_expired(db, {opaque(run_id): names for run_id, names in chosen.askers.items()})
        db.executemany("DELETE FROM expired WHERE opaque = ?", [(one,) for one in also])
        for table, column, ids in (
            ("interactions", "run_id", chosen.run_ids),
            ("indexed", "run_id", touched),
            ("model_verdicts", "run_id", touched),
            ("languages", "run_id", chosen.run_ids),
            ("feedback", "feedback_id", chosen.feedback_ids),
        ):
            sql = f"DELETE FROM {table} WHERE {column} = ?"  # noqa: S608 - our own names
            db.executemany(sql, [(one,) for one in ids])
        # What came while it was looked for what to take.
        roots = json.dumps(chosen.roots)
        of_traces = f"FROM interactions WHERE root_run_id {IN}"
        late = db.execute(
            f"DELETE FROM feedback WHERE run_id {IN} OR run_id IN (SELECT run_id {of_traces})",  # noqa: S608
            (json.dumps(named), roots),
        ).rowcount
        db.execute(f"DELETE {of_traces}", (roots,))
        db.execute("DELETE FROM changes")  # names of runs; what was joined is joined anew
        told = {**receipt, "feedback": receipt["feedback"] + late}
        db.execute(
            "INSERT INTO erasures (pending, receipt) VALUES (?, ?)",
            (json.dumps(note), json.dumps(told)),
        )

    journal.database.transaction(work)


def pending(journal: Journal) -> list[Pending]:
    """Return the erasures that were interrupted, oldest first."""
    found = journal.database.read(
        "SELECT seq, pending, receipt FROM erasures WHERE pending IS NOT NULL ORDER BY seq"
    )
    out = []
    for seq, note, receipt in found:
        told = json.loads(note)
        out.append(Pending(seq, told["opaque"], told["run_ids"], json.loads(receipt)))
    return out


def finish(journal: Journal, seq: int, receipt: dict[str, Any]) -> None:
    """Note that an erasure is finished: the ids go, the receipt stays."""
    row = (json.dumps(receipt), seq)
    journal.database.write(
        lambda db: db.execute("UPDATE erasures SET pending = NULL, receipt = ? WHERE seq = ?", row)
    )


def shrink(journal: Journal, timeout_s: float = 30.0) -> None:
    """Write the file anew without free pages, and empty the write-ahead log: bytes are gone.

    Raises:
        StoreBusyError: other processes kept the write-ahead log in use.
    """
    journal.database.write(lambda db: db.execute("VACUUM"))
    deadline = time.monotonic() + timeout_s
    while journal.checkpoint():
        if time.monotonic() > deadline:
            raise StoreBusyError(
                f"The journal {str(journal.path)!r} is read by another process all the time, so "
                "that forgotten bytes can't be wiped yet: run the same call again later."
            )
        time.sleep(0.05)
