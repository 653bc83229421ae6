"""``langchain-uno evaluate world FILE --home DIR``: is the released system better?

Held-out requests of held-out users go to each system; a program checks every answer against the
world's hidden preferences, and the judge's win rate stands beside it. Differences are paired by
request and come with 95 % bootstrap intervals. Figures of the bundled model say that the pipeline
works; they say nothing about a real model's gains.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_uno.demo.asking import Answered, Asked, ask_model, held_out
from langchain_uno.demo.worlds import World
from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.models.protocols import OnDone
from langchain_uno.records import Message

__all__ = ["SYSTEMS", "evaluate"]

SYSTEMS = ("base", "single", "uno")
_RESAMPLES = 2000


def evaluate(
    world: World,
    home: Home,
    *,
    model: str | None = None,
    systems: Sequence[str] = SYSTEMS,
    per_family: int = 30,
    seed: int = 0,
    on_done: OnDone | None = None,
    judged: bool = True,
) -> dict[str, Any]:
    """Answer held-out requests with every system and return the figures as plain data.

    Args:
        world: whose hidden preferences are the truth.
        home: whose current release answers.
        model: base model; the bundled one if None.
        systems: of ``base``, ``single`` and ``uno``.
        per_family: held-out requests a family.
        seed: of the requests; other seeds share no request.
        on_done: hears of every answer.
        judged: whether to add the judge's win rates against base.

    Returns:
        ``{"systems": {...}, "differences": {...}, "clusters": [...], ...}``; scores in points.

    Raises:
        InputError: an unknown system, or "base" is missing.
    """
    from langchain_uno.releases.load import read_current

    unknown = [s for s in systems if s not in SYSTEMS]
    if unknown or "base" not in systems:
        raise InputError(
            f"systems must be of {', '.join(SYSTEMS)} and hold base, not {list(systems)}."
        )
    asked = held_out(world, per_family, seed=seed)
    answers: dict[str, list[Answered]] = {}
    seconds: dict[str, float] = {}
    for system in systems:
        started = time.monotonic()
        answers[system] = ask_model(world, home, asked, mode=system, model=model, on_done=on_done)
        seconds[system] = time.monotonic() - started
    release = read_current(home)
    wins = _win_rates(model, world, asked, answers) if judged else {}
    report: dict[str, Any] = {
        "world_seed": world.seed,
        "noise": world.noise,
        "release": release.id if release else None,
        "n": len(asked),
        "systems": {s: _system_row(a, seconds[s], wins.get(s)) for s, a in answers.items()},
        "differences": {
            f"{a}-{b}": {
                "score": _interval(_scores(answers[a]) - _scores(answers[b])),
                "facts": _interval(100.0 * (_facts(answers[a]) - _facts(answers[b]))),
            }
            for a, b in (("uno", "base"), ("uno", "single"), ("single", "base"))
            if a in answers and b in answers
        },
        "clusters": _cluster_rows(release, asked, answers),
    }
    report["gap_rank_correlation"] = _gap_correlation(world, report["clusters"])
    return report


def _win_rates(
    model: str | None,
    world: World,
    asked: Sequence[Asked],
    answers: dict[str, list[Answered]],
) -> dict[str, float]:
    """The judge's win rate of each system against base, with the users' wishes as the standard.

    Requests of people who want nothing else than the plain answer give it no standard, and are
    left out.
    """
    from langchain_uno.models.judge import JudgeItem, judge
    from langchain_uno.models.loading import is_bundled, load_engine, load_prompt_set
    from langchain_uno.recipe import load_recipe

    language = world.language()
    kind = "bundled" if is_bundled(model) else "default"
    recipe = load_recipe(kind)
    engine, prompts = load_engine(model), load_prompt_set(recipe.prompt_set)
    items = [
        JudgeItem(
            [Message(role="user", content=one.query.text)],
            [language.rules[r].text for r in one.wishes],
            a.text,
            "en",
        )
        for rows in answers.values()
        for one, a in zip(asked, rows, strict=True)
        if one.wishes
    ]
    said = judge(items, engine, prompts, recipe)
    scores = np.array([j.score if j else 1.0 for j in said]).reshape(len(answers), -1)
    base = scores[list(answers).index("base")]
    return {
        s: float(np.mean((scores[i] > base) + 0.5 * (scores[i] == base)))
        for i, s in enumerate(answers)
    }


# -- figures ---------------------------------------------------------------------------------------


def _system_row(rows: Sequence[Answered], seconds: float, win_rate: float | None) -> dict[str, Any]:
    return {
        "score": _interval(_scores(rows)),
        "all_met": 100.0 * float(np.mean([a.all_met for a in rows])),
        "unwanted": 100.0 * float(np.mean([a.unwanted for a in rows])),
        "facts": _interval(100.0 * _facts(rows)),
        "judge_win_rate": win_rate,
        "tokens_in": float(np.mean([a.tokens_in for a in rows])),
        "tokens_out": float(np.mean([a.tokens_out for a in rows])),
        "seconds_per_answer": seconds / max(1, len(rows)),
        "routes": dict(Counter(a.route or "base" for a in rows)),
    }


def _cluster_rows(
    release: Any, asked: Sequence[Asked], answers: dict[str, list[Answered]]
) -> list[dict[str, Any]]:
    """One row a released cluster: route, gap, verifier, each system's figures on its queries."""
    if release is None:
        return []
    routed = answers.get("uno") or answers.get("single") or answers["base"]
    rows = []
    for cluster in release.manifest.clusters:
        mine = [i for i, a in enumerate(routed) if a.cluster == cluster.id]
        families = Counter(asked[i].query.family for i in mine)
        row: dict[str, Any] = {
            "id": cluster.id,
            "family": families.most_common(1)[0][0] if families else None,
            "size": cluster.size,
            "gap": cluster.gap,
            "route": cluster.route,
            "win_rate": next((r.win_rate for r in cluster.reports if r.passed), None),
            "n": len(mine),
            "score": {s: _mean([a[i].score for i in mine]) for s, a in answers.items()},
            "facts": {s: _mean([100.0 * a[i].facts for i in mine]) for s, a in answers.items()},
        }
        if "uno" in answers and mine:
            score = _scores(answers["uno"])[mine] - _scores(answers["base"])[mine]
            facts = 100.0 * (_facts(answers["uno"])[mine] - _facts(answers["base"])[mine])
            row["uno-base"] = {"score": _interval(score), "facts": _interval(facts)}
        rows.append(row)
    return rows


def _gap_correlation(world: World, clusters: Sequence[dict[str, Any]]) -> float | None:
    """Spearman's rank correlation of measured gap and true distance over the clusters' families."""
    from scipy.stats import spearmanr

    pairs = [(c["gap"], world.distance[c["family"]]) for c in clusters if c["family"]]
    if len(pairs) < 3 or len({g for g, _ in pairs}) < 2:
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def _scores(rows: Sequence[Answered]) -> NDArray[np.float64]:
    return np.array([a.score for a in rows])


def _facts(rows: Sequence[Answered]) -> NDArray[np.float64]:
    return np.array([float(a.facts) for a in rows])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean with a 95 % bootstrap interval over requests."""
    rng = np.random.default_rng(0)
    draws = rng.choice(values, size=(_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}
