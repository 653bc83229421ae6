from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_uno.models.embedders import TokenEmbedder
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.testing import make_tiny_adapter


@pytest.fixture(scope="session")
def adapter_paths(
    tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("served-adapters")
    return {
        f"c{i}": make_tiny_adapter(folder / f"c{i}", tiny_model_path, seed=i + 1) for i in range(3)
    }


@pytest.fixture
def engine(tiny_model_path: Path) -> Iterator[LocalEngine]:
    made = load_engine(str(tiny_model_path))
    assert isinstance(made, LocalEngine)
    yield made
    made.close()


@pytest.fixture
def embedder(engine: LocalEngine) -> TokenEmbedder:
    return TokenEmbedder(engine)
