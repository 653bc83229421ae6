"""The journal: idempotent, complete, safe among threads, forks and other processes."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from toys import START, log

from langchain_uno.errors import StoreBusyError, StoreError
from langchain_uno.logs.figures import people_in, traffic_since
from langchain_uno.logs.journal import FILE_NAME, Journal
from langchain_uno.logs.migrations import SCHEMA, STEPS
from langchain_uno.records import Feedback


def test_an_interaction_is_appended_once(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert journal.append_interaction(log(1, answer="first"))
        assert not journal.append_interaction(log(1, answer="second"))
        assert journal.counts() == (1, 0)
        assert next(journal.interactions([log(1).run_id])).answer == "first"


def test_records_come_back_as_they_went_in(tmp_path: Path) -> None:
    one = log(
        1,
        "你好 \U0001f44d \x00",
        language="zh",
        thread_id="t",
        user_id="u",
        model="m",
        release="r1",
        cluster="c1",
        route="expert",
        adapter="a",
        tool_calls=[{"name": "f", "args": {"x": [1, None]}, "id": "1"}],
        usage={"input_tokens": 3, "output_tokens": 4},
        tags={"k": "v"},
    )
    with Journal(tmp_path) as journal:
        journal.append_interaction(one)
    with Journal(tmp_path, readonly=True) as journal:
        assert list(journal.interactions([one.run_id])) == [one]


def test_of_one_feedback_id_the_later_stands(tmp_path: Path) -> None:
    def thumb(score: float, minutes: int, run: str = "r") -> Feedback:
        return Feedback(
            feedback_id="f", run_id=run, score=score, created_at=START + timedelta(minutes=minutes)
        )

    with Journal(tmp_path) as journal:
        assert journal.append_feedback(thumb(1.0, 1))
        assert journal.append_feedback(thumb(0.0, 2))
        assert not journal.append_feedback(thumb(1.0, 1)), "an older one changes nothing"
        assert not journal.append_feedback(thumb(1.0, 3, run="other")), "nor one of another run"
        assert [f.score for f in journal.feedback()] == [0.0]


def test_append_many_is_all_or_nothing(tmp_path: Path) -> None:
    bad = log(2)
    object.__setattr__(bad, "thread_id", object())  # SQLite can't bind it
    with Journal(tmp_path) as journal:
        with pytest.raises(Exception, match=r"type|bind|support"):
            journal.append_many([(log(1), None), (bad, None)])
        assert journal.counts() == (0, 0)
        assert journal.append_many([(log(1), {"email": 2}), (log(2), None)]) == (2, 0, 0)
        assert journal.redacted() == {"email": 2}


def test_sixteen_threads_lose_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:

        def work(thread: int) -> None:
            for n in range(50):
                journal.append_interaction(log(thread * 1000 + n))

        threads = [threading.Thread(target=work, args=(t,)) for t in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.counts()[0] == 800
        assert len({row.seq for row in journal.rows()}) == 800


def _append_from_child(folder: str, first: int) -> None:
    with Journal(folder) as journal:
        for n in range(100):
            journal.append_interaction(log(first + n))


def test_processes_share_one_journal(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    children = [
        spawn.Process(target=_append_from_child, args=(str(tmp_path), 1000 * i)) for i in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.counts()[0] == 300


def test_a_fork_goes_on_with_a_connection_of_its_own(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append_interaction(log(1))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                journal.append_interaction(log(2))
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        journal.append_interaction(log(3))
        assert journal.counts()[0] == 3


def test_killed_after_the_call_returned_keeps_the_record(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from langchain_uno.logs.journal import Journal;"
        "from langchain_uno.records import Interaction, Message;"
        "j = Journal(sys.argv[1]);"
        "j.append_interaction(Interaction(run_id='r', answer='a',"
        " messages=[Message(role='user', content='q')]));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with Journal(tmp_path) as journal:
        assert journal.counts()[0] == 1


def test_readonly_never_writes_and_a_missing_journal_is_empty(tmp_path: Path) -> None:
    with Journal(tmp_path / "none", readonly=True) as journal:
        assert journal.counts() == (0, 0)
        with pytest.raises(StoreError, match="for reading only"):
            journal.append_interaction(log(1))
    assert not (tmp_path / "none").exists()


def test_a_locked_journal_says_so(tmp_path: Path) -> None:
    with Journal(tmp_path, timeout_s=0.1) as journal:
        other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError, match="locked by another process"):
            journal.append_interaction(log(1))
        other.execute("ROLLBACK")
        assert journal.append_interaction(log(1))
        other.close()


def test_damaged_newer_and_closed_journals_are_refused_clearly(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, at all. " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Journal(tmp_path)
    for unknown in (SCHEMA + 1, SCHEMA - 1):
        other = sqlite3.connect(tmp_path / "other.sqlite3")
        (tmp_path / "new").mkdir(exist_ok=True)
        other.execute(f"PRAGMA user_version = {unknown}")
        other.execute("CREATE TABLE IF NOT EXISTS t (x)")
        other.commit()
        other.close()
        os.replace(tmp_path / "other.sqlite3", tmp_path / "new" / FILE_NAME)
        with pytest.raises(StoreError, match="upgrade langchain-uno"):
            Journal(tmp_path / "new")
    journal = Journal(tmp_path / "ok")
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        journal.counts()


def test_migrations_are_numbered_and_leave_the_schema_version(tmp_path: Path) -> None:
    assert [step.__name__[:5] for step in STEPS.values()] == [f"m{n:03d}_" for n in STEPS]
    assert sorted(STEPS) == list(STEPS)
    Journal(tmp_path).close()
    db = sqlite3.connect(tmp_path / FILE_NAME)
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_a_journal_of_version_4_opens_and_takes_names(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / FILE_NAME)
    for schema in range(1, 5):
        STEPS[schema](old)
    old.execute("PRAGMA user_version = 4")
    one, waits = log(1), Feedback(run_id="resp_1", score=1.0)
    old.execute(
        "INSERT INTO interactions (run_id, created_at, has_answer, body) VALUES (?, 1.0, 1, ?)",
        (one.run_id, one.model_dump_json()),
    )
    old.execute(
        "INSERT INTO feedback (feedback_id, run_id, created_at, body) VALUES (?, ?, 2.0, ?)",
        (waits.feedback_id, waits.run_id, waits.model_dump_json()),
    )
    old.commit()
    old.close()
    with Journal(tmp_path) as journal:
        assert [row.rank for row in journal.rows()] == [None]
        assert [f.run_id for f in journal.feedback()] == ["resp_1"]
        journal.append_names([("resp_1", one.run_id)])
        assert [f.run_id for f in journal.feedback()] == [one.run_id]


def test_a_record_that_comes_twice_is_one(tmp_path: Path) -> None:
    record = log(1).model_dump(exclude={"feedback"})
    later = {**record, "created_at": log(2).created_at}
    with Journal(tmp_path) as journal:
        assert journal.append_record(record) == journal.append_record(record) == log(1).run_id
        assert journal.append_record(later) not in (None, log(1).run_id)
        assert journal.counts() == (2, 0)


def test_a_language_that_nobody_said_is_detected_when_read(tmp_path: Path) -> None:
    german = log(1, "Schreib bitte einen Brief an den Vermieter", "Sehr geehrter Herr Weber,")
    told = log(2, "Schreib bitte einen Brief an den Vermieter", "Dear Sir", language="en")
    older = {**german.model_dump(exclude={"feedback"}), "run_id": log(3).run_id, "language": "en"}
    with Journal(tmp_path) as journal:
        journal.append_many([(german, None), (told, None)])
        journal.append_record(older)  # as versions wrote that took all Latin script for English
        logs = list(journal.interactions([log(n).run_id for n in (1, 2, 3)]))
        assert [one.language for one in logs] == ["de", "en", "de"]
        journal.note_languages(logs)
        assert [one.language for one in journal.interactions([log(3).run_id])] == ["de"]


def test_an_older_journal_is_counted_by_release_and_user(tmp_path: Path) -> None:
    """Release, cluster and user of old records are found by what a new schema indexes."""
    old = sqlite3.connect(tmp_path / FILE_NAME)
    for schema in range(1, 5):
        STEPS[schema](old)
    old.execute("PRAGMA user_version = 4")
    answers = [
        log(1, user_id="ann", release="r1", cluster="c0", root_run_id="trace-1"),
        log(2, user_id="ann", release="r1"),
        log(3, user_id="bob", root_run_id="trace-3"),
        log(4),
    ]
    for n, one in enumerate(answers, 1):
        row = (one.run_id, one.root_run_id, one.user_id, float(n), one.model_dump_json())
        old.execute(
            "INSERT INTO interactions (run_id, root_run_id, user_id, created_at, has_answer, body) "
            "VALUES (?, ?, ?, ?, 1, ?)",
            row,
        )
    old.commit()
    old.close()
    with Journal(tmp_path) as journal:
        for run, who in (("trace-1", "eve"), (log(4).run_id, "eve"), ("nowhere", "ann")):
            journal.append_feedback(Feedback(run_id=run, score=1.0, user_id=who))
        assert traffic_since(journal, 0.0) == [(None, False, 2), ("r1", False, 1), ("r1", True, 1)]
        assert traffic_since(journal, 1.5) == [(None, False, 2), ("r1", False, 1)]
        assert (len(journal.waiting()), journal.nameless()) == (1, 0)
        told = [(p.user_id, p.answers, p.feedback) for p in people_in(journal)]
        assert told == [("eve", 0, 2), ("ann", 2, 1), ("bob", 1, 0)]
        assert [p.user_id for p in people_in(journal, "n")] == ["ann"]
        for who in ("u-10", "u-2", "u-1", "zoe"):
            journal.append_feedback(Feedback(run_id="nowhere", score=1.0, user_id=who))
        equal = [p.user_id for p in people_in(journal, offset=2, limit=4)]
        assert equal == ["u-1", "u-2", "u-10", "zoe"]
        assert [p.user_id for p in people_in(journal, offset=1, limit=1)] == ["ann"]


def test_counts_of_the_whole_log_read_no_record(tmp_path: Path) -> None:
    """What the console asks of a million logs comes from indexes."""
    with Journal(tmp_path) as journal:
        journal.append_interaction(log(1, user_id="ann"))
        plans = {
            sql: " ".join(
                str(row[-1]) for row in journal.database.read(f"EXPLAIN QUERY PLAN {sql}")
            )
            for sql in (
                "SELECT release, reached, count(*) FROM interactions WHERE created_at > 1 "
                "GROUP BY release, reached ORDER BY release, reached",
                "SELECT user_id, count(*), max(created_at) FROM interactions "
                "WHERE user_id IS NOT NULL GROUP BY user_id",
                "SELECT count(*) FROM feedback WHERE created_at > 1",
                "SELECT 1 FROM interactions WHERE root_run_id = 'x'",
            )
        }
    assert [sql for sql, plan in plans.items() if "INDEX" not in plan] == []
