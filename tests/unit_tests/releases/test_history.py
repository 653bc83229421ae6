"""The history says which release waits for a person, and what was taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_uno.home import Home
from langchain_uno.releases.history import NEW_LOGS, note, rolled_back, waiting

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


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([("retire", None)], None),  # the base model answered already
        ([("publish", "a"), ("rollback", "a")], None),
        ([("publish", "a"), ("retire", None)], ("a", NEW_LOGS)),
        ([("publish", "a"), ("retire", None), ("retire", None)], ("a", NEW_LOGS)),
        ([("publish", "a"), ("publish", "b"), *[("rollback", "a")] * 3], ("b", NEW_LOGS)),
        (
            [("publish", "a"), ("publish", "b"), ("rollback", "a"), ("retire", None)],
            ("a", NEW_LOGS),
        ),
        ([("publish", "a"), ("retire", None), ("forget user", None)], ("a", "the next refresh")),
        (
            [("publish", "a"), ("retire", None), ("forget user", None), ("retire", None)],
            ("a", "the next refresh"),
        ),
        ([("publish", "a"), ("publish", "b"), ("rollback", "a"), ("promote", "a")], None),
    ],
)
def test_what_was_taken_back(
    tmp_path: Path, lines: list[tuple[str, str | None]], found: tuple[str, str] | None
) -> None:
    home = Home(tmp_path).ensure()
    for n, (what, release) in enumerate(lines):
        note(home, what, release, f"reason {n}")
    told = rolled_back(home)
    assert (told and (told["from"], told["until"])) == found


def test_who_goes_back_a_second_time_is_not_told_in_place_of_the_first(tmp_path: Path) -> None:
    home = Home(tmp_path).ensure()
    for what, by in (("publish", "cron"), ("retire", "ann"), ("retire", "bob")):
        note(home, what, "a" if what == "publish" else None, by=by)
    assert (rolled_back(home) or {})["by"] == "ann"
