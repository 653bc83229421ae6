"""Which cluster answers a query: the nearest centroid, or none when all are too far away.

>>> choice = Router(centroids, ids, threshold, space=space).route(vector)
>>> choice.cluster_id        # None: a query unlike anything in the logs; the base model answers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from langchain_uno.errors import InputError
from langchain_uno.models.protocols import FloatArray
from langchain_uno.releases.space import Space

TOP_K = 3
"""How many neighbours a choice names."""


@dataclass(frozen=True)
class RouteChoice:
    """Where a query goes, and how near it is."""

    cluster_id: str | None
    """None: farther from every centroid than the threshold, or there are no clusters."""
    distance: float
    """To the nearest centroid: 1 - cosine in a release's space, Euclidean without one; infinite
    when there are no clusters."""
    top_k: list[tuple[str, float]]
    """The nearest clusters, threshold or not, nearest first: (id, distance)."""


class Router:
    """Nearest centroid (paper, stage 4). Immutable, so safe to share.

    Args:
        centroids: mean query embeddings, (k, d); k may be 0.
        cluster_ids: k ids in the same order.
        threshold: distance beyond which a query is unseen; None: never.
        space: where angles are compared; None: Euclidean distances of the vectors as they are.

    Raises:
        InputError: the threshold is no distance.
    """

    def __init__(
        self,
        centroids: ArrayLike,
        cluster_ids: Sequence[str],
        threshold: float | None = None,
        *,
        space: Space | None = None,
    ) -> None:
        table = np.array(centroids, dtype=np.float32)  # a copy: the caller's may change
        if threshold is not None and not threshold >= 0:
            raise InputError(f"A routing threshold is a distance from 0 up, not {threshold!r}.")
        self._space = space
        self._dimension = table.shape[1]
        self._table = table if space is None else space.see(table)
        self._square = np.einsum("ij,ij->i", self._table, self._table)
        self._ids = tuple(cluster_ids)
        self.threshold = threshold

    def route(self, vector: ArrayLike) -> RouteChoice:
        """Route one query vector, shape (d,)."""
        return self.route_batch(np.asarray(vector)[None])[0]

    def route_batch(self, vectors: ArrayLike) -> list[RouteChoice]:
        """Route many query vectors, shape (n, d)."""
        x = np.asarray(vectors, dtype=np.float32)
        if not self._ids:
            return [RouteChoice(None, float("inf"), []) for _ in x]
        if x.shape[1] != self._dimension:
            raise InputError(
                f"The query's vector has {x.shape[1]} numbers, the centroids {self._dimension}: "
                "they are of two embedders."
            )
        if not np.isfinite(x).all():
            raise InputError("A query's vector must be finite (there is a NaN or inf).")
        out: list[RouteChoice] = []
        for start in range(0, len(x), 256):  # bounds the table of scores
            part = x[start : start + 256]
            seen = part if self._space is None else self._space.see(part)
            scores = self._square - 2.0 * (seen @ self._table.T)
            out += [self._choice(row, score) for row, score in zip(seen, scores, strict=True)]
        return out

    def _choice(self, x: FloatArray, scores: FloatArray) -> RouteChoice:
        """``scores`` is each squared distance less |x|^2, which is the same for all clusters."""
        near = np.argsort(scores)[:TOP_K]
        # Exact distances for the few: the expansion loses digits where a query sits on a centroid.
        rows = self._table[near].astype(np.float64)
        distances = np.linalg.norm(rows - x, axis=1) if self._space is None else 1 - rows @ x
        order = np.lexsort((near, distances))
        top = [(self._ids[near[i]], float(distances[i])) for i in order]
        name, distance = top[0]
        unseen = self.threshold is not None and distance > self.threshold
        return RouteChoice(None if unseen else name, distance, top)
