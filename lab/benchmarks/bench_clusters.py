"""Default against paper mode on planted clusters: found, adjusted Rand index, time, memory.

    python -m lab.benchmarks.bench_clusters                # the whole table, some minutes
    python -m lab.benchmarks.bench_clusters --max-n 1000   # the quick part
    python -m lab.benchmarks.bench_clusters scale          # 100 to 1,000,000 logs, rare kinds too

Each cell runs in a process of its own, so that its peak memory is its own. Memory is what the call
adds to the process that holds the vectors; time is seconds of processor time, which a busy machine
does not change.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from lab.benchmarks.planted import planted

CASES = [
    *((50, k) for k in (3, 5)),
    *((100, k) for k in (3, 6)),
    *((300, k) for k in (3, 10, 20)),
    *((1000, k) for k in (3, 10, 30, 60)),
    *((3000, k) for k in (3, 10, 30, 100)),
    *((10_000, k) for k in (3, 10, 30, 100)),
]

RARE = 8
"""Kinds of 40 logs each in the larger worlds."""
_NAME = "lab.benchmarks.bench_clusters"


def main() -> None:
    """Print a markdown table; ``--cell N K SEED MODE`` runs one cell and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("table", "scale"), default="table")
    parser.add_argument("--max-n", type=int)
    parser.add_argument("--seeds", type=int, default=3, help="worlds a cell up to n = 3,000")
    parser.add_argument("--cell", nargs=4, metavar=("N", "K", "SEED", "MODE"))
    args = parser.parse_args()
    if args.cell:
        n, k, seed = map(int, args.cell[:3])
        print(json.dumps(_cell(n, k, seed, args.cell[3])))
        return
    if args.what == "scale":
        _scale(args.max_n or 1_000_000)
        return
    print("| n | planted k | default: found | ARI | s | MB | paper: found | ARI | s | MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for n, k in CASES:
        if n > (args.max_n or 10_000):
            continue
        seeds = args.seeds if n <= 3000 else 1
        columns = [_columns(n, k, seeds, mode) for mode in ("stable", "paper")]
        print(f"| {n:,} | {k} | {' | '.join(columns)} |", flush=True)


def _scale(most: int) -> None:
    """Print how time and memory grow, and how many rare kinds (40 logs each) are found."""
    print("| n | kinds | of these rare | found | ARI | rare found | s | MiB added | MiB vectors |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for n, k in ((100, 3), (1000, 10), (10_000, 30), (20_000, 38), (100_000, 68), (1_000_000, 108)):
        if n <= most:
            one = _run(n, k, RARE if n > 10_000 else 0, "scale")
            figures = (one["found"], f"{one['ari']:.3f}", one["kept"], f"{one['seconds']:.1f}")
            sizes = (f"{one['mb']:.0f}", f"{one['vectors']:.0f}")
            row = (f"{n:,}", k, one["rare"], *figures, *sizes)
            print(f"| {' | '.join(map(str, row))} |", flush=True)


def _scale_cell(n: int, k: int, rare: int) -> dict[str, float]:
    import sklearn.cluster  # noqa: F401 - imported first, so that time and memory are the call's
    from sklearn.metrics import adjusted_rand_score

    from langchain_uno.learning.cluster import cluster_logs

    with tempfile.TemporaryDirectory() as folder:
        # Another process makes the vectors: its memory is not the call's.
        make = f"from {_NAME} import write_planted as w; w({folder!r}, {n}, {k}, {rare})"
        subprocess.run([sys.executable, "-c", make], check=True)
        query, rules = (np.load(f"{folder}/{name}.npy") for name in ("query", "rules"))
        truth = np.load(f"{folder}/truth.npy")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, wall = time.process_time(), time.perf_counter()
    labels = cluster_logs(query, rules)
    seconds, waited = time.process_time() - start, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{waited:.0f} s by the clock, {peak / 1024:.0f} MiB in all", file=sys.stderr)
    return {
        "found": int(labels.max()) + 1,
        "ari": float(adjusted_rand_score(truth, labels)),
        "seconds": seconds,
        "mb": (peak - before) / 1024,
        "vectors": (query.nbytes + rules.nbytes) / 2**20,
        "rare": rare,
        "kept": sum(_is_found(labels, truth == i) for i in range(k - rare, k)),
    }


def _is_found(labels: np.ndarray, kind: np.ndarray) -> bool:
    """Whether half of a kind's logs are one cluster, half of which they are."""
    largest = labels == np.bincount(labels[kind]).argmax()
    return bool(2 * (largest & kind).sum() >= max(kind.sum(), largest.sum()))


def write_planted(folder: str, n: int, k: int, rare: int) -> None:
    """Write planted vectors into a folder."""
    for name, array in zip(("query", "rules", "truth"), planted(n, k, rare=rare), strict=True):
        np.save(f"{folder}/{name}.npy", array)


def _columns(n: int, k: int, seeds: int, mode: str) -> str:
    rows = [_run(n, k, seed, mode) for seed in range(seeds)]
    found = ", ".join(str(row["found"]) for row in rows)
    ari, seconds = (sum(row[key] for row in rows) / len(rows) for key in ("ari", "seconds"))
    return f"{found} | {ari:.2f} | {seconds:.1f} | {max(row['mb'] for row in rows):.0f}"


def _run(n: int, k: int, seed: int, mode: str) -> dict[str, float]:
    command = [sys.executable, "-m", "lab.benchmarks.bench_clusters", "--cell"]
    done = subprocess.run(
        [*command, str(n), str(k), str(seed), mode], capture_output=True, text=True, check=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _cell(n: int, k: int, seed: int, mode: str) -> dict[str, float]:
    if mode == "scale":
        return _scale_cell(n, k, rare=seed)
    import sklearn.cluster  # noqa: F401 - imported first, so that time and memory are the call's
    from sklearn.metrics import adjusted_rand_score

    from langchain_uno.learning.cluster import cluster_logs

    query, rules, truth = planted(n, k, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    labels = cluster_logs(query, rules, "ward" if mode == "paper" else "stable")
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "found": int(labels.max()) + 1,
        "ari": float(adjusted_rand_score(truth, labels)),
        "seconds": seconds,
        "mb": (peak - before) / 1024,
    }


if __name__ == "__main__":
    main()
