"""A home, and a handler on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_uno.callbacks import UNOFeedbackHandler


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def handler(home: Path) -> Iterator[UNOFeedbackHandler]:
    with UNOFeedbackHandler(home=home) as made:
        yield made
