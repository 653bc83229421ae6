"""Which cluster answers a query: the nearest centroid, or none when all are too far away.

>>> threshold = unseen_threshold(train_vectors, labels, quantile=0.995)
>>> choice = Router(centroids, ids, threshold).route(vector)
>>> choice.cluster_id        # None: a query unlike anything in the logs; the base model answers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from langchain_uno.errors import InputError
from langchain_uno.models.protocols import FloatArray

__all__ = ["RouteChoice", "Router"]

TOP_K = 3


@dataclass(frozen=True)
class RouteChoice:
    """Where a query goes, and how near it is."""

    cluster_id: str | None
    """None: farther from every centroid than the threshold, or there are no clusters."""
    distance: float
    """Euclidean distance to the chosen centroid (to the nearest, when none is chosen); infinite
    when there are no clusters."""
    top_k: list[tuple[str, float]]
    """The nearest clusters, threshold or not, nearest first: (id, distance). With a projection
    nearest is meant after it, and the distances before it."""


class Router:
    """Nearest centroid by Euclidean distance (paper, stage 4). Immutable, so safe to share.

    Args:
        centroids: mean query embeddings, (k, d); k may be 0.
        cluster_ids: k ids in the same order.
        threshold: distance beyond which a query is unseen; None: never.
        projection: (d, m); the nearest centroid is looked for after this map, which keeps the
            directions that tell clusters apart (``learning.reach.discriminant``). None: as they are.
        top_k: how many neighbours a choice names.

    Raises:
        InputError: shapes, ids or values that do not fit.
    """

    def __init__(
        self,
        centroids: ArrayLike,
        cluster_ids: Sequence[str],
        threshold: float | None = None,
        *,
        projection: ArrayLike | None = None,
        top_k: int = TOP_K,
    ) -> None:
        table = np.array(centroids, dtype=np.float32)  # a copy: the caller's may change
        if table.ndim != 2 or len(table) != len(cluster_ids):
            raise InputError(
                f"A router needs one centroid a cluster: got {table.shape} and "
                f"{len(cluster_ids)} cluster ids."
            )
        if not np.isfinite(table).all():
            raise InputError("A router's centroids must be finite (there is a NaN or inf).")
        if threshold is not None and not threshold >= 0:
            raise InputError(f"A routing threshold is a distance from 0 up, not {threshold!r}.")
        if top_k < 1:
            raise InputError(f"top_k is {top_k}: a choice names at least 1 cluster.")
        self._table = table
        self._map = None if projection is None else np.array(projection, dtype=np.float32)
        if self._map is not None and (
            self._map.ndim != 2
            or len(self._map) != table.shape[1]
            or not np.isfinite(self._map).all()
        ):
            raise InputError(
                f"A projection must be finite, of shape ({table.shape[1]}, m), not "
                f"{self._map.shape}."
            )
        self._seen = table if self._map is None else table @ self._map
        self._square = np.einsum("ij,ij->i", self._seen, self._seen)
        self._ids = tuple(cluster_ids)
        self._top = min(top_k, len(table))
        self.threshold = threshold

    def __len__(self) -> int:
        """Return the number of clusters."""
        return len(self._ids)

    @property
    def dimension(self) -> int:
        """Length of the vectors that are routed."""
        return int(self._table.shape[1])

    def route(self, vector: ArrayLike) -> RouteChoice:
        """Route one query vector, shape (d,)."""
        x = np.asarray(vector, dtype=np.float32)
        if x.ndim != 1:
            raise InputError(f"route() takes one vector of shape (d,), not {x.shape}.")
        self._check(x)
        if not self._ids:
            return RouteChoice(None, float("inf"), [])
        return self._choice(x, self._square - 2.0 * (self._seen @ self._mapped(x)))

    def route_batch(self, vectors: ArrayLike) -> list[RouteChoice]:
        """Route many query vectors, shape (n, d)."""
        x = np.asarray(vectors, dtype=np.float32)
        if x.ndim != 2:
            raise InputError(f"route_batch() takes vectors of shape (n, d), not {x.shape}.")
        self._check(x)
        if not self._ids:
            return [RouteChoice(None, float("inf"), []) for _ in x]
        out: list[RouteChoice] = []
        for start in range(0, len(x), 256):  # bounds the table of scores
            part = x[start : start + 256]
            scores = self._square - 2.0 * (self._mapped(part) @ self._seen.T)
            out += [self._choice(row, score) for row, score in zip(part, scores, strict=True)]
        return out

    def _mapped(self, x: FloatArray) -> FloatArray:
        return x if self._map is None else x @ self._map

    def _check(self, x: FloatArray) -> None:
        if self._ids and x.shape[-1] != self.dimension:
            raise InputError(
                f"The query's vector has {x.shape[-1]} numbers, the centroids {self.dimension}: "
                "they are of two embedders."
            )
        if not np.isfinite(x).all():
            raise InputError("A query's vector must be finite (there is a NaN or inf).")

    def _choice(self, x: FloatArray, scores: FloatArray) -> RouteChoice:
        """``scores`` is each squared distance less |x|^2, which is the same for all clusters."""
        near = (
            np.argpartition(scores, self._top - 1)[: self._top]
            if self._top < len(scores)
            else np.arange(len(scores))
        )
        # Exact distances for the few: the expansion loses digits where a query sits on a centroid.
        exact = np.linalg.norm(self._table[near].astype(np.float64) - x, axis=1)
        order = np.lexsort((near, exact if self._map is None else scores[near]))
        top = [(self._ids[near[i]], float(exact[i])) for i in order]
        name, distance = top[0]
        if self.threshold is None or distance <= self.threshold:
            return RouteChoice(name, distance, top)
        # Too far from the likeliest: unseen, unless another one is near.
        nearest = distance
        if self._map is not None:
            nearest = float(np.linalg.norm(self._table.astype(np.float64) - x, axis=1).min())
        return RouteChoice(None if nearest > self.threshold else name, nearest, top)
