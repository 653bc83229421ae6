"""The commands: output, messages, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_uno.cli.logs import app

RUN = CliRunner()
ROW = {
    "messages": [
        {"role": "user", "content": "请写一封信"},
        {"role": "assistant", "content": "信。"},
        {"role": "user", "content": "短一点"},
    ]
}


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    return path


def test_a_chinese_dialog_in_counted_and_out_again(tmp_path: Path, chats: Path) -> None:
    home = ["--home", str(tmp_path / "home")]
    done = RUN.invoke(app, ["import", str(chats), *home])
    assert (
        done.exit_code == 0 and "1 row: 1 new interaction, 1 new piece of feedback" in done.stdout
    )
    found = RUN.invoke(app, ["stats", *home, "--json"])
    assert found.exit_code == 0
    assert json.loads(found.stdout)["languages"] == {"zh": 1}
    assert "zh 1" in RUN.invoke(app, ["stats", *home]).stdout
    out = RUN.invoke(app, ["export", *home])
    assert out.exit_code == 0
    [row] = [json.loads(line) for line in out.stdout.splitlines()]
    assert row["messages"] == ROW["messages"][:2] and row["feedback"][0]["comment"] == "短一点"
    again = RUN.invoke(app, ["import", "-", *home, "--json"], input=out.stdout)
    assert again.exit_code == 0 and json.loads(again.stdout)["known"] == 1


def test_bad_rows_have_an_exit_code_and_their_lines(tmp_path: Path, chats: Path) -> None:
    chats.write_text(chats.read_text() + "nonsense\n")
    done = RUN.invoke(app, ["import", str(chats), "--home", str(tmp_path / "home"), "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["interactions"] == 1
    assert "line 2: not JSON" in done.stderr and "1 other is in" in done.stderr


def test_an_import_tells_what_waits_and_what_was_passed_over(tmp_path: Path, chats: Path) -> None:
    """langsmith-sdk 1753 and others: feedback that names nothing known is easily lost."""
    home = ["--home", str(tmp_path / "home")]
    rows = [
        {"run_id": None, "trace_id": "trace-1", "key": "thumb", "score": 0},
        {"prompt": "Which?", "chosen": "This.", "rejected": "This."},
        ROW,
    ]
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = RUN.invoke(app, ["import", str(chats), *home])
    assert done.exit_code == 0 and "Passed over: 1 tie." in done.output
    assert "1 piece of feedback waiting for answers" in done.stderr
    assert "1 answer names no user in this home" in done.stderr
    again = json.loads(RUN.invoke(app, ["import", str(chats), *home, "--json"]).stdout)
    assert (again["waiting"], again["without_user"], again["feedback"]) == (1, 1, 0)
    assert again["passed_over"] == {"tie": 1} and again["bad_reasons"] == {}
    assert again["formats"] == {"langsmith": 1, "pairs": 1, "chat": 1}


def test_a_format_is_named_or_refused(tmp_path: Path, chats: Path) -> None:
    home = ["--home", str(tmp_path / "home")]
    done = RUN.invoke(app, ["import", str(chats), *home, "--format", "chat"])
    assert done.exit_code == 0
    done = RUN.invoke(app, ["import", str(chats), *home, "--format", "chats"])
    assert done.exit_code == 2 and "no format 'chats'" in done.stderr
    assert "sharegpt" in done.stderr and "Traceback" not in done.output


def test_clear_errors_without_tracebacks(tmp_path: Path, chats: Path) -> None:
    missing = str(tmp_path / "none")
    (tmp_path / "file").write_text("")
    unwritable = str(tmp_path / "file" / "home")
    for args, code, words in (
        (["stats", "--home", missing], 3, "There is no home"),
        (["export", "--home", missing], 3, "There is no home"),
        (["drain", "--home", missing], 3, "There is no home"),
        (["import", missing, "--home", str(tmp_path / "h")], 2, "can't be read"),
        (["import", str(chats), "--home", unwritable], 3, "can't be written"),
        (["stats"], 2, "No home was given"),
        (["stats", "--home", missing, "--namespace", "../x"], 2, "not usable"),
    ):
        done = RUN.invoke(app, args, env={"LANGCHAIN_UNO_HOME": ""})
        assert done.exit_code == code, args
        assert words in " ".join(done.stderr.split()) and "Traceback" not in done.output
    assert not (tmp_path / "h").exists()


def test_show_lists_the_last_logs_and_no_words_steer_the_terminal(tmp_path: Path) -> None:
    home, file = ["--home", str(tmp_path / "home")], tmp_path / "many.jsonl"
    times = [f"2026-01-{day:02}T00:00:00Z" for day in range(1, 13)]
    rows = [
        {
            "run_id": f"run-{n}",
            "created_at": at,
            "messages": [
                {"role": "user", "content": f"Question {n}\x1b[2J"},
                {"role": "assistant", "content": "First line\n    second\x1b[2J"},
            ],
            "feedback": [{"key": "comment", "comment": "Shorter\x1b]0;x\x07 please"}],
        }
        for n, at in enumerate(times)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    assert RUN.invoke(app, ["import", str(file), *home]).exit_code == 0
    listed = RUN.invoke(app, ["show", *home])
    assert listed.exit_code == 0 and "logs show RUN" in listed.stdout
    found = json.loads(RUN.invoke(app, ["show", *home, "--json"]).stdout)["last"]
    assert [row["created_at"][:10] for row in found] == [at[:10] for at in times[:1:-1]]
    ids = [row["run_id"] for row in found]
    # Whole ids, in their order: they can be copied.
    assert [w for w in listed.stdout.split() if w in ids] == ids
    one = RUN.invoke(app, ["show", ids[0], *home])
    assert "Question 11" in one.stdout and "    second" in one.stdout
    assert "Shorter" in listed.stdout and "\x1b" not in listed.stdout + one.stdout
    assert "\x07" not in listed.stdout + one.stdout


def test_show_has_a_value_beside_the_words(tmp_path: Path) -> None:
    table, home = tmp_path / "stars.csv", ["--home", str(tmp_path / "home")]
    table.write_text("question,answer,rating,comment\nHi,Hello,5,Great\nHo,Hello,0,\n")
    assert RUN.invoke(app, ["import", str(table), *home]).exit_code == 0
    shown = RUN.invoke(app, ["show", *home]).stdout
    assert "rating (value 5.0): Great" in shown and "score (value 0.0)" in shown


def test_an_empty_log(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path)]
    done = RUN.invoke(app, ["stats", *home])
    assert done.exit_code == 0 and "The log is empty" in done.stderr
    assert json.loads(RUN.invoke(app, ["stats", *home, "--json"]).stdout)["interactions"] == 0
    done = RUN.invoke(app, ["export", *home])
    assert done.exit_code == 6 and done.stdout == "" and "empty" in done.stderr
    assert list(tmp_path.iterdir()) == [], "looking leaves no trace"


def test_a_home_that_may_only_be_read(chats: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # others may enter it, unlike pytest's own
        home, rows = Path(folder) / "home", Path(folder) / "chats.jsonl"
        shutil.copy(chats, rows)
        # Also loads all that the child needs: it may not read the interpreter's files any more.
        assert RUN.invoke(app, ["import", str(rows), "--home", str(home)]).exit_code == 0
        assert RUN.invoke(app, ["stats", "--home", str(home)]).exit_code == 0
        for path in (Path(folder), home, home / "journal"):
            path.chmod(0o555)
        try:
            child = os.fork()
            if child == 0:
                os._exit(_look_without_rights(str(home), str(rows)))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            for path in (Path(folder), home, home / "journal"):
                path.chmod(0o755)


def _look_without_rights(home: str, rows: str) -> int:
    """Return 0 if reading works and writing is refused clearly, as nobody."""
    try:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        if RUN.invoke(app, ["stats", "--home", home]).exit_code != 0:
            return 1
        if "\u77ed\u4e00\u70b9" not in RUN.invoke(app, ["export", "--home", home]).stdout:
            return 2
        done = RUN.invoke(app, ["import", rows, "--home", home])
        return 0 if done.exit_code == 3 and "can't be written" in done.stderr else 3
    except BaseException:  # noqa: BLE001 - a forked child must not run on as a second pytest
        return 4


def test_drain_with_a_real_model(tmp_path: Path, chats: Path, tiny_model_path: Path) -> None:
    home = ["--home", str(tmp_path / "home")]
    RUN.invoke(app, ["import", str(chats), *home])
    drain = ["drain", *home, "--model", str(tiny_model_path), "--json"]
    done = RUN.invoke(app, drain)
    assert done.exit_code == 0 and json.loads(done.stdout) == {"drained": 1, "total": 1}
    assert json.loads(RUN.invoke(app, drain).stdout)["drained"] == 0
    assert json.loads(RUN.invoke(app, ["stats", *home, "--json"]).stdout)["pending"] == 0


def test_help_teaches() -> None:
    text = RUN.invoke(app, ["--help"]).stdout
    for command in ("import", "export", "stats", "drain", "search", "show", "forget"):
        assert command in text
        assert "Exit codes" in RUN.invoke(app, [command, "--help"]).stdout


def test_import_and_stats_load_nothing_large(tmp_path: Path, chats: Path) -> None:
    code = (
        "import sys\n"
        "from langchain_uno.home import Home\n"
        "from langchain_uno.logs.exchange import import_file, export_lines\n"
        "from langchain_uno.logs.stats import stats\n"
        "import langchain_uno.cli.logs\n"
        "home = Home.locate(sys.argv[2])\n"
        "import_file(sys.argv[1], home); stats(home); list(export_lines(home))\n"
        "large = {'langsmith', 'torch', 'chromadb', 'transformers'} & set(sys.modules)\n"
        "import langchain_uno.callbacks\n"
        "sys.exit(bool(large or {'torch', 'chromadb', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(chats), str(tmp_path / "h")], check=False
    )
    assert done.returncode == 0


def test_export_into_a_file_that_is_not_there_yet(tmp_path: Path, chats: Path) -> None:
    home, file = ["--home", str(tmp_path / "home")], tmp_path / "log.jsonl"
    assert RUN.invoke(app, ["import", str(chats), *home]).exit_code == 0
    assert RUN.invoke(app, ["export", str(file), *home]).exit_code == 0
    for out in ([], ["-"]):
        assert file.read_text("utf-8") == RUN.invoke(app, ["export", *out, *home]).stdout
    assert "请写一封信" in file.read_text("utf-8")
    for taken in (file, tmp_path / "none" / "log.jsonl"):
        done = RUN.invoke(app, ["export", str(taken), *home])
        assert done.exit_code == 2 and "can't be written" in done.stderr
    nothing = RUN.invoke(app, ["export", str(tmp_path / "n"), "--usable", "--home", str(tmp_path)])
    assert nothing.exit_code == 6 and not (tmp_path / "n").exists()


def test_a_time_that_cant_be_read_is_not_passed_over(tmp_path: Path, chats: Path) -> None:
    rows = [
        {**ROW, "created_at": "yesterday"},
        {"prompt": "Which?", "chosen": "A.", "rejected": "A."},
    ]
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = RUN.invoke(app, ["import", str(chats), "--home", str(tmp_path / "home")])
    assert "Passed over: 1 tie." in done.output
    assert "1 time can't be read: what has such a time is in without it." in done.output


def test_a_stopped_export_leaves_no_half_file(
    tmp_path: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, file = ["--home", str(tmp_path / "home")], tmp_path / "out.jsonl"
    assert RUN.invoke(app, ["import", str(chats), *home]).exit_code == 0

    def stopped(*_: object, **__: object) -> Iterator[str]:
        yield "{}"
        raise KeyboardInterrupt

    monkeypatch.setattr("langchain_uno.logs.exchange.export_lines", stopped)
    assert RUN.invoke(app, ["export", str(file), *home]).exit_code == 130
    assert not file.exists()


def test_export_into_a_closed_pipe_is_quiet(tmp_path: Path, chats: Path) -> None:
    home = str(tmp_path / "home")
    chats.write_text("".join(json.dumps({**ROW, "id": n}) + "\n" for n in range(2000)))
    RUN.invoke(app, ["import", str(chats), "--home", home])
    command = (
        f"{sys.executable} -m langchain_uno.logs export --home {home} | head -c 100 >/dev/null"
    )
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], check=False, capture_output=True, text=True
    )
    assert done.stderr == "" and done.returncode == 0


def test_search_finds_the_nearest_feedback(tmp_path: Path, tiny_model_path: Path) -> None:
    def row(request: str, *said: str) -> str:
        turns = [("user", request), ("assistant", "Here it is."), *(("user", s) for s in said)]
        return json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]})

    rows = [row(f"list {n} facts about whales") for n in range(9)]
    rows += [row("write a letter to my landlord", "shorter, please"), row("sum 2 and 3", "[why]?")]
    (tmp_path / "chats.jsonl").write_text("\n".join(rows))
    where = ["--home", str(tmp_path / "home")]
    model = ["--model", str(tiny_model_path)]
    assert RUN.invoke(app, ["import", str(tmp_path / "chats.jsonl"), *where]).exit_code == 0

    early = RUN.invoke(app, ["search", "whales", *where, *model])
    assert early.exit_code == 0
    assert "11 records are not in the index yet" in early.stderr
    assert "Nothing found" in early.stderr

    assert RUN.invoke(app, ["drain", *where, *model]).exit_code == 0
    found = RUN.invoke(
        app, ["search", "write a letter to my landlord", "-k", "1", *where, *model, "--json"]
    )
    assert found.exit_code == 0, found.stderr
    [one] = json.loads(found.stdout)["found"]
    assert one["request"] == "write a letter to my landlord"
    assert one["feedback"][0]["comment"] == "shorter, please"
    assert one["distance"] == pytest.approx(0, abs=1e-3)
    # Nine nearer requests nobody reacted to; both that somebody did are found.
    shown = RUN.invoke(app, ["search", "list 3 facts about whales", "-k", "2", *where, *model])
    assert "shorter, please" in shown.stdout and "[why]?" in shown.stdout
    assert RUN.invoke(app, ["search", " ", *where, *model]).exit_code == 2


def test_columns_that_no_reader_knows_are_named(tmp_path: Path) -> None:
    table, home = tmp_path / "rows.csv", ["--home", str(tmp_path / "home")]
    table.write_text("question,answer,rating,user,stars,[b]mood\nHi there,Hello,1,ada,5,glad\n")
    done = RUN.invoke(app, ["import", str(table), *home])
    assert done.exit_code == 0
    assert done.stderr.count("Columns that no reader knows: [b]mood, stars.") == 1
    told = json.loads(RUN.invoke(app, ["import", str(table), *home, "--json"]).stdout)
    assert told["unread"] == ["[b]mood", "stars"]


def test_columns_that_were_read_are_not_named(tmp_path: Path) -> None:
    file, home = tmp_path / "rows.csv", ["--home", str(tmp_path / "home")]
    file.write_text("system,question,chosen,rejected\nBe brief.,What is rust?,Oxide.,Dear me.\n")
    done = RUN.invoke(app, ["import", str(file), *home])
    assert (done.exit_code, "no reader knows" in done.stderr) == (0, False), done.stderr


def test_no_column_of_an_export_is_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "in.csv").write_text("question,answer,rating,user\nHi there,Hello,1,ada\n")
    where = ["--home", str(tmp_path / "home")]
    assert RUN.invoke(app, ["import", str(tmp_path / "in.csv"), *where]).exit_code == 0
    exported = RUN.invoke(app, ["export", *where]).stdout
    own = [{k: v for k, v in json.loads(one).items() if v} for one in exported.splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(own), tmp_path / "own.parquet")
    other = ["--home", str(tmp_path / "other"), "--json"]
    done = RUN.invoke(app, ["import", str(tmp_path / "own.parquet"), *other])
    told = json.loads(done.stdout)
    assert (told["bad"], told["unread"]) == ([], [])
