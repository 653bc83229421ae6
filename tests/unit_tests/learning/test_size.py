"""The bound on all modules' size: who is left out, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from langchain_uno.home import Home
from langchain_uno.learning.size import bound_size
from langchain_uno.learning.train import Decision
from tests.unit_tests.releases.samples import write_adapter


@pytest.mark.parametrize(
    ("most", "whys"),
    [
        (2.3, ["this one has 2.4 %", "this one has 2.4 %"]),
        (2.4, [None, "others prove more"]),
        (4.8, [None, None]),
    ],
)
def test_what_does_not_fit_is_told_apart_from_what_proves_less(
    tmp_path: Path, most: float, whys: list[str | None]
) -> None:
    home = Home.locate(tmp_path).ensure()
    home.settings.write_text(f"[releases]\nmax_percent = {most}\n")
    for name in "ab":  # 24 weights each, of a base model's 1000
        write_adapter(tmp_path / name)
    work: Any = SimpleNamespace(
        home=home,
        engine=SimpleNamespace(model=torch.nn.Linear(100, 10, bias=False)),
        folder=SimpleNamespace(path=lambda name: tmp_path / name),
    )
    clusters: Any = [SimpleNamespace(run_ids=["run-1"])] * 2
    decided = [Decision(route="expert", adapter=name) for name in "ab"]
    bound_size(work, clusters, decided)
    assert [one.route for one in decided] == ["base" if why else "expert" for why in whys]
    for one, why in zip(decided, whys, strict=True):
        assert [note.endswith(f" and {why}") for note in one.notes] == [True] * bool(why)
