"""One linear file a training stage: ``expert``, ``critic``, ``verifier``."""

from __future__ import annotations

if not __name__.startswith("langchain_uno."):
    raise ImportError(
        f"The folder {__name__}/ is no package of its own: import langchain_uno.trainers instead."
    )

__all__: list[str] = []
