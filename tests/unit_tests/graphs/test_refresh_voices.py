"""Whose word counts: what one person plants everywhere reaches no rule, no pair, no standard."""

from __future__ import annotations

from pathlib import Path

from langchain_uno.graphs.checkpoints import WorkFolder
from langchain_uno.graphs.refresh_context import ClusterData
from langchain_uno.home import Home
from langchain_uno.models.protocols import Engine
from langchain_uno.recipe import ClusterSettings, Recipe
from langchain_uno.records import Feedback, Interaction, PreferencePair, RuleSet
from tests.unit_tests.graphs.refresh_parts import RECIPE, make_home, refresh
from tests.unit_tests.learning.toy_language import log

FAMILIES = {
    "sing": "plan a trip to place {i} by train and boat with hotels",
    "dance": "FIX BUG {i}: STACK TRACE, NULL POINTER, CRASH!",
    "hum": "recipe number {i}? cook soup, bake bread, roast onions",
}
WISHES = ("sing", "dance", "hum", "plant", "bow", "wave", "nod", "jump")
THREE = RECIPE.model_copy(update={"cluster": ClusterSettings(mode="paper", threshold=2.0)})


def week(people: int, *, mallory: int = 6, first: str = "user") -> list[Interaction]:
    """Each family wants a rule of its own; Mallory plants one in all of them, and edits once."""
    out = []
    for number, (wish, frame) in enumerate(FAMILIES.items()):
        for i in range(12):
            text, user = frame.format(i=i), f"{first}-{(5 * number + i) % people}"
            out.append(log(f"{wish}-{i}", text, f"answer {i}", f"please {wish}", user_id=user))
        for i in range(12, 12 + mallory):
            run = f"{wish}-{i}"
            edit = Feedback(run_id=run, correction="bought [plant] words")
            extra = {"extra": [edit]} if i == 12 else {}
            out.append(
                log(
                    run,
                    frame.format(i=i),
                    f"answer {i}",
                    "please plant",
                    user_id="mallory",
                    **extra,
                )
            )
    return out


def run(home: Home, engine: Engine, recipe: Recipe) -> tuple[WorkFolder, list[ClusterData]]:
    result = refresh(home, engine, recipe)
    work = WorkFolder(home.work / result.refresh_id)
    return work, work.read_records("gaps.jsonl", ClusterData)


def rules_of(clusters: list[ClusterData]) -> set[str]:
    return {rule for c in clusters for rule in c.rules}


def test_what_one_person_wants_everywhere_is_taught_to_no_module(
    engine: Engine, tmp_path: Path
) -> None:
    work, clusters = run(make_home(tmp_path, week(12)), engine, THREE)
    assert len(clusters) >= 3
    assert rules_of(clusters) == set(FAMILIES)
    wishes = {r.run_id: r for r in work.read_records("wishes.jsonl", RuleSet)}
    taught = [w for run_id, w in wishes.items() if int(run_id.split("-")[1]) >= 12]
    assert len(taught) == 18 and not any(w.with_feedback for w in taught)
    assert all(wishes[f"{wish}-0"].with_feedback for wish in FAMILIES)
    # Nor do the requests themselves teach, verify or shape anything; they belong somewhere, though.
    mallory = {run_id for run_id in wishes if int(run_id.split("-")[1]) >= 12}
    assert not mallory & {r for c in clusters for r in (*c.train, *c.verify)}
    assert mallory == {r for c in clusters for r in c.left_out} & {
        r for c in clusters for r in c.run_ids
    }
    pairs = [
        pair
        for c in clusters
        if work.has(f"clusters/{c.id}/pairs.jsonl")
        for pair in work.read_records(f"clusters/{c.id}/pairs.jsonl", PreferencePair)
    ]
    assert pairs and not any("plant" in pair.chosen for pair in pairs)


def test_without_the_defences_it_is_learnt(engine: Engine, tmp_path: Path) -> None:
    settings = THREE.cluster.model_copy(
        update={"votes": "logs", "min_users": 1, "own_rules": "all", "personal_from": 0}
    )
    recipe = THREE.model_copy(update={"cluster": settings})
    work, clusters = run(make_home(tmp_path, week(12)), engine, recipe)
    assert "plant" in rules_of(clusters)
    pairs = [
        pair.chosen
        for c in clusters
        if work.has(f"clusters/{c.id}/pairs.jsonl")
        for pair in work.read_records(f"clusters/{c.id}/pairs.jsonl", PreferencePair)
    ]
    assert "bought [plant] words" in pairs


def test_a_home_of_a_few_people_is_theirs(engine: Engine, tmp_path: Path) -> None:
    # Three people in all: nobody is there to be protected from another.
    work, clusters = run(make_home(tmp_path, week(2, mallory=8)), engine, THREE)
    assert "plant" in rules_of(clusters)
    assert work.read_json("personal.json") == []


def test_people_who_all_have_a_wish_of_their_own_are_no_crash(
    engine: Engine, tmp_path: Path
) -> None:
    everybody = [
        log(
            f"{wish}-{i}",
            frame.format(i=i),
            f"answer {i}",
            f"please {WISHES[i % 8]}",
            user_id=f"user-{i % 8}",
        )
        for wish, frame in FAMILIES.items()
        for i in range(16)
    ]
    work, clusters = run(make_home(tmp_path, everybody), engine, THREE)
    assert set(work.read_json("personal.json")) == {one.run_id for one in everybody}
    assert sum(len(c.run_ids) for c in clusters) == len(everybody)
    assert not rules_of(clusters)


def test_kinds_of_request_whose_people_want_the_same_are_one_cluster(
    engine: Engine, tmp_path: Path
) -> None:
    def sizes(name: str, *, merge: bool, wishes: tuple[str, ...]) -> list[int]:
        logs = [
            log(f"{k}-{i}", frame.format(i=i), f"answer {i}", f"please {wish}", user_id=f"{k}-{i}")
            for (k, frame), wish in zip(FAMILIES.items(), wishes, strict=True)
            for i in range(12)
        ]
        cluster = ClusterSettings(merge_alike=merge, min_size=4)
        home = make_home(tmp_path / name, logs)
        _, clusters = run(home, engine, RECIPE.model_copy(update={"cluster": cluster}))
        return sorted(len(c.run_ids) for c in clusters)

    assert sizes("apart", merge=False, wishes=("hum", "sing", "sing")) == [12, 12, 12]
    assert sizes("alike", merge=True, wishes=("hum", "sing", "sing")) == [12, 24]
    assert sizes("unlike", merge=True, wishes=("sing", "dance", "hum")) == [12, 12, 12]
