"""How a command starts, shows that it is at work, and ends."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from langchain_uno import __version__
from langchain_uno.cli.command import app
from langchain_uno.cli.progress import Bars

REPO = Path(__file__).resolve().parents[3]
COMMAND = """
import os, signal, time
import typer
from langchain_uno.cli.console import clean_exit

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
        env=dict(os.environ, PYTHONPATH=os.pathsep.join((str(tmp_path), str(REPO)))),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 130, ended
    assert ended.stderr.strip() == "Stopped; nothing was begun."


# -- start -----------------------------------------------------------------------------------------


def test_help_and_recipe_load_no_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from langchain_uno.cli.command import app\n"
        "for words in (['--help'], ['train', '--help'], ['logs', 'stats', '--help'], ['recipe']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0, words\n"
        "print(*({'torch', 'transformers', 'chromadb', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("module", "usage"),
    [
        ("langchain_uno", "Usage: langchain-uno [OPTIONS]"),
        ("langchain_uno.train", "Usage: langchain-uno train"),
        ("langchain_uno.logs", "Usage: langchain-uno logs"),
        ("langchain_uno.demo", "Usage: langchain-uno demo"),
    ],
)
def test_the_module_forms_are_the_same_command(module: str, usage: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(usage)


def test_version_and_a_misspelt_subcommand() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"langchain-uno {__version__}\n"
    wrong = CliRunner().invoke(app, ["trian"])
    assert wrong.exit_code == 2
    assert "'train'" in wrong.stderr


# -- at work ---------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_file_gets_a_line_at_begin_and_end_and_at_most_one_every_30_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    with Bars(console=Console(file=stream, width=60), clock=clock) as bars:
        bars.start("distil", 400, "logs")
        assert lines(stream) == ["distil: begins, 400 to do. logs"]
        for _ in range(239):  # an eighth of a second each: just below 30 s
            clock.now += 0.125
            bars.advance("distil")
        assert len(lines(stream)) == 1
        clock.now += 0.125
        bars.advance("distil")
        assert lines(stream)[1:] == ["distil: 240 of 400, 8.0 a second, about 20 s left. logs"]
        bars.advance("distil", 90)
        assert len(lines(stream)) == 2
        clock.now += 12.0
        bars.finish("distil", "390 with rules, [bold] is what one user wrote")
        assert lines(stream)[2:] == [
            "distil: done in 42 s. 390 with rules, [bold] is what one user wrote"
        ]


def test_no_more_lines_for_more_stages_at_once() -> None:
    clock, stream = Clock(), io.StringIO()
    with Bars(console=Console(file=stream, width=60), clock=clock) as bars:
        for stage in ("one", "two", "three"):
            bars.start(stage, None)
        begun = len(lines(stream))
        for _ in range(480):  # a minute
            clock.now += 0.125
            for stage in ("one", "two", "three"):
                bars.advance(stage)
        assert len(lines(stream)) - begun == 2
        assert lines(stream)[-1] == "one: 480 done, 8.0 a second"


def test_parts_of_a_stage_are_no_stages_and_its_time_is_the_whole() -> None:
    clock, stream = Clock(), io.StringIO()
    with Bars(console=Console(file=stream, width=60), clock=clock) as bars:
        bars.start("train", 2, "experts and critics")
        for part in ("expert, training steps", "expert, verifying", "critic, training steps"):
            clock.now += 20.0
            bars.start("train", 10, f"cluster 3 of 8: {part}")
        clock.now += 30.0
        bars.advance("train", 3)
        clock.now += 5.0
        bars.finish("train", "1 expert")
    assert stream.getvalue().splitlines() == [
        "train: begins, 2 to do. experts and critics",
        "train: goes on, 10 to do. cluster 3 of 8: expert, verifying",
        "train: 3 of 10, 6.0 a minute, about 70 s left. cluster 3 of 8: critic, training steps",
        "train: done in 95 s. 1 expert",
    ]


def test_lines_of_a_slow_stage_count_by_the_minute() -> None:
    clock, stream = Clock(), io.StringIO()
    with Bars(console=Console(file=stream, width=60), clock=clock) as bars:
        bars.start("train", 8)
        clock.now += 600
        bars.advance("train", 2)
    assert lines(stream)[-1] == "train: 2 of 8, 0.2 a minute, about 30 min left"


def test_bars_fit_60_columns_and_finished_stages_leave_their_lines() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=60, force_terminal=True, color_system=None)
    note = "4,100 of 4,200 logs can be learnt from (60 duplicate, 40 too short), 5 wait " * 2
    with Bars(console=console, terminal=True) as bars:
        bars.start("distil", 4200, note)
        bars.advance("distil", 4100)
        bars.start("cluster", None)
        bars.advance("cluster")
        bars.start("train", 65, "cluster 13 of 28: expert, training steps")
        bars.advance("train", 12)
        bars.finish("distil", note)
        bars.finish("unknown")
    shown = stream.getvalue()
    written = Console(width=60, file=io.StringIO())
    for line in re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", shown):
        assert written.measure(line).maximum <= 60, line
    assert "4100/4200" in shown
    assert re.search(r"train .* 12/65 .* cluster 13 of 28: expert", shown), "which, of how many"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert plain.count("5 wait") >= 2, "a finished stage's note is whole"


def test_quiet_is_quiet_and_unknown_stages_are_ignored() -> None:
    stream = io.StringIO()
    with Bars(True, console=Console(file=stream)) as bars:
        bars.start("distil", 4)
        bars.advance("distil")
        bars.finish("distil", "done")
    assert stream.getvalue() == ""
    with Bars(console=Console(file=stream)) as bars:
        bars.advance("never begun")
        assert stream.getvalue() == ""
        bars.finish("filter", "done before")
    assert lines(stream) == ["filter: done before"]


SHOWN = """
from langchain_uno.cli.console import print_json
from langchain_uno.cli.progress import Bars
with Bars(as_json={as_json}) as bars:
    bars.start("distil", 4)
    bars.finish("distil")
print_json(dict(a=1))
"""


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_json_is_spoilt_by_no_progress(as_json: bool, together: bool, tmp_path: Path) -> None:
    code = SHOWN.format(as_json=as_json)
    env = dict(os.environ, FORCE_COLOR="1")  # a file is no terminal, whatever this says
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        subprocess.run(
            [sys.executable, "-c", code],
            stdout=out,
            stderr=subprocess.STDOUT if together else err,
            env=env,
            check=True,
            timeout=60,
        )
    told = (tmp_path / "out").read_text() + (tmp_path / "err").read_text()
    assert told.count("distil: begins") == (0 if as_json and together else 1)
    if as_json or not together:
        assert (tmp_path / "out").read_text() == '{"a": 1}\n'
    assert "\x1b[?25l" not in told, "no bars in a file"


def test_the_docs_name_commands_that_there_are() -> None:
    main: Any = typer.main.get_command(app)
    known = {name: set(getattr(one, "commands", {})) for name, one in main.commands.items()}
    texts = [p for top in ("docs", "examples", "langchain_uno") for p in (REPO / top).rglob("*.*")]
    wrong = []
    for path in [REPO / "README.md", *texts]:
        if path.suffix not in (".md", ".py", ".ipynb", ".yaml", ".service", ".jinja"):
            continue
        for first, then in re.findall(
            r"langchain-uno ([a-z]+)(?: ([a-z-]{3,}))?", path.read_text()
        ):
            # Such a word may be an argument, where the command has no others below it.
            if first in known and known[first] and then and then not in known[first]:
                wrong.append((path.name, first, then))
    assert wrong == []
