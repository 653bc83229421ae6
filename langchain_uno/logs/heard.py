"""Logs that people reacted to: what is known of each, and the logs, read when they are asked for.

A refresh tells by :class:`Heard` which logs are new and which are usable. That is kept with the
joined journal (``logs/kept.py``), so it reads only the logs that it learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_uno.logs.filters import Supports, all_reasons, sameness, spoken
from langchain_uno.logs.join import feedback_digest
from langchain_uno.records import Interaction, by_speaker, content_of


class Facts(NamedTuple):
    """What many records have in common, for counting and choosing."""

    reasons: list[str]
    """Of the filters against it, all of them, with ``unsupported_language`` in any case."""
    language: str
    first: bool
    """Whether it is a conversation's first turn."""
    nameless: bool
    """Whether it has feedback and names neither who asked nor who spoke."""
    model: str | None
    route: str | None
    dataset: str | None
    failed: bool
    said: list[tuple[str, bool, bool]]
    """Of each feedback: its key, whether it is an edit, whether it is a score."""

    def reason(self, supports: Supports, ignore: Collection[str] = ()) -> str:
        """Return the reason of :func:`~langchain_uno.logs.filters.verdict`."""
        for reason in self.reasons:
            known = reason == "unsupported_language" and supports(self.language)
            if reason not in ignore and not known:
                return reason
        return "ok"


def facts_of(log: Interaction) -> Facts:
    """Return the facts of a log."""
    return Facts(
        reasons=all_reasons(log),
        language=log.language,
        first=sum(m.role == "user" for m in log.messages) == 1,
        nameless=bool(log.feedback) and not any([log.user_id, *(f.user_id for f in log.feedback)]),
        model=log.model,
        route=log.route,
        dataset=log.tags.get("dataset"),
        failed=bool(log.error) and not log.cut,
        said=[(f.key, bool(f.correction), f.score is not None) for f in log.feedback],
    )


class Heard(NamedTuple):
    """A log with the feedback of one person, or with all of it."""

    log_id: str
    run_id: str
    user_id: str | None
    created_at: float
    """Seconds since 1970."""
    digest: bytes
    """Of all feedback of the record."""
    content: str
    """:func:`~langchain_uno.records.content_of` the log."""
    plain: str
    """The same, without what machines said."""
    same: bytes
    """What duplicates have in common."""
    said: tuple[str, ...]
    """The ids of its feedback."""
    words: bool
    """Whether a person said any, or rewrote the answer."""
    facts: Facts

    @property
    def order(self) -> tuple[float, str, str]:
        """The oldest first."""
        return self.created_at, self.run_id, self.log_id


def heard_of(record: Interaction, *, whole: bool = False) -> list[Heard]:
    """Return what is known of a record with all its feedback, once for each person who gave any.

    Args:
        record: with its feedback joined.
        whole: once for all people.
    """
    if not record.feedback:
        return []
    digest = feedback_digest(record.feedback)
    logs = [record] if whole else by_speaker(record)
    return [known_of(log, record.run_id, digest) for log in logs]


def known_of(log: Interaction, run_id: str, digest: bytes) -> Heard:
    """Return what is known of a log of a record; ``digest`` is that of all its feedback."""
    people = spoken(log)
    content = content_of(log)
    return Heard(
        log_id=log.run_id,
        run_id=run_id,
        user_id=log.user_id,
        created_at=log.created_at.timestamp(),
        digest=digest,
        said=tuple(f.feedback_id for f in log.feedback),
        content=content,
        plain=content if people is log else content_of(people),
        words=bool(people.feedback_turns or people.correction),
        same=sameness(log),
        facts=facts_of(log),
    )


def part_of(record: Interaction, one: Heard) -> Interaction:
    """Return a log of a record, without what machines said."""
    said = [f for f in record.feedback if f.feedback_id in one.said]
    update = {"run_id": one.log_id, "feedback": said, "user_id": one.user_id}
    return spoken(record.model_copy(update=update))


class Logs(Mapping[str, Interaction]):
    """Logs by id; each is read when it is asked for, once.

    Args:
        logs: each log, or what reads it.
    """

    def __init__(self, logs: Mapping[str, Interaction | Callable[[], Interaction]]) -> None:
        self._logs = dict(logs)

    def __getitem__(self, log_id: str) -> Interaction:
        """Return a log."""
        found = self._logs[log_id]
        if not isinstance(found, Interaction):
            found = self._logs[log_id] = found()
        return found

    def __iter__(self) -> Iterator[str]:
        """Return the ids, in their order."""
        return iter(self._logs)

    def __len__(self) -> int:
        """How many logs there are."""
        return len(self._logs)

    def __contains__(self, log_id: object) -> bool:
        """Whether there is a log of this id; it is not read."""
        return log_id in self._logs

    def only(self, log_ids: Sequence[str]) -> Logs:
        """Return some of them, in this order."""
        return Logs({log_id: self._logs[log_id] for log_id in log_ids})

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets them read."""
        return Logs, ({log_id: self[log_id] for log_id in self},)
