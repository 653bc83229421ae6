"""What the serving graph shares with the run around it: who asks, callbacks, custom events."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.runnables import RunnableConfig, ensure_config
from langgraph.config import get_stream_writer

from langchain_uno.logs.names import asked_by


def child_config(
    run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
) -> RunnableConfig:
    """Steps of the graph are traced below the one chat-model run.

    LangChain gives ``_stream`` no run manager; then they are traced where the caller stands.
    """
    if run_manager is None:
        return {}
    kind = CallbackManager if isinstance(run_manager, CallbackManagerForLLMRun) else None
    manager = (kind or AsyncCallbackManager)(handlers=[], parent_run_id=run_manager.run_id)
    manager.set_handlers(run_manager.inheritable_handlers)
    manager.add_tags(run_manager.inheritable_tags)
    manager.add_metadata(run_manager.inheritable_metadata)
    return {"callbacks": manager}


def tell_outer_graph(event: Mapping[str, Any]) -> None:
    """Pass a progress event on as a custom stream event of the graph that the model runs in."""
    try:
        write = get_stream_writer()
    except (RuntimeError, KeyError):  # the model is not in a graph, or in a chain without one
        return
    write(event)


def sticky(metadata: Mapping[str, Any], configurable: Mapping[str, Any] | None = None) -> str:
    """Return what stands for the user who asks, else for the thread, else for this one request.

    Args:
        metadata: of the model's run.
        configurable: of its config; None: that of the graph or chain that the model runs in.
    """
    if configurable is None:
        configurable = ensure_config().get("configurable") or {}
    user, thread = asked_by(metadata, configurable)
    if not (user or thread):
        return secrets.token_hex(16)
    named = f"user:{user}" if user else f"thread:{thread}"
    return blake2b(named.encode("utf-8", "replace"), digest_size=16).hexdigest()
