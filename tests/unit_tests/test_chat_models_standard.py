"""LangChain's own standard unit tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_uno import UNOChatModel


class TestStandard(ChatModelUnitTests):
    @pytest.fixture(autouse=True)
    def _model(self, tiny_model_path: Path) -> None:
        type(self).path = str(tiny_model_path)

    path = "bundled"

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return UNOChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.path}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"LANGCHAIN_UNO_HOME": "somewhere"}, {"model": self.path}, {"home": "somewhere"}
