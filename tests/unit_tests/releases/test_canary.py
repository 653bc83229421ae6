"""A canary: who is on which side, whose vote counts, and what is done about it."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app
from langchain_uno.errors import InputError, ReleaseError
from langchain_uno.home import Home
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.records import (
    ANONYMOUS,
    Feedback,
    Interaction,
    Message,
    by_speaker,
    utc_now,
    voices_of,
)
from langchain_uno.releases import canary
from langchain_uno.releases import publish as publishing
from langchain_uno.releases.history import read_history
from langchain_uno.releases.load import load_release
from langchain_uno.releases.publish import make_current, revoke, rollback
from langchain_uno.releases.sequential import compare
from langchain_uno.releases.taint import taint
from langchain_uno.releases.traffic import Share, Traffic, read_traffic

SHA = "0" * 64
_ids = count()


def split(share: float, key: str = "c1") -> Traffic:
    shares = (
        Share(release=None, share=1 - share),
        Share(release="r2", share=share, manifest_sha256=SHA),
    )
    return Traffic(shares=shares, canary=key)


def side(traffic: Traffic, who: str) -> str | None:
    found = traffic.chosen(who)
    assert found is not None
    return found.release


def current(home: Home) -> str | None:
    traffic = read_traffic(home)
    return traffic.current.release if traffic and traffic.current else None


def shares(home: Home) -> dict[str | None, float]:
    traffic = read_traffic(home)
    return {s.release: s.share for s in traffic.shares} if traffic else {}


def rate(
    home: Home,
    plan: canary.Plan,
    who: str | None,
    score: float | None,
    *,
    candidate: bool,
    **more: Any,
) -> str:
    """An answer of one side, and what somebody says of it."""
    run_id = f"run-{next(_ids)}"
    said = more.pop("said", {})
    answer = Interaction(
        run_id=run_id,
        messages=[Message(role="user", content=f"question {run_id}")],
        answer="an answer",
        user_id=who,
        release=plan.release if candidate else plan.current,
        canary=plan.id,
        **more,
    )
    with Journal(home.journal) as journal:
        journal.append_interaction(answer)
        if score is not None or said:
            journal.append_feedback(Feedback(run_id=run_id, score=score, **said))
    return run_id


def crowd(home: Home, plan: canary.Plan, people: int, up: float, down: float) -> None:
    """People of both sides in turn: the candidate's give ``up``, the others ``down``."""
    for n in range(people):
        on = n % sum(plan.block) == 0
        rate(home, plan, f"user-{n}", up if on else down, candidate=on)


# -- Who is on which side --------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_shares_over_ten_thousand_people(share: float) -> None:
    for key in ("a", "b", "c"):
        traffic = split(share, key)
        n = sum(side(traffic, f"user:{i}") == "r2" for i in range(10_000))
        assert abs(n - 10_000 * share) <= 4 * math.sqrt(10_000 * share * (1 - share))


def test_a_raised_share_only_adds_people() -> None:
    people = [f"user:{i}" for i in range(3000)]
    before: set[str] = set()
    for share in (0.05, 0.2, 0.21, 0.5):
        on = {who for who in people if side(split(share), who) == "r2"}
        assert before < on
        before = on


def test_another_canary_draws_anew() -> None:
    people = [f"user:{i}" for i in range(2000)]
    one, two = ({w for w in people if side(split(0.5, key), w) == "r2"} for key in ("a", "b"))
    assert 400 < len(one & two) < 600


def test_all_processes_agree() -> None:
    words = (
        "import json, sys; from langchain_uno.releases.traffic import Traffic;"
        "t = Traffic.model_validate_json(sys.argv[1]);"
        "print(json.dumps([t.chosen(f'user:{i}').release for i in range(200)]))"
    )
    given = split(0.3).model_dump_json()
    told = subprocess.run([sys.executable, "-c", words, given], capture_output=True, check=True)
    assert json.loads(told.stdout) == [side(split(0.3), f"user:{i}") for i in range(200)]


def test_traffic_of_older_schemas_is_read(home: Home, make: Callable[[], str]) -> None:
    first = make()
    data = json.loads(home.traffic.read_text())
    assert data.pop("schema_version") == 3
    del data["stands_in_for"]
    home.traffic.write_text(json.dumps({**data, "schema_version": 2}))
    assert current(home) == first
    del data["canary"]
    home.traffic.write_text(json.dumps({**data, "schema_version": 1}))
    assert current(home) == first
    for schema in (0, 4, "3", None, True):
        home.traffic.write_text(json.dumps({**data, "schema_version": schema}))
        with pytest.raises(ReleaseError, match="up to 3"):
            read_traffic(home)


def test_a_share_of_the_base_has_no_manifest() -> None:
    for release, sha in ((None, SHA), ("r1", None)):
        with pytest.raises(ValueError, match="sha256"):
            Share(release=release, manifest_sha256=sha)


# -- Starting --------------------------------------------------------------------------------------


def test_a_canary_starts_grows_and_ends(home: Home, make: Callable[[], str]) -> None:
    first, second = make(), make()
    make_current(home, first)
    plan = canary.start(home, second, share=0.2, by="ann", why="a try")
    assert shares(home) == {first: 0.8, second: 0.2}
    assert current(home) == first
    assert (plan.block, plan.current) == ((1, 4), first)
    more = canary.start(home, second, share=0.5)
    assert (more.id, more.block, more.started) == (plan.id, plan.block, plan.started)
    assert shares(home) == {first: 0.5, second: 0.5}
    assert current(home) == first, "of two halves the one that was current"
    with pytest.raises(ReleaseError, match="end it first"):
        canary.start(home, second, share=0.2)
    assert canary.stop(home, by="ann", why="enough")
    assert shares(home) == {first: 1.0}
    assert canary.running(home) is None
    assert canary.look(home).verdict == "stopped"
    assert not canary.stop(home)
    told = [(e["what"], e["release"], e["by"]) for e in read_history(home)][-3:]
    assert told[0] == ("canary with 20 %", second, "ann")
    assert told[1][:2] == ("canary with 50 %", second)
    assert told[2] == ("end canary", second, "ann")


def test_a_canary_leaves_what_the_next_refresh_goes_on_from(
    home: Home, make: Callable[[], str]
) -> None:
    first, second, third = make(), make(), make()
    revoke(home, third, "a test", go_on=True)

    def left() -> str | None:
        traffic = read_traffic(home)
        return traffic.stands_in_for if traffic else None

    assert (current(home), left()) == (second, third)
    canary.start(home, first)
    assert left() == third
    canary.stop(home)
    assert (current(home), left()) == (second, third)
    make_current(home, first)
    assert left() is None


def test_the_first_release_is_tried_against_the_base(home: Home, make: Callable[[], str]) -> None:
    first = make()
    rollback(home, "base")
    plan = canary.start(home, first, share=0.3)
    assert shares(home) == {None: 0.7, first: 0.3}
    assert (plan.current, current(home)) == (None, None)
    canary.stop(home)
    traffic = read_traffic(home)
    assert traffic is not None and traffic.shares == ()


def test_what_cannot_be_tried_is_refused(home: Home, make: Callable[[], str]) -> None:
    first, second, third = make(), make(), make()
    make_current(home, first)
    revoke(home, second, "somebody was forgotten")
    before = home.traffic.read_bytes()
    for name, reason in ((first, "current"), (second, "revoked"), ("nothing", "no release")):
        with pytest.raises(ReleaseError, match=reason):
            canary.start(home, name)
    for wrong in ({"share": 0.0}, {"share": 0.6}, {"people": 1}, {"days": 0.0}):
        with pytest.raises(InputError, match="share from 0.05 to 0.5"):
            canary.start(home, third, **wrong)
    manifest = home.releases / first / "manifest.json"
    manifest.chmod(0o644)
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "embedder_fingerprint": "another"}))
    with pytest.raises(ReleaseError, match="embedder"):
        canary.start(home, third)
    assert home.traffic.read_bytes() == before
    assert canary.running(home) is None


@pytest.mark.parametrize("change", ["promote", "rollback", "retire", "revoke", "erase", "heir"])
def test_whoever_changes_what_answers_ends_it(
    home: Home, make: Callable[[], str], change: str
) -> None:
    zero, first, second = make(), make(), make()
    make_current(home, first)
    canary.start(home, second)
    expected: str | None = first
    if change == "promote":
        make_current(home, second)
        expected = second
    elif change == "rollback":
        rollback(home)
        expected = zero
    elif change == "retire":
        rollback(home, "base")
        expected = None
    elif change == "revoke":
        revoke(home, second, "bad")
    elif change == "erase":
        lineage = json.loads((home.releases / second / "manifest.json").read_text())["lineage"]
        assert set(taint(home, lineage)) == {zero, first, second}
        expected = None
    else:
        revoke(home, first, "bad")
        expected = zero
    assert current(home) == expected, "a candidate never inherits"
    assert canary.running(home) is None
    assert canary.look(home).verdict == "overtaken"
    assert ("end canary", second) in [(e["what"], e["release"]) for e in read_history(home)]
    before = home.traffic.read_bytes()
    assert canary.watch(home).verdict == "overtaken"
    assert home.traffic.read_bytes() == before


# -- Votes -----------------------------------------------------------------------------------------


@pytest.fixture
def plan(home: Home, make: Callable[[], str]) -> canary.Plan:
    first, second = make(), make()
    make_current(home, first)
    return canary.start(home, second, share=0.2, people=100, by="ann")


def counted(home: Home) -> dict[str, tuple[int, float | None]]:
    found = canary.look(home)
    return {
        "candidate": (found.candidate.people, found.candidate.score),
        "current": (found.current.people, found.current.score),
    }


def test_everybody_counts_once_with_their_first_rated_answer(home: Home, plan: canary.Plan) -> None:
    rate(home, plan, "eve", None, candidate=False)  # an answer that nobody rated
    rate(home, plan, "ann", 1.0, candidate=True)
    rate(home, plan, "ann", 0.0, candidate=True)
    rate(home, plan, "ann", 0.0, candidate=False)
    rate(home, plan, "bob", 0.0, candidate=False)
    rate(home, plan, "cid", None, candidate=False, said={"key": "like"})
    rate(home, plan, "dan", None, candidate=False, said={"comment": "too long"})
    rate(home, plan, "fay", None, candidate=False, said={"correction": "so"})
    rate(home, plan, "gus", 0.0, candidate=False, said={"key": "h", "source": "LLM"})
    rate(home, plan, None, 1.0, candidate=False)
    rate(home, plan, None, 1.0, candidate=True, thread_id="t1")
    assert counted(home) == {"candidate": (1, 1.0), "current": (2, 0.5)}


def test_who_speaks_votes_and_may_think_again(home: Home, plan: canary.Plan) -> None:
    run = rate(home, plan, "ann", 1.0, candidate=True, said={"feedback_id": "thumb"})
    with Journal(home.journal) as journal:
        later = utc_now() + timedelta(seconds=1)
        journal.append_feedback(Feedback(run_id=run, score=0.0, user_id="boss"))
        journal.append_feedback(
            Feedback(run_id=run, score=0.0, feedback_id="thumb", created_at=later)
        )
    assert counted(home) == {"candidate": (2, 0.0), "current": (0, None)}


def test_threads_vote_where_nobody_is_named(home: Home, plan: canary.Plan) -> None:
    for thread in ("t1", "t1", "t2", None):
        rate(home, plan, None, 1.0, candidate=True, thread_id=thread)
    assert counted(home)["candidate"] == (2, 1.0)


def test_only_the_canarys_own_answers_count(home: Home, plan: canary.Plan) -> None:
    rate(home, plan.model_copy(update={"id": "another"}), "ann", 1.0, candidate=True)
    early = plan.started - timedelta(days=1)
    rate(home, plan, "bob", 1.0, candidate=True, created_at=early)
    # No cluster took it, and the base answered: it is a request of the candidate's side.
    rate(home, plan, "cid", 0.0, candidate=True, cluster=None, route="base")
    assert counted(home)["candidate"] == (1, 0.0)


@pytest.mark.parametrize("seed", range(12))
def test_votes_are_those_of_joining_the_whole_journal(
    home: Home, plan: canary.Plan, seed: int
) -> None:
    rng = random.Random(seed)
    people = [None, None] if seed % 4 == 0 else [None, *"abcdefghij"]
    told = json.loads((home.path / "canary.json").read_text())
    budget = rng.choice([6, 200])
    (home.path / "canary.json").write_text(json.dumps({**told, "people": budget}))

    def say(name: str) -> Feedback:
        key, score = rng.choice([("like", None), ("comment", None), ("score", rng.random())])
        at = plan.started + timedelta(seconds=rng.uniform(1, 2000))
        some = {"feedback_id": f"f{rng.randrange(40)}"} if rng.random() < 0.3 else {}
        who = rng.choice(people)
        return Feedback(run_id=name, key=key, score=score, user_id=who, created_at=at, **some)

    with Journal(home.journal) as journal:
        talk: list[Message] = []
        for n in range(120):
            asked = Message(role="user", content=rng.choice(["go on", "shorter", f"new {n}"]))
            talk = [*talk, asked] if rng.random() < 0.5 else [asked]
            trace = None if rng.random() < 0.4 else f"trace-{n // 3}"
            log = Interaction(
                run_id=f"answer-{n}", root_run_id=trace, messages=talk, answer=f"answer {n % 9}",
                user_id=rng.choice(people), thread_id=rng.choice([None, "t1", "t2", "t3"]),
                release=rng.choice([plan.release, plan.current]), message_ids=[f"name-{n}"],
                canary=rng.choice([plan.id] * 5 + ["another", None]),
                created_at=plan.started + timedelta(seconds=rng.uniform(1, 1000)),
            )  # fmt: skip
            talk = [*talk, Message(role="assistant", content=log.answer)]
            names = [log.run_id, f"name-{n}", trace or log.run_id, f"answer-{rng.randint(0, n)}"]
            later = rng.choices(names, k=2)
            if rng.random() < 0.3:  # it comes before its answer
                journal.append_feedback(say(later.pop()))
            journal.append_interaction(log)
            for name in later:
                journal.append_feedback(say(name))
            if trace and rng.random() < 0.1:
                journal.append_names([(trace, log.run_id)])
        joined = join(journal)
        given = {run: [f for f in many if f.source != "thread"]
                 for run, many in joined.feedback.items()}  # fmt: skip
        joined.feedback = {run: many for run, many in given.items() if many}
        logs = [log for log in read(journal, joined, list(joined.feedback)) if log.canary]

    def score_of(log: Interaction) -> float | None:
        scores = [(f.created_at, 1.0 if f.score is None else f.score)
                  for f in log.feedback if f.score is not None or f.key == "like"]  # fmt: skip
        return max(scores)[1] if scores else None

    logs = [log for log in logs if log.canary == plan.id and score_of(log) is not None]
    logs = [one for log in logs for one in by_speaker(log)]
    voices = voices_of(logs)
    votes: dict[str, tuple[bool, float]] = {}
    for log in logs:
        score = score_of(log)
        if score is not None and voices[log.run_id] != ANONYMOUS:
            votes.setdefault(voices[log.run_id], (log.release == plan.release, score))
    counts = list(votes.values())[:budget]
    assert len(counts) > 2
    found = canary.look(home)
    assert found.test == compare(counts, plan.block)
    for side, on in ((found.candidate, True), (found.current, False)):
        scores = [score for candidate, score in counts if candidate is on]
        mean = pytest.approx(sum(scores) / len(scores)) if scores else None
        assert (side.people, side.score) == (len(scores), mean)


# -- What is done ----------------------------------------------------------------------------------


def test_a_better_release_is_promoted(home: Home, plan: canary.Plan) -> None:
    crowd(home, plan, 10, 1.0, 0.0)
    assert canary.watch(home).verdict == "running"
    assert shares(home) == {plan.current: 0.8, plan.release: 0.2}
    crowd(home, plan, 60, 1.0, 0.0)
    assert canary.look(home).verdict == "promoted"
    assert current(home) == plan.current, "looking does nothing"
    assert canary.watch(home).verdict == "promoted"
    assert shares(home) == {plan.release: 1.0}
    last = next(e for e in read_history(home)[::-1] if e["what"] == "promote")
    assert (last["release"], last["by"]) == (plan.release, "the canary of ann")
    assert f"{plan.release} 1.00 of" in last["why"]
    assert canary.watch(home).verdict == "promoted"
    assert canary.running(home) is None


def test_a_canary_without_a_name_is_that_of_the_processs_user(
    home: Home, make: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "bo")
    first, second = make(), make()
    make_current(home, first)
    plan = canary.start(home, second, share=0.5)
    crowd(home, plan, 60, 1.0, 0.0)
    assert canary.watch(home).verdict == "promoted"
    begun, promoted = (
        next(e for e in read_history(home)[::-1] if e["what"] == what)
        for what in ("canary with 50 %", "promote")
    )
    assert (begun["by"], promoted["by"]) == ("bo", "the canary of bo")


def test_a_worse_release_is_rolled_back(home: Home, plan: canary.Plan) -> None:
    crowd(home, plan, 60, 0.0, 1.0)
    assert canary.watch(home).verdict == "rolled back"
    assert shares(home) == {plan.current: 1.0}
    assert [e["what"] for e in read_history(home)][-2:] == ["rollback", "end canary"]


def test_a_budget_spent_leaves_what_was_and_asks_a_person(home: Home, plan: canary.Plan) -> None:
    rng = random.Random(3)
    for n in range(101):
        score = float(rng.random() < 0.5)
        rate(home, plan, f"u{n}", score, candidate=n % 5 == 0)
    found = canary.watch(home)
    assert (found.verdict, found.candidate.people + found.current.people) == ("undecided", 100)
    assert shares(home) == {plan.current: 1.0}
    waiting = canary.undecided(home)
    assert waiting is not None and waiting.release == plan.release
    assert "a person decides" in read_history(home)[-1]["why"]
    make_current(home, plan.release)
    assert canary.undecided(home) is None
    make_current(home, plan.current)  # tried by everybody, and taken back: that decides too
    assert canary.undecided(home) is None


def test_days_end_it_too(home: Home, plan: canary.Plan) -> None:
    file = home.path / "canary.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "started": "2026-01-01T00:00:00Z"}))
    assert canary.watch(home).verdict == "undecided"
    assert canary.stop(home, why="left at that")
    assert canary.undecided(home) is None


def test_one_loud_person_decides_nothing(home: Home, plan: canary.Plan) -> None:
    for n in range(35):
        rate(home, plan, f"u{n}", float(n % 2), candidate=n % 5 == 0)
    for _ in range(200):
        rate(home, plan, "loud", 0.0, candidate=True)
    found = canary.watch(home)
    assert found.verdict == "running"
    assert (found.candidate.people, found.current.people) == (8, 28)


def meanwhile(patch: pytest.MonkeyPatch, module: Any, act: Callable[[], object]) -> None:
    """Let a person act while a release is checked, which takes seconds."""

    def load(home: Home, release: str, **settings: Any) -> Any:
        patch.undo()
        act()
        return load_release(home, release, **settings)

    patch.setattr(module, "load_release", load)


def test_a_person_who_goes_back_while_it_is_promoted_has_the_last_word(
    home: Home, plan: canary.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(home, plan, 70, 1.0, 0.0)
    meanwhile(monkeypatch, publishing, lambda: rollback(home, "base", "an incident"))
    assert canary.watch(home).verdict == "overtaken"
    assert current(home) is None
    assert canary.look(home).verdict == "overtaken"


def test_a_person_who_goes_back_while_one_starts_has_the_last_word(
    home: Home, make: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    second = make()
    third = make()
    make_current(home, second)
    meanwhile(monkeypatch, canary, lambda: rollback(home, "base", "an incident"))
    with pytest.raises(ReleaseError, match="Somebody changed"):
        canary.start(home, third)
    assert current(home) is None and canary.running(home) is None


def test_staying_with_the_base_decides_too(home: Home, make: Callable[[], str]) -> None:
    first = make()
    rollback(home, "base")
    plan = canary.start(home, first)
    late = plan.model_copy(update={"started": plan.started - timedelta(days=15)})
    (home.path / "canary.json").write_text(late.model_dump_json())
    assert canary.watch(home).verdict == "undecided"
    assert canary.undecided(home)
    rollback(home, "base", "the base is enough")
    assert canary.undecided(home) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 2}'])
def test_a_damaged_file_is_told(home: Home, plan: canary.Plan, text: str) -> None:
    (home.path / "canary.json").write_text(text)
    with pytest.raises(ReleaseError, match="delete it"):
        canary.watch(home)


# -- The command line ------------------------------------------------------------------------------


def run(home: Home, *words: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, [*words, "--home", str(home.root)])
    assert found.exit_code == code, found.output
    return found.output


def test_the_commands(home: Home, make: Callable[[], str]) -> None:
    first, second = make(), make()
    run(home, "releases", "rollback", "--to", "base")
    assert "There is no canary" in run(home, "releases", "watch", "--once", code=9)
    words = ("releases", "canary", second, "--share", "0.5", "--by", "ann", "--why", "a try")
    assert "answers 50 %" in run(home, *words)
    plan = canary.running(home)
    assert plan is not None and (plan.by, plan.why, plan.current) == ("ann", "a try", None)
    assert "no votes" in run(home, "releases", "watch", "--once", code=13)
    for command in (("releases", "list"), ("status",)):
        assert f"{second} answers 50 %" in run(home, *command)
    crowd(home, plan, 30, 0.0, 1.0)
    shown = json.loads(run(home, "releases", "watch", "--json", code=11))
    assert (shown["verdict"], shown["candidate"]["score"]) == ("rolled back", 0.0)
    assert shown["test"]["worse"] >= 20
    assert current(home) is None
    run(home, "releases", "canary", first, "--days", "0.0000001")
    run(home, "releases", "watch", code=12)
    assert "promote" in run(home, "status")
    assert "has ended" in run(home, "releases", "end-canary")
    assert "No canary" in run(home, "releases", "end-canary")
    run(home, "releases", "watch", "--once", code=14)
    run(home, "releases", "canary", second, "--share", "0.9", code=2)
