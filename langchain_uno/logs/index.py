"""The index: one Chroma collection of requests, with vectors made elsewhere; here in a folder.

Chroma's native code does not survive every damage: a truncated header ends the process, and links
that a killed save left incomplete make the next one write terabytes. So a folder that was not
closed, or whose files changed since, is never opened: it is filled again from the journal. One
owner a folder at a time (``store.store_lock``). ``server.ServerIndex`` opens the same collection
on a Chroma server.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from hashlib import shake_256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from langchain_uno.errors import ModelMismatchError, StoreError
from langchain_uno.models.protocols import FloatArray, Known

COLLECTION = "interactions"
PAGE = 1000
_SCHEMA = 2
_OLD_SCHEMA = 1
"""Vectors as they are; a folder of it has whole records and is made anew, a server's is used on."""
_APART = 5e-4
"""How far a stored vector is from the true one. Where many records ask the same, their vectors are
equal, and Chroma's graph of equal points falls apart: it answered with distance 1.3 where a fifth
of 5,000 records were equal. A little apart, all are found; what is read is true again."""
_SEARCHED = 200
"""Candidates that a search looks at (Chroma's default is 100)."""
_LEAST = 50
"""A search for fewer takes so many, and keeps the nearest by their true distance."""

Where = Mapping[str, Any]
"""A filter in Chroma's form: ``{"language": "zh"}``, ``{"n_feedback": {"$gt": 0}}``."""


class IndexBroken(StoreError):
    """The index is damaged, missing or incomplete: fill it again from the journal."""


class InteractionCollection:
    """What can be done with the collection once there is a client; made by its two children.

    Args:
        client: a Chroma client of the right tenant and database.
        where: the store's name in messages.
        known: as what the embedder is known whose vectors go in, its fingerprint first; empty:
            whichever made those there.
    """

    advice: ClassVar[str] = "try again; nothing is lost, the journal has it all"
    schemas: ClassVar[tuple[int, ...]] = (_SCHEMA,)
    _client: Any = None

    def __init__(self, client: Any, where: str, known: Known) -> None:
        self._client = client
        self._where = where
        self._known = known
        self._sound = True
        self._collection = self._find()

    def close(self, *, clean: bool = True) -> None:
        """Close the client; twice is fine."""
        client, self._client, self._collection = self._client, None, None
        if client is not None:
            client.close()

    # -- records ------------------------------------------------------------------------------

    def count(self) -> int:
        """How many records there are."""
        if self._collection is None:
            return 0
        with self._asking("read"):
            return int(self._collection.count())

    @property
    def identity(self) -> str:
        """Tells this very collection from any other, a later one of the same name included."""
        return f"{self._where}#{self._collection.id}" if self._collection is not None else ""

    @property
    def dimension(self) -> int | None:
        """Of the vectors; None while there are none."""
        if self._collection is None:
            return None
        return int((self._collection.metadata or {})["dimension"])

    def upsert(
        self,
        run_ids: Sequence[str],
        vectors: FloatArray,
        metadatas: Sequence[Mapping[str, str | int | float | bool]],
    ) -> None:
        """Write records, replacing those of the same run_id.

        Raises:
            ModelMismatchError: vectors of another dimension than those there.
            StoreError: Chroma could not write them.
        """
        if not run_ids:
            return
        d = int(vectors.shape[1])
        if self._collection is None:
            with self._asking("write"):
                # "get_or": several hosts may begin at once; the first one's metadata stand.
                self._collection = self._client.get_or_create_collection(
                    COLLECTION,
                    embedding_function=None,
                    metadata={"schema": _SCHEMA, "dimension": d, **self._named()},
                    configuration={"hnsw": {"space": "l2", "ef_search": _SEARCHED}},
                )
            self._check(self._collection)  # another host may have been first
        if self.dimension != d:
            raise ModelMismatchError(
                _other_embedder(self._where, Known([f"{d} numbers a vector"]), f"{self.dimension}")
            )
        told, apart = [dict(m) for m in metadatas], vectors + self._apart(run_ids)
        with self._asking("write"):
            self._collection.upsert(ids=list(run_ids), embeddings=apart, metadatas=told)

    def vectors(self, run_ids: Sequence[str]) -> FloatArray:
        """The vectors of these records, shape (n, d), in the order asked.

        Raises:
            StoreError: a record is not there.
        """
        if not run_ids:
            return np.zeros((0, self.dimension or 0), dtype=np.float32)
        found: dict[str, Any] = {}
        wanted = list(dict.fromkeys(run_ids)) if self._collection is not None else []
        for start in range(0, len(wanted), PAGE):
            ids = wanted[start : start + PAGE]
            with self._asking("read"):
                part = self._collection.get(ids=ids, include=["embeddings"])
            found.update(zip(part["ids"], part["embeddings"], strict=True))
        missing = [r for r in run_ids if r not in found]
        if missing:
            raise StoreError(
                f"{len(missing)} of {len(run_ids)} records have no vector yet (the first is "
                f"{missing[0]!r}): drain the journal first."
            )
        return np.asarray([found[r] for r in run_ids], dtype=np.float32) - self._apart(run_ids)

    def records(self) -> Iterator[str]:
        """Every record as JSON text, in Chroma's order; where it is stored whole (on a server)."""
        offset, n = 0, PAGE
        while self._collection is not None and n == PAGE:
            with self._asking("read"):
                part = self._collection.get(limit=PAGE, offset=offset, include=["metadatas"])
            yield from (str(metadata["record"]) for metadata in part["metadatas"])
            n = len(part["ids"])
            offset += n

    def near(
        self, vectors: FloatArray, k: int, where: Where | None = None
    ) -> list[list[tuple[str, float]]]:
        """For each vector the ``k`` nearest records: (run_id, Euclidean distance), nearest first.

        Chroma's search is approximate: of the very nearest hardly any is missed.

        Args:
            vectors: shape (n, d).
            k: how many at most.
            where: only records like this.
        """
        found: list[list[tuple[str, float]]] = [[] for _ in vectors]
        if self._collection is None or k < 1:
            return found
        for near, one in zip(found, np.asarray(vectors, dtype=np.float32), strict=True):
            with self._asking("search"):
                got = self._collection.query(
                    query_embeddings=one,
                    n_results=max(k, _LEAST),
                    where=dict(where) if where else None,
                    include=["embeddings"],
                )
            [ids], [there] = got["ids"], got["embeddings"]
            if ids:
                true = np.asarray(there, dtype=np.float32) - self._apart(ids)
                far = np.linalg.norm(true - one, axis=1).tolist()
                nearest = sorted(zip(far, ids, strict=True))[:k]
                near += [(run_id, distance) for distance, run_id in nearest]
        return found

    # -- inside -------------------------------------------------------------------------------

    def _apart(self, run_ids: Sequence[str]) -> FloatArray:
        """What is added to the vectors of these records: noise, the same for the same record."""
        d = self.dimension or 0
        if (self._collection.metadata or {}).get("schema") == _OLD_SCHEMA:
            return np.zeros((len(run_ids), d), dtype=np.float32)
        bits = [shake_256(r.encode("utf-8", "replace")).digest(d // 8 + 1) for r in run_ids]
        packed = np.frombuffer(b"".join(bits), dtype=np.uint8).reshape(len(run_ids), -1)
        signs = np.unpackbits(packed, axis=1)[:, :d]
        return (signs.astype(np.float32) * 2 - 1) * np.float32(_APART / max(d, 1) ** 0.5)

    def _find(self) -> Any:
        if COLLECTION not in [c.name for c in self._client.list_collections()]:
            return None
        collection = self._client.get_collection(COLLECTION, embedding_function=None)
        self._check(collection)
        return collection

    def _check(self, collection: Any) -> None:
        metadata = collection.metadata or {}
        if metadata.get("schema") not in self.schemas or "dimension" not in metadata:
            raise IndexBroken(f"The index {self._where!r} is of another version.")
        there = str(metadata.get("embedder"))
        if self._known and there not in self._known:
            told = _other_embedder(self._where, self._known, there, metadata.get("name"))
            raise ModelMismatchError(told)

    def _named(self) -> dict[str, str]:
        return {"embedder": self._known[0], "name": self._known.name}

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._sound = self._sound and what == "search"  # which may be asked a wrong filter
            raise StoreError(
                f"Chroma could not {what} {self._where!r} ({brief(error)}): {self.advice}."
            ) from error


def check_embedder(folder: Path, known: Known) -> None:
    """Check who made the vectors of a closed folder, without opening it in Chroma, which writes.

    Raises:
        ModelMismatchError: another embedder did.
    """
    if not _is_sealed(folder):
        return  # it is filled again
    uri = f"{(folder / 'chroma.sqlite3').absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as database, suppress(sqlite3.Error):
        found = dict(database.execute(_METADATA, (COLLECTION,)).fetchall())
        if found.get("schema") == _SCHEMA and found["embedder"] not in known:
            told = _other_embedder(str(folder), known, found["embedder"], found.get("name"))
            raise ModelMismatchError(told)


_METADATA = (
    "SELECT m.key, coalesce(m.str_value, m.int_value) FROM collection_metadata m "
    "JOIN collections c ON c.id = m.collection_id WHERE c.name = ?"
)


def _other_embedder(where: str, known: Known, theirs: str, name: str | None = None) -> str:
    own, other = known.beside(Known.of(theirs, name))
    return (
        f"The vectors in {where!r} were made by embedder {other!r}, this run's is "
        f"{own!r}: name the models they were made with (--model, --embeddings), choose another "
        "--home, or embed all logs anew with: langchain-uno logs drain --rebuild --home DIR, with "
        "the same --model and --embeddings as this call"
    )


def brief(error: Exception) -> str:
    """The error's first line: Chroma's messages may quote what was sent."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class ChromaIndex(InteractionCollection):
    """Only ever open one under the store's lock.

    Args:
        folder: the embedded Chroma folder (``home.chroma``).
        known: as what the embedder is known whose vectors go in, its fingerprint first; empty:
            whichever made those there.
        expected: how many records should be there; fewer means that it is broken.

    Raises:
        IndexBroken: damaged, or fewer records than expected.
        ModelMismatchError: the vectors there are another embedder's.
    """

    advice: ClassVar[str] = (
        "make room on the disk, then try again; a damaged index is rebuilt from the journal when "
        "it is opened, and nothing is lost"
    )

    def __init__(self, folder: Path, known: Known, expected: int) -> None:
        self._folder = folder
        if not (folder / "chroma.sqlite3").is_file():
            if expected:
                raise IndexBroken(f"The index {str(folder)!r} is missing.")
        elif not _is_sealed(folder):
            raise IndexBroken(f"The index {str(folder)!r} was copied, not closed or damaged.")
        _seal_of(folder).unlink(missing_ok=True)
        try:
            super().__init__(_client(folder), str(folder), known)
            self._adopt()
            if (count := self.count()) < expected:
                raise IndexBroken(f"The index {str(folder)!r} has {count} of {expected} records.")
        except Exception as error:
            # With another embedder's vectors nothing is wrong with the folder.
            self.close(clean=isinstance(error, ModelMismatchError))
            if isinstance(error, ModelMismatchError | IndexBroken):
                raise
            raise IndexBroken(f"The index {str(folder)!r} can't be opened ({error}).") from error

    def _adopt(self) -> None:
        """Write today's fingerprint and name where an older version wrote its own."""
        metadata = dict(self._collection.metadata) if self._collection is not None else {}
        if metadata.get("embedder") in (self._known if "name" not in metadata else self._known[1:]):
            self._collection.modify(metadata=metadata | self._named())

    @property
    def identity(self) -> str:
        """The folder: it belongs to this home's journal alone, and its count is checked."""
        return "embedded"

    def close(self, *, clean: bool = True) -> None:
        """Close the folder; ``clean`` seals it, so that it can be opened again."""
        opened = self._client is not None
        super().close()
        if opened and clean and self._sound:
            seal(self._folder)

    @staticmethod
    def wipe(folder: Path) -> None:
        """Delete the folder's content, the damaged index with it."""
        aside = folder.with_name(f"{folder.name}.old-{os.getpid()}-{time.time_ns()}")
        if folder.exists():
            os.replace(folder, aside)  # at once out of the way, whatever interrupts the deleting
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.parent.glob(f"{folder.name}.old-*"):
            shutil.rmtree(old, ignore_errors=True)


def seal(folder: Path) -> None:
    """Note beside a closed folder how its files are."""
    temporary = _seal_of(folder).with_suffix(".tmp")
    temporary.write_text(json.dumps(_listing(folder)), encoding="utf-8")
    os.replace(temporary, _seal_of(folder))


def _is_sealed(folder: Path) -> bool:
    try:
        sealed = json.loads(_seal_of(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(sealed == _listing(folder))


def _seal_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".seal")


def _listing(folder: Path) -> dict[str, list[int]]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    stats = {str(p.relative_to(folder)): p.stat() for p in files}
    return {name: [s.st_size, s.st_mtime_ns] for name, s in stats.items()}


def _client(folder: Path) -> Any:
    """Open a folder; ``PersistentClient`` would keep what can't start for the next who opens it."""
    from chromadb.api import ServerAPI
    from chromadb.api.client import Client
    from chromadb.config import Settings, System

    where = str(folder)
    settings = Settings(anonymized_telemetry=False, is_persistent=True, persist_directory=where)
    system = System(settings)
    system.instance(ServerAPI)  # type: ignore[type-abstract]  # so that starting says what is wrong
    system.start()
    return Client.from_system(system)
