"""The names under which apps and exports say who asked and in which conversation.

One list for the handler and for the importer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["SERVER_USER", "THREAD_KEYS", "USER_KEYS", "first_name"]

USER_KEYS = (
    "user_id",
    "userId",
    "langgraph_auth_user_id",
    "langfuse_user_id",
    "end_user",
    "user",
)
"""Who asked, the surest name first. ``user`` may hold an object with an ``id``."""

SERVER_USER = "langchain_uno_user"
"""Metadata by which a server of ours says who asked, or that nobody is known; clients may not."""

THREAD_KEYS = (
    "thread_id",
    "threadId",
    "conversation_id",
    "conversationId",
    "session_id",
    "sessionId",
    "langfuse_session_id",
    "chat_id",
    "thread",
)
"""Which conversation, the surest name first."""


def first_name(source: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """Return the first value under ``keys`` that names something, as text; None if there is none.

    Args:
        source: a run's metadata, its ``configurable``, or a row of an export.
        keys: :data:`USER_KEYS` or :data:`THREAD_KEYS`.
    """
    for key in keys:
        value = source.get(key)
        if isinstance(value, Mapping):
            value = value.get("id")
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return None
