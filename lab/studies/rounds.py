"""Online rounds: a service that goes on, and a refresh of the same home every so often.

Five families of requests are there from the start, the others come one a round; in half of the
families one wish gives way to another after half of the rounds (the variant "drift"). The release
of each round answers in the next, so people complain of what is still wrong. At the end one big
refresh in a copy of the home, without anything to go on from, sees the same logs.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from lab.studies.results import once
from langchain_uno.demo.asking import Answered, Asked, ask_model, held_out
from langchain_uno.demo.intervals import by_user
from langchain_uno.demo.service import Visit
from langchain_uno.demo.worlds import World
from langchain_uno.home import Home
from langchain_uno.serving.shared import stop_serving

__all__ = ["FIRST_FAMILIES", "arrivals", "run_rounds"]

FIRST_FAMILIES = 5


def run_rounds(
    seed: int,
    top: Path,
    progress: Any,
    *,
    rounds: int = 6,
    visits: int = 100,
    per_family: int = 12,
    noise: float = 0.34,
) -> dict[str, Any] | None:
    """Run (or go on with) a service of several rounds and return what each brought.

    None while another process is at it.

    Args:
        seed: of the world.
        top: where the folder goes; ``result.json`` in it says that it is done.
        progress: hears how it comes on.
        rounds: how often there is a refresh.
        visits: requests a round, of all families (those of families yet to come are left out).
        per_family: held-out requests a family and round; every round asks others.
        noise: share of useless feedback.
    """
    folder = top / f"rounds-seed{seed}"

    def make() -> dict[str, Any]:
        return _run(seed, folder, progress, rounds, visits, per_family, noise)

    return once(folder, make)


def _run(
    seed: int,
    folder: Path,
    progress: Any,
    rounds: int,
    visits: int,
    per_family: int,
    noise: float,
) -> dict[str, Any]:
    from langchain_uno.demo.drawing import make_world
    from langchain_uno.demo.run import Notebook, learn, run_week
    from langchain_uno.demo.service import plan_visits

    world = make_world(seed, noise=noise, variant="drift")
    home = Home(folder / "home").ensure()
    notes = Notebook(folder / "notes.json", {"seed": seed, "rounds": rounds, "visits": visits})
    there = arrivals(world, rounds)
    plan: list[Visit] = []
    for i, visit in enumerate(plan_visits(world, rounds * visits)):
        if visit.query.family in there[i // visits]:
            plan.append(visit)
    done: list[dict[str, Any]] = notes.data.setdefault("rounds", [])
    for nth in range(len(done), rounds):
        until = (nth + 1) / rounds
        week = [v for v in plan if v.when < until]
        run_week(home, world, week, notes, progress, "uno" if nth else "base")
        refreshed = learn(home, {"seed": seed}, progress)
        asked = _asked(world, there[nth], per_family, nth, until)
        done.append(
            {
                **_figures(asked, ask_model(world, home, asked)),
                "base": _figures(asked, ask_model(world, home, asked, mode="base")),
                "clusters": [c.model_dump(mode="json") for c in refreshed.clusters],
                "kept": sum("kept" in c.note for c in refreshed.clusters),
                "modules": sum(c.route != "base" for c in refreshed.clusters),
                "logs": refreshed.usable,
                "seconds": sum(refreshed.seconds.values()),
                "adapter_bytes": _adapter_bytes(home),
            }
        )
        notes.save()
    big = Home(folder / "big")
    if not big.root.is_dir():
        shutil.copytree(home.root, folder / "big.new")
        (folder / "big.new").rename(big.root)
    refreshed = learn(big, {"seed": seed, "evolve": {"keep": False}}, progress)
    asked = _asked(world, there[-1], 3 * per_family, rounds, 1.0)
    answers = {
        "rounds": ask_model(world, home, asked),
        "big": ask_model(world, big, asked),
    }
    result: dict[str, Any] = {
        "seed": seed,
        "rounds": done,
        "end": {name: _figures(asked, rows) for name, rows in answers.items()},
        "rounds-big": by_user(
            [a.score - b.score for a, b in zip(answers["rounds"], answers["big"], strict=True)],
            [one.user for one in asked],
        ),
        "big_seconds": sum(refreshed.seconds.values()),
        "drifted": [n for n, w in world.preferences.items() if any(p.until < 1 for p in w)],
    }
    for done_with in (home, big):
        stop_serving(done_with.root)
        shutil.rmtree(done_with.root, ignore_errors=True)
    return result


def arrivals(world: World, rounds: int) -> list[list[str]]:
    """Return, for every round, the families of requests that there are."""
    names = list(world.families)
    return [names[: FIRST_FAMILIES + nth] for nth in range(rounds)]


def _asked(
    world: World, families: list[str], per_family: int, nth: int, when: float
) -> list[Asked]:
    # Just before the end of the round: what holds then is what its people wanted last.
    found = held_out(world, per_family, seed=100 + nth, when=when if when == 1.0 else when - 1e-6)
    return [one for one in found if one.query.family in families]


def _figures(asked: list[Asked], rows: list[Answered]) -> dict[str, Any]:
    users = [one.user for one in asked]
    families = [one.query.family for one in asked]
    return {
        "score": by_user([a.score for a in rows], users),
        "facts": by_user([100.0 * a.facts for a in rows], users),
        "by_family": {
            name: float(np.mean([rows[i].score for i, f in enumerate(families) if f == name]))
            for name in dict.fromkeys(families)
        },
    }


def _adapter_bytes(home: Home) -> int:
    from langchain_uno.releases.load import read_current

    release = read_current(home)
    return sum(a.n_bytes for a in release.manifest.adapters) if release else 0
