"""Systems side by side: one world, one week of feedback, the same test requests for all.

Experts or critics everywhere are refreshes of the same log whose gap threshold sends every cluster
one way, and whose modules ship without being asked whether they are any good.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.studies.results import Result, once
from lab.studies.rivals import Past, by_bm25, by_cluster, by_embeddings, revise_by
from langchain_uno.demo.asking import Answered, Asked, ask_model, held_out
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.run import Notebook, learn, run_week
from langchain_uno.demo.service import plan_visits
from langchain_uno.demo.worlds import World
from langchain_uno.home import Home
from langchain_uno.learning.work import RefreshResult, WorkFolder
from langchain_uno.logs.store import LogStore
from langchain_uno.models.loading import load_embedder, load_prompt_set, shared_engine
from langchain_uno.recipe import load_recipe
from langchain_uno.records import RuleSet, run_of
from langchain_uno.serving.shared import stop_serving

__all__ = ["SYSTEMS", "run_systems"]

UNVERIFIED: dict[str, Any] = {"win_rate": 0.0, "level": None}
REFRESHES: dict[str, dict[str, Any]] = {
    "UNO": {},
    "expert everywhere": {"gap": {"threshold": 2.0}, "verify": UNVERIFIED},
    "critic everywhere": {"gap": {"threshold": 0.0}, "verify": UNVERIFIED},
    "experts taught by critics": {
        "gap": {"threshold": 0.0},
        "verify": UNVERIFIED,
        "critic": {"distil": True},
    },
}
"""System -> what its recipe changes."""
SYSTEMS = ("base", "RAG, BM25", "RAG, embeddings", "rules in the prompt", *REFRESHES)

EDITS = {"edit": 6.0, "thumb": 2.0, "silent": 6.0}
"""People who put no wish into words."""


def run_systems(
    seed: int,
    top: Path,
    scratch: Path,
    progress: Any,
    *,
    noise: float = 0.34,
    edits: bool = False,
    visits: int = 420,
    per_family: int = 15,
) -> Result | None:
    """Run (or read) one world and return what every system did; None: another process is at it.

    Args:
        seed: of the world.
        top: where results lie.
        scratch: where homes lie meanwhile.
        progress: hears how it comes on.
        noise: share of useless feedback.
        edits: whether people edit answers instead of saying what they want.
        visits: requests of the week.
        per_family: test requests a family.
    """
    name = f"systems-seed{seed}-noise{round(100 * noise):02d}{'-edits' if edits else ''}"

    def make(folder: Path) -> Result:
        world = make_world(seed, noise=noise)
        if edits:
            users = [u.model_copy(update={"channels": dict(EDITS)}) for u in world.users]
            world = world.model_copy(update={"users": users})
        told: Result = {"seed": seed, "noise": noise, "edits": edits, "visits": visits}
        return {**told, **_run(world, folder, progress, visits, per_family)}

    return once(name, top, scratch, make)


def _run(world: World, folder: Path, progress: Any, visits: int, per_family: int) -> Result:
    week = Home(folder / "week").ensure()
    notes = Notebook(folder / "notes.json", {"seed": world.seed, "visits": visits})
    run_week(week, world, plan_visits(world, visits), notes, progress, "base")
    stop_serving(week.root)
    asked = held_out(world, per_family)
    answers: dict[str, list[Answered]] = {}
    refreshed: dict[str, RefreshResult] = {}
    for system, changes in REFRESHES.items():
        home = _copied(week, folder / system.replace(" ", "-"))
        refreshed[system] = learn(home, {"seed": world.seed, **changes}, progress)
        if system == "UNO":
            answers["base"] = ask_model(world, home, asked, mode="base")
            _assert_apart(world, asked, home)
        answers[system] = ask_model(world, home, asked)
        if system == "UNO":
            answers |= _rivals(world, home, refreshed[system], asked, answers)
        stop_serving(home.root)
    return {
        "users": [one.user for one in asked],
        "answers": {name: _columns(answers[name]) for name in SYSTEMS},
        "clusters": {
            name: [c.model_dump(mode="json", exclude={"rules"}) for c in result.clusters]
            for name, result in refreshed.items()
        },
        "seconds": {name: sum(result.seconds.values()) for name, result in refreshed.items()},
    }


def _rivals(
    world: World,
    home: Home,
    refreshed: RefreshResult,
    asked: Sequence[Asked],
    answers: dict[str, list[Answered]],
) -> dict[str, list[Answered]]:
    engine, recipe = shared_engine(None), load_recipe("bundled")
    embedder, prompts = load_embedder(None, engine), load_prompt_set(recipe.prompt_set)
    with LogStore.open(home, embedder) as store:
        queries = {log.run_id: log.query for log in store.interactions()}
    work = WorkFolder(home.work / refreshed.refresh_id)
    said = [r for r in work.read_records("distilled.jsonl", RuleSet) if r.with_feedback]
    texts = [queries[run_of(rules.run_id)] for rules in said]
    past = Past(
        texts, embedder.embed(texts), [[rule.text for rule in r.with_feedback] for r in said]
    )
    known = {cluster.id: cluster.rules for cluster in refreshed.clusters}
    ways = {
        "RAG, BM25": by_bm25(past),
        "RAG, embeddings": by_embeddings(past, embedder),
        "rules in the prompt": by_cluster([a.cluster for a in answers["UNO"]], known),
    }
    return {
        name: revise_by(way, world, asked, answers["base"], engine, prompts, recipe)
        for name, way in ways.items()
    }


def _copied(week: Home, root: Path) -> Home:
    """Return a copy of a home; one that a stopped call had begun to learn in is taken up."""
    if not root.is_dir():
        shutil.copytree(week.root, root.with_suffix(".new"), dirs_exist_ok=True)
        root.with_suffix(".new").rename(root)
    return Home(root)


def _columns(rows: Sequence[Answered]) -> dict[str, list[float]]:
    return {
        "score": [round(a.score, 2) for a in rows],
        "facts": [100 * int(a.facts) for a in rows],
        "unwanted": [100 * int(a.unwanted) for a in rows],
        "tokens_in": [a.tokens_in for a in rows],
        "tokens_out": [a.tokens_out for a in rows],
        "seconds": [round(a.seconds, 4) for a in rows],
    }


def _assert_apart(world: World, asked: Sequence[Asked], home: Home) -> None:
    """No person, request, fact or name of the tests is in the logs.

    Raises:
        AssertionError: one is; the study would flatter whoever learns by heart.
    """
    teachers = {user.id for user in world.users if not user.held_out}
    assert not teachers & {one.user for one in asked}, "a user teaches and is asked"
    with LogStore.open(home, load_embedder(None, shared_engine(None))) as store:
        logs = " ".join(log.query for log in store.interactions())
    for one in asked:
        for what in (one.query.text, one.query.entity, *one.query.facts):
            whole = re.search(rf"(?<!\w){re.escape(what)}(?!\w)", logs)
            assert whole is None, f"{what!r} is in the logs and in the tests"
