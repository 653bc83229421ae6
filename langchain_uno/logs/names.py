"""The names under which apps and exports say who asked and in which conversation.

One list for the handler, for the importer and for serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from langchain_uno.records import person

USER_KEYS = (
    "user_id", "userId", "langgraph_auth_user_id", "langfuse_user_id", "end_user",
    "end_user_id", "endUserId",
    "from_end_user_id", "actor_id", "user.id", "enduser.id", "mlflow.trace.user", "user",
)  # fmt: skip
"""Who asked, the surest name first."""

SERVER_USER = "langchain_uno_user"
"""Metadata by which a server of ours says who asked, or that nobody is known; clients may not."""

THREAD_KEYS = (
    "thread_id", "threadId", "conversation_id", "conversationId", "session_id", "sessionId",
    "langfuse_session_id", "chat_id", "chatId", "session.id", "mlflow.trace.session", "thread",
)  # fmt: skip
"""Which conversation, the surest name first."""


_LET_IN = ("langgraph_auth_user_id", "langgraph_auth_user")
"""Whom a LangGraph server's auth let in, in a run's ``configurable``."""
_IDS = ("id", "_id", "$oid", "identity")
"""Under which an object that stands for a user or a thread has its id (MongoDB, LangGraph)."""


def fields_of(value: Any) -> Mapping[str, Any] | None:
    """Return the fields of a mapping, a pydantic model or a dataclass; None: it is none of them."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, BaseModel):
        return vars(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name, None) for f in fields(value)}
    return None


def first_name(keys: Sequence[str], *sources: Any) -> str | None:
    """Return the first value under ``keys`` that names something, as text; None if there is none.

    Args:
        keys: :data:`USER_KEYS` or :data:`THREAD_KEYS`. An object under one of them is looked into
            for its id.
        sources: a run's metadata, its ``configurable``, a row of an export, the surest first; what
            is no object is passed over.
    """
    values = (one[k] for one in sources if isinstance(one, Mapping) for k in keys if k in one)
    for value in values:
        if (inner := fields_of(value)) is not None:
            value = first_name(_IDS, inner)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, float) and value.is_integer():  # a column of numbers with gaps
            value = int(value)
        if isinstance(value, int | UUID) and not isinstance(value, bool):
            return str(value)
    return None


def asked_by(
    metadata: Mapping[str, Any], configurable: Mapping[str, Any]
) -> tuple[str | None, str | None]:
    """Return who asked and in which thread, as the config of a run says.

    Args:
        metadata: of the run.
        configurable: of its config; LangGraph's run-time context lies in it.
    """
    # agent.invoke(..., context=...)
    context = fields_of(getattr(configurable.get("__pregel_runtime"), "context", None)) or {}
    told = (metadata, configurable, context)
    if SERVER_USER in metadata:
        user = metadata[SERVER_USER] or None
    else:
        # Whom a LangGraph server let in comes before whom its client names.
        user = first_name(_LET_IN, configurable) or first_name(USER_KEYS, *told)
    return person(user), first_name(THREAD_KEYS, *told)
