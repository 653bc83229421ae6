"""The cognitive gap against the world's true distance: python -m lab.benchmarks.bench_gap

A week of the simulated service per seed, through the handler; feedback is distilled, the prior
guessed and coverage asked by the bundled model itself. Families are the true ones, so that this is
about the gap and not about the clustering. Coverage by the whole list of guesses (paper) and by
each of them is reported.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.service import plan_visits, run_service
from langchain_uno.home import Home
from langchain_uno.learning.distil import distil
from langchain_uno.learning.gap import cluster_gap, cognitive_gap
from langchain_uno.logs.filters import verdicts
from langchain_uno.logs.store import LogStore
from langchain_uno.models.loading import load_embedder, load_prompt_set, shared_engine
from langchain_uno.models.rerankers import EngineReranker
from langchain_uno.recipe import load_recipe

Reading = Literal["list", "pairs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--visits", type=int, default=420, help="requests of each service")
    given = parser.parse_args()
    every: dict[Reading, list[tuple[float, float]]] = {"list": [], "pairs": []}
    print(
        "| seed | reading | correlation | true distance -> gap, a family each |\n|---|---|---|---|"
    )
    for seed in given.seeds:
        for reading, pairs in measure(seed, given.visits).items():
            every[reading] += pairs
            line = ", ".join(f"{true:.2f} -> {gap:.2f}" for true, gap in sorted(pairs))
            print(f"| {seed} | {reading} | {rank(np.array(pairs)):.2f} | {line} |", flush=True)
    for reading, pairs in every.items():
        values = np.array(pairs)
        low, high = interval(values)
        print(f"| all | {reading} | {rank(values):.2f} ({low:.2f} to {high:.2f}) | {len(pairs)} |")


def measure(seed: int, visits: int) -> dict[Reading, list[tuple[float, float]]]:
    """Return (true distance, measured gap) of every family, for both readings."""
    world, engine = make_world(seed), shared_engine()
    recipe, prompts = load_recipe("bundled"), load_prompt_set("bundled")
    plan = plan_visits(world, visits)
    family = {str(visit.run_id): visit.query.family for visit in plan}
    with tempfile.TemporaryDirectory() as folder:
        with UNOFeedbackHandler(home=folder) as handler:
            run_service(world, plan, UNOChatModel(home=folder, mode="base"), handler)
        embedder = load_embedder(None, engine)
        with LogStore.open(Home.locate(folder), embedder) as store:
            store.drain()
            heard = [log for log in store.interactions() if log.feedback]
    judged = verdicts(heard, recipe.filter, prompts.supports)
    usable = [log for log, one in zip(heard, judged, strict=True) if one.usable]
    sets = distil(usable, engine, prompts, recipe)
    found: dict[Reading, list[tuple[float, float]]] = {"list": [], "pairs": []}
    for reading, pairs in found.items():
        measured = cognitive_gap(sets, EngineReranker(engine, prompts), over=reading)
        for name, distance in world.distance.items():
            gap, _ = cluster_gap([s for s in measured if family[s.run_id] == name])
            assert gap is not None, f"no log of {name!r} tells anything"
            pairs.append((distance, gap))
    return found


def rank(pairs: NDArray[np.float64]) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)


def interval(pairs: NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval over families."""
    rng = np.random.default_rng(0)
    draws = [rank(pairs[rng.integers(0, len(pairs), len(pairs))]) for _ in range(2000)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
