"""A home with logs, a tiny *real* engine to train, and a teacher that speaks the toy language."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_uno.graphs.refresh import run_refresh
from langchain_uno.home import Home
from langchain_uno.learning.work import ClusterData, RefreshResult, Silent, WorkFolder
from langchain_uno.logs.journal import Journal
from langchain_uno.models.loading import load_engine
from langchain_uno.models.protocols import Engine
from langchain_uno.recipe import Recipe
from langchain_uno.records import Interaction, PreferencePair
from tests.unit_tests.learning.toy_language import (
    ToyEmbedder,
    ToyEngine,
    ToyPrompts,
    ToyReranker,
    log,
)

RECIPE = Recipe.model_validate(
    {
        "name": "toy",
        "prompt_set": "toy",
        "answer_tokens": 24,
        "revision_tokens": 24,
        "role_tokens": 16,
        "cluster": {"cut": "ward", "threshold": 2.0, "min_size": 4},
        "gap": {"unknown": 0.0},  # nobody guesses anything: experts are tried
        "pairs": {"candidates": 1},
        "lora": {"rank": 4, "dropout": 0.0, "epochs": 2, "batch_size": 4},
        "expert": {"learning_rate": 1e-3, "max_length": 1024},
        "critic": {"learning_rate": 1e-3, "max_length": 1024},
        "verify": {"held_out": 0.25, "judgements": 1},
    }
)

TRIP = "plan a trip to place {} by train and boat with hotels"


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    """Return a recipe with some settings changed, section by section."""
    data = recipe.model_dump()
    for name, value in sections.items():
        data[name] = data[name] | value if isinstance(value, dict) else value
    return Recipe.model_validate(data)


UNTRAINED = changed(RECIPE, cluster={"min_size": 1000})
"""No cluster is large enough for a module: a whole refresh in a second, with the base alone."""


TRIED = changed(RECIPE, verify={"level": None, "win_rate": 1.0})
"""Modules are tried however few people are held out, and hardly any passes."""


class Stop(Silent):
    """Stops a refresh as Ctrl-C would, when a stage starts (or after its first item)."""

    def __init__(self, stage: str, *, after: bool = False) -> None:
        self.stage, self.after = stage, after

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        if stage == self.stage and not self.after:
            raise KeyboardInterrupt

    def advance(self, stage: str, n: int = 1) -> None:
        if stage == self.stage and self.after:
            raise KeyboardInterrupt


class StopAt(Silent):
    """Stops a refresh as Ctrl-C would, when it begins something whose note ends so."""

    def __init__(self, ending: str) -> None:
        self.ending = ending

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        if note.endswith(self.ending):
            raise KeyboardInterrupt


def logs(n: int = 24) -> list[Interaction]:
    """Two families of requests; each wants a rule of its own; every sixth log is noise."""
    out = []
    for i in range(n):
        travel = i % 2 == 0
        query = TRIP.format(i) if travel else f"FIX BUG {i}: STACK TRACE, NULL POINTER, CRASH!"
        words = "thanks" if i % 6 == 5 else f"please {'sing' if travel else 'dance'}"
        answer = f"answer {i}"
        out.append(log(f"run-{i:03d}", query, answer, words, user_id=f"user-{i % 8}"))
    return out


def make_home(root: Path, interactions: Sequence[Interaction], namespace: str = "default") -> Home:
    home = Home(root, namespace).ensure()
    journal = Journal(home.journal)
    for one in interactions:
        journal.append_interaction(one.model_copy(update={"feedback": []}))
        for feedback in one.feedback:
            journal.append_feedback(feedback)
    journal.close()
    return home


def refresh(home: Home, engine: Engine, recipe: Recipe = RECIPE, **more: Any) -> RefreshResult:
    more = {"teacher": ToyEngine(), "reranker": ToyReranker(), "max_steps": 2, **more}
    embedder = more.pop("embedder", ToyEmbedder())
    return run_refresh(home, engine, embedder, prompts=ToyPrompts(), recipe=recipe, **more)


def folder_of(home: Home, result: RefreshResult) -> WorkFolder:
    return WorkFolder(home.work / result.refresh_id)


def clusters_of(home: Home, result: RefreshResult) -> list[ClusterData]:
    """The clusters as the last finished stage left them."""
    work = folder_of(home, result)
    last = next(s for s in ("gap", "rules", "cluster") if work.has(f"{s}.json"))
    return work.read_records(f"clusters-{last}.jsonl", ClusterData)


def pairs_of(home: Home, result: RefreshResult) -> list[PreferencePair]:
    work = folder_of(home, result)
    names = [f"clusters/{c.id}/pairs.jsonl" for c in clusters_of(home, result)]
    return [p for name in names if work.has(name) for p in work.read_records(name, PreferencePair)]


def tiny_engine(path: Path) -> Engine:
    return load_engine(str(path), device="cpu")
