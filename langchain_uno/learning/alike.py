"""Undo divisions that are of no use: neighbours that want the same, or that no request tells apart.

A Ward tree over many logs also finds how requests are phrased, and that is no reason for modules of
their own: every part has fewer logs to learn from and to verify on. Two neighbouring clusters are
joined where it is likelier that their people want the same than that they don't: by the Bayes
factor (Kass and Raftery 1995, doi 10.1080/01621459.1995.10476572) of "each cluster names each rule
at a rate of its own" against "both at one rate".

And rules, half of what is clustered, may part logs of one kind of request: those with wishes from
those without, those of before a change from those of after it. A new request has no rules; if a
discriminant can't tell the queries of two neighbours apart, no route can. And whom a module serves
well says nothing more: what one module answers, to its users' content, is one kind of request,
though too few speak to tell. None of it is in the paper.

    labels = merge_alike(queries, labels, wishes, people)          # (n, d), (n,) -> (n,)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langchain_uno.errors import InputError
from langchain_uno.learning.cluster import by_size

__all__ = ["merge_alike"]

APART = 0.0
"""Log of the Bayes factor for different wishes from which two clusters stay apart. At 1 two
families that shared two wishes of three became one (lab/experiments.md)."""
FEWEST = 3
"""People who must have said something in each of two clusters before they can be called alike, and
who must name a rule in either of them for it to tell."""
NAMED, UNNAMED = 0.5, 2.0
"""The prior of a rule's rate, a beta distribution: most rules are named by few of the people."""
TOLD = 0.75
"""Area under the ROC curve of a cross-validated discriminant from which queries are told apart."""
FOLDS = 3


class _Cluster(NamedTuple):
    """What is known of a cluster while neighbours are being joined."""

    rows: NDArray[np.int64]
    centre: NDArray[np.float64]
    people: int
    """Who said something."""
    votes: Counter[str]
    """For each rule the people who named it; one vote each, shared among what they said."""
    module: str | None
    """The one with which most are content of those whom modules answered; three logs at least."""
    served: bool
    """Whether they are most of all."""


def merge_alike(
    queries: ArrayLike,
    labels: ArrayLike,
    wishes: Sequence[Collection[str] | None],
    people: Sequence[str],
    served: Sequence[str | None] | None = None,
) -> NDArray[np.int64]:
    """Join clusters with the nearest one that is alike, or not told apart; return labels (n,).

    Args:
        queries: query embeddings, (n, d); the nearest cluster is told by their means.
        labels: cluster of each log, 0..k-1, (n,).
        wishes: the rules that each log's user named, equal wishes by equal texts; empty: content
            with the answer as it was; None: said nothing either way.
        people: who each log is from.
        served: the module that answered each log, where its user asked for nothing more; None (or
            None for a log): the base did, or the user was not content.

    Returns:
        Labels from 0, numbered from the largest cluster to the smallest; those of
        :func:`cluster.cluster_logs` come back as they are where nothing is joined.

    Raises:
        InputError: the lengths do not fit.
    """
    x, y = np.asarray(queries, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    by = [None] * len(x) if served is None else served
    if not len(x) == len(y) == len(wishes) == len(people) == len(by):
        raise InputError(
            f"Queries, labels, wishes, people and modules do not fit: {len(x)}, {len(y)}, "
            f"{len(wishes)}, {len(people)} and {len(by)}."
        )

    def look(rows: NDArray[np.int64]) -> _Cluster:
        return _look(rows, x, wishes, people, by)

    clusters = {int(label): look(np.flatnonzero(y == label)) for label in np.unique(y)}
    evidence: dict[tuple[int, int], float] = {}
    following = max(clusters, default=0) + 1
    while len(clusters) > 1:
        near = _neighbours(clusters)
        for a, b in near:
            if (a, b) not in evidence:
                told = _told_apart(x[clusters[a].rows], x[clusters[b].rows])
                evidence[a, b] = _evidence(clusters[a], clusters[b]) if told else -np.inf
        first, second = min(near, key=lambda pair: (evidence[pair], pair))
        if evidence[first, second] >= APART:
            break
        rows = np.concatenate([clusters.pop(first).rows, clusters.pop(second).rows])
        clusters[following] = look(np.sort(rows))
        following += 1
    out = np.empty(len(y), dtype=np.int64)
    for i, number in enumerate(sorted(clusters)):
        out[clusters[number].rows] = i
    return by_size(out)


def _look(
    rows: NDArray[np.int64],
    x: NDArray[np.float64],
    wishes: Sequence[Collection[str] | None],
    people: Sequence[str],
    served: Sequence[str | None],
) -> _Cluster:
    said: dict[str, list[Collection[str]]] = defaultdict(list)
    for i in rows.tolist():
        named = wishes[i]
        if named is not None:
            said[people[i]].append(named)
    votes: Counter[str] = Counter()
    for times in said.values():
        for named in times:
            for rule in set(named):
                votes[rule] += 1 / len(times)  # type: ignore[assignment]
    content = Counter(name for i in rows.tolist() if (name := served[i]) is not None)
    [(module, count)] = content.most_common(1) or [(None, 0)]
    known = module if count >= FEWEST else None
    mostly = 2 * count > len(rows)
    return _Cluster(rows, x[rows].mean(axis=0), len(said), votes, known, mostly)


def _neighbours(clusters: dict[int, _Cluster]) -> list[tuple[int, int]]:
    """Return every cluster with the one nearest to it, the lower number first."""
    numbers = sorted(clusters)
    centres = np.stack([clusters[number].centre for number in numbers])
    square = (centres**2).sum(axis=1)
    distance = square[:, None] + square[None, :] - 2 * centres @ centres.T
    np.fill_diagonal(distance, np.inf)
    pairs = zip(numbers, (numbers[j] for j in distance.argmin(axis=1)), strict=True)
    return sorted({(min(pair), max(pair)) for pair in pairs})


def _evidence(a: _Cluster, b: _Cluster) -> float:
    """Return the log of the Bayes factor for different wishes.

    Where too few spoke: minus infinity if the module that serves them is the other's too, else
    infinity. Infinity too where each is served by a module of its own, and where no wish is common:
    without one there is nothing that both want.
    """
    from scipy.special import betaln

    same = a.module is not None and a.module == b.module
    if a.served and b.served and not same:
        return float("inf")
    if min(a.people, b.people) < FEWEST:
        quiet = [one for one in (a, b) if one.people < FEWEST]
        return -float("inf") if same and all(one.served for one in quiet) else float("inf")
    # What hardly anyone names is nobody's common wish: it tells neither alike from unlike.
    rules = [r for r in sorted({*a.votes, *b.votes}) if a.votes[r] + b.votes[r] >= FEWEST]
    if not rules:
        return float("inf")
    in_a, in_b = (np.array([float(c.votes[rule]) for rule in rules]) for c in (a, b))

    def likelihood(named: NDArray[np.float64], among: int) -> NDArray[np.float64]:
        return np.asarray(betaln(NAMED + named, UNNAMED + among - named) - betaln(NAMED, UNNAMED))

    apart = likelihood(in_a, a.people) + likelihood(in_b, b.people)
    return float((apart - likelihood(in_a + in_b, a.people + b.people)).sum())


def _told_apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether a discriminant made without them tells most of the queries of two clusters apart."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if min(len(a), len(b)) < FOLDS:
        return True  # too few to say
    if not (np.ptp(a, axis=0).any() or np.ptp(b, axis=0).any()):  # no spread to discriminate by
        return not np.allclose(a[0], b[0])
    x, side = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(model, x, side, cv=folds, method="decision_function")
    return float(roc_auc_score(side, scores)) >= TOLD
