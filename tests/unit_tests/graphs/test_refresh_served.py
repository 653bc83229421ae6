"""A refresh whose answers a server writes: the release is that of a refresh without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import Engine
from langchain_uno.releases.manifest import lineage_key
from tests.unit_tests import test_train_cli as train_cli
from tests.unit_tests.graphs.refresh_parts import (
    PASSING,
    START,
    make_home,
    refresh,
    tiny_engine,
)
from tests.unit_tests.graphs.test_refresh_faults import content, copy_of
from tests.unit_tests.models.openai_server import like_vllm, serving


@pytest.fixture
def seen() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def url(tiny_model_path: Path, tmp_path: Path, seen: list[dict[str, Any]]) -> Iterator[str]:
    """A server of the tiny model, which finds adapters in ``tmp_path / "resolver"``."""
    (tmp_path / "resolver").mkdir()
    there = tiny_engine(tiny_model_path)
    assert isinstance(there, LocalEngine)
    with serving(like_vllm(there, tmp_path / "resolver", seen)) as address:
        yield address
    there.close()


def test_the_release_is_that_of_the_plain_run(
    engine: Engine, url: str, seen: list[dict[str, Any]], tiny_model_path: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    home = make_home(tmp_path / "plain", START)
    lineage_key(home)  # so that copies name their logs alike
    other = copy_of(home.root, tmp_path / "other")
    refresh(home, engine, PASSING)
    server = load_engine(url, adapter_dir=tmp_path / "resolver")
    served = load_engine(str(tiny_model_path), device="cpu", server=server)
    refresh(other, served, PASSING)
    served.close()
    plain = content(home)
    assert plain["adapters"]
    assert content(other) == plain
    models = {body["model"] for body in seen}
    assert any(name.startswith("verify-") for name in models), "adapters under test answer there"
    left = [path.name for path in (tmp_path / "resolver").iterdir()]
    assert all(name.startswith("uno-base-") for name in left), "and are gone afterwards"


def train(home: Home, model: Path, tmp_path: Path, *more: object) -> Any:
    (tmp_path / "tiny.toml").write_text(train_cli.TOML)
    return train_cli.run(
        "--home", home.root, "--model", model, "--recipe", tmp_path / "tiny.toml", "--quiet", *more
    )


def test_the_command(
    url: str, seen: list[dict[str, Any]], tiny_model_path: Path, tmp_path: Path
) -> None:
    home = train_cli.make_home(tmp_path / "home", train_cli.edited(8))
    there = ("--generate-url", url, "--generate-adapters", tmp_path / "resolver")
    dry = train(home, tiny_model_path, tmp_path, "--dry-run", *there)
    assert dry.exit_code == 0 and len(seen) > 0, "the server's tokens a second are measured"
    measured = len(seen)
    done = train(home, tiny_model_path, tmp_path, "--until", "distil", *there)
    assert done.exit_code == 0, done.output
    assert len(seen) > measured + 3 * 8, "control questions, and then the logs"
    assert not list(home.work.glob(".untrained"))
    asked = len(seen)
    result = train(home, tiny_model_path, tmp_path, "--until", "distil", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["distil"]["logs"] > 0
    assert len(seen) == asked, "without the option the same refresh goes on, here"


def test_a_server_that_can_not_do_it_is_told_before_the_work(
    url: str, tiny_model_path: Path, tmp_path: Path
) -> None:
    home = train_cli.make_home(tmp_path / "home", train_cli.edited(8))
    done = train(home, tiny_model_path, tmp_path, "--generate-url", "http://127.0.0.1:9/v1")
    assert done.exit_code == 10 and "does not answer" in " ".join(done.output.split())
    (tmp_path / "elsewhere").mkdir()
    wrong = ("--generate-url", url, "--generate-adapters", tmp_path / "elsewhere")
    done = train(home, tiny_model_path, tmp_path, *wrong)
    assert done.exit_code == 10 and "--enable-lora" in " ".join(done.output.split())
    assert not [path for path in home.work.iterdir() if path.is_dir()]


def test_wrong_options_are_told_before_a_model_is_loaded(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = train_cli.make_home(tmp_path / "home", train_cli.edited(8))
    there, url = str(tmp_path), "http://127.0.0.1:9/v1"
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("langchain_uno.train._load_models", None)
    for options, said in (
        (("--generate-url", "localhost:8000/v1"), "is no URL"),
        (("--generate-url", tiny_model_path), "is no URL"),
        (("--generate-url", ""), "is no URL"),
        (("--generate-adapters", there), "which the server of --generate-url watches"),
        (("--generate-url", url, "--generate-adapters", ""), "'' is to be a folder"),
        (("--generate-url", url, "--generate-adapters", f"{there}/file"), "is to be a folder"),
        (("--generate-url", url, "--generate-adapters", f"{there}/none"), "is to be a folder"),
    ):
        for more in ((), ("--dry-run",)):
            done = train(home, tiny_model_path, tmp_path, *options, *more)
            assert done.exit_code == 2 and said in " ".join(done.output.split()), done.output


def test_the_call_that_goes_on_names_the_folder_from_anywhere_and_no_secret(
    url: str, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = train_cli.make_home(tmp_path / "home", train_cli.edited(8))
    monkeypatch.chdir(tmp_path)
    with_password = url.replace("://", "://ada:secret@")
    there = ("--generate-url", with_password, "--generate-adapters", "resolver")
    done = train(home, tiny_model_path, tmp_path, "--until", "filter", *there)
    assert done.exit_code == 0, done.output
    noted = [p.read_text() for p in home.work.rglob("*.json")]
    [options] = [json.loads(p.read_text()) for p in home.work.rglob("options.json")]
    assert options[options.index("--generate-adapters") + 1] == str(tmp_path / "resolver")
    assert not any("secret" in one for one in [*noted, done.output])
