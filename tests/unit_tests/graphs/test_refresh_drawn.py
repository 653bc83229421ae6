"""Rules drawn from lone thumbs, where people or the teacher are no help."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from langchain_uno.erasure import forget, forget_older
from langchain_uno.errors import EngineDownError, EngineError
from langchain_uno.home import Home
from langchain_uno.learning.review import decide, review_table
from langchain_uno.learning.thumbs import SHOWN, _by_person
from langchain_uno.learning.work import RefreshResult, Work, WorkFolder
from langchain_uno.models.protocols import Engine
from langchain_uno.records import RatedAnswer, run_of
from langchain_uno.releases.load import read_current
from tests.unit_tests.graphs import refresh_parts
from tests.unit_tests.graphs.refresh_parts import (
    changed,
    clusters_of,
    folder_of,
    make_home,
    refresh,
)
from tests.unit_tests.graphs.test_refresh_thumbs import (
    ONE,
    asked_of,
    decided,
    marked,
    marked_week,
)
from tests.unit_tests.learning.toy_language import ToyEngine, ToyPrompts, ToyReranker, plain

LENIENT = changed(ONE, verify={"level": None, "win_rate": 0.0})


def of(voice: str, n: int) -> RatedAnswer:
    return RatedAnswer(run_id=f"{voice}-{n}", messages=[], answer="a", liked=True, voice=voice)


def test_many_thumbs_do_not_bring_their_person_before_the_teacher() -> None:
    rated = [of(f"loud-{v}", n) for v in range(4) for n in range(100)]
    rated += [of(f"user-{v}", 0) for v in range(40)]
    loud = 0
    for seed in range(100):
        work = cast(Work, SimpleNamespace(recipe=SimpleNamespace(seed=seed)))
        people = list(_by_person(work, rated, True))
        assert len(people) == 44
        loud += sum(voice.startswith("loud") for voice in people[:SHOWN])
    assert 15 < loud < 60  # of 400, as four of 44 have


def reworded(what: dict[str, Any], request: Any) -> str:
    """A teacher that has other words for the rule each time."""
    if what["role"] == "distil_thumbs":
        return json.dumps([f"list~{len(what['liked']) + len(what['disliked'])}"])
    return plain({**what, "rules": [r.split("~")[0] for r in what.get("rules", ())]}, request)


def test_a_module_stays_though_the_teacher_words_the_rule_anew(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, marked_week(24))
    refresh(home, engine, LENIENT)
    make_home(tmp_path, [marked(300, True, "user-99")])
    after = refresh(home, engine, LENIENT, teacher=ToyEngine(reworded))
    [cluster] = clusters_of(home, after)
    assert cluster.by_thumbs and cluster.rules[0].startswith("list~")
    found = decided(home, after)
    assert found.kept is not None and found.kept.rules == ["list"]


def test_what_is_excluded_stays_out_in_other_words(engine: Engine, tmp_path: Path) -> None:
    class Same(ToyReranker):
        def _covers(self, a: str, b: str) -> float:
            return super()._covers(a.split("~")[0], b.split("~")[0])

    home = make_home(tmp_path, marked_week(24))
    refresh(home, engine, ONE)
    [row] = review_table(home, kind="rule").rows
    decide(home, [{"id": row.id, "decision": "exclude"}], by="ann")
    refresh(home, engine, ONE)
    make_home(tmp_path, [marked(300, True, "user-99")])
    teacher = ToyEngine(reworded)
    after = refresh(home, engine, ONE, until="rules", teacher=teacher, reranker=Same())
    assert asked_of(teacher, "distil_thumbs")
    assert clusters_of(home, after)[0].rules == []


def reviewed(engine: Engine, root: Path, **decision: str) -> tuple[Home, RefreshResult]:
    """A home whose refresh stopped after the rules, and whose one rule was decided on."""
    home = make_home(root, marked_week(24))
    result = refresh(home, engine, ONE, until="rules")
    [row] = review_table(home, kind="rule").rows
    decide(home, [{"id": row.id, **decision}], by="ann")
    return home, result


def shown_runs(home: Home, result: RefreshResult) -> list[str]:
    [path] = WorkFolder(home.work / result.refresh_id).path("drawn").iterdir()
    return list(json.loads(path.read_bytes())["drawn"]["runs"])


def test_forgetting_anybody_whose_answer_was_shown_takes_the_rule_out_of_the_review(
    engine: Engine, tmp_path: Path
) -> None:
    home, result = reviewed(engine, tmp_path, decision="edit", text="any")
    runs = shown_runs(home, result)
    who = {run_of(one.run_id): str(one.user_id) for one in marked_week(24)}
    away = next(user for user in who.values() if user not in {who[run] for run in runs})
    forget(home, user_id=away)
    assert b'"list"' in (home.path / "review.jsonl").read_bytes()
    forget(home, user_id=who[runs[0]])
    assert b"list" not in (home.path / "review.jsonl").read_bytes()


def test_retention_of_a_shown_answer_leaves_what_people_decided(
    engine: Engine, tmp_path: Path
) -> None:
    home, result = reviewed(engine, tmp_path, decision="exclude")
    first = shown_runs(home, result)[0]
    aged = next(one for one in marked_week(24) if one.run_id == first)
    aged = aged.model_copy(
        update={"created_at": aged.created_at - timedelta(days=9), "feedback": []}
    )
    make_home(tmp_path, [aged])
    forget_older(home, days=5)
    after = refresh(home, engine, ONE, until="rules")
    assert clusters_of(home, after)[0].rules == []


def test_a_teacher_that_can_not_hold_the_answers_is_shown_less(
    engine: Engine, tmp_path: Path
) -> None:
    """As a server that refuses what is too long for its model."""

    class Small(ToyEngine):
        def generate(self, requests: Any, on_done: Any = None) -> Any:
            if any(len(r.messages[-1].content) > 9_000 for r in requests):
                raise EngineError("400: the context has 4096 tokens")
            return super().generate(requests, on_done)

    long = [one.model_copy(update={"answer": one.answer + " x" * 1_000}) for one in marked_week(24)]
    home = make_home(tmp_path, long)
    result = refresh(home, engine, ONE, until="rules", teacher=Small())
    assert clusters_of(home, result)[0].rules == ["list"]


def test_a_refresh_says_that_the_teacher_gave_no_rules_for_thumbs(
    engine: Engine, tmp_path: Path
) -> None:
    def rubbish(what: dict[str, Any], request: Any) -> str:
        return "<<<" if what["role"] == "distil_thumbs" else plain(what, request)

    home = make_home(tmp_path, marked_week(24))
    result = refresh(home, engine, ONE, until="rules", teacher=ToyEngine(rubbish))
    assert clusters_of(home, result)[0].rules == []
    notes = folder_of(home, result).read_json("rules.json")["notes"]
    assert any("no readable rules for the thumbs of c0" in note for note in notes)


def test_an_answer_that_breaks_the_judge_costs_its_own_say(engine: Engine, tmp_path: Path) -> None:
    def breaks(what: dict[str, Any], request: Any) -> str:
        if what["role"] == "judge" and "no. 7" in what["answer"]:
            raise EngineError("400: the context has 4096 tokens")
        return plain(what, request)

    home = make_home(tmp_path, marked_week(48))
    result = refresh(home, engine, ONE, until="rules", teacher=ToyEngine(breaks))
    assert clusters_of(home, result)[0].rules == ["list"]


def test_a_teacher_that_dies_is_not_asked_twice_for_what_it_said(
    engine: Engine, tmp_path: Path
) -> None:
    def dies(what: dict[str, Any], request: Any) -> str:
        if what["role"] == "judge" and what["rules"] == ["list"]:
            raise EngineDownError("nobody answers")
        return plain(what, request)

    home = make_home(tmp_path, marked_week(24))
    with pytest.raises(EngineDownError):
        refresh(home, engine, ONE, teacher=ToyEngine(dies))
    refresh(home, engine, ONE, until="rules")
    [row] = review_table(home, kind="rule").rows
    decide(home, [{"id": row.id, "decision": "edit", "text": "any"}], by="ann")
    again = ToyEngine()
    result = refresh(home, engine, ONE, until="rules", teacher=again)
    assert clusters_of(home, result)[0].rules == ["any"]
    assert not asked_of(again, "distil_thumbs")  # a decision costs no call


def test_likes_and_dislikes_in_two_languages_set_nothing_apart(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh_parts, "ToyPrompts", lambda: ToyPrompts(("en", "zh")))
    liked = [marked(i, True, f"en-{i}") for i in range(20)]
    others = [marked(100 + i, False, f"zh-{i}") for i in range(19)]
    others = [one.model_copy(update={"language": "zh"}) for one in others]
    teacher = ToyEngine()
    home = make_home(tmp_path, [*liked, *others])
    result = refresh(home, engine, ONE, until="rules", teacher=teacher)
    assert clusters_of(home, result)[0].by_thumbs
    assert not asked_of(teacher, "distil_thumbs")


def test_forgetting_who_was_shown_leaves_no_byte_of_the_rule(
    engine: Engine, tmp_path: Path
) -> None:
    """The rule quotes one person, whose answer alone has the word."""
    word = "xylofon"

    def quoting(what: dict[str, Any], request: Any) -> str:
        said = plain({**what, "rules": [r.split()[0] for r in what.get("rules", ())]}, request)
        return json.dumps([f"list {word}"]) if what["role"] == "distil_thumbs" else said

    home = make_home(tmp_path, marked_week(24))
    refresh(home, engine, LENIENT, teacher=ToyEngine(quoting))
    [row] = review_table(home, kind="rule").rows
    decide(home, [{"id": row.id, "decision": "restore"}], by="ann")
    result = refresh(home, engine, LENIENT, teacher=ToyEngine(quoting))
    first = read_current(home)
    assert first is not None and first.manifest.clusters[0].rules == [f"list {word}"]
    who = {run_of(one.run_id): str(one.user_id) for one in marked_week(24)}
    forget(home, user_id=who[shown_runs(home, result)[0]])
    assert read_current(home) is None
    left = [p for p in home.root.rglob("*") if p.is_file() and word.encode() in p.read_bytes()]
    assert [p for p in left if p.name != "data_level0.bin"] == []
