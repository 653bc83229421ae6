"""Figures of an evaluation: intervals by person, what is printed and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.evaluate import by_person, evaluate
from langchain_uno.demo.report import draw_report, print_demo
from langchain_uno.home import Home


def test_intervals_resample_people_not_requests() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=20)  # one a person, ten requests each: 20 cases, not 200
    values = np.repeat(effects, 10)
    grouped = by_person(values, [f"u{i // 10}" for i in range(200)])
    alone = by_person(values, list(range(200)))
    assert grouped["mean"] == alone["mean"] == pytest.approx(float(values.mean()))
    width = grouped["high"] - grouped["low"]
    assert width == pytest.approx(2 * 1.96 * effects.std() / np.sqrt(20), rel=0.15)
    assert width > 2 * (alone["high"] - alone["low"])


def test_without_a_release_all_systems_are_the_base(tmp_path: Path) -> None:
    told: list[int] = []
    report = evaluate(
        make_world(1, families=2), Home(tmp_path).ensure(), per_family=2, on_done=told.append
    )
    assert report["n"] == 4 and sum(told) == 8
    assert report["release"] is None and report["clusters"] == [] and report["coverage"] == 0.0
    assert report["systems"]["base"]["score"] == report["systems"]["uno"]["score"]
    assert report["differences"]["uno-base"]["facts"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


INTERVAL = {"mean": 50.0, "low": 40.0, "high": 61.2}
SYSTEM = {
    "score": INTERVAL,
    "facts": INTERVAL,
    "unwanted": 12.5,
    "tokens_in": 60.0,
    "tokens_out": 40.4,
}
WISH = {"text": "Add a title.", "before": False, "after": True}
EXAMPLE = {"query": "Tell of the [b]dog[/b] Bo.", "family": "pets", "before": "Bo is a dog.",
           "suggestions": ["Add a title."], "after": "Title. Bo is a dog.",
           "wishes": [WISH]}  # fmt: skip
REPORT: dict[str, Any] = {
    "n": 30,
    "people": 20,
    "release": "r1",
    "systems": {"base": SYSTEM, "uno": SYSTEM},
    "differences": {"uno-base": {"score": INTERVAL, "facts": INTERVAL}},
    "coverage": 0.93,
    "clusters": [
        {"id": "c0", "family": "pets", "route": "critic", "gap": 0.81, "n": 20,
         "score": {"base": 0.0, "uno": 88.0}, "facts": {"base": 99.0, "uno": 97.0}},
        {"id": "c1", "family": None, "route": "base", "gap": None, "n": 0,
         "score": {"base": None, "uno": None}, "facts": {"base": None, "uno": None}},
        {"id": "c2", "family": "bugs", "route": "expert", "gap": None, "n": 10,
         "score": {"base": 1.0, "uno": 70.0}, "facts": {"base": 99.0, "uno": 98.0}},
    ],
    "refresh": {
        "notes": ["Nothing guards it."],
        "clusters": [
            {"id": "c0", "size": 31, "people": 14, "gap": 0.81, "route": "critic", "win_rate": 0.9},
            {"id": "c1", "size": 9, "people": 3, "gap": None, "route": "base", "win_rate": None},
        ],
    },
    "log": {
        "interactions": 410, "feedback": 130, "follow_ups": 120,
        "verdicts": {"ok": 250, "too_short": 4},
    },
    "examples": {"critic": EXAMPLE, "expert": EXAMPLE},
    "seconds": {"service": 20.0, "refresh": 200.0},
    "sizes": {"n_adapters": 1, "adapters": 2_000_000, "base": 5_500_000},
}  # fmt: skip


def test_what_the_demo_prints() -> None:
    console = Console(record=True, width=100)
    print_demo(REPORT, Path("home"), console)
    text = console.export_text()
    for said in (
        "410 interactions with 130 pieces of feedback and 120 follow-ups; verdicts: 250 ok, 4 too",
        "pets", "0.81", "critic", "0.90", "0 -> 88", "99 -> 97",
        "the critic suggests", "1. Add a title.", "Add a title. no -> yes",
        "Tell of the [b]dog[/b] Bo.", "before, the base",
        "50.0 (40 to 61)", "+50.0 (+40 to +61)", "93 % of the requests reached a cluster",
        "20 people who are in no log", "Unwanted: answers that follow a wish", " 12 ",
        "Nothing guards it.", "220 s",
        "nothing about a real model",
    ):  # fmt: skip
        assert said in text, (said, text)


def test_a_report_is_drawn(tmp_path: Path) -> None:
    assert draw_report(REPORT, tmp_path / "new" / "demo.png").stat().st_size > 10_000
