"""From one row of a file to records: our own export, OpenAI-style chats, MemoryBench, LangSmith.

    {"format": "langchain-uno.interaction", "run_id": ..., "messages": [...], "feedback": [...]}
    {"messages": [{"role", "content"}, ...], "feedback": [{"score": 0, "comment": ...}]}
    {"id": ..., "run_type": "llm", "inputs": {"messages": [[...]]}, "outputs": {"generations": ...}}
    {"id": ..., "run_id": ..., "key": "thumb", "score": 1, "comment": ...}

Run ids are made from the row's id and content (UUID version 5), so a row read twice is one record;
LangSmith's runs keep theirs, so that feedback lands whichever comes first.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid5

from pydantic import ValidationError

from langchain_uno.errors import InputError
from langchain_uno.logs.capture import check_feedback
from langchain_uno.logs.conversation import detect_language, language_of, run_ref, user_turn
from langchain_uno.logs.join import follow_up
from langchain_uno.messages import clean_text, clean_value, read_message
from langchain_uno.records import SCHEMA_VERSION, Feedback, Interaction, Message

__all__ = ["FORMAT", "literal", "parse_row"]

FORMAT = "langchain-uno.interaction"
"""The ``format`` field of our own export."""
_SPACE = UUID("6f0e1f5c-64f5-5c0e-9d39-6c0f1b8f5a11")
"""The name space of ids made from imported content; changing it would import everything anew."""
_KNOWN = {
    "messages", "conversations", "feedback", "thread_id", "thread", "user_id", "user", "lang",
    "language", "model", "run_id", "created_at", "timestamp", "input_prompt", "input_chat_messages",
    "info", "tools", "usage", "format",
}  # fmt: skip
"""Fields that mean something; the others are kept as tags."""
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
    if _is_feedback(row):
        return [], [_feedback_row(row)]
    if "run_type" in row and "inputs" in row:
        chat = _run_as_chat(row)
        # Earlier answers in its prompt are other runs.
        found = _dialog(chat, _messages(chat["messages"]), now, namespace)[-1:] if chat else []
        return found, []
    return _chat(row, now, namespace), []


def _chat(row: Mapping[str, Any], now: datetime, namespace: str) -> list[Interaction]:
    if given := next((k for k in ("messages", "conversations") if k in row), None):
        turns = _messages(row[given])
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
        found = Interaction.model_validate(clean_value(fields))
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
    start = _time_of(row.get("created_at", row.get("timestamp"))) or now
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
    _add_explicit(row, out, user)
    _add_implicit(row, out)
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
    value = literal(value, "messages")
    if not isinstance(value, list) or not value:
        raise InputError("'messages' must be a list of at least one message")
    out: list[Message] = []
    for n, one in enumerate(value):
        try:
            out.append(read_message(one))
        except InputError as error:
            raise InputError(f"message {n} {error}") from error
    return out


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


# -- feedback --------------------------------------------------------------------------------------


def _add_explicit(row: Mapping[str, Any], out: list[Interaction], user: str | None) -> None:
    """Add the row's ``feedback`` to its interactions: objects, texts (comments) or scores.

    Raises:
        InputError: one of them can't be understood.
    """
    given = literal(row.get("feedback"), "feedback")
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
        stamp = _time_of(fields.pop("created_at", None)) or about.created_at + timedelta(
            microseconds=2 + n
        )
        fields["run_id"] = about.run_id
        text = json.dumps(fields, sort_keys=True, default=str, ensure_ascii=False)
        fields.setdefault(
            "feedback_id", uuid5(_SPACE, f"{about.run_id}\0{n}\0{clean_value(text)}").hex
        )
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


def _add_implicit(row: Mapping[str, Any], out: list[Interaction]) -> None:
    """Add MemoryBench's ``{round, implicit_action(s), terminated, satisfaction_score}``.

    Raises:
        InputError: the column is no list of objects.
    """
    name = next((k for k in row if k.startswith("implicit_feedback")), None)
    given = literal(row.get(name), name) if name else None
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


# -- LangSmith -------------------------------------------------------------------------------------


def _is_feedback(row: Mapping[str, Any]) -> bool:
    known = {"messages", "inputs", "feedback", "format"} & row.keys()
    return "run_id" in row and "key" in row and not known


def _run_as_chat(row: Mapping[str, Any]) -> dict[str, Any] | None:
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
        "messages": [*given, answer],
        "thread_id": next(filter(None, threads), None),
        "user_id": about.get("user_id"),
        "model": about.get("ls_model_name"),
        "created_at": row.get("start_time"),
    }


def _feedback_row(row: Mapping[str, Any]) -> Feedback:
    """Return a row of feedback; a score outside 0 to 1 becomes a value.

    Raises:
        InputError: it says nothing, or a value is of the wrong type.
    """
    names = ("key", "score", "value", "comment")
    fields = {name: clean_value(row[name]) for name in names if row.get(name) is not None}
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
        fields["correction"] = clean_value(correction)
    source = _object(row.get("feedback_source"))
    run_id = run_ref(row["run_id"]) if isinstance(row["run_id"], str) else ""
    name = row.get("id") or row.get("feedback_id")
    text = json.dumps(fields, sort_keys=True, default=str, ensure_ascii=False)
    try:
        checked = check_feedback(
            run_id=run_id,
            feedback_id=str(name) if name else uuid5(_SPACE, f"{run_id}\0{clean_value(text)}").hex,
            source=str(source.get("type") or "langsmith"),
            user_id=str(source["user_id"]) if source.get("user_id") else None,
            **fields,
        )
    except ValidationError as error:
        raise InputError(str(error.errors()[0]["msg"])) from error
    stamp = _time_of(row.get("created_at"))
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
    body = found.get("kwargs", found.get("data", found))
    return (
        {**body, "role": "assistant"} if isinstance(body, Mapping) and "content" in body else None
    )


# -- values ----------------------------------------------------------------------------------------


def _time_of(value: Any) -> datetime | None:
    """Return the time that ISO 8601 text or Unix seconds name; None for None.

    Raises:
        InputError: it is no time.
    """
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            # JavaScript counts milliseconds; in seconds that would be the year 5000
            seconds = value / 1000 if abs(value) > 1e11 else value
            return datetime.fromtimestamp(seconds, timezone.utc)
        found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{str(value)[:40]!r} is not a time (give ISO 8601 or Unix seconds)"
        ) from error
    return _aware(found)


def _aware(time: datetime) -> datetime:
    """Return the time with its zone; UTC where it names none."""
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def literal(value: Any, name: str) -> Any:
    """Return what a text column holds: JSON, or a Python literal (MemoryBench on the hub).

    Raises:
        InputError: it is neither.
    """
    if not isinstance(value, str) or name == "feedback":
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    raise InputError(f"{name!r} is a text that is neither JSON nor a Python literal")
