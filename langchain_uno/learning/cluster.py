"""Stage "cluster": group logs that ask alike (paper, stage 4), and hold some of each group back.

Queries and rules are embedded apart and joined, and Ward's tree over them is cut. The cut "ward" is
the authors': both halves L2-normalised, joined, normalised again, cut at distance 4. That threshold
depends on the number of logs. The cut "stable" goes where halves of the data repeat it
(:mod:`langchain_uno.learning.separation`), makes no cluster below a minimum size, and chooses the
weight of the rule half from the data, without labels.

From here on verification logs are not looked at before the verifier does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langchain_uno.errors import InputError
from langchain_uno.learning.evolve import Parent, match_parents
from langchain_uno.learning.reach import Reach, everyday_requests, find_reach, means_of
from langchain_uno.learning.separation import Floats, Ints, cut_tree, ward_tree
from langchain_uno.learning.split import DECIDING, query_key, split_logs
from langchain_uno.learning.work import ClusterData, Work
from langchain_uno.models.judge import stable_seed
from langchain_uno.records import Interaction
from langchain_uno.serving.router import Router

__all__ = [
    "asker_of",
    "choose_rule_weight",
    "cluster_logs",
    "cluster_stage",
    "default_min_size",
    "labels_of",
    "reach_of",
    "sent_to",
    "smallest_cluster",
]

WEIGHTS = (0.125, 0.25, 0.5, 1.0)
"""Weights of the rule half that are tried; 1 is the paper's equal halves."""
MAX_EXACT = 12_000
"""More logs than this are clustered on a sample of this many; the rest join the nearest cluster."""
WEIGHT_SAMPLE = 3_000
MIN_PREDICTED = 0.02
"""Share of the rules' variance that a routed query must foretell before rules may weigh more."""
REFINE_STEPS = 3


def cluster_stage(work: Work) -> dict[str, Any]:
    """Write ``clusters-cluster.jsonl``: who belongs together, and who is held out."""
    logs = list(work.logs.values())
    work.progress.start("cluster", len(logs), "embedding rules")
    wishes = ["\n".join(r.text for r in work.distilled[g.run_id].with_feedback) for g in logs]
    rules = work.embedder.embed(wishes, work.counter("cluster"))
    settings = work.recipe.cluster
    labels = cluster_logs(
        work.queries,
        rules,
        settings.cut,
        threshold=settings.threshold,
        min_size=settings.min_size,
        seed=work.recipe.seed,
    )
    groups = [[logs[i] for i in np.flatnonzero(labels == n)] for n in range(int(labels.max()) + 1)]
    parents = match_parents(work, [{log.run_id for log in members} for members in groups])
    clusters = [_split(work, some, parent) for some, parent in zip(groups, parents, strict=True)]
    _add_unlabelled(work, clusters, labels)
    work.folder.write_records("clusters-cluster.jsonl", clusters)
    held = sum(len(c.verify) for c in clusters)
    return {
        "clusters": len(clusters),
        "train": sum(len(c.train) for c in clusters),
        "held_out": held,
        "note": f"{len(clusters)} clusters of {len(logs)} logs, {held} held out",
    }


def reach_of(work: Work, labels: Ints) -> Reach:
    """Return how far the clusters of a refresh reach."""
    unseen = work.recipe.cluster.unseen
    few = unseen > 0 and int(labels.max()) < 2
    everyday = work.embedder.embed(everyday_requests()) if few else None
    return find_reach(work.queries, labels, unseen, everyday)


def labels_of(work: Work, clusters: Sequence[ClusterData]) -> Ints:
    """Return each log's cluster as a row of ``clusters``, in the order of the logs."""
    rows = {log_id: i for i, log_id in enumerate(work.logs)}
    labels = np.empty(len(rows), dtype=np.int64)
    for label, cluster in enumerate(clusters):
        labels[[rows[log_id] for log_id in cluster.run_ids]] = label
    return labels


def sent_to(work: Work) -> dict[str, str | None]:
    """Return the cluster to which serving would send each log's request, by id; None: the base."""
    found = work.clusters()
    near = _router(work, found, labels_of(work, found)).route_batch(work.queries)
    return {log_id: one.cluster_id for log_id, one in zip(work.logs, near, strict=True)}


def _router(work: Work, clusters: Sequence[ClusterData], labels: Ints) -> Router:
    reach = reach_of(work, labels)
    return Router(reach.centroids, [c.id for c in clusters], reach.limit, space=reach.space)


def smallest_cluster(work: Work) -> int:
    """Return how many logs a cluster needs for a module of its own."""
    return work.recipe.cluster.min_size or default_min_size(len(work.logs))


def _split(work: Work, members: list[Interaction], parent: Parent) -> ClusterData:
    """Split a cluster; who taught a module that may be kept is not held out from it.

    Where that leaves too few to verify on, the module is not kept.
    """
    share, seed = work.recipe.verify.held_out, stable_seed(work.recipe.seed, "split", parent.name)
    deciding = DECIDING if work.recipe.verify.level is not None else 0
    split = split_logs(members, work.voices, share, seed, deciding=deciding)
    module = None
    if parent.module:
        apart = split_logs(
            members, work.voices, share, seed, teachers=parent.trained_on, deciding=deciding
        )
        if len(apart.verify) >= 0.5 * share * len(members):
            split, module = apart, parent.module
    return ClusterData(
        id=parent.name,
        run_ids=[log.run_id for log in members],
        train=split.train,
        verify=split.verify,
        split_by=split.by,
        parent=module,
    )


def _add_unlabelled(work: Work, clusters: Sequence[ClusterData], labels: Ints) -> None:
    """Give each cluster the requests near it that nobody reacted to; serving would send them there.

    They serve verification alone, and whoever it trains on does not serve it.
    """
    if not work.unheard:
        return
    near = _router(work, clusters, labels).route_batch(work.folder.read_array("unheard.npy"))
    rows = {cluster.id: label for label, cluster in enumerate(clusters)}
    known = [{query_key(work.logs[i]) for i in c.run_ids} for c in clusters]
    teachers = [{asker_of(work.logs[i]) for i in c.train} for c in clusters]
    for log, choice in zip(work.unheard.values(), near, strict=True):
        if choice.cluster_id is None:
            continue
        label = rows[choice.cluster_id]
        if query_key(log) in known[label] or asker_of(log) in teachers[label]:
            continue
        known[label].add(query_key(log))
        clusters[label].unlabelled.append(log.run_id)


def asker_of(log: Interaction) -> str:
    """Return whose a request is: its user's, else its thread's, each request's own at worst.

    The same names as :func:`langchain_uno.records.voice_of` gives users and threads, so that who
    speaks in one log and asks in another is one person.
    """
    if log.user_id:
        return f"user:{log.user_id}"
    return f"thread:{log.thread_id}" if log.thread_id else f"request:{log.run_id}"


def cluster_logs(
    query: ArrayLike,
    rules: ArrayLike,
    cut: Literal["stable", "ward"] = "stable",
    *,
    threshold: float = 4.0,
    min_size: int | None = None,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Return a cluster label for each log: ints from 0, shape (n,).

    Args:
        query: query embeddings, (n, d). Any scale: rows are L2-normalised.
        rules: embeddings of each log's rules, (n, d2); a row of zeros is a log without rules.
        cut: ``"stable"``, or ``"ward"`` for the authors' fixed threshold and equal halves.
        threshold: Ward distance of the cut "ward"; not used otherwise.
        min_size: smallest cluster of the cut "stable"; None is :func:`default_min_size`.
        seed: of the random halvings; the same input and seed give the same labels.

    The cut "stable" numbers clusters from the largest to the smallest.

    Raises:
        InputError: a value is not finite.
    """
    q, r = np.asarray(query, dtype=np.float64), np.asarray(rules, dtype=np.float64)
    if not (np.isfinite(q).all() and np.isfinite(r).all()):
        raise InputError("Embeddings to cluster hold values that are not finite (NaN or inf).")
    n = len(q)
    if n < 2:
        return np.zeros(n, dtype=np.int64)
    if cut == "ward":
        return _paper(q, r, threshold)
    size = default_min_size(n) if min_size is None else min_size
    weight = choose_rule_weight(q, r, min_size=size, seed=seed)
    return _by_size(_stable(_joint(q, r, weight), size, seed))


def default_min_size(n: int) -> int:
    """Return the smallest cluster among n logs: n/10 within 4 and 8; sqrt(n)/4 above 1,000."""
    return max(min(8, max(4, n // 10)), round(math.sqrt(n) / 4))


def choose_rule_weight(
    q: Floats, r: Floats, *, min_size: int | None = None, seed: int = 0
) -> float:
    """Choose the weight of the rule half from the data alone; 0 when hardly any log has rules.

    At request time there is only the query. So for each weight the logs are clustered, and each log
    is routed by its query to the nearest centroid (made without it). A good weight gives clusters
    that a query finds again (mutual information of cluster and route, less what the route leaves
    open) and whose routes foretell the rules (share of the rules' variance). Equal halves often
    fail the first: logs are then grouped by which wish a user happened to mention.
    """
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
        labels = _nearest(x, means_of(part, labels))
    # A few steps of k-means from the cut mend rows that Ward joined too early.
    for _ in range(REFINE_STEPS):
        labels = _compact(_nearest(x, means_of(x, labels)))
    return _absorb(x, labels, min_size)


def _compact(labels: Ints) -> Ints:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _by_size(labels: Ints) -> Ints:
    """Number clusters from the largest to the smallest; equal sizes keep their order."""
    counts = np.bincount(labels)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[labels]


def _nearest(x: Floats, centres: Floats) -> Ints:
    return np.asarray(((centres**2).sum(axis=1) - 2 * x @ centres.T).argmin(axis=1), dtype=np.int64)


def _absorb(x: Floats, labels: Ints, min_size: int) -> Ints:
    """Merge clusters below ``min_size`` into the nearest one, the smallest first."""
    labels = _compact(labels)
    centres, counts = means_of(x, labels), np.bincount(labels).astype(np.float64)
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
    centres = means_of(x, labels)
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
    sums = means_of(v, labels) * counts[:, None]
    own = (sums[labels] - v) / np.maximum(counts[labels] - 1, 1)[:, None]
    overall = (v.sum(axis=0) - v) / (n - 1)
    base = float(((v - overall)[keep] ** 2).sum())
    return 1.0 - float(((v - own)[keep] ** 2).sum()) / base if base > 1e-12 else 0.0
