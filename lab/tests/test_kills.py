"""A killed refresh is finished by the next call, with the same release and no call twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.kills import run_kills


@pytest.mark.slow
def test_three_kills_lose_repeat_and_pay_nothing(tmp_path: Path) -> None:
    found = run_kills(tmp_path, 3, each=12, seed=5)
    assert sum(found.kills.values()) == 3 and found.undisturbed_calls > 0
    assert found.sound, found
