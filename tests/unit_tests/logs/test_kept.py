"""What is kept joined is what joining everything anew gives, whatever came in which order."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from shutil import copytree, rmtree

import pytest
from toys import START, WordEmbedder, assistant, log, user

from langchain_uno.erasure import forget
from langchain_uno.errors import StoreError
from langchain_uno.home import Home
from langchain_uno.logs.exchange import import_file, last
from langchain_uno.logs.filters import spoken, verdict, verdicts
from langchain_uno.logs.heard import Logs, heard_of
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.kept import FILE_NAME, KeptLog
from langchain_uno.logs.stats import stats
from langchain_uno.logs.store import LogStore
from langchain_uno.recipe import FilterSettings
from langchain_uno.records import AT_LIMIT, Feedback, Interaction, Verdict, by_speaker

ENGLISH = frozenset({"en"})


def fed(n: int, run: str, text: str = "Shorter, please.", **fields: object) -> Feedback:
    made = START + timedelta(hours=1, minutes=n)
    return Feedback.model_validate(
        {"feedback_id": f"f{n}", "run_id": run, "comment": text, "created_at": made, **fields}
    )


def same_as_whole(home: Home, journal: Journal) -> None:
    """The kept log is what joining, filtering and counting everything anew gives."""
    whole = join(journal)
    with KeptLog(home, journal) as kept:
        mine = kept.joined()
        assert (mine.order, mine.own) == (whole.order, whole.own)
        assert set(mine.feedback) == set(whole.feedback)
        logs = list(read(journal, whole))
        assert list(read(journal, mine)) == logs
        voices = [{log.user_id, *(f.user_id for f in log.feedback)} for log in logs if log.feedback]
        assert kept.nameless == voices.count({None})
        assert kept.digests() == {run_id: whole.digest(run_id) for run_id in whole.order}
        judged = verdicts(logs, FilterSettings(), lambda language: language in ENGLISH)
        passed = [i.run_id for i, v in zip(logs, judged, strict=True) if v.usable]
        first = kept.first_of_equals(lambda one: one in ENGLISH)
        assert first == {run_id: whole.digest(run_id) for run_id in passed}
        assert kept.distinct(lambda one: one in ENGLISH) == len(passed)
        reasons = Counter(v.reason for v in judged)
        reasons["ok"] += reasons.pop("duplicate", 0)
        found: Counter[str] = Counter()
        for _, facts, n in kept.facts():
            found[facts.reason(lambda language: language in ENGLISH)] += n
        assert found == +reasons
        heard = kept.joined(heard=True)
        assert heard.order == [run_id for run_id in whole.order if run_id in whole.feedback]
        said = sorted(kept.heard(), key=lambda one: one.order)
        apart = {one.run_id: one for i in logs if i.feedback for one in by_speaker(i)}
        anew = sorted((one for i in logs for one in heard_of(i)), key=lambda one: one.order)
        assert json.dumps(said, default=bytes.hex) == json.dumps(anew, default=bytes.hex)
        assert dict(Logs(kept.reader(said))) == {i: spoken(one) for i, one in apart.items()}
        for one in said:
            verdict_of = verdict(apart[one.log_id], FilterSettings(), lambda lang: lang in ENGLISH)
            assert one.facts.reason(lambda lang: lang in ENGLISH) == verdict_of.reason
    given = {f.feedback_id for f in journal.feedback()}
    joined = {f.feedback_id for many in whole.feedback.values() for f in many}
    assert len(journal.waiting()) == len(given - joined)


class Traffic:
    """Records of a small service, their feedback and their names, in a random order."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.events: list[object] = []
        n = 0
        for talk in range(8):
            shared = rng.random() < 0.3
            thread = rng.choice([None, f"t{talk}", f"t{talk}", "one thread"])
            asker = rng.choice([None, "ann", "ben"])
            bare, said = rng.random() < 0.3, []
            for turn in range(rng.randrange(1, 4)):
                words = "Hello" if shared and not turn else f"Where is number {talk}, turn {turn}?"
                root = rng.choice([None, f"root-{n}"])
                for _ in range(rng.choice([1, 1, 2])):  # an agent's steps
                    n += 1
                    one = log(
                        n,
                        answer="Hi." if shared and not turn else f"Answer {talk} {turn}.",
                        messages=[*([] if bare else said), user(words)],
                        thread_id=thread,
                        user_id=asker,
                        root_run_id=root,
                        created_at=START + timedelta(minutes=10 * turn + talk, seconds=n),
                    )
                    self.events.append(one)
                    if rng.random() < 0.5:
                        run = rng.choice([one.run_id, root or one.run_id, f"msg-{n}", "nobody"])
                        told = rng.choice([None, "cem"])
                        self.events.append(fed(n, run, user_id=told))
                        self.events.append(fed(n, run, "Longer!", created_at=START))
                    if rng.random() < 0.2:
                        self.events.append(
                            fed(n, one.run_id, words, feedback_id=f"follow-up-{log(n + 1).run_id}")
                        )
                    if rng.random() < 0.3:
                        self.events.append((f"msg-{n}", one.run_id))
                    if root and rng.random() < 0.4:
                        self.events.append((root, one.run_id))
                said += [user(words), assistant(one.answer)]
        rng.shuffle(self.events)


def put(journal: Journal, event: object) -> None:
    if isinstance(event, Interaction):
        journal.append_interaction(event)
    elif isinstance(event, Feedback):
        journal.append_feedback(event)
    else:
        journal.append_names([event])  # type: ignore[list-item]


MORE = [pytest.param(n, marks=pytest.mark.slow) for n in range(12, 300)]


@pytest.mark.parametrize("seed", [*range(12), *MORE])
def test_a_part_at_a_time_is_the_same_as_all_at_once(home: Home, seed: int) -> None:
    rng = random.Random(seed)
    with Journal(home.ensure().journal) as journal:
        for event in Traffic(seed).events:
            put(journal, event)
            if rng.random() < 0.25:
                KeptLog(home, journal).close()
        same_as_whole(home, journal)


def test_a_new_record_joins_what_it_ties_together(home: Home) -> None:
    """Two conversations begin alike; a third record comes late and goes on from both."""
    with Journal(home.ensure().journal) as journal:
        for n in (1, 2):
            journal.append_interaction(log(n, "Hello", "Hi.", thread_id=f"t{n}"))
        same_as_whole(home, journal)
        talk = [user("Hello"), assistant("Hi."), user("And shorter?")]
        journal.append_interaction(log(3, messages=talk))
        same_as_whole(home, journal)
        with KeptLog(home, journal) as kept:
            [[said]] = kept.joined().feedback.values()
            assert said.comment == "And shorter?"


def test_only_what_came_or_changed_is_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    read_now: list[str] = []
    plain = Journal.interactions

    def noted(self: Journal, run_ids: list[str]) -> object:
        read_now.extend(run_ids)
        return plain(self, run_ids)

    with Journal(home.ensure().journal) as journal:
        for n in range(40):
            journal.append_interaction(log(n, thread_id=f"t{n % 10}"))
        KeptLog(home, journal).close()
        monkeypatch.setattr(Journal, "interactions", noted)
        KeptLog(home, journal).close()
        assert read_now == []
        journal.append_feedback(fed(1, log(3).run_id))
        journal.append_interaction(log(40))
        KeptLog(home, journal).close()
        thread = {log(n).run_id for n in (3, 13, 23, 33)}
        assert {log(3).run_id, log(40).run_id} <= set(read_now) <= thread | {log(40).run_id}


def test_changed_feedback_and_a_name_that_comes_late(home: Home) -> None:
    with Journal(home.ensure().journal) as journal:
        for n in (1, 2):
            journal.append_interaction(log(n, root_run_id="root"))
        journal.append_feedback(fed(1, "root"))
        same_as_whole(home, journal)
        journal.append_feedback(fed(1, "root", "Longer!", created_at=START + timedelta(days=2)))
        same_as_whole(home, journal)
        journal.append_names([("root", log(1).run_id)])
        same_as_whole(home, journal)
        with KeptLog(home, journal) as kept:
            assert list(kept.joined().feedback) == [log(1).run_id]
        # What was read goes, but for the last by which the journal is known.
        assert journal.database.read("SELECT name FROM changes") == [("root",)]


def test_what_is_forgotten_is_not_kept(home: Home) -> None:
    with Journal(home.ensure().journal) as journal:
        for n in range(6):
            journal.append_interaction(log(n, user_id=f"u{n % 2}", thread_id=f"t{n % 2}"))
            journal.append_feedback(fed(n, log(n).run_id, f"My secret {n}", user_id=f"u{n % 2}"))
        same_as_whole(home, journal)
        forget(home, user_id="u1")
        assert not (home.work / FILE_NAME).exists()
        same_as_whole(home, journal)
        # Erased by a call that was killed before it got so far:
        journal.database.write(lambda db: db.execute("DELETE FROM interactions WHERE user_id='u0'"))
        journal.database.write(lambda db: db.execute("INSERT INTO erasures (receipt) VALUES ('')"))
        same_as_whole(home, journal)
        with KeptLog(home, journal) as kept:
            assert kept.joined().order == []


@pytest.mark.parametrize(
    "damage", ["garbage", "truncated", "no text", "of another version", "read-only"]
)
def test_a_file_of_no_use_is_made_anew(
    home: Home, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(home.ensure().journal) as journal:
        for n in range(30):
            journal.append_interaction(log(n))
        same_as_whole(home, journal)
        path = home.work / FILE_NAME
        if damage == "garbage":
            path.write_bytes(b"no database at all " * 300)
        elif damage == "truncated":
            path.write_bytes(path.read_bytes()[:9000])
        elif damage == "no text":  # SQLite's message quotes it
            path.write_bytes(path.read_bytes().replace(b"TABLE logs", b"\x90\x91BLE logs"))
        elif damage == "of another version":
            monkeypatch.setattr("langchain_uno.logs.kept.VERSION", 99)
        else:
            monkeypatch.setattr(Path, "mkdir", denied)
        journal.append_feedback(fed(3, log(3).run_id))
        same_as_whole(home, journal)


@pytest.mark.parametrize("where", [
    "logs SET feedback", "facts SET facts", "checks SET verdict", "heard SET said",
    "heard SET facts"])  # fmt: skip
@pytest.mark.parametrize("bad", ["'[1'", "x'ff'", "CAST(x'5bff' AS TEXT)", "7"])
def test_a_damaged_row_is_made_good(home: Home, where: str, bad: str) -> None:
    logs = {log(n).run_id: log(n) for n in range(3)}

    def check(logs: Sequence[Interaction]) -> dict[str, Verdict]:
        return {one.run_id: Verdict(usable=False, reason="too_long") for one in logs}

    with Journal(home.ensure().journal) as journal:
        for one in logs.values():
            journal.append_interaction(one)
            journal.append_feedback(fed(1, one.run_id, feedback_id=one.run_id))
        with KeptLog(home, journal) as kept:
            told = kept.checked("model", logs, check)
        db = sqlite3.connect(home.work / FILE_NAME)
        db.execute(f"UPDATE {where} = {bad}")
        db.commit()
        db.close()
        with KeptLog(home, journal) as kept:
            assert kept.checked("model", logs, check) == told
            assert len(kept.latest(lambda facts: bool(facts.said), 9)) == len(kept.heard()) == 3
        same_as_whole(home, journal)
    db = sqlite3.connect(home.work / FILE_NAME)  # the file is mended, not only what was read
    told = db.execute("SELECT feedback FROM logs UNION ALL SELECT said FROM heard").fetchall()
    assert [len(json.loads(text)) for (text,) in told] == [1] * 6
    db.close()


def test_a_damaged_row_that_is_read_late_is_not_quoted(home: Home) -> None:
    with Journal(home.ensure().journal) as journal:
        journal.append_interaction(log(1))
        journal.append_feedback(fed(1, log(1).run_id))
        KeptLog(home, journal).close()
        db = sqlite3.connect(home.work / FILE_NAME)
        db.execute("""UPDATE logs SET feedback = '[{"comment": "Shorter, please.'""")
        db.commit()
        db.close()
        with KeptLog(home, journal) as kept:
            late = Logs(kept.reader(kept.heard()))
        with pytest.raises(StoreError, match="was damaged and is deleted") as failed:
            list(late.values())
        assert "please" not in str(failed.value)
        same_as_whole(home, journal)


def test_what_is_new_is_found_without_a_walk_through_the_journal(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(home.ensure().journal) as journal:
        for n in range(3):
            journal.append_interaction(log(n))
        KeptLog(home, journal).close()
        journal.append_feedback(fed(3, log(0).run_id))
        read, asked = journal.database.read, list[tuple[str, Sequence[object]]]()

        def reading(sql: str, args: Sequence[object] = ()) -> list[object]:
            asked.append((sql, args))
            return read(sql, args)

        monkeypatch.setattr(journal.database, "read", reading)
        KeptLog(home, journal).close()
        found = [(sql, args) for sql, args in asked if "FROM interactions" in sql]
        plans = [
            step for sql, args in found for *_, step in read(f"EXPLAIN QUERY PLAN {sql}", args)
        ]
    assert len(found) > 1 and "SCAN interactions" not in plans


def test_any_damaged_page_is_made_good(home: Home) -> None:
    with Journal(home.ensure().journal) as journal:
        for n in range(60):
            journal.append_interaction(log(n))
            journal.append_feedback(fed(n, log(n).run_id))
    first = stats(home)
    path = home.work / FILE_NAME
    good = path.read_bytes()
    for at in range(0, len(good), 4096):
        path.write_bytes(good[:at] + b"\0" * 4096 + good[at + 4096 :])
        assert stats(home) == first
        with Journal(home.journal) as journal, KeptLog(home, journal) as kept:
            assert len(kept.joined().feedback) == 60


@pytest.mark.parametrize("kind", ["restored", "removed"])
def test_another_journal_is_joined_anew(home: Home, kind: str) -> None:
    folder, backup = home.ensure().journal, home.path / "backup"

    def add(*numbers: int) -> None:
        with Journal(folder) as journal:
            for n in numbers:
                journal.append_interaction(log(n))
                journal.append_feedback(fed(n, log(n).run_id))

    if kind == "restored":
        add(0, 1)
        copytree(folder, backup)
    add(2, 3)
    with Journal(folder) as journal:
        same_as_whole(home, journal)
    rmtree(folder)
    if kind == "restored":
        backup.rename(folder)
    add(10, 11)
    with Journal(folder) as journal:
        same_as_whole(home, journal)


@pytest.mark.parametrize("told", ["first", "changed", "named"])
def test_what_was_said_anew_after_a_restore_is_joined(home: Home, told: str) -> None:
    """A journal is restored and goes on to the numbers that it had, under the same ids."""
    folder, backup = home.ensure().journal, home.path / "backup"

    def say(n: int, text: str) -> None:
        with Journal(folder) as journal:
            if told == "named":
                journal.append_names([("root", log(n).run_id)])
            else:
                made = START + timedelta(days=len(text))
                journal.append_feedback(fed(n, log(n).run_id, text, created_at=made))
            same_as_whole(home, journal)

    with Journal(folder) as journal:
        for n in (1, 2):
            journal.append_interaction(log(n, root_run_id="root"))
    if told != "first":
        say(1, "One.")
        say(2, "Two.")
        with Journal(folder) as journal:
            journal.append_feedback(fed(3, "root"))
    with Journal(folder) as journal:
        same_as_whole(home, journal)
        journal.checkpoint()
    copytree(folder, backup)
    say(1, "Longer, please.")
    rmtree(folder)
    backup.rename(folder)
    say(1 if told == "first" else 2, "In French!")


def test_a_change_that_was_read_elsewhere_is_not_lost(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = [START + timedelta(days=n) for n in (1, 2)]
    with Journal(home.ensure().journal) as journal:
        journal.append_interaction(log(1))
        journal.append_feedback(fed(1, log(1).run_id))
        same_as_whole(home, journal)
        journal.append_feedback(fed(1, log(1).run_id, "Longer!", created_at=later[0]))
        monkeypatch.setattr(Path, "mkdir", denied)  # the file can't be used this once
        same_as_whole(home, journal)
        monkeypatch.undo()
        same_as_whole(home, journal)
        # By somebody who had a file open that was unlinked since:
        journal.append_feedback(fed(1, log(1).run_id, "In French!", created_at=later[1]))
        journal.database.write(lambda db: db.execute("DELETE FROM changes"))
        same_as_whole(home, journal)


def test_a_run_id_with_a_nul_has_its_feedback(home: Home, tmp_path: Path) -> None:
    talk = [user("What is the capital of France?"), assistant("Paris, of course.")]
    row = {
        "run_id": "run\0one",
        "messages": [message.model_dump(include={"role", "content"}) for message in talk],
        "feedback": [{"comment": "Shorter, please."}],
    }
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert import_file(rows, home.ensure()).feedback == 1
    with Journal(home.journal) as journal:
        journal.append_feedback(fed(1, "run\0one", "Longer!"))
        same_as_whole(home, journal)
        with KeptLog(home, journal) as kept:
            assert [len(said) for said in kept.joined().feedback.values()] == [2]


def denied(self: Path, *args: object, **kwargs: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_counts_need_no_record(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(home.ensure().journal) as journal:
        for n in range(20):
            cut = {"error": AT_LIMIT} if n == 0 else {}  # a token limit is no failure
            asked = log(n % 15 + 100 * (n // 15), f"Ask {n % 15}", "Yes.").model_copy(update=cut)
            journal.append_interaction(asked)
        for n in range(5):
            journal.append_feedback(fed(n, log(n).run_id, score=1.0))
    first = stats(home)
    monkeypatch.setattr(Journal, "interactions", lambda *_: pytest.fail("it reads records"))
    again = stats(home)
    assert again == first
    assert (first["interactions"], first["usable"], first["scores"]) == (20, 5, 5)
    assert first["errors"] == 0
    assert first["verdicts"] == {"no_feedback": 15, "ok": 5}
    monkeypatch.undo()
    assert [one["run_id"] for one in last(home, 2)] == [log(104).run_id, log(103).run_id]


def test_a_check_is_made_once_a_log(home: Home) -> None:
    asked: list[str] = []

    def check(logs: list[Interaction]) -> dict[str, Verdict]:
        asked.extend(one.run_id for one in logs)
        return {logs[0].run_id: Verdict(usable=False, reason="refused_by_template")}

    logs = {log(n).run_id: log(n) for n in range(3)}
    with Journal(home.ensure().journal) as journal:
        for _ in range(2):
            with KeptLog(home, journal) as kept:
                assert list(kept.checked("a model", logs, check)) == [log(0).run_id]
        assert asked == list(logs)
        with KeptLog(home, journal) as kept:
            kept.checked("another model", {log(0).run_id: log(0)}, check)
    assert asked[3:] == [log(0).run_id]


def test_a_drain_that_finds_nothing_new_reads_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(home.ensure().journal) as journal:
        for n in range(10):
            journal.append_interaction(log(n))
    with LogStore.open(home, WordEmbedder()) as store:
        assert store.drain() == 10
    monkeypatch.setattr(Journal, "interactions", lambda *_: pytest.fail("it reads records"))
    with LogStore.open(home, WordEmbedder()) as store:
        assert store.drain() == 0 and store.pending() == 0


def test_a_killed_update_is_done_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(home.ensure().journal) as journal:
        for n in range(5):
            journal.append_interaction(log(n))
        monkeypatch.setattr(KeptLog, "_write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            KeptLog(home, journal)
        monkeypatch.undo()
        db = sqlite3.connect(home.work / FILE_NAME)
        assert db.execute("SELECT count(*) FROM logs").fetchone() == (0,)
        db.close()
        same_as_whole(home, journal)
