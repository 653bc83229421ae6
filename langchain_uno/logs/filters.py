"""Which logs may be learnt from, and why not: exact checks; flagged logs stay in the store.

Reasons, in the order they are looked for: ``error_answer``, ``empty_answer``,
``unsupported_language``, ``too_short``, ``too_long``, ``machine_turn`` (no person asked, or no
person spoke), ``no_feedback``; :func:`verdicts` adds ``duplicate``. Whether words say anything is
not judged here: the distiller finds that (``nothing_asked``), as a model finds ``high_perplexity``
and its template ``refused_by_template``; the journal keeps what they found. A thumb, an implicit
action or an edit alone is usable feedback.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from http import HTTPStatus
from typing import Any

from langchain_uno.home import Home, load_settings
from langchain_uno.logs.join import Joined
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.machine_turns import machine_shape
from langchain_uno.messages import json_of
from langchain_uno.models.prompts import get_prompt_set
from langchain_uno.recipe import FilterSettings
from langchain_uno.records import Feedback, Interaction, Verdict, last_asked

REASONS = (
    "ok", "error_answer", "empty_answer", "unsupported_language", "too_short", "too_long",
    "machine_turn", "no_feedback", "duplicate", "refused_by_template", "high_perplexity",
    "nothing_asked",
)  # fmt: skip
_ACTIONS = frozenset({"like", "dislike", "copy", "regenerate"})

MIN_QUERY_CHARS = 2
"""One character ("?") asks nothing that could be asked again."""
MAX_CHARS = 200_000
"""Of a query or an answer: some 50,000 tokens, more than a training example of any recipe has."""
MAX_FEEDBACK_CHARS = 50_000
"""Of all words of one log's feedback: beyond it they are a pasted document, not a remark."""

Supports = Callable[[str], bool]
"""Whether the prompt set has prompts for a language (``PromptSet.supports``)."""


def supports_of(home: Home) -> Supports:
    """The languages that the home's prompt set has prompts for."""
    return get_prompt_set(load_settings(home).recipe.get("prompt_set", "real")).supports


def judge_all(
    journal: Journal,
    joined: Joined,
    interactions: Sequence[Interaction],
    settings: FilterSettings,
    supports: Supports,
) -> list[Verdict]:
    """Return :func:`verdicts`, and where they are content, what the last refresh's models said.

    Args:
        journal: has the models' verdicts; reasons of older versions count for nothing.
        joined: the journal's feedback; a model's verdict holds as long as it did not change.
        interactions: with their feedback.
        settings: which reasons are ignored.
        supports: whether a language can be learnt from.
    """
    said = journal.model_verdicts()
    out = verdicts(interactions, settings, supports)
    for n, (log, one) in enumerate(zip(interactions, out, strict=True)):
        digest, by_model = said.get(log.run_id, (b"", one))
        known = by_model.reason in REASONS and by_model.reason not in settings.ignore
        if one.usable and known and digest == joined.digest(log.run_id):
            out[n] = by_model
    return out


def verdict(interaction: Interaction, settings: FilterSettings, supports: Supports) -> Verdict:
    """Judge one log by itself; the first reason found that the settings do not ignore.

    Args:
        interaction: with its feedback joined.
        settings: which reasons are ignored.
        supports: whether a language can be learnt from.
    """
    for reason, detail in _reasons(interaction, supports):
        if reason not in settings.ignore:
            return Verdict(usable=False, reason=reason, detail=detail)
    return Verdict(usable=True)


def verdicts(
    interactions: Sequence[Interaction], settings: FilterSettings, supports: Supports
) -> list[Verdict]:
    """Judge many logs, in their order; of equal ones only the first stays usable."""
    out = [verdict(i, settings, supports) for i in interactions]
    if "duplicate" in settings.ignore:
        return out
    first: dict[bytes, str] = {}
    for n, log in enumerate(interactions):
        if out[n].usable and (same := first.setdefault(sameness(log), log.run_id)) != log.run_id:
            detail = f"says the same as {same}"
            out[n] = Verdict(usable=False, reason="duplicate", detail=detail)
    return out


def sameness(one: Interaction) -> bytes:
    """Return a digest that two logs have in common of which one is a duplicate of the other."""
    said = sorted(
        (f.key, str(f.score), str(f.value), (f.comment or "").strip(), (f.correction or "").strip())
        for f in one.feedback
    )
    who = one.user_id or f"\1{one.thread_id}"  # where nobody is named a thread is a voice
    parts = [one.query, one.answer.strip(), who, *("\1".join(s) for s in said)]
    parts += [m.content for m in one.messages if m.role == "assistant"]
    return blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest()


def all_reasons(log: Interaction) -> list[str]:
    """Return every reason against a log, in their order, as if no language were supported."""
    return list(dict.fromkeys(reason for reason, _ in _reasons(log, lambda language: False)))


def acted_on(log: Interaction) -> bool:
    """Whether somebody did something with the answer (copied it, asked for another one, ...)."""
    return any(f.key in _ACTIONS for f in log.feedback)


def spoken(log: Interaction) -> Interaction:
    """Return the log without the feedback that a machine wrote; the log itself where none did."""
    people = [f for f in log.feedback if not _by_machine(f)]
    return log if len(people) == len(log.feedback) else log.model_copy(update={"feedback": people})


EVALUATED = "eval"
"""The source of a score whose file does not say that a person gave it."""
_EVALUATORS = (EVALUATED, "model", "auto_eval", "llm", "code", "llm_judge", "ai_judge", "ai",
               "online_scoring")  # fmt: skip
"""Sources of scores that no person gave: the names of LangSmith, Langfuse, Phoenix, MLflow, Literal
AI and Opik."""


def is_evaluator(source: Any) -> bool:
    """Whether a source of feedback is a program."""
    return isinstance(source, str) and source.lower() in _EVALUATORS


def _by_machine(one: Feedback) -> bool:
    if is_evaluator(one.source):
        return True
    words_alone = one.score is None and one.correction is None and one.key not in _ACTIONS
    return words_alone and bool(one.comment) and machine_shape(one.comment or "") is not None


def _reasons(log: Interaction, supports: Supports) -> Iterable[tuple[str, str]]:
    answer = log.answer.strip()
    if log.error and not log.cut:
        yield "error_answer", "the run failed"
    elif answer and _is_error_body(answer):
        yield "error_answer", "the answer is a server's error body"
    if not answer:
        yield "empty_answer", "a tool call only" if log.tool_calls else "no text"
    if not supports(log.language):
        yield "unsupported_language", log.language
    asked = last_asked(log.messages).strip()
    if len(asked) < MIN_QUERY_CHARS:
        yield "too_short", f"the query has {len(asked)} characters"
    for what, length, limit in (
        ("query", len(log.query), MAX_CHARS),
        ("answer", len(answer), MAX_CHARS),
        ("feedback", sum(map(len, log.feedback_turns)), MAX_FEEDBACK_CHARS),
    ):
        if length > limit:
            yield "too_long", f"the {what} has {length} characters"
    # Whoever rates the answer to a machine speaks of that answer; the next turn does not.
    own = "the app's own" if "own_call" in log.tags else machine_shape(asked, pasted=True)
    if own and not any(f.key != "follow_up" for f in log.feedback):
        yield "machine_turn", f"the query is {own}"
    people = spoken(log)
    if _says_nothing(people):
        if people is not log and not _says_nothing(log):
            yield "machine_turn", "the feedback is a machine's"
        yield "no_feedback", ""


def _says_nothing(log: Interaction) -> bool:
    edited = (log.correction or "").strip()
    return not (log.feedback_turns or edited or log.score is not None or acted_on(log))


_STATUS = re.compile(
    r"(?:HTTP/\d(?:\.\d)? )?(?P<line>[45]\d\d) (?P<words>[A-Za-z' -]{3,40})(?=\r?\n|\Z)|"
    r"(?:<!doctype html[^>]{0,100}>\s*)?<html[^>]{0,200}>\s*<head>\s*"
    r"<title>(?P<title>[45]\d\d) (?P<name>[A-Za-z' -]{3,40})</title>|"
    r"Error code: [45]\d\d - (?=[{\[])",
    re.IGNORECASE,
)


def _is_error_body(answer: str) -> bool:
    """Whether an answer is what a provider sends in place of one: by its exact form alone."""
    if found := _STATUS.match(answer):
        code, words = found["line"] or found["title"], found["words"] or found["name"]
        if code is None:  # the form of OpenAI's client
            return True
        return _letters(words) == _PHRASES.get(code)
    body = json_of(answer)
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, dict):
        return False
    inner = body.get("error")
    if isinstance(inner, dict):  # OpenAI, Anthropic, Google
        return isinstance(inner.get("message"), str)
    flat = body.get("object") == "error" or body.get("type") == "error"  # vLLM, Mistral
    return flat and isinstance(body.get("message"), str)


def _letters(words: str) -> str:
    return "".join(c for c in words.lower() if c.isalpha())  # nginx writes "Time-out"


_PHRASES = {str(s.value): _letters(s.phrase) for s in HTTPStatus if s.value >= 400}
