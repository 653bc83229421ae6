"""Results are made once; rivals retrieve what they should; attackers do what they are said to."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from lab.studies.poison import ATTACKS, attacked, planted_rule, reaction_to
from lab.studies.results import once, read_results
from lab.studies.rivals import Past, by_bm25, by_cluster, by_embeddings
from lab.studies.systems import SYSTEMS
from lab.studies.tables import END, START, headline, rewritten, rounds_rows
from lab.studies.thumbs import tell
from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.demo.answers import check_answer, render_answer
from langchain_uno.demo.asking import Asked, Reply, look_at
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.service import plan_visits
from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import LogStore
from langchain_uno.models.loading import load_embedder, shared_engine


def test_a_result_is_made_once_and_its_scratch_goes(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> dict[str, Any]:
        assert folder.is_dir()
        made.append(folder)
        return {"n": len(made)}

    top, scratch = tmp_path / "results", tmp_path / "scratch"
    assert once("a-1", top, scratch, make) == once("a-1", top, scratch, make) == {"n": 1}
    assert not made[0].exists()
    scratch.joinpath("a-2").mkdir()
    with FileLock(scratch / "a-2.lock"):
        assert once("a-2", top, scratch, make) is None
    assert len(made) == 1
    assert read_results(top, "a") == [{"n": 1}] and read_results(top, "b") == []
    (top / "a-1.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        read_results(top, "a")


def test_rivals_take_the_rules_of_what_is_near() -> None:
    past = Past(
        ["a tour by boat", "a bug in the login", "a tour by train"],
        np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]], np.float32),
        [["Add a map."], ["Add a step."], ["Add a map.", "Add prices."]],
    )

    class Pointing:
        fingerprint = "toy"

        def embed(self, texts: Any, on_done: Any = None) -> Any:
            return np.array([[0.0, 1.0] for _ in texts], np.float32)

    [found] = by_bm25(past)(["which bug is in the login"])
    assert found[0] == "Add a step."
    [near] = by_embeddings(past, Pointing())(["anything"])
    assert near == ["Add a step.", "Add a map.", "Add prices."]
    known = by_cluster(["c0", None, "c1"], {"c0": ["Be short."]})
    assert known(["x", "y", "z"]) == [["Be short."], [], []]


@pytest.mark.parametrize("name", ["one-30", "five-10"])
def test_attackers_write_their_share(name: str) -> None:
    world, attack = make_world(5), ATTACKS[name]
    plan = plan_visits(world, 2000)
    visits = attacked(plan, attack, 5)
    known = {user.id for user in world.users}
    theirs = Counter(v.user.id for v in visits if v.user.id not in known)
    assert len(theirs) == attack.people
    assert all(attack.share - 0.03 < n / 2000 < attack.share + 0.03 for n in theirs.values())
    assert [v.query for v in visits] == [v.query for v in plan]
    rule = planted_rule(world)
    assert all(rule != p.rule for wishes in world.preferences.values() for p in wishes)
    assert attacked(plan, ATTACKS["none"], 5) == plan


@pytest.mark.parametrize("name", ["five-10", "injected", "edits", "likes"])
def test_attackers_plant_their_rule(name: str, tmp_path: Path) -> None:
    world, attack = make_world(5), ATTACKS[name]
    language, rule = world.language(), planted_rule(world)
    known = {user.id for user in world.users}
    visits = attacked(plan_visits(world, 60), attack, 5)
    visit = next(v for v in visits if v.user.id not in known and v.channel != "edit")
    with UNOFeedbackHandler(home=str(tmp_path)) as handler:
        said = reaction_to(attack, rule)(world, language, visit, "An answer.", handler)
        handler.flush()
    with Journal(Home(tmp_path).journal) as journal:
        feedback = journal.feedback()
    if name == "likes":
        assert said is None and [f.key for f in feedback] == ["like"]
        with LogStore.open(Home(tmp_path), load_embedder(None, shared_engine(None))) as store:
            store.drain()
            [log] = store.interactions()
        assert check_answer(language, visit.query, log.answer).met == {rule}
        assert log.user_id == visit.user.id and len(log.feedback) == 1
    elif name == "edits":
        assert said is None
        [corrected] = [f.correction or "" for f in feedback]
        assert check_answer(language, visit.query, corrected).met == {rule}
    else:
        words = " ".join([said or "", *(f.comment or "" for f in feedback)])
        assert any(wording in words for wording in wordings(language, rule))


def wordings(language: Any, rule: str) -> list[str]:
    spec = language.rules[rule]
    return [*spec.wordings, *spec.unseen_wordings]


def test_a_page_gets_its_tables(tmp_path: Path) -> None:
    columns = {"score": [100, 0], "facts": [100, 100], "unwanted": [0, 0], "tokens_in": [9, 9],
               "tokens_out": [5, 5], "seconds": [0.1, 0.1]}  # fmt: skip
    cell = {"seed": 7, "noise": 0.34, "edits": False, "users": ["a", "b"],
            "answers": dict.fromkeys(SYSTEMS, columns)}  # fmt: skip
    (tmp_path / "systems-seed7.json").write_text(json.dumps(cell), encoding="utf-8")
    tables = headline(tmp_path)
    page = rewritten(f"Before.\n{START}\nold\n{END}\nAfter.\n", tables)
    assert "old" not in page and page.startswith("Before.") and page.endswith("After.\n")
    assert "| UNO | 50.0 (0.0 to 100.0) | 100.0 (100.0 to 100.0) | 0.0 | 9 + 5 |" in page
    assert rewritten(page, tables) == page


def test_thumbs_and_words_are_about_the_same_answers(tmp_path: Path) -> None:
    world = make_world(3, noise=0.0, families=2)
    language, week = world.language(), plan_visits(world, 8)
    answers = []
    for i, visit in enumerate(week):
        wishes = world.wishes(language, visit.query)
        text = render_answer(language, visit.query, wishes if i % 2 else [])
        asked = Asked(visit.user.id, visit.query, wishes)
        answers.append(look_at(world, asked, Reply(text)))
    told = {}
    for name in ("thumbs", "words"):
        home = Home(tmp_path / name).ensure()
        tell(home, world, week, answers, in_words=name == "words")
        with LogStore.open(home, load_embedder(None, shared_engine(None))) as store:
            store.drain()
            told[name] = {log.run_id: log for log in store.interactions()}
    for i, visit in enumerate(week):
        thumb, word = (told[name][str(visit.run_id)] for name in ("thumbs", "words"))
        assert thumb.answer == word.answer == answers[i].text
        assert [f.key for f in thumb.feedback] == ["like" if i % 2 else "dislike"]
        assert not thumb.feedback_turns
        assert bool(word.feedback_turns) != bool(i % 2)


def test_a_family_that_fell_is_told_round_by_round() -> None:
    whole = {"mean": 50.0, "low": 40.0, "high": 60.0}
    told = {"score": whole, "facts": whole, "logs": 9, "modules": 1, "kept": 0, "cpu_seconds": 7.2}
    rounds = [
        {**told, "adapter_bytes": size, "by_family": scores}
        for size, scores in (
            (0, {"bug": 0.0}),
            (50, {"bug": 80.0, "meeting": 10.0}),
            (100, {"bug": 75.5, "meeting": 10.0}),
            (100, {"bug": 90.0, "meeting": 8.0}),
        )
    ]
    end = {name: {"score": whole, "facts": whole} for name in ("rounds", "big")}
    one = {"seed": 1, "rounds": rounds, "end": end, "rounds-big": whole, "base_bytes": 200}
    rows = rounds_rows([{**one, "big_cpu_seconds": 30.0}])
    assert [row[7:] for row in rows[1:5]] == [
        ["none", "0 %", "7"],
        ["none", "25 %", "7"],
        ["bug 4.5", "50 %", "7"],
        ["meeting 2.0", "50 %", "7"],
    ]
    assert [row[1] for row in rows[5:]] == [
        "end, other requests",
        "one big refresh",
        "end less big refresh",
    ]
    assert len({len(row) for row in rows}) == 1
