"""The directions in which clusters differ: what tells them apart, without what their logs share.

Fisher's linear discriminant with Ledoit and Wolf's shrinkage of the covariance within clusters
(scikit-learn's ``LinearDiscriminantAnalysis``). The nearest centroid after this map is the
likeliest cluster if all spread alike; directions in which the logs of one cluster differ among
themselves (a request's frame, its names) count for little. With weak embeddings that is the
difference between nine and ten requests of ten sent to the right cluster (docs/benchmarks.md). The
paper compares the embeddings as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from langchain_uno.models.protocols import FloatArray

__all__ = ["discriminant"]

FEWEST = 8
"""Logs a cluster, on average, below which the spread within clusters can't be told."""


def discriminant(vectors: ArrayLike, labels: ArrayLike) -> FloatArray | None:
    """Return a map of embeddings to the directions that tell clusters apart, (d, m), m < clusters.

    Args:
        vectors: query embeddings, (n, d).
        labels: cluster of each, 0..k-1, (n,).

    Returns:
        float32, to be multiplied from the right; None with fewer than two clusters, or fewer than
        eight logs a cluster, or when the logs of a cluster do not differ at all: there the
        embeddings as they are do better.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    x, y = np.asarray(vectors, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    k = int(y.max()) + 1 if len(y) else 0
    if k < 2 or len(x) < FEWEST * k:
        return None
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", priors=np.full(k, 1.0 / k))
    try:
        model.fit(x, y)
    except np.linalg.LinAlgError:  # no spread within clusters at all
        return None
    directions = np.asarray(model.scalings_[:, : k - 1], dtype=np.float32)
    return directions if np.isfinite(directions).all() else None
