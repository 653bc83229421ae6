"""The whole refresh on a tiny real model: order, resuming, routes, refusals.

Storage, training, adapters, verification and release are the real ones. The tiny model's words are
noise, so a teacher that speaks the toy language distils, revises and judges; an expert can only tie
with noise, and *everything staying with the base* is the right outcome.
"""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from langchain_uno.errors import (
    EmptyLogError,
    EngineError,
    HomeError,
    InputError,
    ModelMismatchError,
    StoreBusyError,
)
from langchain_uno.graphs.refresh import build_refresh_graph, run_refresh
from langchain_uno.home import Home
from langchain_uno.logs.exchange import find
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.stats import stats
from langchain_uno.models.perplexity import perplexities
from langchain_uno.models.protocols import Engine
from langchain_uno.records import STAGES, Feedback, Message, RuleSet
from langchain_uno.releases.load import list_releases, read_current
from langchain_uno.releases.publish import make_current, revoke
from langchain_uno.testing import make_tiny_model
from tests.unit_tests.graphs.refresh_parts import (
    PASSING,
    RECIPE,
    TRIED,
    TRIP,
    UNTRAINED,
    Stop,
    changed,
    clusters_of,
    folder_of,
    logs,
    make_home,
    pairs_of,
    refresh,
    tiny_engine,
)
from tests.unit_tests.learning.toy_language import ToyEngine, log, plain


def test_the_graph_has_the_named_nodes_in_order() -> None:
    graph = build_refresh_graph().get_graph()
    assert set(STAGES) <= set(graph.nodes)
    edges = {(e.source, e.target) for e in graph.edges}
    assert set(pairwise(STAGES)) <= edges
    assert ("filter", "__end__") in edges  # nothing new


def test_a_whole_refresh_in_which_nothing_passes(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs())
    teacher = ToyEngine()
    result = refresh(home, engine, TRIED, teacher=teacher)

    assert (result.interactions, result.usable, result.dropped) == (24, 24, {})
    assert (result.waiting, result.without_user) == (0, 0)
    assert result.stages["distil"]["outcomes"] == {"rules": 20, "empty": 4}
    assert result.stages["distil"]["rules"] == 20
    taught = result.stages["rules"]
    assert taught["distilled"] == taught["taught"] > 0
    assert taught["dropped"] == {}
    assert set(result.seconds) == set(result.stages) == set(STAGES)
    assert {c.route for c in result.clusters} == {"base"}
    assert sum(c.size for c in result.clusters) == 24
    assert all(c.pairs > 0 and c.judged > 0 for c in result.clusters)
    assert all("critic" in c.note and "expert" in c.note for c in result.clusters)

    release = read_current(home, base_fingerprint=engine.fingerprint)
    assert release is not None
    assert release.id == result.release
    assert release.manifest.adapters == []
    assert [c.size for c in release.manifest.clusters] == [c.size for c in result.clusters]
    assert release.centroids.shape[0] == len(result.clusters)
    assert release.manifest.recipe["lora"]["rank"] == 4
    assert "run-000" not in release.manifest.to_json().decode()
    assert engine.adapters() == []

    # The same logs, recipe and models: nothing is done, and nothing is asked.
    asked = len(teacher.asked)
    again = refresh(home, engine, TRIED, teacher=teacher)
    assert again.unchanged
    assert again.release == result.release
    assert list_releases(home) == [result.release]
    assert len(teacher.asked) == asked

    # A new log is a new refresh; of the old logs none is distilled again.
    make_home(tmp_path, [log("new", "plan a trip to Rome by train", "a", "please sing")])
    third = refresh(home, engine, TRIED, teacher=teacher, until="distil")
    assert third.refresh_id != result.refresh_id
    assert third.release is None
    assert third.usable == 25
    assert teacher.roles()[asked:] == ["distil"]
    assert third.stages["distil"]["taken_over"] == 24


def test_a_refresh_stops_after_the_stage_asked_for_and_goes_on_from_there(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, logs(12))
    result = refresh(home, engine, until="rules")
    assert list(result.stages) == ["filter", "distil", "cluster", "rules"]
    assert result.release is None and list_releases(home) == []
    assert set(result.stages["rules"]) >= {"distilled", "taught", "dropped"}
    further = refresh(home, engine, until="gap")
    assert further.resumed == ["filter", "distil", "cluster", "rules"]
    assert further.refresh_id == result.refresh_id
    with pytest.raises(InputError, match="no stage 'drain'"):
        refresh(home, engine, until="drain")


def test_a_stopped_refresh_is_finished_by_the_next_call(engine: Engine, tmp_path: Path) -> None:
    home, whole = make_home(tmp_path / "a", logs()), make_home(tmp_path / "b", logs())
    teacher, undisturbed = ToyEngine(), ToyEngine()
    expected = refresh(whole, engine, teacher=undisturbed)
    stops = [Stop(s) for s in ("filter", "distil", "cluster", "rules", "gap", "pairs", "train")]
    stops += [Stop("train", after=True), Stop("release")]
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            refresh(home, engine, teacher=teacher, progress=stop)
        assert read_current(home) is None
        assert list_releases(home) == []
        assert engine.adapters() == []
    result = refresh(home, engine, teacher=teacher)
    assert set(result.resumed) == set(STAGES) - {"release"}
    assert read_current(home) is not None
    # Nothing was asked twice: not one question more than in an undisturbed refresh.
    assert sorted(teacher.roles()) == sorted(undisturbed.roles())
    keep = {"id", "size", "route", "gap", "pairs", "win_rate", "rules", "note"}
    assert [c.model_dump(include=keep) for c in result.clusters] == [
        c.model_dump(include=keep) for c in expected.clusters
    ]


def test_what_arrives_after_a_kill_is_the_next_refreshs(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(12))
    with pytest.raises(KeyboardInterrupt):
        refresh(home, engine, UNTRAINED, progress=Stop("gap"))
    [under_way] = home.work.glob("refresh-*")
    with Journal(home.journal) as journal:
        # A thumb of who asked, and one of somebody else; and a log of its own.
        journal.append_feedback(Feedback(run_id="run-000", score=0.0, user_id="user-0"))
        journal.append_feedback(Feedback(run_id="run-001", score=1.0, user_id="foreign"))
    make_home(tmp_path, [log("new", "plan a trip to Rome by train", "a", "please sing")])

    first = refresh(home, engine, UNTRAINED)
    assert first.refresh_id == under_way.name
    assert first.resumed[:4] == ["filter", "distil", "cluster", "rules"]
    assert first.usable == 12
    assert any("Feedback on 3 logs came after it began" in note for note in first.notes)

    second = refresh(home, engine, UNTRAINED, until="distil")
    assert second.refresh_id != first.refresh_id
    # The new log, and the foreign thumb, which is a voice of its own.
    assert second.usable == 14


def test_what_is_changed_after_a_kill_is_the_next_refreshs(engine: Engine, tmp_path: Path) -> None:
    """Somebody changes their mind, and so speaks later than others; somebody's clock is behind.

    Reported of other tools: atomantic/PortOS #1251 (a killed training was a total loss).
    """
    home = make_home(tmp_path, logs(12))
    now = datetime.now(timezone.utc)
    own = Feedback(
        feedback_id="mine",
        run_id="run-003",
        comment="please sing",
        user_id="user-3",
        created_at=now,
    )
    other = Feedback(
        feedback_id="other",
        run_id="run-003",
        comment="please dance",
        user_id="foreign",
        created_at=now + timedelta(seconds=1),
    )
    with Journal(home.journal) as journal:
        for one in (own, other):
            journal.append_feedback(one)
    with pytest.raises(KeyboardInterrupt):
        refresh(home, engine, UNTRAINED, progress=Stop("gap"))
    [under_way] = home.work.glob("refresh-*")
    changed_mind = own.model_copy(
        update={"comment": "please hum", "created_at": now + timedelta(seconds=9)}
    )
    early = Feedback(
        run_id="run-001", score=0.0, created_at=now - timedelta(days=9), user_id="late"
    )
    with Journal(home.journal) as journal:
        assert journal.append_feedback(changed_mind) and journal.append_feedback(early)

    first = refresh(home, engine, UNTRAINED)
    assert first.refresh_id == under_way.name
    assert first.resumed[:4] == ["filter", "distil", "cluster", "rules"]
    second = refresh(home, engine, UNTRAINED, until="distil")
    assert second.refresh_id != first.refresh_id
    rules = folder_of(home, second).read_records("distilled.jsonl", RuleSet)
    assert "hum" in {rule.text for one in rules for rule in one.with_feedback}


def test_a_refresh_whose_logs_are_gone_leaves_no_folder(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(12))
    with pytest.raises(KeyboardInterrupt):
        refresh(home, engine, UNTRAINED, progress=Stop("gap"))
    [under_way] = home.work.glob("refresh-*")
    with Journal(home.journal) as journal:  # as an erasure does that is finished elsewhere
        journal.database.write(lambda db: db.execute("DELETE FROM feedback WHERE seq = 1"))
        journal.database.write(lambda db: db.execute("INSERT INTO erasures (receipt) VALUES ('')"))
    result = refresh(home, engine, UNTRAINED, until="filter")
    assert result.refresh_id != under_way.name and not under_way.exists()


def test_a_verdict_of_a_model_is_about_all_that_was_said(engine: Engine, tmp_path: Path) -> None:
    """Of two people who spoke of one answer, one asked for something; of another's answer none."""
    home = make_home(tmp_path, logs(12))
    with Journal(home.journal) as journal:
        for run_id, words in (("run-000", "hum"), ("run-005", "so what")):
            said = Feedback(run_id=run_id, comment=words, user_id="foreign")
            journal.append_feedback(said)
    refresh(home, engine, UNTRAINED, until="distil")
    assert find(home, "run-000")["verdict"]["reason"] == "ok"
    assert find(home, "run-005")["verdict"]["reason"] == "nothing_asked"


def test_times_without_a_zone_are_utc(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(12))
    naive = datetime(2026, 3, 1, 10, 0)  # as many apps have it
    late = log("naive", "plan a trip to Rome by train", "a", "please sing", created_at=naive)
    late.feedback[0] = Feedback(run_id="naive", comment="please sing", created_at=naive)
    with Journal(home.journal) as journal:
        assert journal.append_interaction(late)
        at = journal.database.read("SELECT created_at FROM interactions WHERE run_id = 'naive'")
    assert at == [(naive.replace(tzinfo=timezone.utc).timestamp(),)]
    assert refresh(home, engine, UNTRAINED, until="filter").usable == 13


def test_a_foreign_comment_is_no_news_to_whoever_commented_before(
    engine: Engine, tmp_path: Path
) -> None:
    interactions = logs(12)
    for one in interactions:
        one.feedback[0].user_id = "foreign"
    home = make_home(tmp_path, interactions)
    with pytest.raises(KeyboardInterrupt):
        refresh(home, engine, UNTRAINED, progress=Stop("cluster"))
    with Journal(home.journal) as journal:
        journal.append_feedback(Feedback(run_id="run-001", score=1.0, user_id="user-1"))
    result = refresh(home, engine, UNTRAINED, until="cluster")
    assert result.resumed == ["filter", "distil"]


def test_a_refresh_stopped_between_publishing_and_noting_it_publishes_once(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, logs(12))
    with pytest.raises(KeyboardInterrupt):
        refresh(home, engine, UNTRAINED, progress=Stop("release", after=True))
    [published] = list_releases(home)
    assert refresh(home, engine, UNTRAINED).release == published
    assert list_releases(home) == [published]


def test_a_module_that_wins_is_released(engine: Engine, tmp_path: Path) -> None:
    """The judge likes whatever differs from the base: the *path* to a shipped expert is shown."""
    seen: dict[str, str] = {}

    def fond_of_news(what: dict[str, Any], request: Any) -> str:
        if what["role"] != "judge":
            return plain(what, request)
        first = seen.setdefault(what["query"], what["answer"])
        good = what["answer"] != first or "[" in what["answer"]
        return f"r {9 if good else 2}"

    recipe = changed(RECIPE, expert={"learning_rate": 5e-2}, verify={"level": None})
    home = make_home(tmp_path, logs())
    result = refresh(home, engine, recipe, teacher=ToyEngine(fond_of_news), max_steps=8)
    shipped = [c for c in result.clusters if c.route == "expert"]
    assert shipped
    assert all(c.win_rate is not None and c.win_rate >= 0.53 and c.epoch for c in shipped)
    release = read_current(home)
    assert release is not None
    assert set(release.adapters) == {f"{release.id}-{c.id}-{c.route}" for c in result.clusters}
    name, path = next(iter(release.adapters.items()))
    engine.load_adapter(name, path)
    engine.unload_adapter(name)
    # The authors look at nothing else.
    assert not folder_of(home, result).has("general.json")
    assert all(r.elsewhere is None for c in release.manifest.clusters for r in c.reports)


def test_high_gap_clusters_train_no_expert(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(12))
    teacher = ToyEngine()
    result = refresh(home, engine, changed(TRIED, gap={"threshold": 0.0}), teacher=teacher)
    assert all(c.pairs == 0 for c in result.clusters)
    assert all("critic" in c.note and "expert" not in c.note for c in result.clusters)
    assert "edit" not in teacher.roles()  # no answer was revised for nothing


def test_only_one_refresh_at_a_time(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(6))
    with FileLock(home.work / "refresh.lock"), pytest.raises(StoreBusyError, match="A refresh of"):
        refresh(home, engine)


def test_homes_that_are_missing_or_empty(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="There is no home"):
        refresh(Home(tmp_path / "nowhere"), engine)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "bare").mkdir()
    with pytest.raises(EmptyLogError, match="is empty"):
        refresh(Home(tmp_path / "bare"), engine)
    assert list((tmp_path / "bare").iterdir()) == []
    with pytest.raises(EmptyLogError, match="is empty"):
        refresh(make_home(tmp_path / "made", []), engine)


def test_feedback_that_waits_is_told_with_what_it_waits_for(engine: Engine, tmp_path: Path) -> None:
    unheard = [one.model_copy(update={"feedback": []}) for one in logs(4)]
    home = make_home(tmp_path, unheard)
    with Journal(home.journal) as journal:
        for n in range(3):
            journal.append_feedback(Feedback(run_id=f"my-message-{n}", comment="Shorter."))
    with pytest.raises(EmptyLogError, match=r"\(3\) waits .* 'my-message-0'"):
        refresh(home, engine)
    with Journal(home.journal) as journal:
        journal.append_feedback(Feedback(run_id=unheard[0].run_id, comment="please sing"))
    result = refresh(home, engine, until="filter")
    assert (result.waiting, result.waits_for) == (3, "my-message-0")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([], "has feedback"),
        (["thanks"], "wrote no rule for 6 of 6 logs"),
        (["garble"], "wrote no rule for 6 of 6 logs"),
    ],
)
def test_logs_without_usable_feedback(
    engine: Engine, tmp_path: Path, said: list[str], why: str
) -> None:
    home = make_home(tmp_path, [log(f"r{i}", TRIP.format(i), "answer", *said) for i in range(6)])
    with pytest.raises(EmptyLogError, match=why):
        refresh(home, engine)
    assert read_current(home) is None
    assert not list(home.work.glob("refresh-*"))


def test_logs_in_a_language_without_prompts(engine: Engine, tmp_path: Path) -> None:
    chinese = [log(f"r{i}", f"问题 {i}", "回答", "please sing", language="zh") for i in range(6)]
    home = make_home(tmp_path, chinese)
    with pytest.raises(EmptyLogError, match=r"is in zh.*real model.*filter\.ignore="):
        refresh(home, engine)
    ignoring = changed(RECIPE, filter={"ignore": ["unsupported_language"]})
    result = refresh(home, engine, ignoring, until="rules", teacher=ToyEngine())
    assert result.stages["distil"]["outcomes"] == {"rules": 6}


def test_a_home_of_another_base_model_is_refused(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", logs(12))
    first = refresh(home, engine, PASSING)
    other = tiny_engine(make_tiny_model(tmp_path / "other", seed=1))
    before = {p: p.stat().st_mtime_ns for p in home.path.rglob("*") if p.is_file()}
    with pytest.raises(
        ModelMismatchError, match=f"another base model.*, and this is {other.model_name!r}"
    ):
        refresh(home, other, PASSING)
    assert before == {p: p.stat().st_mtime_ns for p in home.path.rglob("*") if p.is_file()}
    assert read_current(home).id == first.release  # type: ignore[union-attr]
    other.close()


def test_engines_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(6))
    with pytest.raises(EngineError, match="can't be trained"):
        run_refresh(
            home,
            ToyEngine(),  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            prompts=None,  # type: ignore[arg-type]
            recipe=RECIPE,
        )


def test_edits_alone_are_something_to_learn_from(engine: Engine, tmp_path: Path) -> None:
    edited = [
        log(
            f"r{i}",
            f"question {i} about cats",
            f"answer {i}",
            extra=[Feedback(run_id=f"r{i}", key="correction", correction=f"better {i}")],
            user_id=f"user-{i}",
        )
        for i in range(8)
    ]
    home = make_home(tmp_path, edited)
    teacher = ToyEngine()
    result = refresh(home, engine, TRIED, teacher=teacher)
    assert {p.origin for p in pairs_of(home, result)} == {"edited"}
    assert sum(c.pairs for c in result.clusters) == sum(c.train for c in result.clusters) > 0
    # The held-out edits are the standard; there is nothing for a judge to judge by.
    assert sum(c.judged for c in result.clusters) == sum(c.verify for c in result.clusters) > 0
    judged = [what for what, _ in teacher.asked if what["role"] == "judge"]
    assert all("Selma" in what["query"] for what in judged), "but for the control questions"


def test_requests_without_reaction_are_verified_on_and_never_learnt_from(
    engine: Engine, tmp_path: Path
) -> None:
    silent = [log(f"quiet-{u}", TRIP.format(50 + u), "a", user_id=f"user-{u}") for u in range(8)]
    silent += [
        log("new-person", TRIP.format(70), "a", user_id="somebody"),
        log("nobody", TRIP.format(71), "a"),
        log("nobody-again", TRIP.format(71), "a"),
        log("asked-before", TRIP.format(0), "a", user_id="somebody"),
        log("chinese", "请帮我安排一次旅行", "a", user_id="somebody", language="zh"),
        log("empty", TRIP.format(72), "", user_id="somebody"),
        log("later", TRIP.format(73), "a", user_id="somebody"),
    ]
    turns = [Message(role="user", content="hello"), Message(role="assistant", content="hi")]
    silent[-1] = silent[-1].model_copy(update={"messages": [*turns, *silent[-1].messages]})
    home = make_home(tmp_path / "a", [*logs(), *silent])
    result = refresh(home, engine)

    clusters = clusters_of(home, result)
    used = {run for c in clusters for run in c.unlabelled}
    assert {"new-person", "nobody"} <= used
    assert used <= {"new-person", "nobody"} | {f"quiet-{u}" for u in range(8)}
    for cluster in clusters:
        trained = {f"quiet-{int(run[4:]) % 8}" for run in cluster.train}
        assert not trained & set(cluster.unlabelled)
    assert {c.id: c.unlabelled for c in result.clusters} == {
        c.id: len(c.unlabelled) for c in clusters
    }
    assert sum(c.size for c in result.clusters) == 24
    assert any(c.judged > c.verify for c in result.clusters)

    own = changed(RECIPE, verify={"unlabelled": 0})
    other = make_home(tmp_path / "b", [*logs(), *silent])
    without = refresh(other, engine, own, until="gap")
    assert all(not c.unlabelled for c in clusters_of(other, without))


def test_what_the_distiller_said_of_a_log_stands_in_its_record(
    engine: Engine, tmp_path: Path
) -> None:
    vague = [log(f"mute-{i}", f"plan a trip to place {80 + i}", "a", "hum") for i in range(3)]
    home = make_home(tmp_path, [*logs(12), *vague])
    refresh(home, engine, until="distil")
    assert stats(home)["verdicts"]["nothing_asked"] == 3 + 2
    assert find(home, "mute-1")["verdict"]["reason"] == "nothing_asked"
    assert find(home, "run-000")["verdict"]["reason"] == "ok"
    # New words are judged anew.
    with Journal(home.journal) as journal:
        journal.append_feedback(Feedback(run_id="mute-1", comment="please sing"))
    assert find(home, "mute-1")["verdict"]["reason"] == "ok"
    assert find(home, "mute-2")["verdict"]["reason"] == "nothing_asked"


def test_answers_too_surprising_to_the_base_model_are_left_out(
    engine: Engine, tmp_path: Path
) -> None:
    asked = [Message(role="user", content="hi")]
    found = perplexities([(asked, f"answer {i}") for i in range(3)], engine)
    assert all(1.0 < value < 1e6 for value in found)
    home = make_home(tmp_path, logs(12))
    with pytest.raises(EmptyLogError, match="high_perplexity"):
        refresh(home, engine, changed(RECIPE, filter={"max_perplexity": 1.0}))
    fine = changed(RECIPE, filter={"max_perplexity": 1e30})
    assert refresh(home, engine, fine, until="distil").usable == 12
    assert "high_perplexity" not in stats(home)["verdicts"]


# -- How releases that this refresh made fare ------------------------------------------------------


def test_a_revoked_or_rolled_back_release_stays_so_and_the_refresh_says_it(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, logs(12))
    first = refresh(home, engine, UNTRAINED)
    assert first.release is not None
    make_home(tmp_path, [log("new", "plan a trip to Rome by train", "a", "please sing")])
    second = refresh(home, engine, UNTRAINED)
    assert second.release is not None and second.release != first.release

    make_current(home, first.release)
    again = refresh(home, engine, UNTRAINED)
    assert again.unchanged
    assert any("is not current" in note and second.release in note for note in again.notes)
    assert read_current(home).id == first.release  # type: ignore[union-attr]

    make_current(home, second.release)
    assert not any("Nothing is new" in note for note in refresh(home, engine, UNTRAINED).notes)
    revoke(home, second.release, "a test")
    revoke(home, first.release, "a test")
    again = refresh(home, engine, UNTRAINED)
    assert again.unchanged
    assert any("revoked" in note and "the base model answers" in note for note in again.notes)
    assert read_current(home) is None


def test_a_deleted_release_is_made_anew(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(12))
    first = refresh(home, engine)
    assert first.release is not None
    shutil.rmtree(home.releases / first.release)
    teacher = ToyEngine()
    second = refresh(home, engine, teacher=teacher)
    assert not second.unchanged
    assert second.release not in (None, first.release)
    assert read_current(home).id == second.release  # type: ignore[union-attr]
    assert teacher.asked == []  # what was learnt is there still
    assert [c.route for c in second.clusters] == [c.route for c in first.clusters]


# -- A distiller that can't ------------------------------------------------------------------------


@pytest.mark.parametrize("says", ["[]", "Sure! Here are the rules."])
def test_a_broken_distiller_is_named_with_examples_and_remedies(
    engine: Engine, tmp_path: Path, says: str
) -> None:
    def broken(what: dict[str, Any], request: Any) -> str:
        return says if what["role"] == "distil" else plain(what, request)

    asking = [log(f"r{i}", TRIP.format(i), "an answer", f"please sing {i}") for i in range(7)]
    home = make_home(tmp_path / "a", asking)
    with pytest.raises(EmptyLogError) as failed:
        refresh(home, engine, teacher=ToyEngine(broken))
    told = str(failed.value)
    assert "looks broken" in told and "'toy'" in told and "7 of 7 logs" in told
    assert sum(f"'please sing {i}'" in told for i in range(7)) == 3
    assert "--teacher" in told

    # Where there is something else to learn from it is a note.
    edit = Feedback(run_id="e", correction="better")
    home = make_home(
        tmp_path / "b", [*asking, log("e", TRIP.format("E"), "an answer", extra=[edit])]
    )
    result = refresh(home, engine, teacher=ToyEngine(broken), until="distil")
    assert any("7 of 7 logs" in note for note in result.notes)


def test_a_few_logs_that_ask_for_nothing_are_no_broken_distiller(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, [log(f"r{i}", TRIP.format(i), "ok", "thanks") for i in range(4)])
    with pytest.raises(EmptyLogError, match="in 4 the words ask for nothing") as failed:
        refresh(home, engine)
    assert "broken" not in str(failed.value)


def test_a_conversation_without_a_user_is_on_one_side_and_counts_once(
    engine: Engine, tmp_path: Path
) -> None:
    heard = [
        one.model_copy(update={"user_id": None, "thread_id": f"thread-{i // 2 % 8}"})
        for i, one in enumerate(logs(32))
    ]
    # The last turn of each thread: nobody reacted to it.
    silent = [
        log(f"quiet-{t}", TRIP.format(90 + t), "a", thread_id=f"thread-{t}") for t in range(8)
    ]
    home = make_home(tmp_path, [*heard, *silent])
    result = refresh(home, engine)
    work = folder_of(home, result)
    threads = {one.run_id: one.thread_id for one in [*heard, *silent]}
    seen = 0
    for cluster in clusters_of(home, result):
        taught = {threads[i] for i in cluster.train}
        asked = {threads[i] for i in cluster.unlabelled}
        assert not taught & asked
        seen += len(asked)
        name = f"clusters/{cluster.id}/expert.json"
        if work.has(name):
            people = work.read_json(name)["report"]["people"]
            assert people <= len(asked | {threads[i] for i in cluster.verify})
    assert seen
