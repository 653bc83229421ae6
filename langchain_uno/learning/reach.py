"""How far the clusters reach: which queries are like their logs, and which are like no log at all.

limit = unseen_threshold(vectors, labels)
cluster = assign(new_vectors, centroids(vectors, labels), limit)    # -1: unseen
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langchain_uno.errors import InputError
from langchain_uno.learning.cluster import centroids

__all__ = ["assign", "unseen_threshold"]


def unseen_threshold(vectors: ArrayLike, labels: ArrayLike, quantile: float = 0.995) -> float:
    """Return the distance beyond which a query is unlike all logs, from the logs themselves.

    A log pulls its centroid towards itself, so its distance is taken as if its centroid had been
    made without it (times m / (m - 1) in a cluster of m). Few logs hardly reach their own far
    quantile, so a normal tail of the same mean and spread is taken where it reaches farther.
    When no cluster has two logs nothing is known of their spread, and no query is refused.

    Args:
        vectors: query embeddings the clusters were made from, (n, d).
        labels: cluster of each, 0..k-1, (n,).
        quantile: share of such queries that must be let through, in (0, 1].

    Raises:
        InputError: shapes do not fit, no vectors, labels not 0..k-1, or a quantile out of range.
    """
    x = np.asarray(vectors, dtype=np.float64)
    y = np.asarray(labels, dtype=np.int64)
    if not len(x):
        raise InputError("A threshold needs at least one vector.")
    if not 0 < quantile <= 1:
        raise InputError(f"quantile is {quantile}: it is a share in (0, 1].")
    c = centroids(x, y).astype(np.float64)
    size = np.bincount(y, minlength=len(c))[y]
    own = np.linalg.norm(x - c[y], axis=1) * size / np.maximum(size - 1, 1)
    distances = own[size > 1]
    if not len(distances):
        return 2.0 * float(max(np.linalg.norm(x, axis=1).max(), 1.0))
    cut = float(np.quantile(distances, quantile))
    z = NormalDist().inv_cdf(min(quantile, 0.9999))
    return max(cut, float(distances.mean() + z * distances.std()))


def assign(
    vectors: ArrayLike,
    centres: ArrayLike,
    threshold: float,
    projection: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Return the nearest cluster of each vector, or -1 beyond ``threshold`` of all.

    The same rule as :class:`langchain_uno.serving.router.Router`, for many logs at once.

    Args:
        vectors: (n, d).
        centres: (k, d), k >= 1.
        threshold: distance beyond which a query is unseen.
        projection: (d, m); nearest is then meant after this map (``discriminant``), the threshold
            before it.
    """
    x, c = np.asarray(vectors, dtype=np.float64), np.asarray(centres, dtype=np.float64)
    if projection is not None:
        p = np.asarray(projection, dtype=np.float64)
        nearest = assign(x @ p, c @ p, np.inf)
        return np.where(assign(x, c, threshold) < 0, -1, nearest)
    out = np.full(len(x), -1, dtype=np.int64)
    for start in range(0, len(x), 1024):  # bounds the table of distances
        part = x[start : start + 1024]
        squares = (part**2).sum(1)[:, None] - 2.0 * part @ c.T + (c**2).sum(1)
        near = squares.argmin(axis=1)
        exact = np.linalg.norm(part - c[near], axis=1)
        out[start : start + 1024] = np.where(exact <= threshold, near, -1)
    return out
