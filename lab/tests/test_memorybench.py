"""MemoryBench's rows by task, and the shape of predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.memorybench import TASKS, check_shape, split_rows
from langchain_uno.errors import InputError


def rows(path: Path, *datasets: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    made = [{"test_idx": n, "dataset_name": name} for n, name in enumerate(datasets)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return path


def test_a_task_takes_its_data_sets_of_both_splits(tmp_path: Path) -> None:
    names = TASKS["Long-Short"]
    files = [
        rows(tmp_path / "train" / "a.jsonl", *names, "Locomo-0", "JRE-L"),
        rows(tmp_path / "b-test.jsonl", *names, "DialSim-friends"),
    ]
    counts = split_rows(files, "Long-Short", tmp_path / "out")
    assert counts["train"] == counts["test"] == dict.fromkeys(names, 1)
    assert counts["left out"] == {"Locomo-0": 1, "JRE-L": 1, "DialSim-friends": 1}
    kept = (tmp_path / "out" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["dataset_name"] for line in kept] == list(names)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    file = rows(tmp_path / "train.jsonl", "JRE-L")
    with pytest.raises(InputError, match="no task 'Long'"):
        split_rows([file], "Long", tmp_path / "out")
    with pytest.raises(InputError, match="train split has no row of LexEval-QA, NFCats"):
        split_rows([file], "Short-Short", tmp_path / "out")
    with pytest.raises(InputError, match="must say 'train' or 'test'"):
        split_rows([rows(tmp_path / "all" / "a.jsonl", "JRE-L")], "Short-Short", tmp_path / "out")
    (tmp_path / "train.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="line 1: no row"):
        split_rows([file], "Short-Short", tmp_path / "out")


def test_predictions_are_one_a_row(tmp_path: Path) -> None:
    asked = rows(tmp_path / "test.jsonl", "JRE-L", "NFCats")
    told = [
        {"test_idx": 1, "dataset": "NFCats", "response": "b"},
        {"test_idx": 0, "dataset": "JRE-L", "response": "a"},
    ]
    out = tmp_path / "predictions.json"
    out.write_text(json.dumps(told), encoding="utf-8")
    assert check_shape(out, asked) == 2
    out.write_text(json.dumps(told[:1]), encoding="utf-8")
    with pytest.raises(InputError, match="not one prediction for every row"):
        check_shape(out, asked)
    out.write_text(json.dumps([{**told[0], "test_idx": "1"}]), encoding="utf-8")
    with pytest.raises(InputError, match="prediction 0 is of another shape"):
        check_shape(out, asked)
