"""Files of rows in every packing, and broken ones."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.logs import containers
from langchain_uno.logs.containers import read_rows
from langchain_uno.logs.exchange import export_lines, import_file
from langchain_uno.logs.redaction import no_redaction

ROWS: list[dict[str, Any]] = [
    {
        "id": f"r{n}",
        "user_id": "u",
        "messages": [
            {"role": "user", "content": f'Frage {n}: "über", [was]? {{}}\n\\ 漢字'},
            {"role": "assistant", "content": f"Antwort {n}, 1.5e3"},
        ],
    }
    for n in range(7)
]


def read(folder: Path, data: bytes | str, name: str = "rows.json") -> list[Any]:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return [row for _, row in read_rows(path)]


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
PLAIN = json.dumps(ROWS, ensure_ascii=False)


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        LINES.replace("\n", "\r\n") + "\n\n",
        PLAIN,
        json.dumps(ROWS, indent=2),
        json.dumps(ROWS, indent="\t", ensure_ascii=False),
        "[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n",
        json.dumps({"object": "list", "data": ROWS, "has_more": False}),
        json.dumps({"object": "list", "meta": {"page": [1]}, "data": ROWS}, indent=1),
        json.dumps({"rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]}),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),  # jq's output
        PLAIN[: PLAIN.index("]}, {") + 2] + "]\n[" + PLAIN[PLAIN.index("]}, {") + 4 :],
    ],
)
@pytest.mark.parametrize("chunk", [1 << 20, 7])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("packed", [False, True])
def test_json_in_every_packing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    chunk: int,
    encoding: str,
    packed: bool,
) -> None:
    if chunk == 7 and packed:
        pytest.skip("the same code")
    monkeypatch.setattr(containers, "_CHUNK", chunk)
    data = text.encode(encoding)
    assert read(tmp_path, gzip.compress(data) if packed else data) == ROWS


def test_one_object_over_several_lines_is_a_row(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps(ROWS[0], indent=4)) == [ROWS[0]]


def test_numbers_of_lines_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text('{"a": 1}\n\nnonsense\n{"a": 2}\n')
    assert [n for n, _ in read_rows(path)] == [1, 3, 4]
    path.write_text('[{"a": 1},\n\n {"a": 2}]')
    assert list(read_rows(path)) == [(1, {"a": 1}), (2, {"a": 2})]


@pytest.mark.parametrize(
    ("text", "good", "words"),
    [
        ('[{"a": 1}, {"a": 2}', 2, "has no end"),
        ('[{"a": 1} {"a": 2}]', 1, "after an element"),
        ('[{"a": 1}, {"a": nope}]', 1, "not JSON"),
        ('[{"a": 1}, {"a": "x', 1, "Unterminated"),
        ('{\n"data": [{"a": 1}], "b" 2}', 0, "not JSON"),
        ('[{"a": 1}, ' + "[" * 100_000, 1, "nested too deeply"),
    ],
)
def test_a_broken_array_says_that_the_rest_was_not_read(
    tmp_path: Path, text: str, good: int, words: str
) -> None:
    *rows, error = read(tmp_path, text)
    assert len(rows) == good
    assert isinstance(error, InputError)
    assert words in str(error) and "the rest of the file was not read" in str(error)


def test_a_number_that_json_lacks_is_no_value(tmp_path: Path) -> None:
    """pandas' to_json and Python's json write NaN for a missing value."""
    lines = '{"a": 1, "score": NaN}\n{"a": -Infinity}\n'
    assert read(tmp_path, lines) == [{"a": 1, "score": None}, {"a": None}]
    assert read(tmp_path, '[{"a": NaN}]') == [{"a": None}]


def test_tables_of_excel(tmp_path: Path) -> None:
    """A line that names the separator, names of columns in capitals, Windows' characters."""
    text = "sep=;\r\nQuestion;ANSWER;userId\r\nWo fährt es?;Kai 6 – für alle;u1\r\nx\r\n"
    first, bad = read(tmp_path, text.encode("cp1252"), "table.csv")
    assert first == {"question": "Wo fährt es?", "answer": "Kai 6 – für alle", "userId": "u1"}
    assert isinstance(bad, InputError)
    assert [n for n, _ in read_rows(tmp_path / "table.csv")] == [3, 4]


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    """Python's reader would keep the last of them, and lose the other's cells."""
    text = "question,answer,Answer\nWhen?,At nine.,At ten.\n"
    with pytest.raises(InputError, match="two columns 'answer'.*rename"):
        read(tmp_path, text, "table.csv")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables(tmp_path: Path, separator: str) -> None:
    cells = ["id", "question", "answer", "messages"]
    rows = [
        cells,
        ["1", '"Was\nnun?"', "So.", ""],
        ["2", "", "", '"[{""role"": ""user""}]"'],
        ["3"],
    ]
    text = "\r\n".join(separator.join(row) for row in rows) + "\r\n"
    one, two, bad = read(tmp_path, text.encode("utf-8-sig"), "table.txt")
    assert one == {"id": "1", "question": "Was\nnun?", "answer": "So."}
    assert two == {"id": "2", "messages": [{"role": "user"}]}
    assert isinstance(bad, InputError) and "number of cells" in str(bad)


def test_parquet(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    result = import_file(path, home)
    assert (result.interactions, result.bad) == (7, [])
    assert json.loads(next(export_lines(home)))["messages"] == ROWS[0]["messages"]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="no Parquet file"):
        import_file(path, home)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"langchain-uno\[parquet\]"):
        import_file(path, home)


@pytest.mark.parametrize("head", [b"PK\x03\x04rest", b"\x28\xb5\x2f\xfdrest"])
def test_other_packings_are_named(tmp_path: Path, head: bytes) -> None:
    with pytest.raises(InputError, match="unpack it"):
        read(tmp_path, head)


def test_a_cut_gzip_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path, gzip.compress((LINES * 50).encode())[:200])


def test_an_empty_file(home: Home, tmp_path: Path) -> None:
    for text in ("", "\n\n", "[]", '{"data": []}'):
        path = tmp_path / "f"
        path.write_text(text)
        assert import_file(path, home).rows == 0


@pytest.mark.slow
@pytest.mark.parametrize("array", [False, True])
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: bool
) -> None:
    """lab/benchmarks/bench_import.py measures a million rows."""
    monkeypatch.setattr(containers, "_CHUNK", 1 << 14)
    monkeypatch.setattr(containers, "_BUFFER", 1 << 14)

    def peak(n: int) -> int:
        path = tmp_path / f"{n}.json"
        rows = [
            json.dumps({"id": i, "lang": "en", "messages": ROWS[0]["messages"], "pad": "x" * 900})
            for i in range(n)
        ]
        path.write_text("[\n" + ",\n".join(rows) + "\n]" if array else "\n".join(rows))
        del rows
        home = Home.locate(tmp_path / str(n))
        tracemalloc.start()
        try:
            assert import_file(path, home, redactor=no_redaction()).interactions == n
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is loaded once
    assert peak(1500) < 1.5 * peak(300)


def test_a_cut_file_of_utf_16_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"messages": []}\n'.encode("utf-16") + b"{")
    assert "the rest of the file was not read" in str([row for _, row in read_rows(path)][-1])
