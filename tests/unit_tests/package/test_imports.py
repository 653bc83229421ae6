"""The public names, the cheap import, and the two folders not to be imported by themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import langchain_uno

HEAVY = ["torch", "transformers", "chromadb", "peft", "trl", "sklearn", "matplotlib", "langchain"]


def run_python(code: str, repo: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, timeout=120
    )


def loaded_after(code: str, repo: Path) -> set[str]:
    done = run_python(f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))", repo)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_public_names_are_pinned() -> None:
    names = ["UNOChatModel", "UNOFeedbackHandler", "UNOMiddleware", "__version__"]
    assert langchain_uno.__all__ == names
    assert set(langchain_uno.__all__) <= set(dir(langchain_uno))


def test_public_names_are_the_documented_classes() -> None:
    from langchain.agents.middleware import AgentMiddleware
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.language_models import BaseChatModel

    assert issubclass(langchain_uno.UNOChatModel, BaseChatModel)
    assert issubclass(langchain_uno.UNOFeedbackHandler, BaseCallbackHandler)
    assert issubclass(langchain_uno.UNOMiddleware, AgentMiddleware)


def test_version_is_the_changelogs_newest(repo: Path) -> None:
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (repo / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == langchain_uno.__version__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'UnoChatModel'"):
        _ = langchain_uno.UnoChatModel


def test_import_is_light(repo: Path) -> None:
    assert loaded_after("import langchain_uno", repo).isdisjoint([*HEAVY, "numpy", "pydantic"])


def test_handler_loads_neither_torch_nor_chroma(repo: Path) -> None:
    code = "from langchain_uno import UNOFeedbackHandler"
    assert loaded_after(code, repo).isdisjoint(["torch", "transformers", "chromadb", "peft", "trl"])


def test_chat_model_class_loads_no_torch(repo: Path) -> None:
    code = "from langchain_uno import UNOChatModel"
    assert loaded_after(code, repo).isdisjoint(["torch", "chromadb", "peft", "trl"])


@pytest.mark.parametrize("folder", ["graphs", "trainers"])
def test_folder_alone_says_what_to_import_instead(folder: str, repo: Path) -> None:
    done = run_python(f"import {folder}", repo)
    assert done.returncode != 0
    assert f"import langchain_uno.{folder} instead" in done.stderr.splitlines()[-1]
    assert run_python(f"import langchain_uno.{folder}", repo).returncode == 0


def test_a_users_own_graphs_folder_is_not_shadowed(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "__init__.py").write_text("MINE = True\n")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(repo)!r}]\n"
        "import langchain_uno.graphs, graphs; assert graphs.MINE"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
