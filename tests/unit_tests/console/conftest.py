from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_uno.home import Home
from langchain_uno.releases.publish import publish
from langchain_uno.web.console import console_app
from tests.unit_tests.console.parts import OPERATORS
from tests.unit_tests.releases.samples import draft, write_adapter


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.locate(tmp_path / "home").ensure()


@pytest.fixture
def make(home: Home, tmp_path: Path) -> Callable[..., str]:
    """Publish one good release after another."""
    count = iter(range(100))

    def one(**settings: Any) -> str:
        n = next(count)
        adapters = {c: write_adapter(tmp_path / f"a{n}-{c}") for c in ("c0", "c1")}
        return publish(home, draft(), adapters, np.eye(3, 5, dtype=np.float32), **settings)

    return one


@pytest.fixture
def app(home: Home) -> Any:
    return console_app(home.root, tokens=OPERATORS, with_model=False)
