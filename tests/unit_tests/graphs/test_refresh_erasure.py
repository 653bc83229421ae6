"""Erasure reaches the weights: what the forgotten taught is made anew, what they did not stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from langchain_uno.erasure import forget
from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home
from langchain_uno.learning.review import decide, read_decisions, review_table
from langchain_uno.learning.work import RefreshResult
from langchain_uno.logs.journal import Journal
from langchain_uno.models.protocols import Engine
from langchain_uno.recipe import Recipe
from langchain_uno.records import Feedback
from langchain_uno.reflect import Reflected
from langchain_uno.releases import canary
from langchain_uno.releases.load import list_releases, load_release, read_current
from langchain_uno.releases.publish import make_current
from langchain_uno.reports import report_paths
from langchain_uno.trainers.verifier import Exam, HeldOut
from tests.unit_tests.graphs.refresh_parts import (
    RECIPE,
    TRIP,
    changed,
    logs,
    make_home,
    refresh,
)
from tests.unit_tests.learning.toy_language import log

PASSING = changed(RECIPE, verify={"level": None, "win_rate": 0.0}, cluster={"threshold": 3.5})
START = [
    one.model_copy(update={"user_id": f"user-{n}"})
    for n, one in enumerate(logs(36))
    if one.feedback_turns != ["thanks"]
]
COMMENTER, ASKER = "petronella-17", "walburga-23"
WORDS = {COMMENTER: "zanzibarquagga", ASKER: "hippogriffolith"}
"""What each of them says, and nobody else does."""
FAMILY = {COMMENTER: "sing", ASKER: "dance"}
"""What the people want whose cluster they are in: the commenter speaks on answers of others."""


def crowd(root: Path) -> Home:
    """Two families of requests, somebody who only comments on answers of the one, and an asker."""
    home = make_home(root, START)
    word = WORDS[ASKER]
    bug = f"FIX BUG 99: STACK TRACE, NULL POINTER, CRASH! {word}"
    make_home(root, [log("hers", bug, f"mend {word}", f"please {word} dance", user_id=ASKER)])
    said = f"please {WORDS[COMMENTER]} sing"
    with Journal(home.journal) as journal:
        journal.append_feedback(Feedback(run_id="run-002", comment=said, user_id=COMMENTER))
    return home


def released(home: Home, engine: Engine, recipe: Recipe = PASSING) -> Home:
    """Let both families have a module, with a decision and a report that quote both people."""
    refresh(home, engine, recipe, until="pairs")
    for word in WORDS.values():
        row = next(r for r in review_table(home, kind="rule", limit=None).rows if word in str(r))
        decide(home, [{"id": row.id, "decision": "edit", "text": f"give {word}"}], by="ann")
    refresh(home, engine, recipe)
    return home


@pytest.fixture(scope="module")
def ready(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose release has both modules, and a canary of one that keeps them."""
    home = released(crowd(tmp_path_factory.mktemp("ready") / "home"), engine)
    new = [log(f"new-{i}", TRIP.format(90 + i), "so be it", "please sing") for i in range(2)]
    second = refresh(make_home(home.root, new), engine, PASSING, promote=False)
    assert all("kept, made in" in c.note for c in second.clusters)
    canary.start(home, str(second.release))
    return home.root


@pytest.fixture
def home(ready: Path, tmp_path: Path) -> Home:
    shutil.copytree(ready, tmp_path / "home")
    return Home(tmp_path / "home")


def traces(home: Home, who: str) -> set[str]:
    """The files of a home in which a byte of somebody lies.

    Not the file in which hnswlib leaves scraps of its process's memory: this one has seen all.
    """
    needles = [who.split("-")[0].encode(), WORDS[who].encode()]
    return {
        str(path.relative_to(home.root))
        for path in home.root.rglob("*")
        if path.is_file()
        and path.name != "data_level0.bin"
        and any(one in path.read_bytes().lower() + path.name.encode() for one in needles)
    }


def modules(home: Home) -> dict[str, bytes]:
    """What the people of a cluster want -> the weights of its module; of the current release."""
    release = read_current(home)
    assert release is not None
    return {
        rule: (release.adapters[str(c.adapter)] / "adapter_model.safetensors").read_bytes()
        for c in release.manifest.clusters
        if c.adapter
        for rule in FAMILY.values()
        if rule in c.rules
    }


def anew(home: Home, engine: Engine, who: str, recipe: Recipe = PASSING) -> RefreshResult:
    """Forget somebody, refresh without anything else that is new, and check the whole way."""
    before, names = modules(home), list_releases(home)
    assert set(before) == {"sing", "dance"}
    parts = {name.split("/")[0] for name in traces(home, who)}
    assert parts >= {"journal", "work", "reports", "review.jsonl"}
    receipt = forget(home, user_id=who)
    assert (receipt["releases_tainted"], receipt["finished"]) == (len(names), True)
    assert read_current(home) is None and canary.running(home) is None
    assert traces(home, who) == set()
    assert not any(report_paths(home, name).json.exists() for name in names)
    assert [WORDS[who] in str(one) for one in read_decisions(home)] == [False]

    result = refresh(home, engine, recipe)
    after, theirs = modules(home), FAMILY[who]
    [other] = set(before) - {theirs}
    assert after[other] == before[other]
    assert after[theirs] != before[theirs]
    assert traces(home, who) == set()
    return result


@pytest.mark.parametrize("who", [COMMENTER, ASKER])
def test_what_somebody_taught_is_made_anew_without_them(
    home: Home, engine: Engine, who: str
) -> None:
    first = str(read_current(home).id)  # type: ignore[union-attr]
    result = anew(home, engine, who)
    notes = [c.note for c in result.clusters]
    assert sorted(f"kept, made in {first}" in note for note in notes) == [False, True]
    release = load_release(home, str(result.release))
    assert release.manifest.parent is None  # nothing to roll back to but the base model
    with pytest.raises(ReleaseError, match="revoked"):
        make_current(home, first)
    # What is left of the first release went with the refresh that did not need it any more.
    assert not list((home.releases / first).glob("adapters/*"))
    # Another one keeps what this one made.
    make_home(home.root, [log("newest", TRIP.format(99), "so be it", "please sing")])
    weights = modules(home)
    refresh(home, engine, PASSING)
    assert modules(home) == weights


def test_a_module_that_answers_after_an_erasure_stays(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, START)
    refresh(home, engine, PASSING)
    first, before = read_current(home), modules(home)
    assert first is not None and set(before) == {"sing", "dance"}
    word = WORDS[ASKER]
    bug = f"FIX BUG 99: STACK TRACE, NULL POINTER, CRASH! {word}"
    make_home(tmp_path, [log("hers", bug, f"mend {word}", "please dance", user_id=ASKER)])
    refresh(home, engine, PASSING)
    assert forget(home, user_id=ASKER)["releases_tainted"] == 1
    assert read_current(home).id == first.id  # type: ignore[union-attr]
    result = refresh(home, engine, PASSING)
    assert [f"kept, made in {first.id}" in c.note for c in result.clusters] == [True, True]
    assert modules(home) == before
    assert result.notes[-1].startswith("The weights of 1 release went: revoked, or older than")


def sing(
    exam: Exam, items: list[HeldOut], drafts: list[str | None], adapter: Path
) -> list[Reflected]:
    """A critic's path that sings; in the exam all are cut, as the tiny model's answers are."""
    return [
        Reflected(
            f"la la {item.messages[-1].content}",
            draft or "hm",
            revised=True,
            finish_reason="length" if draft else "stop",
        )
        for item, draft in zip(items, drafts, strict=True)
    ]


def test_an_expert_that_a_critic_taught_is_made_anew_without_them(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Exam, "by_critic", sing)
    monkeypatch.setattr(Exam, "falls_behind", lambda *_: "")
    recipe = changed(PASSING, gap={"threshold": 0.0})
    home = released(crowd(tmp_path), engine, recipe)
    notes = [c.note for c in read_current(home).manifest.clusters]  # type: ignore[union-attr]
    assert notes == ["taught by a critic, and no worse"] * 2
    result = anew(home, engine, ASKER, recipe)
    kept, made = sorted(result.clusters, key=lambda c: "kept" not in c.note)
    assert kept.note.startswith("kept, made in") and made.note == notes[0]
