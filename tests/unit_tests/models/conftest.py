"""A tiny engine with three random adapters, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.testing import make_tiny_adapter


@pytest.fixture(scope="session")
def adapter_paths(
    tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        f"a{i}": make_tiny_adapter(folder / f"a{i}", tiny_model_path, seed=i + 1, rank=2 + 2 * i)
        for i in range(3)
    }


@pytest.fixture(scope="module")
def engine(tiny_model_path: Path, adapter_paths: dict[str, Path]) -> Iterator[LocalEngine]:
    made = load_engine(str(tiny_model_path), device="cpu")
    assert isinstance(made, LocalEngine)
    for name, path in adapter_paths.items():
        made.load_adapter(name, path)
    yield made
    made.close()
