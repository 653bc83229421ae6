"""Clusters that get by on their rules: no critic is trained, nothing but rules is released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langchain_uno.erasure import forget
from langchain_uno.graphs import refresh_trials
from langchain_uno.graphs.checkpoints import WorkFolder
from langchain_uno.graphs.refresh_context import ClusterData
from langchain_uno.home import Home
from langchain_uno.models.protocols import Engine
from langchain_uno.recipe import ClusterSettings, GapSettings, Recipe, VerifySettings
from langchain_uno.records import VerifierReport
from langchain_uno.releases.load import read_current
from langchain_uno.releases.manifest import lineage_key, opaque_id
from tests.unit_tests.graphs.refresh_parts import make_home, refresh
from tests.unit_tests.graphs.test_refresh_evolve import (
    PASSING,
    START,
    again,
    current,
    let_nothing_decide,
    more,
    travel,
)
from tests.unit_tests.learning.toy_language import log


def recipe(*, high: bool = True, **verify: Any) -> Recipe:
    """Memories come before critics; the bar is one that noise passes, unless told otherwise."""
    settings = PASSING.verify.model_dump() | verify
    threshold = 0.0 if high else PASSING.gap.threshold
    return PASSING.model_copy(
        update={
            "memory": True,
            "gap": GapSettings(threshold=threshold),
            "verify": VerifySettings(**settings),
        }
    )


@pytest.fixture
def home(engine: Engine, tmp_path: Path) -> Home:
    """A home with a release in which both families have a memory."""
    made = make_home(tmp_path / "home", START)
    refresh(made, engine, recipe())
    return made


def test_a_memory_that_passes_spares_the_critic(home: Home, engine: Engine) -> None:
    release = current(home)
    assert {c.route for c in release.manifest.clusters} == {"memory"}
    assert {c.adapter for c in release.manifest.clusters} == {None}
    assert release.adapters == {}
    assert {tuple(c.rules) for c in release.manifest.clusters} == {("sing",), ("dance",)}
    [work] = [WorkFolder(folder) for folder in home.work.glob("refresh-*")]
    key = lineage_key(home)
    for cluster in work.read_records("gaps.jsonl", ClusterData):
        found = release.cluster(cluster.id)
        assert {opaque_id(key, r) for r in cluster.train} == set(found.trained_on)
        assert [report.kind for report in found.reports] == ["memory"]
        assert not work.has(f"clusters/{cluster.id}/critic.json")
        assert not work.path(f"clusters/{cluster.id}/critic").exists()


def test_one_that_fails_leaves_the_cluster_to_a_critic(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", START)
    result = refresh(home, engine, recipe(win_rate=1.0, decision="interval"))
    assert all(c.note.startswith("memory: ") and "; critic: " in c.note for c in result.clusters)
    assert {c.route for c in result.clusters} == {"base"}


@pytest.mark.parametrize(
    ("expert", "memory", "route"),
    [
        (0.8, 0.8, "expert"),
        (0.9, 0.8, "expert"),
        (0.8, 0.9, "memory"),
        (0.8, None, "expert"),
        (None, 0.8, "memory"),
        (None, None, "critic"),
    ],
)
def test_an_expert_answers_unless_the_memory_does_better(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expert: float | None,
    memory: float | None,
    route: str,
) -> None:
    rates = {"expert": expert, "memory": memory, "critic": 0.6}
    verify = refresh_trials.verify_module

    def rated(ctx: Any, cluster: Any, kind: Any, epochs: Any) -> VerifierReport:
        update = {"passed": rates[kind] is not None, "win_rate": rates[kind] or 0.0, "epoch": 1}
        return verify(ctx, cluster, kind, epochs).model_copy(update=update)

    monkeypatch.setattr(refresh_trials, "verify_module", rated)
    home = make_home(tmp_path / "home", START)
    result = refresh(home, engine, recipe(high=False))
    assert {c.route for c in result.clusters} == {route}
    assert {c.win_rate for c in result.clusters} == {rates[route]}
    beaten = expert is not None and route == "memory"
    assert all(("the memory does better" in c.note) == beaten for c in result.clusters)
    [work] = [WorkFolder(folder) for folder in home.work.glob("refresh-*")]
    for cluster in current(home).manifest.clusters:
        assert cluster.reports[-1].kind == route
        assert work.has(f"clusters/{cluster.id}/critic.json") == (route == "critic")


def test_a_cluster_without_a_rule_has_no_memory(engine: Engine, tmp_path: Path) -> None:
    # Everybody wants something else.
    alone = [
        log(
            one.run_id,
            one.query,
            one.answer,
            f"please {chr(97 + i % 26) * (3 + i // 26)}",
            user_id=f"u{i}",
        )
        for i, one in enumerate(START)
    ]
    one_cluster = recipe().model_copy(update={"cluster": ClusterSettings(mode="one")})
    result = refresh(make_home(tmp_path / "home", alone), engine, one_cluster)
    assert {tuple(c.rules) for c in result.clusters} == {()}
    assert all("memory: no rule recurs" in c.note for c in result.clusters)
    assert "memory" not in {c.route for c in result.clusters}


def test_a_memory_stays_and_is_followed_into_the_next_release(home: Home, engine: Engine) -> None:
    first = current(home)
    result = again(home, engine, more(2), recipe=recipe())
    second = current(home)
    assert {c.route for c in second.manifest.clusters} == {"memory"}
    assert {c.made_in for c in second.manifest.clusters} == {first.id}
    assert all(c.note.startswith("kept, made in") for c in result.clusters)
    for cluster in second.manifest.clusters:
        assert cluster.trained_on == first.cluster(cluster.id).trained_on


def test_changed_rules_are_verified_once_and_answer_from_then_on(
    home: Home, engine: Engine
) -> None:
    first = current(home)
    wishes = more(14, wish="sing; please hum")
    result = again(home, engine, wishes, recipe=recipe())
    second = current(home)
    changed = second.cluster(travel_of(second))
    assert (changed.route, changed.made_in) == ("memory", None)
    assert "its rules changed" in changed.note
    assert set(changed.rules) == {"sing", "hum"}
    assert travel(first) == changed.id
    # As the present module and as what is new it is the same memory: nothing is asked twice.
    work = WorkFolder(home.work / result.refresh_id)
    assert work.has(f"clusters/{changed.id}/incumbent.json")
    assert not work.has(f"clusters/{changed.id}/memory.json")


@pytest.mark.parametrize("undecided", [True, False])
def test_what_users_have_stays_while_nothing_decides(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch, undecided: bool
) -> None:
    first = current(home)
    let_nothing_decide(monkeypatch, "memory", undecided=undecided)
    result = again(home, engine, more(2), recipe=recipe())
    kept = {c.id for c in current(home).manifest.clusters if c.made_in == first.id}
    assert kept == ({c.id for c in first.manifest.clusters} if undecided else set())
    assert {c.route for c in result.clusters} == {"memory" if undecided else "base"}


def test_what_a_memory_gives_stays_a_rule_though_nobody_asks_for_it(
    engine: Engine, tmp_path: Path
) -> None:
    one_cluster = recipe().model_copy(update={"cluster": ClusterSettings(mode="one")})
    home = make_home(tmp_path / "home", START)
    refresh(home, engine, one_cluster)
    first = current(home)
    [cluster] = first.manifest.clusters
    assert (cluster.route, set(cluster.rules)) == ("memory", {"sing", "dance"})
    served = {"release": first.id, "cluster": cluster.id, "route": cluster.route}
    new = [one.model_copy(update=served) for one in more(100, wish="hum")]
    again(home, engine, new, recipe=one_cluster)
    [found] = current(home).manifest.clusters
    assert set(found.rules) >= {"sing", "hum"}


def test_a_memory_is_revoked_with_who_taught_it(home: Home, engine: Engine) -> None:
    first = current(home)
    again(home, engine, more(2), recipe=recipe())
    key = lineage_key(home)
    taught = set(first.cluster(travel(first)).trained_on)
    teacher = next(f"run-{i:03d}" for i in range(48) if opaque_id(key, f"run-{i:03d}") in taught)
    forget(home, run_ids=[teacher])
    assert read_current(home) is None
    again(home, engine, more(1, first=200), recipe=recipe())
    assert opaque_id(key, teacher) not in current(home).manifest.lineage


def travel_of(release: Any) -> str:
    """The cluster whose users want singing, among other things."""
    return str(next(c.id for c in release.manifest.clusters if "sing" in c.rules))
