"""LangChain's standard integration tests: the embedded model on the local engine."""

from __future__ import annotations

import pytest

from tests.integration_tests.standard import IN_FORM, EmbeddedStandard, ToolsInForm


class TestLocalEngine(EmbeddedStandard):
    pass


@pytest.mark.parametrize("name", IN_FORM)
def test_tools_in_form(name: str) -> None:
    ToolsInForm({"max_tokens": 200}).run(name)
