"""Whether a module beats the base, decided from its comparisons with it.

    report = decide(outcomes, voices, level=0.05, win_rate=0.53, kinds=2)
    shipped = may_ship([cluster_p_value(reports) for reports in every_clusters_reports], level)

Every person counts once, with the mean outcome of their queries (win 1, tie
0.5, loss 0). If a module is no better than the base, all of a person's comparisons could as well
have come out the other way round. So the sum over people of (mean outcome - 0.5) is compared with
what it would be if any of them had: an exact test for every number of people and of queries a
person, however much a person's own queries agree, as long as gains and losses are spread alike over
people. The best of several epochs is compared with the best one under the same swaps. Their
outcomes hang together, which is not quite exact: the p-value is raised by a fifth. Of several kinds
tried for a cluster, each one's p-value is multiplied by their number (Bonferroni).

**What a release promises**, at ``recipe.verify.level`` 0.05: if nothing helps, at most 5 % of
refreshes ship anything at all; and of what ships, at most 5 % is expected to be no better than the
base (Benjamini-Hochberg over the clusters tested, :func:`may_ship`). ``lab/verifier_levels.py``
measures both. Where the level is None the best epoch's plain win rate decides (paper).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from langchain_uno.records import ModuleKind, VerifierReport, mean_of

_BITS = 14
"""Swaps are enumerated for so many people; for more, a group of 2 ** 14 of them is (exact too)."""

_EPOCHS = 1.2
"""The p-value of the best of several epochs is raised by this: where high scores are few, epochs
lose together and win one by one, and 5.8 % passed at 5 % (``lab/verifier_levels.py``)."""

Outcome = float | None
"""The module's side of one comparison: 1 won, 0.5 tied, 0 lost; None: no readable judgement."""

Rows = list[list[float | None]]  # scores: a row an epoch, a column a query
Floats = NDArray[np.float64]


def decide(
    outcomes: Sequence[Sequence[Outcome]],
    voices: Sequence[str],
    *,
    kind: ModuleKind = "expert",
    scores: Rows | None = None,
    lost: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
    level: float | None,
    win_rate: float,
    kinds: int = 1,
    seed: int = 0,
) -> VerifierReport:
    """Choose the best epoch and say whether it beats the base.

    Args:
        outcomes: one row an epoch, one column a query.
        voices: whose each query is.
        kind: of the module.
        scores: the judge's, in the same shape.
        lost: how many answers of each epoch lost content. Between epochs that win as often, the one
            with fewer is chosen, then the one with better scores, then the later one.
        among: the epochs that may be chosen; None: all. All are accounted for in the p-value.
        level: the chance that a module no better than the base passes; None: the paper's rule.
        win_rate: what the win rate has to reach besides.
        kinds: how many kinds of module are tried in the same cluster.
        seed: of the swaps where there are too many people to try them all.

    Returns:
        What is known of the best epoch; its ``epoch`` is a row of the outcomes. The interval is
        Wilson's, of what counts in the win rate: people, or queries by the paper's rule. It is
        honest where outcomes are no plain yes or no, and wider where the best of E epochs was
        chosen (1 - 0.05 / E).
    """
    table = np.array([[np.nan if o is None else o for o in row] for row in outcomes], dtype=float)
    known = ~np.isnan(table)
    people, index = np.unique(list(voices), return_inverse=True)
    whose = np.eye(len(people))[index]  # (queries, people)
    counts, sums = known @ whose, np.where(known, table, 0.0) @ whose  # (epochs, people)
    gains = np.where(counts > 0, sums / np.maximum(counts, 1.0) - 0.5, 0.0)
    by_person = gains.sum(axis=1) / np.maximum((counts > 0).sum(axis=1), 1) + 0.5
    by_query = sums.sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
    rates = (by_query if level is None else by_person).round(9)  # sums of halves and thirds
    merit = [
        (rates[e], -lost[e] if lost else 0, mean_of(scores[e]) or 0.0 if scores else 0.0, e)
        for e in (range(len(outcomes)) if among is None else among)
    ]
    epoch = max(merit)[-1]
    rate, n = float(rates[epoch]), int(counts[epoch].sum())
    voters = int((counts[epoch] > 0).sum())
    p_value, interval = None, (0.0, 1.0)
    undecided, needed, reason = False, None, ""
    if n == 0:
        rate, undecided, reason = 0.0, True, "the judge could not be read on any query"
    else:
        seen = p_values(gains.T[None], [gains[epoch].sum()], seed)[0]
        p_value = min(1.0, kinds * float(seen))
        interval = wilson(rate, n if level is None else voters, 1.0 - 0.05 / len(outcomes))
        if rate < win_rate:
            reason = f"win rate {rate:.2f} is below {win_rate:.2f}"
        elif level is not None and p_value > level:
            raised = kinds * (_EPOCHS if len(outcomes) > 1 else 1.0)
            undecided, needed = True, _needed(gains, epoch, voters, level / raised)
            reason = (
                f"not decided: {rate:.2f} may be luck with a chance of {p_value:.2g} ({level:g} is "
                f"allowed); about {needed} more held-out people with such feedback would decide"
            )
    return VerifierReport(
        kind=kind,
        n=n,
        people=voters,
        win_rate=rate,
        interval=interval,
        p_value=p_value,
        passed=not reason,
        undecided=undecided,
        needed=needed,
        epoch=epoch,
        reason=reason,
    )


def p_values(gains: Floats, sums: Sequence[float] | Floats | None = None, seed: int = 0) -> Floats:
    """Return how likely it is, if nothing helps, that the best epoch does as well.

    Args:
        gains: shape (cases, people, epochs): each person's mean outcome less 0.5.
        sums: for each case what the chosen epoch's gains sum to; None: the best epoch's sum.
        seed: of the swaps beyond 14 people. They form a group, so that the test stays exact.

    Returns:
        One p-value a case: the share of swaps (the identity among them) under which the best
        epoch's sum is no less; a fifth more where there are several epochs.
    """
    cases, people, epochs = gains.shape
    seen = gains.sum(axis=1).max(axis=1) if sums is None else np.asarray(sums, dtype=float)
    flat = gains.transpose(1, 2, 0).reshape(people, -1)
    bits, codes = min(people, _BITS), 2 ** np.arange(_BITS)[:people]
    if people > _BITS:
        some = np.arange(1, 1 << _BITS)
        codes = np.random.default_rng(seed).choice(some, people, replace=people > len(some))
    as_good: Floats = np.zeros(cases)
    step = max(1, 4_000_000 // (people + cases * epochs))
    for start in range(0, 1 << bits, step):
        # Swap g turns the people round whose codes have an odd number of bits in common with it.
        # Any two swaps after each other are one of the swaps, whatever the codes.
        odd = np.arange(start, min(start + step, 1 << bits))[:, None] & codes
        for shift in (8, 4, 2, 1):
            odd ^= odd >> shift
        turned = ((1.0 - 2.0 * (odd & 1)) @ flat).reshape(-1, epochs, cases).max(axis=1)
        as_good += (turned >= seen - 1e-9).sum(axis=0)
    share: Floats = as_good / float(1 << bits)
    return share if epochs == 1 else np.minimum(1.0, _EPOCHS * share)


def _needed(gains: Floats, epoch: int, voters: int, level: float) -> int:
    """Return about how many more people like these would make the chance small enough.

    The sum grows with the people, its spread under swaps with their root. Fewer than log2(1 /
    level) people can't decide anything: that many all have to win.
    """
    least = least_people(level)
    total, spread = float(gains[epoch].sum()), float(np.sqrt((gains[epoch] ** 2).sum()))
    z = NormalDist().inv_cdf(1.0 - level / len(gains))
    enough = math.ceil(voters * (z * spread / total) ** 2) if total > 0 else least
    return max(1, max(least, enough) - voters)


def least_people(level: float) -> int:
    """Return how many people it takes to decide at a level, if the module wins with all."""
    return math.ceil(math.log2(1.0 / level))


def lower_bound(gains: Sequence[float], confidence: float = 0.95) -> float:
    """Return the one-sided lower t-bound of the mean of people's gains; -1 for fewer than two."""
    from scipy.stats import t

    n = len(gains)
    if n < 2:
        return -1.0
    spread = float(np.std(gains, ddof=1)) / math.sqrt(n)
    return float(np.mean(gains)) - float(t.ppf(confidence, n - 1)) * spread


def wilson(rate: float, n: float, confidence: float) -> tuple[float, float]:
    """Return Wilson's two-sided interval of a proportion; (0, 1) when ``n`` is 0."""
    if n <= 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    centre = rate + z * z / (2.0 * n)
    half = z * math.sqrt(rate * (1.0 - rate) / n + z * z / (4.0 * n * n))
    scale = 1.0 + z * z / n
    return (max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))


# -- Over a refresh --------------------------------------------------------------------------------


def cluster_p_value(
    reports: Sequence[VerifierReport], shipped: VerifierReport | None
) -> float | None:
    """Return a cluster's p-value: of the module that would ship.

    Args:
        reports: of all that was tried.
        shipped: of what would ship; None: nothing would, whatever the reason.

    Returns:
        1 where nothing would ship, None where nothing was compared.
    """
    if all(report.p_value is None for report in reports):
        return None
    return shipped.p_value if shipped is not None and shipped.passed else 1.0


def may_ship(p_values: Sequence[float | None], level: float | None) -> list[bool]:
    """Return which clusters' modules may ship together (Benjamini-Hochberg).

    Args:
        p_values: one a cluster (:func:`cluster_p_value`); None: nothing was tested there.
        level: ``recipe.verify.level``; None: all may.

    Returns:
        Whether each may ship, if it passed by itself: at most a share ``level`` of those that do is
        expected to be no better than the base.
    """
    if level is None:
        return [True] * len(p_values)
    ranked = sorted(p for p in p_values if p is not None)
    bound = max(
        (p for rank, p in enumerate(ranked, 1) if p <= level * rank / len(ranked)), default=-1.0
    )
    return [p is not None and p <= bound for p in p_values]
