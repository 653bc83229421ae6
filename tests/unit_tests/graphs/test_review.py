"""Review before training: what people decide is taught, or not, from one refresh to the next."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langchain_uno.erasure import forget, forget_older
from langchain_uno.errors import HomeError, InputError, StoreError
from langchain_uno.graphs.refresh import build_refresh_graph
from langchain_uno.home import Home
from langchain_uno.learning.decisions import FOUND, RULE_ROWS, PairsFound, RuleRow
from langchain_uno.learning.review import ReviewRow, decide, read_decisions, review_table
from langchain_uno.learning.work import RefreshResult, Silent, Work, refresh_folders
from langchain_uno.models.protocols import Engine
from langchain_uno.recipe import Recipe
from langchain_uno.records import Feedback, Interaction, PreferencePair, RuleSet, utc_now
from langchain_uno.releases.history import hold, read_history, waiting
from langchain_uno.releases.load import Release, read_current
from langchain_uno.releases.publish import make_current
from langchain_uno.reports import read_report, report_paths
from tests.unit_tests.graphs.refresh_parts import (
    RECIPE,
    TRIP,
    Stop,
    changed,
    clusters_of,
    folder_of,
    logs,
    make_home,
    pairs_of,
    refresh,
)
from tests.unit_tests.learning.toy_language import (
    ToyEmbedder,
    ToyEngine,
    ToyPrompts,
    ToyReranker,
    log,
)

PASSING = changed(RECIPE, verify={"level": None, "win_rate": 0.0}, cluster={"threshold": 3.5})
START = [one for one in logs(36) if one.feedback_turns != ["thanks"]]


@pytest.fixture(scope="module")
def ready(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose refresh has stopped after the pairs."""
    root = tmp_path_factory.mktemp("ready") / "home"
    refresh(make_home(root, START), engine, PASSING, until="pairs")
    return root


@pytest.fixture
def home(ready: Path, tmp_path: Path) -> Home:
    shutil.copytree(ready, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def released(ready: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a release in which both families have an expert."""
    root = tmp_path_factory.mktemp("released") / "home"
    shutil.copytree(ready, root)
    refresh(Home(root), engine, PASSING)
    return root


@pytest.fixture
def served(released: Path, tmp_path: Path) -> Home:
    shutil.copytree(released, tmp_path / "home")
    return Home(tmp_path / "home")


def rows(home: Home, **what: Any) -> list[ReviewRow]:
    return review_table(home, limit=None, **what).rows


def rule(home: Home, text: str) -> ReviewRow:
    return next(row for row in rows(home, kind="rule") if row.text == text)


def exclude(home: Home, *found: ReviewRow, **more: Any) -> None:
    decide(home, [{"id": one.id, "decision": "exclude", **more} for one in found], by="ann")


def taught(home: Home, result: RefreshResult) -> dict[str, RuleSet]:
    found = folder_of(home, result).read_records("taught.jsonl", RuleSet)
    return {one.run_id: one for one in found}


def training(home: Home, result: RefreshResult) -> list[str]:
    """All that training logs teach, as one text each."""
    known = taught(home, result)
    return [known[i].model_dump_json() for c in clusters_of(home, result) for i in c.train]


def test_the_table_shows_rules_pairs_and_logs(home: Home) -> None:
    page = review_table(home)
    assert (page.finished, page.pending) == (False, 0)
    assert len(page.clusters) == 2
    sing = rule(home, "sing")
    learning = next(c for c in clusters_of(home, _result(page.refresh)) if c.id == sing.cluster)
    voices = {one.user_id for one in START if one.run_id in learning.train}
    assert (sing.people, sing.state, sing.source) == (len(voices), "in", "words")
    assert sing.about.startswith("plan a trip")
    pair = rows(home, kind="pair", cluster=sing.cluster)[0]
    assert (pair.source, pair.scores, pair.people) == ("revised", (10.0, 1.0), 1)
    assert pair.chosen == f"{pair.rejected} [sing]" or pair.chosen == "fresh [sing]"
    one = rows(home, kind="log", cluster=sing.cluster)[0]
    assert one.request is not None and one.request.startswith("plan a trip")
    held = {row.request for row in rows(home, kind="log") if row.reason}
    assert held == _requests(
        [i for c in clusters_of(home, _result(page.refresh)) for i in c.verify]
    )
    every = rows(home)
    assert page.total == len(every) == len({row.id for row in every})
    # Pages are parts of the whole.
    parts = [review_table(home, offset=at, limit=7).rows for at in range(0, page.total, 7)]
    assert [row.id for part in parts for row in part] == [row.id for row in every]


def _result(refresh_id: str | None) -> RefreshResult:
    return RefreshResult(refresh_id=str(refresh_id))


def test_an_excluded_rule_is_in_no_log_no_pair_and_no_manifest(home: Home, engine: Engine) -> None:
    exclude(home, rule(home, "sing"), why="off topic")
    shown = rule(home, "sing")
    assert shown.state == "excluded"
    assert shown.decision is not None
    assert (shown.decision.by, shown.decision.why) == ("ann", "off topic")
    teacher = ToyEngine()
    result = refresh(home, engine, PASSING, teacher=teacher)
    assert "distil" in result.resumed and "cluster" in result.resumed
    assert {"rules", "gap", "pairs"} & set(result.resumed) == set()
    assert "distil" not in teacher.roles()

    assert training(home, result)
    assert not any('"sing"' in one for one in training(home, result))
    assert all("[sing]" not in pair.chosen for pair in pairs_of(home, result))
    release = read_current(home)
    assert release is not None
    assert "sing" not in release.manifest.to_json().decode().replace("missing", "")
    assert result.stages["rules"]["dropped"]["excluded_in_review"] > 0
    # Held-out logs are not judged by it either.
    known = taught(home, result)
    held = [known[i] for c in clusters_of(home, result) for i in c.verify]
    assert held and not any(r.text == "sing" for one in held for r in one.with_feedback)
    assert rule(home, "sing").state == "excluded"
    report = read_report(home, release.id)
    assert report is not None
    refused = [r for c in report.clusters for r in c.refused if r.text == "sing"]
    assert refused and {r.by for r in refused} == {"ann"}
    assert "excluded by <bdi>ann</bdi>" in report_paths(home, release.id).html.read_text()
    assert refresh(home, engine, PASSING).unchanged


def test_what_no_decision_touches_is_not_made_again(home: Home, engine: Engine) -> None:
    exclude(home, rule(home, "sing"))
    teacher = ToyEngine()
    result = refresh(home, engine, PASSING, teacher=teacher, until="pairs")
    assert not [what for what, _ in teacher.asked if what["role"] in ("fresh", "edit")]
    assert {"[dance]" in pair.chosen for pair in pairs_of(home, result)} == {True}


def test_a_cluster_whose_rules_are_excluded_says_so(home: Home, engine: Engine) -> None:
    exclude(home, rule(home, "sing"))
    told = "no held-out log to verify on: their rules were excluded in review"
    assert sorted(told in one.note for one in refresh(home, engine, PASSING).clusters) == [0, 1]


def test_the_next_refresh_does_not_bring_an_excluded_rule_back(home: Home, engine: Engine) -> None:
    exclude(home, rule(home, "sing"))
    refresh(home, engine, PASSING)
    # New people ask for it, in other words too.
    make_home(home.root, more(6, "sing") + more(6, "sing~2", first=200))
    result = refresh(home, engine, PASSING, reranker=Agrees())
    assert not any('"sing' in one for one in training(home, result))
    release = read_current(home)
    assert release is not None
    assert all("sing" not in c.rules for c in release.manifest.clusters)


class Agrees(ToyReranker):
    """Takes wordings of one word for one rule."""

    def _covers(self, a: str, b: str) -> float:
        same = a.partition("~")[0] == b.partition("~")[0]
        return 1.0 if same else super()._covers(a, b)


def more(count: int, wish: str, first: int = 100) -> list[Interaction]:
    return [
        log(f"run-{i}", TRIP.format(i), f"answer {i}", f"please {wish}", user_id=f"new-{i}")
        for i in range(first, first + count)
    ]


def test_restoring_gives_what_was_there(home: Home, engine: Engine) -> None:
    before = {pair.run_id: pair.chosen for pair in pairs_of(home, _result(_refresh(home)))}
    exclude(home, rule(home, "sing"))
    refresh(home, engine, PASSING, until="pairs")
    decide(home, [{"id": rule(home, "sing").id, "decision": "restore"}])
    assert rule(home, "sing").state == "in"
    result = refresh(home, engine, PASSING, until="pairs")
    assert {pair.run_id: pair.chosen for pair in pairs_of(home, result)} == before
    assert [one.what for one in read_decisions(home)] == ["exclude", "restore"]


def _refresh(home: Home) -> str | None:
    return review_table(home, limit=0).refresh


def test_an_edited_rule_is_taught_in_its_place(home: Home, engine: Engine) -> None:
    row = rule(home, "sing")
    decide(home, [{"id": row.id, "decision": "edit", "text": " hum\n softly "}], by="ann")
    shown = rule(home, "sing")
    assert (shown.state, shown.edited) == ("edited", "hum softly")
    result = refresh(home, engine, PASSING, until="pairs")
    texts = training(home, result)
    assert not any('"sing"' in one for one in texts)
    assert any('"hum softly"' in one for one in texts)
    cluster = next(c for c in clusters_of(home, result) if c.id == row.cluster)
    assert cluster.rules == ["hum softly"]
    chosen = [p.chosen for p in pairs_of(home, result) if p.run_id in cluster.train]
    assert chosen and all("[hum softly]" in text for text in chosen)


def test_a_rule_of_ones_own_reaches_pairs_gap_and_manifest(home: Home, engine: Engine) -> None:
    row = rule(home, "sing")
    add = {"decision": "add", "cluster": row.cluster, "text": "whistle"}
    decide(home, [add], by="ann", why="the house's style")
    own = rule(home, "whistle")
    assert (own.state, own.source, own.cluster) == ("own", "own", row.cluster)
    result = refresh(home, engine, PASSING)
    cluster = next(c for c in clusters_of(home, result) if c.id == row.cluster)
    assert cluster.rules == ["sing", "whistle"]
    known = taught(home, result)
    for log_id in cluster.train:
        assert [r.text for r in known[log_id].wanted] == ["sing", "whistle"]
        assert {r.source for r in known[log_id].wanted if r.text == "whistle"} == {"own"}
    mine = [p for p in pairs_of(home, result) if p.run_id in cluster.train]
    assert mine and all("[sing] [whistle]" in pair.chosen for pair in mine)
    assert not any("[whistle]" in p.chosen for p in pairs_of(home, result) if p not in mine)
    release = read_current(home)
    assert release is not None
    assert release.cluster(row.cluster).rules == ["sing", "whistle"]
    assert release.manifest.figures["review"]["own"] == {row.cluster: {"whistle": "ann"}}
    report = read_report(home, release.id)
    assert report is not None
    [own_rule] = [r for c in report.clusters for r in c.told if r.text == "whistle"]
    assert (own_rule.by, own_rule.people) == ("ann", 0)
    assert "written by <bdi>ann</bdi>" in report_paths(home, release.id).html.read_text()

    exclude(home, rule(home, "whistle"))
    assert not [one for one in rows(home, kind="rule") if one.text == "whistle"]
    gone = refresh(home, engine, PASSING, until="rules")
    assert not any("whistle" in one for one in training(home, gone))


def test_a_rule_of_ones_own_takes_the_place_of_all_that_people_asked_for(
    home: Home, engine: Engine
) -> None:
    row = rule(home, "sing")
    exclude(home, row)
    decide(home, [{"decision": "add", "cluster": row.cluster, "text": "whistle"}], by="ann")
    result = refresh(home, engine, PASSING, until="pairs")
    cluster = next(c for c in clusters_of(home, result) if c.id == row.cluster)
    mine = [p for p in pairs_of(home, result) if p.run_id in cluster.train]
    assert len(mine) == len(cluster.train)
    assert all("[whistle]" in p.chosen and "[sing]" not in p.chosen for p in mine)


def test_pairs_are_excluded_and_edited_one_by_one(home: Home, engine: Engine) -> None:
    first, second, *others = rows(home, kind="pair")
    edit = {"id": second.id, "decision": "edit", "text": "a better one [sing]"}
    decide(home, [{"id": first.id, "decision": "exclude"}, edit], by="ann")
    teacher = ToyEngine()
    result = refresh(home, engine, PASSING, until="pairs", teacher=teacher)
    assert not [what for what, _ in teacher.asked if what["role"] in ("fresh", "edit")]
    chosen = [pair.chosen for pair in pairs_of(home, result)]
    assert len(chosen) == len(others) + 1
    assert chosen.count("a better one [sing]") == 1
    same = [row.chosen for row in others].count(second.chosen)
    assert chosen.count(second.chosen) == same
    states = {row.id: row.state for row in rows(home, kind="pair")}
    assert [states[first.id], states[second.id]] == ["excluded", "edited"]
    assert {states[row.id] for row in others} == {"in"}


def test_an_excluded_log_is_on_no_side(home: Home, engine: Engine) -> None:
    cluster = clusters_of(home, _result(_refresh(home)))[0]
    ids = [cluster.train[0], cluster.verify[0]]
    found = [r for r in rows(home, kind="log") if r.request in _requests(ids)]
    assert len(found) == 2
    exclude(home, *found)
    result = refresh(home, engine, PASSING, until="pairs")
    for c in clusters_of(home, result):
        assert not {*ids} & {*c.train, *c.verify}
    assert not {*ids} & {pair.run_id for pair in pairs_of(home, result)}


def _requests(ids: list[str]) -> set[str]:
    return {one.messages[-1].content for one in START if one.run_id in ids}


def test_decisions_alone_make_a_new_release(served: Home, engine: Engine) -> None:
    first = read_current(served)
    assert first is not None
    assert {c.route for c in first.manifest.clusters} == {"expert"}
    sing = rule(served, "sing")
    exclude(served, sing)
    assert review_table(served).pending == 1
    teacher = ToyEngine()
    result = refresh(served, engine, PASSING, teacher=teacher)
    second = read_current(served)
    assert second is not None and second.id == result.release != first.id
    assert not {"distil", "predict"} & set(teacher.roles())
    # The other cluster's module is the very same; this one's is not what learnt the rule.
    for cluster in second.manifest.clusters:
        if cluster.id == sing.cluster:
            assert cluster.rules == [] and cluster.route == "base"
        else:
            assert _weights(second, cluster.adapter) == _weights(
                first, first.cluster(cluster.id).adapter
            )
    assert review_table(served).pending == 0


def _weights(release: Any, adapter: str | None) -> bytes:
    data: bytes = (release.adapters[adapter] / "adapter_model.safetensors").read_bytes()
    return data


def test_a_module_that_learnt_a_rule_of_ones_own_goes_with_it(served: Home, engine: Engine) -> None:
    row = rule(served, "sing")
    decide(served, [{"decision": "add", "cluster": row.cluster, "text": "whistle"}])
    with_it = read_after(served, engine, more(1, "sing"))
    assert with_it.cluster(row.cluster).rules == ["sing", "whistle"]
    exclude(served, rule(served, "whistle"))
    without = read_after(served, engine, more(1, "sing", first=300))
    assert without.cluster(row.cluster).made_in is None
    cluster = next(c for c in clusters_of(served, _result(_refresh(served))) if c.id == row.cluster)
    assert cluster.overruled
    other = next(c for c in clusters_of(served, _result(_refresh(served))) if c.id != row.cluster)
    assert not (other.overruled or other.restored)


def read_after(
    home: Home, engine: Engine, new: list[Interaction], recipe: Recipe = PASSING
) -> Release:
    make_home(home.root, new)
    refresh(home, engine, recipe)
    release = read_current(home)
    assert release is not None
    return release


@pytest.mark.parametrize("what", ["pair", "log"])
def test_a_module_that_learnt_what_is_excluded_is_not_kept(
    served: Home, engine: Engine, what: Any
) -> None:
    first = read_current(served)
    assert first is not None
    row = rule(served, "sing")
    other = next(c.id for c in first.manifest.clusters if c.id != row.cluster)
    pair = rows(served, kind="pair", cluster=row.cluster)[0]
    found = [r for r in rows(served, kind=what, cluster=row.cluster) if r.request == pair.request]
    exclude(served, *found)
    make_home(served.root, more(1, "sing"))
    refresh(served, engine, PASSING)
    second = read_current(served)
    assert second is not None
    assert second.cluster(other).made_in == first.id
    assert second.cluster(row.cluster).made_in is None
    # Whoever learnt without it is kept the next time.
    make_home(served.root, more(1, "sing", first=300))
    refresh(served, engine, PASSING)
    third = read_current(served)
    assert third is not None
    assert third.cluster(row.cluster).made_in == second.id


def test_a_kill_after_a_decision_is_made_good(served: Home, engine: Engine) -> None:
    exclude(served, rule(served, "sing"))
    for stage in ("rules", "gap", "pairs", "train"):
        with pytest.raises(KeyboardInterrupt):
            refresh(served, engine, PASSING, progress=Stop(stage))
    result = refresh(served, engine, PASSING)
    assert not result.unchanged and result.release == result.current
    assert not any('"sing"' in one for one in training(served, result))


def test_all_decisions_are_taken_or_none(home: Home) -> None:
    row = rule(home, "sing")
    wrong = [
        {"id": row.id, "decision": "exclude"},
        {"id": "rule-0000000000000000", "decision": "exclude", "place": "row 7"},
        {"id": row.id, "decision": "forget"},
        {"id": row.id, "decision": "edit", "text": " "},
        {"decision": "add", "cluster": "c77", "text": "whistle"},
    ]
    with pytest.raises(InputError) as told:
        decide(home, wrong)
    for part in ("row 7: there is no row", "decision 3: the decision 'forget'", "needs a text"):
        assert part in str(told.value)
    assert "'c77'" in str(told.value)
    assert read_decisions(home) == []
    (home.path / "review.jsonl").mkdir()
    with pytest.raises(HomeError):
        decide(home, wrong[:1])


def test_a_line_cut_off_is_left_out_and_a_newer_one_is_not(home: Home) -> None:
    exclude(home, rule(home, "sing"))
    path = home.path / "review.jsonl"
    with path.open("ab") as file:
        file.write(b'{"what": "excl')
    exclude(home, rule(home, "dance"))
    assert [one.what for one in read_decisions(home)] == ["exclude", "exclude"]
    assert [entry["what"] for entry in read_history(home)] == ["review: 1 decided"] * 2
    with path.open("ab") as file:
        file.write(b'{"schema_version": 2}\n')
    with pytest.raises(StoreError, match="upgrade"):
        read_decisions(home)


@pytest.mark.parametrize("by_age", [False, True])
def test_decisions_about_forgotten_people_are_gone(
    tmp_path: Path, engine: Engine, by_age: bool
) -> None:
    then = utc_now() - timedelta(days=60)
    secret = "zanzibarquagga"
    words = [f"please {secret}", "please sing", f"please sing; {secret}"]
    theirs = [
        log(
            f"petronella-{i}",
            TRIP.format(f"{secret} {i}"),
            f"answer {i}",
            one,
            user_id="petra",
            created_at=then,
        )
        for i, one in enumerate(words)
    ]
    edit = Feedback(run_id="petronella-2", correction=f"better {secret}", created_at=then)
    theirs[2].feedback.append(edit)
    home = make_home(tmp_path / "home", [*START, *theirs])
    refresh(home, engine, PASSING, until="pairs")
    exclude(home, rule(home, "sing"), rule(home, "dance"))
    mine = [r for r in rows(home) if secret in (r.request or "") or secret in (r.text or "")]
    exclude(home, *mine)
    path = home.path / "review.jsonl"
    with path.open("ab") as file:
        file.write(f'{{"text": "{secret}'.encode())
    kinds = {one.kind for one in read_decisions(home) if secret in str(one) or "petro" in str(one)}
    assert {"rule", "log"} <= kinds
    if by_age:
        forget_older(home, days=30)
    else:
        forget(home, user_id="petra")
    assert secret.encode() not in path.read_bytes() and b"petronella" not in path.read_bytes()
    # What others said too stays excluded.
    assert [list(one.wordings) for one in read_decisions(home)] == [["sing"], ["dance"]]
    result = refresh(home, engine, PASSING, until="rules")
    assert not any('"sing"' in one for one in training(home, result))


def test_a_decision_outlives_the_logs_that_it_was_made_on(served: Home, engine: Engine) -> None:
    exclude(served, rule(served, "sing"))
    make_home(served.root, more(16, "sing"))
    old = [one.run_id for one in START if "sing" in str(one.feedback_turns)]
    for gone in (old[:12], old[12:]):
        refresh(served, engine, PASSING, until="rules")
        forget(served, run_ids=gone)
    assert len(read_decisions(served)) == 1
    result = refresh(served, engine, PASSING, until="rules")
    assert result.usable == len(START) + 16 - len(old)
    assert not any('"sing"' in one for one in training(served, result))
    assert not set(old) & set(read_decisions(served)[0].anchor)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (["typo"], "a list of objects"),
        ({"decision": "exclude"}, "a list of objects"),
        ([{"decision": "add", "cluster": ["c0"], "text": "whistle"}], "no cluster"),
        ([{"decision": "add", "cluster": "c0", "text": "word " * 200}], "may have 500 characters"),
        ([{"decision": "add", "cluster": "c0", "text": "\u200b"}], "needs a letter"),
    ],
)
def test_what_is_no_decision_is_refused_in_words(home: Home, wanted: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        decide(home, wanted, by="ann")
    assert read_decisions(home) == []


def test_a_refused_rule_is_not_edited_into_a_taught_one(home: Home) -> None:
    [folder] = refresh_folders(home.work)
    found = folder.read_records(RULE_ROWS, RuleRow)
    marked = [one.model_copy(update={"refused": one.text == "sing"}) for one in found]
    folder.write_records(RULE_ROWS, marked)
    edit = {"id": rule(home, "sing").id, "decision": "edit", "text": "hum"}
    with pytest.raises(InputError, match="add` a rule of your own"):
        decide(home, [edit], by="ann")


@pytest.mark.parametrize("fresh", [False, True])
def test_a_graph_waits_for_a_person(home: Home, engine: Engine, fresh: bool) -> None:
    def work() -> Work:
        return Work(
            home=home,
            engine=engine,
            embedder=ToyEmbedder(),
            reranker=ToyReranker(),
            teacher=ToyEngine(),
            prompts=ToyPrompts(),
            teacher_prompts=ToyPrompts(),
            recipe=PASSING,
            progress=Silent(),
            max_steps=2,
        )

    context = work()
    graph = build_refresh_graph(InMemorySaver(), review=True)
    config: Any = {"configurable": {"thread_id": "t"}}
    stopped = graph.invoke({}, config, context=context)
    asked = stopped["__interrupt__"][0].value
    assert asked["counts"]["rule"] == 2
    assert asked["rows"][0]["kind"] == "rule"
    assert not (home.work / asked["refresh"] / "train.json").exists()
    json.dumps(asked)
    wanted = next(row["id"] for row in asked["rows"] if row["text"] == "sing")
    context = work() if fresh else context  # another process goes on
    bad = Command(resume={"decisions": [{"id": "rule-0", "decision": "exclude"}], "by": "ann"})
    for odd in ("yes", {"decisions": "exclude"}, {"decisions": ["typo"]}):
        stopped = graph.invoke(Command(resume=odd), config, context=context)
        assert "error" in stopped["__interrupt__"][0].value
    stopped = graph.invoke(bad, config, context=context)
    assert "there is no row" in stopped["__interrupt__"][0].value["error"]
    good = Command(resume={"decisions": [{"id": wanted, "decision": "exclude"}], "by": "ann"})
    done = graph.invoke(good, config, context=context)
    assert "__interrupt__" not in done
    assert [one.by for one in read_decisions(home)] == ["ann"]
    release = read_current(home)
    assert release is not None
    assert {tuple(c.rules) for c in release.manifest.clusters} == {("dance",), ()}


@pytest.mark.parametrize("when", ["always", "routes"])
def test_a_hold_of_changes_lets_through_what_changes_no_route(
    served: Home, engine: Engine, when: Any
) -> None:
    hold(served, "audit", "ann", when)
    make_home(served.root, more(1, "sing"))
    first = read_current(served)
    assert first is not None
    result = refresh(served, engine, PASSING)
    assert (result.current == result.release) is (when == "routes")
    assert waiting(served) == (None if when == "routes" else result.release)
    exclude(served, rule(served, "sing"))
    result = refresh(served, engine, PASSING)
    assert result.current != result.release == waiting(served)
    assert result.release is not None
    make_current(served, result.release, why="looked at it", by="bob")
    assert waiting(served) is None
    last = read_history(served)[-1]
    assert (last["what"], last["by"], last["why"]) == ("promote", "bob", "looked at it")


def test_pairs_are_read_as_they_were_written(home: Home) -> None:
    for cluster in clusters_of(home, _result(_refresh(home))):
        folder = home.work / str(_refresh(home)) / "clusters" / cluster.id
        found = PairsFound.model_validate_json((folder / FOUND).read_text())
        lines = (folder / "pairs.jsonl").read_text().splitlines()
        kept = [PreferencePair.model_validate_json(line) for line in lines]
        assert [pair.chosen for pair in found.pairs] == [pair.chosen for pair in kept]


def test_a_table_whose_pairs_an_earlier_version_found_is_shown_without_them(home: Home) -> None:
    clusters = home.work / str(_refresh(home)) / "clusters"
    for found in clusters.glob(f"*/{FOUND}"):
        pairs = PairsFound.model_validate_json(found.read_text()).pairs
        lines = [pair.model_dump_json() + "\n" for pair in pairs]
        found.rename(found.with_name("pairs-found.jsonl")).write_text("".join(lines))
    page = review_table(home, limit=None)
    assert {row.kind for row in page.rows} == {"rule", "log"}
    assert page.total == len(page.rows)
    exclude(home, rule(home, "sing"))
    assert rule(home, "sing").state == "excluded"
