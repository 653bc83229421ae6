"""Figures of a study, from its finished cells: systems, what was shipped, the gap, the noise.

A cell's result is plain data (``study.run_cell``); its answers lie in columns, one value a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from lab.studies.choices import CHOICES
from lab.studies.study import EVERYWHERE, SYSTEMS
from langchain_uno.demo.intervals import auc, by_user

__all__ = [
    "Result",
    "gap_against_experts",
    "gap_points",
    "noise_costs",
    "on_front",
    "pooled",
    "shipped",
    "threshold_for",
    "verifier_against_truth",
]

Result = Mapping[str, Any]
LOST = 5.0
"""An expert with so many right answers of 100 fewer than the critic failed; a module that loses so
many points of facts is no better than base."""
OVER = 25.0
"""Nor is one that obeys so much more of what nobody wants there."""


def pooled(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Return each system's figures over all requests of the cells, with intervals by user.

    ``score``, ``facts`` and the paired differences to base and UNO are in points. ``right`` is the
    share of answers with nothing to complain about: every wish met, the facts as they were, and no
    rule obeyed that belongs to the family but was not wanted here.
    """
    users = [f"{r['cell']['seed']}/{user}" for r in results for user in r["users"]]
    columns = {
        name: {
            key: [scale * v for r in results for v in r["answers"][name][key]]
            for key, scale in _SCALES.items()
        }
        for name in _systems(results)
    }
    for mine in columns.values():
        mine["right"] = _right(mine)
    out: dict[str, dict[str, Any]] = {}
    for name, mine in columns.items():
        row: dict[str, Any] = {
            key: by_user(mine[key], users) for key in ("score", "facts", "right")
        }
        for key in ("unwanted", "tokens_in", "tokens_out", "seconds"):
            row[key] = sum(mine[key]) / len(mine[key])
        for rival in ("base", "uno"):
            for key in ("score", "facts", "right"):
                theirs = columns[rival][key]
                gained = [a - b for a, b in zip(mine[key], theirs, strict=True)]
                row[f"{key}-{rival}"] = by_user(gained, users)
        out[name] = row
    return out


def on_front(figures: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the systems on the Pareto front of right answers against tokens an answer.

    ``figures`` are :func:`pooled`'s. A system is off it when another one is at least as good in
    both and better in one, by the means.
    """
    points = {
        name: (row["right"]["mean"], -row["tokens_in"] - row["tokens_out"])
        for name, row in figures.items()
    }
    return {
        name
        for name, mine in points.items()
        if not any(p[0] >= mine[0] and p[1] >= mine[1] and p != mine for p in points.values())
    }


_SCALES = {
    "score": 1.0,
    "facts": 100.0,
    "unwanted": 100.0,
    "tokens_in": 1.0,
    "tokens_out": 1.0,
    "seconds": 1.0,
}


def _right(columns: Mapping[str, Sequence[float]]) -> list[float]:
    """100 for each answer with nothing to complain about, else 0."""
    values = zip(columns["score"], columns["facts"], columns["unwanted"], strict=True)
    return [
        100.0 * (score > 99.9 and facts > 0 and not unwanted) for score, facts, unwanted in values
    ]


def _systems(results: Sequence[Result]) -> list[str]:
    """Return the systems that all cells have: a study goes on when one is added."""
    return [name for name in SYSTEMS if all(name in r["answers"] for r in results)]


def noise_costs(results: Sequence[Result]) -> dict[float, dict[str, Any]]:
    """Return what each noise level costs each system against none: points, paired by request.

    Only worlds that were run without noise too count; they ask the same requests.
    """
    clean = {_world(r): r for r in results if r["cell"]["noise"] == 0}
    out: dict[float, dict[str, Any]] = {}
    for noise in sorted({r["cell"]["noise"] for r in results} - {0}):
        pairs = [
            (clean[_world(r)], r)
            for r in results
            if r["cell"]["noise"] == noise and _world(r) in clean
        ]
        if not pairs:
            continue
        users = [f"{r['cell']['seed']}/{u}" for _, r in pairs for u in r["users"]]
        out[noise] = {"worlds": len(pairs)}
        for name in _systems([r for pair in pairs for r in pair]):
            lost = [
                a - b
                for none, some in pairs
                for a, b in zip(
                    none["answers"][name]["score"], some["answers"][name]["score"], strict=True
                )
            ]
            out[noise][name] = by_user(lost, users)
    return out


def _world(r: Result) -> tuple[str, int]:
    return r["cell"]["variant"], r["cell"]["seed"]


def shipped(results: Sequence[Result], *, margin: float = 0.0) -> dict[str, dict[str, int]]:
    """Return how many modules each way of choosing ships, and how many are below base for certain.

    A shipped module is below base when the 95 % interval (by user) of its score, or of its facts,
    against base on its own cluster's requests lies below ``-margin``. ``by chance`` is how many of
    these intervals may lie there (at a familywise level of 5 %) if no module were any worse.
    """
    from scipy.stats import binom

    out: dict[str, dict[str, int]] = {}
    for name in CHOICES:
        count = dict.fromkeys(("shipped", "base", "below", "score below", "facts below"), 0)
        for r in results:
            for cluster, route in r["routes"][name].items():
                mine = _asked_of(r, cluster)
                if route == "base" or not mine:
                    count["base"] += route == "base"
                    continue
                count["shipped"] += 1
                below = False
                for key in ("score", "facts"):
                    gain = _gain(r, name, mine, key)
                    count[f"{key} below"] += gain["high"] < -margin
                    below = below or gain["high"] < -margin
                count["below"] += below
        count["by chance"] = int(binom.ppf(0.95, 2 * count["shipped"], 0.025))
        out[name] = count
    return out


def verifier_against_truth(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    """Return how often a rule for shipping is right, by the truth of held-out requests.

    A module is *better* when its answers meet more rules than base, lose at most ``LOST`` points of
    facts and obey at most ``OVER`` points more of what nobody wants there. A false ship is one that
    is not; a false refusal is one that is. Rules:

    - ``interval``: our verifier, for experts and critics;
    - ``paper's rule``: experts whose win rate reaches the bar, critics unverified;
    - ``memories``: our verifier, for memories, which the paper does not have.
    """
    out = {
        name: dict.fromkeys(("right", "false ships", "false refusals", "judgements"), 0)
        for name in ("interval", "paper's rule", "memories")
    }
    for r in results:
        for cluster in r["per_cluster"]:
            mine = _asked_of(r, cluster["id"])
            for kind, trial in cluster["trials"].items():
                if not mine or trial["win_rate"] is None:
                    continue
                rules, facts, over = (
                    _mean_gain(r, EVERYWHERE[kind], mine, key)
                    for key in ("score", "facts", "unwanted")
                )
                better = rules > 0 and facts >= -LOST and over <= OVER
                passed, judged = trial["passed"], trial["judged"]
                if kind == "memory":
                    told = [("memories", passed, judged)]
                else:
                    expert = kind == "expert"
                    by_point = not expert or trial["win_rate"] >= 0.53
                    told = [("interval", passed, judged)]
                    told.append(("paper's rule", by_point, judged if expert else 0))
                for name, ship, judgements in told:
                    out[name]["judgements"] += judgements
                    if ship == better:
                        out[name]["right"] += 1
                    else:
                        out[name]["false ships" if ship else "false refusals"] += 1
    return out


def gap_points(results: Sequence[Result]) -> list[tuple[float, float, bool]]:
    """Return (gap, the expert's points behind the critic, whether it failed), one a cluster.

    Points are of answers with nothing to complain about (``pooled``); it fails when it is more than
    ``LOST`` behind.
    """
    out = []
    for r in results:
        for cluster in r["per_cluster"]:
            mine = _asked_of(r, cluster["id"])
            trial = cluster["trials"].get("expert")
            if not mine or trial is None or trial["win_rate"] is None:
                continue
            right = [_right(r["answers"][f"{kind} everywhere"]) for kind in ("expert", "critic")]
            expert, critic = (sum(found[i] for i in mine) / len(mine) for found in right)
            behind = critic - expert
            out.append((float(cluster["gap"]), behind, behind > LOST))
    return out


def gap_against_experts(results: Sequence[Result], threshold: float = 0.45) -> dict[str, Any]:
    """Return how well the gap, known before training, predicts that an expert fails."""
    points = gap_points(results)
    seconds = [
        (trial["seconds"], cluster["gap"] >= threshold)
        for r in results
        for cluster in r["per_cluster"]
        if (trial := cluster["trials"].get("expert")) and trial["win_rate"] is not None
    ]
    failed = [f for _, _, f in points]
    return {
        "clusters": len(points),
        "failed": sum(failed),
        "auc": auc([g for g, _, _ in points], failed) if points else None,
        "expert_seconds": sum(s for s, _ in seconds),
        "spared_seconds": sum(s for s, high in seconds if high),
    }


def threshold_for(points: Sequence[tuple[float, float, bool]], default: float = 0.45) -> float:
    """Return the gap threshold that sends fewest clusters to the wrong kind of module.

    Wrong is an expert that fails, or a critic where the expert would not have failed. Among equals
    the nearest to ``default`` is chosen, so that few points move it little.
    """
    gaps = sorted({g for g, _, _ in points})
    cuts = [0.0, *((a + b) / 2 for a, b in pairwise(gaps)), 1.01, default]

    def wrong(cut: float) -> int:
        return sum(failed if gap < cut else not failed for gap, _, failed in points)

    return min(cuts, key=lambda cut: (wrong(cut), abs(cut - default)))


def _asked_of(r: Result, cluster: str) -> list[int]:
    return [i for i, c in enumerate(r["clusters"]) if c == cluster]


def _gains(r: Result, name: str, mine: Sequence[int], key: str) -> list[float]:
    new, old = r["answers"][name][key], r["answers"]["base"][key]
    return [_SCALES[key] * (new[i] - old[i]) for i in mine]


def _gain(r: Result, name: str, mine: Sequence[int], key: str) -> dict[str, float]:
    return by_user(_gains(r, name, mine, key), [r["users"][i] for i in mine])


def _mean_gain(r: Result, name: str, mine: Sequence[int], key: str) -> float:
    return sum(_gains(r, name, mine, key)) / len(mine)
