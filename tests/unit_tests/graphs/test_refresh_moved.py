"""A base model that lies elsewhere by now is the same model, and what it learnt stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from langchain_uno.home import Home
from tests.unit_tests.graphs.refresh_parts import PASSING, make_home, more, refresh, tiny_engine
from tests.unit_tests.graphs.test_refresh_evolve import current, weights


def test_modules_stay_where_the_base_model_was_moved(
    home: Home, tiny_model_path: Path, tmp_path: Path
) -> None:
    first = current(home)
    moved = shutil.copytree(tiny_model_path, tmp_path / "of-another-name")
    make_home(home.root, more(2))
    engine = tiny_engine(moved)
    try:
        refresh(home, engine, PASSING)
    finally:
        engine.close()

    second = current(home)  # reading it checks that its adapters name the model of the manifest
    assert second.id != first.id
    assert weights(second) == weights(first)
    assert {c.made_in for c in second.manifest.clusters} == {first.id}
    assert Path(second.manifest.base_model).name == moved.name
    for folder in second.adapters.values():
        named = json.loads((folder / "adapter_config.json").read_bytes())
        assert Path(named["base_model_name_or_path"]).name == moved.name
