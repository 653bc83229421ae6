"""MemoryBench rows in, predictions in its format out; a test row in the log is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app
from langchain_uno.cli.memorybench import check_apart, predict, read_test_rows
from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.logs.exchange import import_file
from langchain_uno.models.loading import load_embedder, load_engine
from tests.unit_tests.serving.tiny_release import publish_tiny


def train_row(index: int, text: str) -> dict[str, Any]:
    """As on the hub: dialog, feedback and info are strings."""
    dialog = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": "An answer."},
        {"role": "user", "content": "Please add a title."},
        {"role": "assistant", "content": "Title: yes. An answer."},
    ]
    return {
        "test_idx": index,
        "input_prompt": text,
        "dataset_name": "WritingPrompts",
        "lang": "en",
        "info": str({"golden_answer": "x"}),
        "dialog": str(dialog),
        "implicit_feedback": str([{"round": 1, "implicit_action": "dislike", "terminated": False}]),
    }


def bench_row(index: int, text: str, **more: Any) -> dict[str, Any]:
    return {"test_idx": index, "input_prompt": text, "dataset_name": "WritingPrompts", **more}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home").ensure()
    rows = [train_row(i, f"Write a story of the {word}.") for i, word in enumerate(("sea", "wood"))]
    import_file(lines(tmp_path / "train.jsonl", rows), made)
    return made


def test_rows_of_both_kinds_are_asked_and_written_in_its_format(home: Home, tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And a poem?"}]
    file = lines(
        tmp_path / "test.jsonl",
        [
            bench_row(7, "Write a story of the moon."),
            bench_row(8, "", input_chat_messages=str(chat)),
            bench_row(9, "", input_chat_messages=chat[1:]),
        ],
    )
    out = tmp_path / "predicts.json"
    asked = [str(file), "--home", str(home.root), "--out", str(out)]
    ended = CliRunner().invoke(app, ["evaluate", "memorybench", *asked, "--mode", "base", "--json"])
    assert ended.exit_code == 0, ended.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [set(one) for one in found] == [{"test_idx", "dataset", "response"}] * 3
    made = json.loads(out.with_suffix(".by.json").read_bytes())
    assert made == {"mode": "base", "model": None, "release": None}
    assert [one["test_idx"] for one in found] == [7, 8, 9]
    assert all(one["dataset"] == "WritingPrompts" and one["response"] for one in found)
    assert json.loads(ended.stdout) == {"predictions": 3, "out": str(out)}


def test_a_refused_release_writes_no_base_answers_as_its_own(home: Home, tmp_path: Path) -> None:
    engine = load_engine(None)
    embedder = load_embedder(None, engine)
    foreign = {"routes": {"c0": "base"}, "prompt_set": "bundled", "embedder_fingerprint": "0" * 64}
    publish_tiny(home, engine, embedder, {}, **foreign)
    out = tmp_path / "predicts.json"
    file = lines(tmp_path / "test.jsonl", [bench_row(7, "Write a story of the moon.")])
    asked = [str(file), "--home", str(home.root), "--out", str(out)]
    ended = CliRunner().invoke(app, ["evaluate", "memorybench", *asked])
    assert ended.exit_code == 9 and "made for embedder" in ended.output, ended.output
    assert not out.exists()
    ended = CliRunner().invoke(app, ["evaluate", "memorybench", *asked, "--mode", "base"])
    assert ended.exit_code == 0, ended.output


def test_what_was_answered_is_not_asked_again(home: Home, tmp_path: Path) -> None:
    rows = read_test_rows(lines(tmp_path / "t.jsonl", [bench_row(i, f"Say {i}.") for i in (1, 2)]))
    out = tmp_path / "predicts.json"
    kept = {"test_idx": 1, "dataset": "WritingPrompts", "response": "kept"}
    out.write_text(json.dumps([kept]), encoding="utf-8")
    counted: list[int] = []
    found = predict(home, rows, out, mode="base", on_done=counted.append)
    assert found[0] == kept and found[1]["test_idx"] == 2
    assert counted == [1, 1]
    for other, told in (
        ({"mode": "uno"}, "mode 'base', not 'uno'"),
        ({"model": "larger"}, "model None, not 'larger'"),
    ):
        with pytest.raises(InputError, match=f"holds answers of {told}: name another --out"):
            predict(home, rows, out, **{"mode": "base", **other})
    out.with_suffix(".by.json").write_text("[", encoding="utf-8")
    with pytest.raises(InputError, match=r"'predicts\.by\.json' beside it is damaged"):
        predict(home, rows, out, mode="base")
    out.write_text("[1]", encoding="utf-8")
    with pytest.raises(InputError, match="no list of predictions"):
        predict(home, rows, out, mode="base")


def test_a_test_row_in_the_log_is_refused(home: Home, tmp_path: Path) -> None:
    file = lines(tmp_path / "t.jsonl", [bench_row(3, "write a story  of the SEA.")])
    with pytest.raises(InputError, match="1 of 1 test requests are in the log"):
        check_apart(home, read_test_rows(file))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"input_prompt": "x", "dataset_name": "d"}, "line 1: test_idx"),
        ({"test_idx": 1, "input_prompt": "x"}, "dataset_name"),
        ({"test_idx": 1, "input_prompt": " ", "dataset_name": "d"}, "no text"),
        (
            {
                "test_idx": 1,
                "dataset_name": "d",
                "input_chat_messages": [{"role": "assistant", "content": "x"}],
            },
            "end with a user",
        ),
        ([], "JSON object"),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_test_rows(lines(tmp_path / "t.jsonl", [row]))


def test_a_row_twice_an_empty_file_and_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="twice"):
        read_test_rows(lines(tmp_path / "t.jsonl", [bench_row(1, "x"), bench_row(1, "y")]))
    with pytest.raises(InputError, match="no row"):
        read_test_rows(lines(tmp_path / "t.jsonl", []))
    with pytest.raises(InputError, match="can't be read"):
        read_test_rows(tmp_path / "missing.jsonl")
