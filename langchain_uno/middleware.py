"""``UNOMiddleware``: answers an agent's model calls by a home's releases, and captures them.

    agent = create_agent("openai:gpt-4.1", tools, middleware=[UNOMiddleware(home="~/uno")])

Every model call of the agent goes to :class:`~langchain_uno.chat_models.UNOChatModel` instead of
the agent's own model (tools, structured output and the system prompt go with it), and is written to
the home's journal. The rest of the agent stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.chat_models import UNOChatModel


class UNOMiddleware(AgentMiddleware[Any, Any, Any]):
    """Routing and capture for ``create_agent``.

    Args:
        home: the service's home; by default ``LANGCHAIN_UNO_HOME``.
        model: the chat model to answer with; by default ``UNOChatModel(home=home, **settings)``.
        handler: captures; None or True: a handler over the same home and namespace; False: nothing
            is captured (because the agent's callbacks have a handler already, say).
        settings: further arguments of the chat model: ``mode``, ``namespace``, ``embedder``, ...

    The user is named by ``config["metadata"]["user_id"]``, or by a ``user_id`` in the agent's
    runtime context.

    Raises:
        InputError: no home is given.
        HomeError: the home can't be written.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        *,
        model: UNOChatModel | None = None,
        handler: UNOFeedbackHandler | bool | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        chat = model or UNOChatModel(home=home, **settings)
        self.handler: UNOFeedbackHandler | None = None
        """Take feedback here: ``middleware.handler.feedback(message.id, ...)``."""
        if isinstance(handler, UNOFeedbackHandler):
            self.handler = handler
        elif handler is None or handler is True:
            self.handler = UNOFeedbackHandler(home=chat.home, namespace=chat.namespace)
        if self.handler is not None:
            own: Any = getattr(chat.callbacks, "handlers", chat.callbacks) or ()
            chat = chat.model_copy(update={"callbacks": [*own, self.handler]})
        self.model = chat

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Answer by the home's releases; arguments and result are those of LangChain's hook."""
        return handler(request.override(model=self._for(request)))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Answer by the home's releases; arguments and result are those of LangChain's hook."""
        return await handler(request.override(model=self._for(request)))

    def _for(self, request: ModelRequest[Any]) -> UNOChatModel:
        context: Any = getattr(request.runtime, "context", None)
        user = context.get("user_id") if isinstance(context, dict) else None
        user = user or getattr(context, "user_id", None)
        if user is None:
            return self.model
        known = self.model.metadata or {}
        return self.model.model_copy(update={"metadata": {**known, "user_id": str(user)}})
