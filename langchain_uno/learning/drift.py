"""Notice wishes that users no longer have, and wishes that came up later.

Concepts drift, and what was learnt from old logs then harms (Gama et al. 2014, A Survey on Concept
Drift Adaptation, doi 10.1145/2523813). A wish of a cluster has *gone* when its mentions stop while
the logs go on, and has *come* when they begin late. The moment is looked for over all of the
cluster's time, so a change is believed only where the mentions, shuffled over the logs, hardly ever
show one as sharp (as with conditions, :mod:`langchain_uno.learning.conditions`). It must show among
the people too: who floods a cluster makes everybody's wishes rare among its logs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langchain_uno.learning.surprise import Surprise

__all__ = ["Change", "Swap", "find_change", "find_swap"]

LEAST, LEAST_SWAP = 5, 3
"""Logs on either side of a change, and of one wish's giving way to another."""
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


class Swap(NamedTuple):
    """When one wish gave way to another."""

    gone: int
    come: int
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
    found = _Search(mentions[:, None], times, people, LEAST)
    change = found.best(lambda gone, come: np.maximum(gone, come).max(axis=0), alpha, seed)
    if change is None:
        return None
    at, p = change
    gone, come = found.here
    kind: Literal["gone", "come"] = "gone" if gone[0, at] >= come[0, at] else "come"
    return Change(kind, int(found.cuts[at]), p)


def find_swap(
    mentions: NDArray[np.bool_],
    times: NDArray[np.float64],
    people: NDArray[np.int64],
    *,
    alpha: float,
    seed: int = 0,
) -> Swap | None:
    """Return where one wish gave way to another at one moment, or None.

    Two weak signs at the same time are a strong one: this sees changes that :func:`find_change`
    has too few logs for.

    Args:
        mentions: whether each log names each wish, in their order in time, shape (n, wishes).
        times: when they came, in seconds, ascending, shape (n,).
        people: whose they are, by number, shape (n,).
        alpha: accepted chance of a false swap where nothing changed.
        seed: of the shuffles.
    """
    if mentions.shape[1] < 2:
        return None
    found = _Search(mentions, times, people, LEAST_SWAP)
    swap = found.best(lambda gone, come: gone.max(axis=0) + come.max(axis=0), alpha, seed)
    if swap is None:
        return None
    at, p = swap
    gone, come = found.here
    return Swap(int(gone[:, at].argmax()), int(come[:, at].argmax()), int(found.cuts[at]), p)


Score = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""From the surprise at each wish having gone, and come, at each cut: shape (wishes, cuts, ...)."""


class _Search:
    """A search for the moment at which something changed."""

    def __init__(
        self,
        mentions: NDArray[np.bool_],
        times: NDArray[np.float64],
        people: NDArray[np.int64],
        least: int,
    ) -> None:
        n = len(mentions)
        cuts = least + np.flatnonzero(np.diff(times)[least - 1 : n - least] > AT_ONCE)
        if len(cuts) > MAX_CUTS:
            cuts = cuts[np.linspace(0, len(cuts) - 1, MAX_CUTS).round().astype(np.int64)]
        self.cuts: NDArray[np.int64] = cuts
        self._mentions = mentions
        self._totals = mentions.sum(axis=0)
        self._tables = [
            # As surprising as so many before the cut; as so many after it.
            (Surprise(n, int(total), cuts), Surprise(n, int(total), n - cuts))
            for total in self._totals
        ]
        before, after = _rates(mentions, cuts)
        people_before, people_after = _among_people(mentions, people, cuts)
        gone, come = self._surprise(mentions[:, :, None])
        went = (after <= MAX_LEFT * before) & (people_after <= MAX_LEFT * people_before)
        came = (before <= MAX_LEFT * after) & (people_before <= MAX_LEFT * people_after)
        self.here = (
            np.where(went, gone[:, :, 0], -np.inf),
            np.where(came, come[:, :, 0], -np.inf),
        )
        """The surprise at each wish having gone, and come, at each cut where it looks so."""

    def best(self, score: Score, alpha: float, seed: int) -> tuple[int, float] | None:
        """Return the best cut's number and its p value, or None where none is believed."""
        if not len(self.cuts):
            return None
        observed = score(*self.here)
        at = int(observed.argmax())
        # A search can't be surer than its best single test.
        if observed[at] < -np.log(alpha):
            return None
        rng = np.random.default_rng(seed)
        orders = np.stack([rng.permutation(len(self._mentions)) for _ in range(SHUFFLES)], axis=1)
        # (n, wishes, shuffles): a log's wishes stay together.
        shuffled = self._mentions[orders].transpose(0, 2, 1)
        strongest = score(*self._surprise(shuffled)).max(axis=0)
        p = (1 + int((strongest >= observed[at] - 1e-9).sum())) / (1 + SHUFFLES)
        return (at, p) if p <= alpha else None

    def _surprise(
        self, mentions: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        before = _until(mentions, self.cuts)
        gone, come = [], []
        for j, (many, few) in enumerate(self._tables):
            gone.append(many(before[:, j]))
            come.append(few(int(self._totals[j]) - before[:, j]))
        return np.stack(gone), np.stack(come)


def _until(mentions: NDArray[np.bool_], cuts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many logs before each cut name each wish, shape (cuts, ...).

    Summed from cut to cut: a running sum over all logs, 400 times shuffled, is a gigabyte.
    """
    parts = [mentions[a:b].sum(axis=0, dtype=np.int64) for a, b in pairwise([0, *cuts])]
    sums = np.array(parts, dtype=np.int64).reshape(len(cuts), *mentions.shape[1:])
    return np.cumsum(sums, axis=0)


def _rates(
    mentions: NDArray[np.bool_], cuts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of the logs that name each wish before, and after, each cut."""
    earlier = _until(mentions, cuts)
    total = mentions.sum(axis=0)
    return (earlier / cuts[:, None]).T, ((total - earlier) / (len(mentions) - cuts)[:, None]).T


def _among_people(
    mentions: NDArray[np.bool_], people: NDArray[np.int64], cuts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the same of the people who are there before, and after, each cut."""

    def share(side: slice) -> list[float]:
        there = len(np.unique(people[side]))
        return [len(np.unique(people[side][named])) / there for named in mentions[side].T]

    before = [share(slice(0, cut)) for cut in cuts]
    after = [share(slice(cut, None)) for cut in cuts]
    shape = (len(cuts), mentions.shape[1])
    return np.array(before).reshape(shape).T, np.array(after).reshape(shape).T
