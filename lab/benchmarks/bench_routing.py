"""Who finds a cluster: requests in words that no log has, and requests on topics that no log has.

    python -m lab.benchmarks.bench_routing --seeds 931 932 933
    python -m lab.benchmarks.bench_routing --vectors real_feedback_dialogs.minilm.npz

The families of a world are its clusters (clustering has a benchmark of its own), 280 logs. *Tests*
are requests of frames, facts and names of the third that is kept for tests, *other half* those that
the bundled model's training saw and no log has. "On other topics": each family is left out of the
clusters in turn, and its requests should go to the base. ``plain`` is the nearest centroid without
a limit, as in the paper.

With ``--vectors`` the data sets of real dialogs are the clusters: a fifth of each, worded alike, is
left out in turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
from rich.console import Console
from rich.table import Table

from langchain_uno.demo.answers import Query
from langchain_uno.demo.drawing import make_query, make_world
from langchain_uno.demo.service import plan_visits
from langchain_uno.learning.reach import Reach, everyday_requests, find_reach
from langchain_uno.models.loading import load_embedder, shared_engine
from langchain_uno.models.protocols import FloatArray
from langchain_uno.serving.router import Router

LOGS, EACH, UNSEEN = 280, 15, 0.995
Set = tuple[FloatArray, FloatArray]
"""Vectors, and the number of each one's family."""


def routed(reach: Reach, x: FloatArray) -> FloatArray:
    """Return the cluster of each vector, -1 for the base."""
    ids = [str(i) for i in range(len(reach.centroids))]
    router = Router(reach.centroids, ids, reach.limit, space=reach.space)
    return np.array(
        [-1 if c.cluster_id is None else int(c.cluster_id) for c in router.route_batch(x)]
    )


def figures(logs: Set, asked: Set, everyday: FloatArray) -> list[float]:
    """Return right without a limit, right, wrong, to the base on other topics; in %."""
    vectors, labels = logs
    new, truth = asked
    found = routed(find_reach(vectors, labels, UNSEEN, everyday), new)
    plain = routed(find_reach(vectors, labels, 0.0), new)
    refused = []
    for family in range(int(labels.max()) + 1):
        rest = labels != family
        others = np.unique(labels[rest], return_inverse=True)[1]
        reach = find_reach(vectors[rest], others, UNSEEN, everyday)
        refused += list(routed(reach, new[truth == family]) < 0)
    shares = (plain == truth, found == truth, (found >= 0) & (found != truth), refused)
    return [100 * float(np.mean(share)) for share in shares]


def worlds(seeds: list[int]) -> Iterator[tuple[str, list[float]]]:
    """Yield a row a kind of request and kind of logs: means over the worlds."""
    embedder = load_embedder(None, shared_engine(None))
    everyday = embedder.embed(everyday_requests())
    rows: dict[str, list[list[float]]] = {}
    for seed in seeds:
        world = make_world(seed)
        language, names, rng = world.language(), list(world.families), Random(f"routing-{seed}")

        def vectors_of(queries: list[Query], names: list[str] = names) -> Set:
            found = embedder.embed([query.text for query in queries])
            return found, np.array([names.index(query.family) for query in queries])

        families = [language.families[name] for name in names for _ in range(EACH)]
        tests = [make_query(language, f, rng, unseen=True, part="tests") for f in families]
        other = [make_query(language, f, rng, unseen=False) for f in families]
        vectors, labels = vectors_of([visit.query for visit in plan_visits(world, LOGS)])
        noise = np.random.default_rng(seed)
        wrong = noise.random(LOGS) < 1 / 7
        noisy = np.where(wrong, noise.integers(0, len(names), LOGS), labels)
        kinds = {"tests": vectors_of(tests), "other half": vectors_of(other)}
        for logs, of in (("", labels), (", a seventh of the logs misplaced", noisy)):
            for kind, asked in kinds.items():
                rows.setdefault(kind + logs, []).append(figures((vectors, of), asked, everyday))
    for name, told in rows.items():
        yield name, list(np.mean(told, axis=0))


def real(path: Path) -> Iterator[tuple[str, list[float]]]:
    """Yield one row: the mean over fifths of each data set that are worded alike."""
    from sklearn.cluster import KMeans

    data = np.load(path, allow_pickle=False)
    x, y = data["query"], np.unique(data["dataset"], return_inverse=True)[1]
    part = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        part[y == label] = KMeans(5, n_init=5, random_state=0).fit_predict(x[y == label])
    told = [
        figures((x[part != i], y[part != i]), (x[part == i], y[part == i]), x[:0]) for i in range(5)
    ]
    yield path.name, list(np.mean(told, axis=0))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[931, 932, 933])
    parser.add_argument("--vectors", type=Path, help="embeddings of real dialogs, an .npz file")
    given = parser.parse_args()
    rows: Callable[[], Iterator[tuple[str, list[float]]]]
    rows = (lambda: real(given.vectors)) if given.vectors else (lambda: worlds(given.seeds))
    table = Table("requests", "plain: right", "right", "wrong", "on other topics: to the base")
    for name, told in rows():
        table.add_row(name, *(f"{share:.1f} %" for share in told))
    Console().print(table)


if __name__ == "__main__":
    main()
