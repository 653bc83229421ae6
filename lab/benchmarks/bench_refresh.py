"""A refresh against the authors' flow: python -m lab.benchmarks.bench_refresh FOLDER

The same logs, model and machine for three flows:

- `ours`: the refresh with the recipe that fits the model.
- `paper`: the same refresh with the authors' recipe. The gap is looked at before a training.
- `authors`: their flow with their recipe. Every call of the base model waits for the one before it,
  every training and verification is a process that loads the model, experts and critics are trained
  for all clusters, all epochs are judged three times, and the gap chooses afterwards. Critics are
  not verified. Their fixed sleeps are left out.

Without `--model` the bundled model learns from a week of the simulated service. With it, a real
model learns from the week of `lab/real_model` at the size "demo", and a program is the teacher of
all flows. What a model can't do without is the same in all flows: prompt set and lengths; for the
bundled model also rules compared one by one.

Each flow is a process of its own. Its processor seconds are those of that process and of those that
it started, imports and loading included; the test requests come after them. A program checks the
answers to test requests. FOLDER keeps the figures: a finished flow is not repeated, and a stopped
one goes on. What was under way when it stopped is not counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from langchain_uno.demo.asking import Answered, ask_chat, ask_model, held_out, settle
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.run import Notebook, run_week
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
from langchain_uno.models.loading import (
    load_embedder,
    load_engine,
    load_prompt_set,
    shared_engine,
)
from langchain_uno.models.teacher import load_teacher
from langchain_uno.recipe import Recipe, load_recipe
from langchain_uno.releases.traffic import write_atomic
from langchain_uno.serving.shared import stop_serving
from langchain_uno.train import effective_recipe
from langchain_uno.trainers.verifier import Exam

FLOWS = ("ours", "paper", "authors")
GAP = 0.45
"""The authors' threshold; they look at it after all trainings."""
SPAWN = multiprocessing.get_context("spawn")


def cpu() -> float:
    """Processor seconds of this process and of those that it started and that ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


class Figures:
    """What is known of one flow, in a file; of every call, where it was stopped."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.data: dict[str, Any] = {"calls": 0, "wall s": 0.0, "cpu s by stage": {}}
        if file.is_file():
            self.data = json.loads(file.read_text(encoding="utf-8"))

    @property
    def done(self) -> bool:
        """Whether the flow has come to its end."""
        return "uno" in self.data or "base" in self.data

    def save(self) -> None:
        """Write the file, atomically."""
        write_atomic(self._file, json.dumps(self.data).encode())


class Clock(Silent):
    """Processor seconds by stage, and by what the train stage does; kept as they come.

    Args:
        figures: of the flow.
        began: when (``time.time()``) its process was started. Nothing else was done in it.
    """

    def __init__(self, figures: Figures, began: float) -> None:
        self._figures, self._began = figures, began
        self._before = figures.data["wall s"]
        self._at, self._what = 0.0, "imports and loading"
        figures.data["calls"] += 1

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        what = " ".join(note.partition(": ")[2].split()[:2]) if stage == "train" else ""
        if what and self._what == "training":
            self._what = what  # of which kind the training under way is
        else:
            self.turn(what or stage)

    def finish(self, stage: str, note: str = "") -> None:
        self.turn("between")

    def turn(self, what: str) -> None:
        """Book what was spent since the last turn, and begin something else."""
        now, seconds = cpu(), self._figures.data["cpu s by stage"]
        seconds[self._what] = round(seconds.get(self._what, 0.0) + now - self._at, 2)
        self._figures.data["wall s"] = round(self._before + time.time() - self._began, 1)
        self._figures.save()
        self._at, self._what = now, what

    def watch(self, engine: Any) -> None:
        """Hear when an engine's model is lent to a trainer, before the first step is done."""
        lend = engine.exclusive

        @contextmanager
        def exclusive() -> Iterator[Any]:
            self.turn("training")
            try:
                with lend() as lent:
                    yield lent
            finally:
                self.turn("train")

        engine.exclusive = exclusive


# -- What all flows have in common -----------------------------------------------------------------


@dataclass(frozen=True)
class Toy:
    """The bundled model and a week of the simulated service."""

    seed: int
    tests: int
    """Test requests of a kind."""
    families: int = 2
    visits: int = 80
    model: None = None
    embeddings: None = None
    recipe = "bundled"

    def sets(self) -> list[str]:
        """Return what ours changes in its recipe."""
        return []

    def needs(self) -> list[str]:
        """Return what the model can't do without, whatever the recipe."""
        own = load_recipe(self.recipe)
        return [
            *(f"{n}={getattr(own, n)}" for n in ("answer_tokens", "revision_tokens")),
            f"role_tokens={own.role_tokens}",
            f"prompt_set={own.prompt_set}",
            f"gap.over={own.gap.over}",
            f"expert.max_length={own.expert.max_length}",
            f"critic.max_length={own.critic.max_length}",
        ]

    def teaching(self) -> AbstractContextManager[str | None]:
        """Return a block in which the teacher can be asked; it gives its name."""
        return nullcontext()

    @property
    def _world(self) -> World:
        return make_world(self.seed, families=self.families)

    def live(self, home: Home, notes: Notebook) -> None:
        """Let people ask the base and react."""
        run_week(home, self._world, plan_visits(self._world, self.visits), notes, Silent(), "base")

    def ask(self, home: Home, mode: Any) -> list[Answered]:
        """Return checked answers to the test requests."""
        return ask_model(self._world, home, held_out(self._world, self.tests), mode=mode)


@dataclass(frozen=True)
class Desk:
    """A real model and the week of a help desk (``lab/real_model``), imported only where used."""

    seed: int
    tests: int
    model: str
    embeddings: str
    recipe = "default"

    @property
    def _size(self) -> Any:
        from lab.real_model.run import SIZES

        return SIZES["demo"]

    def sets(self) -> list[str]:
        """Return what ours changes in its recipe."""
        return list(self._size.sets)

    def needs(self) -> list[str]:
        """Return what the model can't do without, whatever the recipe."""
        from lab.real_model.run import lengths

        return list(lengths(self._size.tokens))

    def teaching(self) -> AbstractContextManager[str | None]:
        """Return a block in which the teacher can be asked; it gives its name."""
        from lab.real_model.run import taught_by

        return taught_by("program")

    def live(self, home: Home, notes: Notebook) -> None:
        """Let people ask the base and react."""
        from lab.real_model import desk
        from lab.real_model.run import week

        planned = desk.plan_week(self.seed, self._size.kinds, self._size.each)
        week(home, self.model, planned, self._size, notes, Silent())

    def ask(self, home: Home, mode: Any) -> list[Answered]:
        """Return checked answers to the test requests."""
        from lab.real_model import desk
        from lab.real_model.exam import conversation, look_at
        from langchain_uno import UNOChatModel

        tests = [v.request for v in desk.held_out(self.seed, self._size.kinds, self.tests)]
        chat = UNOChatModel(
            home=str(home.root),
            model=self.model,
            mode=mode,
            max_tokens=self._size.tokens,
            embedder=self.embeddings,
        )
        settle(chat, home)
        replies = ask_chat(chat, [conversation(one) for one in tests])
        return [look_at(one, reply) for one, reply in zip(tests, replies, strict=True)]


Case = Toy | Desk


def recipe_of(case: Case, flow: str) -> Recipe:
    """Return a flow's settings."""
    if flow == "ours":
        return effective_recipe(None, case.recipe, case.sets(), case.seed)
    # With this threshold all gaps are low, so that all clusters are trained.
    late = ["gap.threshold=2.0"] if flow == "authors" else [f"gap.threshold={GAP}"]
    return effective_recipe(None, "paper", [*case.needs(), *late], case.seed)


def refresh(case: Case, flow: str, home: Home, clock: Clock) -> RefreshResult:
    """Let one flow learn."""
    recipe = recipe_of(case, flow)
    prompts = load_prompt_set(recipe.prompt_set)
    engine = shared_engine(case.model)
    embedder = load_embedder(case.embeddings, engine)
    clock.watch(engine)
    own = flow == "authors"
    with case.teaching() as teacher:
        return run_refresh(
            home,
            OneByOne(engine) if own else engine,
            embedder,
            teacher=None if teacher is None else load_teacher(teacher),
            prompts=prompts,
            recipe=recipe,
            progress=clock,
            spread=partial(in_processes, case, teacher, clock) if own else None,
        )


# -- The authors' flow -----------------------------------------------------------------------------


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


def in_processes(
    case: Case, teacher: str | None, clock: Clock, work: Work, clusters: Sequence[ClusterData]
) -> list[str]:
    """Try clusters as the authors do: a process for each training and each verification."""
    bare: Any = replace(
        work,
        **dict.fromkeys(("engine", "embedder", "reranker", "teacher", "spread")),
        progress=Silent(),
    )
    for cluster in clusters:
        for step, told, made in (
            (an_expert, "expert, training", "epochs.json"),
            (a_critic, "critic, training", "critic.json"),
            (the_check, "expert, verifying", "tried.json"),
        ):
            if work.folder.has(f"clusters/{cluster.id}/{made}"):
                continue  # an earlier call was stopped after it
            clock.turn(told)
            in_process(step, case, teacher, bare, cluster)
    clock.turn("train")
    return []


def in_process(step: Any, *given: Any) -> None:
    """Call a function in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    process = SPAWN.Process(target=step, args=given)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{step.__name__} failed")


def loaded(case: Case, teacher: str | None, work: Work) -> Work:
    engine: Any = OneByOne(load_engine(case.model))
    return replace(
        work, engine=engine, teacher=engine if teacher is None else load_teacher(teacher)
    )


def an_expert(case: Case, teacher: str | None, work: Work, cluster: ClusterData) -> None:
    from langchain_uno.trainers.expert import train_expert

    work = loaded(case, teacher, work)
    made: list[Path] = []
    if pairs := work.pairs(cluster):
        made = train(train_expert, work, cluster, pairs, "expert")
    work.folder.write_json(f"clusters/{cluster.id}/epochs.json", [str(one) for one in made])


def a_critic(case: Case, teacher: str | None, work: Work, cluster: ClusterData) -> None:
    from langchain_uno.trainers.critic import CriticExample, train_critic

    work = loaded(case, teacher, work)
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
    from langchain_uno.trainers.common import TrainSettings

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


def the_check(case: Case, teacher: str | None, work: Work, cluster: ClusterData) -> None:
    """Verify the expert, and choose by gap and verdict."""
    work = loaded(case, teacher, work)
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


# -- The comparison --------------------------------------------------------------------------------


def scores(case: Case, home: Home, mode: str) -> dict[str, float]:
    answers = case.ask(home, mode)
    return {
        "wishes met": round(float(np.mean([a.score for a in answers])), 1),
        "facts right": round(100.0 * float(np.mean([a.facts for a in answers])), 1),
        "requests": len(answers),
    }


def the_week(case: Case, folder: Path, flow: str, began: float) -> None:
    """Make the logs, and ask the base the test requests."""
    figures = Figures(folder / f"{flow}.json")
    home = Home(folder / "week").ensure()
    case.live(home, notes_of(case, folder))
    stop_serving(home.root)  # the week is asked without an embedder
    figures.data["base"] = scores(case, home, "base")
    figures.data["wall s"] = round(time.time() - began, 1)
    figures.save()


def notes_of(case: Case, folder: Path) -> Notebook:
    """Return what the folder's week was made with.

    Raises:
        InputError: it was made with other settings.
    """
    notes = Notebook(folder / "notes.json", json.loads(json.dumps(asdict(case))))
    notes.save()
    return notes


def one_flow(case: Case, folder: Path, flow: str, began: float) -> None:
    """Let one flow learn from the week, and ask it the test requests."""
    figures = Figures(folder / f"{flow}.json")
    clock = Clock(figures, began)
    home = Home(folder / flow)
    if not home.root.exists():
        shutil.copytree(folder / "week", home.root)
    result = refresh(case, flow, home, clock)
    clock.turn("test requests")
    spent = figures.data["cpu s by stage"]
    figures.data |= {
        "cpu s": round(sum(spent.values()), 1),
        "usable": result.usable,
        "routes": Counter(c.route for c in result.clusters),
        "clusters": [
            c.model_dump(include={"id", "train", "verify", "pairs", "gap", "route", "note"})
            for c in result.clusters
        ],
        "cpu s by stage": {k: round(v, 1) for k, v in spent.items() if v >= 0.05},
        "uno": scores(case, home, "uno"),
    }
    figures.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="of homes and figures")
    parser.add_argument("--flows", nargs="+", choices=FLOWS, default=FLOWS)
    parser.add_argument("--seed", type=int, default=7801)
    parser.add_argument("--tests", type=int, default=20, help="test requests of a kind")
    parser.add_argument("--model", type=Path, help="folder of a real model; else the bundled one")
    parser.add_argument("--embeddings", type=Path, help="folder of its embedder")
    parser.add_argument("--families", type=int, default=2, help="of the bundled model's week")
    parser.add_argument("--visits", type=int, default=80, help="of the bundled model's week")
    given = parser.parse_args()
    folder = given.folder.resolve()
    case: Case
    if given.model is None:
        case = Toy(given.seed, given.tests, given.families, given.visits)
    else:
        embeddings = given.embeddings or given.model.parent / "minilm"
        case = Desk(given.seed, given.tests, str(given.model.resolve()), str(embeddings.resolve()))
    folder.mkdir(parents=True, exist_ok=True)
    notes_of(case, folder)
    for name, step in (("week", the_week), *((flow, one_flow) for flow in given.flows)):
        file = folder / f"{name}.json"
        if not Figures(file).done:
            in_process(step, case, folder, name, time.time())
        print(json.dumps({"flow": name, **Figures(file).data}), flush=True)


if __name__ == "__main__":
    main()
