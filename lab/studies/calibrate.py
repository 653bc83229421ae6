"""The gap's threshold, fitted to one's own clusters: which of them an expert would have served."""

from __future__ import annotations

from typing import Any

from lab.studies.figures import threshold_for
from langchain_uno.errors import InputError
from langchain_uno.graphs.checkpoints import WorkFolder
from langchain_uno.graphs.refresh_context import ClusterData
from langchain_uno.graphs.refresh_trials import Trial
from langchain_uno.home import Home

__all__ = ["calibrate_gap"]


def calibrate_gap(home: Home) -> dict[str, Any]:
    """Return the threshold that sends fewest clusters to the wrong kind of module.

    An expert fails where it does not pass, or where the critic's win rate is above its own by more
    than 0.05. Read from the latest finished refresh, which must have run with
    ``recipe.everything``.

    Raises:
        InputError: there is no such refresh.
    """
    rows = []
    for folder in sorted(home.work.glob("refresh-*")):
        work = WorkFolder(folder)
        if not work.has("result.json"):
            continue
        rows = [row for c in work.read_records("gaps.jsonl", ClusterData) if (row := _row(work, c))]
    if not rows:
        raise InputError(
            f"No refresh of {str(home.path)!r} has trained both kinds of module for a cluster: "
            f"python -m langchain_uno.train --home {home.root} --set everything=true, then again."
        )
    points = [(r["gap"], 100 * (r["critic"] - r["expert"]), r["failed"]) for r in rows]
    return {"threshold": round(threshold_for(points), 3), "clusters": rows}


def _row(work: WorkFolder, cluster: ClusterData) -> dict[str, Any] | None:
    found = {}
    for kind in ("expert", "critic"):
        name = f"clusters/{cluster.id}/{kind}.json"
        trial = Trial.model_validate(work.read_json(name)) if work.has(name) else Trial()
        if trial.report is None:
            return None
        found[kind] = trial
    expert, critic = found["expert"], found["critic"]
    assert expert.report is not None and critic.report is not None
    behind = critic.report.win_rate - expert.report.win_rate
    return {
        "id": cluster.id,
        "gap": float(cluster.gap or 0.0),
        "expert": expert.report.win_rate,
        "critic": critic.report.win_rate,
        "failed": not expert.passed or behind > 0.05,
    }
