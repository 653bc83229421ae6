"""Every example runs as a user would run it, and leaves what it says it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines

REPO = Path(__file__).resolve().parents[2]
EXAMPLES = {p.name for p in (REPO / "examples").glob("*.py")}


def run(*args: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def logged(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export_lines(Home.locate(home))]


def test_every_example_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in sorted(EXAMPLES) if f'example("{name}"' not in source] == []


def example(name: str, home: Path, *args: str) -> str:
    home.mkdir(parents=True, exist_ok=True)
    return run(str(REPO / "examples" / name), "--home", str(home), *args, cwd=home)


def test_agent_records_model_runs_tool_calls_and_follow_up(tmp_path: Path) -> None:
    home = tmp_path / "home"
    out = example("agent_with_feedback.py", home)
    rows = logged(home)
    assert len(rows) >= 2
    assert {row["user_id"] for row in rows} == {"ada"}
    assert len({row["thread_id"] for row in rows}) == 1
    keys = [feedback["key"] for row in rows for feedback in row["feedback"]]
    assert "dislike" in keys
    assert "follow_up" in keys
    assert f"--home {home}" in out


def test_real_model_path_at_toy_size(tmp_path: Path) -> None:
    home = tmp_path / "home"
    out = example("real_model.py", home, "--tiny")
    rows = logged(home)
    assert {row["language"] for row in rows} == {"en", "zh"}
    assert [len(row["feedback"]) for row in rows] == [1, 1]
    assert "--reranker Qwen/Qwen3-Reranker-0.6B" in out


def test_a_thumb_pressed_on_a_page_lands_on_its_answer(tmp_path: Path) -> None:
    home = tmp_path / "home"
    out = example("feedback_server.py", home, "--check")
    assert out.splitlines()[-1] == "recorded"
    [row] = logged(home)
    assert [(f["key"], f["score"], f["source"]) for f in row["feedback"]] == [
        ("thumb", 0.0, "http")
    ]
