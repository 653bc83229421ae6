"""A LangChain chat model that learns from the feedback of its users.

    from langchain_uno import UNOChatModel, UNOFeedbackHandler

The import is cheap: torch, transformers and chromadb are loaded when a name that needs them is
used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_uno.callbacks import UNOFeedbackHandler
    from langchain_uno.chat_models import UNOChatModel
    from langchain_uno.middleware import UNOMiddleware

__all__ = ["UNOChatModel", "UNOFeedbackHandler", "UNOMiddleware", "__version__"]

__version__ = "0.2.0"

_HOME_OF = {
    "UNOChatModel": "langchain_uno.chat_models",
    "UNOFeedbackHandler": "langchain_uno.callbacks",
    "UNOMiddleware": "langchain_uno.middleware",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
