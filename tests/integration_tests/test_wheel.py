"""The wheel, built from the sdist: one name, its data, and it works away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import langchain_uno


def run(*args: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | env,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build in a copy, so that the test leaves no build folder in the checkout."""
    source = tmp_path_factory.mktemp("source") / "repo"
    left_out = [".git", ".venv*", ".demo*", "build", "dist", "*.egg-info", ".*_cache", "tests"]
    ignored = shutil.ignore_patterns("__pycache__", *left_out)
    shutil.copytree(repo, source, symlinks=True, ignore=ignored)
    out = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", str(out), ".", cwd=source)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    options = ["-q", "--no-deps", "--no-index", "--target", str(target)]
    run("-m", "pip", "install", *options, str(wheel), cwd=target)
    return target


def test_wheel_holds_one_top_level_name_and_all_rooms(wheel: Path, repo: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names if ".dist-info/" not in n}
    assert tops == {"langchain_uno"}
    here = {
        str(p.relative_to(repo))
        for folder in ("langchain_uno", "langchain_uno/graphs", "langchain_uno/trainers")
        for p in (repo / folder).rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert here - set(names) == set(), "files of the package that the wheel lacks"
    assert [n for n in names if n.startswith(("lab/", "tests/", "examples/"))] == []


def test_wheel_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "import langchain_uno, langchain_uno.graphs, langchain_uno.trainers\n"
        "from langchain_uno import UNOFeedbackHandler, UNOChatModel\n"
        "from langchain_uno.recipe import load_recipe\n"
        "from langchain_uno.models.prompts import get_prompt_set\n"
        "from langchain_uno.recipe import RECIPES\n"
        "[load_recipe(name) for name in RECIPES]\n"
        "print(get_prompt_set('real').fingerprint, langchain_uno.__file__)"
    )
    out = run("-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert str(installed) in out


HELP = """
import contextlib, io, runpy, sys
for words in (
    ["langchain_uno", "evaluate", "memorybench"],
    ["langchain_uno", "recipe"],
    ["langchain_uno.train"],
    ["langchain_uno.logs", "import"],
    ["langchain_uno.demo"],
):
    sys.argv = [*words, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    assert "--home" in told.getvalue(), words
"""


def test_commands_of_the_wheel_answer_help(installed: Path, tmp_path: Path) -> None:
    run("-c", HELP, cwd=tmp_path, PYTHONPATH=str(installed))
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_has_the_console_script(installed: Path, tmp_path: Path) -> None:
    out = run(
        str(installed / "bin" / "langchain-uno"), "--version", cwd=tmp_path,
        PYTHONPATH=str(installed),
    )  # fmt: skip
    assert out.strip() == f"langchain-uno {langchain_uno.__version__}"
