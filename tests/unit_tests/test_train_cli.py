"""``python -m langchain_uno.train``: one command, one summary, clear errors and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from langchain_uno.home import Home
from langchain_uno.records import Feedback, Interaction
from langchain_uno.releases.load import read_current
from langchain_uno.settings import HomeSettings, load_settings
from langchain_uno.testing import make_tiny_model
from langchain_uno.train import app
from tests.unit_tests.graphs.refresh_parts import RECIPE, make_home
from tests.unit_tests.learning.toy_language import log

TOML = """
name = "tiny"
prompt_set = "real"
max_rule_tokens = 8
max_judge_tokens = 8
max_critique_tokens = 8
[cluster]
min_size = 4
[pairs]
candidates_from_feedback = 1
candidates_from_rules = 1
max_answer_tokens = 8
[verify]
held_out = 0.25
judgements = 1
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy recipe as a file, with the real models' prompts."""
    lines = [TOML]
    for kind in ("expert", "critic"):
        lines.append(f"[{kind}]")
        for key, value in RECIPE.expert.model_dump(exclude_none=True).items():
            lines.append(f"{key} = {str(value).lower()}")
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text("\n".join(lines))
    return path


def edited(n: int = 8, *words: str, language: str = "en") -> list[Interaction]:
    """Logs whose users rewrote the answers: pairs without any word of the tiny model."""
    return [
        log(
            f"r{i}",
            f"question {i} about cats and dogs",
            f"answer number {i}",
            *words,
            extra=[Feedback(run_id=f"r{i}", key="correction", correction=f"better answer {i}")],
            user_id=f"user-{i}",
            language=language,
        )
        for i in range(n)
    ]


def run(*args: object, **env: str) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], env={"COLUMNS": "200", **env})


def test_help_teaches() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("--home", "--model", "--teacher", "--max-steps", "--json", "LANGCHAIN_UNO_HOME"):
        assert word in result.stdout
    assert "Exit codes" in result.stdout


def test_a_refresh_then_the_same_again(tiny_model_path: Path, recipe: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", edited())
    args = ("--model", tiny_model_path, "--recipe", recipe, "--max-steps", 2, "--seed", 3)
    first = run("--home", home.root, *args, "--json")
    assert first.exit_code == 0, first.stderr
    said: dict[str, Any] = json.loads(first.stdout)
    assert said["interactions"] == said["usable"] == 8
    assert sum(c["pairs"] for c in said["clusters"]) > 0
    assert {c["route"] for c in said["clusters"]} == {"base"}
    release = read_current(home)
    assert release is not None
    assert release.id == said["release"]
    assert release.manifest.recipe["seed"] == 3
    assert release.manifest.recipe["expert"]["max_steps"] == 2

    # "refresh" is the same command, the home may come from the environment, and nothing is new.
    again = run("refresh", *args, LANGCHAIN_UNO_HOME=str(home.root))
    assert again.exit_code == 0, again.stderr
    assert "Nothing new" in again.stdout
    assert said["release"] in again.stdout


def test_the_summary_shows_clusters_stages_and_where_things_lie(
    tiny_model_path: Path, recipe: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", edited(), namespace="tenant-a")
    result = run(
        *("refresh", "--home", home.root, "--namespace", "tenant-a", "--model", tiny_model_path),
        *("--recipe", recipe, "--max-steps", 1, "--set", "verify.held_out=0.5"),
    )
    assert result.exit_code == 0, result.stderr
    for word in ("cluster", "gap", "route", "win rate", "stages", "distil", "is current"):
        assert word in result.stdout
    assert str(home.releases) in result.stdout
    assert read_current(home) is not None
    assert not (home.root / "releases").exists()


def test_missing_model(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", edited())
    result = run("--home", home.root, "--model", "nobody/no-such-model")
    assert result.exit_code == 4
    assert "no model 'nobody/no-such-model'" in result.stderr
    assert "Traceback" not in result.stderr
    assert read_current(home) is None


def test_missing_home_no_home_and_an_empty_one(tmp_path: Path) -> None:
    missing = run("--home", tmp_path / "nowhere")
    assert missing.exit_code == 3
    assert "There is no home" in missing.stderr
    assert not (tmp_path / "nowhere").exists()
    assert run(LANGCHAIN_UNO_HOME="").exit_code == 2
    empty = run("--home", tmp_path)
    assert empty.exit_code == 6
    assert "is empty" in empty.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--recipe", "nothing"), 2, "no recipe"),
        (("--set", "expert.rnak=8"), 2, "expert.rnak"),
        (("--set", "rank"), 2, "KEY=VALUE"),
        (("--namespace", "../x"), 2, "namespace"),
        (("--model", "http://localhost:1/v1"), 2, "needs the weights"),
        (("--max-steps", "0"), 2, "max-steps"),
        (("publish",), 2, "publish"),
    ],
)
def test_bad_arguments(tmp_path: Path, args: tuple[str, ...], code: int, words: str) -> None:
    home = make_home(tmp_path / "home", edited())
    result = run("--home", home.root, *args)
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_no_usable_feedback(tiny_model_path: Path, recipe: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path, [log(f"r{i}", f"question {i}", "answer", "hm") for i in range(3)])
    result = run("--home", tmp_path, "--model", tiny_model_path, "--recipe", recipe)
    assert result.exit_code == 6
    assert read_current(home) is None
    assert not list(home.work.glob("refresh-*"))


def test_chinese_logs_and_english_prompts(tiny_model_path: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path, edited(6, "请用列表", language="zh"))
    result = run("--home", tmp_path, "--model", tiny_model_path, "--recipe", "embedded")
    assert result.exit_code == 6
    assert "are in zh" in result.stderr
    assert "--model NAME" in result.stderr
    assert read_current(home) is None


def test_a_home_of_another_model(tiny_model_path: Path, recipe: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", edited())
    args = ("--home", home.root, "--recipe", recipe, "--max-steps", 1)
    assert run(*args, "--model", tiny_model_path).exit_code == 0
    kept = read_current(home)
    other = make_tiny_model(tmp_path / "other", seed=5)
    result = run(*args, "--model", other)
    assert result.exit_code == 5
    assert "belongs to another base model" in result.stderr
    assert kept is not None
    assert read_current(home).id == kept.id  # type: ignore[union-attr]


@pytest.fixture
def readonly_home() -> Iterator[Home]:
    """A home that this process may read and not write, whoever it runs as."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        home = make_home(Path(folder) / "home", edited())
        folders = [home.path, *(p for p in home.path.rglob("*") if p.is_dir())]
        for path in folders:
            path.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield home
        finally:
            if root:
                os.seteuid(0)
            for path in folders:
                path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_read_only_home(readonly_home: Home) -> None:
    before = sorted(readonly_home.path.rglob("*"))
    result = run("--home", readonly_home.root)
    assert result.exit_code == 3
    assert "can't be written" in result.stderr
    assert sorted(readonly_home.path.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def hears_ctrl_c() -> None:
    """In the child: a test run started in the background ignores SIGINT, and hands that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_then_the_same_call_again(
    tiny_model_path: Path, recipe: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", edited(40, "please be brief"))
    call = [sys.executable, "-m", "langchain_uno.train", "--home", str(home.root)]
    call += ["--model", str(tiny_model_path), "--recipe", str(recipe), "--max-steps", "1", "--json"]
    process = subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hears_ctrl_c,
    )
    deadline = time.monotonic() + 300
    while not list(home.work.glob("refresh-*/snapshot.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "goes on from there" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert read_current(home) is None
    result = run(*call[3:])
    assert result.exit_code == 0, result.stderr
    assert read_current(home) is not None


def test_a_homes_own_settings(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert load_settings(home) == HomeSettings()
    home.settings.write_text("[recipe.expert]\nrank = 8\n[logs]\nretention_days = 30\n")
    assert load_settings(home).recipe == {"expert": {"rank": 8}}
    assert load_settings(home).logs.retention_days == 30
    make_home(tmp_path, edited(2))
    for text, complaint in (
        ("[recipe", "not valid TOML"),
        ("[logs]\nretention_days = -1\n", "bad value at 'logs.retention_days'"),
        ("[logs]\nchrome = 1\n", "bad value at 'logs.chrome'"),
        ("recipe = 1\n", "bad value at 'recipe'"),
    ):
        home.settings.write_text(text)
        result = run("--home", tmp_path)
        assert result.exit_code == 2
        assert complaint in result.stderr
