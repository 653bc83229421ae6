"""Draining in a thread of the app, where a handler asks for it (``drain_every``).

The thread embeds and writes in batches while it holds the store's lock. It waits where another
process holds the lock or the store can't be reached, and stops within a batch. The journal is
complete without it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from langchain_uno.errors import InputError, StoreBusyError
from langchain_uno.home import Home
from langchain_uno.models.protocols import Embedder

_log = logging.getLogger("langchain_uno")
_LONGEST_S = 600.0


class BackgroundDrain:
    """Starts with :meth:`start`, ends with :meth:`stop`.

    Args:
        home: whose journal is drained.
        make_embedder: called once, in the thread, when the first records are there.
        every_s: seconds between two looks; doubled up to ten minutes while the store fails.
    """

    def __init__(
        self, home: Home, make_embedder: Callable[[], Embedder], every_s: float = 60.0
    ) -> None:
        self._home = home
        self._make_embedder = make_embedder
        self._every_s = every_s
        self._embedder: Embedder | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uno-drain", daemon=True)
        self.drained = 0
        """Records written so far."""
        self.failures = 0
        """Looks that failed since the last one that did not."""

    def start(self) -> None:
        """Begin, in a daemon thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """End after the batch under way; what is not in yet stays in the journal."""
        if not self._thread.is_alive():  # also in a forked child: the parent's thread drains
            return
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        wait = self._every_s
        while not self._stopping.wait(wait):
            try:
                self._drain()
                self.failures, wait = 0, self._every_s
            except StoreBusyError:
                wait = self._every_s  # a refresh, or another process, is at it
            except _Stopped:
                return
            except Exception as error:  # noqa: BLE001 - the app must not suffer from our trouble
                self.failures += 1
                wait = min(_LONGEST_S, max(wait, self._every_s) * 2)
                if self.failures == 1:
                    _log.warning("The journal is not drained now (%s); it is tried again.", error)

    def _drain(self) -> None:
        from langchain_uno.logs.store import LogStore  # numpy and more: not on the app's import

        if self._embedder is None:
            self._embedder = self._make_embedder()
        with LogStore.open(self._home, self._embedder, 0.0, say=_log.info) as store:
            self.drained += store.drain(self._check)

    def _check(self, done: int) -> None:
        if self._stopping.is_set():
            raise _Stopped


def start_draining(home: Home, every_s: float | None, embedder: Any) -> BackgroundDrain | None:
    """Start a thread for a handler; None where none was asked for.

    Args:
        home: whose journal is drained.
        every_s: seconds between two looks; None: no draining.
        embedder: a LangChain ``Embeddings``, an ``Embedder``, or None: the bundled model's.

    Raises:
        InputError: ``every_s`` is not positive, or ``embedder`` can't embed.
    """
    if every_s is None:
        if embedder is not None:
            raise InputError("embedder is for draining: give drain_every=SECONDS as well.")
        return None
    if not every_s > 0:
        raise InputError(f"drain_every must be a number of seconds above 0, not {every_s!r}.")
    if embedder is not None and not hasattr(embedder, "embed"):
        if not hasattr(embedder, "embed_documents"):
            raise InputError("embedder is neither a LangChain Embeddings nor an Embedder.")
        from langchain_uno.models.embedders import LangChainEmbedder

        embedder = LangChainEmbedder(embedder)
    drain = BackgroundDrain(home, lambda: embedder or _embedded(), every_s)
    drain.start()
    return drain


def _embedded() -> Embedder:
    from langchain_uno.models.loading import load_embedder, shared_engine

    return load_embedder(None, shared_engine())


class _Stopped(Exception):
    """Ends a drain between two batches."""
