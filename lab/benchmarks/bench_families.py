"""The families of a world found again by clustering: neighbours that want the same joined, or not.

    python -m lab.benchmarks.bench_families --worlds 6 --visits 420

Logs are those of a week of the service, embedded by the bundled model; what users name stands for
itself (no slip in distilling). The score is what a held-out request of a family finds in the
cluster that it is routed to: the share of its family's logs that are there, times the share of the
cluster that is its family's, 1 at best. Families that want the same may share a cluster: then the
score falls short of 1 although nothing is lost (variant twins).

With ``--rounds`` families come one after the other, as in ``evaluation rounds``, and from the round
after it came a family is answered by a module that knows its wishes of then: its users say nothing
but what it lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lab.studies.rounds import arrivals
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.service import Visit, held_out_queries, plan_visits
from langchain_uno.demo.variants import VARIANTS
from langchain_uno.demo.worlds import World
from langchain_uno.learning.alike import merge_alike
from langchain_uno.learning.cluster import centroids, cluster_logs
from langchain_uno.learning.discriminant import discriminant
from langchain_uno.learning.reach import assign
from langchain_uno.models.loading import load_embedder, shared_engine
from langchain_uno.models.protocols import Embedder, FloatArray


def main(
    worlds: Annotated[int, typer.Option(help="How many.", min=1)] = 6,
    seed: Annotated[int, typer.Option(help="Of the first world.")] = 2101,
    visits: Annotated[int, typer.Option(help="Requests of the week.", min=50)] = 420,
    variants: Annotated[str, typer.Option(help="Names, with commas.")] = ",".join(VARIANTS),
    rounds: Annotated[int, typer.Option(help="0: no module has answered yet.", min=0)] = 0,
) -> None:
    """Print clusters and score of each variant, means over the worlds."""
    embedder = load_embedder(None, shared_engine(None))
    table = Table("variant", "families", "clusters", "joined", "score", "score, joined")
    for variant in variants.split(","):
        rows = []
        for s in range(seed, seed + worlds):
            world = make_world(s, noise=0.34, variant=variant)
            rows.append(_score(world, plan_visits(world, visits), embedder, rounds))
        families, found, joined, before, after = np.mean(rows, axis=0)
        table.add_row(
            variant, f"{families:.0f}", f"{found:.1f}", f"{joined:.1f}", f"{before:.3f}",
            f"{after:.3f}",
        )  # fmt: skip
    Console().print(table)


class _Log(NamedTuple):
    visit: Visit
    said: Sequence[str] | None
    """The wishes that its feedback names; None: none."""
    module: str | None
    """What answered; None: the base."""


def _score(world: World, visits: Sequence[Visit], embedder: Embedder, rounds: int) -> list[float]:
    logs = _logs(world, visits, rounds)
    queries = embedder.embed([log.visit.query.text for log in logs])
    # As in a refresh: what is asked of a module is what it lacks, and tells nothing of wishes.
    wishes = [None if log.module else log.said for log in logs]
    rules = embedder.embed(["\n".join(named or ()) for named in wishes])
    labels = cluster_logs(queries, rules)
    people = [log.visit.user.id for log in logs]
    served = [None if log.said else log.module for log in logs]
    joined = merge_alike(queries, labels, wishes, people, served)
    families = np.array([log.visit.query.family for log in logs])
    asked = [query for _, query in held_out_queries(world, 30)]
    new, truth = embedder.embed([query.text for query in asked]), [q.family for q in asked]
    return [
        float(len(world.families)),
        float(labels.max() + 1),
        float(joined.max() + 1),
        *(_found_again(queries, some, families, new, truth) for some in (labels, joined)),
    ]


def _logs(world: World, visits: Sequence[Visit], rounds: int) -> list[_Log]:
    """Return the usable logs; in rounds, those of the families that are there."""
    there = arrivals(world, rounds) if rounds else [list(world.families)]
    came = {name: [name in names for names in there].index(True) for name in world.families}
    logs = []
    for visit in visits:
        family, nth = visit.query.family, int(visit.when * rounds)
        said = _said(world, visit)
        if said is False or nth < came[family]:
            continue
        named = said if isinstance(said, Sequence) else None
        if nth == came[family]:
            logs.append(_Log(visit, named, None))
            continue
        then = world.wishes(world.language(), visit.query, visit.user, nth / rounds)
        lacks = [w for w in named or () if visit.noisy or w not in then]
        logs.append(_Log(visit, lacks if named is not None else None, family))
    return logs


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
