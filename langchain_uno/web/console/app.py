"""The console as a router and as an app."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI

from langchain_uno.errors import ConfigError
from langchain_uno.home import Home
from langchain_uno.web.console.access import ENV_TOKENS, Operator, read_tokens
from langchain_uno.web.console.pages import Console
from langchain_uno.web.console.talk import Talks


def console_router(
    home: str | os.PathLike[str] | None = None,
    namespace: str = "default",
    *,
    tokens: str | Sequence[Operator] | None = None,
    prefix: str = "",
    model: Any = None,
    embedder: Any = None,
    with_model: bool = True,
) -> APIRouter:
    """Return the console as a router, to mount in an app of one's own.

    Args:
        home: the home folder; None: ``LANGCHAIN_UNO_HOME``.
        namespace: the tenant.
        tokens: ``"name:role:token,..."``, or operators; None: ``LANGCHAIN_UNO_CONSOLE_TOKENS``.
        prefix: of the paths, ``"/console"`` say. Give it here, not to ``include_router``.
        model: what answers in "try it": the app's own ``UNOChatModel``, or a base model as that
            takes it; None: the bundled one.
        embedder: as ``UNOChatModel`` takes it.
        with_model: False: the console loads no model, and nothing can be tried in it.

    Raises:
        ConfigError: no token is given, or one that can't be used.
        HomeError, StoreError: the home can't be read.
    """
    return _console(home, namespace, tokens, model, embedder, with_model).router(prefix)


def console_app(
    home: str | os.PathLike[str] | None = None, namespace: str = "default", **settings: Any
) -> FastAPI:
    """Return the console as an app; its settings are those of :func:`console_router`.

    Raises:
        ConfigError, HomeError, StoreError: see :func:`console_router`.
    """
    prefix = settings.pop("prefix", "")
    console = _console(home, namespace, **settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=console.shelf.warm, daemon=True).start()
        yield
        console.close()

    app = FastAPI(
        title="UNO console", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life
    )
    app.include_router(console.router(prefix, alone=True))
    return app


def _console(
    home: str | os.PathLike[str] | None,
    namespace: str,
    tokens: str | Sequence[Operator] | None = None,
    model: Any = None,
    embedder: Any = None,
    with_model: bool = True,
) -> Console:
    place = Home.locate(home, namespace).require()
    given = os.environ.get(ENV_TOKENS, "") if tokens is None else tokens
    operators = read_tokens(given) if isinstance(given, str) else list(given)
    if not operators:
        raise ConfigError(
            f"The console needs a token: set {ENV_TOKENS}='name:role:token,...', or pass tokens."
        )
    return Console(place, operators, Talks(place, model, embedder) if with_model else None)
