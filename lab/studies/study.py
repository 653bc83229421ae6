"""One cell of a study: one world, one week, one refresh that keeps everything, all systems.

A cell's folder holds its home while it runs and ``result.json`` when it is done; a study that was
stopped goes on with the first cell that has none. Splits are asserted: no user and no query of
training is asked again.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.studies.choices import CHOICES, compose, routes_of
from lab.studies.everywhere import publish_kind, read_kept
from lab.studies.results import once
from lab.studies.rivals import by_bm25, by_embeddings, from_memory, revise_with
from langchain_uno.demo.asking import Answered, as_columns, ask_model, held_out
from langchain_uno.graphs.refresh_modules import KINDS
from langchain_uno.home import Home
from langchain_uno.records import ModuleKind
from langchain_uno.serving.shared import stop_serving

__all__ = ["EVERYWHERE", "SYSTEMS", "Cell", "run_cell"]

EVERYWHERE: dict[ModuleKind, str] = {
    "expert": "expert everywhere",
    "memory": "memory, conditions",
    "critic": "critic everywhere",
}
"""The systems in which every cluster has one kind of module, verified or not."""
SYSTEMS = (
    "base", "RAG, BM25", "RAG, embeddings", "memory", "memory, conditions",
    "expert everywhere", "critic everywhere", "critic, not reminded", *CHOICES,
)  # fmt: skip
"""Every system of a study; what they are: the package's docstring."""


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    seed: int
    noise: float = 0.34
    variant: str = "standard"
    visits: int = 420
    per_family: int = 12

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.variant}-seed{self.seed}-noise{round(100 * self.noise):02d}"


def run_cell(cell: Cell, top: Path, progress: Any, *, keep: bool = False) -> dict[str, Any] | None:
    """Run (or finish) a cell and return its result; None while another process is at it.

    Args:
        cell: which.
        top: the study's folder.
        progress: hears how it comes on (``console.Bars``).
        keep: leave the home with its logs, work and releases there.
    """
    folder = top / cell.name
    result = once(folder, lambda: _run(cell, folder, progress))
    stop_serving(folder / "home")
    if result is not None and not keep:
        shutil.rmtree(folder / "home", ignore_errors=True)
    return result


def _run(cell: Cell, folder: Path, progress: Any) -> dict[str, Any]:
    from langchain_uno.demo.drawing import make_world
    from langchain_uno.demo.run import Notebook, learn, run_week
    from langchain_uno.demo.service import plan_visits
    from langchain_uno.demo.worlds import load_world, save_world
    from langchain_uno.models.loading import load_embedder, load_prompt_set, shared_engine
    from langchain_uno.recipe import load_recipe

    home = Home(folder / "home").ensure()
    notes = Notebook(folder / "notes.json", {"cell": cell.name, "visits": cell.visits})
    file = folder / "world.json"
    if not file.is_file():
        save_world(make_world(cell.seed, noise=cell.noise, variant=cell.variant), file)
    world = load_world(file)
    run_week(home, world, plan_visits(world, cell.visits), notes, progress, "base")

    settings = {"seed": cell.seed, "everything": True}
    with notes.timed("refresh"):
        refreshed = learn(home, settings, progress)
    engine = shared_engine(None)
    embedder = load_embedder(None, engine)
    recipe = load_recipe("bundled", settings)
    prompts = load_prompt_set(recipe.prompt_set)
    kept = read_kept(home, refreshed)

    asked = held_out(world, cell.per_family)
    _assert_apart(world, asked, kept.past.queries)
    progress.start("evaluate", 8 * len(asked), "held-out requests")

    def tick(n: int) -> None:
        progress.advance("evaluate", n)

    found: dict[str, list[Answered]] = {
        "base": ask_model(world, home, asked, mode="base", on_done=tick)
    }
    modules: dict[ModuleKind, list[Answered]] = {}
    for kind in KINDS:
        place = publish_kind(kept, home, kind)
        modules[kind] = ask_model(world, place, asked, on_done=tick)
        found[EVERYWHERE[kind]] = modules[kind]
    place = publish_kind(kept, home, "critic", remind=False)
    found["critic, not reminded"] = ask_model(world, place, asked, on_done=tick)
    clusters = [one.cluster for one in found["expert everywhere"]]
    known = [kept.recurring.get(c) if c else None for c in clusters]
    rivals = {
        "RAG, BM25": by_bm25(kept.past),
        "RAG, embeddings": by_embeddings(kept.past, embedder),
        "memory": from_memory(known),
    }
    for name, rules in rivals.items():
        found[name] = revise_with(
            rules, world, asked, found["base"], engine, prompts,
            min_kept=recipe.revision_min_kept, route=name,
        )  # fmt: skip
        tick(len(asked))
    routes = {name: routes_of(name, kept) for name in CHOICES}
    for name, chosen in routes.items():
        found[name] = compose(chosen, found["base"], modules)
    progress.finish("evaluate")
    return {
        "cell": {"seed": cell.seed, "noise": cell.noise, "variant": cell.variant},
        "users": [one.user for one in asked],
        "families": [one.query.family for one in asked],
        "clusters": clusters,
        "answers": {name: as_columns(found[name]) for name in SYSTEMS},
        "routes": routes,
        "per_cluster": [
            {
                "id": c.id,
                "size": len(c.run_ids),
                "gap": c.gap,
                "verify": len(c.verify) + len(c.unlabelled),
                "trials": {
                    kind: {
                        "passed": t.passed,
                        "seconds": t.seconds,
                        "win_rate": t.report.win_rate if t.report else None,
                        "judged": t.report.n if t.report else 0,
                        "note": t.note,
                    }
                    for kind, t in kept.trials[c.id].items()
                },
            }
            for c in kept.clusters
        ],
        "distance": world.distance,
        "finished": time.time(),
    }


def _assert_apart(world: Any, asked: Sequence[Any], trained: Sequence[str]) -> None:
    """No person, request, fact or name of the tests is in the logs.

    Raises:
        AssertionError: one is; the study would flatter whoever learns by heart.
    """
    teachers = {user.id for user in world.users if not user.held_out}
    assert not teachers & {one.user for one in asked}, "a user teaches and is asked"
    logs = " ".join(trained)
    for one in asked:
        for what in (one.query.text, one.query.entity, *one.query.facts):
            whole = re.search(rf"(?<!\w){re.escape(what)}(?!\w)", logs)
            assert whole is None, f"{what!r} is in the logs and in the tests"
