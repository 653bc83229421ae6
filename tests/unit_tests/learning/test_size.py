"""All modules of a release are bounded in size; what users have goes last."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.learning.evolve import Incumbent
from langchain_uno.learning.size import bound_size
from langchain_uno.learning.train import Decision
from langchain_uno.learning.work import ClusterData
from langchain_uno.models import adapters
from langchain_uno.records import VerifierReport

REPORT = VerifierReport(
    kind="expert", n=9, people=9, win_rate=0.9, interval=(0.6, 1.0), p_value=0.01, passed=True
)


@pytest.mark.parametrize(("old", "route"), [(50, "expert"), (200, "base")])
def test_the_present_module_stays_where_the_new_one_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: int, route: str
) -> None:
    home = Home(tmp_path).ensure()
    (home.path / "settings.toml").write_text("[releases]\nmax_percent = 10\n")
    sizes = {"new": 500, "old": old}
    monkeypatch.setattr(adapters, "count_base", lambda _: 1000)
    monkeypatch.setattr(adapters, "count_weights", lambda path: sizes[path.name])
    present = Incumbent(
        kind="expert", made_in="r1", trained_on=["a"], report=REPORT, adapter="old", stale="x"
    )
    decision = Decision(route="expert", adapter="new", report=REPORT, instead=present)
    cluster = ClusterData(id="c0", run_ids=["a"], train=["a"], verify=[], split_by="voice")
    work: Any = SimpleNamespace(
        home=home, engine=SimpleNamespace(model=None), folder=SimpleNamespace(path=Path)
    )
    bound_size(work, [cluster], [decision])
    assert decision.route == route
    assert decision.adapter == ("old" if route == "expert" else None)
    assert (decision.kept is present) == (route == "expert")
