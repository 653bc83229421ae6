"""The whole refresh on a tiny real model: order, resuming, routes, refusals.

Storage, embeddings, training, adapters, verification and release are the real ones. The tiny
model's words are noise, so a teacher that speaks the toy language distils, revises and judges; an
expert can only tie with noise, and *everything staying with the base* is the right outcome.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from langchain_uno.errors import (
    EmptyLogError,
    EngineError,
    HomeError,
    ModelMismatchError,
    StoreBusyError,
)
from langchain_uno.graphs.checkpoints import WorkFolder
from langchain_uno.graphs.refresh import build_refresh_graph, run_refresh
from langchain_uno.graphs.refresh_context import STAGES, ClusterData, Silent
from langchain_uno.home import Home
from langchain_uno.logs.exchange import find, stats
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import LogStore
from langchain_uno.models.loading import load_embedder
from langchain_uno.models.perplexity import perplexities
from langchain_uno.models.protocols import Engine
from langchain_uno.records import Feedback, Message, RuleSet
from langchain_uno.releases.load import list_releases, read_current
from langchain_uno.releases.manifest import lineage_key, opaque_id
from langchain_uno.testing import make_tiny_model
from tests.unit_tests.graphs.refresh_parts import RECIPE, logs, make_home, refresh, tiny_engine
from tests.unit_tests.learning.toy_language import ToyEngine, log, plain


class Stop(Silent):
    """Stops a refresh as Ctrl-C would, when a stage starts (or a cluster's training ends)."""

    def __init__(self, stage: str, *, after: bool = False) -> None:
        self.stage, self.after = stage, after

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        if stage == self.stage and not self.after:
            raise KeyboardInterrupt

    def advance(self, stage: str, n: int = 1) -> None:
        if stage == self.stage and self.after:
            raise KeyboardInterrupt


def test_the_graph_has_the_named_nodes_in_order() -> None:
    graph = build_refresh_graph().get_graph()
    assert set(STAGES) <= set(graph.nodes)
    edges = {(e.source, e.target) for e in graph.edges}
    assert set(pairwise(STAGES)) <= edges
    assert ("drain", "__end__") in edges  # nothing new


def test_a_whole_refresh_in_which_nothing_passes(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs())
    teacher = ToyEngine()
    result = refresh(home, engine, teacher=teacher)

    assert result.interactions == 24
    assert result.usable == 20
    assert result.dropped == {"praise_only": 4}
    assert result.distilled["rules"] == 20
    assert set(result.seconds) == set(STAGES)
    assert {c.route for c in result.clusters} == {"base"}
    assert sum(c.size for c in result.clusters) == 20
    assert all(c.pairs > 0 and c.judged > 0 for c in result.clusters)
    assert all("critic" in c.note and "expert" in c.note for c in result.clusters)

    release = read_current(home, base_fingerprint=engine.fingerprint)
    assert release is not None
    assert release.id == result.release
    assert release.manifest.adapters == []
    assert [c.size for c in release.manifest.clusters] == [c.size for c in result.clusters]
    assert release.centroids.shape[0] == len(result.clusters)
    assert release.manifest.recipe["expert"]["max_steps"] == 2
    assert "run-000" not in release.manifest.to_json().decode()
    assert engine.adapters() == []

    # The same logs, recipe and models: nothing is done, and nothing is asked.
    asked = len(teacher.asked)
    again = refresh(home, engine, teacher=teacher)
    assert again.unchanged
    assert again.release == result.release
    assert list_releases(home) == [result.release]
    assert len(teacher.asked) == asked

    # A new log is a new refresh; the old work folder goes.
    make_home(tmp_path, [log("new", "plan a trip to Rome by train", "a", "please sing")])
    third = refresh(home, engine, teacher=teacher)
    assert third.refresh_id != result.refresh_id
    assert third.usable == 21
    assert [p.name for p in home.work.glob("refresh-*")] == [third.refresh_id]


def test_a_stopped_refresh_is_finished_by_the_next_call(engine: Engine, tmp_path: Path) -> None:
    home, whole = make_home(tmp_path / "a", logs()), make_home(tmp_path / "b", logs())
    teacher, undisturbed = ToyEngine(), ToyEngine()
    expected = refresh(whole, engine, teacher=undisturbed)
    stops = [Stop(s) for s in ("filter", "distil", "cluster", "gap", "pairs", "train")]
    stops += [Stop("train", after=True), Stop("release")]
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            refresh(home, engine, teacher=teacher, progress=stop)
        assert read_current(home) is None
        assert list_releases(home) == []
        assert engine.adapters() == []
    result = refresh(home, engine, teacher=teacher)
    assert set(result.resumed) == set(STAGES) - {"drain", "release"}
    assert read_current(home) is not None
    # Nothing was asked twice: not one question more than in an undisturbed refresh.
    assert sorted(teacher.roles()) == sorted(undisturbed.roles())
    keep = {"id", "size", "route", "gap", "pairs", "win_rate", "rules", "note"}
    assert [c.model_dump(include=keep) for c in result.clusters] == [
        c.model_dump(include=keep) for c in expected.clusters
    ]


def test_a_refresh_stopped_between_publishing_and_noting_it_publishes_once(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, logs(12))
    with pytest.raises(KeyboardInterrupt):
        refresh(home, engine, progress=Stop("release", after=True))
    [published] = list_releases(home)
    assert refresh(home, engine).release == published
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

    lora = RECIPE.expert.model_copy(update={"learning_rate": 5e-2})
    guards = {"min_length_ratio": 0.0, "min_bleu": -1.0, "decision": "point"}
    recipe = RECIPE.model_copy(
        update={"expert": lora, "verify": RECIPE.verify.model_copy(update=guards)}
    )
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


def test_high_gap_clusters_train_no_expert(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(12))
    recipe = RECIPE.model_copy(update={"gap": RECIPE.gap.model_copy(update={"threshold": 0.0})})
    teacher = ToyEngine()
    result = refresh(home, engine, recipe, teacher=teacher)
    assert all(c.pairs == 0 for c in result.clusters)
    assert all("critic" in c.note and "expert" not in c.note for c in result.clusters)
    assert "edit" not in teacher.roles()  # no answer was revised for nothing


def test_only_one_refresh_at_a_time(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(6))
    with FileLock(home.work / "refresh.lock"), pytest.raises(StoreBusyError, match="Another"):
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


@pytest.mark.parametrize(
    ("said", "why"),
    [([], "has feedback"), (["thanks"], "praise_only"), (["garble"], "no readable rules")],
)
def test_logs_without_usable_feedback(
    engine: Engine, tmp_path: Path, said: list[str], why: str
) -> None:
    home = make_home(tmp_path, [log(f"r{i}", f"question {i}", "answer", *said) for i in range(6)])
    with pytest.raises(EmptyLogError, match=why):
        refresh(home, engine)
    assert read_current(home) is None
    assert not list(home.work.glob("refresh-*"))


def test_logs_in_a_language_without_prompts(engine: Engine, tmp_path: Path) -> None:
    chinese = [log(f"r{i}", f"问题 {i}", "回答", "请用列表", language="zh") for i in range(6)]
    home = make_home(tmp_path, chinese)
    with pytest.raises(EmptyLogError, match=r"are in zh.*real model"):
        refresh(home, engine)


def test_a_home_of_another_base_model_is_refused(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", logs(12))
    first = refresh(home, engine)
    other = tiny_engine(make_tiny_model(tmp_path / "other", seed=1))
    before = {p: p.stat().st_mtime_ns for p in home.path.rglob("*") if p.is_file()}
    with pytest.raises(ModelMismatchError, match="another base model"):
        refresh(home, other)
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
    home = make_home(tmp_path / "edits", edited)
    # Nobody put a wish into words: no gap can be high, and no judge has a standard to judge by.
    strict = RECIPE.model_copy(update={"gap": RECIPE.gap.model_copy(update={"threshold": 0.0})})
    teacher = ToyEngine()
    result = refresh(home, engine, strict, teacher=teacher)
    assert sum(c.pairs for c in result.clusters) == sum(c.train for c in result.clusters) > 0
    assert sum(c.judged for c in result.clusters) == sum(c.verify for c in result.clusters) > 0
    assert "judge" not in teacher.roles()

    # Three who say a word, all the same one, outvote no edits: the expert is tried all the same.
    said = [
        log(f"r{i}", f"question {i} about cats", "a", "please be brief", user_id=f"user-{i}")
        for i in range(8, 11)
    ]
    home = make_home(tmp_path / "words", [*edited, *said])
    result = refresh(home, engine, strict)
    work = WorkFolder(home.work / result.refresh_id)
    assert all(c.edited for c in work.read_records("gaps.jsonl", ClusterData))
    assert all("expert" in c.note for c in result.clusters)

    # One person's edits, however many, don't: people count, not logs.
    flood = [log.model_copy(update={"user_id": "one"}) for log in edited]
    home = make_home(tmp_path / "flood", [*flood, *said])
    work = WorkFolder(home.work / refresh(home, engine, strict).refresh_id)
    assert not any(c.edited for c in work.read_records("gaps.jsonl", ClusterData))


def test_requests_without_reaction_are_verified_on_and_never_learnt_from(
    engine: Engine, tmp_path: Path
) -> None:
    trip = "plan a trip to place {} by train and boat with hotels"
    silent = [log(f"quiet-{u}", trip.format(50 + u), "a", user_id=f"user-{u}") for u in range(8)]
    silent += [
        log("new-person", trip.format(70), "a", user_id="somebody"),
        log("nobody", trip.format(71), "a"),
        log("nobody-again", trip.format(71), "a"),
        log("asked-before", trip.format(0), "a", user_id="somebody"),
        log("chinese", "请帮我安排一次旅行", "a", user_id="somebody", language="zh"),
        log("empty", trip.format(72), "", user_id="somebody"),
        log("later", trip.format(73), "a", user_id="somebody"),
    ]
    turns = [Message(role="user", content="hello"), Message(role="assistant", content="hi")]
    silent[-1] = silent[-1].model_copy(update={"messages": [*turns, *silent[-1].messages]})
    home = make_home(tmp_path / "a", [*logs(), *silent])
    result = refresh(home, engine)

    folder = home.work / result.refresh_id
    clusters = WorkFolder(folder).read_records("gaps.jsonl", ClusterData)
    used = {run for c in clusters for run in c.unlabelled}
    assert {"new-person", "nobody"} <= used
    assert used <= {"new-person", "nobody"} | {f"quiet-{u}" for u in range(8)}
    for cluster in clusters:
        trained = {f"quiet-{int(run[4:]) % 8}" for run in cluster.train}
        assert not trained & set(cluster.unlabelled)
    assert {c.id: c.unlabelled for c in result.clusters} == {
        c.id: len(c.unlabelled) for c in clusters
    }
    assert sum(c.size for c in result.clusters) == 20
    assert any(c.judged > c.verify for c in result.clusters)

    own = RECIPE.model_copy(update={"verify": RECIPE.verify.model_copy(update={"unlabelled": 0})})
    without = refresh(make_home(tmp_path / "b", [*logs(), *silent]), engine, own)
    assert all(c.unlabelled == 0 and c.judged <= c.verify for c in without.clusters)


def test_requests_of_users_in_training_may_be_practised_on(engine: Engine, tmp_path: Path) -> None:
    trip = "plan a trip to place {} by train and boat with hotels"
    silent = [log(f"quiet-{u}", trip.format(50 + u), "a", user_id=f"user-{u}") for u in range(8)]
    pairs = RECIPE.pairs.model_copy(update={"practice": 2})
    result = refresh(
        make_home(tmp_path, [*logs(), *silent]),
        engine,
        RECIPE.model_copy(update={"pairs": pairs}),
    )
    work = WorkFolder(Home.locate(tmp_path).work / result.refresh_id)
    practised: set[str] = set()
    for cluster in work.read_records("gaps.jsonl", ClusterData):
        assert len(cluster.practice) <= 2
        practised |= set(cluster.practice)
        assert not set(cluster.practice) & {*cluster.unlabelled, *cluster.verify}
        trained = {f"quiet-{int(run[4:]) % 8}" for run in cluster.train}
        assert set(cluster.practice) <= trained
        rules = work.read_records(f"clusters/{cluster.id}/rules.jsonl", RuleSet)
        for one in rules[len(cluster.train) :]:  # what recurs stands in for the missing words
            assert one.run_id in cluster.practice
            assert one.wanted == one.with_feedback != []
            assert {r.source for r in one.wanted} == {"aggregated"}
    assert practised
    release = read_current(Home.locate(tmp_path))
    assert release is not None
    key = lineage_key(Home.locate(tmp_path))
    assert {opaque_id(key, run) for run in practised} <= set(release.manifest.lineage)


def test_what_models_said_of_a_log_stands_in_its_record(engine: Engine, tmp_path: Path) -> None:
    vague = [log(f"mute-{i}", f"plan a trip to place {80 + i}", "a", "hum") for i in range(3)]
    home = make_home(tmp_path, [*logs(), *vague])
    refresh(home, engine)
    counted = stats(home)["verdicts"]
    assert counted["nothing_asked"] >= 3
    assert find(home, "mute-1")["verdict"]["reason"] == "nothing_asked"
    with LogStore.open(home, load_embedder(None, engine)) as store:
        store.drain()
        stored = {one.run_id: one.verdict for one in store.interactions()}
    assert stored["mute-1"] is not None
    assert stored["mute-1"].reason == "nothing_asked"
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
    odd = RECIPE.filter.model_copy(update={"max_perplexity": 1.0})
    with pytest.raises(EmptyLogError, match="high_perplexity"):
        refresh(
            make_home(tmp_path / "a", logs()), engine, RECIPE.model_copy(update={"filter": odd})
        )
    fine = RECIPE.filter.model_copy(update={"max_perplexity": 1e30})
    home = make_home(tmp_path / "b", logs())
    result = refresh(home, engine, RECIPE.model_copy(update={"filter": fine}))
    assert "high_perplexity" not in stats(home)["verdicts"]
    assert result.release is not None
