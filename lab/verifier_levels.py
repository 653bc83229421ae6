"""The verifier's true error: how often a module that helps nobody ships, and how often a good one.

    python -m lab.verifier_levels            # writes lab/results/verifier-levels.md (minutes)

Outcomes are drawn, not judged: each person has a chance of preferring the module (a beta
distribution whose intraclass correlation says how far a person's own queries agree), each query is
won or lost by it. A module that helps nobody has the mean chance one half. Decisions are those of
:mod:`langchain_uno.trainers.verifier`, on the very functions that a refresh calls.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langchain_uno.recipe import VerifySettings
from langchain_uno.trainers.deciding import may_ship, p_values

__all__ = ["clusters_pass", "main", "tastes", "users_needed"]

Floats = NDArray[np.float64]

LEVEL = VerifySettings().level or 0.05
WIN_RATE = VerifySettings().win_rate
USERS = (1, 2, 3, 4, 5, 6, 8, 10, 20, 40)
FEW = 10
"""With more users a run costs more, so there are fewer runs."""
QUERIES = (1, 2, 5, 10, 20)
CORRELATIONS = (0.0, 0.2, 0.5, 0.8, 1.0)
EPOCHS = 3
CLUSTERS = 8
SCORES: dict[str, Sequence[float]] = {
    "even": [0.1] * 10,
    "few high": [0.0] * 4 + [0.9] + [0.0] * 3 + [0.1, 0.0],
    "few low": [0.0] * 4 + [0.1] + [0.0] * 3 + [0.9, 0.0],
}
"""How likely the judge gives 1 to 10, to base and module alike."""


def tastes(rng: np.random.Generator, shape: tuple[int, ...], mean: float, rho: float) -> Floats:
    """Draw people's chances of preferring the module: mean ``mean``, correlation ``rho``."""
    if rho <= 0.0:
        return np.full(shape, mean)
    if rho >= 1.0:
        return (rng.random(shape) < mean).astype(float)
    size = 1.0 / rho - 1.0
    return rng.beta(mean * size, (1.0 - mean) * size, shape)


def outcomes(rng: np.random.Generator, taste: Floats, queries: int, epochs: int) -> Floats:
    """Return each person's mean outcome less 0.5, a column an epoch: taste's shape + (epochs,)."""
    wins = rng.binomial(queries, np.broadcast_to(taste[..., None], (*taste.shape, epochs)))
    return wins / queries - 0.5


def clusters_pass(gains: Floats, seed: int, kinds: int = 1) -> tuple[NDArray[np.bool_], Floats]:
    """Return which modules pass by themselves, and their p-values times ``kinds``.

    Args:
        gains: shape (modules, people, epochs).
        seed: each few hundred modules get swaps of their own.
        kinds: how many kinds are tried in a cluster.
    """
    sums = gains.sum(axis=1)
    best = sums.max(axis=1)
    spread = np.sqrt(np.take_along_axis((gains**2).sum(axis=1), sums.argmax(axis=1)[:, None], 1))
    # A sum of no more than its spread under swaps has a p-value of 7/64 at least (Dvorak and
    # Klein): it can't pass, and need not be computed.
    far = np.flatnonzero(best > spread[:, 0])
    p = np.ones(len(gains))
    for start in range(0, len(far), 250):
        some = far[start : start + 250]
        p[some] = np.minimum(1.0, kinds * p_values(gains[some], seed=seed + start))
    rate = gains.mean(axis=1).max(axis=1) + 0.5
    return (p <= LEVEL) & (rate >= WIN_RATE - 1e-9), p


def users_needed(
    queries: int, rho: float, runs: int, seed: int, *, kinds: int, clusters: int, power: float
) -> str:
    """Return how many users make a module that wins 70 % ship so often, one of its refresh."""
    level = LEVEL / clusters  # the first step of Benjamini-Hochberg, when no other cluster helps

    def ships(users: int) -> float:
        rng = np.random.default_rng([seed, users])
        gains = outcomes(rng, tastes(rng, (runs, users), 0.7, rho), queries, 1)
        passed, p = clusters_pass(gains, seed, kinds)
        return float((passed & (p <= level)).mean())

    low, high = 1, 4
    while ships(high) < power:
        low, high = high, high * 2
        if high > 256:
            return "> 256"
    while high - low > 1:  # power jags a little with the number of users; this finds a first step
        middle = (low + high) // 2
        low, high = (low, middle) if ships(middle) >= power else (middle, high)
    return str(high)


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate everything and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m lab.verifier_levels", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of each cell")
    parser.add_argument("--out", type=Path, default=Path("lab/results/verifier-levels.md"))
    options = parser.parse_args(argv)
    text = "\n".join(_page(options.runs))
    options.out.write_text(text + "\n", encoding="utf-8")
    return 0


def _page(runs: int) -> Iterable[str]:
    yield "# The verifier's true error\n"
    yield (
        f"`make verifier-levels` writes this page. Modules that help nobody, decided at level "
        f"{LEVEL} and win rate {WIN_RATE}; shares in percent. Up to {FEW} users {runs:,} runs a "
        f"cell (standard error {_error(runs):.2f} points at 5 %), beyond {_fewer(runs):,} "
        f"({_error(_fewer(runs)):.2f})."
    )
    seen: list[tuple[float, int]] = []
    yield "\n## A cluster alone\n"
    yield (
        f"How often anything ships that is no better than the base: the best of {EPOCHS} epochs, "
        "of one, two or three kinds tried on the same queries. `r` is the correlation of a user's "
        "own queries.\n"
    )
    heads = [
        f"r {rho:g}, {kinds} kind{'s' * (kinds > 1)}" for rho in CORRELATIONS for kinds in (1, 2, 3)
    ]
    yield from _table(
        ["users", "queries", *heads],
        (
            [
                str(users),
                str(queries),
                *(c for rho in CORRELATIONS for c in _alone(users, queries, rho, runs, seen)),
            ]
            for users in USERS
            for queries in QUERIES
        ),
    )
    yield "\n" + _worst(seen)
    seen = []
    yield "\n## Several epochs, one judge\n"
    yield (
        "The base's answer is the same for all epochs, so their outcomes hang together. Scores of "
        "base and module are drawn alike: evenly from 1 to 10, or mostly 5 with a few 9 (few "
        "high), or mostly 9 with a few 5 (few low). This is the hardest case for the level: where "
        "high scores are few, eight epochs lose together and win one by one, so swapping whole "
        "people is no longer quite exact.\n"
    )
    counts = (1, 3, 8)
    heads = [f"{name}, {e} epoch{'s' * (e > 1)}" for name in SCORES for e in counts]
    yield from _table(
        ["users", "queries", *heads],
        (
            [
                str(users),
                str(queries),
                *(_judged(users, queries, name, e, runs, seen) for name in SCORES for e in counts),
            ]
            for users in (3, 5, 8, 10, 20, 40)
            for queries in (1, 5)
        ),
    )
    yield "\n" + _worst(seen)
    seen = []
    yield f"\n## A refresh of {CLUSTERS} clusters\n"
    yield (
        "How often a refresh ships anything when nothing helps, with two kinds tried in every "
        "cluster. *Others*: each cluster has users of its own. *Same*: the same users ask in all "
        "of them, with the same tastes.\n"
    )
    heads = [f"r {rho:g}, {who}" for rho in CORRELATIONS for who in ("others", "same")]
    yield from _table(
        ["users", "queries", *heads],
        (
            [
                str(users),
                str(queries),
                *(
                    _refresh(users, queries, rho, same, runs, seen)
                    for rho in CORRELATIONS
                    for same in (False, True)
                ),
            ]
            for users in (3, 5, 6, 8, 10, 20)
            for queries in (1, 5, 20)
        ),
    )
    yield "\n" + _worst(seen)
    yield "\n### Of what ships, the share that helps nobody\n"
    yield (
        "Some of the eight clusters have a module that wins 80 %, the others one that wins 50 %; "
        "five queries a user, r 0.2, one kind. In brackets: how many of the good modules ship.\n"
    )
    yield from _table(
        ["users", *(f"{good} of {CLUSTERS} help" for good in (0, 1, 4, 7))],
        (
            [str(users), *(_mixed(users, good, runs) for good in (0, 1, 4, 7))]
            for users in (5, 8, 10, 12)
        ),
    )
    yield "\n## Power\n"
    yield (
        "Users needed so that a module which wins 70 % of its comparisons ships with probability "
        "0.8: alone with one kind, with two kinds planned, and as the only one that helps in a "
        f"refresh of {CLUSTERS} clusters (where others help too, fewer are needed).\n"
    )
    cases = ((1, 1), (2, 1), (2, CLUSTERS))
    names = ("1 kind", "2 kinds", f"2 kinds, {CLUSTERS} clusters")
    yield from _table(
        ["queries a user", *(f"r {rho:g}, {name}" for rho in CORRELATIONS for name in names)],
        (
            [
                str(queries),
                *(
                    users_needed(queries, rho, 1000, 7, kinds=kinds, clusters=clusters, power=0.8)
                    for rho in CORRELATIONS
                    for kinds, clusters in cases
                ),
            ]
            for queries in QUERIES
        ),
    )
    yield "\n## What the level does not cover\n"
    yield (
        "The test takes gains and losses to be spread alike over people. A module that wins 55 % "
        "with nine users of ten and 5 % with the tenth wins 50 % on the whole, and is still nicer "
        "to most. How often it ships:\n"
    )
    yield from _table(
        ["users", *(f"{queries} queries" for queries in QUERIES)],
        (
            [str(users), *(_harsh(users, queries, runs) for queries in QUERIES)]
            for users in (5, 10, 20, 40)
        ),
    )
    yield "\n## The paper's rule\n"
    yield (
        "For comparison: the best of three epochs ships when its plain win rate over all queries "
        f"reaches {WIN_RATE}. How often that is a module which helps nobody:\n"
    )
    yield from _table(
        ["users", "queries", *(f"r {rho:g}" for rho in CORRELATIONS)],
        (
            [str(users), str(queries), *(_paper(users, queries, rho, runs) for rho in CORRELATIONS)]
            for users in (1, 5, 10, 40)
            for queries in (1, 5, 20)
        ),
    )


def _alone(
    users: int, queries: int, rho: float, runs: int, seen: list[tuple[float, int]]
) -> list[str]:
    rng = np.random.default_rng([1, users, queries, round(rho * 10)])
    runs = runs if users <= FEW else _fewer(runs)
    # The kinds' outcomes are drawn apart: where they agree, fewer false ones ship.
    taste = tastes(rng, (3 * runs, users), 0.5, rho)
    gains = outcomes(rng, taste, queries, EPOCHS)
    _, p = clusters_pass(gains, users)
    rate = gains.mean(axis=1).max(axis=1) + 0.5
    table = np.where(rate >= WIN_RATE - 1e-9, p, 1.0).reshape(3, runs)
    shares = [float((table[:kinds].min(axis=0) * kinds <= LEVEL).mean()) for kinds in (1, 2, 3)]
    seen += [(share, runs) for share in shares]
    return [_percent(share) for share in shares]


def _judged(
    users: int, queries: int, name: str, epochs: int, runs: int, seen: list[tuple[float, int]]
) -> str:
    rng = np.random.default_rng([2, users, queries, epochs, list(SCORES).index(name)])
    runs = runs if users <= FEW else _fewer(runs)
    drawn = rng.choice(np.arange(1, 11), (runs, users, queries, epochs + 1), p=SCORES[name])
    won = np.sign(drawn[..., 1:] - drawn[..., :1]) / 2.0
    passed, _ = clusters_pass(won.mean(axis=2), users)
    seen.append((float(passed.mean()), runs))
    return _percent(float(passed.mean()))


def _refresh(
    users: int, queries: int, rho: float, same: bool, runs: int, seen: list[tuple[float, int]]
) -> str:
    rng = np.random.default_rng([3, users, queries, round(rho * 10), same])
    runs = runs if users <= FEW else _fewer(runs)
    taste = tastes(rng, (runs, 1 if same else CLUSTERS * 2, users), 0.5, rho)
    taste = np.broadcast_to(taste, (runs, CLUSTERS * 2, users))
    passed, p = clusters_pass(
        outcomes(rng, taste, queries, 1).reshape(-1, users, 1), users, kinds=2
    )
    table = np.where(passed, p, 1.0).reshape(runs, CLUSTERS, 2).min(axis=2)
    share = float(np.mean([any(may_ship(row.tolist(), LEVEL)) for row in table]))
    seen.append((share, runs))
    return _percent(share)


def _mixed(users: int, good: int, runs: int) -> str:
    rng = np.random.default_rng([4, users, good])
    runs = _fewer(runs)
    helps = np.arange(CLUSTERS) < good
    taste = np.where(
        helps[None, :, None],
        tastes(rng, (runs, CLUSTERS, users), 0.8, 0.2),
        tastes(rng, (runs, CLUSTERS, users), 0.5, 0.2),
    )
    passed, p = clusters_pass(outcomes(rng, taste, 5, 1).reshape(-1, users, 1), users)
    table = np.where(passed, p, 1.0).reshape(runs, CLUSTERS)
    shipped = np.array([may_ship(row.tolist(), LEVEL) for row in table])
    false = shipped[:, ~helps].sum(axis=1) / np.maximum(1, shipped.sum(axis=1))
    found = f" ({100 * shipped[:, helps].mean():.0f})" if good else ""
    return _percent(float(false.mean())) + found


def _harsh(users: int, queries: int, runs: int) -> str:
    rng = np.random.default_rng([5, users, queries])
    runs = runs if users <= FEW else _fewer(runs)
    taste = np.where(rng.random((runs, users)) < 0.9, 0.55, 0.05)
    passed, _ = clusters_pass(outcomes(rng, taste, queries, 1), users)
    return _percent(float(passed.mean()))


def _paper(users: int, queries: int, rho: float, runs: int) -> str:
    rng = np.random.default_rng([6, users, queries, round(rho * 10)])
    gains = outcomes(rng, tastes(rng, (runs, users), 0.5, rho), queries, EPOCHS)
    return _percent(float((gains.mean(axis=1).max(axis=1) + 0.5 >= WIN_RATE - 1e-9).mean()))


def _fewer(runs: int) -> int:
    return max(1, runs * 3 // 10)


def _error(runs: int) -> float:
    return 100.0 * math.sqrt(LEVEL * (1.0 - LEVEL) / runs)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _worst(seen: list[tuple[float, int]]) -> str:
    share, runs = max(seen)
    over = sum(100 * (s - LEVEL) > 2 * _error(n) for s, n in seen)
    return (
        f"The highest of these {len(seen)} is {100 * share:.2f} (standard error "
        f"{_error(runs):.2f}); {over} lie more than two standard errors above {100 * LEVEL:g}."
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
