"""The Chroma side of the log store: one collection in an embedded folder, opened under a lease.

Chroma's native code does not survive every damage (a truncated index header ends the process), so a
folder that was not closed cleanly, or whose files changed since, is first looked at by a child
process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langchain_uno.errors import ModelMismatchError, StoreError
from langchain_uno.models.protocols import FloatArray

__all__ = ["COLLECTION", "ChromaIndex", "IndexBroken"]

COLLECTION = "interactions"
SCHEMA = 1
_PAGE = 1000
_PROBE_S = 300


class IndexBroken(StoreError):
    """The folder is damaged or incomplete: delete it and fill it again from the journal."""


class ChromaIndex:
    """The collection, with vectors made elsewhere. Only ever open one under the folder's lease.

    Args:
        folder: the embedded Chroma folder (``home.chroma``).
        fingerprint: of the embedder whose vectors go in.
        expected: how many records should be there; fewer means that it is broken.

    Raises:
        IndexBroken: damaged, or fewer records than expected.
        ModelMismatchError: the vectors there are another embedder's.
    """

    def __init__(self, folder: Path, fingerprint: str, expected: int) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        if not (folder / "chroma.sqlite3").is_file():
            if expected:
                raise IndexBroken(f"The index {str(folder)!r} is missing.")
        elif not self._closed_cleanly():
            self._probe()
        self._seal.unlink(missing_ok=True)
        try:
            self._client = self._connect()
            self._collection = self._find()
            count = self.count()
        except ModelMismatchError:
            self.close()  # nothing wrong with the folder
            raise
        except IndexBroken:
            self.close(clean=False)
            raise
        except Exception as error:
            self.close(clean=False)
            raise IndexBroken(f"The index {str(folder)!r} can't be opened ({error}).") from error
        if count < expected:
            self.close(clean=False)
            raise IndexBroken(f"The index {str(folder)!r} has {count} of {expected} records.")

    # -- records ------------------------------------------------------------------------------

    def count(self) -> int:
        """How many records there are."""
        return int(self._collection.count()) if self._collection is not None else 0

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
        documents: Sequence[str],
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
            self._collection = self._create(d)
        if self.dimension != d:
            raise ModelMismatchError(self._mismatch(f"{d} numbers a vector", f"{self.dimension}"))
        try:
            self._collection.upsert(
                ids=list(run_ids),
                embeddings=vectors,
                metadatas=[dict(m) for m in metadatas],
                documents=list(documents),
            )
        except Exception as error:
            raise StoreError(
                f"Chroma could not write to {str(self._folder)!r} ({error}): make room on the "
                "disk, then try again; nothing is lost, the journal has it all."
            ) from error

    def vectors(self, run_ids: Sequence[str]) -> FloatArray:
        """The vectors of these records, shape (n, d), in the order asked.

        Raises:
            StoreError: a record is not there.
        """
        if not run_ids:
            return np.zeros((0, self.dimension or 0), dtype=np.float32)
        found: dict[str, Any] = {}
        for part in self._get(list(dict.fromkeys(run_ids)), ["embeddings"]):
            found.update(zip(part["ids"], part["embeddings"], strict=True))
        missing = [r for r in run_ids if r not in found]
        if missing:
            raise StoreError(
                f"{len(missing)} of {len(run_ids)} records have no vector yet (the first is "
                f"{missing[0]!r}): drain the journal first."
            )
        return np.asarray([found[r] for r in run_ids], dtype=np.float32)

    def records(self, run_ids: Sequence[str]) -> Iterator[str]:
        """The stored records as JSON text, in Chroma's order; unknown run_ids are left out."""
        for part in self._get(run_ids, ["metadatas"]):
            for metadata in part["metadatas"]:
                yield str(metadata["record"])

    def nearest(self, vector: FloatArray, k: int) -> list[tuple[str, float]]:
        """The ``k`` nearest records: (run_id, Euclidean distance), nearest first."""
        if self._collection is None:
            return []
        found = self._collection.query(
            query_embeddings=np.atleast_2d(vector),
            n_results=min(k, self.count()),
            include=["distances"],
        )
        ids, squares = found["ids"][0], found["distances"][0]
        return [(i, float(max(s, 0.0)) ** 0.5) for i, s in zip(ids, squares, strict=True)]

    def close(self, *, clean: bool = True) -> None:
        """Close the folder; ``clean`` seals it, so that the next opening need not look it over."""
        client = getattr(self, "_client", None)
        self._client = self._collection = None
        if client is not None:
            client.close()
            if clean:
                temporary = self._seal.with_suffix(".tmp")
                temporary.write_text(json.dumps(self._listing()), encoding="utf-8")
                os.replace(temporary, self._seal)

    @staticmethod
    def wipe(folder: Path) -> None:
        """Delete the folder's content, the damaged index with it."""
        aside = folder.with_name(f"{folder.name}.old-{os.getpid()}-{time.time_ns()}")
        if folder.exists():
            os.replace(folder, aside)  # at once out of the way, whatever interrupts the deleting
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.parent.glob(f"{folder.name}.old-*"):
            shutil.rmtree(old, ignore_errors=True)

    # -- inside -------------------------------------------------------------------------------

    @property
    def _seal(self) -> Path:
        return self._folder.with_name(self._folder.name + ".seal")

    def _listing(self) -> dict[str, list[int]]:
        files = sorted(p for p in self._folder.rglob("*") if p.is_file())
        stats = {str(p.relative_to(self._folder)): p.stat() for p in files}
        return {name: [s.st_size, s.st_mtime_ns] for name, s in stats.items()}

    def _closed_cleanly(self) -> bool:
        try:
            sealed = json.loads(self._seal.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(sealed == self._listing())

    def _probe(self) -> None:
        code = "import sys; from langchain_uno.logs.index import probe; probe(sys.argv[1])"
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, str(self._folder)],
                timeout=_PROBE_S,
                capture_output=True,
                check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        except subprocess.TimeoutExpired as error:
            raise IndexBroken(f"The index {str(self._folder)!r} does not answer.") from error
        if done.returncode != 0:
            raise IndexBroken(f"The index {str(self._folder)!r} is damaged.")

    def _connect(self) -> Any:
        return _client(self._folder)

    def _find(self) -> Any:
        if COLLECTION not in [c.name for c in self._client.list_collections()]:
            return None
        collection = self._client.get_collection(COLLECTION, embedding_function=None)
        metadata = collection.metadata or {}
        if metadata.get("schema") != SCHEMA or "dimension" not in metadata:
            raise IndexBroken(f"The index {str(self._folder)!r} has another schema.")
        if metadata.get("embedder") != self._fingerprint:
            raise ModelMismatchError(
                self._mismatch(self._fingerprint, str(metadata.get("embedder")))
            )
        return collection

    def _create(self, dimension: int) -> Any:
        return self._client.create_collection(
            COLLECTION,
            embedding_function=None,
            metadata={"schema": SCHEMA, "embedder": self._fingerprint, "dimension": dimension},
            configuration={"hnsw": {"space": "l2"}},
        )

    def _mismatch(self, ours: str, theirs: str) -> str:
        home = str(self._folder.parent)
        return (
            f"The vectors in {home!r} were made by embedder {theirs!r}, this run's is {ours!r}: "
            "use the model they were made with (--model), choose another --home, or embed all logs "
            f"anew with: python -m langchain_uno.logs drain --rebuild --home {home}"
        )

    def _get(self, run_ids: Sequence[str], include: list[str]) -> Iterator[Any]:
        if self._collection is None:
            return
        for start in range(0, len(run_ids), _PAGE):
            part = list(run_ids[start : start + _PAGE])
            try:
                yield self._collection.get(ids=part, include=include)
            except Exception as error:
                raise StoreError(
                    f"Chroma could not read {str(self._folder)!r} ({error}): run the command "
                    "again, a damaged index is rebuilt from the journal when it is opened."
                ) from error


def probe(folder: str) -> None:
    """Read every vector and run a query: raises, or dies, when the folder is damaged."""
    client = _client(Path(folder))
    if COLLECTION in [c.name for c in client.list_collections()]:
        collection = client.get_collection(COLLECTION, embedding_function=None)
        count = collection.count()
        for start in range(0, count, _PAGE):
            part = collection.get(limit=_PAGE, offset=start, include=["embeddings", "metadatas"])
            if not np.isfinite(np.asarray(part["embeddings"], dtype=np.float32)).all():
                raise ValueError("a vector is not finite")
        if count:
            zeros = np.zeros((1, int(collection.metadata["dimension"])), dtype=np.float32)
            collection.query(query_embeddings=zeros, n_results=1)
    client.close()


def _client(folder: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(
        path=str(folder), settings=Settings(anonymized_telemetry=False)
    )
