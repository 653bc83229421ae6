"""200 real dialogs in English and Chinese: in whole, again without change, out and in again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines, import_file
from langchain_uno.logs.stats import stats

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FILE = DATA / "real_feedback_dialogs.jsonl"

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="the shared data is not here")


def test_all_go_in_and_come_out_again(tmp_path: Path) -> None:
    home = Home.locate(tmp_path / "home")
    first = import_file(FILE, home)
    assert (first.rows, first.interactions, first.feedback, first.bad) == (200, 400, 200, [])
    assert first.languages == {"en": 300, "zh": 100}
    lines = list(export_lines(home))
    again = import_file(FILE, home)
    assert (again.interactions, again.feedback, again.known) == (0, 0, 400)
    assert list(export_lines(home)) == lines

    found = stats(home)
    assert found["verdicts"] == {"ok": 200, "no_feedback": 200}
    assert found["follow_ups"] == 200 and found["feedback_kinds"] == {"follow_up": 200}
    assert found["datasets"] == dict.fromkeys(
        ("IdeaBench", "JuDGE", "LimitGen-Syn", "WritingPrompts"), 100
    )

    dialogs = {r["id"]: r for r in map(json.loads, FILE.read_text(encoding="utf-8").splitlines())}
    rows = [json.loads(line) for line in lines]
    assert Counter(row["tags"]["id"] for row in rows) == Counter(dict.fromkeys(dialogs, 2))
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        turns = dialogs[one["tags"]["id"]]["messages"]
        assert one["messages"] == turns[:2] and two["messages"] == turns
        assert [f["comment"] for f in one["feedback"]] == [turns[2]["content"].strip()]
        assert two["feedback"] == []

    exported = tmp_path / "export.jsonl"
    exported.write_text("\n".join(lines) + "\n", encoding="utf-8")
    other = Home.locate(tmp_path / "other")
    assert import_file(exported, other).interactions == 400
    assert list(export_lines(other)) == lines


def test_the_language_is_also_found_without_being_told(tmp_path: Path) -> None:
    told: Counter[str] = Counter()
    path = tmp_path / "untold.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for line in FILE.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            told[row.pop("lang")] += 2
            out.write(json.dumps(row) + "\n")
    found = import_file(path, Home.locate(tmp_path / "home"))
    assert found.languages == dict(told)
