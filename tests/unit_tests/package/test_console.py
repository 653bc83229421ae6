"""How a command ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import os, signal, time
import typer
from langchain_uno.cli.progress import clean_exit

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
app = typer.Typer()

@app.command()
def run() -> None:
    with clean_exit("Stopped; nothing was begun."):
        {interrupted}

app()
"""

WAIT = "os.kill(os.getpid(), signal.SIGINT); time.sleep(5)"


@pytest.mark.parametrize("interrupted", [WAIT, f"exec({WAIT!r})"], ids=["plain", "within exec"])
def test_ctrl_c_is_one_line_and_130(tmp_path: Path, interrupted: str) -> None:
    # Within exec, as when a dataclass is being made: CPython marks that, and ends by the signal.
    (tmp_path / "stopped_command.py").write_text(COMMAND.format(interrupted=interrupted))
    ended = subprocess.run(
        [sys.executable, "-m", "stopped_command"],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 130, ended
    assert ended.stderr.strip() == "Stopped; nothing was begun."
