from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langchain_uno.testing import make_tiny_model


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def tiny(tiny_path: Path) -> tuple[Any, Any]:
    """The tiny random model, as an engine holds it, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_path).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(tiny_path)
