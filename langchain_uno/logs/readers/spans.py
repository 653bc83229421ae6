"""Spans of OpenTelemetry: OpenInference's attributes (Phoenix, Arize) and the GenAI ones.

Attributes come nested, with dots in their names, or as columns of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.logs.readers.base import (
    Chat,
    Found,
    Passed,
    Reader,
    Row,
    about,
    as_object,
    feedback_of,
    first,
    thumb,
)
from langchain_uno.logs.readers.bodies import asked, body_of, cut_off, said


def _nested(flat: Row) -> dict[str, Any]:
    """Return the attributes by their parts: ``llm.input_messages.0.message.role`` and the like."""
    out: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.removeprefix("attributes.").split(".")
        at = out
        for part in above:
            inner = at.get(part)
            at[part] = at = dict(inner) if isinstance(inner, Mapping) else {}
        known = at.get(last)
        at[last] = (
            {**known, **value} if isinstance(known, dict) and isinstance(value, Mapping) else value
        )
    return out


def _attributes(row: Row) -> dict[str, Any]:
    given = body_of(row.get("attributes"))
    if isinstance(given, Mapping):
        return _nested(given)
    return _nested({k: v for k, v in row.items() if k.startswith("attributes.")})


def _messages(value: Any) -> list[Any]:
    """The messages of one direction, in any of the forms."""
    value = body_of(value)
    if isinstance(value, Mapping):  # by their numbers
        value = [value[n] for n in sorted(value, key=lambda n: (len(n), n))]
    out = []
    for one in value if isinstance(value, list) else ():
        one = _nested(one) if isinstance(one, Mapping) else {}
        one = {**one, **as_object(one.get("message"))}
        blocks = one.get("contents")
        if isinstance(blocks, list):
            content = [as_object(_nested(b).get("message_content")) for b in blocks]
            one = {**one, "content": content}
        calls = _messages(one.get("tool_calls"))
        if calls:
            one = {**one, "tool_calls": [as_object(c.get("tool_call")) or c for c in calls]}
        out.append(one)
    return out


def _span(row: Row) -> Iterable[Found]:
    if _is_annotation(row):
        yield _annotation(row)
        return
    told = _attributes(row)
    model, ai = as_object(told.get("llm")), as_object(told.get("gen_ai"))
    given = _messages(model.get("input_messages")) or _messages(
        as_object(ai.get("input")).get("messages") or ai.get("prompt")
    )
    answers = _messages(model.get("output_messages")) or _messages(
        as_object(ai.get("output")).get("messages") or ai.get("completion")
    )
    if not given:
        if str(first(row, "span_kind", "attributes.openinference.span.kind")).upper() == "LLM":
            raise InputError("the span of a model has no input messages in its attributes")
        yield Passed("not_a_model_run")
        return
    if not answers:
        yield Passed("no_answer")
        return
    ids = as_object(row.get("context"))
    trace = first({**row, **ids}, "trace_id", "traceId", "context.trace_id")
    names = [{f"{k}.id": as_object(told.get(k)).get("id") for k in ("user", "session", "enduser")}]
    failed = str(row.get("status_code")).upper() == "ERROR"
    yield Chat(
        [*(asked(given) or given), *(said(answers) or answers)],
        run_id=first({**row, **ids}, "span_id", "spanId", "context.span_id"),
        root_run_id=str(trace) if trace else None,
        last_only=True,
        error=str(row.get("status_message") or "error") if failed else cut_off(answers),
        **{
            **about(row, *names),
            "model": first(model, "model_name") or as_object(ai.get("request")).get("model"),
        },
    )


def _annotation(row: Row) -> Found:
    told = {**as_object(row.get("result")), **row}
    score = first(told, "score", "result.score")
    label = first(told, "label", "result.label")
    if score is None and isinstance(label, str):
        score = thumb(label)
    return feedback_of(
        first(row, "span_id", "trace_id", "context.span_id"),
        row.get("id"),
        first(row, "created_at", "updated_at"),
        key=str(first(row, "name", "annotation_name") or "annotation"),
        score=score,
        value=label,
        comment=first(told, "explanation", "result.explanation"),
        source=str(row["annotator_kind"]),
        user_id=first(row, "identifier", "user_id") or None,
    )


def _is_annotation(row: Row) -> bool:
    return "annotator_kind" in row and "attributes" not in row


def _is_span(row: Row) -> bool:
    if "annotator_kind" not in row and not any(k.startswith("attributes") for k in row):
        return False
    marked = {"llm", "gen_ai", "openinference"} & _attributes(row).keys()
    return bool(marked) or _is_annotation(row)


SPANS = Reader("spans", _is_span, _span)
