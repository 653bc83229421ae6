from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tiny(tiny_model_path: Path) -> tuple[Any, Any]:
    """The tiny random model, as an engine holds it, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model_path).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(tiny_model_path)
