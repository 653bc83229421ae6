"""The console: what people look at and click, over HTTP, without a login of its own.

    app.include_router(console_router("~/uno", tokens="ann:release:...", prefix="/console"))

Pages: what answers and what waits, clusters, releases, a chat to try them, people, health. Tokens
say who may read, review and release (see :mod:`langchain_uno.web.console.access`). Nothing is asked
of any other host. Needs the extra ``langchain-uno[server]``.
"""

from __future__ import annotations

from langchain_uno.errors import no_package

try:
    from langchain_uno.web.console.app import console_app, console_router
except ImportError as error:
    raise no_package("The console needs", error.name, "server") from error

__all__ = ["console_app", "console_router"]
