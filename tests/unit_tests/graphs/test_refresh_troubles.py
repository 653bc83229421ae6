"""One bad log, one dead call, a full disk, a read-only home, a limit: what a refresh does then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import pytest

from langchain_uno.errors import EngineDownError, EngineError, HomeError, PausedError
from langchain_uno.home import Home, why_unwritable
from langchain_uno.learning.decisions import FOUND, PairsFound
from langchain_uno.learning.troubles import without_breakers
from langchain_uno.learning.work import Work
from langchain_uno.models.protocols import Engine, Generation
from langchain_uno.releases.load import list_releases
from tests.unit_tests.graphs.fault_parts import Died, faulty
from tests.unit_tests.graphs.refresh_parts import (
    RECIPE,
    TRIED,
    UNTRAINED,
    changed,
    folder_of,
    logs,
    make_home,
    refresh,
)
from tests.unit_tests.learning.toy_language import ToyEngine, log, plain

SHIPS = changed(
    RECIPE,
    verify={"level": None, "win_rate": 0.0},
    lora={"epochs": 1, "batch_size": 16},
)
"""Any module ships: half a minute less of training."""


def failing(words: str | Sequence[str], error: Exception, *roles: str) -> ToyEngine:
    """A model that breaks on every prompt of these roles with one of the words in its query."""
    some = [words] if isinstance(words, str) else words

    def answer(what: dict[str, Any], request: Any) -> str:
        if what["role"] in roles and any(word in what.get("query", "") for word in some):
            raise error
        return plain(what, request)

    return ToyEngine(answer)


# -- one log ------------------------------------------------------------------------------------


def test_a_log_that_breaks_distilling_is_left_out_named_and_tried_again(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs())
    bad = failing("place 4 ", ValueError("the user's words"), "distil")
    first = refresh(home, engine, UNTRAINED, teacher=bad)
    assert first.release is not None
    [(log_id, why)] = first.left_out.items()
    assert log_id == "run-004" and why.startswith("ValueError, test_refresh_troubles.py:")
    [note] = [n for n in first.notes if "left out" in n]
    assert "Stage 'distil' left out 1 logs" in note and "run-004" in note
    assert "the user's words" not in str(first.model_dump())
    # It breaks again: nothing is made anew.
    again = refresh(home, engine, UNTRAINED, teacher=bad)
    assert again.unchanged and again.left_out == first.left_out
    # It does not: the refresh goes on from there, and asks about this log alone.
    well = ToyEngine()
    last = refresh(home, engine, UNTRAINED, teacher=well)
    assert not last.unchanged and last.left_out == {} and last.release != first.release
    assert [what["query"] for what, _ in well.asked if what["role"] == "distil"] == [
        "plan a trip to place 4 by train and boat with hotels"
    ]
    assert refresh(home, engine, UNTRAINED, teacher=well).unchanged


def test_several_logs_that_break_distilling_are_left_out_by_every_call(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs())
    bad = failing(["place 4 ", "place 6 "], ValueError("the user's words"), "distil")
    first = refresh(home, engine, UNTRAINED, teacher=bad)
    assert sorted(first.left_out) == ["run-004", "run-006"]
    again = refresh(home, engine, UNTRAINED, teacher=bad)
    assert again.unchanged and again.left_out == first.left_out
    # All that is left to distil breaks.
    query = "plan a trip to place 6 by train and boat with hotels!"
    make_home(tmp_path / "home", [log("new", query, "x", "please sing", user_id="user-9")])
    more = refresh(home, engine, UNTRAINED, teacher=bad)
    assert sorted(more.left_out) == ["new", "run-004", "run-006"]
    assert more.release not in (None, first.release)


@pytest.mark.parametrize(("stage", "roles"), [("distil", ["distil"]), ("pairs", ["fresh", "edit"])])
def test_a_stage_that_fails_on_every_log_ends_the_call_without_the_users_words(
    engine: Engine, tmp_path: Path, stage: str, roles: list[str]
) -> None:
    home = make_home(tmp_path / "home", logs())
    bad = failing("", ValueError("the user's words"), *roles)
    for _ in range(2):
        with pytest.raises(EngineError, match=rf"Stage '{stage}' failed on all \d+ logs") as told:
            refresh(home, engine, TRIED, teacher=bad, until="pairs")
        assert "ValueError" in str(told.value) and "words" not in str(told.value)
    result = refresh(home, engine, TRIED, until="pairs")
    assert result.left_out == {} and result.stages["pairs"]["pairs"] > 0


def test_a_cluster_of_logs_that_break_their_pairs_costs_its_own_pairs_alone(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs())
    bad = failing("plan a trip", RuntimeError("x"), "fresh", "edit")
    result = refresh(home, engine, TRIED, teacher=bad, until="pairs")
    assert len(result.left_out) > 1
    assert sorted(n > 0 for n in result.stages["pairs"]["by_cluster"].values()) == [False, True]


@pytest.mark.parametrize("name", ["distil.json", "cluster.json", "clusters", "result.json"])
def test_a_refresh_that_is_killed_while_it_begins_again_goes_on(
    engine: Engine, tmp_path: Path, name: str
) -> None:
    home = make_home(tmp_path / "home", logs())
    bad = failing("place 4 ", ValueError("x"), "distil")
    first = refresh(home, engine, UNTRAINED, teacher=bad)

    def dies(_: int, change: str) -> Literal["half", "before"] | None:
        half: Literal["half", "before"] = "half" if name == "clusters" else "before"
        return half if change == f"remove work/*/{name}" else None

    with faulty(home.root, dies), pytest.raises(Died):
        refresh(home, engine, UNTRAINED)
    # What the call that was killed distilled is there, whatever the model does since.
    last = refresh(home, engine, UNTRAINED, teacher=bad)
    assert last.left_out == {} and last.release not in (None, first.release)
    assert last.stages["distil"]["rules"] == first.stages["distil"]["rules"] + 1
    assert {*last.resumed} == {"filter"}
    assert refresh(home, engine, UNTRAINED, teacher=bad).unchanged


def test_an_answer_that_did_not_come_is_asked_for_by_the_next_call(
    engine: Engine, tmp_path: Path
) -> None:
    class Dead(ToyEngine):
        def generate(self, requests: Sequence[Any], on_done: Any = None) -> list[Generation]:
            return [
                Generation(text="", finish_reason="failed")
                if "place 4 " in request.messages[-1].content and '"distil"' in str(request)
                else made
                for request, made in zip(requests, super().generate(requests, on_done), strict=True)
            ]

    home = make_home(tmp_path / "home", logs())
    first = refresh(home, engine, UNTRAINED, teacher=Dead())
    assert first.left_out == {"run-004": "no answer"}
    last = refresh(home, engine, UNTRAINED)
    assert not last.unchanged and last.left_out == {}
    assert first.stages["distil"]["rules"] + 1 == last.stages["distil"]["rules"]


def test_a_teachers_nonsense_is_told_and_asked_for_again(engine: Engine, tmp_path: Path) -> None:
    def nonsense(what: dict[str, Any], request: Any) -> str:
        if what["role"] == "distil" and "place 4 " in what["query"]:
            return "Sorry, I am overloaded."
        return plain(what, request)

    home = make_home(tmp_path / "home", logs())
    first = refresh(home, engine, UNTRAINED, teacher=ToyEngine(nonsense))
    assert first.left_out == {"run-004": "unreadable answer"}
    assert refresh(home, engine, UNTRAINED, teacher=ToyEngine(nonsense)).unchanged
    last = refresh(home, engine, UNTRAINED, teacher=ToyEngine())
    assert not last.unchanged and last.left_out == {}
    assert first.stages["distil"]["rules"] + 1 == last.stages["distil"]["rules"]


def test_a_log_that_breaks_its_pairs_costs_its_own_pair_alone(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs())
    whole = refresh(make_home(tmp_path / "other", logs()), engine, until="pairs")
    bad = failing("place 4 ", RuntimeError("x"), "fresh", "edit")
    result = refresh(home, engine, teacher=bad, until="pairs")
    assert set(result.left_out) <= {"run-004"}
    trained = "run-004" in {
        i
        for c in folder_of(home, result).path("clusters").glob(f"*/{FOUND}")
        for i in PairsFound.model_validate_json(c.read_text()).left_out
    }
    assert result.stages["pairs"]["pairs"] == whole.stages["pairs"]["pairs"] - trained


def test_a_cluster_that_cannot_be_trained_costs_itself_alone(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langchain_uno.learning import train

    tried: list[str] = []
    real = train._trained

    def trained(work: Work, cluster: Any, *args: Any) -> Any:
        tried.append(cluster.id)
        if cluster.id == tried[0]:
            raise RuntimeError("out of memory, and the user's words")
        return real(work, cluster, *args)

    monkeypatch.setattr(train, "_trained", trained)
    home = make_home(tmp_path / "home", logs())
    result = refresh(home, engine, SHIPS)
    assert result.release is not None and len({*tried}) == 2
    broken, fine = sorted(result.clusters, key=lambda c: c.id != tried[0])
    assert broken.route == "base" and "failed (RuntimeError, test_refresh" in broken.note
    assert "words" not in broken.note
    assert fine.route in ("expert", "critic")
    assert broken.failed and not fine.failed
    # It fails again: nothing is made anew.
    tried[1:] = []
    again = refresh(home, engine, SHIPS)
    assert again.unchanged and again.release == result.release and tried == [broken.id] * 2
    # It does not: it alone is trained, and the release has both.
    monkeypatch.setattr(train, "_trained", lambda w, c, *a: tried.append(c.id) or real(w, c, *a))
    last = refresh(home, engine, SHIPS)
    assert not last.unchanged and last.release != result.release
    assert set(tried[2:]) == {broken.id} and not any(c.failed for c in last.clusters)
    assert {c.id: c.route for c in last.clusters}[fine.id] == fine.route
    assert "base" not in {c.route for c in last.clusters}
    assert refresh(home, engine, SHIPS).unchanged


def test_what_fails_for_everybody_ends_the_call() -> None:
    def always(items: Sequence[int]) -> list[int]:
        raise ValueError("the model is broken")

    made, broken = without_breakers([1, 2, 3], lambda some: always(some) if some else [])
    assert made == [] and [item for item, _ in broken] == [1, 2, 3]
    for error in (EngineDownError("down"), HomeError("full"), OSError(28, "No space left")):
        full = Mock(side_effect=error)
        with pytest.raises(type(error)):
            without_breakers([1, 2, 3], full)
        full.assert_called_once_with([1, 2, 3])


def test_several_breakers_are_found_with_few_calls() -> None:
    calls = []

    def make(items: Sequence[int]) -> int:
        calls.append(len(items))
        if {3, 40} & set(items):
            raise KeyError
        return sum(items)

    made, broken = without_breakers(range(64), make)
    assert made == sum(range(64)) - 43
    assert [item for item, _ in broken] == [3, 40]
    assert all(why.startswith("KeyError") for _, why in broken)
    assert len(calls) < 30


# -- the disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left"),
        (OSError(2, "No such file"), None),
        (HomeError("If the disk is full, mend that"), None),
    ],
)
def test_errors_of_the_disk_are_known(error: Exception, why: str | None) -> None:
    found = why_unwritable(error)
    assert found is None if why is None else why in str(found)


def full_after(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files after the n-th that is written find no room."""
    real = os.fsync
    seen = 0

    def fsync(descriptor: int) -> None:
        nonlocal seen
        seen += 1
        if seen > n:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_ends_a_refresh_that_the_next_call_finishes(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path / "home", logs())
    told: list[str] = []
    for n in range(0, 400, 7):
        with monkeypatch.context() as patch:
            full_after(n, patch)
            try:
                refresh(home, engine, UNTRAINED)
                break
            except HomeError as error:
                told.append(str(error))
    assert len(told) >= 2 and all("free some space" in words for words in told)
    assert refresh(home, engine, UNTRAINED).unchanged
    assert len(list_releases(home)) == 1


def test_a_disk_that_fills_up_in_training_is_told_as_such(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from langchain_uno.trainers import common

    def save(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    home = make_home(tmp_path / "home", logs())
    with monkeypatch.context() as patch:
        patch.setattr(common, "save_adapter", save)
        with pytest.raises(HomeError, match="can't be written .no space left on the disk."):
            refresh(home, engine, SHIPS)
    assert refresh(home, engine, SHIPS).release is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_a_real_disk_that_is_full(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        home = make_home(place / "home", logs())
        refresh(home, engine, SHIPS, until="pairs")
        filler = place / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        with pytest.raises(HomeError, match="free some space"):
            refresh(home, engine, SHIPS)
        filler.unlink()
        result = refresh(home, engine, SHIPS)
        assert result.release is not None and {"distil", "pairs"} <= {*result.resumed}
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_read_only_home_is_told_before_a_model_is_loaded(tmp_path: Path, repo: Path) -> None:
    home = make_home(tmp_path / "home", logs(4))
    command = [sys.executable, "-m", "langchain_uno.train", "--home", str(home.root)]
    command += ["--model", str(tmp_path / "no-such-model")]
    if os.geteuid() == 0:  # root writes everywhere: a real read-only mount
        bound = subprocess.run(["mount", "--bind", str(home.root), str(home.root)])
        if bound.returncode:
            pytest.skip("this machine mounts nothing")
        subprocess.run(["mount", "-o", "remount,ro,bind", str(home.root)], check=True)
    else:
        home.root.chmod(0o500)
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=repo)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", "-l", str(home.root)], check=True)
        else:
            home.root.chmod(0o700)
    assert done.returncode == 3, done.stderr
    assert "can't be written" in done.stderr and "Traceback" not in done.stderr


# -- limits -------------------------------------------------------------------------------------


def test_a_refresh_without_time_stops_and_the_next_call_goes_on(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs())
    with pytest.raises(PausedError, match="call it again and it goes on") as stopped:
        refresh(home, engine, UNTRAINED, max_minutes=0)
    assert stopped.value.exit_code == 11
    assert refresh(home, engine, UNTRAINED).release is not None


def test_a_limit_is_met_between_two_clusters(engine: Engine, tmp_path: Path) -> None:
    class Clock:
        """Time is over as soon as one cluster is decided."""

        def start(self, stage: str, total: int | None, note: str = "") -> None: ...

        def advance(self, stage: str, n: int = 1) -> None:
            if any(home.work.glob("refresh-*/clusters/*/tried.json")):
                over.append(1)

        def finish(self, stage: str, note: str = "") -> None: ...

    home, over = make_home(tmp_path / "home", logs()), []
    real = Work.check_limits

    def check(work: Work) -> None:
        if over:
            work.stop_at = 0.0
        real(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Work, "check_limits", check)
        with pytest.raises(PausedError):
            refresh(home, engine, SHIPS, progress=Clock())
    assert len(list(home.work.glob("refresh-*/clusters/*/tried.json"))) == 1
    result = refresh(home, engine, SHIPS)
    assert result.release is not None
    assert {"filter", "distil", "cluster", "rules", "gap", "pairs"} <= {*result.resumed}


def test_a_training_stops_where_its_state_was_kept_and_ends_with_the_same_weights(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langchain_uno.models import training_state

    def weights(home: Home) -> list[bytes]:
        found = home.releases.glob("*/adapters/*/adapter_model.safetensors")
        return sorted(path.read_bytes() for path in found)

    start = make_home(tmp_path / "start", logs())
    recipe = changed(SHIPS, lora={"epochs": 2, "batch_size": 4})
    shutil.copytree(start.root, tmp_path / "whole")
    whole = Home(tmp_path / "whole")
    refresh(whole, engine, recipe, max_steps=6)
    monkeypatch.setattr(training_state, "EVERY_S", 0.0)
    checks: list[int] = []
    real = Work.check_limits

    def check(work: Work) -> None:
        if any(work.home.work.glob("refresh-*/clusters/*/*/state-*")):
            checks.append(1)
            if len(checks) == 1:
                work.stop_at = 0.0
        real(work)

    monkeypatch.setattr(Work, "check_limits", check)
    with pytest.raises(PausedError):
        refresh(start, engine, recipe, max_steps=6)
    assert list(start.work.glob("refresh-*/clusters/*/*/state-*"))
    refresh(start, engine, recipe, max_steps=6)
    assert weights(start) == weights(whole) != []


def test_a_disk_that_must_keep_room(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", logs())
    with pytest.raises(PausedError, match="GB are free"):
        refresh(home, engine, UNTRAINED, min_free_gb=1e9)
    assert refresh(home, engine, UNTRAINED, min_free_gb=0.0).release is not None
