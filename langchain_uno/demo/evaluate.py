"""Is the released system better? Test requests of test people, checked by program.

Differences are paired by request; intervals are by person, because answers to one person's requests
go together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from langchain_uno.demo.asking import Answered, ask_model, held_out
from langchain_uno.demo.worlds import World
from langchain_uno.home import Home
from langchain_uno.models.protocols import OnDone
from langchain_uno.releases.load import Release, read_current

Interval = dict[str, float]
"""``mean``, ``low``, ``high``: a mean with its 95 % interval."""

_RESAMPLES = 4000


def evaluate(
    world: World, home: Home, *, per_family: int = 30, on_done: OnDone | None = None
) -> dict[str, Any]:
    """Answer test requests with the base and with UNO, and return the figures as plain data.

    Args:
        world: whose hidden preferences are the truth.
        home: whose current release answers.
        per_family: test requests a family.
        on_done: is told of every answer.

    Returns:
        ``systems`` and ``differences`` (points, with intervals), ``clusters``, and ``coverage``:
        the share of the requests that reached a cluster.
    """
    asked = held_out(world, per_family)
    people = [one.user for one in asked]
    answers = {
        system: ask_model(world, home, asked, mode=system, on_done=on_done)
        for system in ("base", "uno")
    }
    told = {"world_seed": world.seed, "noise": world.noise}
    families = [one.query.family for one in asked]
    return told | summary(families, people, answers, read_current(home))


def summary(
    families: Sequence[str],
    people: Sequence[str],
    answers: dict[str, list[Answered]],
    release: Release | None,
) -> dict[str, Any]:
    """Return the figures of systems that answered the same requests.

    Args:
        families: the kind of each request.
        people: who asked it.
        answers: of each system, one a request; "base" is among them.
        release: what "uno" answered with.
    """
    base, uno = answers["base"], answers.get("uno")
    return {
        "release": release.id if release else None,
        "n": len(people),
        "people": len(set(people)),
        "systems": {s: _system(rows, people) for s, rows in answers.items()},
        "differences": {
            f"{s}-base": {
                "score": by_person(_scores(rows) - _scores(base), people),
                "facts": by_person(_facts(rows) - _facts(base), people),
            }
            for s, rows in answers.items()
            if s != "base"
        },
        "coverage": sum(a.cluster is not None for a in uno) / len(uno) if uno else None,
        "clusters": _clusters(release, families, answers),
    }


def by_person(values: ArrayLike, people: Sequence[Hashable]) -> Interval:
    """Return the mean and its 95 % interval by resampling whole people (cluster bootstrap).

    Args:
        values: one a request, (n,); for a paired comparison the differences.
        people: who asked, n of them; those of different worlds must differ.
    """
    x = np.asarray(values, dtype=np.float64)
    names, owner = np.unique(np.array([str(one) for one in people]), return_inverse=True)
    sums = np.bincount(owner, weights=x, minlength=len(names))
    counts = np.bincount(owner, minlength=len(names)).astype(np.float64)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(names), size=(_RESAMPLES, len(names)))
    draws = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"mean": float(x.mean()), "low": float(low), "high": float(high)}


def _system(rows: Sequence[Answered], people: Sequence[str]) -> dict[str, Any]:
    return {
        "score": by_person(_scores(rows), people),
        "facts": by_person(_facts(rows), people),
        "unwanted": 100.0 * float(np.mean([a.unwanted for a in rows])),
        "tokens_in": float(np.mean([a.tokens_in for a in rows])),
        "tokens_out": float(np.mean([a.tokens_out for a in rows])),
        "seconds_per_answer": float(np.mean([a.seconds for a in rows])),
        "routes": dict(Counter(a.route or "base" for a in rows)),
    }


def _clusters(
    release: Release | None, asked: Sequence[str], answers: dict[str, list[Answered]]
) -> list[dict[str, Any]]:
    """One row a released cluster, with each system's figures on the requests that reached it."""
    if release is None or "uno" not in answers:
        return []
    rows = []
    for cluster in release.manifest.clusters:
        mine = [i for i, a in enumerate(answers["uno"]) if a.cluster == cluster.id]
        families = Counter(asked[i] for i in mine)
        rows.append(
            {
                "id": cluster.id,
                "family": families.most_common(1)[0][0] if families else None,
                "route": cluster.route,
                "gap": cluster.gap,
                "n": len(mine),
                "score": {s: _mean(_scores(a), mine) for s, a in answers.items()},
                "facts": {s: _mean(_facts(a), mine) for s, a in answers.items()},
            }
        )
    return rows


def _scores(rows: Sequence[Answered]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([a.score for a in rows])


def _facts(rows: Sequence[Answered]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([100.0 * a.facts for a in rows])


def _mean(values: Any, rows: Sequence[int]) -> float | None:
    return float(values[rows].mean()) if rows else None
