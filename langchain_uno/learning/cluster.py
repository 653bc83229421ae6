"""Group similar logs (paper, stage 4): Ward on query and rules, with a cut that needs no setting.

``mode="paper"`` is the authors' recipe: both halves L2-normalised, joined, normalised again, Ward
cut at distance 4. That threshold depends on the number of logs. ``mode="stable"`` (the default)
cuts the same kind of tree where the data repeat the split
(:mod:`langchain_uno.learning.separation`), gives no cluster below a minimum size, and chooses the
weight of the rule half from the data, without labels.

    labels = cluster_logs(query, rules)              # (n, d), (n, d2) -> (n,)
    centres = centroids(query, labels)               # (k, d): queries alone, as at request time
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langchain_uno.errors import InputError
from langchain_uno.learning.separation import Floats, Ints, cut_tree, ward_tree
from langchain_uno.models.protocols import FloatArray

__all__ = ["by_size", "centroids", "choose_rule_weight", "cluster_logs", "default_min_size"]

WEIGHTS = (0.125, 0.25, 0.5, 1.0)
"""Weights of the rule half that "auto" tries; 1 is the paper's equal halves."""
MAX_EXACT = 12_000
"""More logs than this are clustered on a sample of this many; the rest join the nearest cluster."""
WEIGHT_SAMPLE = 3_000
MIN_PREDICTED = 0.02
"""Share of the rules' variance that a routed query must foretell before rules may weigh more."""
REFINE_STEPS = 3


def cluster_logs(
    query: ArrayLike,
    rules: ArrayLike,
    mode: Literal["stable", "paper", "one"] = "stable",
    *,
    threshold: float = 4.0,
    rule_weight: float | Literal["auto"] = "auto",
    min_size: int | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return a cluster label for each log: ints from 0, shape (n,).

    Args:
        query: query embeddings, (n, d). Any scale: rows are L2-normalised.
        rules: embeddings of each log's rules, (n, d2); a row of zeros is a log without rules.
        mode: ``"stable"``, ``"paper"`` for the authors' fixed threshold (equal halves), or
            ``"one"``: no clustering, all logs together.
        threshold: Ward distance of mode "paper"; not used otherwise.
        rule_weight: weight of the rule half against the query half (both at unit variance) in mode
            "stable"; "auto" chooses it (:func:`choose_rule_weight`).
        min_size: smallest cluster of mode "stable"; None is :func:`default_min_size`.
        seed: of the random halvings; the same input and seed give the same labels.

    In mode "stable" clusters are numbered from the largest to the smallest.

    Raises:
        InputError: shapes that do not fit, values that are not finite, or an unknown mode.
    """
    q, r = _checked(query, rules)
    if mode not in ("stable", "paper", "one"):
        raise InputError(f"There is no clustering mode {mode!r}: use 'stable', 'paper' or 'one'.")
    if rule_weight != "auto" and not 0 <= float(rule_weight) < np.inf:
        raise InputError(f"rule_weight is {rule_weight!r}: use 'auto' or a number from 0 up.")
    if min_size is not None and min_size < 1:
        raise InputError(f"min_size is {min_size}: a cluster holds at least 1 log.")
    n = len(q)
    if n < 2 or mode == "one":
        return np.zeros(n, dtype=np.int64)
    if mode == "paper":
        return _paper(q, r, threshold)
    size = default_min_size(n) if min_size is None else min_size
    weight = (
        choose_rule_weight(q, r, min_size=size, seed=seed)
        if rule_weight == "auto"
        else float(rule_weight)
    )
    return by_size(_stable(_joint(q, r, weight), size, seed))


def default_min_size(n: int) -> int:
    """Return the smallest cluster among n logs: n/10 within 4 and 8; sqrt(n)/4 above 1,000."""
    return max(min(8, max(4, n // 10)), round(math.sqrt(n) / 4))


def centroids(query: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Return the mean *query* embedding of every cluster, (k, d) float32, row i for label i.

    Rules stay out because a new query has none (paper, stage 4).

    Raises:
        InputError: labels are not 0..k-1, or their number is not that of the queries.
    """
    x = np.asarray(query, dtype=np.float64)
    y = np.asarray(labels, dtype=np.int64)
    if x.ndim != 2 or y.shape != (len(x),):
        raise InputError(f"Queries of shape {x.shape} and labels of shape {y.shape} do not fit.")
    if len(y) and (y.min() < 0 or (np.bincount(y) == 0).any()):
        raise InputError("Labels must be 0..k-1 with at least one log each.")
    return _means(x, y).astype(np.float32)


def choose_rule_weight(
    query: ArrayLike, rules: ArrayLike, *, min_size: int | None = None, seed: int = 0
) -> float:
    """Choose the weight of the rule half from the data alone; 0 when hardly any log has rules.

    At request time there is only the query. So for each weight the logs are clustered, and each log
    is routed by its query to the nearest centroid (made without it). A good weight gives clusters
    that a query finds again (mutual information of cluster and route, less what the route leaves
    open) and whose routes foretell the rules (share of the rules' variance). Equal halves often
    fail the first: logs are then grouped by which wish a user happened to mention.
    """
    q, r = _checked(query, rules)
    n = len(q)
    has = np.linalg.norm(r, axis=1) > 0
    if n < 8 or has.sum() < 4:
        return 0.0
    size = default_min_size(n) if min_size is None else min_size
    if n > WEIGHT_SAMPLE:
        rows = np.random.default_rng(seed).choice(n, WEIGHT_SAMPLE, replace=False)
        q, r, has = q[rows], r[rows], has[rows]
        size = max(4, round(size * WEIGHT_SAMPLE / n))
    tried = []
    for weight in WEIGHTS:
        labels = _stable(_joint(q, r, weight), size, seed)
        route = _routes(q, labels)
        tried.append((weight, _found_again(labels, route), _foretold(r[has], route[has])))
    most = max(found for _, found, _ in tried)
    if most <= 0 or max(told for _, _, told in tried) < MIN_PREDICTED:
        return WEIGHTS[0]
    # Within a fifth of the best clusters, those that say most about the rules; then the heavier.
    good = [t for t in tried if t[1] >= 0.8 * most]
    return max(good, key=lambda t: (round(t[2], 2), round(t[1], 2), t[0]))[0]


def _checked(query: ArrayLike, rules: ArrayLike) -> tuple[Floats, Floats]:
    q = np.asarray(query, dtype=np.float64)
    r = np.asarray(rules, dtype=np.float64)
    if q.ndim != 2 or r.ndim != 2 or len(q) != len(r):
        raise InputError(
            f"Clustering needs query (n, d) and rules (n, d2); got {q.shape} and {r.shape}."
        )
    if not (np.isfinite(q).all() and np.isfinite(r).all()):
        raise InputError("Embeddings to cluster hold values that are not finite (NaN or inf).")
    return q, r


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _paper(q: Floats, r: Floats, threshold: float) -> Ints:
    from sklearn.cluster import AgglomerativeClustering

    joint = _unit(np.hstack([_unit(q), _unit(r)]))
    ward = AgglomerativeClustering(n_clusters=None, distance_threshold=threshold, linkage="ward")
    return np.asarray(ward.fit_predict(joint), dtype=np.int64)


def _standard(x: Floats) -> Floats:
    """Unit rows, centred, at a mean squared length of 1."""
    y = _unit(x)
    y = y - y.mean(axis=0)
    return np.asarray(y / max(float(np.sqrt((y**2).sum(axis=1).mean())), 1e-9))


def _joint(q: Floats, r: Floats, weight: float) -> Floats:
    """Both halves at unit variance, so that a weight means the same for every embedder.

    A log without rules sits at the mean of the rules: at the origin, where the paper's recipe
    leaves it, all such logs would be a cluster of their own.
    """
    x = _standard(q)
    has = np.linalg.norm(r, axis=1) > 0
    if weight <= 0 or has.sum() < 2:
        return x
    half = np.zeros_like(r)
    half[has] = _standard(r[has])
    return np.hstack([x, weight * half])


def _stable(x: Floats, min_size: int, seed: int) -> Ints:
    n = len(x)
    rows = np.arange(n)
    if n > MAX_EXACT:
        rows = np.sort(np.random.default_rng(seed).choice(n, MAX_EXACT, replace=False))
    part = x[rows]
    size = max(1, round(min_size * len(rows) / n))
    labels = _absorb(part, cut_tree(part, *ward_tree(part), size, seed), size)
    if len(rows) < n:
        labels = _nearest(x, _means(part, labels))
    # A few steps of k-means from the cut mend rows that Ward joined too early.
    for _ in range(REFINE_STEPS):
        labels = _compact(_nearest(x, _means(x, labels)))
    return _absorb(x, labels, min_size)


def _compact(labels: Ints) -> Ints:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def by_size(labels: Ints) -> Ints:
    """Number clusters from the largest to the smallest; equal sizes keep their order."""
    counts = np.bincount(labels)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[labels]


def _means(x: Floats, labels: Ints) -> Floats:
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return np.asarray(np.add.reduceat(x[order], starts, axis=0) / counts[:, None])


def _nearest(x: Floats, centres: Floats) -> Ints:
    return np.asarray(((centres**2).sum(axis=1) - 2 * x @ centres.T).argmin(axis=1), dtype=np.int64)


def _absorb(x: Floats, labels: Ints, min_size: int) -> Ints:
    """Merge clusters below ``min_size`` into the nearest one, the smallest first."""
    labels = _compact(labels)
    centres, counts = _means(x, labels), np.bincount(labels).astype(np.float64)
    while (counts > 0).sum() > 1:
        alive = np.flatnonzero(counts > 0)
        small = alive[counts[alive].argmin()]
        if counts[small] >= min_size:
            break
        others = alive[alive != small]
        host = others[((centres[others] - centres[small]) ** 2).sum(axis=1).argmin()]
        total = counts[host] + counts[small]
        centres[host] = (counts[host] * centres[host] + counts[small] * centres[small]) / total
        counts[host], counts[small] = total, 0.0
        labels[labels == small] = host
    return _compact(labels)


def _routes(q: Floats, labels: Ints) -> Ints:
    """Nearest query centroid of each log, the log itself left out of its own centroid."""
    x = _unit(q)
    counts = np.bincount(labels)
    centres = _means(x, labels)
    distance = (x**2).sum(axis=1)[:, None] - 2 * x @ centres.T + (centres**2).sum(axis=1)
    rows = np.arange(len(x))
    own = counts[labels]
    distance[rows, labels] *= (own / np.maximum(own - 1, 1)) ** 2
    return np.asarray(distance.argmin(axis=1), dtype=np.int64)


def _found_again(labels: Ints, route: Ints) -> float:
    """I(label; route) - H(label | route), in nats."""
    table = np.zeros((labels.max() + 1, labels.max() + 1))
    np.add.at(table, (labels, route), 1.0 / len(labels))

    def entropy(p: Floats) -> float:
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    left_open = entropy(table.ravel()) - entropy(table.sum(axis=0))
    return entropy(table.sum(axis=1)) - 2 * left_open


def _foretold(r: Floats, route: Ints) -> float:
    """Share of the rules' variance that the route's other logs foretell (leave one out)."""
    v = _unit(r)
    labels = _compact(route)
    counts = np.bincount(labels)
    keep = counts[labels] > 1
    if not keep.any():
        return 0.0
    n = len(v)
    sums = _means(v, labels) * counts[:, None]
    own = (sums[labels] - v) / np.maximum(counts[labels] - 1, 1)[:, None]
    overall = (v.sum(axis=0) - v) / (n - 1)
    base = float(((v - overall)[keep] ** 2).sum())
    return 1.0 - float(((v - own)[keep] ** 2).sum()) / base if base > 1e-12 else 0.0
