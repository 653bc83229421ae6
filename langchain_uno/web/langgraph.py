"""What the LangGraph server runs (``langgraph.json``): both graphs, and feedback over HTTP.

    langgraph dev                        # with LANGCHAIN_UNO_HOME set

``respond`` is a conversation: ``{"messages": [...]}`` in, the answer appended. A thread's next turn
is feedback on the answer before it. Who asks is whom the server's auth let in; without auth nobody
is named, whatever a client says. ``refresh`` learns from the home and publishes a release.
``app`` takes thumbs at ``/feedback``; an answer's ``response_metadata["feedback_token"]`` lets one
browser send them (when ``LANGCHAIN_UNO_FEEDBACK_SECRET`` is set). The console stands at
``/console`` (when ``LANGCHAIN_UNO_CONSOLE_TOKENS`` is set).

``LANGCHAIN_UNO_METRICS=1`` adds ``/metrics`` for Prometheus.

Environment: ``LANGCHAIN_UNO_HOME``, ``LANGCHAIN_UNO_NAMESPACE``, ``LANGCHAIN_UNO_MODEL`` (a folder,
a hub name or a server's URL), ``LANGCHAIN_UNO_EMBEDDINGS``.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.config import get_config
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.chat_models import UNOChatModel
from langchain_uno.errors import ConfigError
from langchain_uno.graphs.respond import Mode
from langchain_uno.home import ENV_HOME
from langchain_uno.logs.names import SERVER_USER
from langchain_uno.web.console import console_router
from langchain_uno.web.console.access import ENV_TOKENS
from langchain_uno.web.feedback import ENV_SECRET, FeedbackTokens, feedback_app


class Conversation(MessagesState):
    """A thread of the server."""


class Settings(BaseModel):
    """What one run may choose (the run's ``context``). Who asks is the server's to say."""

    mode: Mode = "uno"
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None


class RefreshOutcome(TypedDict, total=False):
    """What a refresh did."""

    release: str | None
    unchanged: bool
    clusters: list[dict[str, Any]]


def respond() -> CompiledStateGraph[Conversation, Settings, Conversation, Conversation]:
    """Return the conversation graph over the home that the environment names."""
    builder = StateGraph(Conversation, context_schema=Settings)
    builder.add_node("respond", _respond)
    builder.add_edge(START, "respond")
    builder.add_edge("respond", END)
    return builder.compile(name="uno-respond")


def refresh() -> CompiledStateGraph[RefreshOutcome, None, RefreshOutcome, RefreshOutcome]:
    """Return a graph of one node that refreshes the home (minutes to hours)."""
    builder = StateGraph(RefreshOutcome)
    builder.add_node("refresh", _refresh)
    builder.add_edge(START, "refresh")
    builder.add_edge("refresh", END)
    return builder.compile(name="uno-refresh-server")


async def _respond(state: Conversation, runtime: Runtime[Settings]) -> Conversation:
    given: Any = runtime.context
    chosen = Settings.model_validate(given or {})
    user = get_config().get("configurable", {}).get("langgraph_auth_user_id") or None
    model = await asyncio.to_thread(_captured_model)
    # On a copy: settings of a config would replace the server's own. Its metadata stand above the
    # client's, so that no client names another user, nor many.
    model = model.model_copy(update={"metadata": {SERVER_USER: user or ""}})
    answer = await model.bind(**chosen.model_dump()).ainvoke(state["messages"])
    assert isinstance(answer, AIMessage)
    if answer.id and os.environ.get(ENV_SECRET):
        token = _tokens().sign(answer.id, namespace=_namespace(), user_id=user)
        answer.response_metadata["feedback_token"] = token
    return {"messages": [answer]}


def _refresh(state: RefreshOutcome) -> RefreshOutcome:  # the graph runs it in a thread
    from langchain_uno.train import refresh_home

    result = refresh_home(_home(), namespace=_namespace(), model=_model(), embeddings=_embeddings())
    return RefreshOutcome(
        release=result.release,
        unchanged=result.unchanged,
        clusters=[c.model_dump(mode="json") for c in result.clusters],
    )


@cache
def _captured_model() -> UNOChatModel:
    return UNOChatModel(
        home=_home(),
        namespace=_namespace(),
        model=_model(),
        embedder=_embeddings(),
        callbacks=[UNOFeedbackHandler(home=_home(), namespace=_namespace())],
    ).warm()


@cache
def _tokens() -> FeedbackTokens:
    return FeedbackTokens()


def _home() -> str:
    if home := os.environ.get(ENV_HOME):
        return home
    raise ConfigError(f"Set {ENV_HOME} to the service's home folder, then start the server again.")


def _namespace() -> str:
    return os.environ.get("LANGCHAIN_UNO_NAMESPACE", "default")


def _model() -> str | None:
    return os.environ.get("LANGCHAIN_UNO_MODEL") or None


def _embeddings() -> str | None:
    return os.environ.get("LANGCHAIN_UNO_EMBEDDINGS") or None


def __getattr__(name: str) -> Any:
    if name == "app":  # made when it is asked for: it opens the home
        metrics = os.environ.get("LANGCHAIN_UNO_METRICS") == "1"
        made = feedback_app(home=_home(), namespace=_namespace(), metrics=metrics)
        if os.environ.get(ENV_TOKENS):
            router = console_router(
                _home(), _namespace(), prefix="/console", model=_model(), embedder=_embeddings()
            )
            made.include_router(router)
        return made
    raise AttributeError(name)
