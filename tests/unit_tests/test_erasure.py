"""Forgetting: bytes gone everywhere, releases revoked, nothing comes back, kills made good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from langchain_uno import erasure
from langchain_uno.cli.logs import app
from langchain_uno.erasure import forget, forget_older, forget_preview, resume
from langchain_uno.errors import ConfigError, InputError, ReleaseError, StoreBusyError
from langchain_uno.home import Home
from langchain_uno.logs.erase import choose, named
from langchain_uno.logs.exchange import export_lines, import_file
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import LogStore
from langchain_uno.models.protocols import Engine
from langchain_uno.records import Feedback, Interaction, Message
from langchain_uno.releases.history import read_history
from langchain_uno.releases.load import list_releases, load_release, read_current
from langchain_uno.releases.manifest import lineage_key, opaque_id
from langchain_uno.releases.publish import make_current
from langchain_uno.testing import make_tiny_model
from tests.unit_tests.graphs.refresh_parts import (
    UNTRAINED,
    logs,
    make_home,
    refresh,
    tiny_engine,
)
from tests.unit_tests.learning.toy_language import ToyEmbedder, log

RUN = CliRunner()
SECRET = "zanzibarquagga"
AUTHOR = "user-id-of-petronella"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("model")
    make_tiny_model(folder)
    made = tiny_engine(folder)
    yield made
    made.close()


def theirs() -> list[Interaction]:
    """Three logs of one person, with the secret in query, answer and feedback."""
    return [
        log(
            f"petronella-run-{i}",
            f"plan a trip to place {SECRET} {i} by train and boat with hotels",
            f"answer with {SECRET}",
            f"please sing {SECRET}",
            user_id=AUTHOR,
            thread_id="petronella-thread",
        )
        for i in range(3)
    ]


def leaks(home: Home) -> list[str]:
    """Files of the home that hold the person's words, ids or thread (all hold "petronella")."""
    needles = [SECRET.encode(), b"petronella"]
    found = []
    for path in sorted(p for p in home.root.rglob("*") if p.is_file()):
        content = path.read_bytes() + path.name.encode()
        if any(needle in content for needle in needles):
            found.append(str(path.relative_to(home.root)))
    return found


def ids(home: Home) -> set[str]:
    return {json.loads(line)["run_id"] for line in export_lines(home)}


def test_a_user_is_gone_from_every_file_and_does_not_come_back(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", [*logs(), *theirs()])
    with Journal(home.journal) as journal:  # their word on somebody else's answer
        journal.append_feedback(
            Feedback(run_id="run-002", feedback_id="f1", comment=SECRET, user_id=AUTHOR)
        )
    clean = refresh(home, engine)
    old_export = tmp_path / "old.jsonl"
    old_export.write_text("\n".join(export_lines(home)) + "\n", encoding="utf-8")
    assert {"journal/journal.sqlite3", "chroma/chroma.sqlite3"} <= set(leaks(home))
    assert any(name.startswith("work/refresh-") for name in leaks(home))
    assert clean.release is not None

    steps: list[str] = []
    receipt = forget(home, user_id=AUTHOR, on_step=steps.append)
    assert steps == list(erasure.STEPS)
    assert receipt["interactions"] == 3
    assert receipt["feedback"] == 4
    assert receipt["releases_tainted"] == 1
    assert receipt["finished"]
    assert leaks(home) == []
    assert SECRET not in json.dumps(receipt)
    told = read_history(home)[-1]
    assert (told["what"], told["release"]) == ("forget user", None)
    assert told["why"] == "3 answers, 4 pieces of feedback, 1 release revoked"
    assert len(ids(home)) == 24

    # The release is refused for good, and the base answers.
    assert list_releases(home) == [clean.release]
    assert read_current(home) is None
    for use in (load_release, make_current):
        with pytest.raises(ReleaseError, match="revoked"):
            use(home, clean.release)

    again = import_file(old_export, home)
    assert (again.forgotten, again.interactions, again.feedback) == (3, 0, 0)
    assert leaks(home) == []
    with Journal(home.journal) as journal:
        late = Feedback(run_id="petronella-run-1", comment=SECRET)
        assert not journal.append_feedback(late)
        # Afterwards the same person may come back.
        assert journal.append_interaction(log("new-run", "hello again", "hi", user_id=AUTHOR))
    with LogStore.open(home, ToyEmbedder()) as store:
        assert store.drain() == 25
        assert store.count() == 25
    result = refresh(home, engine)
    assert result.release not in (None, clean.release)
    assert read_current(home) is not None


def test_a_release_that_never_saw_them_stays_and_takes_over(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs())
    first = refresh(home, engine).release
    with Journal(home.journal) as journal:
        for one in theirs():
            journal.append_interaction(one)
    second = refresh(home, engine).release
    assert first is not None
    assert second not in (None, first)
    assert forget(home, user_id=AUTHOR)["releases_tainted"] == 1
    current = read_current(home)
    assert current is not None
    assert current.id == first
    key = lineage_key(home)
    assert opaque_id(key, "petronella-run-0") not in current.manifest.lineage


def test_a_release_that_learnt_from_their_word_on_other_peoples_answers_is_revoked(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, logs())
    before = refresh(home, engine, UNTRAINED).release
    with Journal(home.journal) as journal:
        comment = Feedback(run_id="run-002", comment=f"please {SECRET}", user_id=AUTHOR)
        journal.append_feedback(comment)
        first = log("run-800", "plan a trip", "a plan", user_id="user-1", thread_id="shared")
        turn = log("run-900", "please petronella", "so be it", user_id=AUTHOR, thread_id="shared")
        journal.append_interaction(first)
        journal.append_interaction(turn)  # what follows an answer is feedback for it
    after = refresh(home, engine, UNTRAINED).release
    with Journal(home.journal) as journal:
        chosen = choose(journal, named("user", [AUTHOR]))
    assert chosen.run_ids == ["run-900"]
    assert set(chosen.heard_them) == {"run-002", "run-800"}
    before_it = {p: p.read_bytes() for p in home.releases.rglob("*") if p.is_file()}
    seen = forget_preview(home, user_id=AUTHOR)
    assert seen["releases"] == list_releases(home) and seen["finished"] is False
    assert {p: p.read_bytes() for p in home.releases.rglob("*") if p.is_file()} == before_it
    asked = RUN.invoke(app, ["forget", "--user", AUTHOR, "--home", str(home.root), "--dry-run"])
    assert f"This revokes release {after} (answers)." in asked.output
    assert f"This revokes release {before} (ready)." in asked.output
    receipt = forget(home, user_id=AUTHOR)
    told_before = {k: v for k, v in seen.items() if k not in ("releases", "at", "finished")}
    assert {k: receipt[k] for k in told_before} == told_before
    # The first one has the answer in its lineage, and can't tell when the word was said.
    assert receipt["releases_tainted"] == 2
    assert before != after
    assert read_current(home) is None
    assert leaks(home) == []
    with LogStore.open(home, ToyEmbedder()) as store:
        store.drain()
        kept = {one.run_id: one for one in store.interactions()}
    assert len(kept) == 25
    assert "user-1" in {one.user_id for one in kept.values()}
    assert kept["run-800"].feedback == []


@pytest.mark.parametrize("step", erasure.STEPS)
def test_killed_at_any_step_the_next_call_finishes(tmp_path: Path, step: str) -> None:
    home = make_home(tmp_path, [*logs(6), *theirs()])
    (home.work / "refresh-x").mkdir()
    (home.work / "refresh-x" / "logs.jsonl").write_text(SECRET)

    def die(now: str) -> None:
        if now == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forget(home, user_id=AUTHOR, on_step=die)
    if step == "journal":  # nothing had been decided yet
        assert resume(home) == []
        assert len(ids(home)) == 9
    else:
        assert len(ids(home)) == 6, "the journal forgets first, and at once"
        [receipt] = resume(home)
        assert receipt["interactions"] == 3
        assert leaks(home) == []
    assert resume(home) == []


def test_threads_and_runs_take_what_quotes_them(tmp_path: Path) -> None:
    def turn(n: int, *said: tuple[str, str], answer: str, **more: Any) -> Interaction:
        messages = [Message(role=role, content=text) for role, text in said]  # type: ignore[arg-type]
        fields = {"run_id": f"r{n}", "messages": messages, "answer": answer, **more}
        return Interaction.model_validate(fields)

    ask, told = ("user", "where is it?"), ("assistant", "in Zanzibar")
    talk = [
        turn(1, ask, answer="in Zanzibar", thread_id="t", user_id="a"),
        turn(2, ask, told, ("user", "closer?"), answer="Oslo", thread_id="t", user_id="b"),
        turn(3, ("user", "other thing"), answer="yes", thread_id="t", user_id="b"),
        turn(4, ask, answer="no idea", thread_id="u", user_id="b"),
        turn(5, ("user", "mine, unsaid"), answer="ok", thread_id="t"),
        turn(6, ask, told, ("user", "and then?"), answer="Rome"),  # no thread: found by its text
    ]
    home = make_home(tmp_path / "a", talk)
    receipt = forget(home, user_id="a")
    assert ids(home) == {"r3", "r4"}
    assert (receipt["interactions"], receipt["of_these_quoting"]) == (4, 2)

    home = make_home(tmp_path / "b", talk)
    assert forget(home, run_ids=["r2"])["interactions"] == 1
    assert ids(home) == {"r1", "r3", "r4", "r5", "r6"}
    assert forget(home, run_ids=["r1"])["of_these_quoting"] == 1
    assert ids(home) == {"r3", "r4", "r5"}
    home = make_home(tmp_path / "c", talk)
    assert forget(home, thread_id="t")["interactions"] == 5
    assert ids(home) == {"r4"}


def test_feedback_that_comes_meanwhile_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path / "home", theirs())
    with Journal(home.journal) as journal:
        journal.append_names([("msg-1", "petronella-run-1")])
    choose_all = erasure.erase.choose

    def slowly(journal: Journal, asked: Any) -> Any:
        chosen = choose_all(journal, asked)
        for run in ("petronella-run-0", "msg-1"):
            said = Feedback(run_id=run, comment=f"They asked for {SECRET}", user_id="rev")
            assert journal.append_feedback(said)
        return chosen

    monkeypatch.setattr(erasure.erase, "choose", slowly)
    assert forget(home, user_id=AUTHOR)["feedback"] == 5
    assert leaks(home) == []
    with Journal(home.journal) as journal:
        assert journal.feedback() == []


def test_what_changed_of_their_runs_is_forgotten(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", theirs())
    with Journal(home.journal) as journal:
        journal.append_names([("msg-of-petronella", "petronella-run-1")])
        assert len(journal.database.read("SELECT * FROM changes")) == 1
    forget(home, user_id=AUTHOR)
    assert leaks(home) == []


@pytest.mark.parametrize("days", [0, -1.0, float("nan"), 36_501, 1e10])
def test_retention_is_some_days_up_to_a_hundred_years(tmp_path: Path, days: float) -> None:
    home = make_home(tmp_path / "home", theirs())
    with pytest.raises(InputError, match="above 0 and up to 36,500"):
        forget_older(home, days=days)
    home.settings.write_text(f"[logs]\nretention_days = {days}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="retention_days"):
        erasure.keep_promises(home)
    assert not forget_older(home, days=36_500)["found"]


def test_retention_forgets_by_age_and_leaves_releases(engine: Engine, tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    old = [one.model_copy(update={"created_at": now - timedelta(days=40)}) for one in theirs()]
    old = [
        one.model_copy(
            update={
                "feedback": [
                    f.model_copy(update={"created_at": one.created_at}) for f in one.feedback
                ]
            }
        )
        for one in old
    ]
    home = make_home(tmp_path, [*logs(), *old])
    release = refresh(home, engine).release
    receipt = forget_older(home, days=30)
    assert (receipt["interactions"], receipt["feedback"]) == (3, 3)
    assert len(ids(home)) == 24
    assert [name for name in leaks(home) if not name.startswith("releases/")] == []
    current = read_current(home)
    assert current is not None
    assert current.id == release
    assert forget_older(home, days=30)["interactions"] == 0
    with pytest.raises(InputError):
        forget_older(home, days=0)
    home.settings.write_text("[logs]\nretention_days = 1e-9\n")
    erasure.keep_promises(home)  # what every refresh does first
    assert ids(home) == set()


def test_a_refresh_under_way_is_not_disturbed(tmp_path: Path) -> None:
    home = make_home(tmp_path, theirs())
    with FileLock(home.work / "refresh.lock"), pytest.raises(StoreBusyError, match="stop it"):
        forget(home, user_id=AUTHOR)
    assert len(ids(home)) == 3
    for wrong in ({}, {"user_id": "a", "thread_id": "b"}):
        with pytest.raises(InputError, match="one of the three"):
            forget(home, **wrong)  # type: ignore[arg-type]


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_home(tmp_path, [*logs(6), *theirs()])
    where = ["--home", str(tmp_path)]
    shown = RUN.invoke(app, ["show", "petronella-run-1", *where, "--json"])
    assert json.loads(shown.stdout)["verdict"]["reason"] == "ok"
    assert SECRET in RUN.invoke(app, ["show", "petronella-run-1", *where]).stdout
    assert RUN.invoke(app, ["show", "nobody", *where]).exit_code == 2
    asked = RUN.invoke(app, ["forget", "--user", AUTHOR, *where], input="n\n")
    assert asked.exit_code == 2 and "give --yes" in asked.output
    assert "This deletes 3 answers and 3 pieces of feedback." in asked.output
    with monkeypatch.context() as patch:
        terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
        patch.setattr("langchain_uno.cli.logs.sys", terminal)
        asked = RUN.invoke(app, ["forget", "--user", AUTHOR, *where], input="n\n")
        assert asked.exit_code == 1 and "Forget it?" in asked.output
    what = RUN.invoke(app, ["forget", "--user", AUTHOR, *where, "--dry-run", "--json"])
    told = json.loads(what.stdout)
    assert (told["interactions"], told["feedback"], told["releases"]) == (3, 3, [])
    assert not (home.path / "lineage.key").exists()
    assert len(ids(home)) == 9
    assert RUN.invoke(app, ["forget", *where, "--yes"]).exit_code == 2
    done = RUN.invoke(app, ["forget", "--user", AUTHOR, *where, "--json"])
    assert json.loads(done.stdout)["interactions"] == 3
    again = RUN.invoke(app, ["forget", "--user", AUTHOR, *where, "--yes"])
    assert again.exit_code == 0
    assert leaks(home) == []
    assert RUN.invoke(app, ["retain", *where]).exit_code == 2
    kept = RUN.invoke(app, ["retain", *where, "--days", "30", "--json"])
    assert json.loads(kept.stdout)["interactions"] == 0


def test_an_id_that_was_redacted_is_forgotten_by_its_plain_form(tmp_path: Path) -> None:
    home = Home.locate(tmp_path / "home")
    rows = tmp_path / "rows.jsonl"
    asked = [{"role": "user", "content": "Which quay?"}, {"role": "assistant", "content": "Six."}]
    row = {"messages": asked, "user_id": "ola@example.org", "feedback": ["Give the time too"]}
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert import_file(rows, home).interactions == 1
    [line] = export_lines(home)
    assert "ola@example.org" not in line
    assert json.loads(line)["user_id"] == json.loads(line)["feedback"][0]["user_id"] is not None
    assert forget(home, user_id="ola@example.org")["interactions"] == 1
    again = import_file(rows, home)
    assert (again.interactions, again.forgotten) == (0, 1)


@pytest.mark.parametrize("asked", ["petronella@example.org", " Petronella@Example.org"])
def test_a_user_is_found_in_whichever_case_the_address_was_written(
    tmp_path: Path, asked: str
) -> None:
    """Also in logs of versions that kept names as they were written."""
    home = make_home(tmp_path / "home", [*logs()[:2], *theirs()[:1]])
    said = Feedback(run_id="run-001", comment=SECRET, user_id="petronella@example.org")
    with Journal(home.journal) as journal:
        journal.append_feedback(said)
        for table in ("interactions", "feedback"):
            journal.database.write(
                lambda db, table=table: db.execute(
                    f"UPDATE {table} SET user_id = 'PETRONELLA@example.org' "
                    "WHERE user_id LIKE '%petronella%'"
                )
            )
    receipt = forget(home, user_id=asked)
    assert (receipt["interactions"], receipt["feedback"]) == (1, 2)
    assert leaks(home) == []
