"""The history says which release waits for a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_uno.home import Home
from langchain_uno.releases.history import note, waiting

WAITS = "publish, not promoted"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], None),
        ([(WAITS, "b")], "b"),
        ([(WAITS, "b"), ("promote", "b")], None),
        ([(WAITS, "b"), ("rollback", "b")], None),
        ([(WAITS, "b"), ("rollback", "a")], "b"),
        ([(WAITS, "b"), (WAITS, "c")], "c"),
        ([(WAITS, "b"), (WAITS, "c"), ("revoke", "c")], "b"),
        ([(WAITS, "b"), (WAITS, "c"), ("promote", "c")], None),
        ([(WAITS, "b"), (WAITS, "c"), ("promote", "b")], "c"),  # a canary took the older one
        ([(WAITS, "b"), ("publish", "c"), ("promote", "c")], None),
        ([(WAITS, "b"), ("end canary", "b")], None),
    ],
)
def test_what_waits(tmp_path: Path, lines: list[tuple[str, str]], found: str | None) -> None:
    home = Home(tmp_path).ensure()
    for what, release in lines:
        note(home, what, release)
    assert waiting(home) == found
