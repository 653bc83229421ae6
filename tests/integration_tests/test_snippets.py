"""Every python and bash snippet in README, CONTRIBUTING and docs runs, in order, page by page.

A page's blocks share one folder and, for python, one namespace. ``make`` lines are run as
``make -n`` in the checkout: what they do is tested elsewhere. ``langchain-uno`` is the checkout's,
installed or not. Blocks tagged ``no-run`` need a large model, a network or minutes; there may be
few.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app

REPO = Path(__file__).resolve().parents[2]
PAGES = sorted([REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").rglob("*.md")])
MAX_NOT_RUN = 10
_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    language: str
    tags: frozenset[str]
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, *tags = match["info"].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(language, frozenset(tags), match["code"], line))
    return found


def show(page: Path) -> str:
    return str(page.relative_to(REPO))


def runnable(page: Path) -> list[Block]:
    return [b for b in blocks(page) if b.language in ("python", "bash") and not b.tags]


def bash(code: str, cwd: Path) -> None:
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPO),
    }
    code = code.replace("make ", f"make -n -C {REPO} ")
    code = code.replace(".venv/bin/python", sys.executable).replace(" tests/", f" {REPO}/tests/")
    code = code.replace("python examples/", f"python {REPO}/examples/")
    code = f'langchain-uno() {{ "{sys.executable}" -m langchain_uno "$@"; }}\n{code}'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=cwd, env=env, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{code}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def in_shell(code: str, cwd: Path) -> None:
    """Run a block's lines in their order: in this process what is the command alone, else by bash.

    A process of its own for each command would load torch each time.
    """
    shell = ""
    for line in code.splitlines(keepends=True):
        if not re.fullmatch(r"langchain-uno [^|<>&;$\\]*\n", line):
            shell += line
            continue
        if shell:
            bash(shell, cwd)
        shell = ""
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output[-4000:]}"
    if shell:
        bash(shell, cwd)


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=show)
def test_snippets_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in runnable(page):
        if block.language == "bash":
            in_shell(block.code, tmp_path)
        else:
            code = compile("\n" * block.line + block.code, show(page), "exec")
            exec(code, namespace)


@pytest.mark.slow
def test_the_quickstart_ends_in_a_better_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(REPO / "docs" / "quickstart.md"):
        if block.language == "bash" and "pip install" not in block.code:
            bash(block.code, tmp_path)
        elif block.language == "python":
            exec(block.code, namespace)
        if "answers" in namespace:
            break
    base, uno = (namespace["answers"][mode] for mode in ("base", "uno"))
    assert (base.response_metadata["route"], uno.response_metadata["route"]) == ("base", "critic")
    assert "\n- " not in base.text and "Next step" not in base.text
    assert "\n- The price is 30 euros.\n" in uno.text and "\nNext step: " in uno.text


@pytest.mark.slow
def test_the_demo_gets_better_and_answers_the_readmes_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bash("langchain-uno demo --json > report.json", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    better = report["differences"]["uno-base"]
    assert better["score"]["mean"] >= 40 and better["facts"]["mean"] >= -2
    assert {"expert", "critic"} <= {cluster["route"] for cluster in report["clusters"]}
    question = next(b for b in runnable(REPO / "README.md") if b.language == "python")
    capsys.readouterr()
    exec(question.code, {"__name__": "__main__"})
    base, *better_answer = capsys.readouterr().out.splitlines()
    assert base == "About the kettle Bolina: The price is 30 euros."
    assert base in better_answer and len(better_answer) > 1


def test_few_blocks_are_not_run() -> None:
    tagged = [(show(p), b.line, b.tags) for p in PAGES for b in blocks(p) if b.tags]
    assert {tag for _, _, tags in tagged for tag in tags} <= {"no-run"}
    assert len(tagged) <= MAX_NOT_RUN, tagged


def test_every_block_says_its_language() -> None:
    plain = [(show(p), b.line) for p in PAGES for b in blocks(p) if not b.language]
    assert plain == []


@pytest.mark.parametrize("page", PAGES, ids=show)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_the_extractor_sees_a_failing_block(tmp_path: Path) -> None:
    page = tmp_path / "x.md"
    page.write_text("a\n```bash\nfalse\n```\n```python no-run\n1/0\n```\n```text\n-\n```\n")
    first, second, third = blocks(page)
    assert (first.language, first.line, second.tags, third.language) == (
        "bash", 2, {"no-run"}, "text",
    )  # fmt: skip
    with pytest.raises(AssertionError, match="false"):
        bash(first.code, tmp_path)
