"""``langchain-uno review``: the table out into a spreadsheet and back."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app
from langchain_uno.home import Home
from langchain_uno.learning.review import decide, read_decisions, review_table
from langchain_uno.logs.exchange import find
from langchain_uno.models.protocols import Engine
from langchain_uno.records import Feedback
from tests.unit_tests.graphs.refresh_parts import TRIED, TRIP, logs, make_home, refresh
from tests.unit_tests.learning.toy_language import log

NASTY = {
    "=HYPERLINK(1)": "=HYPERLINK(1)",
    "@sum": "@sum",
    "lines": 'first,\r\nsecond; "third"\n\n',
    "quoted": "'=already quoted",
    "minus": "- a list\n- of two",
    "accents": "\u00e9\u4e2d\U0001f600",
}
"""Edits of people, by the end of their requests."""


@pytest.fixture(scope="module")
def ready(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ready") / "home"
    edited = [
        log(
            f"nasty-{n}",
            TRIP.format(f"{n} {name}"),
            "+1 answer",
            extra=[Feedback(run_id=f"nasty-{n}", correction=text)],
            user_id=f"editor-{n}",
        )
        for n, (name, text) in enumerate(NASTY.items())
    ]
    make_home(root, [*logs(), *edited])
    refresh(Home(root), engine, TRIED, until="pairs")
    return root


@pytest.fixture
def home(ready: Path, tmp_path: Path) -> Home:
    shutil.copytree(ready, tmp_path / "home")
    return Home(tmp_path / "home")


def run(home: Home, *words: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, ["review", *words, "--home", str(home.root)])
    assert found.exit_code == code, found.output
    return found.output


def told(home: Home, *words: str) -> Any:
    return json.loads(run(home, *words, "--json"))


def table(home: Home, **what: str) -> list[dict[str, Any]]:
    words = [word for name, value in what.items() for word in (f"--{name}", value)]
    rows: list[dict[str, Any]] = told(home, "list", "--limit", "1000", *words)["rows"]
    return rows


def read(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    text = path.read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def write(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_spreadsheet_runs_no_cell_and_every_cell_comes_back(
    home: Home, tmp_path: Path, delimiter: str
) -> None:
    file = tmp_path / "review.csv"
    run(home, "export", str(file))
    assert file.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = read(file)
    cells = [cell for row in rows for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    # Held-out edits make no pair; what was asked is in the cells of all.
    assert [cell for cell in cells if cell.startswith("'+1 answer")]
    shown = {row["id"]: row for row in table(home, kind="pair")}
    # Sent back as it is, but for a mark: every edited text is read as it was.
    pairs = [row for row in rows if row["kind"] == "pair" and row["source"] == "edit"]
    assert len(pairs) >= 3
    for row in pairs:
        row["decision"] = " Edit "
        row["chosen"] = row["chosen"] + "!"
    write(file, rows, delimiter)
    said = run(home, "import", str(file), "--by", "ann", "--why", "style")
    assert said.count("edited pair") == len(pairs)
    made = {one.row: one for one in read_decisions(home)}
    assert {i: one.text for i, one in made.items()} == {
        row["id"]: shown[row["id"]]["chosen"] + "!" for row in pairs
    }
    assert {(one.by, one.why) for one in made.values()} == {("ann", "style")}


def test_a_file_without_decisions_changes_nothing(home: Home, tmp_path: Path) -> None:
    before = table(home)
    for name in ("review.csv", "review.jsonl"):
        run(home, "export", str(tmp_path / name))
        assert "nothing was decided" in run(home, "import", str(tmp_path / name))
    assert table(home) == before
    assert not (home.path / "review.jsonl").exists()


def test_rows_of_jsonl_are_decided_on(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "review.jsonl"
    run(home, "export", str(file), "--kind", "rule")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert {row["text"] for row in rows} == {"sing", "dance"}
    for row in rows:
        row |= {"sing": {"decision": "exclude", "why": "no"}, "dance": {}}[row["text"]]
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    (made,) = told(home, "import", str(file), "--by", "ann")["decisions"]
    assert (made["what"], made["why"], list(made["wordings"])) == ("exclude", "no", ["sing"])


def test_bad_rows_are_named_by_number_and_nothing_is_decided(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "review.csv"
    run(home, "export", str(file))
    rows = read(file)
    rows[0]["decision"] = "exclude"
    rows[1]["decision"] = "delete"
    rows[2] |= {"decision": "exclude", "id": "pair-0000"}
    write(file, rows)
    said = run(home, "import", str(file), code=2)
    assert "row 3: the decision 'delete'" in said and "row 4: there is no row" in said
    assert "row 2" not in said
    assert read_decisions(home) == []


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.txt", b"", ".csv nor in .jsonl"),
        ("a.csv", b"", "no rows with the columns"),
        ("a.csv", b"x,y\r\n1,2\r\n", "no rows with the columns"),
        ("a.csv", "id,decision,text\r\n1,edit,gr\u00fcn".encode("cp1252"), "CSV in UTF-8"),
        ("a.jsonl", b"[1]", "no JSON object"),
        ("a.jsonl", b'{"id": ', "can't be read"),
        ("missing.csv", None, "can't be read"),
    ],
)
def test_a_file_that_is_none_is_refused(
    home: Home, tmp_path: Path, name: str, content: bytes | None, part: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert part in run(home, "import", str(tmp_path / name), code=2)


def test_rows_are_decided_on_one_by_one(home: Home) -> None:
    (sing,) = [row for row in table(home, kind="rule") if row["text"] == "sing"]
    assert "excluded rule everywhere: sing" in run(
        home, "exclude", sing["id"], "--everywhere", "--by", "ann", "--why", "no"
    )
    assert "1 decision waits" in run(home, "list")
    assert "restored rule everywhere" in run(home, "restore", sing["id"], "--everywhere")
    assert "added in c" in run(home, "add", sing["cluster"], "Sign it.", "--by", "ann")
    (own,) = [row for row in table(home, kind="rule") if row["state"] == "own"]
    assert (own["text"], own["decision"]["by"]) == ("Sign it.", "ann")
    assert "removed in c" in run(home, "exclude", own["id"])
    assert "there is no row" in run(home, "exclude", "rule-00", code=2)
    assert "'c99'" in run(home, "add", "c99", "Sign it.", code=2)
    assert "'c99'" in run(home, "list", "--cluster", "c99", code=2)


def test_without_a_refresh_there_is_nothing_to_review(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", logs())
    for words in (["list"], ["export", str(tmp_path / "a.csv")]):
        assert "train --until pairs" in run(home, *words)
    assert "train --until pairs" in run(home, "add", "c0", "Sign it.", code=2)
    assert told(home, "list")["rows"] == []


def test_a_log_shows_what_its_people_said_and_did(engine: Engine, tmp_path: Path) -> None:
    wish, edited, thumb, *others = logs(36)
    said = [
        Feedback(run_id=wish.run_id, key="follow_up", comment="[b]sing[/b] to me", user_id="eve"),
        Feedback(run_id=wish.run_id, key="score", score=0.0, user_id="eve"),
    ]
    edit = Feedback(run_id=edited.run_id, key="correction", correction="la la [sing]")
    down = Feedback(run_id=thumb.run_id, key="score", score=0.0)
    told = [
        wish.model_copy(update={"feedback": [*wish.feedback, *said]}),
        edited.model_copy(update={"feedback": [edit]}),
        thumb.model_copy(update={"feedback": [down]}),
    ]
    home = make_home(tmp_path / "home", [*told, *others])
    refresh(home, engine, TRIED, until="rules")
    table = {row.run: row for row in review_table(home, kind="log", limit=None).rows}
    first, second, third = (table[one.run_id] for one in (wish, edited, thumb))
    assert (first.source, first.people) == ("words", 2)
    assert first.said == f"{wish.feedback_turns[0]}\n[b]sing[/b] to me\nscore 0.0"
    assert (second.source, second.said, second.chosen) == ("edit", None, "la la [sing]")
    assert second.rejected == edited.answer
    assert (third.source, third.said, third.text) == ("thumb", "score 0.0", None)
    assert find(home, str(first.run))["run_id"] == wish.run_id

    file = tmp_path / "rows.csv"
    run(home, "export", str(file), "--kind", "log")
    cells = {row["run"]: row for row in csv.DictReader(io.StringIO(file.read_text("utf-8-sig")))}
    assert cells[wish.run_id]["said"] == first.said
    assert [cells[one.run_id]["source"] for one in (wish, edited, thumb)] == [
        "words", "edit", "thumb",
    ]  # fmt: skip
    shown = run(home, "list", "--kind", "log")
    assert f"\n  run {wish.run_id}" in shown, "an id is never broken"
    shown = "".join(shown.split())
    for words in ("[b]sing[/b]tome", "edit:lala[sing]", "score0.0"):
        assert words in re.sub(r"[^\w\[\]/:.]", "", shown)


def test_a_decision_is_not_written_twice_in_a_row(home: Home) -> None:
    row = next(one for one in review_table(home, kind="rule", limit=None).rows)
    off = {"id": row.id, "decision": "exclude"}
    own = {"decision": "add", "cluster": row.cluster, "text": "Be kind."}
    assert [len(decide(home, [off, off], by="ann")), len(decide(home, [off], by="bob"))] == [1, 0]
    assert len(decide(home, [{**off, "decision": "restore"}, off, off], why="again")) == 2
    assert [len(decide(home, [own])) for _ in range(2)] == [1, 0]
    told = ["exclude", "restore", "exclude", "add"]
    assert [one.what for one in read_decisions(home)] == told
    decide(home, [{**off, "everywhere": True}])  # which says more
    assert [one.what for one in read_decisions(home)] == [*told, "exclude"]
