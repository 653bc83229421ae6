"""The journal that capture writes, the Chroma store that the refresh reads, and what is between.

    journal.py      append-only SQLite, the only thing the request path writes
    join.py         which feedback (and which next user turn) belongs to which answer
    store.py        journal -> Chroma under a lease; index.py (a folder of the home, hnsw_files.py
                    looks it over) or server.py (a Chroma server), collection.py, lease.py and
                    vectors.py are its parts
    background.py   draining beside the app, for handlers that ask for it
    filters.py      which logs may be learnt from, and why not; phrases.py, complaints.py,
                    questions.py and injections.py have the words
    redaction.py    personal data and secrets out of the text before it is stored; detectors.py
    erase.py        forgetting in the journal; tombstones.py keeps it forgotten
    exchange.py     import, export, stats; rows.py and its row_*.py read the file formats
    capture.py      from LangChain's callbacks to a record (used by ``langchain_uno.callbacks``)

``python -m langchain_uno.logs --help`` is the command line. Importing this package loads neither
torch nor chromadb; opening a store loads chromadb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_uno.logs.exchange import export_lines, import_file, stats
    from langchain_uno.logs.filters import verdict, verdicts
    from langchain_uno.logs.journal import Journal
    from langchain_uno.logs.redaction import Redactor
    from langchain_uno.logs.store import LogStore

__all__ = [
    "Journal",
    "LogStore",
    "Redactor",
    "export_lines",
    "import_file",
    "stats",
    "verdict",
    "verdicts",
]

_WHERE = {
    "Journal": "journal",
    "LogStore": "store",
    "Redactor": "redaction",
    "export_lines": "exchange",
    "import_file": "exchange",
    "stats": "exchange",
    "verdict": "filters",
    "verdicts": "filters",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
