"""The index in an embedded folder: one Chroma collection, opened under a lease.

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
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from langchain_uno.errors import ModelMismatchError
from langchain_uno.logs.collection import COLLECTION, PAGE, IndexBroken, InteractionCollection
from langchain_uno.logs.hnsw_files import hnsw_trouble

__all__ = ["ChromaIndex", "index_state"]

_PROBE_S = 300


class ChromaIndex(InteractionCollection):
    """Only ever open one under the folder's lease.

    Args:
        folder: the embedded Chroma folder (``home.chroma``).
        fingerprint: of the embedder whose vectors go in.
        expected: how many records should be there; fewer means that it is broken.

    Raises:
        IndexBroken: damaged, or fewer records than expected.
        ModelMismatchError: the vectors there are another embedder's.
    """

    advice: ClassVar[str] = (
        "make room on the disk, then try again; a damaged index is rebuilt from the journal when "
        "it is opened, and nothing is lost"
    )

    def __init__(self, folder: Path, fingerprint: str, expected: int) -> None:
        self._folder = folder
        if not (folder / "chroma.sqlite3").is_file():
            if expected:
                raise IndexBroken(f"The index {str(folder)!r} is missing.")
        elif trouble := hnsw_trouble(folder):  # also after a clean close: the disk was full, say
            raise IndexBroken(f"The index {str(folder)!r} {trouble}.")
        elif not self._closed_cleanly():
            self._probe()
        self._seal.unlink(missing_ok=True)
        try:
            super().__init__(_client(folder), str(folder), fingerprint)
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

    @property
    def identity(self) -> str:
        """The folder: it belongs to this home's journal alone, and its count is checked."""
        return "embedded"

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
        found = probed(self._folder)
        if isinstance(found, str):
            raise IndexBroken(f"The index {str(self._folder)!r} {found}.")


def index_state(folder: Path, expected: set[str]) -> IndexBroken | None:
    """Look an embedded folder over whole, whatever embedder made it; None: sound.

    Hold the lease while you call it.

    Args:
        folder: ``home.chroma``.
        expected: the run_ids that it should have, no more and no fewer.
    """
    if not (folder / "chroma.sqlite3").is_file():
        return IndexBroken("it is missing") if expected else None
    found = probed(folder)
    if isinstance(found, str):
        return IndexBroken(f"it {found}")
    if found != expected:
        return IndexBroken(
            f"{len(expected - found)} records are missing, {len(found - expected)} too many"
        )
    return None


def probed(folder: Path) -> set[str] | str:
    """Compare the index's files, then let a child process read the folder whole.

    Returns:
        Its run_ids, or what is wrong with it.
    """
    if trouble := hnsw_trouble(folder):
        return trouble
    code = "import sys; from langchain_uno.logs.index import probe; probe(sys.argv[1])"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            timeout=_PROBE_S,
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
    except subprocess.TimeoutExpired:
        return "does not answer"
    if done.returncode != 0:
        return "is damaged"
    return set(json.loads(done.stdout.splitlines()[-1]))


def probe(folder: str) -> None:
    """Read every vector and run a query: raises, or dies, when the folder is damaged.

    Prints the run_ids as the last line, a JSON list.
    """
    client, run_ids = _client(Path(folder)), list[str]()
    if COLLECTION in [c.name for c in client.list_collections()]:
        collection = client.get_collection(COLLECTION, embedding_function=None)
        count = collection.count()
        for start in range(0, count, PAGE):
            part = collection.get(limit=PAGE, offset=start, include=["embeddings", "metadatas"])
            run_ids += part["ids"]
            if not np.isfinite(np.asarray(part["embeddings"], dtype=np.float32)).all():
                raise ValueError("a vector is not finite")
        if count:
            zeros = np.zeros((1, int(collection.metadata["dimension"])), dtype=np.float32)
            collection.query(query_embeddings=zeros, n_results=1)
    client.close()
    print(json.dumps(run_ids))  # noqa: T201 - to the parent


def _client(folder: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(
        path=str(folder), settings=Settings(anonymized_telemetry=False)
    )
