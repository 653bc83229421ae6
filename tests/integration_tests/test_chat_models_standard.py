"""LangChain's standard integration tests: the bundled model on the local engine."""

from __future__ import annotations

import pytest

from tests.integration_tests.standard import IN_FORM, LOCAL_ONLY, BundledStandard, ToolsInForm


class TestLocalEngine(BundledStandard):
    pass


@pytest.mark.parametrize("name", [*IN_FORM, *LOCAL_ONLY])
def test_tools_in_form(name: str) -> None:
    ToolsInForm({"max_tokens": 80}).run(name)
