"""The families of a world found again by clustering: neighbours that want the same joined, or not.

    python -m tests.benchmarks.bench_families --worlds 6 --visits 420

Logs are those of a week of the service, embedded by the embedded model; what users name stands for
itself (no slip in distilling). The score is what a held-out request of a family finds in the
cluster that it is routed to: the share of its family's logs that are there, times the share of the
cluster that is its family's, 1 at best. Families that want the same may share a cluster: then the
score falls short of 1 although nothing is lost (variant twins).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from langchain_uno.learning.alike import merge_alike
from langchain_uno.learning.cluster import centroids, cluster_logs
from langchain_uno.learning.discriminant import discriminant
from langchain_uno.learning.reach import assign
from langchain_uno.models.loading import load_embedder, shared_engine
from langchain_uno.models.protocols import Embedder, FloatArray
from langchain_uno.world.drawing import make_world
from langchain_uno.world.service import Visit, held_out_queries, plan_visits
from langchain_uno.world.variants import VARIANTS
from langchain_uno.world.worlds import World


def main(
    worlds: Annotated[int, typer.Option(help="How many.", min=1)] = 6,
    seed: Annotated[int, typer.Option(help="Of the first world.")] = 2101,
    visits: Annotated[int, typer.Option(help="Requests of the week.", min=50)] = 420,
    variants: Annotated[str, typer.Option(help="Names, with commas.")] = ",".join(VARIANTS),
) -> None:
    """Print clusters and score of each variant, means over the worlds."""
    embedder = load_embedder(None, shared_engine(None))
    table = Table("variant", "families", "clusters", "joined", "score", "score, joined")
    for variant in variants.split(","):
        rows = []
        for s in range(seed, seed + worlds):
            world = make_world(s, noise=0.34, variant=variant)
            rows.append(_score(world, plan_visits(world, visits), embedder))
        families, found, joined, before, after = np.mean(rows, axis=0)
        table.add_row(
            variant, f"{families:.0f}", f"{found:.1f}", f"{joined:.1f}", f"{before:.3f}",
            f"{after:.3f}",
        )  # fmt: skip
    Console().print(table)


def _score(world: World, visits: Sequence[Visit], embedder: Embedder) -> list[float]:
    logs = [(visit, said) for visit in visits if (said := _said(world, visit)) is not False]
    queries = embedder.embed([visit.query.text for visit, _ in logs])
    rules = embedder.embed(["\n".join(said or ()) for _, said in logs])
    labels = cluster_logs(queries, rules)
    people = [visit.user.id for visit, _ in logs]
    joined = merge_alike(queries, labels, [said for _, said in logs], people)
    families = np.array([visit.query.family for visit, _ in logs])
    asked = [query for _, query in held_out_queries(world, 30)]
    new, truth = embedder.embed([query.text for query in asked]), [q.family for q in asked]
    return [
        float(len(world.families)),
        float(labels.max() + 1),
        float(joined.max() + 1),
        *(_found_again(queries, some, families, new, truth) for some in (labels, joined)),
    ]


def _said(world: World, visit: Visit) -> Sequence[str] | bool | None:
    """Return the wishes that a visit's feedback names; None: none; False: it is no usable log."""
    rng = Random(f"families-{visit.run_id}")
    wishes = world.wishes(world.language(), visit.query, visit.user, visit.when)
    if visit.channel == "silent":
        return False
    if visit.noisy:  # one in eight names a wish that it does not mean; half of the rest is seen
        if rng.random() < 1 / 8:
            return [rng.choice(sorted(world.language().rules))]
        return False if rng.random() < 0.5 else None
    if not wishes:
        return []
    if visit.channel in ("thumb", "edit"):
        return None
    return [w for w in wishes if rng.random() < visit.user.mention] or [rng.choice(wishes)]


def _found_again(
    queries: FloatArray,
    labels: NDArray[np.int64],
    families: NDArray[np.str_],
    new: FloatArray,
    truth: Sequence[str],
) -> float:
    routes = assign(new, centroids(queries, labels), np.inf, discriminant(queries, labels))
    total = 0.0
    for family, route in zip(truth, routes, strict=True):
        mine, there = families == family, labels == route
        total += float((mine & there).sum()) ** 2 / float(mine.sum() * there.sum())
    return total / len(truth)


if __name__ == "__main__":
    typer.run(main)
