"""How the cost of a home grows with its log, without a pretrained model or a network.

    python -m lab.benchmarks.bench_growth fill HOME --rows 200000   # write records, index them
    python -m lab.benchmarks.bench_growth capture HOME --rows 1000  # what an append takes there
    python -m lab.benchmarks.bench_growth refresh HOME --new 100    # until a new log is distilled
    python -m lab.benchmarks.bench_growth refresh HOME --new 0      # then there is nothing to do

A quarter of the records has feedback: words, thumbs, and the next turns of threads; a fifth names
no user. Vectors are made up (384 dimensions), the teacher answers at once, and the base model is
the bundled one. Every command prints seconds and the process's largest memory.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from langchain_uno.home import Home
from langchain_uno.learning.work import RefreshProgress
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import LogStore
from langchain_uno.models.protocols import FloatArray, GenerateRequest, Generation, OnDone
from langchain_uno.records import Feedback, Interaction, Message

START = datetime(2026, 1, 5, tzinfo=timezone.utc)
TOPICS = ("ferry", "invoice", "garden", "letter", "contract", "recipe", "router", "holiday")
WISHES = ("Shorter, please.", "Use bullet points.", "Name the source.", "Less formal, please.")


class MadeUp:
    """An embedder of made-up vectors: near for the same topic, the same for the same text."""

    fingerprint = "made-up-384"

    def embed(self, texts: Sequence[str], on_done: OnDone | None = None) -> FloatArray:
        """Return unit vectors, (n, 384)."""
        out = np.empty((len(texts), 384), dtype=np.float32)
        for row, text in zip(out, texts, strict=True):
            topic = next((n for n, name in enumerate(TOPICS) if name in text), len(TOPICS))
            seed = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
            row[:] = np.random.default_rng(seed).normal(size=384)
            row += 2 * np.random.default_rng(topic).normal(size=384)
            row /= np.linalg.norm(row)
        if on_done:
            on_done(len(texts))
        return out


class Quick:
    """A teacher that answers at once; it notes the time at its first question."""

    model_name = fingerprint = "quick"

    def __init__(self) -> None:
        self.asked_at: tuple[float, float, float] | None = None
        """Of the processor, of the clock; and the largest memory so far."""
        self.asked = 0

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: OnDone | None = None
    ) -> list[Generation]:
        """Find a rule in one log of 200, and none in the others."""
        self.asked_at = self.asked_at or (time.process_time(), time.perf_counter(), largest())
        out = []
        for _ in requests:
            out.append(Generation("[]" if self.asked % 200 else '["Be brief."]'))
            self.asked += 1
        if on_done:
            on_done(len(requests))
        return out


def dialogs(first: int, rows: int) -> Iterator[Interaction]:
    """Yield made-up records: one in six in threads of four turns."""
    rng = random.Random(first)
    n = first
    while n < first + rows:
        topic = TOPICS[rng.randrange(len(TOPICS))]
        user = None if rng.random() < 0.2 else f"u{rng.randrange(5000)}"
        thread = f"t{n}" if rng.random() < 0.05 else None
        said: list[Message] = []
        for turn in range(4 if thread else 1):
            if said and rng.random() < 0.4:
                asked = rng.choice(WISHES) + f" It is about number {n}."
            else:
                asked = f"Tell me about {topic} number {n}. It costs {rng.randrange(900)} euros."
            words = (f"word{rng.randrange(4000)}" for _ in range(30))
            answer = f"The {topic} {n}: {' '.join(words)}."
            said.append(Message(role="user", content=asked))
            at = START + timedelta(seconds=30 * n + turn)
            run_id = f"00000000-0000-4000-8000-{n:012d}"
            feedback = []
            if rng.random() < 0.15:
                score = float(rng.random() < 0.6) if rng.random() < 0.3 else None
                words_said = None if score is not None else rng.choice(WISHES)
                feedback = [
                    Feedback(
                        feedback_id=f"f{n}",
                        run_id=run_id,
                        score=score,
                        comment=words_said,
                        user_id=user,
                        created_at=at + timedelta(minutes=5),
                    )
                ]
            yield Interaction(
                run_id=run_id,
                messages=list(said),
                answer=answer,
                feedback=feedback,
                thread_id=thread,
                user_id=user,
                model="bundled",
                created_at=at,
            )
            said.append(Message(role="assistant", content=answer))
            n += 1


def fill(home: Home, rows: int, *, index: bool) -> None:
    """Append records after those that are there, and index them."""
    home.ensure()
    with Journal(home.journal) as journal:
        first = journal.counts()[0]
        batch: list[tuple[Interaction, None]] = []
        for one in dialogs(first, rows):
            batch.append((one, None))
            if len(batch) == 2000:
                journal.append_many(batch)
                batch = []
        journal.append_many(batch)
    _tell("written")
    if index:
        with LogStore.open(home, MadeUp()) as store:
            print(f"{store.drain():,} indexed")
        _tell("indexed")


def capture(home: Home, rows: int) -> None:
    """Append records one by one, as the handler does, and print the time of one."""
    with Journal(home.journal) as journal:
        records = [
            {**one.model_dump(exclude={"feedback", "verdict"}), "message_ids": [f"chatcmpl-{n}"]}
            for n, one in enumerate(dialogs(journal.counts()[0], rows))
        ]
        taken = []
        for one in records:
            began = time.perf_counter()
            journal.append_record(one)
            taken.append(time.perf_counter() - began)
    median, most = np.median(taken), np.quantile(taken, 0.99)
    print(f"{1e6 * median:.0f} us a record (median), {1e6 * most:.0f} us (99 %)")


def refresh(home: Home, new: int) -> None:
    """Add records and refresh up to the stage "distil"; then the refresh counts as over.

    So the next call goes on with none, and does nothing where no record was added.
    """
    from langchain_uno.graphs.refresh import run_refresh
    from langchain_uno.learning.work import RESULT, Silent, WorkFolder, sweep_work
    from langchain_uno.models.loading import load_engine, load_prompt_set
    from langchain_uno.recipe import load_recipe
    from langchain_uno.releases.load import revocation_file

    began = time.perf_counter()
    engine = load_engine(None)
    print(f"{time.perf_counter() - began:.1f} s: imports, and the bundled model loaded")
    if new:
        fill(home, new, index=False)
    _tell("before the refresh")
    teacher: Any = Quick()
    recipe = load_recipe("bundled")
    began, used = time.perf_counter(), time.process_time()
    progress = Stages(Silent(), began, teacher)
    result = run_refresh(
        home,
        engine,
        MadeUp(),
        teacher=teacher,
        prompts=load_prompt_set(recipe.prompt_set),
        teacher_prompts=load_prompt_set("real"),
        recipe=recipe,
        progress=progress,
        until="distil",
    )
    if teacher.asked_at:
        spent, clock, most = teacher.asked_at
        print(f"{spent - used:.1f} s of processor time ({clock - began:.1f} by the clock)", end=" ")
        print(f"until the first of {teacher.asked} is distilled; largest memory {most:.0f} MiB")
    spent = time.process_time() - used
    print(f"{time.perf_counter() - began:.1f} s in all ({spent:.1f} of processor time)")
    print(*result.notes, f"{result.usable} usable; nothing done: {result.unchanged}", sep="\n")
    _tell("refreshed")
    if not result.unchanged:
        result.release = "none"
        folder = WorkFolder(home.work / result.refresh_id)
        folder.write_json(RESULT, result.model_dump(mode="json"))
        revocation_file(home, "none").touch()
        sweep_work(home.work, [result.refresh_id])


class Stages:
    """Prints when a stage begins and ends."""

    def __init__(self, inner: RefreshProgress, began: float, teacher: Quick) -> None:
        self.inner, self.began, self.teacher = inner, began, teacher

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        """Print it; what the teacher was asked before distilling were control questions."""
        if stage == "distil":
            self.teacher.asked_at, self.teacher.asked = None, 0
        print(f"{time.perf_counter() - self.began:6.1f} s: {stage} begins {note}", flush=True)

    def advance(self, stage: str, n: int = 1) -> None:
        """Do nothing."""

    def finish(self, stage: str, note: str = "") -> None:
        """Print it."""
        print(f"{time.perf_counter() - self.began:6.1f} s: {stage} ends {note}", flush=True)


def largest() -> float:
    """Return the process's largest memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _tell(what: str) -> None:
    used = f"{time.process_time():.1f} s of processor time so far"
    print(f"{what}: {used}, largest memory {largest():.0f} MiB", flush=True)


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("fill", "capture", "refresh"))
    parser.add_argument("home", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--no-index", action="store_true")
    args = parser.parse_args()
    home = Home.locate(args.home)
    if args.command == "fill":
        fill(home, args.rows, index=not args.no_index)
    elif args.command == "capture":
        capture(home, args.rows)
    else:
        refresh(home, args.new)


if __name__ == "__main__":
    main()
