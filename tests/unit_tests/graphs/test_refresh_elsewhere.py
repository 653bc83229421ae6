"""What a module is asked elsewhere, in a whole refresh on a tiny real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.learning import train as train_room
from langchain_uno.learning import verify as verify_room
from langchain_uno.learning.cluster import sent_to
from langchain_uno.learning.work import ClusterData, Work
from langchain_uno.models.protocols import Engine
from langchain_uno.records import Elsewhere, VerifierReport
from langchain_uno.reflect import Reflected
from langchain_uno.releases.load import read_current
from langchain_uno.reports import read_report
from langchain_uno.trainers import expert as expert_room
from langchain_uno.trainers.elsewhere import base_answers
from langchain_uno.trainers.verifier import BaseSide, Compared, Exam, HeldOut, Said
from tests.unit_tests.graphs.refresh_parts import (
    RECIPE,
    StopAt,
    changed,
    folder_of,
    logs,
    make_home,
    refresh,
)
from tests.unit_tests.graphs.test_refresh_thumbs import marked_week


def passing(work: Any, cluster: Any, kind: Any, epochs: Any, **_: Any) -> VerifierReport:
    return VerifierReport(
        kind=kind, n=9, people=9, win_rate=0.9, interval=(0.5, 1.0), p_value=0.001,
        passed=True, epoch=1, reason="9 held-out requests",
    )  # fmt: skip


def swapped(work: Work) -> dict[str, str | None]:
    """All requests stray to the other cluster."""
    one, two = work.clusters()
    truth = {i: c.id for c in (one, two) for i in c.run_ids}
    assert sent_to(work) == truth  # two topics: nothing strays
    return {i: a.id for a, b in ((one, two), (two, one)) for i in b.run_ids}


def home_of_two_topics(root: Path) -> Home:
    asking = [one for one in logs(48) if one.feedback_turns != ["thanks"]]
    each = [one.model_copy(update={"user_id": f"user-{i}"}) for i, one in enumerate(asking)]
    return make_home(root, each)


def test_a_module_that_is_worse_elsewhere_ships_with_half_of_its_change_if_that_is_not(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def losing_whole(exam: Exam, side: BaseSide, expert: Path) -> dict[str, float]:
        alpha = json.loads((expert / "adapter_config.json").read_bytes())["lora_alpha"]
        seen.append(alpha)
        return {item.voice: -0.5 if alpha == max(seen) else 0.0 for item in side.items}

    monkeypatch.setattr(Exam, "gains", losing_whole)
    monkeypatch.setattr(verify_room, "sent_to", swapped)
    monkeypatch.setattr(train_room, "verify_module", passing)
    home = home_of_two_topics(tmp_path)
    result = refresh(home, engine, changed(RECIPE, verify={"held_out": 0.5}))
    release = read_current(home)
    assert release is not None
    for cluster in release.manifest.clusters:
        assert cluster.route == "expert" and cluster.adapter is not None
        config = (release.adapters[cluster.adapter] / "adapter_config.json").read_bytes()
        assert json.loads(config)["lora_alpha"] == max(seen) / 2
        assert "expert: with 0.5 of its change: 9 held-out" in cluster.note
        assert "(with all: worse elsewhere; strays" in cluster.note
        [report] = cluster.reports
        assert report.passed and report.elsewhere is not None and not report.elsewhere.harm
    left = [f.name for f in folder_of(home, result).root.glob("clusters/*/expert/epoch-*")]
    assert left and all(name.endswith("-0.5") for name in left)


def test_a_module_that_is_worse_on_strays_of_other_clusters_does_not_ship(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pass on their own requests, and lose all others.

    All requests stray to the other cluster.
    """
    asked: list[int] = []

    def losing(exam: Exam, side: BaseSide, expert: Path) -> dict[str, float]:
        return {item.voice: -0.5 for item in side.items}

    def counted(exam: Any) -> list[str]:
        asked.append(1)
        return base_answers(exam)

    monkeypatch.setattr(Exam, "gains", losing)
    monkeypatch.setattr(verify_room, "sent_to", swapped)
    monkeypatch.setattr(train_room, "verify_module", passing)
    monkeypatch.setattr(verify_room, "base_answers", counted)
    home = home_of_two_topics(tmp_path)
    recipe = changed(RECIPE, critic={"distil": False}, verify={"held_out": 0.5})
    with pytest.raises(KeyboardInterrupt):  # in the first cluster: what was asked is kept
        refresh(home, engine, recipe, progress=StopAt("critic, training steps"))
    result = refresh(home, engine, recipe)
    work = folder_of(home, result)
    assert len(work.read_json("general.json")) == 40 and asked == [1]
    release = read_current(home)
    assert release is not None and len(release.manifest.clusters) == 2
    for cluster in release.manifest.clusters:
        expert, critic = cluster.reports
        assert cluster.route == "critic" and critic.passed and not expert.passed
        assert expert.elsewhere is not None and critic.elsewhere is not None
        # The tiny model keeps no instruction, so a module is asked none.
        assert expert.elsewhere.asked == 0 and expert.elsewhere.people >= 5
        assert (critic.elsewhere.asked, critic.elsewhere.people) == (0, 0)
        worse = "worse elsewhere; strays from other clusters: win rate 0.00"
        assert expert.reason.startswith(f"with 0.5 of its change: {worse}")
        assert expert.reason.endswith("; 9 held-out requests)")
        assert expert.reason in cluster.note


def test_strays_of_a_cluster_that_thumbs_teach_count_by_the_rule_drawn_from_them(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[str, ...]] = []

    def heard(exam: Exam, side: BaseSide, expert: Path) -> dict[str, float]:
        judged.extend(tuple(item.rules) for item in side.items)
        return {item.voice: 0.0 for item in side.items}

    monkeypatch.setattr(Exam, "gains", heard)

    def to_the_other(work: Work) -> dict[str, str | None]:
        one, two = work.clusters()
        return {i: a.id for a, b in ((one, two), (two, one)) for i in b.run_ids}

    monkeypatch.setattr(verify_room, "sent_to", to_the_other)
    monkeypatch.setattr(train_room, "verify_module", passing)
    words = [one.model_copy(update={"user_id": f"w-{one.run_id}"}) for one in logs(48)]
    asking = [one for one in words if "BUG" in one.query and one.feedback_turns != ["thanks"]]
    home = make_home(tmp_path, [*marked_week(24), *asking])
    refresh(home, engine, changed(RECIPE, critic={"distil": False}))
    assert set(judged) == {("list",), ("dance",)}


def test_a_critic_that_is_worse_elsewhere_alone_teaches_an_expert(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expert is held to nothing but its own checks, and the critic never ships in its place."""
    taught_by: list[str] = []

    def sing(
        exam: Exam, items: list[HeldOut], drafts: list[str | None], adapter: Path
    ) -> list[Reflected]:
        taught_by.append(adapter.name)
        return [Reflected(f"la {i.id}", "hm", revised=True, finish_reason="stop") for i in items]

    def critics_lose(work: Work, cluster: Any, report: VerifierReport, _: Path) -> VerifierReport:
        harm = "worse elsewhere" if report.kind == "critic" else ""
        told = {"elsewhere": Elsewhere(harm=harm), "passed": not harm}
        return report.model_copy(update=told)

    def never(*_: Any) -> VerifierReport:
        raise AssertionError("an expert is no worse than a critic that may not ship")

    monkeypatch.setattr(Exam, "by_critic", sing)
    monkeypatch.setattr(train_room, "verify_module", passing)
    monkeypatch.setattr(train_room, "look_outside", critics_lose)
    monkeypatch.setattr(train_room, "not_behind", never)
    recipe = changed(RECIPE, gap={"threshold": 0.0}, verify={"held_out": 0.5})
    home = home_of_two_topics(tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):  # the critic is kept for the next call
        refresh(home, engine, recipe, progress=StopAt("taught by the critic, training steps"))
    result = refresh(home, engine, recipe)
    release = read_current(home)
    assert release is not None and len(release.manifest.clusters) == 2
    for cluster in release.manifest.clusters:
        critic, expert = cluster.reports
        assert (cluster.route, critic.kind, critic.passed) == ("expert", "critic", False)
        assert expert.passed and "taught by a critic that is worse elsewhere" in cluster.note
        work = folder_of(home, result)
        assert work.has(f"clusters/{cluster.id}/distilled-pairs.jsonl")
    assert taught_by and not any(name.endswith("-0.5") for name in taught_by)

    monkeypatch.setattr(train_room, "may_ship", lambda tested, level: [False] * len(tested))
    refused = refresh(home_of_two_topics(tmp_path / "two"), engine, recipe)
    assert {cluster.route for cluster in refused.clusters} == {"base"}


def test_a_critic_that_loses_for_its_own_requests_teaches_nobody(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(*args: Any, **more: Any) -> VerifierReport:
        return passing(*args, **more).model_copy(update={"passed": False, "reason": "loses"})

    monkeypatch.setattr(train_room, "verify_module", losing)
    recipe = changed(RECIPE, gap={"threshold": 0.0}, verify={"held_out": 0.5})
    home = home_of_two_topics(tmp_path)
    result = refresh(home, engine, recipe)
    assert {cluster.route for cluster in result.clusters} == {"base"}
    assert not list(folder_of(home, result).root.glob("clusters/*/distilled*"))


@pytest.mark.parametrize("worse", [True, False])
def test_where_the_base_answers_the_report_counts_what_it_names(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worse: bool
) -> None:
    """A critic that is worse elsewhere teaches an expert, which loses; or both win and none may."""

    def verified(work: Work, cluster: ClusterData, *args: Any, name: str, **_: Any) -> Any:
        taught, said = name == "distilled", Said(text="la")
        one = Compared(id="a", base=said, module=said, outcome=0.0 if taught else 1.0)
        work.folder.write_records(f"clusters/{cluster.id}/{name}-compared.jsonl", [one])
        return passing(work, cluster, *args).model_copy(update={"passed": not (taught and worse)})

    def sing(exam: Exam, items: list[HeldOut], *_: Any) -> list[Reflected]:
        return [Reflected(f"la {i.id}", "hm", revised=True, finish_reason="stop") for i in items]

    def outside(work: Work, cluster: ClusterData, report: VerifierReport, _: Path) -> Any:
        told = {"elsewhere": Elsewhere(harm="worse elsewhere"), "passed": False}
        return report.model_copy(update=told) if worse else report

    monkeypatch.setattr(Exam, "by_critic", sing)
    monkeypatch.setattr(train_room, "verify_module", verified)
    monkeypatch.setattr(train_room, "look_outside", outside)
    monkeypatch.setattr(train_room, "not_behind", lambda work, cluster, report, *_: report)
    monkeypatch.setattr(train_room, "may_ship", lambda tested, level: [False] * len(tested))
    recipe = changed(RECIPE, gap={"threshold": 0.0}, verify={"held_out": 0.5})
    home = home_of_two_topics(tmp_path)
    report = read_report(home, str(refresh(home, engine, recipe).release))
    assert report is not None and len(report.clusters) == 2
    for one in report.clusters:
        assert one.decided is not None and one.route == "base"
        shown = ("expert", 0, 1) if worse else ("critic", 1, 0)
        assert (one.decided.kind, one.won, one.lost) == shown


def test_a_critic_answers_though_the_training_of_the_expert_that_it_teaches_fails(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DPO takes more memory than the critic's SFT. The same call tries the expert again."""

    def sing(exam: Exam, items: list[HeldOut], *_: Any) -> list[Reflected]:
        return [Reflected(f"la {i.id}", "hm", revised=True, finish_reason="stop") for i in items]

    def no_memory(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(Exam, "by_critic", sing)
    monkeypatch.setattr(train_room, "verify_module", passing)
    for look in ("not_behind", "look_outside"):
        monkeypatch.setattr(train_room, look, lambda work, cluster, report, *_: report)
    recipe = changed(RECIPE, gap={"threshold": 0.0}, verify={"held_out": 0.5})
    home = home_of_two_topics(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(expert_room, "train_expert", no_memory)
        for _ in range(2):
            clusters = refresh(home, engine, recipe).clusters
            assert [(one.route, one.failed) for one in clusters] == [("critic", True)] * 2
            assert "expert taught by the critic: failed (MemoryError" in clusters[0].note
    clusters = refresh(home, engine, recipe).clusters
    assert [(one.route, one.failed) for one in clusters] == [("expert", False)] * 2
