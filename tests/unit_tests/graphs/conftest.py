"""What the tests of a refresh share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_uno.home import Home
from langchain_uno.models.protocols import Engine
from tests.unit_tests.graphs.refresh_parts import (
    PASSING,
    START,
    make_home,
    refresh,
    tiny_engine,
)


@pytest.fixture(scope="session")
def engine(tiny_model_path: Path) -> Iterator[Engine]:
    """A tiny real model to train."""
    one = tiny_engine(tiny_model_path)
    yield one
    one.close()


@pytest.fixture(scope="session")
def ready(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a release in which both families have a module."""
    root = tmp_path_factory.mktemp("ready") / "home"
    refresh(make_home(root, START), engine, PASSING)
    return root


@pytest.fixture
def home(ready: Path, tmp_path: Path) -> Home:
    """A copy of it."""
    shutil.copytree(ready, tmp_path / "home")
    return Home(tmp_path / "home")
