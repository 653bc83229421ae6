"""The LangGraph graphs, ``respond`` (request time) and ``refresh`` (offline): they only wire."""

from __future__ import annotations

if not __name__.startswith("langchain_uno."):
    raise ImportError(
        f"The folder {__name__}/ is no package of its own: import langchain_uno.graphs instead."
    )

__all__: list[str] = []
