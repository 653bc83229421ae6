"""Planted clusters with the geometry of real embeddings (compare the 200 real dialogs' vectors).

Unit vectors with a common part; clusters of unequal sizes (the smallest about a third of the mean),
spreads of 0.3 to 0.7 of the squared length, 20 to 50 directions of falling variance each; a quarter
of the centres lie near another; a third of the logs have no rules, and three in ten clusters share
their rules with another one.
"""

from __future__ import annotations

import numpy as np

__all__ = ["planted"]


def planted(
    n: int, k: int, seed: int = 0, d: int = 384, *, rare: int = 0, of: int = 40
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return query (n, d), rules (n, d) and true labels (n,), shuffled.

    Args:
        n: how many logs.
        k: how many clusters.
        seed: of the world.
        d: dimensions.
        rare: so many of the clusters, the last ones, are small.
        of: how many logs each of these has.
    """
    rng = np.random.default_rng([seed, n, k])
    sizes = _sizes(n - rare * of, k - rare, rng)
    truth = np.repeat(np.arange(k), [*sizes, *[of] * rare])
    common = 0.3 * _unit(rng.normal(size=d))
    query = _half(truth, k, d, common, rng, share=0.0, spread=(0.3, 0.7))
    rules = _half(truth, k, d, common, rng, share=0.3, spread=(0.4, 0.8))
    rules[rng.random(n) < 0.33] = 0
    order = rng.permutation(n)
    return query[order], rules[order], truth[order]


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _sizes(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    share = 0.35 / k + 0.65 * rng.dirichlet(np.full(k, 3.0))
    counts = np.floor(share * n).astype(int)
    counts[rng.permutation(k)[: n - counts.sum()]] += 1
    return counts


def _half(
    truth: np.ndarray,
    k: int,
    d: int,
    common: np.ndarray,
    rng: np.random.Generator,
    *,
    share: float,
    spread: tuple[float, float],
) -> np.ndarray:
    centres = _unit(rng.normal(size=(k, d)))
    for i in range(1, k):
        if rng.random() < 0.25:
            centres[i] = _unit(0.75 * centres[rng.integers(i)] + 0.66 * centres[i])
        if rng.random() < share:
            centres[i] = centres[rng.integers(i)]
    x = np.empty((len(truth), d), dtype=np.float32)
    for i in range(k):
        rows = truth == i
        m = int(rng.integers(20, 51))
        basis = np.linalg.qr(rng.normal(size=(d, m)))[0]
        variance = np.arange(1, m + 1.0) ** -0.6
        noise = rng.normal(size=(int(rows.sum()), m)) * np.sqrt(variance / variance.sum())
        r2 = rng.uniform(*spread)
        x[rows] = _unit(np.sqrt(1 - r2) * centres[i] + common + np.sqrt(r2) * noise @ basis.T)
    return x
