"""A refresh against the authors' flow: python -m lab.benchmarks.bench_refresh FOLDER

The same logs (a week of the simulated service), model and machine. "ours" is the refresh with the
bundled recipe. "authors" is their flow with the recipe `paper`: every model call waits for the one
before it, every training and verification is a process that loads the model, experts and critics
are trained for all clusters, all epochs are judged three times, and the cognitive gap chooses
afterwards. Critics are not verified. Their fixed sleeps are left out. What the toy model can't do
without stays as in the recipe `bundled`: its prompt set, its lengths, rules compared one by one.

Processor seconds of all processes are counted beside wall time, for machines that do other things
too. The demo's program checks answers to test requests.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from langchain_uno.demo.asking import ask_model, held_out
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.run import Notebook, learn, run_week
from langchain_uno.demo.service import plan_visits
from langchain_uno.demo.worlds import World
from langchain_uno.graphs.refresh import run_refresh
from langchain_uno.home import Home
from langchain_uno.learning.pairs import balanced
from langchain_uno.learning.rules import wanted_rules
from langchain_uno.learning.train import Decision
from langchain_uno.learning.verify import held_out as items_of
from langchain_uno.learning.work import ClusterData, RefreshResult, Silent, Work
from langchain_uno.models.judge import stable_seed
from langchain_uno.models.loading import load_embedder, load_engine, load_prompt_set, shared_engine
from langchain_uno.models.rerankers import EngineReranker
from langchain_uno.recipe import load_recipe
from langchain_uno.trainers.common import TrainSettings
from langchain_uno.trainers.critic import CriticExample, train_critic
from langchain_uno.trainers.expert import train_expert
from langchain_uno.trainers.verifier import Exam

GAP = 0.45
"""The authors' threshold; they look at it after all trainings."""


def cpu() -> float:
    """Processor seconds of this process and of those that it started and that ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


class Clock(Silent):
    """Processor seconds by stage, and by what the train stage does."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._at, self._what = cpu(), "begin"

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        self._turn(f"train: {note.split()[2]}" if note.count(":") and stage == "train" else stage)

    def finish(self, stage: str, note: str = "") -> None:
        self._turn("between")

    def _turn(self, what: str) -> None:
        now = cpu()
        self.seconds[self._what] += now - self._at
        self._at, self._what = now, what


class OneByOne:
    """An engine whose calls wait for each other."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Sequence[Any], on_done: Any = None) -> list[Any]:
        return [self._engine.generate([one], on_done)[0] for one in requests]

    def choose(self, prompts: Sequence[Any], options: Sequence[str], on_done: Any = None) -> Any:
        found = [self._engine.choose([one], options, on_done) for one in prompts]
        return np.concatenate(found) if found else np.zeros((0, len(options)), np.float32)


def in_processes(work: Work, clusters: Sequence[ClusterData]) -> list[str]:
    """Try clusters as the authors do: a process for each training and each verification."""
    context = multiprocessing.get_context("spawn")
    bare: Any = replace(
        work,
        **dict.fromkeys(("engine", "embedder", "reranker", "teacher", "spread")),
        progress=Silent(),
    )
    for cluster in clusters:
        for step in (an_expert, a_critic, the_check):
            process = context.Process(target=step, args=(bare, cluster))
            process.start()
            process.join()
            if process.exitcode:
                raise RuntimeError(f"{step.__name__} of {cluster.id} failed")
    return []


def loaded(work: Work) -> Work:
    engine: Any = OneByOne(load_engine())
    return replace(work, engine=engine, teacher=engine)


def an_expert(work: Work, cluster: ClusterData) -> None:
    work = loaded(work)
    made: list[Path] = []
    if pairs := work.pairs(cluster):
        made = train(train_expert, work, cluster, pairs, "expert")
    work.folder.write_json(f"clusters/{cluster.id}/epochs.json", [str(one) for one in made])


def a_critic(work: Work, cluster: ClusterData) -> None:
    work = loaded(work)
    logs = [work.logs[i] for i in cluster.train if work.taught[i].with_feedback]
    examples = [
        CriticExample(
            prompt=work.prompts.critique_prompt(log.messages, log.answer, log.language),
            completion=work.prompts.critique_completion(wanted_rules(work.taught[log.run_id])),
            weight=weight,
        )
        for log, weight in zip(logs, balanced([work.voices[g.run_id] for g in logs]), strict=True)
    ]
    made = str(train(train_critic, work, cluster, examples, "critic")) if examples else None
    work.folder.write_json(f"clusters/{cluster.id}/critic.json", made)


def train(how: Any, work: Work, cluster: ClusterData, examples: Any, kind: Any) -> Any:
    with work.engine.exclusive() as (model, tokenizer):  # type: ignore[attr-defined]
        return how(
            model,
            tokenizer,
            examples,
            work.folder.path(f"clusters/{cluster.id}/{kind}"),
            TrainSettings.of(work.recipe, kind),
            stable_seed(work.recipe.seed, kind, cluster.id),
            base_name=work.engine.model_name,
        )


def the_check(work: Work, cluster: ClusterData) -> None:
    """Verify the expert, and choose by gap and verdict."""
    work = loaded(work)
    epochs = [Path(one) for one in work.folder.read_json(f"clusters/{cluster.id}/epochs.json")]
    items = items_of(work, cluster)
    decision = Decision()
    if epochs and items:
        exam = Exam(work.engine, work.teacher, work.prompts, work.recipe)
        decision.report = exam.verify_expert(exam.answer_as_base(items), epochs)
        decision.reports = [decision.report]
    critic = work.folder.read_json(f"clusters/{cluster.id}/critic.json")
    if decision.report and decision.report.passed and (cluster.gap or 0.0) < GAP:
        decision.route = "expert"
        decision.adapter = relative(work, epochs[(decision.report.epoch or 0) - 1])
    elif critic is not None:
        decision.route, decision.adapter = "critic", relative(work, Path(critic))
        decision.report = None
    work.folder.write_json(f"clusters/{cluster.id}/tried.json", decision.model_dump(mode="json"))


def relative(work: Work, path: Path) -> str:
    return str(path.relative_to(work.folder.root))


def authors(home: Home, seed: int, clock: Clock) -> RefreshResult:
    own = load_recipe("bundled")
    lengths = {n: getattr(own, n) for n in ("answer_tokens", "revision_tokens", "role_tokens")}
    recipe = load_recipe(
        "paper",
        {
            "prompt_set": "bundled",
            "seed": seed,
            **lengths,
            "gap": {"threshold": 2.0, "over": "pairs"},  # all clusters are low: all are trained
            "expert": {"max_length": own.expert.max_length},
            "critic": {"max_length": own.critic.max_length},
        },
    )
    plain = load_engine()
    engine: Any = OneByOne(plain)
    prompts = load_prompt_set("bundled")
    return run_refresh(
        home,
        engine,
        load_embedder(None, plain),
        EngineReranker(engine, prompts),
        prompts=prompts,
        recipe=recipe,
        progress=clock,
        spread=in_processes,
    )


def scores(world: World, home: Home, per_family: int, mode: str) -> dict[str, float]:
    answers = ask_model(world, home, held_out(world, per_family), mode=mode)
    return {
        "wishes met": round(float(np.mean([a.score for a in answers])), 1),
        "facts right": round(100.0 * float(np.mean([a.facts for a in answers])), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the homes; a flow goes on in its home")
    parser.add_argument("--flows", nargs="+", default=["ours", "authors"])
    parser.add_argument("--seed", type=int, default=7801)
    parser.add_argument("--families", type=int, default=2)
    parser.add_argument("--visits", type=int, default=80)
    parser.add_argument("--per-family", type=int, default=20, help="test requests")
    given = parser.parse_args()
    world = make_world(given.seed, families=given.families)
    week = Home(given.folder.resolve() / "week").ensure()
    notes = Notebook(week.path / "demo.json", {"seed": given.seed, "visits": given.visits})
    run_week(week, world, plan_visits(world, given.visits), notes, Silent(), "base")
    shared_engine(None)
    for flow in given.flows:
        home = Home(week.root.parent / flow)
        if not home.root.exists():
            shutil.copytree(week.root, home.root)
        clock, began, spent = Clock(), time.perf_counter(), cpu()
        if flow == "ours":
            result = learn(home, {"seed": given.seed}, clock)
        else:
            result = authors(home, given.seed, clock)
        told = {
            "flow": flow,
            "cpu s": round(cpu() - spent, 1),
            "wall s": round(time.perf_counter() - began, 1),
            "usable": result.usable,
            "routes": Counter(c.route for c in result.clusters),
            "cpu s by stage": {k: round(v, 1) for k, v in clock.seconds.items() if v >= 0.05},
            "uno": scores(world, home, given.per_family, "uno"),
            "base": scores(world, home, given.per_family, "base"),
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
