"""Rows of a LangSmith export: model runs, and feedback that names a run.

    {"id": ..., "run_type": "llm", "inputs": {"messages": [[...]]}, "outputs": {"generations": ...}}
    {"id": ..., "run_id": ..., "key": "thumb", "score": 1, "comment": ...}

Runs keep their ids, so feedback lands whichever comes first. Runs that are no model's (chains,
tools) hold nothing of their own and are passed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from uuid import uuid5

from pydantic import ValidationError

from langchain_uno.errors import InputError
from langchain_uno.logs.capture import check_feedback
from langchain_uno.logs.conversation import run_ref
from langchain_uno.logs.row_values import SPACE, clean, time_of
from langchain_uno.records import Feedback

__all__ = ["as_chat", "is_feedback", "is_run", "one_feedback"]

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}


def is_run(row: Mapping[str, Any]) -> bool:
    """Whether a row is a run."""
    return "run_type" in row and "inputs" in row


def is_feedback(row: Mapping[str, Any]) -> bool:
    """Whether a row is feedback by itself."""
    known = {"messages", "inputs", "feedback", "format"} & row.keys()
    return "run_id" in row and "key" in row and not known


def as_chat(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a run in the form of an OpenAI-style row; None when it is no model's or has no answer.

    Raises:
        InputError: a model run whose messages can't be found.
    """
    if row["run_type"] not in ("llm", "chat_model"):
        return None
    inputs, outputs = row.get("inputs"), row.get("outputs")
    if not isinstance(inputs, Mapping):
        raise InputError("the run's 'inputs' must be an object")
    given = inputs.get("messages", inputs.get("prompts", inputs.get("input")))
    while isinstance(given, list) and len(given) == 1 and isinstance(given[0], list):
        given = given[0]  # a batch of one
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], str)):
        text = given if isinstance(given, str) else given[0]
        given = [{"role": "user", "content": text}]
    if not isinstance(given, list) or not given:
        raise InputError("the run's inputs have no 'messages'")
    answer = _answer(outputs)
    if answer is None:
        return None
    about = _object(_object(row.get("extra")).get("metadata"))
    threads = (about.get(name) for name in ("thread_id", "session_id", "conversation_id"))
    return {
        "run_id": str(row.get("id") or ""),
        "messages": [*(_message(m) for m in given), answer],
        "thread_id": next(filter(None, threads), None),
        "user_id": about.get("user_id"),
        "model": about.get("ls_model_name"),
        "created_at": row.get("start_time"),
    }


def one_feedback(row: Mapping[str, Any]) -> Feedback:
    """Return a row of feedback; a score outside 0 to 1 becomes a value.

    Raises:
        InputError: it says nothing, or a value is of the wrong type.
    """
    names = ("key", "score", "value", "comment")
    fields = {name: clean(row[name]) for name in names if row.get(name) is not None}
    score = fields.get("score")
    if isinstance(score, int | float) and not isinstance(score, bool) and not 0 <= score <= 1:
        fields.setdefault("value", fields.pop("score"))
        fields.pop("score", None)
    if isinstance(fields.get("value"), Mapping | list):
        fields["value"] = json.dumps(fields["value"], ensure_ascii=False)
    if isinstance(fields.get("value"), float) and not math.isfinite(fields["value"]):
        raise InputError("the value is not finite")
    correction = row.get("correction")
    if isinstance(correction, Mapping):
        texts = [v for v in correction.values() if isinstance(v, str) and v.strip()]
        correction = texts[0] if len(texts) == 1 else None
    if correction is not None:
        fields["correction"] = clean(correction)
    source = _object(row.get("feedback_source"))
    run_id = run_ref(row["run_id"]) if isinstance(row["run_id"], str) else ""
    name = row.get("id") or row.get("feedback_id")
    text = json.dumps(fields, sort_keys=True, default=str, ensure_ascii=False)
    try:
        checked = check_feedback(
            run_id=run_id,
            feedback_id=str(name) if name else uuid5(SPACE, f"{run_id}\0{clean(text)}").hex,
            source=str(source.get("type") or "langsmith"),
            user_id=str(source["user_id"]) if source.get("user_id") else None,
            **fields,
        )
    except ValidationError as error:
        raise InputError(str(error.errors()[0]["msg"])) from error
    stamp = time_of(row.get("created_at"))
    return checked.model_copy(update={"created_at": stamp}) if stamp else checked


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _answer(outputs: Any) -> dict[str, Any] | None:
    """Find the model's message in what a run gave back."""
    if not isinstance(outputs, Mapping):
        return None
    found = outputs.get("generations", outputs.get("choices", outputs.get("messages")))
    while isinstance(found, list) and found:
        found = found[-1] if "messages" in outputs else found[0]
    if found is None:
        found = outputs.get("output", outputs.get("message", outputs))
    if isinstance(found, Mapping) and isinstance(found.get("message"), Mapping):
        found = found["message"]
    if isinstance(found, str):
        return {"role": "assistant", "content": found}
    if not isinstance(found, Mapping):
        return None
    if isinstance(found.get("text"), str) and "content" not in found and "kwargs" not in found:
        return {"role": "assistant", "content": found["text"]}
    try:
        return {**_message(found), "role": "assistant"}
    except InputError:
        return None


def _message(given: Any) -> dict[str, Any]:
    """Return one message in OpenAI's form: theirs, LangChain's constructor form, or its old one."""
    if not isinstance(given, Mapping):
        raise InputError("a message of the run is no object")
    body: Any = given.get("kwargs", given.get("data", given))
    if not isinstance(body, Mapping) or ("content" not in body and "tool_calls" not in body):
        raise InputError("a message of the run has no content")
    kind = body.get("role") or body.get("type") or given.get("type") or given.get("role")
    if kind == "constructor" and isinstance(given.get("id"), list) and given["id"]:
        kind = str(given["id"][-1]).removesuffix("Chunk").removesuffix("Message").lower()
    out = {"role": _ROLES.get(str(kind), str(kind)), "content": body.get("content")}
    for name in ("tool_calls", "tool_call_id", "name"):
        if body.get(name):
            out[name] = body[name]
    return out
