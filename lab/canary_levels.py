"""The canary's true error and power: simulated people, the very test that decides.

    python -m lab.canary_levels              # writes lab/results/canary-levels.md (a minute)

Every run draws people one after the other: the candidate answers each with the chance of its share,
and votes are thumbs. The test is looked at after every vote. Beside it stands the one-sided z-test
of two proportions, which is looked at once, when the budget of people is spent.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import NormalDist, fmean

from langchain_uno.releases.sequential import LEVEL, block_for, compare

__all__ = ["fixed", "loud", "main", "people"]

SHARES = (0.2, 0.5)
BUDGETS = (200, 600)
LEVELS = (0.2, 0.5, 0.7, 0.9)
"""Of thumbs up on both sides, where there is no difference."""
DIFFERENCES = (-0.3, -0.2, -0.1, 0.1, 0.2, 0.3)
Votes = list[tuple[bool, float]]


def people(rng: random.Random, n: int, share: float, candidate: float, current: float) -> Votes:
    """Draw the votes of ``n`` people: (of the candidate's side, thumb)."""
    sides = [rng.random() < share for _ in range(n)]
    return [(side, float(rng.random() < (candidate if side else current))) for side in sides]


def loud(
    rng: random.Random, n: int, share: float, ups: float, accounts: int
) -> tuple[Votes, Votes]:
    """Draw ``n`` pieces of feedback, 30 % of them thumbs down by one mind about the candidate.

    Args:
        rng: draws.
        n: pieces of feedback.
        share: of the candidate.
        ups: everybody else's chance of a thumb up, on both sides alike.
        accounts: under how many names that mind votes.

    Returns:
        The votes as a canary counts them (each name once), and as if every piece counted.
    """
    once: Votes = []
    every: Votes = []
    left = accounts
    for _ in range(n):
        theirs = rng.random() < 0.3
        vote = (True, 0.0) if theirs else people(rng, 1, share, ups, ups)[0]
        every.append(vote)
        if not theirs or left > 0:
            once.append(vote)
        left -= theirs
    return once, every


def fixed(votes: Votes) -> str | None:
    """Decide once, by the z-test of two proportions, one-sided both ways."""
    a, b = ([score for side, score in votes if side is which] for which in (True, False))
    mean = fmean(score for _, score in votes)
    if not a or not b or mean in (0.0, 1.0):
        return None
    spread = math.sqrt(mean * (1.0 - mean) * (1.0 / len(a) + 1.0 / len(b)))
    z = (fmean(a) - fmean(b)) / spread
    bound = NormalDist().inv_cdf(1.0 - LEVEL)
    return "better" if z > bound else "worse" if z < -bound else None


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate everything, write the tables and print them."""
    parser = argparse.ArgumentParser(prog="python -m lab.canary_levels", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="of each row")
    parser.add_argument("--out", type=Path, default=Path("lab/results/canary-levels.md"))
    options = parser.parse_args(argv)
    text = "\n".join(_page(options.runs)) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _page(runs: int) -> Iterator[str]:
    yield "# The canary's true error and power\n"
    yield (
        f"`python -m lab.canary_levels` writes this page: {runs:,} runs a row, looked at after "
        f"every vote, level {LEVEL:g} in each direction. Shares of runs in percent (standard error "
        f"{100 * math.sqrt(LEVEL * (1 - LEVEL) / runs):.1f} at 5 %); *people*: the mean number of "
        "voters until the end, decided or not. *Fixed*: a one-sided z-test of the same level, "
        "looked at once, with all people of the budget."
    )
    yield "\n## No difference: wrong decisions\n"
    cells = [(u, u, s, n) for n in BUDGETS for s in SHARES for u in LEVELS]
    yield from _table(cells, runs)
    yield "\n## A difference: power\n"
    cells = [
        (u, 0.5, s, n) for n in BUDGETS for s in SHARES for u in (0.5 + d for d in DIFFERENCES)
    ]
    yield from _table(cells, runs)
    yield "\n## One mind against the candidate\n"
    yield (
        "No difference, share 0.2, half of the thumbs are up; 30 % of 200 pieces of feedback are "
        "thumbs down by one person of the candidate's side. Rolled back:\n"
    )
    yield "| names | each counts once | if every piece counted |\n|---|---|---|"
    for accounts in (0, 1, 3, 10):
        rng = random.Random(7)
        drawn = [loud(rng, 200, 0.2, 0.5, accounts) for _ in range(runs)]
        once, every = (
            _percent([compare(pair[i], block_for(0.2)).decided == "worse" for pair in drawn])
            for i in (0, 1)
        )
        yield f"| {accounts or 'none'} | {once} | {every} |"
    yield (
        "\nA person counts once, however loud. Ten accounts of one mind are ten people to the "
        "test: whoever lets anybody make accounts gives them votes."
    )


def _table(cells: Iterable[tuple[float, float, float, int]], runs: int) -> Iterator[str]:
    yield (
        "| up: candidate | up: current | share | budget | promoted | rolled back | people | fixed: "
        "promoted | fixed: rolled back |\n|---|---|---|---|---|---|---|---|---|"
    )
    for seed, (candidate, current, share, budget) in enumerate(cells):
        rng = random.Random(seed)
        drawn = [people(rng, budget, share, candidate, current) for _ in range(runs)]
        seen = [compare(votes, block_for(share)) for votes in drawn]
        once = [fixed(votes) for votes in drawn]
        figures = [
            *(_percent([one.decided == way for one in seen]) for way in ("better", "worse")),
            f"{fmean(one.votes for one in seen):.0f}",
            *(_percent([way == one for one in once]) for way in ("better", "worse")),
        ]
        start = (f"{candidate:.1f}", f"{current:.1f}", f"{share:g}", str(budget))
        yield "| " + " | ".join((*start, *figures)) + " |"


def _percent(hits: Sequence[bool]) -> str:
    return f"{100 * fmean(hits):.1f}"


if __name__ == "__main__":
    raise SystemExit(main())
