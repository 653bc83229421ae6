"""What a refresh takes over from the last one is what it would find by reading all anew."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.erasure import forget, forget_older
from langchain_uno.errors import ModelMismatchError
from langchain_uno.home import Home
from langchain_uno.learning.review import decide, review_table
from langchain_uno.learning.work import Silent
from langchain_uno.logs import store
from langchain_uno.logs.heard import Logs
from langchain_uno.logs.journal import Journal
from langchain_uno.models.protocols import Engine, Generation
from langchain_uno.records import STAGES, Feedback, Interaction
from langchain_uno.releases import publish as publish_room
from langchain_uno.releases.history import NEW_LOGS, rolled_back, waiting
from langchain_uno.releases.publish import make_current, rollback
from tests.unit_tests.graphs.refresh_parts import (
    UNTRAINED,
    changed,
    folder_of,
    logs,
    make_home,
    more,
    refresh,
)
from tests.unit_tests.learning.toy_language import ToyEmbedder, ToyEngine, log


@pytest.mark.parametrize("voices", ["people", "logs"])
def test_what_the_last_refresh_left_gives_what_reading_all_anew_gives(
    engine: Engine, tmp_path: Path, voices: str
) -> None:
    recipe = changed(UNTRAINED, rules={"voices": voices})
    home = make_home(tmp_path / "kept", logs(12))

    def filtered(one: Home) -> dict[str, bytes]:
        folder = folder_of(one, refresh(one, engine, recipe, until="cluster")).root
        left = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "by-model.json"}
        timed = {f"{stage}.json" for stage in STAGES}
        return {"id": folder.name.encode()} | {i: one for i, one in left.items() if i not in timed}

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


class Spied(ToyEngine):
    """Notes what was read and opened before it is asked."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.read: list[str] = []
        self.opened = 0
        self.before: list[tuple[set[str], int]] = []
        read, opened = Logs.__getitem__, store._open_index

        def reading(logs: Logs, log_id: str) -> Any:
            self.read.append(log_id)
            return read(logs, log_id)

        def opening(*args: Any) -> Any:
            self.opened += 1
            return opened(*args)

        patch.setattr(Logs, "__getitem__", reading)
        patch.setattr(store, "_open_index", opening)

    def generate(self, requests: Any, on_done: Any = None) -> list[Generation]:
        self.before.append((set(self.read), self.opened))
        return super().generate(requests, on_done)


def test_before_a_new_log_is_distilled_no_other_is_read_and_no_index_opened(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path, logs(12))
    thumbs = [{"run_id": f"run-00{n}", "score": n % 2, "user_id": f"rater-{n}"} for n in range(8)]
    with Journal(home.journal) as journal:
        for one in thumbs:
            journal.append_feedback(Feedback.model_validate(one))
    refresh(home, engine, UNTRAINED)
    make_home(tmp_path, [log("new", "plan a trip to Rome by train", "a", "please sing")])
    spy = Spied(monkeypatch)
    refresh(home, engine, UNTRAINED, teacher=spy)
    assert spy.before[0] == ({"new"}, 0)
    assert spy.opened == 1, "then the new log is embedded and indexed"
    spy.read.clear()
    assert refresh(home, engine, UNTRAINED, teacher=spy).unchanged
    assert (spy.read, spy.opened) == ([], 1)


def test_another_embedder_is_refused_before_anything_is_distilled(
    engine: Engine, tmp_path: Path
) -> None:
    class Other(ToyEmbedder):
        fingerprint = "other"

    home = make_home(tmp_path, logs(12))
    refresh(home, engine, UNTRAINED)
    make_home(tmp_path, [log("new", "plan a trip to Rome by train", "a", "please sing")])
    teacher = ToyEngine()
    with pytest.raises(ModelMismatchError, match="made by embedder 'toy-embedder'"):
        refresh(home, engine, UNTRAINED, teacher=teacher, embedder=Other())
    assert teacher.asked == []


@pytest.mark.parametrize("by_hand", [True, False])
def test_after_an_erasure_the_next_refresh_ends_a_rollback_and_status_says_so(
    engine: Engine, tmp_path: Path, by_hand: bool
) -> None:
    home = make_home(tmp_path, logs(12))
    refresh(home, engine, UNTRAINED)
    make_home(tmp_path, more(1))
    second = refresh(home, engine, UNTRAINED).release
    if by_hand:
        rollback(home)
        assert refresh(home, engine, UNTRAINED).unchanged
        found = rolled_back(home)
        assert found is not None and found["until"] == "new logs, decisions or settings come"
    forget(home, user_id="new-100")
    found = rolled_back(home)
    assert found is not None
    assert (found["from"], found["until"]) == (second, "the next refresh")
    result = refresh(home, engine, UNTRAINED)  # nobody said anything new
    assert result.current == result.release != second
    assert rolled_back(home) is None


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def _old(one: Interaction) -> Interaction:
    at = datetime.now(timezone.utc) - timedelta(days=40)
    said = [f.model_copy(update={"created_at": at}) for f in one.feedback]
    return one.model_copy(update={"created_at": at, "feedback": said})


@pytest.mark.parametrize("to", [None, "base"])
@pytest.mark.parametrize(
    "then", ["nothing", "a new log", "a remark", "settings", "a decision", "a promotion"]
)
def test_a_rollback_stands_though_retention_takes_logs(
    engine: Engine, tmp_path: Path, then: str, to: str | None
) -> None:
    home = make_home(tmp_path, [*logs(12), *map(_old, more(2))])
    first = refresh(home, engine, UNTRAINED).release
    make_home(tmp_path, more(1, first=200))
    second = refresh(home, engine, UNTRAINED).release
    rollback(home, to)
    if then == "a decision":
        decide(home, [{"id": review_table(home).rows[0].id, "decision": "exclude"}], by="ann")
    assert forget_older(home, days=30)["interactions"] == 2
    recipe = UNTRAINED
    if then == "a new log":
        make_home(tmp_path, more(1, first=300))
    elif then == "a remark":
        with Journal(home.journal) as journal:
            journal.append_feedback(Feedback(run_id="run-200", comment="please dance", user_id="x"))
    elif then == "settings":
        recipe = changed(UNTRAINED, gap={"unknown": 0.5})
    elif then == "a promotion":
        make_current(home, str(second))
    result = refresh(home, engine, recipe)
    assert result.release not in (first, second, None)
    if then != "nothing":
        assert (result.current, rolled_back(home)) == (result.release, None)
        return
    stands = first if to is None else None
    assert (result.current, waiting(home)) == (stands, result.release)
    assert any("A rollback stands" in note for note in result.notes)
    assert (rolled_back(home) or {})["until"] == NEW_LOGS
    assert refresh(home, engine, UNTRAINED).current == stands
    make_home(tmp_path, more(1, first=300))
    last = refresh(home, engine, UNTRAINED)
    assert last.current == last.release


def test_what_is_said_while_a_release_is_trained_ends_its_rollback(
    engine: Engine, tmp_path: Path
) -> None:
    class Speaking(Silent):
        def start(self, stage: str, *_: Any) -> None:
            if stage == "release":
                with Journal(home.journal) as journal:
                    journal.append_feedback(Feedback(run_id="run-003", comment="sing", user_id="x"))

    home = make_home(tmp_path, logs(12))
    refresh(home, engine, UNTRAINED, progress=Speaking())
    rollback(home)
    result = refresh(home, engine, UNTRAINED)
    assert result.current == result.release


def test_a_refresh_killed_before_it_promoted_is_not_taken_for_rolled_back(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path, logs(12))
    refresh(home, engine, UNTRAINED)
    rollback(home, "base")
    make_home(tmp_path, more(1))
    with monkeypatch.context() as patch:
        patch.setattr(publish_room, "direct", stop)
        with pytest.raises(KeyboardInterrupt):
            refresh(home, engine, UNTRAINED)
    result = refresh(home, engine, UNTRAINED)
    assert result.current == result.release
