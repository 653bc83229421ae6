"""What every test gets: no hub, no telemetry, no noise from libraries; and a tiny real model."""

from __future__ import annotations

import os

# before any library reads them
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["ANONYMIZED_TELEMETRY"] = "False"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["LANGSMITH_TRACING"] = "false"
os.environ.pop("LANGCHAIN_UNO_HOME", None)

import gc
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """Leave all that was imported out of garbage collection: each training collects in full."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 of 0.1 M parameters on disk: the real code paths at toy size."""
    from langchain_uno.testing import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
