"""What each part of the design is worth: the same week of logs, learnt from with one thing changed.

    as it is                  the recipe
    no memory                 critics where a memory would do
    one cluster               clustering off: one module for everything
    clusters by query alone   rules out of the clustering
    DPO only, SFT only        half of an expert's loss
    no filters                logs of every verdict are learnt from, if anybody reacted
    silent logs               requests that nobody reacted to are logs like others
    every voice               no defence against single people (``recipe.cluster``)
    rank 2 ... 64             size of the adapters

What the gap and the verifier are worth is a choice among modules that are trained already
(:mod:`lab.studies.choices`).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.studies.poison import OPEN
from lab.studies.results import once, read_result, write_result
from langchain_uno.demo.asking import Asked, ask_model, held_out
from langchain_uno.demo.intervals import by_user
from langchain_uno.demo.worlds import World
from langchain_uno.errors import InputError
from langchain_uno.graphs.refresh_context import RefreshResult
from langchain_uno.home import Home
from langchain_uno.logs.filters import REASONS
from langchain_uno.serving.shared import stop_serving

__all__ = ["ABLATIONS", "run_ablations"]


def _rank(rank: int) -> dict[str, Any]:
    size = {"rank": rank, "alpha": 2 * rank}
    return {"expert": size, "critic": size}


ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no memory": {"memory": False},
    "one cluster": {"cluster": {"mode": "one"}},
    "clusters by query alone": {"cluster": {"rule_weight": 0.0}},
    "DPO only": {"expert": {"dpo_weight": 1.0, "sft_weight": 0.0}},
    "SFT only": {"expert": {"dpo_weight": 0.0, "sft_weight": 1.0}},
    "no filters": {"filter": {"ignore": [one for one in REASONS if one != "no_feedback"]}},
    "silent logs": {"filter": {"ignore": ["no_feedback"]}},
    "every voice": {"cluster": OPEN},
    **{f"rank {rank}": _rank(rank) for rank in (2, 4, 8, 32, 64)},
}
"""Name -> what is changed in the embedded recipe (whose rank is 16)."""
_APART: dict[str, Any] = {"evolve": {"keep": False}}
"""All learn in one home: no module of the one before may stay."""


def run_ablations(
    seed: int,
    top: Path,
    progress: Any,
    *,
    names: Sequence[str] = tuple(ABLATIONS),
    visits: int = 420,
    per_family: int = 20,
    noise: float = 0.34,
) -> dict[str, Any] | None:
    """Learn once a name from one week of logs, and ask the same held-out requests each time.

    None while another process is at it.

    Args:
        seed: of the world.
        top: where the folder goes; each name that is done is kept there.
        progress: hears how it comes on.
        names: of :data:`ABLATIONS`.
        visits: requests of the week.
        per_family: held-out requests a family.
        noise: share of useless feedback.

    Raises:
        InputError: an unknown name.
    """
    unknown = [name for name in names if name not in ABLATIONS]
    if unknown:
        raise InputError(f"There is no ablation {unknown[0]!r}: {', '.join(ABLATIONS)}.")
    folder = top / f"ablations-seed{seed}"

    def make() -> dict[str, Any]:
        return _run(seed, folder, progress, names, visits, per_family, noise)

    return once(folder, make, done=lambda known: set(names) <= set(known["systems"]))


def _run(
    seed: int,
    folder: Path,
    progress: Any,
    names: Sequence[str],
    visits: int,
    per_family: int,
    noise: float,
) -> dict[str, Any]:
    from langchain_uno.demo.drawing import make_world
    from langchain_uno.demo.run import Notebook, learn, run_week
    from langchain_uno.demo.service import plan_visits

    found = read_result(folder) or {"seed": seed, "noise": noise, "systems": {}}
    world = make_world(seed, noise=noise)
    home = Home(folder / "home").ensure()
    notes = Notebook(folder / "notes.json", {"seed": seed, "visits": visits, "noise": noise})
    run_week(home, world, plan_visits(world, visits), notes, progress, "base")
    asked = held_out(world, per_family)
    for name in (n for n in names if n not in found["systems"]):
        refreshed = learn(home, {"seed": seed, **_APART, **ABLATIONS[name]}, progress)
        found["systems"][name] = _figures(world, home, asked, refreshed)
        write_result(folder, found)
    stop_serving(home.root)
    shutil.rmtree(home.root, ignore_errors=True)
    return found


def _figures(
    world: World, home: Home, asked: Sequence[Asked], refreshed: RefreshResult
) -> dict[str, Any]:
    from langchain_uno.models.loading import model_folder
    from langchain_uno.releases.load import read_current

    rows = ask_model(world, home, asked)
    users = [one.user for one in asked]
    release = read_current(home)
    adapters = release.manifest.adapters if release else []
    base = (model_folder(None) / "model.safetensors").stat().st_size
    return {
        "scores": [round(a.score, 2) for a in rows],
        "users": users,
        "score": by_user([a.score for a in rows], users),
        "facts": by_user([100.0 * a.facts for a in rows], users),
        "unwanted": 100.0 * sum(a.unwanted for a in rows) / len(rows),
        "routes": dict(Counter(c.route for c in refreshed.clusters)),
        "seconds": sum(refreshed.seconds.values()),
        "adapter_share": max((a.n_bytes for a in adapters), default=0) / base,
    }
