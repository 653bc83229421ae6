"""How the serving graph's steps show outside: below the chat model's one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer

__all__ = ["child_config", "tell_outer_graph"]


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
    except RuntimeError:  # the model is not in a graph
        return
    write(event)
