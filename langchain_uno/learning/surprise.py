"""How surprising it is that so many of a group's logs mention a rule (Fisher's exact test)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Surprise"]


class Surprise:
    """-log of Fisher's one-sided p value for counts of hits, by a table over sizes.

    Args:
        n: logs.
        total: those that mention the rule.
        sizes: of the groups that will be asked about, shape (groups,).
    """

    def __init__(self, n: int, total: int, sizes: NDArray[np.int64]) -> None:
        from scipy.special import gammaln

        def log_choose(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
            inner = np.minimum(np.maximum(b, 0), a)
            value = gammaln(a + 1) - gammaln(inner + 1) - gammaln(a - inner + 1)
            return np.where((b < 0) | (b > a), -np.inf, value)

        rows, self._inverse = np.unique(sizes, return_inverse=True)
        size, hit = rows[:, None], np.arange(total + 1)[None, :]
        log_pmf = (
            log_choose(np.full_like(size, total), hit)
            + log_choose(np.full_like(size, n - total), size - hit)
            - log_choose(np.full_like(size, n), size)
        )
        tail = np.logaddexp.accumulate(log_pmf[:, ::-1], axis=1)[:, ::-1]
        self._table = np.minimum(-tail, 700.0)

    def __call__(self, hits: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the surprise at so many mentions in each group or more, shape (groups, any)."""
        return np.asarray(self._table[self._inverse[:, None], hits], dtype=np.float64)
