"""How quick the console is: python -m lab.benchmarks.bench_console pages|readers

``pages`` makes a home with a million logs, a fifth of them rated, two releases of 10,000 clusters,
and a canary that has run all the time; it asks for every page three times over HTTP, and prints the
seconds. ``readers`` lets 200 people read a small home's pages at once while ``langchain-uno train``
refreshes it, and counts what failed. Both start the command ``langchain-uno console``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from langchain_uno.home import Home
from langchain_uno.logs.journal import FILE_NAME, Journal
from langchain_uno.records import Cluster, VerifierReport
from langchain_uno.releases import canary
from langchain_uno.releases.manifest import Manifest
from langchain_uno.releases.publish import publish
from langchain_uno.web.console.access import ENV_TOKENS

TOKEN = "bench-" * 5
PAGES = [
    "/",
    "/clusters",
    "/clusters?q=rule+77&page=2",
    "/clusters/c5000",
    "/releases",
    "/people",
    "/people?page=200",
    "/people?q=u77",
    "/forget?kind=user&id=u77",
    "/health",
]


def run_id_of(n: int) -> str:
    """Return the id of a log; ids are in no order."""
    return str(uuid.UUID(int=(n * 0x9E3779B97F4A7C15) % 2**128))


def fill_journal(home: Home, logs: int, people: int, plan: canary.Plan) -> None:
    """Write the logs, as capture would have over two weeks; the canary was there all the time."""
    Journal(home.journal).close()
    db = sqlite3.connect(home.journal / FILE_NAME, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    now, words = time.time(), "all that the user wanted to know about the order " * 6
    db.execute("BEGIN")
    for n in range(logs):
        run_id, user = run_id_of(n), f"u{n % people}"
        at = now - 14 * 86400 * (1 - n / logs)
        body = {"run_id": run_id, "namespace": "default", "messages": [
            {"role": "user", "content": f"Request {n}: {words}"}], "answer": f"Answer {n}. {words}",
            "release": plan.current if n % people % 3 else plan.release, "user_id": user,
            "canary": plan.id}  # fmt: skip
        if n % 4:
            body["cluster"] = f"c{n % 10_000}"
        row = (run_id, str(uuid.uuid4()), f"t{n // 5}", user, at, 1, json.dumps(body))
        db.execute(
            "INSERT INTO interactions (run_id, root_run_id, thread_id, user_id, created_at, "
            "has_answer, body, release, reached) VALUES (?,?,?,?,?,?,?,?,?)",
            (*row, body["release"], "cluster" in body),
        )
        if n % 5 == 0:
            said = json.dumps({"feedback_id": f"f{n}", "run_id": run_id, "score": n // 5 % 2})
            db.execute(
                "INSERT INTO feedback (feedback_id, run_id, user_id, created_at, body) "
                "VALUES (?,?,?,?,?)",
                (f"f{n}", run_id, user, at, said),
            )
    db.execute("COMMIT")
    db.close()


def release(home: Home, clusters: int, rated: list[str], note: str) -> str:
    """Publish a release of many clusters without modules."""
    each = max(1, len(rated) // clusters)
    made = []
    for n in range(clusters):
        report = VerifierReport(kind="expert", n=9, people=6, win_rate=0.6, interval=(0.3, 0.8),
                                passed=False, undecided=True, needed=40)  # fmt: skip
        made.append(
            Cluster(id=f"c{n}", size=each, people=7, gap=n / clusters, n_gap_logs=each,
                    run_ids=rated[n * each : (n + 1) * each], reports=[report], note=note,
                    rules=[f"Follow rule {n}, part {k}, in all that you say." for k in range(4)])
        )  # fmt: skip
    draft = Manifest(
        base_model="bundled",
        base_fingerprint="base",
        embedder_fingerprint="embedder",
        prompt_set_fingerprint="prompts",
        clusters=made,
        figures={"coverage": 0.7, "seconds": {"filter": 60.0, "train": 4000.0}},
    )
    return publish(home, draft, {}, np.random.default_rng(1).normal(size=(clusters, 64)))


@contextmanager
def console(home: Home) -> Iterator[httpx.Client]:
    """Start the command on a free port; yield a client that was let in."""
    server = subprocess.Popen(
        [sys.executable, "-m", "langchain_uno", "console", "--home", str(home.root), "--port", "0",
         "--no-model"],
        env={**os.environ, ENV_TOKENS: f"bench:release:{TOKEN}"},
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert server.stdout
        found = re.search(r"(http://[\d.:]+)/", server.stdout.readline())
        assert found, "the console did not start"
        with httpx.Client(base_url=found[1], timeout=60) as client:
            for _ in range(100):
                try:
                    client.get("/enter", params={"token": TOKEN})
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield client
    finally:
        server.terminate()
        server.wait()


def pages(logs: int, clusters: int, budget: int, where: Path) -> dict[str, Any]:
    """Time every page; ``budget`` is how many people's votes the canary takes."""
    home = Home.locate(where).ensure()
    start = time.perf_counter()
    rated = [run_id_of(n) for n in range(0, logs, 5)]
    old = release(home, clusters, rated, "")
    new = release(home, clusters, rated, "new")
    began = datetime.fromtimestamp(time.time() - 15 * 86400, timezone.utc)
    plan = canary.start(home, old, people=budget, days=30)
    plan = plan.model_copy(update={"started": began})
    (home.path / "canary.json").write_text(plan.model_dump_json())
    fill_journal(home, logs, max(1, logs // 20), plan)
    size = (home.releases / new / "manifest.json").stat().st_size
    print(f"made in {time.perf_counter() - start:.0f} s; manifest {size / 1e6:.0f} MB", flush=True)
    took: dict[str, list[float]] = {}
    with console(home) as client:
        for page in [*PAGES, f"/releases/{new}", f"/diff?old={old}&new={new}"]:
            for _ in range(3):
                time.sleep(7 if page in ("/", "/people") else 0)  # figures are kept for 5 s
                start = time.perf_counter()
                code = client.get(page).status_code
                took.setdefault(page, []).append(round(time.perf_counter() - start, 3))
            print(f"{page:60} {code} {took[page]}", flush=True)
    return {"logs": logs, "clusters": clusters, "seconds": took}


def readers(where: Path, people: int = 200) -> dict[str, Any]:
    """Count what fails while many read and a refresh runs."""
    home = Home.locate(where)
    failed: list[str] = []
    times: list[float] = []
    with console(home) as client:
        train = subprocess.Popen(
            [sys.executable, "-m", "langchain_uno", "train", "--home", str(home.root), "--quiet",
             "--max-steps", "4", "--seed", "9"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        rounds = 0

        def read(n: int) -> None:
            page = ["/", "/clusters", "/releases", "/people", "/health"][n % 5]
            start = time.perf_counter()
            try:
                code = client.get(page).status_code
            except httpx.HTTPError as error:
                code = 0
                failed.append(f"{page} {error!r}")
            times.append(time.perf_counter() - start)
            if code not in (0, 200):
                failed.append(f"{page} {code}")

        client.timeout = httpx.Timeout(120)
        client._transport = httpx.HTTPTransport(limits=httpx.Limits(max_connections=people))
        while train.poll() is None:
            threads = [threading.Thread(target=read, args=(n,)) for n in range(people)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rounds += 1
            time.sleep(1)
    worst = round(max(times), 2)
    return {"readers": people, "rounds": rounds, "read": len(times), "slowest_s": worst,
            "median_s": round(float(np.median(times)), 2), "failed": failed,
            "refresh_ended_with": train.returncode}  # fmt: skip


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["pages", "readers"])
    parser.add_argument("--logs", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--budget", type=int, default=200, help="of the canary, in people")
    parser.add_argument("--home", type=Path, help="for readers: a home that can be refreshed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.what == "pages":
            print(json.dumps(pages(args.logs, args.clusters, args.budget, Path(folder))))
        else:
            print(json.dumps(readers(args.home)))


if __name__ == "__main__":
    main()
