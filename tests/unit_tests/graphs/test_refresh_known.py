"""What a refresh takes over from the last one is what it would find by reading all anew."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from langchain_uno.erasure import forget
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.models.protocols import Engine
from langchain_uno.records import Feedback
from tests.unit_tests.graphs.refresh_parts import (
    UNTRAINED,
    changed,
    folder_of,
    logs,
    make_home,
    refresh,
)
from tests.unit_tests.learning.toy_language import log


@pytest.mark.parametrize("voices", ["people", "logs"])
def test_what_the_last_refresh_left_gives_what_reading_all_anew_gives(
    engine: Engine, tmp_path: Path, voices: str
) -> None:
    recipe = changed(UNTRAINED, rules={"voices": voices})
    home = make_home(tmp_path / "kept", logs(12))

    def filtered(one: Home) -> dict[str, bytes]:
        folder = folder_of(one, refresh(one, engine, recipe, until="distil")).root
        left = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "by-model.json"}
        return {"id": folder.name.encode()} | {
            name: data for name, data in left.items() if name not in ("filter.json", "distil.json")
        }

    def as_anew() -> None:
        anew = Home.locate(tmp_path / "anew")
        shutil.rmtree(anew.path, ignore_errors=True)
        shutil.copytree(home.path, anew.path)
        for part in (anew.work, anew.chroma):
            shutil.rmtree(part)
        known = filtered(home)
        assert {"queries.npy", "unheard.npy", "snapshot.json", "usable.json"} <= set(known)
        assert known == filtered(anew)

    refresh(home, engine, recipe)
    late = datetime.now(timezone.utc) + timedelta(days=1)
    with Journal(home.journal) as journal:
        for fields in (
            {"run_id": "run-001", "comment": "please dance", "user_id": "foreign"},
            {"run_id": "run-002", "comment": "{}", "source": "model"},
            {"run_id": "run-003", "comment": "please sing", "user_id": "user-3"},
            {"run_id": "alone", "score": 0.5, "source": "auto_eval"},
        ):
            journal.append_feedback(Feedback.model_validate({**fields, "created_at": late}))
    again = logs(1)[0].model_copy(update={"run_id": "again"})
    asked = log("new", "plan a trip to Rome by train", "a", "please sing")
    alone = log("alone", "plan a trip to Bonn by train", "a", "").model_copy(
        update={"feedback": []}
    )
    make_home(tmp_path / "kept", [again, asked, alone])
    as_anew()
    # A refresh under way goes on with what it knew, and a person who is forgotten leaves nothing.
    with Journal(home.journal) as journal:
        journal.append_feedback(Feedback(run_id="run-004", comment="please dance", user_id="cem"))
    refresh(home, engine, recipe)
    forget(home, user_id="user-3")
    as_anew()
