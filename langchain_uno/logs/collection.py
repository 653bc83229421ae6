"""One Chroma collection of interactions, with vectors made elsewhere; others say where it lies.

``index.ChromaIndex`` opens it in an embedded folder, ``server.ServerIndex`` on a Chroma server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from langchain_uno.errors import ModelMismatchError, StoreError
from langchain_uno.models.protocols import FloatArray

__all__ = ["COLLECTION", "PAGE", "SCHEMA", "IndexBroken", "InteractionCollection"]

COLLECTION = "interactions"
SCHEMA = 1
PAGE = 1000


class IndexBroken(StoreError):
    """The index is damaged, missing or incomplete: fill it again from the journal."""


class InteractionCollection:
    """What can be done with the collection once there is a client; made by its two children.

    Args:
        client: a Chroma client of the right tenant and database.
        where: the store's name in messages.
        fingerprint: of the embedder whose vectors go in.
    """

    advice: ClassVar[str] = "try again; nothing is lost, the journal has it all"

    def __init__(self, client: Any, where: str, fingerprint: str) -> None:
        self._client = client
        self._where = where
        self._fingerprint = fingerprint
        self._collection = self._find()

    # -- records ------------------------------------------------------------------------------

    def count(self) -> int:
        """How many records there are."""
        if self._collection is None:
            return 0
        return int(self._ask("read", lambda: self._collection.count()))

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
            self._collection = self._ask("write", lambda: self._create(d))
            self._check(self._collection)  # another host may have been first
        if self.dimension != d:
            raise ModelMismatchError(self._mismatch(f"{d} numbers a vector", f"{self.dimension}"))
        self._ask(
            "write",
            lambda: self._collection.upsert(
                ids=list(run_ids),
                embeddings=vectors,
                metadatas=[dict(m) for m in metadatas],
                documents=list(documents),
            ),
        )

    def delete(self, run_ids: Sequence[str]) -> None:
        """Take records out; unknown run_ids are fine. Their bytes may stay in Chroma's files."""
        for start in range(0, len(run_ids) if self._collection is not None else 0, PAGE):
            part = list(run_ids[start : start + PAGE])
            self._ask("write", lambda part=part: self._collection.delete(ids=part))

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

    def records(self) -> Iterator[str]:
        """Every stored record as JSON text, in Chroma's order."""
        for part in self._pages(["metadatas"]):
            for metadata in part["metadatas"]:
                yield str(metadata["record"])

    def run_ids(self) -> set[str]:
        """Of every record."""
        return {run_id for part in self._pages([]) for run_id in part["ids"]}

    def nearest(self, vector: FloatArray, k: int) -> list[tuple[str, float]]:
        """The ``k`` nearest records: (run_id, Euclidean distance), nearest first. Exact.

        Chroma's own search is approximate, and where many records ask the same thing its graph
        falls apart: it has answered with distance 0.8 where a fifth of the records were equal.
        """
        near: list[tuple[float, str]] = []
        for part in self._pages(["embeddings"]):
            there = np.asarray(part["embeddings"], dtype=np.float32)
            far = np.linalg.norm(there - np.asarray(vector, dtype=np.float32), axis=1)
            near = sorted([*near, *zip(far.tolist(), part["ids"], strict=True)])[:k]
        return [(run_id, distance) for distance, run_id in near]

    # -- inside -------------------------------------------------------------------------------

    def _find(self) -> Any:
        if COLLECTION not in [c.name for c in self._client.list_collections()]:
            return None
        collection = self._client.get_collection(COLLECTION, embedding_function=None)
        self._check(collection)
        return collection

    def _check(self, collection: Any) -> None:
        metadata = collection.metadata or {}
        if metadata.get("schema") != SCHEMA or "dimension" not in metadata:
            raise IndexBroken(f"The index {self._where!r} has another schema.")
        if metadata.get("embedder") != self._fingerprint:
            raise ModelMismatchError(
                self._mismatch(self._fingerprint, str(metadata.get("embedder")))
            )

    def _create(self, dimension: int) -> Any:
        # "get_or": several hosts may begin at once; the first one's metadata stand.
        return self._client.get_or_create_collection(
            COLLECTION,
            embedding_function=None,
            metadata={"schema": SCHEMA, "embedder": self._fingerprint, "dimension": dimension},
            configuration={"hnsw": {"space": "l2"}},
        )

    def _mismatch(self, ours: str, theirs: str) -> str:
        return (
            f"The vectors in {self._where!r} were made by embedder {theirs!r}, this run's is "
            f"{ours!r}: use the model they were made with (--model), choose another --home, or "
            "embed all logs anew with: python -m langchain_uno.logs drain --rebuild --home DIR"
        )

    def _get(self, run_ids: Sequence[str], include: list[str]) -> Iterator[Any]:
        for start in range(0, len(run_ids) if self._collection is not None else 0, PAGE):
            part = list(run_ids[start : start + PAGE])
            yield self._ask(
                "read", lambda part=part: self._collection.get(ids=part, include=include)
            )

    def _pages(self, include: list[str]) -> Iterator[Any]:
        if self._collection is None:
            return
        offset = 0
        while True:
            part = self._ask(
                "read",
                lambda offset=offset: self._collection.get(
                    limit=PAGE, offset=offset, include=include
                ),
            )
            if not part["ids"]:
                return
            yield part
            offset += len(part["ids"])

    def _ask(self, what: str, work: Any) -> Any:
        try:
            return work()
        except Exception as error:
            raise StoreError(
                f"Chroma could not {what} {self._where!r} ({_brief(error)}): {self.advice}."
            ) from error


def _brief(error: Exception) -> str:
    """The error's first line: Chroma's messages may quote what was sent."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
