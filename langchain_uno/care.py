"""Looking a home over: erasures finished, the journal read through, the index held against it."""

from __future__ import annotations

from typing import Any, Protocol

from langchain_uno.erasure import resume
from langchain_uno.errors import StoreError
from langchain_uno.home import Home
from langchain_uno.logs.index import ChromaIndex, IndexBroken, Lease, index_state
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import index_is_bundled

__all__ = ["repair"]


class Progress(Protocol):
    """The bars of :class:`langchain_uno.cli.progress.Bars`."""

    def start(self, stage: str, total: int | None) -> None:
        """Begin a bar."""

    def advance(self, stage: str, n: int = 1) -> None:
        """Move it on."""


def repair(home: Home, progress: Progress) -> dict[str, Any]:
    """Mend what can be mended; return what was found and done.

    Args:
        home: must exist.
        progress: hears of every record read.

    Raises:
        HomeError: there is no home.
        StoreBusyError: a refresh or a drain is running.
        StoreError: the journal is damaged; the message says where.
    """
    finished = len(resume(home))
    found: dict[str, Any] = {"erasures_finished": finished}
    with Journal(home.require().journal) as journal:
        problems = [row[0] for row in journal.database.read("PRAGMA integrity_check(20)")]
        if problems != ["ok"]:
            raise StoreError(
                f"The journal {str(journal.path)!r} is damaged ({problems[0]}): restore it from a "
                "backup, or save what can be read with `sqlite3 FILE .recover`."
            )
        n, n_feedback = journal.counts()
        progress.start("read", n)
        for _ in journal.interactions([row.run_id for row in journal.rows()]):
            progress.advance("read", 1)
        journal.feedback()  # raises where one can't be read
        found |= {"interactions": n, "feedback": n_feedback, "journal": "sound"}
        marked = len(journal.indexed())
        if not index_is_bundled(home):
            found["index"] = "on a server: compared and filled in by the next drain"
            return found
        lease = Lease(home.chroma)
        try:
            state = index_state(home.chroma, set(journal.indexed()))
            if isinstance(state, IndexBroken):
                ChromaIndex.wipe(home.chroma)
                journal.clear_indexed()
                found["index"] = f"thrown away, the next drain fills it again ({state})"
            else:
                found["index"] = f"sound, {marked} of {n} records are in"
        finally:
            lease.release()
    return found
