"""What the tests of a refresh share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_uno.models.protocols import Engine
from tests.unit_tests.graphs.refresh_parts import tiny_engine


@pytest.fixture(scope="session")
def engine(tiny_model_path: Path) -> Iterator[Engine]:
    """A tiny real model to train."""
    one = tiny_engine(tiny_model_path)
    yield one
    one.close()
