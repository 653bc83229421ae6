"""A service that goes on: a refresh of the same home every so often, while families arrive.

Five families of requests are there from the start, the others come one a round. The release of each
round answers in the next, so people complain of what is still wrong. After each round the same test
requests are answered, so that a family that falls is seen. At the end one big refresh in a copy of
the home, without anything to go on from, sees the same logs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab.studies.results import Result, once
from langchain_uno.demo.asking import Answered, Asked, ask_model, held_out
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.evaluate import by_person
from langchain_uno.demo.run import Notebook, learn, run_week
from langchain_uno.demo.service import plan_visits
from langchain_uno.home import Home
from langchain_uno.models.loading import model_folder
from langchain_uno.releases.load import read_current
from langchain_uno.serving.shared import stop_serving

__all__ = ["FIRST_FAMILIES", "run_rounds"]

FIRST_FAMILIES = 5


def run_rounds(
    seed: int,
    top: Path,
    scratch: Path,
    progress: Any,
    *,
    rounds: int = 10,
    visits: int = 50,
    per_family: int = 12,
) -> Result | None:
    """Run (or go on with) a service of several rounds; None while another process is at it.

    Args:
        seed: of the world.
        top: where results lie.
        scratch: where the home lies meanwhile.
        progress: hears how it comes on.
        rounds: how often there is a refresh.
        visits: requests a round, of all families (those of families yet to come are left out).
        per_family: test requests a family, the same ones in each round; three times as many others
            at the end.
    """

    def make(folder: Path) -> Result:
        return _run(seed, folder, progress, rounds, visits, per_family)

    return once(f"rounds-seed{seed}", top, scratch, make)


def _run(
    seed: int, folder: Path, progress: Any, rounds: int, visits: int, per_family: int
) -> Result:
    world, home = make_world(seed), Home(folder / "home").ensure()
    notes = Notebook(folder / "notes.json", {"seed": seed, "rounds": rounds, "visits": visits})
    names = list(world.families)
    there = [set(names[: FIRST_FAMILIES + nth]) for nth in range(rounds)]
    planned = plan_visits(world, rounds * visits)
    done: list[dict[str, Any]] = notes.data.setdefault("rounds", [])
    for nth in range(len(done), rounds):
        until = [v for i, v in enumerate(planned) if v.query.family in there[i // visits]
                 and i < (nth + 1) * visits]  # fmt: skip
        run_week(home, world, until, notes, progress, "uno" if nth else "base")
        began = time.process_time()
        refreshed = learn(home, {"seed": seed}, progress)
        cpu = time.process_time() - began
        asked = [a for a in held_out(world, per_family, seed=100)
                 if a.query.family in there[nth]]  # fmt: skip
        done.append(
            {
                **_figures(asked, ask_model(world, home, asked)),
                "clusters": [c.model_dump(mode="json", exclude={"rules"})
                             for c in refreshed.clusters],
                "kept": sum("kept" in c.note for c in refreshed.clusters),
                "modules": sum(c.route != "base" for c in refreshed.clusters),
                "logs": refreshed.usable,
                "seconds": sum(refreshed.seconds.values()),
                "cpu_seconds": cpu,
                "adapter_bytes": _adapter_bytes(home),
            }
        )  # fmt: skip
        notes.save()
    big = Home(folder / "big")
    if not big.root.is_dir():
        shutil.copytree(home.root, folder / "big.new", dirs_exist_ok=True)
        (folder / "big.new").rename(big.root)
    began = time.process_time()
    refreshed = learn(big, {"seed": seed, "keep": False}, progress)
    cpu = time.process_time() - began
    asked = held_out(world, 3 * per_family, seed=101)
    answers = {"rounds": ask_model(world, home, asked), "big": ask_model(world, big, asked)}
    for one in (home, big):
        stop_serving(one.root)
    gained = [a.score - b.score for a, b in zip(answers["rounds"], answers["big"], strict=True)]
    return {
        "seed": seed,
        "rounds": done,
        "end": {name: _figures(asked, rows) for name, rows in answers.items()},
        "rounds-big": by_person(gained, [one.user for one in asked]),
        "big_seconds": sum(refreshed.seconds.values()),
        "big_cpu_seconds": cpu,
        "base_bytes": (model_folder(None) / "model.safetensors").stat().st_size,
    }


def _figures(asked: Sequence[Asked], rows: Sequence[Answered]) -> dict[str, Any]:
    users = [one.user for one in asked]
    families = [one.query.family for one in asked]
    return {
        "score": by_person([a.score for a in rows], users),
        "facts": by_person([100.0 * a.facts for a in rows], users),
        "by_family": {
            name: float(np.mean([rows[i].score for i, f in enumerate(families) if f == name]))
            for name in dict.fromkeys(families)
        },
    }


def _adapter_bytes(home: Home) -> int:
    release = read_current(home)
    return sum(a.n_bytes for a in release.manifest.adapters) if release else 0
