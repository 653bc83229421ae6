"""``langchain-uno releases`` and ``status``: looking, promoting, going back, holding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from langchain_uno.cli.command import app
from langchain_uno.cli.console import visible
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.records import (
    Cluster,
    Feedback,
    Interaction,
    Message,
    VerifierReport,
    utc_now,
)
from langchain_uno.releases.history import held, read_history
from langchain_uno.releases.publish import publish, revoke
from langchain_uno.releases.summary import row_of, win_rate_of
from langchain_uno.releases.traffic import read_traffic
from langchain_uno.reports.store import report_paths, write_report
from tests.unit_tests.releases.samples import draft
from tests.unit_tests.reports.report_parts import report


def run(home: Home, *words: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, [*words, "--home", str(home.root)])
    assert found.exit_code == code, found.output
    return found.output


def told(home: Home, *words: str) -> Any:
    return json.loads(run(home, *words, "--json"))


def current(home: Home) -> str | None:
    traffic = read_traffic(home)
    return traffic.current.release if traffic and traffic.current else None


def test_a_home_without_releases_says_how_to_make_one(home: Home) -> None:
    home.ensure()
    assert "langchain-uno train" in run(home, "releases", "list")
    assert told(home, "status")["answers"] == {}
    assert "nothing to roll back" in run(home, "releases", "rollback", code=9)


def test_the_win_rate_shown_is_of_what_answers() -> None:
    def report(kind: Any, rate: float) -> VerifierReport:
        return VerifierReport(kind=kind, n=9, win_rate=rate, interval=(0.1, 0.9), passed=rate > 0.5)

    tried = [report("expert", 0.2), report("critic", 0.8), report("expert", 0.4)]
    for route, shown in (("critic", "0.80"), ("expert", "0.40"), ("base", "0.40")):
        cluster = Cluster(id="c0", size=9, route=route, reports=tried)  # type: ignore[arg-type]
        assert win_rate_of(cluster) == f"{shown} (0.10-0.90)"
    assert win_rate_of(Cluster(id="c0", size=9)) == "-"


def test_rolling_back_and_promoting_are_told_in_the_history(
    home: Home, make: Callable[[], str]
) -> None:
    first, second = make(), make()
    assert current(home) == second
    assert "`releases hold`" in run(home, "releases", "rollback", "--why", "complaints")
    assert current(home) == first
    run(home, "releases", "promote", second)
    assert current(home) == second
    run(home, "releases", "rollback", "--to", "base")
    assert current(home) is None

    lines = [(e["what"], e["release"], e["why"]) for e in read_history(home)]
    assert lines == [
        ("publish", first, ""),
        ("publish", second, ""),
        ("rollback", first, "complaints"),
        ("promote", second, ""),
        ("retire", None, ""),
    ]
    assert all(e["at"] and e["by"] for e in read_history(home))
    assert "complaints" in run(home, "releases", "list")


def test_the_status_tells_a_rollback_until_a_release_comes(
    home: Home, make: Callable[..., str]
) -> None:
    first, second = make(), make()
    assert told(home, "status")["rolled_back"] is None
    run(home, "releases", "rollback", "--why", "complaints", "--by", "ann")
    found = told(home, "status")["rolled_back"]
    assert (found["from"], found["by"], found["why"]) == (second, "ann", "complaints")
    line = " ".join(run(home, "status").split())
    assert f"rolled back from {second} by ann at " in line
    assert " (complaints), until new logs, decisions or settings come" in line
    run(home, "releases", "hold")
    assert told(home, "status")["rolled_back"]["until"] == "a person promotes a release"
    make(promote=False)
    run(home, "releases", "rollback")
    assert told(home, "status")["rolled_back"]["from"] == first
    make()
    assert told(home, "status")["rolled_back"] is None


def test_the_list_fits_into_60_columns(
    home: Home, make: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    monkeypatch.setattr("langchain_uno.cli.releases.out", Console(width=60))
    monkeypatch.setattr(
        "langchain_uno.cli.releases.row_of",
        lambda *args: {**row_of(*args), "routes": {"critic": 4, "base": 1}},
    )
    head, row, *_ = run(home, "releases", "list").splitlines()
    assert head.split() == ["release", "modules", "coverage", "MB", "state"]
    assert "  4 critics  " in row and row.split()[-1] == "answers"


def test_the_list_says_what_answers_what_is_revoked_and_what_is_broken(
    home: Home, make: Callable[[], str]
) -> None:
    first, second, third = make(), make(), make()
    revoke(home, second, "somebody was forgotten")
    (home.releases / first / "manifest.json").chmod(0o644)
    (home.releases / first / "manifest.json").write_text("{")
    rows = {row["id"]: row for row in told(home, "releases", "list")["releases"]}
    assert rows[first]["state"] == "broken: it can't be read"
    assert rows[second]["state"] == "revoked"
    assert (rows[third]["state"], rows[third]["share"]) == ("answers", 1.0)
    assert rows[third]["routes"] == {"expert": 1, "critic": 1, "base": 1}
    assert "refused" in run(home, "releases", "promote", second, code=9)
    assert current(home) == third


def test_a_release_without_a_module_says_that_the_base_model_answers(
    home: Home, make: Callable[[], str]
) -> None:
    first = make()
    assert told(home, "status")["without_a_module"] == []
    assert "no module" not in run(home, "status")
    clusters = [Cluster(id="c0", size=2, run_ids=["run-1"])]
    bare = draft().model_copy(update={"clusters": clusters})
    release = publish(home, bare, {}, np.eye(1, 5, dtype=np.float32))
    found = told(home, "status")
    assert found["answers"] == {release: 1.0} and found["without_a_module"] == [release]
    assert f"the base model, as {release} has no module" in " ".join(run(home, "status").split())
    rows = {row["id"]: row["state"] for row in told(home, "releases", "list")["releases"]}
    assert rows == {first: "ready", release: "answers by the base model alone: no module"}
    said = run(home, "releases", "promote", release)
    assert "It has no module: the base model answers everything." in said
    assert "no module" not in run(home, "releases", "promote", first)


def test_a_name_is_never_a_path(home: Home) -> None:
    home.ensure()
    for command, said in (("show", "is no release's id"), ("promote", "not usable")):
        assert said in run(home, "releases", command, "../../etc", code=9)


def test_two_releases_side_by_side(home: Home, make: Callable[..., str]) -> None:
    first = make()
    shown = told(home, "releases", "show", first)
    assert [c["route"] for c in shown["clusters"]] == ["expert", "critic", "base"]
    changes = told(home, "releases", "diff", "base", first)["clusters"]
    assert changes[0]["route"] == [None, "expert"]
    assert changes[0]["bytes"][0] == 0 < changes[0]["bytes"][1]
    assert f"0 -> {changes[0]['bytes'][1]}" in run(home, "releases", "diff", "base", first)
    assert told(home, "releases", "diff", "base", "current")["clusters"] == changes
    assert told(home, "releases", "diff", "current", "base")["clusters"][0]["route"][1] is None
    same = told(home, "releases", "diff", first, first)["clusters"]
    assert all(c["route"][0] == c["route"][1] and not c["rules_added"] for c in same)


def test_a_diff_tells_what_a_cluster_is_asked(home: Home, make: Callable[[], str]) -> None:
    first, second = make(), make()
    write_report(home, report("Where is my parcel? " * 20, release=second))
    told = run(home, "releases", "diff", first, second)
    assert "c0 is asked: Where is my parcel? Where" in told and told.count("parcel") == 10
    assert "is asked" not in run(home, "releases", "diff", "base", first)


@pytest.mark.parametrize("damaged", [0, 1])
def test_a_diff_names_a_report_that_cannot_be_read_and_tells_the_rest(
    home: Home, make: Callable[[], str], damaged: int
) -> None:
    both = make(), make()
    for release in both:
        write_report(home, report("Where is my parcel?", release=release))
    path = report_paths(home, both[damaged]).json
    path.write_text("{")
    told = run(home, "releases", "diff", *both)
    assert f"{str(path)!r} can't be read" in told and "c0 is asked: Where is my parcel?" in told


def test_a_hold_is_said_and_ends(home: Home) -> None:
    home.ensure()
    assert held(home) is None
    assert "audit" in run(home, "releases", "hold", "--why", "audit")
    assert "audit" in run(home, "releases", "list")
    assert held(home) is not None
    run(home, "releases", "hold", "--off")
    assert held(home) is None
    assert "Nothing was held" in run(home, "releases", "hold", "--off")


def test_what_waits_is_told_and_approved_by_name(home: Home, make: Callable[..., str]) -> None:
    first = make()
    run(home, "releases", "hold", "--when", "routes", "--by", "ann", "--why", "audit")
    found = held(home)
    assert found is not None
    assert (found["by"], found["when"]) == ("ann", "routes")
    assert "changes a cluster's route" in run(home, "releases", "list")
    second = make(promote=False)
    assert told(home, "status")["waits_for_approval"] == second
    for words in (("status",), ("releases", "list")):
        assert second in run(home, *words)
    run(home, "releases", "promote", second, "--by", "bob", "--why", "looked at it")
    assert told(home, "status")["waits_for_approval"] is None
    run(home, "releases", "rollback", "--by", "cleo")
    assert current(home) == first
    run(home, "releases", "hold", "--off", "--by", "dan")
    lines = [(e["what"], e["by"]) for e in read_history(home)]
    assert lines[1:] == [
        ("hold changes of routes", "ann"),
        ("publish, not promoted", lines[0][1]),
        ("promote", "bob"),
        ("rollback", "cleo"),
        ("let go", "dan"),
    ]


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"why": "[/x] \\u001b[2J"}'])
def test_a_hold_that_cannot_be_read_holds(home: Home, text: str) -> None:
    home.ensure()
    (home.path / "hold.json").write_text(text)
    assert held(home) is not None
    for words in (("status",), ("releases", "list")):
        assert "somebody" in run(home, *words)
        assert "\x1b" not in run(home, *words)


def test_a_history_that_cannot_be_written_holds_nothing_up(
    home: Home, make: Callable[[], str]
) -> None:
    first = make()
    (home.path / "history.jsonl").unlink()
    (home.path / "history.jsonl").mkdir()
    second = make()
    assert current(home) == second
    revoke(home, second, "somebody was forgotten")
    assert current(home) == first
    assert read_history(home) == []
    run(home, "releases", "list")


def test_a_line_cut_off_takes_no_other_with_it(home: Home, make: Callable[[], str]) -> None:
    first = make()
    with (home.path / "history.jsonl").open("ab") as file:
        file.write(b'{"what": "rol\xc3')
    run(home, "releases", "rollback", "--to", "base", "--why", "a\u2028b \udcff")
    assert [e["what"] for e in read_history(home)] == ["publish", "retire"]
    shutil.copytree(home.releases / first, home.releases / f"{first}.bak")
    assert [row["id"] for row in told(home, "releases", "list")["releases"]] == [first]
    (home.releases / first / "manifest.json").chmod(0o644)
    (home.releases / first / "manifest.json").write_text("{")
    assert told(home, "status")["last_release"] is None


def test_what_users_wrote_steers_no_terminal() -> None:
    assert visible("Say \x1b]0;x\x07 hi\nthere \u202e") == "Say \ufffd]0;x\ufffd hi there \ufffd"


@pytest.mark.parametrize(("days", "counted"), [(1, 1), (8, 0)])
def test_status_counts_the_requests_of_a_week(
    home: Home, make: Callable[[], str], days: int, counted: int
) -> None:
    release = make()
    said = [Message(role="user", content="hi")]
    when = utc_now() - timedelta(days=days)
    with Journal(home.journal) as journal:
        for n, cluster in enumerate(("c0", None)):
            journal.append_interaction(
                Interaction(
                    run_id=f"run-{n}",
                    messages=said,
                    answer="hello",
                    release=release,
                    cluster=cluster,
                    created_at=when,
                )
            )
        for n, model in enumerate((None, None, "small")):
            some = {"run_id": f"other-{n}", "messages": said, "answer": "hello", "model": model}
            journal.append_interaction(Interaction(**some, created_at=when))
        journal.append_feedback(Feedback(run_id="run-0", score=1.0))
        journal.append_feedback(Feedback(run_id="elsewhere", score=0.0))
    found = told(home, "status")
    assert found["answers"] == {release: 1.0}
    assert found["requests_in_7_days"] == 5 * counted
    assert found["reach_a_cluster"] == (0.5 if counted else None)
    own = {release: 2, "no release, or imported": 3}
    assert found["answered_by"] == (own if counted else {})
    assert (found["feedback"], found["feedback_that_waits_for_its_answer"]) == (2, 1)
    assert found["feedback_since_the_last_release"] == 2
    assert "50 %" in run(home, "status") or not counted


def test_a_hold_that_cannot_be_ended_stays_and_is_told(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.ensure()
    run(home, "releases", "hold")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert "can't be written" in run(home, "releases", "hold", "--off", code=3)
    assert held(home)
    assert "let go" not in {entry["what"] for entry in read_history(home)}


def test_a_damaged_traffic_file_says_how_to_go_back(home: Home, make: Callable[[], str]) -> None:
    first, _ = make(), make()
    home.traffic.write_text("{")
    for words in (["status"], ["releases", "list"], ["releases", "rollback"]):
        said = run(home, *words, code=9)
        assert "rollback --to RELEASE" in said and str(home.releases) in said
    run(home, "releases", "rollback", "--to", first)
    assert current(home) == first


def test_a_broken_release_is_named_and_so_is_the_way_back(
    home: Home, make: Callable[[], str]
) -> None:
    _, second = make(), make()
    path = home.releases / second / "manifest.json"
    path.chmod(0o644)
    path.write_text('{"schema_version": 1}')
    assert second in run(home, "releases", "show", code=9)
    said = run(home, "releases", "rollback", code=9)
    assert second in said and "--to RELEASE" in said
    assert current(home) == second


def test_scripts_read_what_people_read(home: Home, make: Callable[..., str]) -> None:
    first, second = make(), make(promote=False)
    assert told(home, "releases", "list")["waits_for_approval"] == second
    assert told(home, "releases", "list")["canary"] is None
    run(home, "releases", "canary", second)
    assert f"{second} answers 20 %" in told(home, "releases", "list")["canary"]
    found = told(home, "releases", "diff", "current", second)
    assert (found["old"], found["new"]) == (first, second)
