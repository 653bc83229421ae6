"""From refresh to refresh: what stays, what is made anew, what is never mixed up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from langchain_uno.erasure import forget
from langchain_uno.home import Home
from langchain_uno.learning import cluster as cluster_room
from langchain_uno.learning import train as train_room
from langchain_uno.learning import verify as verify_room
from langchain_uno.learning.review import decide, review_table
from langchain_uno.learning.train import Trial
from langchain_uno.learning.work import RefreshResult
from langchain_uno.models.adapters import count_base, count_weights
from langchain_uno.models.protocols import Engine, FloatArray
from langchain_uno.records import Interaction, PreferencePair, VerifierReport
from langchain_uno.reflect import Reflected
from langchain_uno.releases import canary
from langchain_uno.releases.history import hold, let_go
from langchain_uno.releases.load import Release, read_current
from langchain_uno.releases.manifest import lineage_key, opaque_id
from langchain_uno.releases.publish import make_current, revoke, rollback
from langchain_uno.reports import read_report
from langchain_uno.trainers.verifier import Compared, Exam, HeldOut, compare_modules
from tests.unit_tests.graphs.refresh_parts import (
    PASSING,
    RECIPE,
    START,
    TRIP,
    UNTRAINED,
    Stop,
    changed,
    clusters_of,
    folder_of,
    logs,
    make_home,
    more,
    refresh,
)
from tests.unit_tests.learning.toy_language import ToyEmbedder, ToyEngine, log, plain

SURE = VerifierReport(
    kind="expert", n=9, people=9, win_rate=0.9, interval=(0.5, 1.0), p_value=0.01, passed=True
)
NOTHING = VerifierReport(kind="expert", n=0, win_rate=0.0, interval=(0.0, 1.0), passed=False)


def current(home: Home) -> Release:
    release = read_current(home)
    assert release is not None
    return release


def weights(release: Release) -> dict[str, bytes]:
    """Cluster -> its adapter's weights."""
    return {
        a.cluster: (release.adapters[a.name] / "adapter_model.safetensors").read_bytes()
        for a in release.manifest.adapters
    }


def again(home: Home, engine: Engine, new: list[Interaction], **options: object) -> RefreshResult:
    make_home(home.root, new)
    return refresh(home, engine, options.pop("recipe", PASSING), **options)  # type: ignore[arg-type]


def travel(release: Release) -> str:
    """The cluster whose users want singing."""
    return next(c.id for c in release.manifest.clusters if c.rules == ["sing"])


def test_a_module_stays_where_little_is_new(home: Home, engine: Engine) -> None:
    first = current(home)
    assert {c.route for c in first.manifest.clusters} == {"expert"}
    teacher = ToyEngine()
    result = again(home, engine, more(2), teacher=teacher)
    second = current(home)

    assert second.id != first.id
    assert second.manifest.parent == first.id
    assert weights(second) == weights(first)
    assert {c.made_in for c in second.manifest.clusters} == {first.id}
    assert all(c.note.startswith("kept, made in") for c in result.clusters)
    assert all(c.pairs == 0 and c.judged > 0 for c in result.clusters)
    sizes = {c.id: c.size for c in first.manifest.clusters}
    assert sum(c.size for c in second.manifest.clusters) == sum(sizes.values()) + 2
    for cluster in second.manifest.clusters:
        assert cluster.trained_on == first.cluster(cluster.id).trained_on
    # Only the new logs were read for rules.
    distilled = [what for what, _ in teacher.asked if what["role"] == "distil"]
    assert [what["feedback"] for what in distilled] == [["please sing"]] * 2

    third = again(home, engine, more(1, first=200))
    assert {c.made_in for c in current(home).manifest.clusters} == {first.id}
    assert third.refresh_id != result.refresh_id


def test_who_taught_a_module_never_verifies_it(home: Home, engine: Engine) -> None:
    result = again(home, engine, more(8))
    key = lineage_key(home)
    for cluster in clusters_of(home, result):
        taught = set(current(home).cluster(cluster.id).trained_on)
        assert taught
        assert not taught & {opaque_id(key, r) for r in cluster.verify + cluster.unlabelled}


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (more(20), "logs are new"),
        (more(14, wish="sing; please hum"), "its rules changed"),
    ],
)
def test_a_module_is_trained_anew_where_its_logs_tell_something_new(
    home: Home, engine: Engine, new: list[Interaction], why: str
) -> None:
    first = current(home)
    name = travel(first)
    result = again(home, engine, new)
    changed = next(c for c in result.clusters if c.id == name)
    assert why in changed.note
    assert changed.pairs > 0
    other = next(c for c in result.clusters if c.id != name)
    assert other.note.startswith("kept, made in")
    assert weights(current(home))[other.id] == weights(first)[other.id]


@pytest.mark.parametrize("least", [0.0, 0.53])
def test_what_is_new_is_compared_with_what_it_would_replace(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch, least: float
) -> None:
    """Both pass against the base, and what both said to the same people decides."""
    seen: list[tuple[list[str], VerifierReport]] = []

    def compare(items: Any, new: Any, old: Any, kind: Any, recipe: Any) -> VerifierReport:
        assert {item.id for item in items} == new.keys() == old.keys()
        own = changed(recipe, verify={"win_rate": least})
        report = compare_modules(items, new, old, kind, own)
        seen.append(([one.module.text for one in old.values()], report))
        return report

    monkeypatch.setattr(verify_room, "compare_modules", compare)
    first = current(home)
    name = travel(first)
    result = again(home, engine, more(20))
    one = next(c for c in result.clusters if c.id == name)
    [(old, report)] = seen
    work = folder_of(home, result)
    said = work.read_records(f"clusters/{name}/incumbent-compared.jsonl", Compared)
    assert old == [line.module.text for line in said]
    assert report.passed == (report.win_rate >= least)
    replaced = current(home).cluster(name).made_in is None
    assert replaced == report.passed
    assert ("kept: what is new, compared with it" in one.note) != replaced
    assert ("of the comparisons with what it replaces" in one.note) == replaced


def test_nothing_stays_by_request_or_of_a_revoked_release(home: Home, engine: Engine) -> None:
    first = current(home)
    fresh = changed(PASSING, keep=False)
    result = again(home, engine, more(1), recipe=fresh)
    assert not any("kept" in c.note for c in result.clusters)
    assert {c.made_in for c in current(home).manifest.clusters} == {None}

    revoke(home, current(home).id, "a test")
    assert current(home).id == first.id
    revoke(home, first.id, "a test")
    result = again(home, engine, more(1, first=200), until="gap")
    assert {c.parent for c in clusters_of(home, result)} == {None}


@pytest.mark.parametrize(
    "other", [{"seed": 99}, {"lora": {"epochs": 3}, "name": "another", "gap": {"over": "pairs"}}]
)
def test_another_seed_or_recipe_discards_no_module(
    home: Home, engine: Engine, other: dict[str, Any]
) -> None:
    first = current(home)
    result = refresh(home, engine, changed(PASSING, **other))
    second = current(home)
    assert not result.unchanged and second.id != first.id
    assert weights(second) == weights(first)
    assert {c.made_in for c in second.manifest.clusters} == {first.id}


def test_what_a_module_gives_stays_a_rule_though_nobody_asks_for_it(
    home: Home, engine: Engine, tmp_path: Path
) -> None:
    first = current(home)
    module = first.cluster(travel(first))
    served = {"release": first.id, "cluster": module.id, "route": module.route}
    # Far more people than ever asked for singing; they have it, and want something else.
    new = [one.model_copy(update=served) for one in more(60, wish="hum")]
    recipe = changed(PASSING, cluster={"threshold": 1000.0})
    result = again(home, engine, new, recipe=recipe, until="rules")
    given = folder_of(home, result).read_json("given.json")
    assert given == {one.run_id: ["sing"] for one in new}
    found = next(c for c in clusters_of(home, result) if new[0].run_id in c.run_ids)
    assert set(found.rules) >= {"sing", "hum"}
    # The same without a word of who answered: it is forgotten.
    other = make_home(tmp_path / "other", [*START, *more(60, wish="hum")])
    [found] = clusters_of(other, refresh(other, engine, recipe, until="rules"))
    assert "hum" in found.rules and "sing" not in found.rules


def test_a_kept_module_is_revoked_with_who_taught_it(home: Home, engine: Engine) -> None:
    first = current(home)
    taught = {c.id: set(c.trained_on) for c in first.manifest.clusters}
    again(home, engine, more(2))
    second = current(home)
    assert {c.made_in for c in second.manifest.clusters} == {first.id}
    assert set().union(*taught.values()) <= set(second.manifest.lineage)
    # Somebody who taught the first release is forgotten: both go, and what was taught is not kept.
    key = lineage_key(home)
    teacher = next(
        f"run-{i:03d}" for i in range(36) if opaque_id(key, f"run-{i:03d}") in taught[travel(first)]
    )
    forget(home, run_ids=[teacher])
    assert read_current(home) is None
    result = again(home, engine, more(1, first=200))
    kept = {c.id for c in result.clusters if "kept, made in" in c.note}
    assert kept == {c.id for c in first.manifest.clusters} - {travel(first)}
    assert opaque_id(key, teacher) not in current(home).manifest.lineage


@pytest.mark.parametrize("stage", ["gap", "pairs", "train"])
def test_a_refresh_stopped_there_goes_on(home: Home, engine: Engine, stage: str) -> None:
    make_home(home.root, more(20))
    with pytest.raises(KeyboardInterrupt):
        refresh(home, engine, PASSING, progress=Stop(stage))
    first = current(home)
    result = refresh(home, engine, PASSING)
    assert "cluster" in result.resumed
    assert current(home).manifest.parent == first.id
    assert current(home).id == result.release


def test_a_part_that_came_off_a_cluster_goes_on_with_its_module(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = current(home)
    whole = travel(first)
    real = cluster_room.cluster_logs

    def in_parts(queries: FloatArray, *args: Any, **options: Any) -> NDArray[np.int64]:
        labels: NDArray[np.int64] = real(queries, *args, **options)
        # A third of the travel family by itself: what is left goes on as the family.
        of_travel = np.flatnonzero(labels == labels[0])  # it asks first
        labels[of_travel[::3]] = labels.max() + 1
        return labels

    monkeypatch.setattr(cluster_room, "cluster_logs", in_parts)
    result = again(home, engine, more(3))
    second = current(home)
    [part] = [
        c for c in second.manifest.clusters if c.id not in {c.id for c in first.manifest.clusters}
    ]
    assert whole in {c.id for c in second.manifest.clusters}
    assert part.route == "expert" and part.made_in == first.id
    assert weights(second)[part.id] == weights(second)[whole] == weights(first)[whole]
    assert next(c for c in result.clusters if c.id == part.id).note.startswith("kept, made in")


@pytest.mark.parametrize(("undecided", "level"), [(True, None), (False, None), (True, 0.05)])
def test_what_users_have_stays_while_nothing_decides(
    home: Home,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    undecided: bool,
    level: float | None,
) -> None:
    first = current(home)

    def report(*args: Any, **_: Any) -> VerifierReport:
        return VerifierReport(
            kind=args[2],
            n=3,
            people=3,
            win_rate=0.7,
            interval=(0.2, 0.9),
            passed=False,
            undecided=undecided,
        )

    monkeypatch.setattr(train_room, "verify_module", report)
    few = level is not None  # so few people can't decide at a level of 5 %: nothing is trained
    result = again(home, engine, more(2), recipe=changed(PASSING, verify={"level": level}))
    assert [bool(c.pairs) for c in result.clusters] == [not few] * 2
    kept = {c.id for c in current(home).manifest.clusters if c.made_in == first.id}
    assert kept == ({c.id for c in first.manifest.clusters} if undecided else set())
    assert all(("undecided" in c.note) == (undecided and not few) for c in result.clusters)
    assert all(("nothing was trained" in c.note) == few for c in result.clusters)
    assert {c.route for c in result.clusters} == {"expert" if undecided else "base"}


def test_where_too_few_people_are_held_out_nothing_is_trained(
    engine: Engine, tmp_path: Path
) -> None:
    home, teacher = make_home(tmp_path, logs()), ToyEngine()
    result = refresh(home, engine, teacher=teacher)
    assert [(c.route, c.pairs, c.judged) for c in result.clusters] == [("base", 0, 0)] * 2
    told = "nothing was trained: people held out: 2, needed to decide: {} (about {} people in all)"
    assert [one.note for one in result.clusters] == [told.format(6, 12)] * 2
    page = read_report(home, str(result.release))
    assert page is not None and page.verdict.startswith("No module was made, so the base model")
    assert "edit" not in teacher.roles()
    # A critic alone is one try: five people would do.
    high = refresh(home, engine, changed(RECIPE, gap={"threshold": 0.0}))
    assert [one.note for one in high.clusters] == [told.format(5, 10)] * 2


def test_where_modules_are_too_large_together_those_that_prove_least_go(
    home: Home, engine: Engine
) -> None:
    first = current(home)
    folders = [first.adapters[str(c.adapter)] for c in first.manifest.clusters]
    sizes = {count_weights(folder) for folder in folders}
    assert len(folders) == 2 and len(sizes) == 1
    share = 100 * sizes.pop() / count_base(engine.model)  # type: ignore[attr-defined]
    (home.path / "settings.toml").write_text(f"[releases]\nmax_percent = {1.5 * share}\n")
    result = again(home, engine, more(2))
    second = current(home)
    routes = {c.id: c.route for c in second.manifest.clusters}
    [left_out] = [name for name, route in routes.items() if route == "base"]
    assert len(second.adapters) == 1
    proven = {c.id: (c.interval[0] - 0.5) * c.size for c in result.clusters if c.interval}
    assert proven[left_out] == min(proven.values())
    one = next(c for c in result.clusters if c.id == left_out)
    assert one.route == "base" and "releases.max_percent" in one.note
    assert second.cluster(left_out).made_in is None

    # With room for both nobody is left out.
    (home.path / "settings.toml").write_text(f"[releases]\nmax_percent = {2.1 * share}\n")
    assert {c.route for c in again(home, engine, more(1, first=300)).clusters} == {"expert"}


def test_a_refresh_prunes_what_is_old(home: Home, engine: Engine) -> None:
    (home.path / "settings.toml").write_text("[releases]\nkeep = 1\n")
    first = current(home).id
    again(home, engine, more(1))
    second = current(home).id
    assert (home.releases / first / "adapters").is_dir()  # the parent stays
    result = again(home, engine, more(1, first=200))
    assert (home.releases / second / "adapters").is_dir()
    assert not (home.releases / first / "adapters").exists()
    assert not (home.reports / first).exists() and (home.reports / second).exists()
    went = "The weights of 1 release went: revoked, or older than the newest 1 (releases.keep)."
    assert result.notes[-1] == went


def test_what_users_have_stays_where_what_is_new_may_be_chance(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = current(home)
    name = travel(first)

    def report(*args: Any, **_: Any) -> VerifierReport:
        new = "incumbent" not in str(args[3][0])
        return VerifierReport(
            kind=args[2],
            n=9,
            people=9,
            win_rate=0.9 if new else 0.7,
            interval=(0.5, 1.0),
            p_value=0.04,
            passed=True,
            epoch=1 if new else None,
        )

    monkeypatch.setattr(train_room, "verify_module", report)
    monkeypatch.setattr(train_room, "against_present", lambda *_: report("", "", "expert", [""]))
    # Both families are made anew, and neither passes among so many tries.
    monkeypatch.setattr(train_room, "may_ship", lambda p_values, level: [False] * len(p_values))
    result = again(home, engine, more(20))
    one = next(c for c in result.clusters if c.id == name)
    assert one.route == "expert"
    assert "passes alone" in one.note and "kept, made in" in one.note
    second = current(home)
    assert second.cluster(name).made_in == first.id
    assert weights(second)[name] == weights(first)[name]


def test_a_release_waits_for_a_person_where_somebody_said_so(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, logs(12))
    first = refresh(home, engine, UNTRAINED, promote=False)
    assert first.release is not None and first.current is None
    assert read_current(home) is None
    assert refresh(home, engine, UNTRAINED).unchanged  # it waits on
    assert read_current(home) is None
    make_current(home, first.release)

    hold(home, "an audit")
    make_home(tmp_path, [log("new", "plan a trip to Rome by train", "a", "please sing")])
    second = refresh(home, engine, UNTRAINED)
    assert (second.current, read_current(home).id) == (first.release, first.release)  # type: ignore[union-attr]
    assert (home.releases / str(second.release)).is_dir()

    let_go(home)
    assert second.release is not None
    plan = canary.start(home, second.release)
    make_home(tmp_path, [log("newer", "plan a trip to Oslo by ship", "a", "please dance")])
    third = refresh(home, engine, UNTRAINED)
    assert third.release not in (None, second.release)
    assert (third.current, canary.running(home)) == (first.release, plan)


def test_a_verified_critic_teaches_an_expert_that_answers_in_its_place(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge likes whatever differs from the base; the critic's path sings."""

    def sing(
        exam: Exam, items: list[HeldOut], drafts: list[str | None], adapter: Path
    ) -> list[Reflected]:
        assert adapter.is_dir()
        # In the exam all are cut, as the tiny model's answers are: nobody loses by that.
        return [
            Reflected(
                f"la la {item.id}",
                draft or "hm",
                revised=True,
                finish_reason="length" if draft else "stop",
            )
            for item, draft in zip(items, drafts, strict=True)
        ]

    seen: dict[str, str] = {}

    def fond_of_news(what: dict[str, Any], request: Any) -> str:
        if what["role"] != "judge":
            return plain(what, request)
        first = seen.setdefault(what["query"], what["answer"])
        return f"r {9 if what['answer'] != first else 2}"

    monkeypatch.setattr(Exam, "by_critic", sing)
    recipe = changed(
        RECIPE, gap={"threshold": 0.0}, expert={"learning_rate": 5e-2}, verify={"level": None}
    )
    people = [one.model_copy(update={"user_id": f"u{n}"}) for n, one in enumerate(logs())]
    home = make_home(tmp_path, people)
    result = refresh(home, engine, recipe, teacher=ToyEngine(fond_of_news), max_steps=8)
    taught = [c for c in result.clusters if c.route == "expert"]
    assert taught, [(c.route, c.note) for c in result.clusters]
    assert all(c.note == "taught by a critic, and no worse" for c in taught)
    pairs = folder_of(home, result).read_records(
        f"clusters/{taught[0].id}/distilled-pairs.jsonl", PreferencePair
    )
    assert {(p.chosen, p.rejected) for p in pairs} == {(f"la la {p.run_id}", "hm") for p in pairs}
    held = {i for c in clusters_of(home, result) for i in c.verify}
    assert pairs and not held & {p.run_id for p in pairs}

    answers = iter([False, True])  # the expert is not proven among all clusters, the critic is
    monkeypatch.setattr(train_room, "may_ship", lambda tested, level: [next(answers)] * len(tested))
    home = make_home(tmp_path / "three", people)
    proven = refresh(home, engine, recipe, teacher=ToyEngine(fond_of_news), max_steps=8)
    assert {c.route for c in proven.clusters if "taught" in c.note} == {"critic"}
    assert read_current(home).adapters  # type: ignore[union-attr]
    monkeypatch.setattr(train_room, "may_ship", lambda tested, level: [True] * len(tested))

    without = changed(recipe, critic={"distil": False})
    again = refresh(
        make_home(tmp_path / "two", logs()),
        engine,
        without,
        teacher=ToyEngine(fond_of_news),
        max_steps=8,
    )
    assert {c.route for c in again.clusters} <= {"critic", "base"}


def test_what_the_present_module_said_outlives_a_decision_on_a_pair(
    home: Home, engine: Engine
) -> None:
    """The new module is compared with it afterwards."""
    make_home(home.root, more(20))
    result = refresh(home, engine, PASSING, until="pairs")
    name = travel(current(home))
    asked = {TRIP.format(i) for i in range(100, 120)}  # of somebody who did not teach it
    rows = review_table(home, kind="pair", cluster=name, limit=None).rows
    pair = next(row for row in rows if row.request in asked)
    decide(home, [{"id": pair.id, "decision": "exclude"}], by="ann")
    done = refresh(home, engine, PASSING)
    assert done.refresh_id == result.refresh_id and done.release is not None
    one = next(c for c in done.clusters if c.id == name)
    assert "trained anew" in one.note and "compar" in one.note


def test_a_module_that_is_undecided_today_is_not_replaced_by_one_that_loses(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(*args: Any, **_: Any) -> VerifierReport:
        present = "incumbent" in str(args[3][0])
        return SURE.model_copy(update={"passed": not present, "undecided": present, "epoch": 1})

    loses = SURE.model_copy(update={"passed": False, "win_rate": 0.3, "reason": "loses"})
    monkeypatch.setattr(train_room, "verify_module", report)
    monkeypatch.setattr(train_room, "against_present", lambda *_: loses)
    first = current(home)
    again(home, engine, more(20))
    assert {c.made_in for c in current(home).manifest.clusters} == {first.id}
    monkeypatch.setattr(train_room, "against_present", lambda *_: NOTHING)
    again(home, engine, more(1, first=300))
    assert None in {c.made_in for c in current(home).manifest.clusters}


def test_a_kept_module_says_which_rules_it_was_taught(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = current(home)
    name, taught = travel(first), first.cluster(travel(first)).rules

    def never(*_: Any) -> VerifierReport:
        return NOTHING.model_copy(update={"reason": "not proven"})

    with monkeypatch.context() as patch:
        patch.setattr(train_room, "against_present", never)
        again(home, engine, more(14, wish="sing; please hum"))
    kept = current(home).cluster(name)
    assert kept.made_in == first.id
    assert (kept.learnt, set(kept.rules)) == (taught, {*taught, "hum"})
    # So the new wish is tried again by the next refresh.
    later = again(home, engine, more(1, first=300))
    assert "trained anew: its rules changed" in next(c for c in later.clusters if c.id == name).note


@pytest.mark.parametrize("held", ["taught it", "nobody"])
def test_what_can_not_be_verified_is_what_users_have(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """Nothing speaks against a module whose witnesses are gone."""
    first = current(home)
    if held == "nobody":
        monkeypatch.setattr(train_room, "held_out", lambda *_: [])
    else:
        known = {opaque_id(lineage_key(home), one.run_id): one.run_id for one in START}
        split = cluster_room.split_logs

        def witnesses(members: Any, *args: Any, **more: Any) -> Any:
            """Some who taught are held out."""
            made = split(members, *args, **more)
            teachers = [known[o] for c in first.manifest.clusters for o in c.trained_on]
            moved = [i for i in made.train if i in teachers][:2]
            train = [i for i in made.train if i not in moved]
            return replace(made, train=train, verify=[*made.verify, *moved])

        monkeypatch.setattr(cluster_room, "split_logs", witnesses)
    monkeypatch.setattr(train_room, "_try_module", lambda *_, **__: Trial(note="did not pass"))
    result = again(home, engine, more(2))
    assert [c.route for c in result.clusters] == ["expert"] * 2
    assert {c.made_in for c in current(home).manifest.clusters} == {first.id}
    assert all("kept" in c.note for c in result.clusters)


def test_a_retry_does_not_undo_a_rollback(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = current(home)

    def breaks(*_: Any, **__: Any) -> Any:
        raise RuntimeError("x")

    with monkeypatch.context() as patch:
        patch.setattr(train_room, "_try_module", breaks)
        result = again(home, engine, more(20))
    assert any(c.failed for c in result.clusters) and current(home).id == result.release
    # A call that goes no further than the filter trains nothing.
    before = {path: path.stat().st_mtime_ns for path in home.work.rglob("tried.json")}
    refresh(home, engine, PASSING, until="filter")
    assert {path: path.stat().st_mtime_ns for path in home.work.rglob("tried.json")} == before
    rollback(home, why="bad release")
    assert refresh(home, engine, PASSING).unchanged
    assert current(home).id == first.id


def test_an_embedder_that_an_older_version_called_otherwise_goes_on(
    engine: Engine, tmp_path: Path
) -> None:
    class Renamed(ToyEmbedder):
        fingerprint = "another name"
        former_fingerprints = (ToyEmbedder.fingerprint,)

    home = make_home(tmp_path / "home", logs())
    first = refresh(home, engine, UNTRAINED)
    again = refresh(home, engine, UNTRAINED, embedder=Renamed())
    assert again.release != first.release
