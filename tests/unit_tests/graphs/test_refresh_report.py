"""The report of a real refresh: right figures, written after a kill, gone with what it quotes."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app
from langchain_uno.erasure import forget, forget_older
from langchain_uno.errors import HomeError, StoreError
from langchain_uno.graphs import refresh as refresh_room
from langchain_uno.home import Home
from langchain_uno.learning.work import WorkFolder, refresh_folders
from langchain_uno.models.protocols import Engine
from langchain_uno.records import Interaction, RuleSet
from langchain_uno.releases.load import read_manifest
from langchain_uno.releases.manifest import lineage_key, opaque_id
from langchain_uno.releases.traffic import write_atomic
from langchain_uno.reports import Report, read_report, report_paths, write_report
from langchain_uno.reports.store import take_out
from langchain_uno.trainers.verifier import Compared
from tests.unit_tests.graphs.refresh_parts import (
    RECIPE,
    TRIED,
    TRIP,
    UNTRAINED,
    changed,
    folder_of,
    logs,
    make_home,
    refresh,
)
from tests.unit_tests.learning.toy_language import log

# The tiny model's words are noise: a bar that noise can pass, so that modules ship.
SEED = 1  # of a split in which the one who repeats herself is in training
PASSING = changed(
    RECIPE, seed=SEED, verify={"level": None, "win_rate": 0.0}, cluster={"threshold": 3.5}
)
SECRET = "zanzibarquagga"
HERS = 8
"""Logs of one person, who is in training."""
NOW = datetime.now(timezone.utc)
RUN = CliRunner()


def of(days: float, one: Interaction) -> Interaction:
    """A log as it would be if it had come so many days ago."""
    at = NOW - timedelta(days=days)
    feedback = [f.model_copy(update={"created_at": at}) for f in one.feedback]
    return one.model_copy(update={"created_at": at, "feedback": feedback})


def week() -> list[Interaction]:
    """The usual logs; one person repeats a wish of her own, and has a secret in all she says."""
    hers = [
        log(
            f"hers-{i}",
            TRIP.format(f"{SECRET} {i}"),
            f"answer {SECRET}",
            f"please hum{SECRET}",
            user_id="zora",
            thread_id=f"zora-{i}",
        )
        for i in range(HERS)
    ]
    others = [
        one.model_copy(update={"user_id": f"user-{i % 16}"}) for i, one in enumerate(logs(36))
    ]
    return [*(of(1, one) for one in others), *(of(20, one) for one in hers)]


@pytest.fixture(scope="module")
def ready(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ready") / "home"
    refresh(make_home(root, week()), engine, PASSING)
    return root


@pytest.fixture
def home(ready: Path, tmp_path: Path) -> Home:
    shutil.copytree(ready, tmp_path / "home")
    return Home(tmp_path / "home")


def the_report(home: Home) -> Report:
    [name] = os.listdir(home.reports)
    found = read_report(home, name)
    assert found is not None
    return found


def holding(home: Home, word: str) -> list[str]:
    """Files of the home that hold a word."""
    return [
        str(p.relative_to(home.path))
        for p in sorted(home.path.rglob("*"))
        if p.is_file() and word.encode() in p.read_bytes()
    ]


def test_figures_are_those_of_the_artefacts(home: Home) -> None:
    told = the_report(home)
    [work] = refresh_folders(home.work)
    result = work.read_json("result.json")
    manifest = read_manifest(home, told.release)
    assert result["report"].endswith(f"reports/{told.release}/report.html")
    assert (told.release, told.parent, told.promoted) == (result["release"], None, True)
    assert told.seconds == result["seconds"] and set(told.seconds) == set(result["stages"])
    assert told.people == 17
    f = told.funnel
    assert (f.interactions, f.heard, f.usable, f.asking) == (
        36 + HERS,
        36 + HERS,
        36 + HERS,
        30 + HERS,
    )
    assert f.train + f.held_out + f.left_out == f.usable
    assert told.routes == {"expert": len(manifest.clusters)}
    assert told.adapter_bytes == sum(a.n_bytes for a in manifest.adapters) > 0
    assert told.scorers["judge"] == {"en": (6, 6)}
    assert len(told.points) == 36 + HERS and told.explained is not None and 0 < told.explained <= 1
    key = lineage_key(home)
    assert set(manifest.lineage) <= set(told.logs)
    assert opaque_id(key, "hers-0") in told.logs
    assert {c.id: (c.size, c.route, c.gap, c.people) for c in manifest.clusters} == {
        c.id: (c.size, c.route, c.gap, c.people) for c in told.clusters
    }
    for one in told.clusters:
        decision = work.read_json(f"clusters/{one.id}/decision.json")
        assert one.decided is not None
        assert one.decided.model_dump(mode="json") == decision["report"]
        compared = work.read_records(f"clusters/{one.id}/expert-compared.jsonl", Compared)
        assert one.won + one.tied + one.lost == one.decided.n == len(compared)
        # The win rate over requests, as the paper's rule has it.
        assert one.decided.win_rate == pytest.approx((one.won + one.tied / 2) / len(compared))
        written = [c.module.usage.output_tokens for c in compared]
        assert one.module_tokens == pytest.approx(sum(written) / len(compared))
        assert one.base_tokens is not None and one.base_tokens > 0
        answers = {(c.base.text.strip(), c.module.text.strip()) for c in compared}
        assert 1 <= len(one.examples) <= 3
        assert all((e.base, e.answer) in answers for e in one.examples)
        held = {opaque_id(key, c.id) for c in compared}
        assert {e.log for e in one.examples} <= held


def test_people_stand_behind_rules_and_what_is_not_taught_is_told(home: Home) -> None:
    told = the_report(home)
    [work] = refresh_folders(home.work)
    taught = {r.run_id: r for r in work.read_records("taught.jsonl", RuleSet)}
    who = {one.run_id: one.user_id for one in week()}
    travel = next(c for c in told.clusters if any(r.text == "sing" for r in c.told))
    sing = next(r for r in travel.told if r.text == "sing")
    [data] = [c for c in clusters_at(work) if c["id"] == travel.id]
    naming = [
        i for i in data["train"] if "sing" in [r.text for r in taught[i].with_feedback]
    ]  # fmt: skip
    assert sing.recurs and sing.named_in == []
    assert (sing.people, sing.logs) == (len({who[i] for i in naming}), len(naming))
    # Her wish is repeated by her alone; that is known where she is in training.
    hers = [i for i in data["train"] if i.startswith("hers-")]
    refused = {r.text: (r.people, r.logs) for r in travel.refused}
    assert len(hers) == HERS and refused == {f"hum{SECRET}": (1, HERS)}


def clusters_at(work: WorkFolder) -> list[dict[str, list[str]]]:
    lines = work.path("clusters-gap.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_where_nothing_passes_the_last_try_is_shown(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs())
    result = refresh(home, engine, TRIED)
    told = the_report(home)
    assert told.verdict.startswith("No module passed its check")
    assert told.routes == {"base": len(told.clusters)}
    for one, summary in zip(
        sorted(told.clusters, key=lambda c: c.id), result.clusters, strict=True
    ):
        assert (one.id, one.change, one.pairs) == (summary.id, "none", summary.pairs)
        assert {t.kind for t in one.reports} == {"expert", "critic"}
        assert not any(t.passed for t in one.reports)
        work = folder_of(home, result)
        last = work.read_records(f"clusters/{one.id}/critic-compared.jsonl", Compared)
        written = {c.module.text.strip() for c in last}
        assert one.examples and {e.answer for e in one.examples} <= written
        assert one.note


def test_the_next_report_tells_what_changed(home: Home, engine: Engine) -> None:
    first = the_report(home)
    make_home(home.root, [log("new-1", TRIP.format(99), "answer", "please sing", user_id="n")])
    result = refresh(home, engine, UNTRAINED)
    assert result.release is not None
    told = read_report(home, result.release)
    assert told is not None and told.parent == first.release
    assert {c.change for c in told.clusters if c.route_before} == {"lost"}
    assert all(c.route_before == "expert" for c in told.clusters if c.route_before)
    assert f"Compared with release {first.release}." in told.changes
    assert any("lost the module" in change for change in told.changes)
    assert read_report(home, first.release) == first


def test_a_refresh_killed_before_its_report_writes_it_with_the_next_call(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path, logs(12))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(refresh_room, "write_report", killed)
        with pytest.raises(KeyboardInterrupt):
            refresh(home, engine, UNTRAINED)
    assert not home.reports.exists()
    [published] = [p.name for p in home.releases.iterdir()]
    result = refresh(home, engine, UNTRAINED)
    assert result.release == published == the_report(home).release
    assert result.report == str(report_paths(home, published).html)
    again = refresh(home, engine, UNTRAINED)
    assert again.unchanged and again.report == result.report
    shutil.rmtree(home.reports)
    assert refresh(home, engine, UNTRAINED).report is None


def test_a_report_that_cannot_be_written_fails_nothing_and_is_told(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, logs(12))
    home.reports.write_text("no folder")
    result = refresh(home, engine, UNTRAINED)
    assert result.release == result.current is not None
    assert result.report is None
    [note] = [n for n in result.notes if "report" in n]
    assert str(result.release) in note and "can't be written" in note


def test_forgetting_deletes_every_report_that_the_person_is_in(home: Home, engine: Engine) -> None:
    own = read_report(home, the_report(home).release)
    assert own is not None
    elsewhere = own.model_copy(update={"release": "r20260101-000000-aaaaaa", "logs": ["other"]})
    write_report(home, elsewhere.without(own.logs).model_copy(update={"clusters": []}))
    (home.reports / own.release / ".report.html-1-ab").write_text(SECRET)  # a write was killed
    (home.reports / elsewhere.release / ".report.html-1-ab").write_text(SECRET)
    assert any(name.startswith("reports/") for name in holding(home, SECRET))
    forget(home, user_id="zora")
    assert holding(home, SECRET) == []
    assert os.listdir(home.reports) == [elsewhere.release]


def test_a_report_goes_for_a_log_that_it_does_not_quote(home: Home) -> None:
    told = the_report(home)
    quoted = {e.log for c in told.clusters for e in c.examples}
    quoted |= {c.request_log or "" for c in told.clusters}
    quoted |= {i for c in told.clusters for r in (*c.told, *c.refused) for i in r.named_in}
    silent = next(i for i in told.logs if i not in quoted)
    take_out(home, [silent], whole=False)
    assert the_report(home) == told
    take_out(home, ["nobody's"], whole=True)
    assert the_report(home) == told
    take_out(home, [silent], whole=True)
    assert os.listdir(home.reports) == []


def test_retention_takes_what_a_report_quotes_and_then_the_report(home: Home) -> None:
    told = the_report(home)
    told.clusters[0].examples[0].log = opaque_id(lineage_key(home), "hers-1")
    told.clusters[0].examples[0].request = f"about {SECRET}"
    write_report(home, told)
    before = sum(len(c.examples) for c in told.clusters)
    assert any(name.startswith("reports/") for name in holding(home, SECRET))
    assert forget_older(home, days=10)["interactions"] == HERS
    left = the_report(home)
    assert not any(name.startswith("reports/") for name in holding(home, SECRET))
    assert sum(len(c.examples) for c in left.clusters) < before
    assert left.logs == told.logs  # whoever is forgotten later is still found
    # Nothing is left to forget, but the report itself has come of age.
    old = left.model_copy(update={"created": NOW - timedelta(days=11)})
    write_report(home, old)
    assert not forget_older(home, days=10)["found"]
    assert os.listdir(home.reports) == []


def test_retention_that_was_cut_off_is_finished_by_the_next_call(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = the_report(home)
    log = told.clusters[0].examples[0].log
    told.clusters[0].examples[0].request = "about the Zorblax"
    write_report(home, told)

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".html":
            raise HomeError("the disk is full")
        write_atomic(path, data)

    with monkeypatch.context() as broken:
        broken.setattr("langchain_uno.reports.store.write_atomic", full)
        with pytest.raises(HomeError):
            take_out(home, [log], whole=False)
    take_out(home, [log], whole=False)
    assert not any(name.startswith("reports/") for name in holding(home, "Zorblax"))


def test_a_report_that_cannot_be_read_is_told_and_forgotten(home: Home) -> None:
    name = the_report(home).release
    path = report_paths(home, name).json
    newer = json.loads(path.read_text(encoding="utf-8")) | {"schema_version": 2}
    path.write_text(json.dumps(newer), encoding="utf-8")
    with pytest.raises(HomeError, match="newer version"):
        read_report(home, name)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(HomeError, match="damaged"):
        read_report(home, name)
    take_out(home, ["anybody"], whole=True)
    assert os.listdir(home.reports) == []


def test_personal_data_in_what_a_model_wrote_is_redacted(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path, logs(12))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(refresh_room, "write_report", stopped)
        with pytest.raises(KeyboardInterrupt):
            refresh(home, engine, TRIED)
    [work] = refresh_folders(home.work)
    for path in work.root.glob("clusters/*/*-compared.jsonl"):
        rows = work.read_records(str(path.relative_to(work.root)), Compared)
        for row in rows:
            row.module.text = "Ask anna.muster@example.org \ud800"
        text = "".join(json.dumps(row.model_dump()) + "\n" for row in rows)
        path.write_text(text.replace("\\ud800", ""), encoding="utf-8")
    refresh(home, engine, TRIED)
    answers = {e.answer for c in the_report(home).clusters for e in c.examples}
    assert answers and all("Ask" in one and "anna" not in one for one in answers)
    assert "anna.muster" not in report_paths(home, the_report(home).release).html.read_text("utf-8")


def test_releases_show_says_where_it_lies(home: Home) -> None:
    name = the_report(home).release
    where = ["releases", "show", "--home", str(home.root)]
    page = str(report_paths(home, name).html)
    plain = RUN.invoke(app, where)
    assert plain.exit_code == 0 and f"Report: {page}" in plain.stdout.splitlines()
    named = RUN.invoke(app, [*where, name, "--json"])
    assert json.loads(named.stdout)["report"] == page
    for wrong in ("r20990101-000000-aaaaaa", "../x"):
        assert RUN.invoke(app, [*where, wrong]).exit_code == 9
    shutil.rmtree(home.reports)
    assert "Report: none" in RUN.invoke(app, where).stdout.splitlines()
    home.traffic.unlink()
    said = RUN.invoke(app, where)
    assert said.exit_code == 9 and "No release is current" in said.stderr


def test_a_damaged_artefact_is_told(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise StoreError("'x' is damaged: delete it.")

    monkeypatch.setattr(refresh_room, "make_report", damaged)
    result = refresh(make_home(tmp_path, logs(12)), engine, UNTRAINED)
    assert result.release is not None and result.report is None
    assert any("'x' is damaged" in note for note in result.notes)
