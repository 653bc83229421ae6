"""Between LangChain's messages and ours, at the moment of serving."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from langchain_uno.logs.capture import text_of
from langchain_uno.logs.conversation import clean_text
from langchain_uno.records import Message, Role

__all__ = ["from_langchain"]

_ROLES: dict[str, Role] = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
}


def from_langchain(messages: Sequence[BaseMessage]) -> list[Message]:
    """Return our messages; text blocks are joined as capture joins them (so both route alike)."""
    out: list[Message] = []
    for message in messages:
        kind = message.type.removesuffix("MessageChunk").lower()
        given = str(getattr(message, "role", ""))
        role = _ROLES.get(kind) or ("assistant" if given == "assistant" else "user")
        if given in ("system", "developer"):
            role = "system"
        calls: list[dict[str, Any]] = []
        if isinstance(message, AIMessage):
            calls = [
                {"name": c["name"], "args": c["args"], "id": c["id"] or ""}
                for c in message.tool_calls
            ]
        text = _content(message)
        out.append(
            Message(
                role=role,
                content=clean_text(text),
                name=message.name,
                tool_calls=calls,
                tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
            )
        )
    return out


def _content(message: BaseMessage) -> str:
    """The message's text; a tool's result that is not text is given as JSON."""
    if isinstance(message, ToolMessage) and not isinstance(message.content, str):
        plain = text_of(message.content)
        return plain or json.dumps(message.content, ensure_ascii=False, default=str)
    return text_of(message.content)
