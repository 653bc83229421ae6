"""How far a cluster reaches: which cluster answers a new request, and when the base does.

    reach = find_reach(vectors, labels, 0.995, everyday)
    router = Router(reach.centroids, ids, reach.limit, space=reach.space)

The paper sends every request to the nearest centroid. Here a request on another topic goes to the
base model. Each eighth of the clusters is left out in turn, and stands for other topics. For half
of the clusters the limit refuses 99.5 % of the left-out requests; it always lets 90 % of the
requests in other wordings pass. A cluster whose requests lie as near to another cluster as that
cluster's own requests in other wordings is of the same topic, and does not count. With fewer than
three clusters everyday requests (``everyday.txt``) stand for other topics.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langchain_uno.models.protocols import FloatArray
from langchain_uno.releases.space import Space

DIRECTIONS = 128
"""How many directions are damped at most; 256 change no figure of ``make bench-routing``."""
ROWS = 1000
"""Logs that the directions are looked for in: enough for as many, and bounds the time."""
LOGS = 1000
"""Logs of a cluster that the limit is made from: it bounds the time for a million logs."""
FOLDS = 8
PHRASINGS = 4
"""Groups of a cluster's logs that are left out in turn: they stand for other wordings."""
PASSING = 0.9
"""Share of requests in other wordings that pass, whatever left-out clusters say: logs of other
topics may have got into every cluster."""
NOISE = 1e-6
"""How far 1 - cosine of two equal vectors may be from 0."""


@dataclass(frozen=True)
class Reach:
    """Centroids of the clusters, and how requests are compared with them."""

    centroids: FloatArray
    """(k, d), row i for label i."""
    space: Space | None = None
    """Where angles are taken; None: Euclidean distances of the embeddings as they are (paper)."""
    limit: float | None = None
    """1 - cosine beyond which a request is unseen; None: none is."""
    coverage: float | None = None
    """Share of requests in held-out wordings that reach their own cluster; None: not known."""


def find_reach(
    vectors: ArrayLike, labels: ArrayLike, unseen: float, everyday: ArrayLike | None = None
) -> Reach:
    """Find centroids, space, limit and coverage from the logs of the clusters.

    Args:
        vectors: query embeddings the clusters were made from, (n, d).
        labels: cluster of each, 0..k-1, (n,).
        unseen: share of a left-out cluster's requests that must go to the base, in [0, 1); 0: every
            request goes to the nearest centroid.
        everyday: embeddings of other requests, (m, d); needed with fewer than three clusters.
    """
    y = np.asarray(labels, dtype=np.int64)
    table = centroids(vectors, y)
    if not unseen or not len(table):
        return Reach(table)
    rows = np.sort(np.concatenate([m[:: -(-len(m) // LOGS)] for m in _members(y)]))
    x, y = np.asarray(vectors)[rows].astype(np.float64), y[rows]
    if len(table) >= 3:
        others, folds = None, min(FOLDS, len(table))
        alone = np.empty(len(y))
        for fold in range(folds):
            out = y % folds == fold
            alone[out] = _farness(*_fitted(x[~out], y[~out]), x[out])
        left_out = [alone[y == label] for label in range(len(table))]
    else:
        others = np.asarray(everyday, dtype=np.float64)
        left_out = [_farness(*_fitted(x, y, others), others)]
    far, home = _other_wordings(x, y, others)
    least = float(np.quantile(far, PASSING)) if len(far) else NOISE
    apart = [one for one in left_out if np.median(one) > least] or left_out
    limit = float(np.median([np.quantile(one, 1 - unseen) for one in apart]))
    limit = max(limit, least, NOISE)
    coverage = float(np.mean(home & (far <= limit))) if len(far) else None
    return Reach(table, _fitted(x, y, others)[0], limit, coverage)


def _fitted(
    x: NDArray[np.float64], y: NDArray[np.int64], others: NDArray[np.float64] | None = None
) -> tuple[Space, FloatArray]:
    """Return the space of some clusters and their centroids; labels may have holes."""
    y = np.unique(y, return_inverse=True)[1]
    table = means_of(x, y)
    centre = table.mean(axis=0) if others is None else others.mean(axis=0)
    return Space(centre.astype(np.float32), _damped(x - table[y])), table.astype(np.float32)


def _damped(within: NDArray[np.float64]) -> FloatArray:
    """Return the directions in which logs of one cluster differ, (d, r), as long as damped.

    The covariance within clusters, shrunk (Ledoit and Wolf 2004), is brought to that of the
    directions that differ least.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    if len(within) < 2:  # one log is its cluster's mean
        return np.zeros((within.shape[1], 1), dtype=np.float32)
    some = within[:: -(-len(within) // ROWS)]
    shrinkage = ledoit_wolf_shrinkage(some, assume_centered=True)
    directions, size, _ = np.linalg.svd(some.T / np.sqrt(len(some)), full_matrices=False)
    spread = size[:DIRECTIONS] ** 2
    least = shrinkage * (size**2).sum() / some.shape[1]
    if not least > 0:  # the logs of every cluster are all the same
        return np.zeros((some.shape[1], 1), dtype=np.float32)
    less = 1 - np.sqrt(least / ((1 - shrinkage) * spread + least))
    return np.asarray(directions[:, :DIRECTIONS] * np.sqrt(less), dtype=np.float32)


def _farness(space: Space, table: FloatArray, x: NDArray[np.float64]) -> FloatArray:
    """Return 1 - cosine to the nearest centroid, (n,)."""
    return np.asarray(1 - (space.see(x) @ space.see(table).T).max(axis=1))


def _other_wordings(
    x: NDArray[np.float64], y: NDArray[np.int64], others: NDArray[np.float64] | None
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Leave out the logs of each cluster that are worded alike, and route them by the rest.

    Returns 1 - cosine to the nearest centroid, and whether that is their own; nothing where the
    clusters are too small.
    """
    from sklearn.cluster import AgglomerativeClustering

    wording = np.zeros(len(y), dtype=np.int64)
    for label in range(int(y.max()) + 1):
        rows = np.flatnonzero(y == label)
        if len(rows) > 1:
            groups = AgglomerativeClustering(min(PHRASINGS, len(rows)))
            wording[rows] = groups.fit_predict(x[rows])
    far, home = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.bool_)]
    for group in range(PHRASINGS):
        out = wording == group
        if not out.any() or len(np.unique(y[~out])) <= int(y.max()):
            continue
        space, table = _fitted(x[~out], y[~out], others)
        near = space.see(x[out]) @ space.see(table).T
        far.append(1 - near.max(axis=1))
        home.append(near.argmax(axis=1) == y[out])
    return np.concatenate(far), np.concatenate(home)


def centroids(query: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Return the mean *query* embedding of every cluster, (k, d) float32, row i for label i.

    Rules stay out because a new query has none (paper, stage 4).
    """
    return means_of(np.asarray(query), np.asarray(labels, dtype=np.int64)).astype(np.float32)


def means_of(x: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean row of every label, (k, d)."""
    return np.array([x[rows].mean(axis=0, dtype=np.float64) for rows in _members(labels)])


def _members(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows of every label."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


@lru_cache(maxsize=1)
def everyday_requests() -> list[str]:
    """Return requests on many topics, in five languages: what a home's clusters are not about."""
    text = resources.files("langchain_uno.learning").joinpath("everyday.txt").read_text("utf-8")
    return text.splitlines()
