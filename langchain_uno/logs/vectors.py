"""A cache of vectors on disk, so that nothing is embedded twice by the same embedder.

    cached = CachedEmbedder(embedder, home.work / "vectors.sqlite3")
    cached.embed(texts)   # some hundreds at a time

Keyed by the embedder's fingerprint and a digest of the text; the text itself is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import numpy as np

from langchain_uno.models.answers import Cache
from langchain_uno.models.protocols import Embedder, FloatArray

_TABLE = (
    "CREATE TABLE IF NOT EXISTS vectors (embedder TEXT, text BLOB, vector BLOB, "
    "PRIMARY KEY (embedder, text)) WITHOUT ROWID"
)


class CachedEmbedder:
    """Wraps an embedder. The file is a cache: deleting it costs time only.

    Args:
        embedder: asked for what is not in the file.
        path: the SQLite file; made if missing.

    Raises:
        StoreError: the file can't be used.
    """

    def __init__(self, embedder: Embedder, path: Path) -> None:
        self._embedder = embedder
        self._cache = Cache(path, _TABLE)
        self.close = self._cache.close
        """Closes the file."""

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors, shape (n, d), float32, from the file where it has them."""
        keys, name = [_key(t) for t in texts], self._embedder.fingerprint
        found = self._look_up(keys)
        missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in found}
        if missing:
            made = np.asarray(self._embedder.embed(list(missing.values())), dtype=np.float32)
            fresh = dict(zip(missing, made, strict=True))
            rows = [(name, k, v.astype("<f4").tobytes()) for k, v in fresh.items()]
            self._cache.run_many("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
            found |= fresh
        if not keys:
            return np.zeros((0, 0), dtype=np.float32)
        return np.stack([found[k] for k in keys]).astype(np.float32, copy=False)

    def _look_up(self, keys: Sequence[bytes]) -> dict[bytes, FloatArray]:
        marks = ",".join("?" * len(keys))
        sql = f"SELECT text, vector FROM vectors WHERE embedder = ? AND text IN ({marks})"  # noqa: S608
        rows = self._cache.run(sql, self._embedder.fingerprint, *keys)
        return {key: np.frombuffer(blob, dtype="<f4") for key, blob in rows}


def keep_only(path: Path, texts: Iterable[str]) -> None:
    """Delete every vector but those of ``texts`` (of all embedders), bytes and all.

    Args:
        path: the cache's file; nothing happens when there is none.
        texts: whose vectors stay.

    Raises:
        StoreError: the file can't be used.
    """
    if not path.is_file():
        return
    with closing(Cache(path, _TABLE)) as cache:
        cache.run("PRAGMA secure_delete = ON")
        cache.run("CREATE TEMP TABLE kept (text BLOB PRIMARY KEY) WITHOUT ROWID")
        cache.run_many("INSERT OR IGNORE INTO kept VALUES (?)", ((_key(t),) for t in texts))
        cache.run("DELETE FROM vectors WHERE text NOT IN (SELECT text FROM kept)")
        cache.run("VACUUM")
        cache.run("PRAGMA wal_checkpoint(TRUNCATE)")


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
