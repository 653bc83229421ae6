"""The one reader of messages: LangChain's objects and the dicts of files, to ``records.Message``.

Capture, import and serving all read here, so that a conversation is the same text wherever it comes
from: a follow-up finds its answer by it, and a request is routed as it was clustered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_uno.errors import InputError
from langchain_uno.records import Message, Role

__all__ = [
    "clean_text",
    "clean_value",
    "from_langchain",
    "message_fields",
    "read_message",
    "text_of",
    "without_thinking",
]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "function": "tool",
}
_MAX_DEPTH = 50
_NO_TEXT = ("reasoning", "thinking", "redacted_thinking", "summary_text", "tool", "function_call",
            "step-")  # fmt: skip
"""Blocks that begin like this are no words of the message: they are passed over."""

_THINKING = re.compile(
    r"<(?P<end>/?)(?:think|thinking|thought|reasoning|seed:think)>|\[(?P<stop>/?)THINK\]"
    r"|(?P<fence>^[ \t]*```)",
    re.MULTILINE,
)
"""What reasoning models write around their thoughts where a server does not parse them: DeepSeek,
Qwen, Seed-OSS, Magistral ([THINK])."""
_MARKS = ("think>", "thinking>", "thought>", "reasoning>", "THINK]")


def clean_text(text: str) -> str:
    """Return ``text`` as valid UTF-8 text: lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_of(content: Any) -> str:
    """Return a message's content as text: text blocks joined, others as ``[image_url]``.

    A block with a text is text, whatever its type is called (``text``, ``input_text``,
    ``output_text``, ``refusal``, none as in Gemini's parts); thinking and calls are left out.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        return "" if content is None else str(content)
    parts: list[str] = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block, Mapping):
            kind = str(block.get("type", ""))
            if kind.startswith(_NO_TEXT) or block.get("thought") is True:
                continue
            text = block.get("text", block.get("refusal"))
            parts.append(text if isinstance(text, str) else f"[{kind[:40] or 'block'}]")
    return "".join(parts)


def without_thinking(text: str) -> str:
    """Return an answer without its thoughts, stripped; the text itself where there are none.

    Of thoughts that were cut off nothing is left. An end without a beginning ends thoughts whose
    opening tag stood in the prompt.
    """
    # Single characters are found by far quicker: capture asks this of every answer in a prompt.
    if ("<" not in text and "[" not in text) or not any(mark in text for mark in _MARKS):
        return text
    kept: list[str] = []
    at, quoted, inside, fenced, found = 0, 0, False, False, False
    for tag in _THINKING.finditer(text):
        around = text[tag.start() - 1 : tag.start()], text[tag.end() : tag.end() + 1]
        if tag["fence"] is not None:
            fenced = fenced if inside else not fenced
        elif fenced or around in (("`", "`"), ('"', '"'), ("'", "'")):
            continue  # an answer that shows or names such a tag
        elif not (tag["end"] or tag["stop"]):
            if not inside and around[0] == "`":
                quoted += 1
            elif not inside:
                kept.append(text[at : tag.start()])
                inside = found = True
        elif quoted and not inside:
            quoted -= 1
        else:
            kept = kept if inside else []
            at, inside, found = tag.end(), False, True
    if not found:
        return text
    return "".join(kept if inside else [*kept, text[at:]]).strip()


def message_fields(message: BaseMessage) -> dict[str, Any]:
    """Return a LangChain message as the plain fields of a :class:`Message`: capture's quick way.

    Texts are as they came; what is not said is not there. Chunks and ``ChatMessage`` are read as
    what they stand for; an unknown role is the user's.
    """
    kind = message.type.removesuffix("MessageChunk").lower()
    role = _ROLES.get(kind) or _ROLES.get(str(getattr(message, "role", "")).lower(), "user")
    text = text_of(message.content)
    if role == "tool" and not text and message.content:
        text = json.dumps(message.content, ensure_ascii=False, default=str)
    fields: dict[str, Any] = {"role": role, "content": text}
    if message.name:
        fields["name"] = message.name
    if isinstance(message, AIMessage):
        if message.tool_calls:
            fields["tool_calls"] = message.tool_calls
    elif role == "tool":
        fields["tool_call_id"] = getattr(message, "tool_call_id", None)
    return fields


def from_langchain(messages: Sequence[BaseMessage]) -> list[Message]:
    """Return LangChain messages as records."""
    out = []
    for message in messages:
        fields = message_fields(message)
        calls = [
            {"name": c["name"], "args": c["args"], "id": c["id"] or ""}
            for c in fields.get("tool_calls", ())
        ]
        text = clean_text(fields["content"])
        out.append(Message.model_validate({**fields, "content": text, "tool_calls": calls}))
    return out


def read_message(given: Any) -> Message:
    """Return a message of a file: OpenAI's form, LangChain's dumps, parts, ShareGPT's.

    Raises:
        InputError: it is none of them, or a part of it is of the wrong type.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"must be an object, not {type(given).__name__}")
    body = given.get(
        "kwargs", given.get("data", given)
    )  # LangChain's constructor form, and its old
    if not isinstance(body, Mapping):
        raise InputError("has no content")
    content = next(
        (body[k] for k in ("content", "parts", "value") if body.get(k) is not None), None
    )
    if content is None and not body.get("tool_calls") and "content" not in body:
        raise InputError("has neither content, parts nor tool calls")
    if content is not None and not isinstance(content, str | list):
        raise InputError(f"has a content of type {type(content).__name__}")
    calls = body.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InputError("has tool_calls that are not a list")
    name, call_id = body.get("name"), body.get("tool_call_id")
    return Message(
        role=_role(given, body),
        content=clean_text(text_of(content)),
        name=clean_text(str(name)) if name is not None else None,
        tool_calls=[_call(c) for c in calls],
        tool_call_id=clean_text(str(call_id)) if call_id is not None else None,
    )


def _role(given: Mapping[str, Any], body: Mapping[str, Any]) -> Role:
    said = [one.get(k) for one in (body, given) for k in ("role", "type", "from")]
    if isinstance(given.get("id"), list) and given["id"]:  # [..., "HumanMessage"]
        said.append(given["id"][-1])
    for word in filter(None, said):
        name = str(word).removesuffix("Chunk").removesuffix("Message").lower()
        if name in _ROLES:
            return _ROLES[name]
    first = next(filter(None, said), None)
    raise InputError(f"has the role {first!r}; known are system, user, assistant, tool")


def _call(call: Any) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise InputError("has a tool call that is not an object")
    inner = call.get("function") if isinstance(call.get("function"), Mapping) else call
    assert isinstance(inner, Mapping)
    args = inner.get("arguments", inner.get("args", {}))
    if isinstance(args, str):
        try:
            args = json.loads(args or "{}")
        except ValueError as error:
            raise InputError("has tool-call arguments that are not JSON") from error
    if not isinstance(args, Mapping) or not isinstance(inner.get("name"), str):
        raise InputError("has a tool call without a name and an object of arguments")
    call_id = call.get("id")
    return {
        "name": clean_text(inner["name"]),
        "args": clean_value(dict(args)),
        "id": clean_text(str(call_id)) if call_id else None,
    }


def clean_value(value: Any, depth: int = 0) -> Any:
    """Return the value with every text in it valid Unicode.

    Raises:
        InputError: nested too deeply.
    """
    if isinstance(value, str):
        return clean_text(value)
    if depth > _MAX_DEPTH:
        raise InputError("nested too deeply")
    if isinstance(value, list):
        return [clean_value(v, depth + 1) for v in value]
    if isinstance(value, Mapping):
        return {clean_text(str(k)): clean_value(v, depth + 1) for k, v in value.items()}
    return value
