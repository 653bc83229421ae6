"""A refresh that is killed, over and over: ``python -m lab.kills --kills 40``.

Each time a process refreshes a copy of one home and is killed (-9) at a random moment of a stage:
the stages take turns, and the moment is drawn from how long the stage takes undisturbed. Another
process then calls the refresh again. Compared with the refresh that nothing disturbed:

release    manifest (less names and times), centroids and adapters, byte for byte;
repeated   pieces of work that were finished before the kill and begun again after it;
calls      what the teacher's server heard, killed and second process together, less what it hears
           undisturbed. A call that was under way at the kill (heard, its answer not yet kept) is
           made again: these are counted apart, and anything beyond them is a failure.

The model is a tiny random one, the teacher a program behind an OpenAI-compatible endpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sqlite3
import tempfile
import time
import traceback
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from lab.real_model import desk
from lab.real_model.exam import conversation
from lab.real_model.teacher import serve_teacher
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.models.prompts import PROMPT_SETS, get_prompt_set
from langchain_uno.records import STAGES, Feedback, Interaction, Message
from langchain_uno.releases.load import list_releases, read_current
from langchain_uno.releases.manifest import lineage_key

__all__ = ["Figures", "run_kills"]

SETS = (
    "answer_tokens=8",
    "revision_tokens=8",
    "role_tokens=16",
    "pairs.candidates=1",
    "lora.rank=4",
    "lora.epochs=1",
    "lora.batch_size=8",
    "cluster.min_size=4",
    "rules.min_users=1",
    "verify.judgements=1",
    # Of noise nothing proves better: everything ships, so that there is something to compare.
    "verify.level=none",
    "min_kept=0",
    "verify.min_bleu=0",
    "verify.win_rate=0.0",
)
STEPS = 2
"""Of every training."""


_ALWAYS = {
    ("load", ""),
    ("filter", "reading the log"),
    ("distil", "rules with and without feedback"),
    ("pairs", "revising and judging"),
    ("train", "experts and critics"),
}
"""Said of a stage as a whole, which begins again where any part of it is left to do."""


@dataclass
class Run:
    """What one process did until it ended."""

    begun: list[tuple[str, str, float]] = field(default_factory=list)
    """Pieces of work in their order: stage, note, seconds since the first."""
    status: int = 0

    @property
    def finished(self) -> list[tuple[str, str]]:
        """All pieces but the last, and the last too where the process came to its end."""
        pieces = [(stage, note) for stage, note, _ in self.begun]
        return pieces if self.status == 0 else pieces[:-1]


@dataclass
class Figures:
    """What a run of kills found."""

    kills: Counter[str] = field(default_factory=Counter)
    """By stage."""
    other_release: int = 0
    repeated: list[str] = field(default_factory=list)
    under_way: list[int] = field(default_factory=list)
    """Calls of each kill whose answer was not kept yet."""
    beyond: int = 0
    """Calls made twice that were not under way."""
    undisturbed_calls: int = 0
    undisturbed_s: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, repeated or paid for twice."""
        return not (self.other_release or self.repeated or self.beyond)


def make_home(root: Path, each: int, seed: int) -> Home:
    """Fill a home with a week of the help desk, answered by a sentence that suits nobody."""
    home = Home(root).ensure()
    with Journal(home.journal) as journal:
        for n, visit in enumerate(desk.plan_week(seed, ("terms", "how-to"), each)):
            thing = visit.request.thing
            answer = f"Hello, thank you for asking about {thing}! We have much to say. Ask us more."
            run_id = f"run-{n:04d}"
            turns = [Message(role=r, content=text) for r, text in conversation(visit.request)]
            journal.append_interaction(
                Interaction(run_id=run_id, messages=turns, answer=answer, user_id=visit.user)
            )
            if visit.act != "silent" and (said := desk.remark(visit, answer)):
                feedback_id = f"feedback-{n:04d}"
                journal.append_feedback(
                    Feedback(
                        run_id=run_id, comment=said, user_id=visit.user, feedback_id=feedback_id
                    )
                )
    lineage_key(home)  # so that copies name their logs alike
    return home


def digest_of(home: Home) -> str:
    """Return a digest of the one release of a home, less its name and its times."""
    [name] = list_releases(home)
    release = read_current(home)
    assert release is not None and release.id == name
    manifest = release.manifest.model_dump(mode="json")
    for key in ("created", "created_at", "files", "id"):
        manifest.pop(key, None)
    for key in ("seconds", "refresh"):
        manifest["figures"].pop(key, None)
    text = json.dumps(manifest, sort_keys=True).replace(name, "RELEASE")
    whole = sha256(text.encode())
    whole.update(release.centroids.tobytes())
    for entry in release.manifest.adapters:
        folder = release.adapters[entry.name]
        for path in sorted(folder.iterdir()):
            whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


class _Told:
    """Progress that writes each piece of work to a pipe as it begins."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        note = "" if stage == "load" else note
        os.write(self.pipe, (json.dumps([stage, note]) + "\n").encode())

    def advance(self, stage: str, n: int = 1) -> None: ...

    def finish(self, stage: str, note: str = "") -> None: ...


def refresh_in_child(home: Home, model: Path, kill: tuple[str, float] | None = None) -> Run:
    """Refresh a home in a process of its own.

    Args:
        home: whose logs to learn from.
        model: folder of the base model.
        kill: stage, and seconds after it began, at which the process is killed; None: never.
    """
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(heard)
            import torch

            torch.set_num_threads(1)
            from langchain_uno.train import refresh_home

            refresh_home(
                home.root,
                model=str(model),
                recipe="default",
                sets=SETS,
                seed=1,
                teacher="openai:a-program",
                max_steps=STEPS,
                progress=_Told(told),
            )
            status = 0
        except Exception:  # noqa: BLE001 - say it, then end without the parent's clean-up
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(told)
    return _watch(child, heard, kill)


def _watch(child: int, heard: int, kill: tuple[str, float] | None) -> Run:
    run, start, rest, due = Run(), time.perf_counter(), b"", None
    while True:
        wait = None if due is None else max(0.0, due - time.perf_counter())
        if not select.select([heard], [], [], wait)[0]:
            os.kill(child, signal.SIGKILL)
            due = None
            continue
        data = os.read(heard, 65536)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            stage, note = json.loads(line)
            now = time.perf_counter()
            run.begun.append((stage, note, now - start))
            if kill is not None and stage == kill[0]:
                due, kill = now + kill[1], None
    os.close(heard)
    run.status = os.waitpid(child, 0)[1]
    return run


def durations(run: Run, end: float) -> dict[str, float]:
    """Return how long each stage of an undisturbed run took, in seconds."""
    first: dict[str, float] = {}
    for stage, _, at in run.begun:
        first.setdefault(stage, at)
    order = [stage for stage in STAGES if stage in first]
    ends = [*(first[stage] for stage in order[1:]), end]
    return {stage: after - first[stage] for stage, after in zip(order, ends, strict=True)}


def run_kills(folder: Path, kills: int, *, each: int = 16, seed: int = 1) -> Figures:
    """Kill refreshes and finish them.

    Args:
        folder: for homes and model; empty.
        kills: how many.
        each: requests of each of two kinds in the home's log.
        seed: of home and moments.
    """
    import chromadb  # noqa: F401 - before forking: the children are to be killed at work
    import langchain_openai  # noqa: F401
    import scipy.cluster.hierarchy  # noqa: F401
    import sklearn.cluster  # noqa: F401
    import trl  # noqa: F401
    from trl.trainer import dpo_trainer, sft_trainer  # noqa: F401

    from langchain_uno.testing import make_tiny_model

    rng, figures = random.Random(seed), Figures()
    model = make_tiny_model(folder / "model")
    start = make_home(folder / "start", each, seed)
    calls: Counter[str] = Counter()

    def hear(body: dict[str, Any]) -> None:
        calls[sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()] += 1

    with serve_teacher([get_prompt_set(name) for name in PROMPT_SETS], hear):
        whole_home = _copy(start, folder / "whole")
        began = time.perf_counter()
        whole = refresh_in_child(whole_home, model)
        assert whole.status == 0, "the undisturbed refresh fails"
        figures.undisturbed_s = time.perf_counter() - began
        expected, undisturbed = digest_of(whole_home), Counter(calls)
        figures.undisturbed_calls = undisturbed.total()
        took = durations(whole, figures.undisturbed_s)
        for n in range(kills):
            stage = list(took)[n % len(took)]
            home = _copy(start, folder / f"home-{n}")
            calls.clear()
            killed = refresh_in_child(home, model, (stage, rng.uniform(0.0, took[stage])))
            if killed.status == 0:  # it was quicker than the undisturbed one
                figures.kills["too late"] += 1
            else:
                figures.kills[killed.begun[-1][0]] += 1
            time.sleep(0.2)  # the server hears out what was sent
            figures.under_way.append(calls.total() - _kept(home))
            again = refresh_in_child(home, model)
            assert again.status == 0, "the second call fails"
            figures.other_release += digest_of(home) != expected
            begun = {(a, b) for a, b, _ in again.begun} if killed.status else set()
            figures.repeated += [f"{a}: {b}" for a, b in begun & set(killed.finished) - _ALWAYS]
            twice = (calls - undisturbed).total()
            figures.beyond += max(0, twice - figures.under_way[-1])
            shutil.rmtree(home.root)
    return figures


def _copy(start: Home, to: Path) -> Home:
    shutil.copytree(start.root, to)
    return Home(to)


def _kept(home: Home) -> int:
    path = home.work / "answers.sqlite3"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.OperationalError:  # killed before the table was made
            return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = run_kills(Path(name), given.kills, each=given.each, seed=given.seed)
    print(f"undisturbed: {found.undisturbed_s:.0f} s, {found.undisturbed_calls} calls of a teacher")
    print(f"killed in: {dict(found.kills)}")
    print(f"another release: {found.other_release}; pieces of work repeated: {found.repeated}")
    print(
        f"calls under way at a kill, which are made again: {sum(found.under_way)} in all, at most "
        f"{max(found.under_way, default=0)}; made twice beyond these: {found.beyond}"
    )
    raise SystemExit(not found.sound)


if __name__ == "__main__":
    main()
