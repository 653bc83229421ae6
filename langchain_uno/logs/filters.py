"""Which logs may be learnt from, and why not: cheap checks; flagged logs stay in the store.

Reasons, in the order they are looked for: ``error_answer``, ``empty_answer``,
``unsupported_language``, ``too_short``, ``too_long``, ``no_feedback``, ``prompt_injection``,
``praise_only``, ``small_talk``, ``vague`` (a complaint that names nothing), ``hostile`` (insults
alone), ``new_question`` (a turn that asks something else); :func:`verdicts` adds ``duplicate``.
What needs a model is found by the refresh and kept in the journal: ``high_perplexity`` (of the
answer), ``nothing_asked`` (the words distilled to no rule). A thumb, an implicit action or an edit
alone is usable feedback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from langchain_uno.logs.complaints import only_complaint
from langchain_uno.logs.injections import INJECTIONS
from langchain_uno.logs.phrases import ERRORS, only_praise, only_small_talk
from langchain_uno.logs.questions import is_new_question
from langchain_uno.recipe import FilterSettings
from langchain_uno.records import Interaction, Verdict

__all__ = ["REASONS", "acted_on", "duplicates", "judge_all", "verdict", "verdicts"]

if TYPE_CHECKING:
    from langchain_uno.logs.join import Joined
    from langchain_uno.logs.journal import Journal

REASONS = (
    "ok",
    "error_answer",
    "empty_answer",
    "unsupported_language",
    "too_short",
    "too_long",
    "no_feedback",
    "prompt_injection",
    "praise_only",
    "small_talk",
    "vague",
    "hostile",
    "new_question",
    "duplicate",
    "high_perplexity",
    "nothing_asked",
)
_EMPTY = ("hostile", "vague", "new_question", "praise_only", "small_talk")
_ACTIONS = frozenset({"like", "dislike", "copy", "regenerate"})
_ERROR_CHARS = 300

Supports = Callable[[str], bool]
"""Whether the prompt set has prompts for a language (``PromptSet.supports``)."""


def judge_all(
    journal: Journal,
    joined: Joined,
    interactions: Sequence[Interaction],
    settings: FilterSettings,
    supports: Supports | None = None,
) -> list[Verdict]:
    """Return :func:`verdicts`, and where they are content, what the last refresh's models said.

    Args:
        journal: has the models' verdicts.
        joined: the journal's feedback; a model's verdict holds as long as it did not change.
        interactions: with their feedback.
        settings: thresholds.
        supports: None: all languages of the settings.
    """
    known = supports or (lambda language: language in settings.languages)
    said = journal.model_verdicts()
    out = verdicts(interactions, settings, known)
    for n, (log, one) in enumerate(zip(interactions, out, strict=True)):
        digest, by_model = said.get(log.run_id, (b"", one))
        if one.usable and by_model.reason not in settings.ignore:
            out[n] = by_model if digest == joined.digest(log.run_id) else one
    return out


def verdict(interaction: Interaction, settings: FilterSettings, supports: Supports) -> Verdict:
    """Judge one log by itself; the first reason found that the settings do not ignore.

    Args:
        interaction: with its feedback joined.
        settings: thresholds.
        supports: whether a language can be learnt from.
    """
    for reason, detail in _reasons(interaction, settings, supports):
        if reason not in settings.ignore:
            return Verdict(usable=False, reason=reason, detail=detail)
    return Verdict(usable=True)


def verdicts(
    interactions: Sequence[Interaction], settings: FilterSettings, supports: Supports
) -> list[Verdict]:
    """Judge many logs, in their order; of equal ones only the first stays usable."""
    out = [verdict(i, settings, supports) for i in interactions]
    if "duplicate" not in settings.ignore:
        usable = [i for i, v in zip(interactions, out, strict=True) if v.usable]
        again = duplicates(usable)
        for n, one in enumerate(interactions):
            if one.run_id in again and out[n].usable:
                detail = f"says the same as {again[one.run_id]}"
                out[n] = Verdict(usable=False, reason="duplicate", detail=detail)
    return out


def duplicates(interactions: Iterable[Interaction]) -> dict[str, str]:
    """run_id -> the earlier run_id of the same query, answer, user and feedback."""
    first: dict[bytes, str] = {}
    again: dict[str, str] = {}
    for one in interactions:
        said = sorted(
            (
                f.key,
                str(f.score),
                str(f.value),
                (f.comment or "").strip(),
                (f.correction or "").strip(),
            )
            for f in one.feedback
        )
        parts = [one.query, one.answer.strip(), one.user_id or "", *("\1".join(s) for s in said)]
        parts += [m.content for m in one.messages if m.role == "assistant"]
        key = blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()
        if key in first:
            again[one.run_id] = first[key]
        else:
            first[key] = one.run_id
    return again


def acted_on(log: Interaction) -> bool:
    """Whether somebody did something with the answer (copied it, asked for another one, ...)."""
    return any(f.key in _ACTIONS for f in log.feedback)


def _reasons(
    log: Interaction, settings: FilterSettings, supports: Supports
) -> Iterable[tuple[str, str]]:
    answer = log.answer.strip()
    if log.error:
        yield "error_answer", "the run failed"
    elif len(answer) <= _ERROR_CHARS and ERRORS.match(answer):
        yield "error_answer", "the answer reads like a server's error message"
    if not answer:
        yield "empty_answer", "a tool call only" if log.tool_calls else "no text"
    if log.language not in settings.languages or not supports(log.language):
        yield "unsupported_language", log.language
    users = [m.content.strip() for m in log.messages if m.role == "user"]
    asked = users[-1] if users else ""
    if len(asked) < settings.min_query_chars:
        yield "too_short", f"the query has {len(asked)} characters"
    if answer and len(answer) < settings.min_answer_chars:
        yield "too_short", f"the answer has {len(answer)} characters"
    said = log.feedback_turns
    for what, length, limit in (
        ("query", len(log.query), settings.max_query_chars),
        ("answer", len(answer), settings.max_answer_chars),
        ("feedback", sum(map(len, said)), settings.max_feedback_chars),
    ):
        if length > limit:
            yield "too_long", f"the {what} has {length} characters"
    yield from _feedback_reasons(log, said)


def _feedback_reasons(log: Interaction, said: Sequence[str]) -> Iterable[tuple[str, str]]:
    edit = (log.correction or "").strip()
    signal = log.score is not None or acted_on(log)
    if not said and not edit and not signal:
        yield "no_feedback", ""
        return
    for text in (*said, edit) if edit else said:
        for what, pattern in INJECTIONS:
            if pattern.search(text):
                yield "prompt_injection", what
                break
    if edit or signal or not said:
        return
    kinds = [_nothing_said(t, log) for t in said]
    if None not in kinds:
        # One name for several turns: what an operator would look at first.
        yield next(reason for reason in _EMPTY if reason in kinds), ""


def _nothing_said(text: str, log: Interaction) -> str | None:
    """Why there is nothing to learn in one turn; None when there may be something."""
    if only_praise(text):
        return "praise_only"
    if only_small_talk(text):
        return "small_talk"
    complaint = only_complaint(text)
    if complaint is not None:
        return complaint
    return "new_question" if is_new_question(text, log.query, log.answer) else None
