"""LangChain's standard integration suite, model by model: python -m lab.benchmarks.bench_standard

The bundled model behind ``UNOChatModel`` and behind ``ChatHuggingFace``. What a flag declines is
counted apart; ``tests/integration_tests/standard.py`` says why ours does.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from typing import Any

import pytest

RUNS = {
    "UNOChatModel": "tests/integration_tests/test_chat_models_standard.py::TestLocalEngine",
    "ChatHuggingFace": "lab/benchmarks/chat_huggingface_standard.py",
}


class Outcomes:
    """Counts what became of each test."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count a test once, by its call or what kept it from one."""
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1


def main() -> None:
    print("| chat model | tests | passed | failed | declined by a flag |\n|---|---|---|---|---|")
    for name, where in RUNS.items():
        seen = Outcomes()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pytest.main(["-q", "-p", "no:cacheprovider", where], plugins=[seen])
        c = seen.counts
        print(f"| {name} | {c.total()} | {c['passed']} | {c['failed']} | {c['skipped']} |")


if __name__ == "__main__":
    main()
