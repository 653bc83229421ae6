"""LangChain's standard integration tests: the bundled model served by vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration_tests.standard import IN_FORM, BundledStandard, ToolsInForm
from tests.vllm_tests.conftest import Server


class TestVLLM(BundledStandard):
    url = ""

    @pytest.fixture(autouse=True)
    def _served(self, server: Server) -> None:
        type(self).url = server.url

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": self.url, "max_tokens": 200}


@pytest.mark.parametrize("name", IN_FORM)
def test_tools_in_form(name: str, server: Server) -> None:
    ToolsInForm({"model": server.url, "max_tokens": 200}).run(name)
