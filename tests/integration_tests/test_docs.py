"""What the pages say about the code is true of the code."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import typer

from lab.studies.tables import PAGES, rewritten
from langchain_uno.cli.command import app
from langchain_uno.records import STAGES

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")


def generator(name: str = "make_cli_reference") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPO / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_line_reference_is_current() -> None:
    module = generator()
    written = module.PAGE.read_text(encoding="utf-8")
    assert written == module.render(), "docs/reference-cli.md is out of date: run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_tables_are_those_of_the_results(page: Path) -> None:
    text = (REPO / page).read_text(encoding="utf-8")
    assert text == rewritten(text, PAGES[page](REPO / "lab" / "results")), "run `make docs`"


def test_every_option_of_every_command_has_a_help_text() -> None:
    rows = re.findall(r"^\| `.*$", generator().render(), re.M)
    assert len(rows) > 20
    assert [row for row in rows if row.split(" | ")[-1].strip(" |") == ""] == []


def test_every_command_on_the_pages_is_one() -> None:
    pages = [REPO / "README.md", *(REPO / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    fenced = "\n".join(re.findall(r"^```(?:bash|console)[^\n]*\n(.*?)^```", text, re.M | re.S))
    lines = re.findall(r"^langchain-uno .+$", fenced.replace("\\\n", " "), re.M)
    assert len(lines) > 20
    for line in lines:
        _, *words = shlex.split(line.partition(" > ")[0])
        command = typer.main.get_command(app)
        while inner := getattr(command, "commands", {}):
            assert words and words[0] in inner, line
            command = inner[words.pop(0)]
        command.make_context(line, words)  # refuses what the command does not take


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert len(README.splitlines()) <= 90


@pytest.mark.parametrize("room", ["learning", "trainers", "graphs"])
def test_the_architecture_names_every_file_of(room: str) -> None:
    files = {p.name for p in (REPO / "langchain_uno" / room).glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"`{room}/{name}`" not in ARCHITECTURE} == set()


def test_the_architecture_has_a_file_for_every_stage() -> None:
    rows = re.findall(r"^\| ([a-z]+)[^|]* \| `([a-z_/]+\.py)`", ARCHITECTURE, re.M)
    held = [(stage, file) for stage, file in rows if stage in STAGES and "learning/" in file]
    assert held == [(stage, f"learning/{stage}.py") for stage in STAGES]


def test_the_table_of_rooms_names_everything_in_the_package() -> None:
    package = REPO / "langchain_uno"
    there = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    table = ARCHITECTURE.partition("| room |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*)\|", table, re.M)))
    assert len(named) == len(set(named))
    assert set(named) == there - {"__init__", "__main__"}


def test_files_named_in_the_architecture_exist() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|toml))`", ARCHITECTURE))
    assert len(named) > 20
    roots = [REPO / "langchain_uno", REPO, REPO / "langchain_uno/models/prompts"]
    home_files = {"settings.toml"}
    assert [n for n in named - home_files if not any((r / n).exists() for r in roots)] == []


def test_make_targets_named_in_the_pages_exist() -> None:
    pages = [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").rglob("*.md")]
    words = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    wanted = set(re.findall(r"`make ([a-z-]+)", words)) | set(
        re.findall(r"^make ([a-z-]+)", words, re.M)
    )
    listed = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True)
    targets = {line.split()[0] for line in listed.stdout.splitlines()}
    assert {"demo", "test", "help"} <= wanted & targets
    assert wanted - targets == set()


def test_ci_runs_the_readmes_own_test_command() -> None:
    assert "`make test`" in README
    assert re.search(r"^make test\b", (REPO / ".ci" / "run").read_text(), re.M)
    assert (REPO / ".ci" / "run").stat().st_mode & 0o111
