"""Every example runs, one of them in a process of its own, and leaves what it says it leaves."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines
from langchain_uno.web.feedback import ENV_SECRET

REPO = Path(__file__).resolve().parents[2]
EXAMPLES = {p.name for p in (REPO / "examples").glob("*.py")}


def logged(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export_lines(Home.locate(home))]


def test_every_example_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in sorted(EXAMPLES) if f'("{name}"' not in source] == []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in which the example runs."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def example(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run an example in this process, which has loaded torch, and return its output."""

    def run(name: str, *args: str) -> str:
        path = str(REPO / "examples" / name)
        monkeypatch.setattr(sys, "argv", [path, "--home", str(home), *args])
        runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out

    return run


def own_process(name: str, home: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(REPO / "examples" / name), "--home", str(home)],
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_agent_records_model_runs_tool_calls_and_follow_up(home: Path) -> None:
    out = own_process("agent_with_feedback.py", home)
    rows = logged(home)
    assert len(rows) >= 2
    assert {row["user_id"] for row in rows} == {"ada"}
    assert len({row["thread_id"] for row in rows}) == 1
    keys = [feedback["key"] for row in rows for feedback in row["feedback"]]
    assert "dislike" in keys
    assert "follow_up" in keys
    assert f"--home {home}" in out


def test_real_model_path_at_toy_size(home: Path, example: Callable[..., str]) -> None:
    out = example("real_model.py", "--tiny")
    rows = logged(home)
    assert {row["language"] for row in rows} == {"en", "zh"}
    assert [len(row["feedback"]) for row in rows] == [1, 1]
    assert "--reranker Qwen/Qwen3-Reranker-0.6B" in out


def test_a_thumb_pressed_on_a_page_lands_on_its_answer(
    home: Path, example: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_SECRET, "s" * 40)
    out = example("feedback_server.py", "--check")
    assert out.splitlines()[-1] == "recorded"
    [row] = logged(home)
    assert [(f["key"], f["score"], f["source"]) for f in row["feedback"]] == [
        ("thumb", 0.0, "http")
    ]
