"""A run is found by every form of its id: a UUID's text, its digits, large or small, and names."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from test_kept import fed, same_as_whole
from toys import assistant, log, user

from langchain_uno.erasure import forget, forget_older
from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines, export_row, find, import_file, last
from langchain_uno.logs.journal import FILE_NAME, Journal
from langchain_uno.logs.kept import KeptLog
from langchain_uno.logs.migrations import STEPS
from langchain_uno.logs.stats import stats
from langchain_uno.records import Feedback, Interaction

RUN, ROOT = "abcdef00-1111-4222-8333-444455556666", "fedcba00-1111-4222-8333-444455556666"
FORMS: list[Callable[[str], str]] = [
    str,
    str.upper,
    lambda one: UUID(one).hex,
    lambda one: UUID(one).hex.upper(),
    lambda one: f"lc_run--{one}",
]
SECRET = "Nobody may keep these words."


def fed_runs(home: Home, journal: Journal) -> dict[str, int]:
    """Run id -> how much feedback it has."""
    same_as_whole(home, journal)
    with KeptLog(home, journal) as kept:
        return {run_id: len(said) for run_id, said in kept.joined().feedback.items()}


def holds_secret(home: Home) -> list[str]:
    files = [one for one in home.path.rglob("*") if one.is_file()]
    return [one.name for one in files if SECRET.encode() in one.read_bytes()]


def as_row(run_id: str, **more: object) -> dict[str, object]:
    talk = [user("What is the capital of France?"), assistant("Paris, of course.")]
    return {"run_id": run_id, "messages": [m.model_dump(include={"role", "content"}) for m in talk],
            **more}  # fmt: skip


def put_in(home: Home, row: dict[str, object]) -> tuple[int, int, int]:
    """Import one row; return how much is new, logs and feedback, and how much forgotten."""
    rows = home.path / "rows.jsonl"
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    done = import_file(rows, home)
    rows.unlink()
    return done.interactions, done.feedback, done.forgotten


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("named", [RUN, ROOT])
@pytest.mark.parametrize("many", [False, True])
def test_feedback_may_come_first_in_any_form(
    home: Home, form: Callable[[str], str], named: str, many: bool
) -> None:
    one = log(1, run_id=RUN, root_run_id=ROOT)
    with Journal(home.ensure().journal) as journal:
        journal.append_feedback(fed(1, form(named)))
        if many:
            journal.append_interaction(one)
        else:
            journal.append_record(one.model_dump(exclude={"feedback"}))
        journal.append_feedback(fed(2, form(named)))
        assert journal.waiting() == []
        assert fed_runs(home, journal) == {RUN: 2}
    assert find(home, form(named))["run_id"] == RUN
    assert forget(home, run_ids=[form(named)])["interactions"] == 1
    with Journal(home.journal) as journal:
        for other in FORMS:
            assert not journal.append_feedback(fed(3, other(named)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("asked", FORMS)
def test_what_waits_is_forgotten_in_any_form(
    home: Home, form: Callable[[str], str], asked: Callable[[str], str]
) -> None:
    with Journal(home.ensure().journal) as journal:
        journal.append_interaction(log(1))
        journal.append_feedback(fed(1, form(RUN), SECRET))
    assert holds_secret(home)
    receipt = forget(home, run_ids=[asked(RUN)])
    assert (receipt["found"], receipt["feedback"], holds_secret(home)) == (True, 1, [])


def test_names_are_found_by_digits_too(home: Home) -> None:
    record = log(1, run_id=RUN).model_dump(exclude={"feedback"})
    with Journal(home.ensure().journal) as journal:
        journal.append_feedback(fed(1, UUID(ROOT).hex))
        journal.append_record(record)
        other = journal.append_record({**record, "created_at": log(5).created_at})
        assert other not in (None, RUN)
        journal.append_feedback(fed(2, UUID(RUN).hex.upper()))
        journal.append_names([(ROOT, RUN)])
        journal.append_feedback(fed(3, UUID(ROOT).hex))
        journal.append_interaction(log(7, message_ids=[UUID(log(8).run_id).hex]))
        journal.append_feedback(fed(4, log(8).run_id))
        assert journal.run_named(UUID(RUN).hex) == other
        assert fed_runs(home, journal) == {RUN: 2, other: 1, log(7).run_id: 1}
        assert journal.waiting() == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("where", ["run_id", "root_run_id"])
def test_a_run_that_is_imported_under_digits_keeps_them(
    home: Home, form: Callable[[str], str], early: bool, where: str
) -> None:
    digits = UUID(RUN).hex
    one = log(1, **{where: digits})
    with Journal(home.ensure().journal) as journal:
        if not early:
            journal.append_interaction(one)
        journal.append_feedback(fed(1, form(RUN), SECRET))
        if early:
            journal.append_interaction(one)
        journal.append_interaction(log(2))
        assert fed_runs(home, journal) == {one.run_id: 1}
        assert getattr(journal.rows()[0], where) == digits
    assert find(home, form(RUN))[where] == digits
    assert forget(home, run_ids=[form(RUN)])["interactions"] == 1
    assert holds_secret(home) == []
    with Journal(home.journal) as journal:
        assert journal.names() == {}
        assert not journal.append_interaction(one)
        for other in FORMS:
            assert not journal.append_feedback(fed(2, other(RUN)))


def test_a_trace_of_digits_is_found_until_its_last_run_goes(home: Home) -> None:
    digits = UUID(ROOT).hex
    with Journal(home.ensure().journal) as journal:
        for n in (1, 2):
            journal.append_interaction(log(n, root_run_id=digits))
    for n in (1, 2):
        with Journal(home.journal) as journal:
            assert journal.run_named(ROOT) == digits
        forget(home, run_ids=[log(n).run_id])
    with Journal(home.journal) as journal:
        assert journal.names() == {}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("where", ["run_id", "root_run_id"])
@pytest.mark.parametrize("many", [False, True])
def test_the_text_of_a_run_is_not_a_name_of_another_with_its_digits(
    home: Home, late: bool, where: str, many: bool
) -> None:
    digits = UUID(RUN).hex
    captured = log(1, user_id="ann", **{where: RUN})
    imported = log(2, user_id="ben", run_id=digits, feedback=[fed(1, digits, SECRET)])
    with Journal(home.ensure().journal) as journal:
        for one in (imported, captured) if late else (captured, imported):
            if many or one is imported:
                journal.append_interaction(one)
            else:
                journal.append_record(one.model_dump(exclude={"feedback"}))
        assert journal.names() == {}
        journal.append_feedback(fed(2, RUN))
        journal.append_feedback(fed(3, RUN.upper()))
        journal.append_feedback(fed(4, digits))
        assert fed_runs(home, journal) == {captured.run_id: 2, digits: 2}
    assert find(home, RUN)["run_id"] == captured.run_id
    assert find(home, digits)["run_id"] == digits
    receipt = forget(home, user_id="ben")
    assert (receipt["interactions"], receipt["feedback"], holds_secret(home)) == (1, 2, [])
    with Journal(home.journal) as journal:
        assert journal.append_feedback(fed(5, RUN))
        assert fed_runs(home, journal) == {captured.run_id: 3}


def test_a_nul_in_an_export_is_no_part_of_an_id(home: Home) -> None:
    said = fed(1, "k\0run").model_copy(update={"feedback_id": "f\0one"})
    one = log(1, run_id="k\0run", root_run_id="k\0root", message_ids=["k\0m"], feedback=[said])
    assert put_in(home.ensure(), export_row(one)) == (1, 1, 0)
    with Journal(home.journal) as journal:
        assert journal.feedback_of("f\0one") is None
        for name in ("k\0root", "k\0m", "k\0run"):
            journal.append_feedback(fed(len(name), name))
        assert fed_runs(home, journal) == {"k\ufffdrun": 4}
    assert find(home, "k\0m")["root_run_id"] == "k\ufffdroot"
    assert put_in(home, export_row(one)) == (0, 0, 0)
    assert forget(home, run_ids=["k\0run"])["interactions"] == 1
    assert put_in(home, export_row(one)) == (0, 0, 1)


def test_a_home_that_holds_ids_with_a_nul_goes_on_working(home: Home) -> None:
    talk = [log(n, run_id=f"k\0{n}", user_id=f"user-{n}") for n in range(3)]
    with Journal(home.ensure().journal) as journal:
        for one in talk:
            journal.append_interaction(one)
        journal.database.write(
            lambda db: db.execute(
                "INSERT INTO feedback (feedback_id, run_id, created_at, body) VALUES (?, ?, 2, ?)",
                ("f1", talk[0].run_id, fed(1, talk[0].run_id).model_dump_json()),
            )
        )
        assert set(fed_runs(home, journal)) == {"k\x000"}
        with KeptLog(home, journal) as kept:
            ids = [one.run_id for one in talk]
            assert kept.joined(ids) == kept.joined()
            assert {one().run_id for one in kept.reader(kept.heard()).values()} == {"k\x000"}
    assert stats(home)["interactions"] == 3
    assert {row["run_id"] for row in last(home)} == set(ids)
    assert len(list(export_lines(home))) == 3
    assert forget(home, user_id="user-1")["interactions"] == 1
    assert stats(home)["interactions"] == 2


def test_a_row_of_digits_is_imported_once(home: Home) -> None:
    digits = UUID(RUN).hex
    said = [{"run_id": RUN, "comment": "Shorter, please."}]
    row = as_row(digits, feedback=said)
    assert put_in(home.ensure(), row) == (1, 1, 0)
    assert put_in(home, row) == (0, 0, 0)
    with Journal(home.journal) as journal:
        assert fed_runs(home, journal) == {digits: 1}
    forget(home, run_ids=[RUN])
    assert put_in(home, row) == (0, 0, 1)


def test_retention_knows_later_whose_digits_they_were(home: Home) -> None:
    with Journal(home.ensure().journal) as journal:
        journal.append_interaction(log(1, run_id=UUID(RUN).hex))
        journal.append_interaction(log(2))
    forget_older(home, days=1)
    with Journal(home.journal) as journal:
        assert (journal.counts(), journal.names()) == ((0, 0), {})
    assert forget(home, run_ids=[RUN])["found"]


def write_old(home: Home, logs: list[Interaction], said: list[Feedback]) -> None:
    """Write a journal of version 0.1.0, with feedback filed under what it was given for."""
    old = sqlite3.connect(home.ensure().journal / FILE_NAME)
    for schema in range(1, 5):
        STEPS[schema](old)
    old.execute("PRAGMA user_version = 4")
    for one in logs:
        old.execute(
            "INSERT INTO interactions (run_id, root_run_id, user_id, created_at, has_answer, body) "
            "VALUES (?, ?, ?, ?, 1, ?)",
            (
                one.run_id,
                one.root_run_id,
                one.user_id,
                one.created_at.timestamp(),
                one.model_dump_json(),
            ),
        )
    for f in said:
        old.execute(
            "INSERT INTO feedback (feedback_id, run_id, created_at, body) VALUES (?, ?, 2.0, ?)",
            (f.feedback_id, f.run_id, f.model_dump_json()),
        )
    old.commit()
    old.close()


@pytest.mark.parametrize("form", FORMS[2:4])
@pytest.mark.parametrize("named", [RUN, ROOT])
def test_feedback_of_an_old_home_is_filed_anew(
    home: Home, form: Callable[[str], str], named: str
) -> None:
    logs = [
        log(1, run_id=RUN, root_run_id=ROOT, user_id="ann"),
        log(2, user_id="ben"),
        log(3, run_id=UUID(log(3).run_id).hex, user_id="cem"),
        log(4, root_run_id=UUID(log(5).run_id).hex, user_id="dan"),
    ]
    said = [
        fed(1, form(named), SECRET),
        fed(2, log(2).run_id),
        fed(3, logs[2].run_id),
        fed(4, log(3).run_id),
        fed(5, UUID(log(5).run_id).hex),
        fed(6, log(5).run_id),
        fed(7, form(log(9).run_id)),
    ]
    write_old(home, logs, said)
    with Journal(home.journal) as journal:
        found = fed_runs(home, journal)
        assert found == {RUN: 1, log(2).run_id: 1, logs[2].run_id: 2, log(4).run_id: 2}
        assert journal.waiting() == [log(9).run_id]
    assert forget(home, user_id="ann")["feedback"] == 1
    assert holds_secret(home) == []
    with Journal(home.journal, readonly=True) as journal:
        assert sum(fed_runs(home, journal).values()) == 5


def test_an_old_home_may_hold_a_run_and_another_with_its_digits(home: Home) -> None:
    logs = [log(1, run_id=UUID(RUN).hex), log(2, run_id=RUN), log(3, run_id=UUID(ROOT).hex)]
    write_old(home, [*logs, log(4, root_run_id=ROOT)], [fed(1, RUN), fed(2, logs[0].run_id)])
    with Journal(home.journal) as journal:
        assert journal.names() == {}
        assert fed_runs(home, journal) == {logs[0].run_id: 1, RUN: 1}
        journal.append_feedback(fed(3, RUN))
        journal.append_feedback(fed(4, ROOT))
        assert fed_runs(home, journal) == {logs[0].run_id: 1, RUN: 2, log(4).run_id: 1}


def test_an_old_home_opens_where_it_can_only_be_read(home: Home) -> None:
    write_old(home, [log(1, run_id=RUN)], [fed(1, UUID(RUN).hex)])
    with Journal(Path(home.journal), readonly=True) as journal:
        assert fed_runs(home, journal) == {RUN: 1}
