"""Capture under violence: python -m lab.benchmarks.bench_crash kill | many | full

kill  two processes of two threads capture, a third drains; all are killed (-9) at a random moment,
      over and over on one home, index files damaged now and then. Acknowledged records and
      feedbacks are written to a file as soon as the call has returned, and looked for afterwards.
many  four processes capture 25,000 records each on one home while another drains.
full  the home lies on a small tmpfs that fills up; the app must not notice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.redaction import Redactor
from tests.unit_tests.logs.toys import WordEmbedder

ANSWER = LLMResult(generations=[[ChatGeneration(message=AIMessage("Press the red button. " * 10))]])


def child(work: Callable[..., object], *args: Any) -> int:
    """Fork, do the work in the child, and return its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work(*args)
            status = 0
        except Exception:  # noqa: BLE001 - say it, then end without the parent's clean-up
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def keep_capturing(folder: Path, told: Path, threads: int, most: int | None = None) -> None:
    """Capture, and note what was acknowledged: "i" an interaction, "f" a feedback."""
    handler = UNOFeedbackHandler(home=folder)
    out = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def work() -> None:
        n = 0
        while most is None or n < most:
            run = uuid.uuid4()
            before = handler.stats()["errors"]
            question = [HumanMessage(f"How do I start number {n} of {run.hex[:6]}?")]
            handler.on_chat_model_start({}, [question], run_id=run)
            handler.on_llm_end(ANSWER, run_id=run)
            if handler.stats()["errors"] == before:
                os.write(out, f"i{run.hex}\n".encode())
            if n % 3 == 0:
                one = handler.feedback(run, comment="Shorter, please.")
                os.write(out, f"f{one.feedback_id}\n".encode())
            n += 1
            if most is None:
                time.sleep(0.002)  # moments between two writes are moments to be killed at, too

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    handler.close()


def keep_draining(folder: Path) -> None:
    from langchain_uno.logs.store import LogStore

    while True:
        with LogStore.open(Home.locate(folder), WordEmbedder(), say=lambda line: None) as store:
            store.drain()


def check(folder: Path, acknowledged: dict[str, set[str]], result: Path) -> None:
    """Open the store as the next process would, drain, and compare all three."""
    from langchain_uno.logs.store import LogStore

    said: list[str] = []
    start = time.perf_counter()
    with LogStore.open(Home.locate(folder), WordEmbedder(), say=said.append) as store:
        store.drain()
        with Journal(Home.locate(folder).journal, readonly=True) as journal:
            runs = [row.run_id.replace("-", "") for row in journal.rows()]
            feedback = [f.feedback_id for f in journal.feedback()]
            counts = journal.counts()
        found = {
            "lost": len(acknowledged["i"] - set(runs)) + len(acknowledged["f"] - set(feedback)),
            "twice": len(runs) - len(set(runs)) + len(feedback) - len(set(feedback)),
            "index": store.count(),
            "journal": counts[0],
            "rebuilt": bool(said),
            "seconds": time.perf_counter() - start,
        }
    result.write_text(json.dumps(found))


def damage(folder: Path, rng: random.Random) -> str:
    """Delete or truncate one of the index's files."""
    files = [p for p in (folder / "chroma").rglob("*") if p.is_file()]
    if not files:
        return ""
    victim = rng.choice(files)
    if rng.random() < 0.5:
        victim.unlink()
    else:
        os.truncate(victim, rng.randrange(victim.stat().st_size + 1))
    return victim.name


def kill(rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder, told, result = Path(name) / "home", Path(name) / "told", Path(name) / "result"
        acknowledged: dict[str, set[str]] = {"i": set(), "f": set()}
        n_kept = {"i": 0, "f": 0}
        total = {"lost": 0, "twice": 0, "rebuilt": 0, "unopened": 0, "unequal": 0, "damaged": 0}
        slowest = 0.0
        for n in range(rounds):
            if n % 20 == 0:  # a new home: looking through a large one takes longer than killing it
                folder = Path(name) / f"home-{n}"
                acknowledged = {"i": set(), "f": set()}
            told.unlink(missing_ok=True)
            pids = [child(keep_capturing, folder, told, 2) for _ in range(2)]
            pids.append(child(keep_draining, folder))
            time.sleep(rng.uniform(0.05, 0.8))
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            for pid in pids:
                os.waitpid(pid, 0)
            # A line cut off by the kill was not acknowledged.
            for line in (told.read_text() if told.exists() else "").split("\n")[:-1]:
                acknowledged[line[0]].add(line[1:])
                n_kept[line[0]] += 1
            if n % 5 == 4:
                total["damaged"] += bool(damage(folder, rng))
            result.unlink(missing_ok=True)
            _, status = os.waitpid(child(check, folder, acknowledged, result), 0)
            if status or not result.exists():
                total["unopened"] += 1
                continue
            found = json.loads(result.read_text())
            total["lost"] += found["lost"]
            total["twice"] += found["twice"]
            total["rebuilt"] += found["rebuilt"]
            total["unequal"] += found["index"] != found["journal"]
            slowest = max(slowest, found["seconds"])
        print(f"{rounds} kills; acknowledged {n_kept['i']} records, {n_kept['f']} feedbacks;")
        print(f"{total}; slowest opening with drain {slowest:.1f} s")


def many(processes: int, each: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, told, result = Path(name) / "home", Path(name) / "told", Path(name) / "result"
        start = time.perf_counter()
        pids = [child(keep_capturing, folder, told, 1, each) for _ in range(processes)]
        drainer = child(keep_draining, folder)
        codes = [os.waitpid(pid, 0)[1] for pid in pids]
        captured = time.perf_counter() - start
        os.kill(drainer, signal.SIGKILL)
        os.waitpid(drainer, 0)
        acknowledged: dict[str, set[str]] = {"i": set(), "f": set()}
        for line in told.read_text().splitlines():
            acknowledged[line[0]].add(line[1:])
        os.waitpid(child(check, folder, acknowledged, result), 0)
        found = json.loads(result.read_text())
        print(f"{processes} x {each} in {captured:.0f} s (a drainer beside them), exits {codes}")
        print(found)


def full(megabytes: int) -> None:
    mount = Path(tempfile.mkdtemp())
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(mount)], check=True
    )
    try:
        handler = UNOFeedbackHandler(home=mount / "home", max_waiting=100_000)
        model = FakeListChatModel(responses=["x" * 20_000])
        filler = mount / "filler"
        filler.write_bytes(b"x" * (megabytes << 19))
        calls = 0
        while handler.stats()["waiting"] < 200:  # it is full, and the app goes on
            answer: Any = model.invoke(f"question {calls}", config={"callbacks": [handler]})
            assert answer.content
            calls += 1
        stuck = handler.stats()
        with Journal(handler.home.journal, readonly=True) as journal:
            during = journal.counts()[0]
        filler.unlink()
        handler.flush()
        after = handler.stats()
        handler.close()
        with Journal(handler.home.journal, readonly=True) as journal:
            kept = journal.counts()[0]
        print(f"{calls} calls answered; while full: {stuck}, {during} in the journal")
        print(f"with room again: {after}, {kept} in the journal")
        assert during >= stuck["recorded"]
        assert kept == calls
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kill", "many", "full"])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--each", type=int, default=25_000)
    parser.add_argument("--megabytes", type=int, default=32)
    given = parser.parse_args()
    import chromadb  # noqa: F401 - before forking: the children are to be killed at work

    Redactor()  # loads LangChain's detectors
    if given.what == "kill":
        kill(given.rounds, given.seed)
    elif given.what == "many":
        many(given.processes, given.each)
    else:
        full(given.megabytes)


if __name__ == "__main__":
    main()
