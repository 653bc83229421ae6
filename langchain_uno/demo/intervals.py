"""Means with 95 % intervals. The unit is the user: answers to one user's requests go together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Interval", "auc", "by_user"]

Interval = dict[str, float]
"""``mean``, ``low``, ``high``."""

_RESAMPLES = 4000


def by_user(values: ArrayLike, users: Sequence[Hashable], *, seed: int = 0) -> Interval:
    """Return the mean and its 95 % interval by resampling whole users (cluster bootstrap).

    Args:
        values: one a request, (n,); for a paired comparison the differences.
        users: who asked, n of them; those of different seeds must differ.
        seed: of the resampling.
    """
    x = np.asarray(values, dtype=np.float64)
    names, owner = np.unique(np.array([str(u) for u in users]), return_inverse=True)
    sums = np.bincount(owner, weights=x, minlength=len(names))
    counts = np.bincount(owner, minlength=len(names)).astype(np.float64)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(names), size=(_RESAMPLES, len(names)))
    draws = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"mean": float(x.mean()), "low": float(low), "high": float(high)}


def auc(scores: ArrayLike, truth: ArrayLike, *, seed: int = 0) -> Interval | None:
    """Return the area under the ROC curve with a 95 % bootstrap interval over its cases.

    None when all cases are of one kind: there is nothing to tell apart.
    """
    from sklearn.metrics import roc_auc_score

    x: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
    y: NDArray[np.bool_] = np.asarray(truth, dtype=bool)
    if y.all() or not y.any():
        return None
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(2000):
        pick = rng.integers(0, len(x), len(x))
        if y[pick].any() and not y[pick].all():
            draws.append(roc_auc_score(y[pick], x[pick]))
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"mean": float(roc_auc_score(y, x)), "low": float(low), "high": float(high)}
