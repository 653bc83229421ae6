"""Requests of frames that no log has, sent to clusters: by embeddings as they are, and projected.

    python -m lab.benchmarks.bench_routing --seeds 931 932 933

The families of the world are the clusters (clustering has a benchmark of its own). The last column
has a seventh of the logs in a wrong cluster.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.service import held_out_queries, plan_visits
from langchain_uno.learning.reach import assign, centroids, discriminant
from langchain_uno.models.loading import load_embedder, shared_engine
from langchain_uno.models.protocols import FloatArray


def right(
    vectors: FloatArray, labels: FloatArray, new: FloatArray, truth: FloatArray, mapped: bool
) -> float:
    """Share of new requests that go to the right cluster."""
    projection = discriminant(vectors, labels) if mapped else None
    found = assign(new, centroids(vectors, labels), np.inf, projection)
    return float(np.mean(found == truth))


def main() -> None:
    """Print a row a number of logs: means over the worlds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[931, 932, 933])
    seeds = parser.parse_args().seeds
    embedder = load_embedder(None, shared_engine(None))
    table = Table("logs", "nearest centroid", "projected", "nearest, noisy", "projected, noisy")
    for count in (64, 80, 140, 280):
        rows = []
        for seed in seeds:
            world = make_world(seed)
            names = list(world.families)
            visits = plan_visits(world, count)
            vectors = embedder.embed([v.query.text for v in visits])
            labels = np.array([names.index(v.query.family) for v in visits])
            asked = [query for _, query in held_out_queries(world, 30)]
            new = embedder.embed([query.text for query in asked])
            truth = np.array([names.index(query.family) for query in asked])
            rng = np.random.default_rng(seed)
            wrong = rng.random(count) < 1 / 7
            noisy = np.where(wrong, rng.integers(0, len(names), count), labels)
            rows.append(
                [
                    right(vectors, some, new, truth, mapped)
                    for some in (labels, noisy)
                    for mapped in (False, True)
                ]
            )
        table.add_row(str(count), *(f"{100 * x:.1f} %" for x in np.mean(rows, axis=0)))
    Console().print(table)


if __name__ == "__main__":
    main()
