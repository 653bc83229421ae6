"""From one row of a file to records: our own export, OpenAI-style chats, MemoryBench, LangSmith.

Run ids are made from the row's id and content (UUID version 5), so a row read twice is one record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid5

from pydantic import ValidationError

from langchain_uno.errors import InputError
from langchain_uno.logs import row_langsmith
from langchain_uno.logs.capture import text_of
from langchain_uno.logs.conversation import (
    clean_text,
    detect_language,
    language_of,
    run_ref,
    user_turn,
)
from langchain_uno.logs.join import follow_up
from langchain_uno.logs.row_feedback import add_explicit, add_implicit
from langchain_uno.logs.row_values import SPACE, aware, clean, literal, time_of
from langchain_uno.records import SCHEMA_VERSION, Feedback, Interaction, Message, Role

__all__ = ["FORMAT", "parse_row"]

FORMAT = "langchain-uno.interaction"
"""The ``format`` field of our own export."""
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}
_KNOWN = frozenset(  # the other fields are kept as tags
    [
        "messages",
        "feedback",
        "thread_id",
        "thread",
        "user_id",
        "user",
        "lang",
        "language",
        "model",
        "run_id",
        "created_at",
        "timestamp",
        "input_prompt",
        "input_chat_messages",
        "info",
        "tools",
        "usage",
        "format",
    ]
)
_MAX_TAG = 1000
_MAX_ID = 200


def parse_row(row: Any, now: datetime, namespace: str) -> tuple[list[Interaction], list[Feedback]]:
    """Return the row's interactions, oldest first, with their feedback; and feedback by itself.

    Args:
        row: a parsed JSON object.
        now: when the import began; used where the row names no time.
        namespace: of the home that takes them in.

    Raises:
        InputError: the row has none of the known forms; the message says what is wrong.
    """
    try:
        return _parse(row, now, namespace)
    except OverflowError as error:
        raise InputError(f"a number or a time is out of range ({error})") from error


def _parse(row: Any, now: datetime, namespace: str) -> tuple[list[Interaction], list[Feedback]]:
    if not isinstance(row, Mapping):
        raise InputError(f"a row must be a JSON object, not {type(row).__name__}")
    if row.get("format") == FORMAT:
        return [_own(row, namespace)], []
    if row_langsmith.is_feedback(row):
        return [], [row_langsmith.one_feedback(row)]
    if row_langsmith.is_run(row):
        chat = row_langsmith.as_chat(row)
        # Earlier answers in its prompt are other runs.
        found = _dialog(chat, _messages(chat["messages"]), now, namespace)[-1:] if chat else []
        return found, []
    return _chat(row, now, namespace), []


def _chat(row: Mapping[str, Any], now: datetime, namespace: str) -> list[Interaction]:
    if "messages" in row:
        turns = _messages(row["messages"])
    elif dialog := next((k for k in row if k.startswith("dialog")), None):
        turns = _messages(literal(row[dialog], dialog))
    else:
        raise InputError(
            "there is no 'messages' list (nor MemoryBench's 'dialog', nor LangSmith's 'run_type')"
        )
    return _dialog(row, turns, now, namespace)


def _own(row: Mapping[str, Any], namespace: str) -> Interaction:
    schema = row.get("schema_version")
    if not isinstance(schema, int) or schema > SCHEMA_VERSION:
        raise InputError(
            f"its schema_version is {schema!r}, this release knows up to {SCHEMA_VERSION}: upgrade "
            "langchain-uno if it was exported by a newer release"
        )
    fields = {k: v for k, v in row.items() if k not in ("format", "verdict")}
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("'messages' must be the prompt followed by the answer")
    fields["messages"] = messages[:-1]
    fields["namespace"] = namespace
    try:
        found = Interaction.model_validate(clean(fields))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where!r}: {first['msg']}") from error
    for name in (found.run_id, *(f.feedback_id for f in found.feedback)):
        if not 0 < len(name) <= _MAX_ID:
            raise InputError(f"an id must have 1 to {_MAX_ID} characters")
    for one in found.feedback:
        if one.score is not None and not 0.0 <= one.score <= 1.0:
            raise InputError(f"a score must lie between 0 and 1, not {one.score!r}")
        one.created_at = aware(one.created_at)
    return found.model_copy(update={"created_at": aware(found.created_at)})


def _dialog(
    row: Mapping[str, Any], turns: list[Message], now: datetime, namespace: str
) -> list[Interaction]:
    answers = [n for n, m in enumerate(turns) if m.role == "assistant"]
    if not answers:
        raise InputError("there is no assistant turn")
    if answers[0] == 0 or not any(m.role == "user" for m in turns[: answers[0]]):
        raise InputError("there is no user turn before the first answer")
    tags = _tags(row)
    # "lang": what a person said of the row; "en"/"english" and the like are understood.
    language = _language(row.get("lang") or row.get("language"))
    thread = _text(row, "thread_id", "thread")
    user = _text(row, "user_id", "user")
    start = time_of(row.get("created_at", row.get("timestamp"))) or now
    own_id = run_ref(row["run_id"]) if row.get("run_id") else None
    name = "\0".join(
        [
            str(row.get("id", row.get("test_idx", ""))),
            tags.get("dataset", ""),
            thread or "",
            user or "",
        ]
    )
    out: list[Interaction] = []
    for n, at in enumerate(answers):
        prompt, said = turns[:at], turns[at]
        run_id = own_id if own_id and at == answers[-1] else _run_id(name, turns[: at + 1])
        out.append(
            Interaction(
                run_id=run_id,
                messages=prompt,
                answer=said.content,
                tool_calls=said.tool_calls,
                namespace=namespace,
                thread_id=thread,
                user_id=user,
                model=_text(row, "model"),
                language=language
                or language_of([m.content for m in prompt if m.role == "user"], said.content),
                tags=tags,
                # A dialog's answers keep their order; a row's times are all that is known of them.
                created_at=start + timedelta(microseconds=n),
            )
        )
    for n, one in enumerate(out):
        if n + 1 < len(out):
            text = _between(turns[answers[n] + 1 : answers[n + 1]])
            if text:
                one.feedback.append(follow_up(one.run_id, out[n + 1], text))
    last = _between(turns[answers[-1] + 1 :])
    if last:
        stamp = out[-1].created_at + timedelta(microseconds=1)
        open_end = Interaction(
            run_id=str(uuid5(SPACE, out[-1].run_id + "\0" + last)),
            messages=[],
            answer="",
            user_id=user,
            created_at=stamp,
        )
        out[-1].feedback.append(follow_up(out[-1].run_id, open_end, last))
    add_explicit(row, out, user)
    add_implicit(row, out)
    return out


def _between(turns: Sequence[Message]) -> str:
    return user_turn([Message(role="assistant", content="."), *turns])


def _run_id(name: str, turns: Sequence[Message]) -> str:
    content = json.dumps(
        [[m.role, m.content, m.tool_calls, m.tool_call_id] for m in turns],
        ensure_ascii=False,
        sort_keys=True,
    )
    return str(uuid5(SPACE, name + "\0" + content))


def _messages(value: Any) -> list[Message]:
    value = literal(value, "messages")
    if not isinstance(value, list) or not value:
        raise InputError("'messages' must be a list of at least one message")
    out: list[Message] = []
    for n, one in enumerate(value):
        if not isinstance(one, Mapping):
            raise InputError(f"message {n} must be an object, not {type(one).__name__}")
        given = one.get("role", one.get("type"))
        role = _ROLES.get(str(given))
        if role is None:
            raise InputError(
                f"message {n} has the role {given!r}; known are system, user, assistant, tool"
            )
        content = one.get("content")
        if content is not None and not isinstance(content, str | list):
            raise InputError(f"message {n} has a content of type {type(content).__name__}")
        given_calls = one.get("tool_calls") or []
        if not isinstance(given_calls, list):
            raise InputError(f"message {n} has tool_calls that are not a list")
        calls = [_call(c, n) for c in given_calls]
        name, call_id = one.get("name"), one.get("tool_call_id")
        out.append(
            Message(
                role=role,
                content=clean_text(text_of(content)),
                name=clean_text(str(name)) if name is not None else None,
                tool_calls=calls,
                tool_call_id=clean_text(str(call_id)) if call_id is not None else None,
            )
        )
    return out


def _call(call: Any, n: int) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise InputError(f"message {n} has a tool call that is not an object")
    inner = call.get("function") if isinstance(call.get("function"), Mapping) else call
    assert isinstance(inner, Mapping)
    args = inner.get("arguments", inner.get("args", {}))
    if isinstance(args, str):
        try:
            args = json.loads(args or "{}")
        except ValueError as error:
            raise InputError(f"message {n} has tool-call arguments that are not JSON") from error
    if not isinstance(args, Mapping) or not isinstance(inner.get("name"), str):
        raise InputError(f"message {n} has a tool call without a name and an object of arguments")
    call_id = call.get("id")
    found = {"name": inner["name"], "args": dict(args), "id": str(call_id) if call_id else None}
    return {key: clean(value) for key, value in found.items()}


def _tags(row: Mapping[str, Any]) -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in row.items():
        if key in _KNOWN or key.startswith(("dialog", "implicit_feedback")):
            continue
        if isinstance(value, str | int | float):
            out[clean_text(key)[:80]] = clean_text(str(value))[:_MAX_TAG]
    if "dataset_name" in out:
        out.setdefault("dataset", out["dataset_name"])
    return out


def _language(value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return None
    word = value.strip().lower().replace("_", "-")
    names = {"english": "en", "chinese": "zh", "cn": "zh", "mandarin": "zh"}
    word = names.get(word, word.split("-")[0])
    return (
        word
        if word.isalpha() and word.isascii() and len(word) in (2, 3)
        else detect_language(value)
    )


def _text(row: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = row.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return clean_text(str(value))[:200]
    return None
