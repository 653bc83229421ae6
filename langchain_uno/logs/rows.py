"""From one row of a file to interactions: our own export, OpenAI-style chats, MemoryBench rows.

Run ids are made from the row's id and content (UUID version 5), so a row read twice is one record.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid5

from pydantic import ValidationError

from langchain_uno.errors import InputError
from langchain_uno.logs.capture import check_feedback, text_of
from langchain_uno.logs.conversation import (
    clean_text,
    detect_language,
    language_of,
    run_ref,
    user_turn,
)
from langchain_uno.logs.join import follow_up
from langchain_uno.records import SCHEMA_VERSION, Feedback, Interaction, Message, Role

__all__ = ["FORMAT", "parse_row"]

FORMAT = "langchain-uno.interaction"
"""The ``format`` field of our own export."""
_SPACE = UUID("6f0e1f5c-64f5-5c0e-9d39-6c0f1b8f5a11")
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
    {
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
    }
)
_MAX_TAG = 1000
_MAX_ID = 200
_MAX_DEPTH = 50


def parse_row(row: Any, now: datetime, namespace: str) -> list[Interaction]:
    """Return the row's interactions, oldest first, with their feedback.

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


def _parse(row: Any, now: datetime, namespace: str) -> list[Interaction]:
    if not isinstance(row, Mapping):
        raise InputError(f"a row must be a JSON object, not {type(row).__name__}")
    if row.get("format") == FORMAT:
        return [_own(row, namespace)]
    if "messages" in row:
        turns = _messages(row["messages"])
    elif dialog := next((k for k in row if k.startswith("dialog")), None):
        turns = _messages(_literal(row[dialog], dialog))
    else:
        raise InputError("there is no 'messages' list (nor MemoryBench's 'dialog')")
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
        found = Interaction.model_validate(_clean(fields))
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
        one.created_at = _aware(one.created_at)
    return found.model_copy(update={"created_at": _aware(found.created_at)})


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
    start = _time(row.get("created_at", row.get("timestamp"))) or now
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
            run_id=str(uuid5(_SPACE, out[-1].run_id + "\0" + last)),
            messages=[],
            answer="",
            user_id=user,
            created_at=stamp,
        )
        out[-1].feedback.append(follow_up(out[-1].run_id, open_end, last))
    _explicit(row, out, user)
    _implicit(row, out)
    return out


def _between(turns: Sequence[Message]) -> str:
    return user_turn([Message(role="assistant", content="."), *turns])


def _run_id(name: str, turns: Sequence[Message]) -> str:
    content = json.dumps(
        [[m.role, m.content, m.tool_calls, m.tool_call_id] for m in turns],
        ensure_ascii=False,
        sort_keys=True,
    )
    return str(uuid5(_SPACE, name + "\0" + content))


def _messages(value: Any) -> list[Message]:
    value = _literal(value, "messages")
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
    return {key: _clean(value) for key, value in found.items()}


def _explicit(row: Mapping[str, Any], out: list[Interaction], user: str | None) -> None:
    given = _literal(row.get("feedback"), "feedback")
    if given is None or given == "":
        return
    for n, one in enumerate(given if isinstance(given, list) else [given]):
        if isinstance(one, str):
            one = {"comment": one}
        elif isinstance(one, bool | int | float):
            one = {"score": one}
        if not isinstance(one, Mapping):
            raise InputError(f"feedback {n} must be an object, a text or a score")
        fields = {k: one.get(k) for k in Feedback.model_fields if k in one}
        about = _about(one, out, n)
        stamp = _time(fields.pop("created_at", None)) or about.created_at + timedelta(
            microseconds=2 + n
        )
        fields["run_id"] = about.run_id
        text = json.dumps(fields, sort_keys=True, default=str, ensure_ascii=False)
        fields.setdefault("feedback_id", uuid5(_SPACE, f"{about.run_id}\0{n}\0{_clean(text)}").hex)
        fields.setdefault("user_id", user)
        try:
            checked = check_feedback(**{k: v for k, v in fields.items() if v is not None})
        except (InputError, ValidationError) as error:
            raise InputError(f"feedback {n}: {error}") from error
        about.feedback.append(checked.model_copy(update={"created_at": stamp}))


def _about(one: Mapping[str, Any], out: list[Interaction], n: int) -> Interaction:
    """The answer that is meant: by run_id, by ``turn`` (of the answers, from 0), else the last."""
    if one.get("run_id"):
        wanted = run_ref(one["run_id"])
        for interaction in out:
            if interaction.run_id == wanted:
                return interaction
    turn = one.get("turn")
    if turn is None:
        return out[-1]
    if isinstance(turn, bool) or not isinstance(turn, int) or not -len(out) <= turn < len(out):
        raise InputError(f"feedback {n} names turn {turn!r}; there are {len(out)} answers")
    return out[turn]


def _implicit(row: Mapping[str, Any], out: list[Interaction]) -> None:
    """MemoryBench: ``{round, implicit_action(s), terminated, satisfaction_score}``."""
    name = next((k for k in row if k.startswith("implicit_feedback")), None)
    given = _literal(row.get(name), name) if name else None
    if given in (None, ""):
        return
    if not isinstance(given, list) or not all(isinstance(g, Mapping) for g in given):
        raise InputError(f"{name!r} must be a list of objects")
    rounds = [g.get("round") for g in given]
    first = min((r for r in rounds if isinstance(r, int)), default=0)
    for n, one in enumerate(given):
        turn = rounds[n] - min(first, 1) if isinstance(rounds[n], int) else n
        if not 0 <= turn < len(out):
            continue  # a round that was cut off before its answer
        about = out[turn]
        actions = one.get("implicit_actions", one.get("implicit_action")) or []
        found: list[dict[str, Any]] = []
        for action in actions if isinstance(actions, list) else [actions]:
            if action in ("like", "dislike", "copy"):
                found.append({"key": action, "score": {"like": 1.0, "dislike": 0.0}.get(action)})
        satisfied = one.get("satisfaction_score")
        if isinstance(satisfied, int | float) and not isinstance(satisfied, bool):
            found.append({"key": "satisfaction", "value": float(satisfied)})
        for at, fields in enumerate(found):
            one_id = uuid5(_SPACE, f"{about.run_id}\0implicit\0{n}\0{fields['key']}").hex
            checked = check_feedback(
                run_id=about.run_id, feedback_id=one_id, source="implicit", **fields
            )
            stamp = about.created_at + timedelta(microseconds=2 + 4 * n + at)
            about.feedback.append(checked.model_copy(update={"created_at": stamp}))


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


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, timezone.utc)
        found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{str(value)[:40]!r} is not a time (give ISO 8601 or Unix seconds)"
        ) from error
    return _aware(found)


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _literal(value: Any, name: str) -> Any:
    """MemoryBench's columns are strings on the hub: JSON, or a Python literal."""
    if not isinstance(value, str) or name == "feedback":
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    raise InputError(f"{name!r} is a text that is neither JSON nor a Python literal")


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if depth > _MAX_DEPTH:
        raise InputError("nested too deeply")
    if isinstance(value, list):
        return [_clean(v, depth + 1) for v in value]
    if isinstance(value, Mapping):
        return {clean_text(str(k)): _clean(v, depth + 1) for k, v in value.items()}
    return value
