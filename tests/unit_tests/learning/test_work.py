"""The work folder: whole files or none, damage named, sweeping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from langchain_uno.errors import HomeError, StoreError
from langchain_uno.learning.work import WorkFolder, sweep_work
from langchain_uno.records import Rule, RuleSet


def test_round_trips(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "w")
    sets = [
        RuleSet(run_id="a", with_feedback=[Rule(text="sing\n\u2028 loud")]),
        RuleSet(run_id="b"),
    ]
    assert not work.has("a/rules.jsonl")
    work.write_records("a/rules.jsonl", sets)
    assert work.read_records("a/rules.jsonl", RuleSet) == sets
    work.write_json("x.json", {"n": 1, "text": "é"})
    assert work.read_json("x.json") == {"n": 1, "text": "é"}
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    work.write_array("v.npy", array)
    assert (work.read_array("v.npy") == array).all()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)

    def broken():  # type: ignore[no-untyped-def]
        yield RuleSet(run_id="a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.write_records("rules.jsonl", broken())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HomeError, match="can't be written"):
        WorkFolder(tmp_path / "file").write_json("a.json", 1)


def test_damage_is_named(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    (tmp_path / "rules.jsonl").write_text('{"run_id": 1')
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY")
    for read in (
        lambda: work.read_records("rules.jsonl", RuleSet),
        lambda: work.read_json("a.json"),
        lambda: work.read_array("v.npy"),
    ):
        with pytest.raises(StoreError, match="is damaged"):
            read()


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError):
        WorkFolder(tmp_path).read_array("v.npy")


def test_sweeping_removes_other_refreshes_only(tmp_path: Path) -> None:
    for name in ("refresh-0123456789abcdef", "refresh-fedcba9876543210", "cache", "refresh-x"):
        (tmp_path / name).mkdir()
    sweep_work(tmp_path, ["refresh-0123456789abcdef"])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cache",
        "refresh-0123456789abcdef",
        "refresh-x",
    ]


def test_fresh_folders_are_empty(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    (work.fresh_folder("a/b") / "x").write_text("x")
    assert list(work.fresh_folder("a/b").iterdir()) == []
    work.remove("a")
    assert not work.has("a")
    work.remove("a")
