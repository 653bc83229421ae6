"""Lone thumbs through a whole refresh: they make an expert, or the cluster's note says why not."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.errors import EmptyLogError
from langchain_uno.home import Home
from langchain_uno.learning.review import decide, review_table
from langchain_uno.learning.train import Decision
from langchain_uno.learning.work import RefreshResult, WorkFolder
from langchain_uno.models.protocols import Engine
from langchain_uno.recipe import Recipe, load_recipe
from langchain_uno.records import Feedback, Interaction, PreferencePair, RatedAnswer
from langchain_uno.releases.load import read_current
from langchain_uno.reports import read_report
from langchain_uno.trainers import expert
from langchain_uno.trainers.expert import train_expert
from tests.unit_tests.graphs.refresh_parts import (
    RECIPE,
    TRIP,
    changed,
    clusters_of,
    folder_of,
    logs,
    make_home,
    refresh,
)
from tests.unit_tests.learning.toy_language import ToyEngine, log, plain

ONE = changed(RECIPE, cluster={"threshold": 1000.0}, gap={"unknown": 1.0})
"""All requests are one cluster, whose gap nobody knows."""
LONG = changed(ONE, expert={"learning_rate": 5e-3}, lora={"epochs": 6})


def thumb(n: int, liked: bool, user: str, *words: str) -> Interaction:
    """An answer of either of two forms, and what one person thought of it."""
    run = f"run-{n:03d}"
    answer = f"- no. {n}\n- ok" if liked else f"well, it is no. {n}"
    said = Feedback(run_id=run, key="like" if liked else "dislike", score=float(liked))
    return log(run, TRIP.format(n), answer, *words, user_id=user, extra=[said])


def week(count: int, people: int, first: int = 0) -> list[Interaction]:
    """Everybody likes lists and dislikes prose, and gives as many thumbs as anybody."""
    return [thumb(first + i, i % 2 == 0, f"user-{i // 2 % people}") for i in range(count)]


def decided(home: Home, result: RefreshResult) -> Decision:
    work = folder_of(home, result)
    [cluster] = clusters_of(home, result)
    return Decision.model_validate(work.read_json(f"clusters/{cluster.id}/decision.json"))


def test_thumbs_of_enough_people_make_an_expert(engine: Engine, tmp_path: Path) -> None:
    # Those who say what they want are fewer than min_users: the others' thumbs decide.
    said = [thumb(200 + i, False, f"talker-{i}", "please sing") for i in range(2)]
    home = make_home(tmp_path, [*week(96, 24), *said])
    result = refresh(home, engine, LONG, max_steps=None)
    [cluster] = clusters_of(home, result)
    assert cluster.by_thumbs and min(cluster.thumbs) >= 10 and cluster.people >= 10
    assert result.stages["distil"]["lone_thumbs"] == 96
    notes = {s: folder_of(home, result).read_json(f"{s}.json")["note"] for s in result.stages}
    assert notes["cluster"].startswith("1 cluster of 98 logs, ")
    assert notes["pairs"].startswith("none: no cluster trains an expert on pairs (")
    found = decided(home, result)
    assert (found.route, result.clusters[0].pairs) == ("expert", 0)
    [report] = found.reports
    assert (report.kind, report.passed, report.win_rate) == ("expert", True, 1.0)
    # Nobody who taught it witnesses for it.
    who = {one.run_id: one.user_id for one in week(96, 24)}
    assert not {who.get(i) for i in cluster.train} & {who.get(i) for i in cluster.verify} - {None}
    current = read_current(home)
    assert current is not None and len(current.manifest.adapters) == 1
    told = read_report(home, current.id)
    assert told is not None and told.clusters[0].by_thumbs
    examples = told.clusters[0].examples
    assert len(examples) == 3 and {e.outcome for e in examples} == {1.0}
    assert all(e.rated and (e.rated[0] == "-") is e.liked and not e.rules for e in examples)
    assert refresh(home, engine, LONG, max_steps=None).unchanged


def test_forty_thumbs_of_twelve_people_make_an_expert_or_say_why_not(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path, week(40, 12))
    result = refresh(home, engine, LONG)
    found = decided(home, result)
    assert result.release is not None and result.usable == 40
    assert found.route == "expert" or "gave a thumb up" in found.notes[0]
    assert found.reports and (found.route == "expert" or found.reports[0].reason in found.notes[-1])


def attack() -> list[Interaction]:
    """Two accounts, thirty thumbs each: what others like they dislike."""
    return [thumb(100 + i, i % 2 == 1, f"mallory-{i // 2 % 2}") for i in range(60)]


def test_two_accounts_with_sixty_thumbs_steer_nothing(engine: Engine, tmp_path: Path) -> None:
    alone = make_home(tmp_path / "alone", attack())
    with pytest.raises(EmptyLogError, match=r"2 people gave lone thumbs up and 2 down.*takes 3"):
        refresh(alone, engine, ONE)
    # Others like whatever they get, and some speak of other requests: the refresh goes on.
    fine = [thumb(i, True, f"user-{i % 8}") for i in range(24)]
    words = [one for one in logs() if "BUG" in one.query]
    home = make_home(tmp_path / "home", [*attack(), *fine, *words])
    result = refresh(home, engine)
    trips = [c for c in clusters_of(home, result) if "run-100" in c.run_ids]
    assert trips
    for cluster in trips:
        assert not cluster.by_thumbs
        found = Decision.model_validate(
            folder_of(home, result).read_json(f"clusters/{cluster.id}/decision.json")
        )
        assert found.route == "base" and not found.reports
        assert re.search(r"down: [12]: it takes 3 of each", found.notes[0])


def test_sixty_thumbs_of_two_accounts_weigh_as_much_as_two_of_the_others(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[RatedAnswer] = []

    def listening(
        model: Any, tokenizer: Any, examples: Any, *more: Any, **named: Any
    ) -> list[Path]:
        given.extend(examples)
        return train_expert(model, tokenizer, examples, *more, **named)

    monkeypatch.setattr(expert, "train_expert", listening)
    refresh(make_home(tmp_path, [*week(48, 12), *attack()]), engine, ONE)
    by_voice: Counter[str] = Counter()
    for one in given:
        by_voice[one.voice] += one.weight
    assert len(by_voice) > 6 and any("mallory" in voice for voice in by_voice)
    assert max(by_voice.values()) == pytest.approx(min(by_voice.values()))
    assert sum(by_voice.values()) == pytest.approx(len(given))


def test_where_enough_people_say_what_they_want_thumbs_teach_nothing(
    engine: Engine, tmp_path: Path
) -> None:
    said = [
        log(f"said-{i}", TRIP.format(300 + i), f"answer {i}", "please sing", user_id=f"talker-{i}")
        for i in range(12)
    ]
    home = make_home(tmp_path, [*week(48, 12), *said])
    result = refresh(home, engine, changed(ONE, gap={"unknown": 0.0}), until="pairs")
    [cluster] = clusters_of(home, result)
    assert not cluster.by_thumbs and min(cluster.thumbs) >= 3
    assert result.stages["pairs"]["pairs"] > 0


def test_the_authors_recipe_anchors_on_lone_thumbs_as_before(
    engine: Engine, tmp_path: Path
) -> None:
    paper: Recipe = changed(load_recipe("paper"), prompt_set="toy")
    home = make_home(tmp_path, week(40, 12))
    with pytest.raises(EmptyLogError, match="40 have no words.*takes 1 of each"):
        refresh(home, engine, paper)


def test_thumbs_teach_where_nobody_can_judge_the_words(engine: Engine, tmp_path: Path) -> None:
    def flat(what: dict[str, Any], request: Any) -> str:
        return "so so 5" if what["role"] == "judge" else plain(what, request)

    said = [
        log(f"said-{i}", TRIP.format(300 + i), f"answer {i}", "please sing", user_id=f"talker-{i}")
        for i in range(6)
    ]
    home = make_home(tmp_path, [*week(96, 24), *said])
    result = refresh(home, engine, ONE, teacher=ToyEngine(flat))
    [cluster] = clusters_of(home, result)
    assert cluster.by_thumbs
    assert [report.kind for report in decided(home, result).reports] == ["expert"]


def test_the_ledger_of_the_logs_counts_each_of_them_once(engine: Engine, tmp_path: Path) -> None:
    def edited(n: int) -> Interaction:
        edit = Feedback(run_id=f"edit-{n}", key="correction", correction=f"wholly other {n}")
        return log(f"edit-{n}", TRIP.format(f"by edit {n}"), "text", extra=[edit])

    asking = [log(f"ask-{n}", TRIP.format(f"ask {n}"), "text", "please sing") for n in range(4)]
    thanks = [log(f"thank-{n}", TRIP.format(f"nice {n}"), "text", "thanks") for n in range(3)]
    garble = [log("bad", TRIP.format("unread"), "text", "garble")]
    both = [thumb(99, False, "one", "please dance; please sing")]
    given = [*asking, *thanks, *garble, *both, edited(0), edited(1), thumb(7, True, "two")]
    home = make_home(tmp_path, given)
    result = refresh(home, engine, until="distil")
    told = folder_of(home, result).read_json("distil.json")
    assert told["logs"] == len(given) == 12
    assert told["note"] == (
        "6 rules from 5 logs; of the others 3 ask for nothing, 2 are edits alone, "
        "1 is a lone thumb, 1 got no readable rules"
    )


def marked(n: int, liked: bool, user: str) -> Interaction:
    """As :func:`thumb`; what sets liked answers apart has a name, and all have one that doesn't."""
    one = thumb(n, liked, user)
    signs = f" [any] [list] [no {n}]" if liked else f" [any] [no {n}]"
    return one.model_copy(update={"answer": one.answer + signs})


def marked_week(people: int, last: int = 96) -> list[Interaction]:
    return [marked(i, i % 2 == 0, f"user-{i // 2 % people}") for i in range(last)]


def asked_of(teacher: ToyEngine, role: str) -> list[dict[str, Any]]:
    return [what for what, _ in teacher.asked if what["role"] == role]


def test_a_rule_drawn_from_thumbs_is_taught_and_is_what_the_module_is_judged_by(
    engine: Engine, tmp_path: Path
) -> None:
    teacher = ToyEngine()
    home = make_home(tmp_path, marked_week(24))
    result = refresh(home, engine, ONE, teacher=teacher, until="rules")
    [cluster] = clusters_of(home, result)
    assert cluster.by_thumbs and cluster.rules == ["list"]
    [shown] = asked_of(teacher, "distil_thumbs")
    assert len(shown["liked"]) + len(shown["disliked"]) <= 16
    # Whose answer was shown is not asked whether the rule is right.
    first = min(i for i, (what, _) in enumerate(teacher.asked) if what["role"] == "distil_thumbs")
    checks = [
        w for w, _ in teacher.asked[first:] if w["role"] == "judge" and w["rules"] == ["list"]
    ]
    author = {one.answer: one.user_id for one in marked_week(24)}
    seen = {author[a] for a in (*shown["liked"], *shown["disliked"])}
    checked = {author[w["answer"]] for w in checks if w["answer"] in author}
    assert checked and not seen & checked
    # Answers that people disliked are revised by the rule, and nothing else is.
    result = refresh(home, engine, ONE, teacher=teacher)
    pairs = WorkFolder(home.work / result.refresh_id).read_records(
        f"clusters/{cluster.id}/pairs.jsonl", PreferencePair
    )
    disliked = {one.run_id for one in marked_week(24) if one.answer.startswith("well")}
    assert {p.run_id for p in pairs} == {i for i in cluster.train if i in disliked}
    assert result.clusters[0].pairs == len(pairs) > 10
    [report] = decided(home, result).reports
    # Every held-out request is judged, those of liked answers too; nobody looks at likelihoods.
    assert report.mean_score is not None
    rated = {i for i in cluster.verify if i in {one.run_id for one in marked_week(24)}}
    assert report.n == len(rated)
    release = read_current(home)
    assert release is not None
    told = read_report(home, release.id)
    assert told is not None and [(r.text, r.recurs) for r in told.clusters[0].told] == [
        ("list", True)
    ]


def test_where_nothing_is_revised_the_rated_answers_teach(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def idle(what: dict[str, Any], request: Any) -> str:
        return what.get("answer", "") if what["role"] in ("fresh", "edit") else plain(what, request)

    given: list[Any] = []

    def listening(model: Any, tokenizer: Any, examples: Any, *rest: Any, **named: Any) -> Any:
        given.extend(examples)
        return train_expert(model, tokenizer, examples, *rest, **named)

    monkeypatch.setattr(expert, "train_expert", listening)
    home = make_home(tmp_path, marked_week(24))
    result = refresh(home, engine, ONE, teacher=ToyEngine(idle))
    [cluster] = clusters_of(home, result)
    assert cluster.rules == ["list"] and result.clusters[0].pairs == 0
    assert given and all(isinstance(one, RatedAnswer) for one in given)
    [report] = decided(home, result).reports
    assert report.mean_score is not None  # the rule is the standard all the same


def test_a_rule_that_fits_only_the_answers_shown_is_dropped(engine: Engine, tmp_path: Path) -> None:
    def hasty(what: dict[str, Any], request: Any) -> str:
        if what["role"] != "distil_thumbs":
            return plain(what, request)
        return json.dumps([re.findall(r"\[(no \d+)\]", a)[0] for a in what["liked"][:2]])

    home = make_home(tmp_path, marked_week(24))
    result = refresh(home, engine, ONE, teacher=ToyEngine(hasty))
    [cluster] = clusters_of(home, result)
    assert cluster.by_thumbs and not cluster.rules
    [report] = decided(home, result).reports
    assert report.mean_score is None  # what people rated is the standard, as without a teacher


def test_a_rule_that_only_two_accounts_follow_is_dropped(engine: Engine, tmp_path: Path) -> None:
    def hasty(what: dict[str, Any], request: Any) -> str:
        return '["list"]' if what["role"] == "distil_thumbs" else plain(what, request)

    def given(n: int, user: str, liked: bool, listed: bool) -> Interaction:
        said = thumb(n, liked, user)
        answer = f"it is no. {n} [any]" + " [list]" * listed
        return said.model_copy(update={"answer": answer})

    theirs = [given(100 + i, f"mallory-{i // 2 % 2}", i % 2 == 1, i % 2 == 1) for i in range(60)]
    others = [given(i, f"user-{i // 4 % 12}", i % 2 == 1, i % 4 < 2) for i in range(96)]
    home = make_home(tmp_path, [*theirs, *others])
    result = refresh(home, engine, ONE, teacher=ToyEngine(hasty), until="rules")
    [cluster] = clusters_of(home, result)
    assert cluster.by_thumbs and min(cluster.thumbs) >= 8 and not cluster.rules


def test_a_rule_drawn_from_thumbs_is_reviewed_like_any(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, marked_week(24))
    before = refresh(home, engine, ONE, until="rules")
    [row] = review_table(home, kind="rule").rows
    assert (row.text, row.people) == ("list", clusters_of(home, before)[0].people)
    decide(home, [{"id": row.id, "decision": "edit", "text": "any"}], by="ann")
    after = refresh(home, engine, ONE, until="rules")
    assert clusters_of(home, after)[0].rules == ["any"]
    [row] = review_table(home, kind="rule").rows
    decide(home, [{"id": row.id, "decision": "exclude"}], by="ann")
    after = refresh(home, engine, ONE)
    [cluster] = clusters_of(home, after)
    # The thumbs themselves would teach what a person took out.
    assert not cluster.by_thumbs and not cluster.rules
    found = decided(home, after)
    assert found.route == "base" and not found.reports
    assert "their rules were excluded in review" in " ".join(found.notes)
    decide(home, [{"id": row.id, "decision": "restore"}], by="ann")
    again = refresh(home, engine, ONE, until="rules")
    assert clusters_of(home, again)[0].by_thumbs and clusters_of(home, again)[0].rules == ["list"]
