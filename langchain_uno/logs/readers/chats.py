"""Conversations as lists of messages, in whichever names: the plain form, and data sets of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.logs.conversation import run_ref
from langchain_uno.logs.names import THREAD_KEYS, USER_KEYS, first_name
from langchain_uno.logs.readers.base import (
    COMMENTS,
    MADE,
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
    feedback_of,
    first,
    is_chat,
    literal,
    number,
    objects,
    read_all,
    thumb,
    time_of,
    without,
)
from langchain_uno.logs.readers.bodies import asked, body_of
from langchain_uno.logs.readers.pairs import is_flagged, prompt_of
from langchain_uno.messages import clean_text, role_named
from langchain_uno.records import Feedback, Message

_MAX_TAG = 1000
_MIN_ID = 32
"""Characters of an id that names its row wherever it is named."""
_LISTS = ("messages", "conversations", "conversation", "contents", "chat_messages", "history",
          "History", "input")  # fmt: skip
_KNOWN = {
    *_LISTS, *THREAD_KEYS, *USER_KEYS, *RATINGS, *COMMENTS, "feedback", "user_feedback",
    "lang", "language", "model", "run_id",
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
    at = str(row.get("index"))
    if "flag" in row and at.isdecimal() and int(at) < len(given):  # Gradio: a message was liked
        flagged = {**as_object(given[int(at)]), "feedback": row["flag"]}
        given = [flagged if n == int(at) else m for n, m in enumerate(given)]
    given = [_stored(m) if isinstance(m, Mapping) else m for m in given if not _is_aside(m)]
    if all(isinstance(m, list) and len(m) == 2 for m in given):
        try:  # LangChain's pairs of a role and its words
            given = read_all([{"role": role, "content": words} for role, words in given])
        except InputError:  # Gradio's of a question and its answer
            given = prompt_of({"history": given})
    elif all(isinstance(m, Mapping) for m in given):
        given = asked({**row, "messages": given}) or given
    yield _told(row, given)


def _is_aside(message: Any) -> bool:
    """Whether it is a thought or a step that an app shows beside its answers."""
    one = as_object(message)
    kind = str(one.get("type") or "")
    step = "output" in one and kind != "" and not kind.endswith((*_STEPS, "_output"))  # Chainlit's
    title = as_object(one.get("metadata")).get("title")  # Gradio's
    return step or one.get("isThought") is True or (one.get("role") == "assistant" and bool(title))


def _state(row: Row) -> Any:
    """The messages of the state of a LangGraph thread."""
    messages = as_object(row.get("values")).get("messages")
    return messages if is_chat(messages) else None


def _told(row: Row, messages: Sequence[Any], **more: Any) -> Chat:
    """The conversation with what its row says of it."""
    told = about(row, row.get("metadata"), as_object(row.get("config")).get("configurable"))
    told["user"] = told["user"] or first_name(("hashed_ip",), row)
    told["thread"] = told["thread"] or first_name(("conversation_hash", "uuid", "SessionId"), row)
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
    if isinstance(row.get("dataset_name"), str):
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
_STORED = ("message", "History", "message_data")
_STEPS = ("user_message", "assistant_message")
_ITEMS = ("function_call", "function_call_output", "reasoning")
_MEANT = ("messageId", "message_id", "forId")
"""Fields by which a row of feedback names its message."""


def _stored(row: Row) -> Row:
    """The row of a message, with the fields of one that LangChain's histories keep in a column."""
    inner = next((as_object(v) for k in _STORED if (v := body_of(row.get(k)))), {})
    if not inner and isinstance(row.get("data"), Mapping) and "content" in row["data"]:
        inner = row
    told = as_object(inner.get("data")) or inner
    if told is not inner or ("role" not in inner and role_named(inner.get("type"))):
        inner = {**told, "role": inner.get("type")}
    if row.get("type") in _STEPS and "output" in row:  # Chainlit's
        said = row["output"]
        inner = {**row, "role": row["type"], "content": as_object(said).get("content", said)}
    return {**{k: v for k, v in row.items() if k not in _STORED}, **inner} if inner else row


def _is_message(row: Row) -> bool:
    row = _stored(row)
    item = "role" in row or row.get("type") in _ITEMS
    return (item and bool({"content", "parts", "text", "call_id"} & row.keys())) or _is_vote(row)


def _is_vote(row: Row) -> bool:
    """Whether a row is what somebody said of a message in another row."""
    rated = {*RATINGS, *COMMENTS, "value", "isUpvoted"} & row.keys()
    return bool(rated) and first(row, *_MEANT) is not None and "role" not in row


def _vote(row: Row) -> Feedback:
    rating = first(row, *RATINGS, "value", "isUpvoted")
    score, stars = thumb(rating), number(rating)
    about, who = first(row, *_MEANT), first_name(USER_KEYS, row)
    if score is None and stars is None and not first(row, *COMMENTS, "content"):
        raise InputError(
            f"the feedback on the message {str(about)[:60]!r} is no rating and no words"
        )
    return feedback_of(
        about,
        row.get("id") or f"vote-{about}" + (f"-{who}" if who else ""),
        first(row, *MADE),
        key="thumb" if stars is None or isinstance(rating, bool) else "rating",
        score=score,
        value=stars if score is None else None,
        comment=first(row, *COMMENTS, "content"),
        user_id=who,
    )


def _joined(rows: Sequence[Row]) -> Iterable[Found]:
    """The messages of one conversation: in the order of their times, else of the file."""
    rows = [_stored(row) for row in rows]
    times = [first(r, *MADE) for r in rows]
    order: Sequence[int] = range(len(rows))
    try:
        known = [t for given in times if (t := time_of(given)) is not None]
    except InputError:
        known = []  # the record's own time is counted as a bad one
    if len(known) == len(rows):
        order = sorted(order, key=lambda n: known[n])
    thread = first_name(_THREADS, rows[0])
    told = {**about({}, *reversed(rows)), "id": thread or "", "thread": thread}
    yield Chat([{**rows[n], "created_at": times[n]} for n in order], **told)


# -- one question and its answer -------------------------------------------------------------------

_QUESTION = ("instruction", "question", "query", "user_query", "prompt", "input")
_ANSWER = ("output", "response", "answer", "ai_response", "completion")


def _is_alpaca(row: Row) -> bool:
    pair = first(row, *_QUESTION), first(row, *_ANSWER)
    words = all(isinstance(p, str) and p.lstrip()[:1] not in ("{", "[") for p in pair)
    return "instruction" in row or words


def _alpaca(row: Row) -> Iterable[Found]:
    answer = first(row, *_ANSWER)
    if answer is None or answer == "":
        raise Passed("no_answer")
    used = {*_QUESTION, *_ANSWER, "context", "history", "system", "system_prompt"}
    beside = without(row, used)
    if isinstance(answer, list) and len(answer) == 2:  # LLaMA-Factory: the better and the worse one
        better, worse = (
            [*prompt_of(row), Message(role="assistant", content=str(a))] for a in answer
        )
        yield corrected(better, worse, id=str(row.get("id", "")), **about(row))
        return
    if not isinstance(answer, str):
        raise InputError("the answer must be a text")
    if first_name(THREAD_KEYS, row) and len(str(row.get("id", ""))) >= _MIN_ID:  # Dify's messages
        beside["run_id"] = row["id"]
    name = str(row.get("message_id", ""))
    names = [run_ref(name)] if len(name) >= _MIN_ID else []
    turns = [*prompt_of(row), Message(role="assistant", content=answer)]
    yield _told(beside, turns, names=names)


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
    lambda row: [_vote(row)] if _is_vote(row) else _joined([row]),
    # Those that name none are one conversation.
    lambda row: None if _is_vote(row) else first_name(_THREADS, row) or "",
    _joined,
)
ALPACA = Reader("alpaca", _is_alpaca, _alpaca)
