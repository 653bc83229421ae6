"""Stage "cluster": group logs that ask alike (paper, stage 4), and hold some of each group back.

Queries and rules are embedded apart and joined, and Ward's tree over them is cut. The cut "ward" is
the authors': both halves L2-normalised, joined, normalised again, cut at distance 4. That threshold
depends on the number of logs. The cut "stable" splits where halves of the data agree on the split
(:mod:`langchain_uno.learning.separation`), makes no cluster below a minimum size, and chooses the
weight of the rule half from the data, without labels.

After this stage nothing but the verifier uses held-out logs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langchain_uno.errors import InputError, StoreError
from langchain_uno.learning.evolve import Parent, keep_apart, match_parents
from langchain_uno.learning.reach import Reach, everyday_requests, find_reach, means_of
from langchain_uno.learning.separation import (
    BLOCK,
    COMPARED,
    Floats,
    Ints,
    are_apart,
    cut_tree,
    split_foretold,
    split_more,
    ward_tree,
)
from langchain_uno.learning.split import DECIDING, query_key, split_logs
from langchain_uno.learning.work import ClusterData, Work, refresh_folders
from langchain_uno.logs.store import LogStore
from langchain_uno.models.judge import stable_seed
from langchain_uno.models.protocols import FloatArray
from langchain_uno.records import Interaction
from langchain_uno.reports.render import counted
from langchain_uno.serving.router import Router

WEIGHTS = (0.125, 0.25, 0.5, 1.0)
"""Weights of the rule half that are tried; 1 is the paper's equal halves."""
MAX_EXACT = 12_000
"""More logs than this are clustered by a sample; the rest join the nearest cluster."""
SAMPLE = 8_000
"""Logs of such a sample."""
LEAST = 16
"""Logs of a sample below which nothing is a cluster: a few strays make no centre."""
ODD = 4_000
"""Logs far from the clusters of the sample that are looked at for rare kinds of requests."""
WEIGHT_SAMPLE = 3_000
MIN_PREDICTED = 0.02
"""Share of the rules' variance that a routed query must foretell before rules may weigh more."""
REFINE_STEPS = 3


def cluster_stage(work: Work) -> dict[str, Any]:
    """Write ``clusters-cluster.jsonl``: who belongs together, and who is held out."""
    if not work.folder.has("queries.npy"):
        embed_requests(work)
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
    labels = keep_apart(work, labels)
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
        "note": f"{counted(len(clusters), 'cluster')} of {counted(len(logs), 'log')}, "
        f"{held} held out",
    }


def embed_requests(work: Work) -> None:
    """Bring the index up to the journal, and write the vectors of all requests.

    ``queries.npy`` has those of the usable logs, ``unheard.npy`` those that nobody reacted to.
    """
    work.progress.start("cluster", None, "embedding requests")
    with LogStore.open(work.home, work.embedder) as store:
        store.drain(work.counter("cluster"))
        unheard, queries = store.embeddings(list(work.unheard)), _queries(work, store)
    work.folder.write_array("unheard.npy", unheard)
    work.folder.write_array("queries.npy", queries)


def _queries(work: Work, store: LogStore) -> FloatArray:
    """Return the vectors of the requests; those that the last refresh had are in its folder."""
    found: dict[str, FloatArray] = {}
    for folder in refresh_folders(work.home.work):
        with suppress(StoreError, KeyError, ValueError):  # the index has them all
            vectors, ids = folder.read_array("queries.npy"), folder.read_json("usable.json")
            snapshot = folder.read_json("snapshot.json")
            if snapshot["embedder"] == work.embedder.fingerprint:
                contents = [snapshot["logs"][log_id]["content"] for log_id in ids]
                found |= dict(zip(contents, vectors, strict=True))
    missing = {i.content: i.run_id for i in work.heard.values() if i.content not in found}
    found |= dict(zip(missing, store.embeddings(list(missing.values())), strict=True))
    return np.stack([found[one.content] for one in work.heard.values()])


def reach_of(work: Work, labels: Ints) -> Reach:
    """Return how far the clusters of a refresh reach."""
    unseen = work.recipe.cluster.unseen
    few = unseen > 0 and int(labels.max()) < 2
    everyday = work.embedder.embed(everyday_requests()) if few else None
    return find_reach(work.queries, labels, unseen, everyday)


def labels_of(work: Work, clusters: Sequence[ClusterData]) -> Ints:
    """Return each log's cluster as a row of ``clusters``, in the order of the logs."""
    labels = np.empty(len(work.logs), dtype=np.int64)
    for label, cluster in enumerate(clusters):
        labels[[work.rows[log_id] for log_id in cluster.run_ids]] = label
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
    """Split a cluster; who taught its present module is not held out from it.

    Where that leaves too few to verify on, they are: the module can't be verified then.
    """
    share, seed = work.recipe.verify.held_out, stable_seed(work.recipe.seed, "split", parent.name)
    deciding = DECIDING if work.recipe.verify.level is not None else 0
    split = split_logs(members, work.voices, share, seed, deciding=deciding)
    if parent.module:
        apart = split_logs(
            members, work.voices, share, seed, teachers=parent.trained_on, deciding=deciding
        )
        if len(apart.verify) >= 0.5 * share * len(members):
            split = apart
    return ClusterData(
        id=parent.name,
        run_ids=[log.run_id for log in members],
        train=split.train,
        verify=split.verify,
        parent=parent.module,
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
    q, r = np.asarray(query), np.asarray(rules)
    n = len(q)
    parts = [slice(start, start + BLOCK) for start in range(0, n, BLOCK)]
    if not all(np.isfinite(half[part]).all() for half in (q, r) for part in parts):
        raise InputError("Embeddings to cluster hold values that are not finite (NaN or inf).")
    if n < 2:
        return np.zeros(n, dtype=np.int64)
    if n <= MAX_EXACT:
        rows = np.arange(n)
    else:
        rows = np.sort(np.random.default_rng(seed).choice(n, SAMPLE, replace=False))
    some = np.asarray(q[rows], dtype=np.float64), np.asarray(r[rows], dtype=np.float64)
    if cut == "ward":
        # Ward's distances grow with the root of the number of logs.
        labels = _paper(*some, threshold * math.sqrt(len(rows) / n))
        if len(rows) == n:
            return labels
        vectors = _Vectors(q, r, _paper_joint)
        return vectors.nearest(means_of(_paper_joint(*some), labels))[0]
    size = default_min_size(n) if min_size is None else min_size
    weight = choose_rule_weight(q, r, min_size=size, seed=seed)
    labels = _stable(_Vectors(q, r, _joint(*some, weight)), rows, size, seed)
    return _by_size(split_foretold(q, r, labels, size, seed))


def default_min_size(n: int) -> int:
    """Return the smallest cluster among n logs: n/10 within 4 and 8; sqrt(n)/4 above 1,000.

    It grows no more where a sample is clustered: what is enough for a module stays enough.
    """
    return max(min(8, max(4, n // 10)), round(math.sqrt(min(n, MAX_EXACT)) / 4))


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
    size = default_min_size(n) if min_size is None else min_size
    if n > WEIGHT_SAMPLE:
        rows = np.random.default_rng(seed).choice(n, WEIGHT_SAMPLE, replace=False)
        q, r = q[rows], r[rows]
        size = max(4, round(size * WEIGHT_SAMPLE / n))
    q, r = np.asarray(q, dtype=np.float64), np.asarray(r, dtype=np.float64)
    has = np.linalg.norm(r, axis=1) > 0
    if n < 8 or has.sum() < 4:
        return 0.0
    tried = []
    for weight in WEIGHTS:
        labels = _stable(_Vectors(q, r, _joint(q, r, weight)), np.arange(len(q)), size, seed)
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


def _paper_joint(q: Floats, r: Floats) -> Floats:
    return _unit(np.hstack([_unit(q), _unit(r)]))


def _paper(q: Floats, r: Floats, threshold: float) -> Ints:
    from sklearn.cluster import AgglomerativeClustering

    ward = AgglomerativeClustering(n_clusters=None, distance_threshold=threshold, linkage="ward")
    return np.asarray(ward.fit_predict(_paper_joint(q, r)), dtype=np.int64)


_See = Callable[[Floats, Floats], Floats]
"""Makes one vector of both halves of a log."""


def _standard(x: Floats) -> Callable[[Floats], Floats]:
    """Return what makes unit rows, centred, at a mean squared length of 1 for the rows given."""
    y = _unit(x)
    centre = y.mean(axis=0)
    scale = max(float(np.sqrt(((y - centre) ** 2).sum(axis=1).mean())), 1e-9)
    centre = centre.astype(x.dtype)
    return lambda rows: np.asarray((_unit(rows) - centre.astype(rows.dtype)) / scale)


def _joint(q: Floats, r: Floats, weight: float) -> _See:
    """Return what brings both halves to unit variance, so that a weight means the same for all.

    A log without rules sits at the mean of the rules: at the origin, where the paper's recipe
    leaves it, all such logs would be a cluster of their own.
    """
    of_query = _standard(q)
    has = np.linalg.norm(r, axis=1) > 0
    if weight <= 0 or has.sum() < 2:
        return lambda q, r: of_query(q)
    of_rules = _standard(r[has])

    def see(q: Floats, r: Floats) -> Floats:
        half = np.zeros_like(r)
        said = np.linalg.norm(r, axis=1) > 0
        half[said] = weight * of_rules(r[said])
        return np.hstack([of_query(q), half])

    return see


class _Vectors:
    """The vectors of all logs, made where they are looked at: there may be a million."""

    def __init__(self, q: Floats, r: Floats, see: _See) -> None:
        self._q, self._r, self._see = q, r, see
        # A few logs are compared exactly, many in half the time.
        self._kind: Any = np.float64 if len(q) <= MAX_EXACT else np.float32

    def __len__(self) -> int:
        return len(self._q)

    def __getitem__(self, rows: Ints | slice) -> Floats:
        q, r = self._q[rows], self._r[rows]
        return self._see(q.astype(self._kind, copy=False), r.astype(self._kind, copy=False))

    def nearest(self, centres: Floats) -> tuple[Ints, Floats, Floats]:
        """Return each log's nearest centre, its squared distance, and the means of these groups.

        A centre without any log stays where it is.
        """
        from scipy.sparse import csr_matrix

        n, k = len(self), len(centres)
        labels, distance = np.empty(n, dtype=np.int64), np.empty(n)
        means = np.zeros(centres.shape)
        table = centres.astype(self._kind)
        for start in range(0, n, BLOCK):
            x = self[slice(start, start + BLOCK)]
            part = slice(start, start + len(x))
            far = (table**2).sum(axis=1) - 2 * x @ table.T
            labels[part] = far.argmin(axis=1)
            distance[part] = far.min(axis=1) + (x**2).sum(axis=1)
            ones = np.ones(len(x), dtype=self._kind)
            means += csr_matrix((ones, (labels[part], np.arange(len(x)))), (k, len(x))) @ x
        counts = np.bincount(labels, minlength=k)[:, None]
        return labels, distance, np.where(counts > 0, means / np.maximum(counts, 1), centres)


def _stable(x: _Vectors, rows: Ints, min_size: int, seed: int) -> Ints:
    """Cut the tree of some rows (all, or a sample) where the data repeat it, and place the rest."""
    if len(rows) == len(x):
        centres = _cut(x[rows], min_size, seed)
    else:
        least = max(LEAST, round(min_size * len(rows) / len(x)))
        centres = _with_rare(x, _cut(x[rows], least, seed), min_size, seed)
    # A few steps of k-means from the cut mend rows that Ward joined too early.
    for _ in range(REFINE_STEPS):
        labels, _, centres = x.nearest(centres)
    return _absorb(labels, centres, min_size)


def _cut(x: Floats, min_size: int, seed: int) -> Floats:
    """Return the centres of the clusters of some rows."""
    x = np.asarray(x, dtype=np.float64)
    labels = _compact(cut_tree(x, *ward_tree(x), min_size, seed))
    labels = _absorb(labels, means_of(x, labels), min_size)
    labels = split_more(x, labels, min_size, seed)
    return means_of(x, labels)


def _with_rare(x: _Vectors, centres: Floats, min_size: int, seed: int) -> Floats:
    """Add the centres of clusters that a sample has too few logs of.

    What lies farthest from all centres, for the cluster there, is cut by itself. Of what comes of
    it the edges of known clusters are left out: they are no cloud of their own.
    """
    rng = np.random.default_rng(seed)
    labels, distance, _ = x.nearest(centres)
    usual = np.array([np.median(distance[labels == i]) for i in range(len(centres))])
    # A cluster of strays is wide: what is usual in it is not near.
    usual = np.maximum(np.minimum(usual, np.median(usual)), 1e-12)
    distance /= usual[labels]
    odd = np.sort(np.argsort(distance)[-ODD:])
    table = np.vstack([centres, _cut(x[odd], LEAST, seed)])
    labels, _, table = x.nearest(table)
    counts = np.bincount(labels, minlength=len(table))
    kept = [i for i in range(len(centres)) if counts[i] >= min_size]
    for new in range(len(centres), len(table)):
        if counts[new] < min_size:
            continue
        near = kept[int(((table[kept] - table[new]) ** 2).sum(axis=1).argmin())]
        old, own = (rng.permutation(np.flatnonzero(labels == i))[:COMPARED] for i in (near, new))
        if are_apart(x[np.sort(old)], x[np.sort(own)], rng):
            kept.append(new)
    return table[kept]


def _compact(labels: Ints) -> Ints:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _by_size(labels: Ints) -> Ints:
    """Number clusters from the largest to the smallest; equal sizes keep their order."""
    counts = np.bincount(labels)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[labels]


def _absorb(labels: Ints, centres: Floats, min_size: int) -> Ints:
    """Merge clusters below ``min_size`` into the nearest one, the smallest first."""
    centres = centres.copy()
    counts = np.bincount(labels, minlength=len(centres)).astype(np.float64)
    host_of = np.arange(len(centres))
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
        host_of[host_of == small] = host
    return _compact(host_of[labels])


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
