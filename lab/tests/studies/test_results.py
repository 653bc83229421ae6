"""Results are made once, also by two processes; a threshold from a refresh that trained both."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from lab.studies.__main__ import app
from lab.studies.ablations import ABLATIONS
from lab.studies.calibrate import calibrate_gap
from lab.studies.results import once, read_result
from lab.studies.rounds import arrivals
from lab.studies.tables import ablation_rows
from langchain_uno.demo.drawing import make_world
from langchain_uno.errors import InputError
from langchain_uno.graphs.checkpoints import WorkFolder
from langchain_uno.graphs.refresh_context import ClusterData
from langchain_uno.graphs.refresh_trials import Trial
from langchain_uno.home import Home
from langchain_uno.recipe import load_recipe
from langchain_uno.records import VerifierReport


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"n": len(made)}

    assert read_result(tmp_path / "a") is None
    assert once(tmp_path / "a", make) == once(tmp_path / "a", make) == {"n": 1}
    assert once(tmp_path / "a", make, done=lambda known: known["n"] == 2) == {"n": 2}
    (tmp_path / "b").mkdir()
    with FileLock(tmp_path / "b" / ".lock"):
        assert once(tmp_path / "b", make) is None
    assert len(made) == 2
    (tmp_path / "a" / "result.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        read_result(tmp_path / "a")


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_a_recipe(name: str) -> None:
    changed = load_recipe("bundled", ABLATIONS[name])
    assert (changed == load_recipe("bundled")) == (name == "as it is")


def test_families_come_one_a_round() -> None:
    there = arrivals(make_world(3), 6)
    assert [len(names) for names in there] == [5, 6, 7, 8, 8, 8]
    assert all(set(a) <= set(b) for a, b in pairwise(there))


def test_ablations_are_paired_with_the_recipe_as_it_is() -> None:
    def system(*scores: float) -> dict[str, Any]:
        return {
            "scores": list(scores),
            "users": ["a", "b"],
            "facts": {"mean": 99.0},
            "unwanted": 1.0,
            "adapter_share": 0.2,
            "seconds": 60.0,
        }

    results = [
        {"seed": 1, "systems": {"as it is": system(80, 90), "DPO only": system(70, 80)}},
        {"seed": 2, "systems": {"DPO only": system(0, 0)}},  # nothing to pair it with
    ]
    rows = {row[0]: row for row in ablation_rows(results)}
    assert rows["DPO only"][2] == "-10.0 (-10.0 to -10.0)"
    assert rows["as it is"][2] == "0.0 (0.0 to 0.0)"
    assert rows["DPO only"][5:] == ["20.0 %", "60"]


def trial(rate: float, *, passed: bool = True) -> Trial:
    report = VerifierReport(
        kind="expert", n=9, win_rate=rate, interval=(0.1, 1.0), passed=passed, reason=""
    )
    return Trial(adapter="x" if passed else None, report=report)


def test_a_threshold_is_fitted_to_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path).ensure()
    ended = CliRunner().invoke(app, ["calibrate", "--home", str(tmp_path)])
    assert ended.exit_code == 2 and "everything=true" in ended.output

    work = WorkFolder(home.work / "refresh-0123456789abcdef")
    found = {"c0": (0.1, 0.9, 0.9), "c1": (0.3, 0.6, 0.95), "c2": (0.7, 0.5, 0.9)}
    work.write_records(
        "gaps.jsonl",
        [
            ClusterData(id=c, run_ids=[], train=[], verify=[], gap=g)
            for c, (g, _, _) in found.items()
        ],
    )
    for name, (_, expert, critic) in found.items():
        work.write_json(f"clusters/{name}/expert.json", trial(expert).model_dump(mode="json"))
        work.write_json(f"clusters/{name}/critic.json", trial(critic).model_dump(mode="json"))
    work.write_json("result.json", {})
    told = calibrate_gap(home)
    assert told["threshold"] == pytest.approx(0.2)
    assert [row["failed"] for row in told["clusters"]] == [False, True, True]
    ended = CliRunner().invoke(app, ["calibrate", "--home", str(tmp_path)])
    assert ended.exit_code == 0 and "gap.threshold=0.20" in ended.output.replace("\n", " ")
