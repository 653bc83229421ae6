"""Whether people rate one of two releases higher: a test that may be looked at after every vote.

    found = compare(votes, block=(1, 4))     # votes: (on the candidate's side?, score) in order
    found.decided                            # "better", "worse" or None

**The test.** Votes are taken in blocks of ``n`` votes of the candidate's side and ``m`` of the
current side, in the order in which they came; what does not fill a block waits. From the votes of
the blocks before, each side's mean is estimated (with one vote up and one down added, the mean of a
Beta(1, 1) prior): ``a`` for the candidate, ``b`` for the current side. Let ``c = (n a + m b) / (n +
m)`` and ``v = c (1 - c)``. A block with the votes ``x_i`` of the candidate and ``y_j`` of the
current side has the e-value

    E = prod_i (1 + (x_i - c) (a - c) / v) * prod_j (1 + (y_j - c) (b - c) / v)

For thumbs this is the likelihood ratio of the estimates ``(a, b)`` against ``(c, c)``: the
E-variable for two proportions of Turner, Ly and Gruenwald, "Generic E-variables for exact
sequential k-sample tests that allow for optional stopping" (arXiv 2106.02693, Journal of
Statistical Planning and Inference 230, 2024). Blocks with ``a > b`` multiply the evidence that the
candidate is better, blocks with ``a < b`` the evidence that it is worse.

**Proof.** Every factor is positive, since votes lie in [0, 1]. Let the votes be independent given
the past, with mean ``p`` on the candidate's side and ``q`` on the current side. If ``a > b`` then
``a >= c >= b``, so the expectation

    (1 + (p - c) (a - c) / v)^n * (1 + (q - c) (b - c) / v)^m

grows with ``p`` and falls with ``q``. If the candidate is not better (``p <= q``), it is at most
its value at ``p = q``. There, by ``log(1 + z) <= z``, its logarithm is at most ``(p - c) / v * (n
(a - c) + m (b - c)) = 0``. So the product over blocks is a supermartingale that begins with 1, and
by Ville's inequality it ever reaches ``1 / LEVEL`` with a probability of at most ``LEVEL``, however
often one looks. The other direction is the same with the sides exchanged.

Scores between 0 and 1 are taken as they are: nothing in the proof asks for thumbs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

LEVEL = 0.05
"""The chance to call a candidate better that is not, and the chance to call one worse that is not.
"""


@dataclass(frozen=True)
class Compared:
    """What the votes say."""

    better: float
    """The e-value against "the candidate is not better": ``1 / LEVEL`` decides."""
    worse: float
    """The e-value against "the candidate is not worse"."""
    decided: Literal["better", "worse"] | None
    votes: int
    """How many votes were looked at: those after the decision were not."""
    needed: int | None
    """About how many more votes like these would decide; None: decided, or nothing points there."""


def block_for(share: float) -> tuple[int, int]:
    """Return how many votes of the candidate and of the current side make a block.

    Args:
        share: the candidate's part of the traffic, up to a half.
    """
    return 1, max(1, round((1.0 - share) / share))


def compare(votes: Iterable[tuple[bool, float]], block: tuple[int, int]) -> Compared:
    """Test both directions, vote by vote, until one is decided.

    Args:
        votes: in the order in which they came, one a person: whether it is of the candidate's side,
            and the score in [0, 1].
        block: votes of the candidate and of the current side in a block (:func:`block_for`), chosen
            before the first vote.
    """
    evidence = {"better": 1.0, "worse": 1.0}
    waiting: tuple[list[float], list[float]] = ([], [])
    sums, counts = [1.0, 1.0], [2, 2]
    seen = 0
    for of_candidate, score in votes:
        seen += 1
        waiting[0 if of_candidate else 1].append(score)
        if any(len(side) < size for side, size in zip(waiting, block, strict=True)):
            continue
        taken = [side[:size] for side, size in zip(waiting, block, strict=True)]
        a, b = (s / n for s, n in zip(sums, counts, strict=True))
        direction: Literal["better", "worse"] = "better" if a > b else "worse"
        evidence[direction] *= _e_value(taken, (a, b))
        for side, size in enumerate(block):
            sums[side] += sum(taken[side])
            counts[side] += size
            del waiting[side][:size]
        if evidence[direction] >= 1.0 / LEVEL:
            return Compared(**evidence, decided=direction, votes=seen, needed=None)
    most, needed = max(evidence.values()), None
    if most > 1.0:
        needed = math.ceil(seen * (math.log(1.0 / LEVEL) / math.log(most) - 1.0))
    return Compared(**evidence, decided=None, votes=seen, needed=needed)


def _e_value(sides: list[list[float]], means: tuple[float, float]) -> float:
    n = sum(map(len, sides))
    c = sum(len(side) * mean for side, mean in zip(sides, means, strict=True)) / n
    v = c * (1.0 - c)
    return math.prod(
        1.0 + (score - c) * (mean - c) / v
        for side, mean in zip(sides, means, strict=True)
        for score in side
    )
