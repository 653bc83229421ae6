"""Default against paper mode on planted clusters: found, adjusted Rand index, time, memory.

    python -m lab.benchmarks.bench_clusters                # the whole table, some minutes
    python -m lab.benchmarks.bench_clusters --max-n 1000   # the quick part

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
import time

from lab.benchmarks.planted import planted

CASES = [
    *((50, k) for k in (3, 5)),
    *((100, k) for k in (3, 6)),
    *((300, k) for k in (3, 10, 20)),
    *((1000, k) for k in (3, 10, 30, 60)),
    *((3000, k) for k in (3, 10, 30, 100)),
    *((10_000, k) for k in (3, 10, 30, 100)),
]


def main() -> None:
    """Print a markdown table; ``--cell N K SEED MODE`` runs one cell and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-n", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3, help="worlds a cell up to n = 3,000")
    parser.add_argument("--cell", nargs=4, metavar=("N", "K", "SEED", "MODE"))
    args = parser.parse_args()
    if args.cell:
        n, k, seed = map(int, args.cell[:3])
        print(json.dumps(_cell(n, k, seed, args.cell[3])))
        return
    print("| n | planted k | default: found | ARI | s | MB | paper: found | ARI | s | MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for n, k in CASES:
        if n > args.max_n:
            continue
        seeds = args.seeds if n <= 3000 else 1
        columns = [_columns(n, k, seeds, mode) for mode in ("stable", "paper")]
        print(f"| {n:,} | {k} | {' | '.join(columns)} |", flush=True)


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
