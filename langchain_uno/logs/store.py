"""The log store: the journal, and its index of requests for searching by meaning.

    with LogStore.open(home, embedder) as store:
        store.drain()                          # what is new gets its vector and is indexed
        logs = store.interactions()            # from the journal: feedback joined, oldest first
        vectors = store.embeddings([log.run_id for log in logs])
        store.near(centroids, 20)              # the requests nearest to each

The journal is the truth. Chroma is an index: broken, missing, emptied or of an older version, it is
filled again on opening, out of the vector cache where that has the vectors. It is a folder of the
home, which holds no text, or, for many hosts on one store, a Chroma server (``[logs] chroma`` in
``settings.toml``, or ``LANGCHAIN_UNO_CHROMA``): there each host keeps its own journal, fills in its
own records whole, and reads everybody's. One drainer a journal at a time (a lock).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from langchain_uno.errors import StoreError
from langchain_uno.home import Home, load_settings, locked
from langchain_uno.logs.database import Closing
from langchain_uno.logs.heard import Heard, heard_of, part_of
from langchain_uno.logs.index import ChromaIndex, IndexBroken, Where, check_embedder
from langchain_uno.logs.join import read
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.kept import KeptLog
from langchain_uno.logs.server import ServerIndex
from langchain_uno.logs.vectors import CachedEmbedder
from langchain_uno.models.protocols import Embedder, FloatArray, Known, OnDone, known_as
from langchain_uno.records import Interaction

ENV_CHROMA = "LANGCHAIN_UNO_CHROMA"
_BATCH = 100
"""Records that are embedded and written together: what an interrupt loses."""
_Index = ChromaIndex | ServerIndex


def lacking(journal: Journal, kept: KeptLog) -> dict[str, bytes]:
    """Return what the index lacks, or has with older feedback: run ids and feedback's digests."""
    indexed = journal.indexed()
    return {run_id: one for run_id, one in kept.digests().items() if indexed.get(run_id) != one}


class LogStore(Closing):
    """Opened by :meth:`open`; a context manager."""

    def __init__(self, home: Home, embedder: Embedder, closing: ExitStack) -> None:
        self.home = home
        self.journal = closing.enter_context(Journal(home.journal))
        self.kept = closing.enter_context(KeptLog(home, self.journal))
        self.shared = not index_is_embedded(home)
        """Whether the index is on a server, and has what other hosts wrote."""
        self._pid = os.getpid()
        self._known = known_as(embedder)
        self._embedder = CachedEmbedder(embedder, home.work / "vectors.sqlite3")
        closing.callback(self._embedder.close)
        self._closing = closing
        self._opened: _Index | None = None
        self._others: list[Interaction] | None = None

    @classmethod
    def open(
        cls,
        home: Home,
        embedder: Embedder,
        timeout_s: float = 10.0,
        *,
        rebuild: bool = False,
        say: Callable[[str], None] | None = None,
        later: bool = False,
    ) -> LogStore:
        """Open the store of ``home``, taking its lock.

        Its index is where ``LANGCHAIN_UNO_CHROMA`` or the home's ``settings.toml`` say.

        Args:
            home: the home (made if missing).
            embedder: makes the vectors; cached by fingerprint.
            timeout_s: how long to wait for another holder of the lock.
            rebuild: throw the index away and fill it again (with another embedder, say).
            say: told when the index has to be rebuilt; None: standard error.
            later: open an index in a folder only when it is asked for something.

        Raises:
            ConfigError: ``settings.toml`` or the server's URL is wrong.
            StoreBusyError: another process has the store open.
            ModelMismatchError: the vectors are another embedder's; the message says what to do.
            HomeError, StoreError: home, journal or Chroma can't be used.
        """
        home.ensure()
        with ExitStack() as undo:
            undo.enter_context(store_lock(home, timeout_s))
            store = cls(home, embedder, undo)
            if later and not store.shared:
                check_embedder(home.chroma, store._known)
            else:
                store._open(rebuild, say)
            store._closing = undo.pop_all()
            return store

    @property
    def _index(self) -> _Index:
        self._check()
        return self._opened or self._open()

    def _open(self, rebuild: bool = False, say: Callable[[str], None] | None = None) -> _Index:
        self._opened, reason = _open_index(self.home, self.journal, self._known, rebuild)
        self._closing.callback(self._opened.close)
        if reason:
            self._refill(reason, say or (lambda line: print(line, file=sys.stderr)))  # noqa: T201
        return self._opened

    def drain(self, on_done: OnDone | None = None) -> int:
        """Bring the index up to the journal: new records, and those whose feedback changed.

        Idempotent by run_id; interrupted at any point, the next call goes on from there.

        Args:
            on_done: told how many more records are in.

        Returns:
            How many records were written.
        """
        index = self._index  # where it has to be filled again, nothing counts as indexed
        self.kept.update()
        self._others = None
        todo = list(digests := lacking(self.journal, self.kept))
        for start in range(0, len(todo), _BATCH):
            part = todo[start : start + _BATCH]
            logs = self._read(part)
            vectors = self._embedder.embed([log.query for log in logs])
            told = [_metadata(log, self.shared) for log in logs]
            index.upsert([log.run_id for log in logs], vectors, told)
            if start == 0:  # the first write may have made the collection
                self.journal.set_index_identity(index.identity)
            self.journal.mark_indexed({run_id: digests[run_id] for run_id in part})
            if on_done:
                on_done(len(part))
        if todo:
            self.journal.checkpoint()
        return len(todo)

    def pending(self) -> int:
        """How many records :meth:`drain` would write."""
        self.kept.update()
        return len(lacking(self.journal, self.kept))

    def interactions(self, run_ids: Sequence[str] | None = None) -> list[Interaction]:
        """Return the drained interactions with their feedback, oldest first.

        Args:
            run_ids: only these; None: all, with a server also those of other hosts.
        """
        self._check()
        others = self.others()
        if run_ids is None:
            indexed = self.journal.indexed()
            ours = [run_id for run_id in self.kept.digests() if run_id in indexed]
        else:
            wanted = set(run_ids)
            ours, others = list(run_ids), [log for log in others if log.run_id in wanted]
        return sorted([*self._read(ours), *others], key=lambda log: (log.created_at, log.run_id))

    def heard(self, *, whole: bool = False) -> list[Heard]:
        """Return what is known of the logs with feedback, of all hosts, oldest first.

        Args:
            whole: a log is a record with all its feedback; else with that of one person.
        """
        self._check()
        if whole:
            ours = read(self.journal, self.kept.joined(heard=True))
            found = [one for log in ours for one in heard_of(log, whole=True)]
        else:
            found = self.kept.heard()
        found += [one for log in self.others() for one in heard_of(log, whole=whole)]
        return sorted(found, key=lambda one: one.order)

    def logs(self, heard: Sequence[Heard]) -> dict[str, Interaction | Callable[[], Interaction]]:
        """Return these logs by id, or what reads them."""
        self._check()
        others = {log.run_id: log for log in self.others()}
        found = self.kept.reader([one for one in heard if one.run_id not in others])
        theirs = {g.log_id: part_of(others[g.run_id], g) for g in heard if g.run_id in others}
        return {**found, **theirs}

    def count_all(self) -> int:
        """How many interactions there are, of all hosts."""
        return self.kept.span()[0] + len(self.others())

    def others(self) -> list[Interaction]:
        """Return what other hosts wrote to the index's server."""
        if not self.shared:
            return []
        if self._others is None:
            mine = self.kept.digests()
            others = map(Interaction.model_validate_json, self._index.records())
            self._others = [log for log in others if log.run_id not in mine]
        return self._others

    def _read(self, run_ids: Sequence[str]) -> list[Interaction]:
        return list(read(self.journal, self.kept.joined(run_ids), run_ids))

    def embeddings(self, run_ids: Sequence[str]) -> FloatArray:
        """The vectors of the queries of these interactions, float32, shape (n, d).

        Raises:
            StoreError: one of them is not drained.
        """
        return self._index.vectors(run_ids)

    def near(
        self, vectors: FloatArray, k: int, where: Where | None = None
    ) -> list[list[tuple[str, float]]]:
        """For each vector the nearest requests: (run_id, distance), nearest first.

        Args:
            vectors: shape (n, d): centroids of clusters, say.
            k: how many at most.
            where: only records like this, as Chroma writes filters; fields are ``created_at``
                (seconds since 1970), ``language``, ``root_run_id``, ``thread_id``, ``user_id``,
                ``model``, ``release``, ``cluster``, ``route``, ``n_feedback`` and ``score``.
        """
        return self._index.near(vectors, k, where)

    def nearest(self, text: str, k: int = 5) -> list[tuple[str, float]]:
        """The past feedback nearest to a request: (run_id, distance) of logs that have some."""
        return self._index.near(self._embedder.embed([text]), k, {"n_feedback": {"$gt": 0}})[0]

    def count(self) -> int:
        """How many records the index has."""
        return self._index.count()

    def close(self) -> None:
        """Close everything and give the lock back. Twice is fine; a forked child closes nothing."""
        if os.getpid() == self._pid:
            self._closing.close()

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError(
                "This store was opened before the process forked: open it in the child instead."
            )

    def _refill(self, reason: str, say: Callable[[str], None]) -> None:
        from rich.console import Console
        from rich.progress import Progress

        say(f"{reason} Rebuilding it from the journal.")
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Rebuilding the index", total=self.pending())
            n = self.drain(lambda done: progress.advance(task, done))
        say(f"The index was rebuilt from the journal: {n} records.")


def store_lock(home: Home, timeout_s: float = 10.0) -> AbstractContextManager[None]:
    """Keep other processes, and other openers in this one, from index and erasing.

    Raises:
        StoreBusyError: somebody holds it.
    """
    busy = (
        f"The store {str(home.chroma)!r} is in use by another process, or by this one already: "
        "wait until that is done, or stop it. Capturing goes on meanwhile."
    )
    return locked(home, "store", max(timeout_s, 0.0), busy)


def index_is_embedded(home: Home) -> bool:
    """Whether the index is a folder of the home, and not on a server."""
    return _where(home)[0] == "embedded"


def forget_in_index(home: Home, journal: Journal, run_ids: Sequence[str]) -> None:
    """Take forgotten records out of the index; hold the store's lock while you call it.

    An embedded folder goes whole (deleting leaves bytes in its files) and is filled again, from the
    vector cache, by the next drain. On a server the records are deleted; when their bytes leave its
    files is Chroma's business.

    Raises:
        StoreError: the server can't be reached.
    """
    if home.chroma.exists():
        ChromaIndex.wipe(home.chroma)
    where, tenant = _where(home)
    if where == "embedded":
        journal.clear_indexed()
    else:
        ServerIndex.forget(where, tenant, home.namespace, run_ids)


def _where(home: Home) -> tuple[str, str]:
    """``"embedded"`` or a server's URL, and the tenant there."""
    settings = load_settings(home).logs
    return os.environ.get(ENV_CHROMA) or settings.chroma, settings.chroma_tenant


def _open_index(home: Home, journal: Journal, known: Known, rebuild: bool) -> tuple[_Index, str]:
    """Open the index; also return why it has to be filled again ("": it need not be)."""
    where, tenant = _where(home)
    # A journal that never said where its marks belong knew the embedded folder only.
    before = journal.index_identity() or "embedded"
    marked = journal.database.read("SELECT count(*) FROM indexed")[0][0]
    if where == "embedded":
        reason = f"The index moves to {str(home.chroma)!r}." if marked else ""
        if not rebuild and before == "embedded":
            try:
                return ChromaIndex(home.chroma, known, marked), ""
            except IndexBroken as error:
                reason = str(error)
        ChromaIndex.wipe(home.chroma)
        journal.clear_indexed()
        return ChromaIndex(home.chroma, known, 0), "" if rebuild else reason
    if rebuild:
        # Opened whatever embedder made it: the collection goes away.
        ServerIndex.drop(where, tenant, home.namespace)
        journal.clear_indexed()
    index = ServerIndex(where, tenant, home.namespace, known)
    if not marked or (index.identity == before and index.count() >= marked):
        return index, ""
    journal.clear_indexed()
    return index, "" if rebuild else f"The index on {where!r} lacks records of this journal."


_FIELDS = {
    "language",
    "root_run_id",
    "thread_id",
    "user_id",
    "model",
    "release",
    "cluster",
    "route",
}


def _metadata(log: Interaction, whole: bool) -> dict[str, str | int | float | bool]:
    """What Chroma can filter by; with ``whole`` also the record, for other hosts to read."""
    fields: dict[str, str | int | float | bool | None] = {
        "record": log.model_dump_json(exclude_none=True) if whole else None,
        "created_at": log.created_at.timestamp(),
        "n_feedback": len(log.feedback),
        "score": log.score,
        **log.model_dump(include=_FIELDS),
    }
    # Chroma hands text to C strings.
    return {
        k: v.replace("\0", " ") if isinstance(v, str) else v
        for k, v in fields.items()
        if v is not None
    }
