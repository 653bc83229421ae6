"""The demo, at a small size: stopped by Ctrl-C in every stage, then finished by the same call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app

SIZE = ("--visits", "72", "--per-family", "2", "--seed", "2")

STAGES = {
    "service": "demo.json",
    "filter": "work/refresh-*",
    "distil": "work/refresh-*/filter.json",
    "cluster": "work/refresh-*/distil.json",
    "rules": "work/refresh-*/cluster.json",
    "gap": "work/refresh-*/rules.json",
    "pairs": "work/refresh-*/gap.json",
    "train": "work/refresh-*/pairs.json",
    "release": "work/refresh-*/train.json",
    "evaluate": "work/refresh-*/release.json",
}
"""A file whose coming shows that a stage has begun, or is about to."""


def told(home: Path) -> str:
    """Run the demo on a home that it refuses, and return its words on one line."""
    words = ["demo", "--home", str(home), *SIZE]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


def demo(home: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "langchain_uno", "demo", "--home", str(home), *SIZE, *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        env=dict(os.environ),
        stdout=pipe,
        stderr=pipe,
        text=True,
        preexec_fn=hears_ctrl_c,
    )


def hears_ctrl_c() -> None:
    """In the child: a test run started in the background ignores SIGINT, and hands that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_in_any_stage_and_the_same_call_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    stopped = []
    for stage, sign in STAGES.items():
        if any(home.glob(sign)):
            continue  # begun before the last stop came: the next call would pass it at once
        run = demo(home, "--json")
        while not any(home.glob(sign)) and run.poll() is None:
            time.sleep(0.02)
        if run.poll() is None:
            time.sleep(0.2)
            run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=300)
        if run.returncode == 0:
            break  # too fast to be caught: it finished
        assert run.returncode == 130, (stage, err)
        assert out == "", stage
        assert "the same call again goes on" in err, (stage, err)
        assert "Traceback" not in err, (stage, err)
        stopped.append(stage)
    run = demo(home, "--json")
    out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err
    assert len(stopped) >= 6, stopped

    report = json.loads(out)
    assert report["n"] == 16
    assert set(report["systems"]) == {"base", "uno"}
    assert report["release"] == report["refresh"]["release"]
    assert (home / "demo.png").stat().st_size > 10_000
    # What was done before each stop was done once.
    assert report["refresh"]["interactions"] <= 72 * 2
    releases = [p for p in home.glob("releases/*") if (p / "manifest.json").is_file()]
    assert len(releases) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"settings": {"seed": 9}}', "other settings"),
    ],
)
def test_a_notebook_that_does_not_fit_is_a_sentence(
    tmp_path: Path, content: str, says: str
) -> None:
    (tmp_path / "demo.json").write_text(content, encoding="utf-8")
    assert says in told(tmp_path)


def test_a_home_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    assert "no demo made it" in told(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]
