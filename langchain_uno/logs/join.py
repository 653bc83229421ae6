"""Which feedback belongs to which answer: decided when reading, from the journal alone.

Nothing here depends on what a process remembers, so feedback that came before its run, from another
process, or from before a restart, lands all the same. Two kinds:

- explicit feedback names a model run, a message, or a trace's root run (the answer that the trace's
  user was shown is meant);
- a *follow-up* is the next user turn of the same conversation (the method's signal): it becomes
  ``Feedback(key="follow_up")`` of the answer before it.

What an app asks models for itself (titles, guards, summaries) is no part of a conversation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from langchain_uno.logs.conversation import user_turn
from langchain_uno.logs.database import in_parts
from langchain_uno.logs.journal import Journal, JournalRow
from langchain_uno.logs.trace import OTHER_TURN, OWN_CALL, likely_rank
from langchain_uno.records import Feedback, Interaction

FOLLOW_UP = "follow_up"
_TURN = "follow-up-"
_LOOK_BACK = 50
"""How many equally likely earlier answers are weighed (a service may say the same thing often)."""
_MOST_OWN = 5
"""How many calls an app may make for itself between two turns of a thread."""
_QUOTABLE = 12
"""A shorter answer ("No.") may stand in a remark by chance."""


@dataclass
class Joined:
    """Feedback by run_id; that whose run is not known yet is left out."""

    feedback: dict[str, list[Feedback]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    """Every run_id, in the order of arrival."""
    own: set[str] = field(default_factory=set)
    """The runs that an app made for itself."""

    def digest(self, run_id: str) -> bytes:
        """Identify the feedback of one record; it changes when the record must be indexed anew."""
        return feedback_digest(self.feedback.get(run_id, []))


def feedback_digest(feedback: Sequence[Feedback]) -> bytes:
    """Identify a set of feedbacks: another one, or a changed one, gives another digest."""
    parts = sorted(f"{f.feedback_id}\0{f.created_at.isoformat()}" for f in feedback)
    return blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()


def follow_up(before: str, after: Interaction, text: str) -> Feedback:
    """The feedback that the user turn of ``after`` is for the answer ``before`` (its run_id)."""
    return Feedback(
        feedback_id=f"{_TURN}{after.run_id}",
        run_id=before,
        key=FOLLOW_UP,
        comment=text,
        source="thread",
        user_id=after.user_id,
        created_at=after.created_at,
    )


def join(journal: Journal) -> Joined:
    """Attach every feedback in the journal, and every follow-up turn, to its answer."""
    return _join(journal, journal.rows(), journal.feedback(), journal.names())


def join_part(journal: Journal, rows: list[JournalRow]) -> Joined:
    """Do the same for these answers alone, which no other answer goes on from or goes before.

    It is as :func:`join` has it if the rows share no trace, thread or text
    of a conversation with other ones.
    """
    runs = [row.run_id for row in rows]
    names = [*runs, *{row.root_run_id for row in rows if row.root_run_id}]
    turns = [f"{_TURN}{run_id}" for run_id in runs]
    return _join(journal, rows, journal.feedback(names, turns), journal.names(names))


def rated(journal: Journal, canary: str, since: float) -> Iterator[Interaction]:
    """Yield the answers of a canary that somebody gave feedback on, each with that feedback.

    They are read by indexes, a part at a time, and not the rest of the journal: follow-up turns
    are not looked for, and of an answer there is only who got it, in which thread, from which
    release.

    Args:
        journal: where they lie.
        canary: its id.
        since: seconds since 1970; answers made before are left out.

    Yields:
        The answer with the earliest feedback first, in the order in which feedback arrived.
    """
    sql = (
        "SELECT min(f.seq), i.run_id, i.thread_id, i.user_id, i.release FROM feedback f JOIN "
        "interactions i ON {} WHERE i.created_at >= ? AND json_extract(i.body, '$.canary') = ? "
        "GROUP BY i.run_id"
    )
    shown = _shown_to_users(journal)
    filed = defaultdict(list)  # run id -> what its feedback may be filed under
    found = journal.database.read(sql.format("i.run_id = f.run_id"), (since, canary))
    for root, run_id in shown.items():
        by_root = sql.format("f.run_id = ? AND i.run_id = ?")
        found += journal.database.read(by_root, (root, run_id, since, canary))
        filed[run_id].append(root)
    bare = Interaction(messages=[], answer="", canary=canary)
    about = {run_id: more for _, run_id, *more in sorted(found, key=lambda row: row[0])}
    for part, _ in in_parts(list(about)):
        said = defaultdict(list)
        for one in journal.feedback([name for i in part for name in (i, *filed.get(i, ()))]):
            said[shown.get(one.run_id, one.run_id)].append(one)
        for run_id in part:
            thread, user, release = about[run_id]
            known = {"run_id": run_id, "thread_id": thread, "user_id": user, "release": release}
            yield bare.model_copy(update={**known, "feedback": _ordered(said[run_id])})


def _shown_to_users(journal: Journal) -> dict[str, str]:
    """Return, of every trace that feedback is filed under, the run whose answer its user saw."""
    roots = (
        "SELECT run_id FROM feedback f WHERE NOT EXISTS "
        "(SELECT 1 FROM interactions WHERE run_id = f.run_id)"
    )
    rows = journal.rows_where(f"root_run_id IN ({roots})")
    if not rows:
        return {}
    said = f"SELECT after FROM interactions WHERE root_run_id IN ({roots})"  # noqa: S608
    names = journal.names(list({row.root_run_id for row in rows if row.root_run_id}))
    wanted, _ = _traces(rows)
    _, resumed = _traces([*rows, *journal.rows_where(f"before IN ({said})")])
    return {root: names.get(root) or _shown(root, wanted[root], resumed) for root in wanted}


def turn_of(feedback_id: str) -> str:
    """Return the run whose user turn a follow-up is; the id itself: it is no follow-up."""
    return feedback_id.removeprefix(_TURN)


def _join(
    journal: Journal, rows: list[JournalRow], given: Sequence[Feedback], names: Mapping[str, str]
) -> Joined:
    joined = Joined(order=[row.run_id for row in rows])
    known = set(joined.order)
    traces, resumed = _traces(rows)
    shown = {root: names.get(root) or _shown(root, traces[root], resumed) for root in traces}
    for root, trace in traces.items():
        joined.own |= _own(trace, shown[root], told=root in names)
    turns: set[tuple[str, str]] = set()
    for one in given:
        run_id = one.run_id if one.run_id in known else shown.get(one.run_id)
        if run_id is None:
            continue
        if one.key == FOLLOW_UP and one.comment:
            # A dialog may be imported before and after its next answer.
            if (run_id, one.comment.strip()) in turns:
                continue
            turns.add((run_id, one.comment.strip()))
        one = one.model_copy(update={"run_id": run_id})
        joined.feedback.setdefault(run_id, []).append(one)
    talk = [row for row in rows if row.run_id not in joined.own]
    _add_follow_ups(journal, talk, joined, set(shown.values()), {f.feedback_id for f in given})
    return joined


def read(
    journal: Journal, joined: Joined, run_ids: Sequence[str] | None = None
) -> Iterator[Interaction]:
    """Yield the interactions (all, or the named ones) with their feedback, in the order asked."""
    for interaction in journal.interactions(joined.order if run_ids is None else run_ids):
        found = joined.feedback.get(interaction.run_id, [])
        yield attach(interaction, found, own=interaction.run_id in joined.own)


def attach(interaction: Interaction, feedback: Sequence[Feedback], *, own: bool) -> Interaction:
    """Return an interaction with its feedback; ``own``: the app made the run for itself."""
    update: dict[str, Any] = {"feedback": _ordered(feedback)}
    if own and "own_call" not in interaction.tags:
        update["tags"] = {**interaction.tags, "own_call": "other turn"}
    return interaction.model_copy(update=update)


def _ordered(feedback: Sequence[Feedback]) -> list[Feedback]:
    return sorted(feedback, key=lambda f: (f.created_at, f.feedback_id))


def _traces(
    rows: list[JournalRow],
) -> tuple[dict[str, list[JournalRow]], dict[bytes | None, set[str]]]:
    """Put rows in the order of their times; return them by trace, and conversation -> traces."""
    # Exports often have the newest row first.
    rows.sort(key=lambda row: (row.created_at, row.seq))
    traces: dict[str, list[JournalRow]] = defaultdict(list)
    resumed: dict[bytes | None, set[str]] = defaultdict(set)
    for row in rows:
        traces[row.root_run_id or row.run_id].append(row)
        resumed[row.before].add(row.root_run_id or row.run_id)
    return traces, resumed


def _shown(root: str, trace: Sequence[JournalRow], resumed: Mapping[bytes | None, set[str]]) -> str:
    """Return the run whose answer a trace's user saw: the last to what the user is known to ask.

    Of several, one from which another trace goes on (``resumed``: conversation -> traces).
    """
    answers = [row for row in trace if row.has_answer] or trace
    best = max(likely_rank(row.rank) for row in answers)
    likely = [row for row in answers if likely_rank(row.rank) == best]
    known = [row for row in likely if row.after and resumed.get(row.after, set()) - {root}]
    return (known or likely)[-1].run_id


def _own(trace: Sequence[JournalRow], shown: str, told: bool) -> set[str]:
    """Return the runs of a trace that its app made for itself.

    Those that are marked as such, and those that asked something else while others of the trace
    asked what the user said, unless they go on from an answer of it. Which answer was shown is the
    stronger sign, where the root run gave it back (``told``): it is not the app's, and what only
    quotes the user beside it is.
    """
    best = max(likely_rank(row.rank) for row in trace)
    ends = {row.after for row in trace if row.after is not None}
    own = set()
    for row in trace:
        rank = likely_rank(row.rank)
        if row.run_id == shown and (told or rank != OWN_CALL):
            continue
        goes_on = row.before is not None and row.before in ends
        beside = rank < best and (told or rank == OTHER_TURN) and not goes_on
        if rank == OWN_CALL or beside:
            own.add(row.run_id)
    return own


def _add_follow_ups(
    journal: Journal,
    rows: Sequence[JournalRow],
    joined: Joined,
    shown: Collection[str],
    given: Collection[str],
) -> None:
    pairs = [p for p in _candidates(rows, shown) if f"{_TURN}{p[0].run_id}" not in given]
    taken: set[str] = set()
    said: dict[str, set[str]] = {
        run_id: {f.comment.strip() for f in many if f.key == FOLLOW_UP and f.comment}
        for run_id, many in joined.feedback.items()
    }
    for start in range(0, len(pairs), 500):  # a part of the texts in memory at a time
        part = pairs[start : start + 500]
        wanted = {row.run_id for row, _, _ in part} | {c[-1].run_id for _, c, bare in part if bare}
        texts = {i.run_id: i for i in journal.interactions(list(wanted))}
        for row, candidates, bare in part:
            later = texts[row.run_id]
            text = _asked(later)
            if bare and text:
                candidates = [c for c in candidates if c.run_id not in joined.own][-1:]
                ids = [c.run_id for c in candidates]
                known = [texts[i] for i in ids if i in texts] or [*journal.interactions(ids)]
                if not known or not _may_follow(known[0], row.run_id, text, joined.own):
                    continue
            # The same turn reaches several model runs (an agent's steps), or was told explicitly.
            if not text or any(text in said.get(c.run_id, ()) for c in candidates):
                continue
            free = [c for c in candidates if c.run_id not in taken]
            chosen = (free or candidates)[-1].run_id
            taken.add(chosen)
            said.setdefault(chosen, set()).add(text)
            joined.feedback.setdefault(chosen, []).append(follow_up(chosen, later, text))


def _asked(log: Interaction) -> str:
    """What the user said last."""
    return log.asked or user_turn(log.messages)


def _may_follow(before: Interaction, run_id: str, text: str, own: set[str]) -> bool:
    """Whether a turn of a thread that sends no history may be a remark on the answer before it.

    The same words again are a second try. A turn that contains the whole answer gives a model
    something to work on; with the question in it too, it is the app's (for a title, a summary), and
    its run is added to ``own``.
    """
    asked, answer = _asked(before), before.answer.strip()
    if answer in text and asked and asked in text:
        own.add(run_id)
        return False
    return text != asked and (answer not in text or len(answer) < _QUOTABLE)


def _candidates(
    rows: Sequence[JournalRow], shown: Collection[str]
) -> Iterator[tuple[JournalRow, list[JournalRow], bool]]:
    """Yield (later run, the earlier answers its user turn may follow, whether the thread is bare).

    The likeliest answer comes last. In a bare thread, nothing but the order tells.

    Args:
        rows: without the apps' own.
        shown: of each trace the run whose answer its user saw.
    """
    by_text: dict[bytes, list[JournalRow]] = defaultdict(list)
    threads: dict[str, list[JournalRow]] = defaultdict(list)
    matched: set[str] = set()
    """Traces whose user turn was found by the conversation's text."""
    whole: set[str | None] = set()
    """Threads of those: a request without a history begins one anew, or edits what began it."""
    opened: dict[str, str] = {}
    """Trace -> its first run with a user turn, that stands for the trace in a bare thread."""
    bare: list[tuple[JournalRow, list[JournalRow]]] = []
    for row in rows:
        trace = row.root_run_id or row.run_id
        if row.before is not None:
            found = [
                c
                for c in by_text.get(row.before, ())[-_LOOK_BACK:]
                if _may_be_one(c, row) and (c.root_run_id or c.run_id) != trace
            ]
            if found:
                matched.add(trace)
                whole.add(row.thread_id)
                yield row, found, False
        if (
            row.thread_id
            and row.turn is not None
            and opened.setdefault(trace, row.run_id) == row.run_id
        ):
            earlier = [
                c
                for c in threads[row.thread_id][-_LOOK_BACK:]
                if c.has_answer and c.run_id in shown and (c.root_run_id or c.run_id) != trace
            ]
            if earlier:
                bare.append((row, earlier[-_MOST_OWN:]))
        if row.after is not None:
            by_text[row.after].append(row)
        if row.thread_id:
            threads[row.thread_id].append(row)
    for row, earlier in bare:
        anew = row.before is None and row.thread_id in whole
        if not anew and (row.root_run_id or row.run_id) not in matched:
            yield row, earlier, True


def _may_be_one(a: JournalRow, b: JournalRow) -> bool:
    """Whether two runs can belong to one conversation: threads and users must not differ."""
    return not (
        (a.thread_id and b.thread_id and a.thread_id != b.thread_id)
        or (a.user_id and b.user_id and a.user_id != b.user_id)
    )
