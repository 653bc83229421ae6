"""Notice wishes that users no longer have, and wishes that came up later.

Concepts drift, and what was learnt from old logs then harms (Gama et al. 2014, A Survey on Concept
Drift Adaptation, doi 10.1145/2523813). A wish of a cluster has *gone* when its mentions stop while
the logs go on, and has *come* when they begin late. The moment is looked for over all of the
cluster's time, so a change is believed only where the mentions, shuffled over the logs, hardly ever
show one as sharp (as with conditions, :mod:`langchain_uno.learning.conditions`). It must show among
the people too: who floods a cluster makes everybody's wishes rare among its logs.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langchain_uno.learning.surprise import Surprise

__all__ = ["Change", "find_change"]

LEAST = 5
"""Logs on either side of a change."""
MAX_LEFT = 0.2
"""Highest rate on the quiet side, as a share of the rate on the other."""
MAX_CUTS = 32
"""Moments that are looked at, spread over the logs."""
SHUFFLES = 400
AT_ONCE = 0.1
"""Logs that came within so many seconds came at once (rows without a time are imported so)."""


class Change(NamedTuple):
    """When a wish came or went."""

    kind: Literal["gone", "come"]
    at: int
    """The first log, in their order in time, of what holds now."""
    p_value: float


def find_change(
    mentions: NDArray[np.bool_],
    times: NDArray[np.float64],
    people: NDArray[np.int64],
    *,
    alpha: float,
    seed: int = 0,
) -> Change | None:
    """Return where a wish came or went, or None where no change is believed.

    Args:
        mentions: whether each log names it, in their order in time, shape (n,).
        times: when they came, in seconds, ascending, shape (n,).
        people: whose they are, by number, shape (n,).
        alpha: accepted chance of a false change for a wish that never changed.
        seed: of the shuffles.
    """
    n, total = len(mentions), int(mentions.sum())
    if n < 2 * LEAST or total < 3:
        return None
    cuts = LEAST + np.flatnonzero(np.diff(times)[LEAST - 1 : n - LEAST] > AT_ONCE)
    if not len(cuts):
        return None
    cuts = cuts[np.linspace(0, len(cuts) - 1, min(len(cuts), MAX_CUTS)).round().astype(np.int64)]
    earlier: NDArray[np.int64] = np.cumsum(mentions, dtype=np.int64)[cuts - 1]
    before, after = earlier / cuts, (total - earlier) / (n - cuts)
    quiet = _is_quiet(before, after) & _is_quiet(*_among_people(mentions, people, cuts))
    # As surprising as so many before the cut, or so many after it.
    many, few = Surprise(n, total, cuts), Surprise(n, total, n - cuts)

    def sharpness(earlier: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.maximum(many(earlier), few(total - earlier))

    observed = np.where(quiet, sharpness(earlier[:, None])[:, 0], -np.inf)
    best = int(observed.argmax())
    # A search can't be surer than its best single test.
    if observed[best] < -np.log(alpha):
        return None
    rng = np.random.default_rng(seed)
    shuffles = np.stack([rng.permutation(mentions) for _ in range(SHUFFLES)], axis=1)
    by_chance: NDArray[np.int64] = np.cumsum(shuffles, axis=0, dtype=np.int64)[cuts - 1]
    strongest = sharpness(by_chance).max(axis=0)
    p = (1 + int((strongest >= observed[best] - 1e-9).sum())) / (1 + SHUFFLES)
    if p > alpha:
        return None
    return Change("gone" if after[best] < before[best] else "come", int(cuts[best]), p)


def _is_quiet(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.minimum(before, after) <= MAX_LEFT * np.maximum(before, after)


def _among_people(
    mentions: NDArray[np.bool_], people: NDArray[np.int64], cuts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of the people there that name it before, and after, each cut."""

    def share(side: slice) -> float:
        return len(np.unique(people[side][mentions[side]])) / len(np.unique(people[side]))

    before = [share(slice(0, cut)) for cut in cuts]
    after = [share(slice(cut, None)) for cut in cuts]
    return np.array(before), np.array(after)
