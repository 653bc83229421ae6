"""Conversations as lists of messages, in whichever names: the plain form, and data sets of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.logs.conversation import run_ref
from langchain_uno.logs.names import THREAD_KEYS, USER_KEYS, first_name
from langchain_uno.logs.readers.base import (
    COMMENTS,
    RATINGS,
    Chat,
    Found,
    Passed,
    Reader,
    Row,
    about,
    as_object,
    corrected,
    feedback_in,
    first,
    is_chat,
    literal,
    objects,
    read_all,
    time_of,
)
from langchain_uno.logs.readers.bodies import asked, body_of
from langchain_uno.logs.readers.pairs import is_flagged, prompt_of
from langchain_uno.messages import clean_text
from langchain_uno.records import Message

_MAX_TAG = 1000
_LISTS = ("messages", "conversations", "conversation", "contents", "chat_messages", "history",
          "History", "input")  # fmt: skip
_KNOWN = {
    *_LISTS, *THREAD_KEYS, *USER_KEYS, *RATINGS, *COMMENTS, "feedback", "lang", "language", "model",
    "run_id",
    "created_at", "createdAt", "timestamp", "tstamp", "input_prompt", "input_chat_messages", "info",
    "tools", "usage", "format", "system", "instructions", "system_prompt", "systemInstruction",
    "system_instruction", "turn", "toxic", "redacted", "openai_moderation", "hashed_ip",
    "conversation_hash", "uuid",
}  # fmt: skip
"""Fields that mean something; the others are kept as tags."""


def _chat(row: Row) -> Iterable[Found]:
    if row.get("toxic") is True or is_flagged(row.get("openai_moderation")):
        yield Passed("toxic")
        return
    if state := _state(row):
        row = {**row, "messages": state}
    name = next((k for k in _LISTS if k in row), None)
    given = literal(row[name], "messages") if name else None
    if objects(given) and all("messages" in one for one in given):
        for one in given:
            yield from _chat(one)
        return
    if not isinstance(given, list) or not given:
        raise InputError("'messages' must be a list of at least one message")
    if all(isinstance(m, list) and len(m) == 2 for m in given):
        try:  # LangChain's pairs of a role and its words
            given = read_all([{"role": role, "content": words} for role, words in given])
        except InputError:  # Gradio's of a question and its answer
            given = prompt_of({"history": given})
    elif all(isinstance(m, Mapping) for m in given):
        given = asked({**row, "messages": given}) or given
    yield _told(row, given)


def _state(row: Row) -> Any:
    """The messages of the state of a LangGraph thread."""
    messages = as_object(row.get("values")).get("messages")
    return messages if is_chat(messages) else None


def _told(row: Row, messages: Sequence[Any], **more: Any) -> Chat:
    """The conversation with what its row says of it."""
    told = about(row, row.get("metadata"), as_object(row.get("config")).get("configurable"))
    told["user"] = told["user"] or first_name(row, ("hashed_ip",))
    told["thread"] = told["thread"] or first_name(row, ("conversation_hash", "uuid", "SessionId"))
    return Chat(
        messages,
        id=str(row.get("id", row.get("test_idx", ""))),
        run_id=run_ref(row["run_id"]) if row.get("run_id") else None,
        feedback=feedback_in(row),
        tags=_tags(row),
        **told,
        **more,
    )


def _tags(row: Row) -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in row.items():
        if key in _KNOWN or key.startswith(("dialog", "implicit_feedback")):
            continue
        if isinstance(value, str | int | float):
            out[clean_text(key)[:80]] = clean_text(str(value))[:_MAX_TAG]
    if "dataset_name" in out:
        out.setdefault("dataset", out["dataset_name"])
    return out


def _memorybench(row: Row) -> Iterable[Found]:
    name = next(k for k in row if k.startswith("dialog"))
    given = literal(row[name], name)
    if not isinstance(given, list) or not given:
        raise InputError(f"{name!r} must be a list of at least one message")
    yield _told(row, given, implicit=row)


# -- one message a row -----------------------------------------------------------------------------

_THREADS = (*THREAD_KEYS, "chatId", "conversation_hash", "SessionId")
_STORED = ("message", "History")


def _stored(row: Row) -> Row:
    """The row of a message, with the fields of one that LangChain's histories keep in a column."""
    inner = next((as_object(v) for k in _STORED if (v := body_of(row.get(k)))), {})
    if not inner and isinstance(row.get("data"), Mapping) and "content" in row["data"]:
        inner = row
    if isinstance(inner.get("data"), Mapping):
        inner = {**inner["data"], "role": inner.get("type")}
    return {**{k: v for k, v in row.items() if k not in _STORED}, **inner} if inner else row


def _is_message(row: Row) -> bool:
    row = _stored(row)
    return "role" in row and bool({"content", "parts", "text"} & row.keys())


def _joined(rows: Sequence[Row]) -> Iterable[Found]:
    """The messages of one conversation: in the order of their times, else of the file."""
    rows = [_stored(row) for row in rows]
    times = [first(r, "created_at", "createdAt", "timestamp") for r in rows]
    order: Sequence[int] = range(len(rows))
    try:
        known = [t for given in times if (t := time_of(given)) is not None]
    except InputError:
        known = []  # the record's own time is counted as a bad one
    if len(known) == len(rows):
        order = sorted(order, key=lambda n: known[n])
    thread = first_name(rows[0], _THREADS)
    told = {**about({}, *reversed(rows)), "id": thread or "", "thread": thread}
    yield Chat([{**rows[n], "created_at": times[n]} for n in order], **told)


# -- one question and its answer -------------------------------------------------------------------

_QUESTION = ("instruction", "question", "query", "prompt", "input")
_ANSWER = ("output", "response", "answer", "completion")


def _is_alpaca(row: Row) -> bool:
    pair = first(row, *_QUESTION), first(row, *_ANSWER)
    words = all(isinstance(p, str) and p.lstrip()[:1] not in ("{", "[") for p in pair)
    return "instruction" in row or words


def _alpaca(row: Row) -> Iterable[Found]:
    answer = first(row, *_ANSWER)
    if answer is None or answer == "":
        yield Passed("no_answer")
        return
    used = {*_QUESTION, *_ANSWER, "context", "history", "system", "system_prompt"}
    beside = {k: v for k, v in row.items() if k not in used}
    if isinstance(answer, list) and len(answer) == 2:  # LLaMA-Factory: the better and the worse one
        better, worse = (
            [*prompt_of(row), Message(role="assistant", content=str(a))] for a in answer
        )
        yield corrected(better, worse, id=str(row.get("id", "")), **about(row))
        return
    if not isinstance(answer, str):
        raise InputError("the answer must be a text")
    yield _told(beside, [*prompt_of(row), Message(role="assistant", content=answer)])


CHAT = Reader(
    "chat",
    lambda row: (
        any(k in row for k in _LISTS[:-2])
        or isinstance(first(row, "History", "input"), list)
        or bool(_state(row))
    ),
    _chat,
)
SHAREGPT = Reader("sharegpt", lambda row: "conversations" in row, _chat)
WILDCHAT = Reader(
    "wildchat",
    lambda row: (
        "conversation" in row and bool({"conversation_hash", "conversation_id"} & row.keys())
    ),
    _chat,
)
MEMORYBENCH = Reader(
    "memorybench", lambda row: any(k.startswith("dialog") for k in row), _memorybench
)
MESSAGES = Reader(
    "messages",
    _is_message,
    lambda row: _joined([row]),
    lambda row: first_name(row, _THREADS) or "",  # those that name none are one conversation
    _joined,
)
ALPACA = Reader("alpaca", _is_alpaca, _alpaca)
