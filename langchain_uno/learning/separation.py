"""Where to cut a Ward tree without a threshold: keep the splits that the data repeat.

The height of a merge in a Ward tree grows with the number of logs, so no fixed height is right for
50 logs and for 10,000. Two figures of a node's two children depend neither on the number of logs,
nor on the number of clusters, nor on the scale of the vectors:

- *separation*: take the direction between the children from one half of their logs, and split the
  *other* half along it. For one cloud cut in two it is near 2.65 (two halves of a Gaussian, in
  units of their own spread) whatever the cloud's size and dimension; for two clouds it is their
  distance.
- *mixing*: how often a near neighbour of the smaller child's logs lies in the other child, as a
  share of what chance would give. Halves of one cloud mix; two clouds hardly do.

A node is split when both figures say so, or when the evidence for the splits below it outweighs the
evidence against its own. A cluster is also split where requests foretell which of two groups of
rules people name: such people want different things, and the request tells who they are. The
constants are the same for every input (``lab/experiments.md`` has the figures).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langchain_uno.models.embedders import unit_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_SEPARATION = 4.0
"""Held-out separation from which two large children count as two clouds (one cloud: 2.65)."""
SMALL_PENALTY = 10.0
"""Divided by the smaller child's size and added to that bound: few logs look separated by luck."""
MAX_MIXING = 0.5
"""Mixing, as a share of chance, up to which two children count as two clouds."""
NEIGHBOURS = 8
REPEATS = 16
"""Random halvings over which the separation is averaged (each used in both directions)."""
REFINE_STEPS = 3
"""Steps of k-means between two children, before the figures are taken."""
STARTS = 10
"""Runs of k-means of which the best is a split to look at."""
LEAST_SHARE = 0.3
"""Share of a cluster that such a split has on its smaller side at least."""
COMPARED = 1_000
"""Logs of a side that tell whether it is another cloud than the other one."""
MIN_FORETOLD = 0.9
"""Held-out balanced accuracy from which requests foretell which rules their people name."""
BLOCK = 16_384
"""Logs that are looked at together, where there may be a million."""
FOLDS = 5
"""Parts of a cluster, each held out once from that foretelling."""
SAME = 1 - 1e-5
"""Cosine from which two requests are one: its vector differs a little from batch to batch."""


def ward_tree(x: Floats) -> tuple[Floats, Ints]:
    """Return scipy's Ward linkage of x (n, d) and each row's nearest rows, nearest first (n, k).

    Peak memory is about twice the condensed float64 matrix: 8 n^2 bytes, 0.8 GB at n = 10,000.
    """
    from scipy.cluster.hierarchy import linkage

    return np.asarray(linkage(x, "ward")), _near(x)


def _near(x: Floats) -> Ints:
    """Return the nearest other rows of each row, nearest first, (n, k)."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(x) - 1), algorithm="brute").fit(x)
    return np.asarray(found.kneighbors(return_distance=False), dtype=np.int64)


def are_apart(a: Floats, b: Floats, rng: np.random.Generator) -> bool:
    """Whether two groups of rows are two clouds; see :func:`split_evidence`."""
    x, rows = np.concatenate([a, b]), np.arange(len(a) + len(b))
    return split_evidence(x, _near(x), rows[: len(a)], rows[len(a) :], rng) > 0


def split_more(x: Floats, labels: Ints, min_size: int, seed: int = 0) -> Ints:
    """Split clusters in two for as long as the best of some k-means is two clouds.

    Ward joins for good: where it joined two kinds early, no node of its tree parts them.

    Args:
        x: vectors, (n, d).
        labels: ints from 0, (n,).
        min_size: no part is smaller than twice that.
        seed: of k-means and the halvings.

    Returns:
        New labels; the parts split off have the highest ones.
    """
    from sklearn.cluster import KMeans

    labels, rng = labels.copy(), np.random.default_rng(seed)
    todo = list(range(int(labels.max()) + 1))
    while todo:
        label = todo.pop()
        rows = np.flatnonzero(labels == label)
        if len(rows) < 4 * min_size:
            continue
        right = KMeans(2, n_init=STARTS, random_state=seed).fit_predict(x[rows]) == 1
        # What takes off a fringe, requests that come up again, is no other kind.
        if min(right.sum(), (~right).sum()) < max(2 * min_size, LEAST_SHARE * len(rows)):
            continue
        sides = [rng.permutation(rows[side])[:COMPARED] for side in (~right, right)]
        if are_apart(x[np.sort(sides[0])], x[np.sort(sides[1])], rng):
            new = int(labels.max()) + 1
            labels[rows[right]] = new
            todo += [label, new]
    return labels


def split_foretold(q: Floats, r: Floats, labels: Ints, min_size: int, seed: int = 0) -> Ints:
    """Split clusters in two where the requests foretell which rules people name.

    The groups are 2-means of the rules. A linear classifier of the requests has to tell the groups
    of held-out logs; then each log of the cluster, with rules or without, goes where it says.

    Args:
        q: vectors of the requests, (n, d), of any scale.
        r: vectors of the rules, (n, d2), too; a row of zeros is a log without rules.
        labels: ints from 0, (n,).
        min_size: no part is smaller.
        seed: of k-means and of what is held out.

    Returns:
        New labels; the parts split off have the highest ones.
    """
    from sklearn.cluster import KMeans
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    labels, rng = labels.copy(), np.random.default_rng(seed)
    tell, folds = RidgeClassifier(class_weight="balanced"), StratifiedKFold(FOLDS)
    todo = list(range(int(labels.max()) + 1))
    while todo:
        label = todo.pop()
        rows = np.flatnonzero(labels == label)
        some = rng.permutation(rows)[: 2 * COMPARED]
        said = some[r[some].any(axis=1)]
        if len(said) < 2 * FOLDS:
            continue
        known = unit_rows(q[said].astype(np.float64))
        # A request that comes again would be held out from itself: it counts once.
        once = (known @ known.T > SAME).argmax(axis=1) == np.arange(len(said))
        said, known = said[once], known[once]
        wishes = unit_rows(r[said].astype(np.float64))
        if len(said) < 2 * min_size or len(np.unique(wishes.round(5), axis=0)) < 2:
            continue
        group = KMeans(2, n_init=STARTS, random_state=seed).fit_predict(wishes)
        few = min(group.sum(), len(group) - group.sum())
        if few < max(min_size, FOLDS, LEAST_SHARE * len(said)):
            continue
        told = cross_val_predict(tell, known, group, cv=folds)
        if balanced_accuracy_score(group, told) < MIN_FORETOLD:
            continue
        tell.fit(known, group)
        parts = np.array_split(rows, 1 + len(rows) // BLOCK)
        side = [tell.predict(unit_rows(q[part].astype(np.float64))) for part in parts]
        right = np.concatenate(side) == 1
        if min_size <= right.sum() <= len(rows) - min_size:
            new = int(labels.max()) + 1
            labels[rows[right]] = new
            todo += [label, new]
    return labels


def split_evidence(x: Floats, near: Ints, a: Ints, b: Ints, rng: np.random.Generator) -> float:
    """Evidence that rows a and b are two clouds: positive when they are, in [-1, 1].

    Ward joins some rows too early: each row counts to the side whose mean is nearer.
    """
    a, b = _nearer(x, a, b)
    if min(len(a), len(b)) < 2:  # no half of one log can be held out
        return 0.0
    evidence = np.log(MAX_MIXING / max(_mixing(near, a, b, len(x)), 1e-3))
    if evidence > -1.0:
        asked = MIN_SEPARATION + SMALL_PENALTY / min(len(a), len(b))
        evidence = min(evidence, np.log(max(_separation(x, a, b, rng), 1e-3) / asked))
    return float(np.clip(evidence, -1.0, 1.0))


def _nearer(x: Floats, a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Return both sides after a few steps of k-means; as they were, where one loses too many."""
    rows, left = np.concatenate([a, b]), np.arange(len(a) + len(b)) < len(a)
    for _ in range(REFINE_STEPS):
        ca, cb = x[rows[left]].mean(axis=0), x[rows[~left]].mean(axis=0)
        nearer = x[rows] @ (cb - ca) <= (cb @ cb - ca @ ca) / 2
        if min(nearer.sum(), (~nearer).sum()) < min(len(a), len(b)) / 2:
            return a, b
        left = nearer
    return rows[left], rows[~left]


def _separation(x: Floats, a: Ints, b: Ints, rng: np.random.Generator) -> float:
    """Mean held-out separation of rows a and b, in pooled standard deviations."""
    values = []
    for _ in range(REPEATS):
        pa, pb = rng.permutation(a), rng.permutation(b)
        for side in (0, 1):
            ca, cb = x[pa[side::2]].mean(axis=0), x[pb[side::2]].mean(axis=0)
            axis = cb - ca
            held = np.concatenate([pa[1 - side :: 2], pb[1 - side :: 2]])
            p = x[held] @ axis - (ca + cb) @ axis / 2
            left, right = p[p <= 0], p[p > 0]
            if len(left) < 2 or len(right) < 2:
                values.append(0.0)
                continue
            variance = (left.var() * len(left) + right.var() * len(right)) / max(len(p) - 2, 1)
            values.append((right.mean() - left.mean()) / np.sqrt(variance + 1e-18))
    return float(np.mean(values))


def _mixing(near: Ints, a: Ints, b: Ints, n: int) -> float:
    """How often neighbours of the smaller side lie on the other one; 1.0 is chance."""
    small, large = (a, b) if len(a) <= len(b) else (b, a)
    side = np.zeros(n, dtype=np.int8)
    side[small], side[large] = 1, 2
    # A cluster of six can't have eight neighbours of its own.
    sides = side[near[small, : max(2, len(small) // 2)]]
    inside = int((sides > 0).sum())
    if inside == 0:
        return 0.0
    chance = len(large) / (len(a) + len(b))
    return float((sides == 2).sum() / inside / chance)


def cut_tree(x: Floats, tree: Floats, near: Ints, min_size: int, seed: int = 0) -> Ints:
    """Cut a Ward tree where the evidence is best; return labels (n,). Clusters may be tiny.

    Bottom up, a node keeps the better of being one cluster (0) and being split (its own evidence
    plus the best of its children), so that one doubtful split does not hide good ones below it.
    A child smaller than ``min_size`` is no evidence either way.
    """
    from scipy.cluster.hierarchy import leaves_list

    n = len(x)
    order = leaves_list(tree).astype(np.int64)
    rng = np.random.default_rng(seed)
    size = np.concatenate([np.ones(n), tree[:, 3]]).astype(np.int64)
    children = tree[:, :2].astype(np.int64)
    # Every node's rows are one stretch of the leaf order.
    start = np.zeros(2 * n - 1, dtype=np.int64)
    for node in range(2 * n - 2, n - 1, -1):
        left, right = children[node - n]
        start[left], start[right] = start[node], start[node] + size[left]
    best = np.zeros(2 * n - 1)
    for node in range(n, 2 * n - 1):
        left, right = children[node - n]
        value = best[left] + best[right]
        if min(size[left], size[right]) >= min_size:
            rows = order[start[node] : start[node] + size[node]]
            value += split_evidence(x, near, rows[: size[left]], rows[size[left] :], rng)
        best[node] = max(0.0, value)
    labels = np.empty(n, dtype=np.int64)
    stack, found = [2 * n - 2], 0
    while stack:
        node = stack.pop()
        if best[node] > 0.0:
            stack.extend(children[node - n].tolist())
        else:
            labels[order[start[node] : start[node] + size[node]]] = found
            found += 1
    return labels
