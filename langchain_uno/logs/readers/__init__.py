"""The formats that an import reads, one small reader each.

A reader tells by a row's shape whether the row is of its format, and gives the conversations and
the feedback that the row holds (:mod:`langchain_uno.logs.readers.base`). ``logs/rows.py`` makes
records of them. docs/guides/import.md has the table.

    chats.py    lists of messages: the plain form, ShareGPT, WildChat, one question and its answer
    trees.py    ChatGPT, Open WebUI, LibreChat, OpenAssistant
    pairs.py    preferences: OpenAI, TRL, KTO, ms-swift, LMArena, UltraFeedback
    traces.py   LangSmith, Langfuse, OpenTelemetry, LiteLLM, requests and responses
    wrappers.py what stands around rows: pages of APIs, rows in parts
    bodies.py   the shapes of the providers' requests and responses
"""

from __future__ import annotations

from collections.abc import Iterable

from langchain_uno.errors import InputError
from langchain_uno.logs.readers import chats, pairs, traces, trees
from langchain_uno.logs.readers.base import FORMAT, Found, Reader, Row

__all__ = ["OURS", "READERS", "reader_named", "reader_of"]


def _not_ours(row: Row) -> Iterable[Found]:
    raise InputError(f"the row is no export of ours: its 'format' is not {FORMAT!r}")


OURS = Reader("langchain-uno", lambda row: row.get("format") == FORMAT, _not_ours)
"""Our own export; ``logs/rows.py`` reads it, as it holds finished records."""

READERS: tuple[Reader, ...] = (
    OURS, trees.OPENWEBUI, trees.CHATGPT, trees.LIBRECHAT, trees.OASST, pairs.LMARENA,
    pairs.OPENAI_PREFERENCE, pairs.ULTRAFEEDBACK, pairs.PAIRS, pairs.MS_SWIFT, pairs.KTO,
    traces.SPANS, traces.LANGSMITH, traces.LANGFUSE, traces.LITELLM, chats.MEMORYBENCH,
    chats.WILDCHAT, chats.SHAREGPT, chats.ALPACA, traces.REQUESTS, chats.CHAT, chats.MESSAGES,
)  # fmt: skip
"""In the order in which they are asked: the first whose shape a row has reads it."""


def reader_named(name: str) -> Reader:
    """Return the reader of a format.

    Raises:
        InputError: there is none of this name; the message lists them.
    """
    for reader in READERS:
        if reader.name == name.strip().lower():
            return reader
    known = ", ".join(sorted(r.name for r in READERS))
    raise InputError(f"There is no format {name!r}. Known are: {known}.")


def reader_of(row: Row) -> Reader:
    """Return the reader for a row.

    Raises:
        InputError: the row has the shape of none.
    """
    for reader in READERS:
        if reader.matches(row):
            return reader
    fields = ", ".join(str(k) for k in list(row)[:8]) or "none"
    raise InputError(
        f"there is no 'messages' list, and the fields ({fields[:120]}) are of no known format; "
        "rename them as the import guide says, or name a --format"
    )
