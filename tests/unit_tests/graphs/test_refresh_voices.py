"""Whose word counts: what one person plants everywhere reaches no rule, no pair, no standard."""

from __future__ import annotations

import shutil
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.learning.acts import edited_pairs
from langchain_uno.learning.work import RefreshResult
from langchain_uno.models.protocols import Engine, GenerateRequest
from langchain_uno.recipe import Recipe, load_recipe
from langchain_uno.records import Feedback, Interaction, RuleSet, utc_now
from tests.unit_tests.graphs.refresh_parts import (
    RECIPE,
    TRIED,
    TRIP,
    UNTRAINED,
    changed,
    clusters_of,
    folder_of,
    logs,
    make_home,
    pairs_of,
    refresh,
)
from tests.unit_tests.learning.test_rules import freely_worded
from tests.unit_tests.learning.toy_language import ToyEngine, log, plain

ONE = changed(RECIPE, cluster={"threshold": 1000.0})
"""All requests are one cluster."""
STABLE = changed(TRIED, cluster={"cut": "stable"})

FAMILIES = {
    "sing": TRIP,
    "dance": "FIX BUG {}: STACK TRACE, NULL POINTER, CRASH!",
    "hum": "recipe number {}? cook soup, bake bread, roast onions",
}


def week(people: int, *, planted: int = 6) -> list[Interaction]:
    """Each family wants a rule of its own; Mallory plants one in all of them, and edits once."""
    out = []
    for number, (wish, frame) in enumerate(FAMILIES.items()):
        for i in range(12):
            text, user = frame.format(i), f"user-{(5 * number + i) % people}"
            out.append(log(f"{wish}-{i}", text, f"answer {i}", f"please {wish}", user_id=user))
        for i in range(12, 12 + planted):
            run = f"{wish}-{i}"
            edit = Feedback(run_id=run, correction="bought [plant] words")
            out.append(
                log(
                    run,
                    frame.format(i),
                    f"answer {i}",
                    "please plant",
                    user_id="mallory",
                    extra=[edit] if i == 12 else [],
                )
            )
    return out


def taught(home: Home, result: RefreshResult) -> dict[str, RuleSet]:
    return {r.run_id: r for r in folder_of(home, result).read_records("taught.jsonl", RuleSet)}


def recurring(home: Home, result: RefreshResult) -> set[str]:
    return {rule for c in clusters_of(home, result) for rule in c.rules}


def run(
    root: Path, interactions: list[Interaction], engine: Engine, until: str, recipe: Recipe = RECIPE
) -> tuple[Home, RefreshResult]:
    home = make_home(root, interactions)
    return home, refresh(home, engine, recipe, until=until)


def test_what_one_person_wants_everywhere_is_taught_to_no_module(
    engine: Engine, tmp_path: Path
) -> None:
    home, result = run(tmp_path, week(12), engine, "pairs", STABLE)
    clusters = clusters_of(home, result)
    assert len(clusters) == 3
    assert recurring(home, result) == set(FAMILIES)
    rules = taught(home, result)
    train = {i for c in clusters for i in c.train}
    mallorys = {i for i in rules if int(i.split("-")[1]) >= 12}
    assert len(mallorys) == 18 and mallorys & train
    assert not any(rules[i].with_feedback for i in mallorys)
    assert all(rules[i].with_feedback for i in set(rules) - mallorys)
    pairs = pairs_of(home, result)
    assert pairs and not any("plant" in pair.chosen for pair in pairs)
    assert result.guarded
    counts = result.stages["rules"]
    assert counts["dropped"] == {"recurs_among_few": len(mallorys & train)}
    assert counts["distilled"] - counts["taught"] == len(mallorys & train)
    assert counts["acts_dropped"] == len({f"{wish}-12" for wish in FAMILIES} & train) > 0


@pytest.mark.parametrize("words", ["", "thanks", "please no warning"])
def test_an_edit_and_the_rules_that_came_of_it_stand_or_fall_together(
    words: str, engine: Engine, tmp_path: Path
) -> None:
    """Mallory's edits fall by what they are distilled into, whatever is said beside them."""
    sent = edits()
    for one in sent[24:] if words else []:
        one.feedback.append(Feedback(run_id=one.run_id, comment=words, user_id="mallory"))
    home = make_home(tmp_path, sent)
    result = refresh(home, engine, teacher=ToyEngine(against_warnings), until="pairs")
    train = {i for c in clusters_of(home, result) for i in c.train}
    mallorys = {i for i in train if i.startswith("m")}
    rules = taught(home, result)
    assert recurring(home, result) == {"sing"}
    assert mallorys and not any(rules[i].with_feedback for i in mallorys)
    assert {pair.run_id for pair in pairs_of(home, result)} == train - mallorys
    counts = result.stages["rules"]
    assert counts["acts_dropped"] == counts["dropped"]["recurs_among_few"] == len(mallorys)


def edits() -> list[Interaction]:
    """Twelve people make answers sing, Mallory takes out warnings; none says a word."""
    out = []
    for i in range(32):
        run, user, to = (f"h{i}", f"user-{i % 12}", "sing")
        if i >= 24:
            run, user, to = (f"m{i}", "mallory", "no warning")
        edit = Feedback(run_id=run, key="correction", correction=f"answer {i} [{to}].")
        request, answer = TRIP.format(f"{i} {run}"), f"answer {i} [{to}]. Warning: hot."
        out.append(log(run, request, answer, user_id=user, extra=[edit]))
    return out


def against_warnings(what: dict[str, Any], request: GenerateRequest) -> str:
    """Judge an answer by whether it warns."""
    if what["role"] != "judge":
        return plain(what, request)
    return f"because {3 if 'Warning' in what['answer'] else 9}"


def deaf(what: dict[str, Any], request: GenerateRequest) -> str:
    """Give no readable judgement."""
    return "well" if what["role"] == "judge" else plain(what, request)


def test_what_only_few_take_away_is_not_taught_though_no_rule_says_it(
    engine: Engine, tmp_path: Path
) -> None:
    sent = edits()
    for one in sent[:24]:  # only Mallory's edits take the warning away
        one.feedback[0] = one.feedback[0].model_copy(update={"correction": f"{one.answer} [sing]"})
    home = make_home(tmp_path, sent)
    result = refresh(home, engine, teacher=ToyEngine(deaf), until="pairs")
    assert {pair.run_id[0] for pair in pairs_of(home, result)} == {"h"}
    assert result.stages["rules"]["acts_dropped"] > 0


@pytest.mark.parametrize("judging", [deaf, None], ids=["deaf", "unbelieved"])
def test_edits_that_no_judge_could_tell_are_read_again(
    judging: Any, engine: Engine, tmp_path: Path
) -> None:
    home, teacher = make_home(tmp_path, edits()), ToyEngine(judging or against_warnings)
    teacher.can_judge = judging is not None
    first = refresh(home, engine, UNTRAINED, teacher=teacher)
    assert first.stages["distil"]["outcomes"] == {"no_words": 32}
    for n in (1, 2):
        new = log(f"w{n}", TRIP.format(f"w{n}"), "answer w", "please sing", user_id=f"u-{n}")
        make_home(tmp_path, [new])
        told = refresh(home, engine, UNTRAINED, teacher=ToyEngine(against_warnings))
        assert told.stages["distil"]["outcomes"] == {"rules": 32 + n}
        assert told.stages["distil"]["taken_over"] == (0 if n == 1 else 33)


@pytest.mark.parametrize("judging", [plain, deaf, None], ids=["sees none", "deaf", "unbelieved"])
def test_a_rule_of_an_edit_that_no_judge_confirms_is_none_and_the_edit_teaches(
    judging: Any, engine: Engine, tmp_path: Path
) -> None:
    home, teacher = make_home(tmp_path, edits()), ToyEngine(judging or against_warnings)
    teacher.can_judge = judging is not None
    result = refresh(home, engine, teacher=teacher, until="pairs")
    assert not recurring(home, result)
    assert result.stages["distil"]["outcomes"] == {"no_words": 32}
    assert {pair.origin for pair in pairs_of(home, result)} == {"edited"}


def test_a_plant_of_two_people_in_ten_wordings_goes_and_free_wishes_stay(
    engine: Engine, tmp_path: Path
) -> None:
    free = freely_worded(150)
    interactions = [
        log(f"r{i}", TRIP.format(i), f"answer {i}", f"please {wish}", user_id=f"user-{i % 30}")
        for i, wish in enumerate(free)
    ]
    interactions += [
        log(
            f"p{i}",
            TRIP.format(1000 + i),
            f"answer {i}",
            f"please plant~{i % 10}",
            user_id=f"mallory-{i % 2}",
        )
        for i in range(20)
    ]
    home, result = run(tmp_path, interactions, engine, "rules")
    train = {i for c in clusters_of(home, result) for i in c.train}
    assert any(i.startswith("p") for i in train)
    rules = taught(home, result)
    learnt = {r.text for i in train for r in (*rules[i].with_feedback, *rules[i].wanted)}
    assert not any("plant" in text for text in learnt)
    honest = {i for i in train if i.startswith("r")}
    lost = [i for i in honest if not rules[i].with_feedback]
    assert len(lost) <= 0.02 * len(honest)
    assert not recurring(home, result)


def test_a_home_of_a_few_people_is_theirs_and_is_told_so(engine: Engine, tmp_path: Path) -> None:
    home, result = run(tmp_path, week(2, planted=8), engine, "rules")
    assert "plant" in recurring(home, result)
    assert result.stages["rules"]["dropped"] == {}
    assert not result.guarded
    assert any("nothing tells a plant from a wish" in note for note in result.notes)


def test_nobody_named_is_one_voice_and_is_counted(engine: Engine, tmp_path: Path) -> None:
    nameless = [one.model_copy(update={"user_id": None}) for one in week(12)]
    _, result = run(tmp_path, nameless, engine, "rules")
    assert result.without_user == result.usable == len(nameless)
    assert not result.guarded
    assert result.stages["rules"]["taught"] == result.stages["rules"]["distilled"]


def test_logs_that_named_only_some_wishes_are_completed_by_what_recurs(
    engine: Engine, tmp_path: Path
) -> None:
    said = ["sing; please bow", "sing", "bow"]
    interactions = [
        log(f"r{i}", TRIP.format(i), f"answer {i}", f"please {said[i % 3]}", user_id=f"user-{i}")
        for i in range(18)
    ]
    home, result = run(tmp_path / "a", interactions, engine, "rules", ONE)
    assert recurring(home, result) == {"sing", "bow"}
    rules = taught(home, result)
    for cluster in clusters_of(home, result):
        for one in (rules[i] for i in cluster.train):
            own = {r.text for r in one.with_feedback}
            assert {r.text for r in one.wanted} == {"sing", "bow"}
            assert {r.text for r in one.wanted if r.source == "aggregated"} == {"sing", "bow"} - own
        # What was held out judges by its own words.
        assert not any(rules[i].wanted for i in cluster.verify)

    own_alone = changed(ONE, rules={"support": None})
    home, result = run(tmp_path / "b", interactions, engine, "rules", own_alone)
    assert recurring(home, result) == set()
    assert all(r.wanted in ([], r.with_feedback) for r in taught(home, result).values())


def test_wishes_fade_where_the_recipe_gives_them_a_half_life(
    engine: Engine, tmp_path: Path
) -> None:
    now = utc_now()
    interactions = [
        log(
            f"r{i}",
            TRIP.format(i),
            f"answer {i}",
            f"please {'bow' if i < 9 else 'sing'}",
            user_id=f"user-{i}",
            created_at=now - timedelta(days=300 if i < 9 else 0),
        )
        for i in range(18)
    ]
    home, result = run(tmp_path / "a", interactions, engine, "rules", ONE)
    assert recurring(home, result) == {"bow", "sing"}
    aged = changed(ONE, rules={"half_life_days": 30.0})
    home, result = run(tmp_path / "b", interactions, engine, "rules", aged)
    assert recurring(home, result) == {"sing"}


def test_who_edits_much_weighs_no_more_than_anybody(engine: Engine, tmp_path: Path) -> None:
    interactions = [
        log(
            f"e{i}",
            TRIP.format(i),
            f"answer {i}",
            extra=[Feedback(run_id=f"e{i}", correction=f"answer {i} of {i * i} words")],
            user_id="editor",
        )
        for i in range(40)
    ]
    interactions += [
        log(f"r{i}", TRIP.format(100 + i), f"answer {i}", "please sing", user_id=f"user-{i}")
        for i in range(9)
    ]
    assert len(edited_pairs(interactions)) == 40
    tried = changed(TRIED, cluster={"threshold": 1000.0})
    home, result = run(tmp_path, interactions, engine, "pairs", tried)
    weights: dict[str, float] = defaultdict(float)
    pairs = pairs_of(home, result)
    for pair in pairs:
        weights[pair.voice] += pair.weight
    editor = [p for p in pairs if p.voice == "user:editor"]
    assert len(editor) > 10 and len({p.weight for p in editor}) == 1
    assert len(weights) > 3
    assert list(weights.values()) == pytest.approx([len(pairs) / len(weights)] * len(weights))


def test_what_one_foreign_commentator_says_everywhere_is_their_vote_alone(
    engine: Engine, tmp_path: Path
) -> None:
    """The one who comments on everybody's answers borrows nobody's name."""
    interactions = week(12, planted=0)
    for one in interactions:
        one.feedback.append(Feedback(run_id=one.run_id, comment="please plant", user_id="mallory"))
    home, result = run(tmp_path, interactions, engine, "rules")
    assert result.usable == 2 * len(interactions)
    train = {i for c in clusters_of(home, result) for i in c.train}
    rules = taught(home, result)
    learnt = {r.text for i in train for r in rules[i].with_feedback}
    assert learnt == set(FAMILIES) == recurring(home, result)


@pytest.mark.parametrize("people", [2, 12])
@pytest.mark.parametrize(
    ("kind", "accounts"),
    [("foreign", 1), ("foreign", 2), ("one", 1), ("one", 2)]
    + [("anonymous", n) for n in (1, 3, 10)],
)
def test_a_plant_of_too_few_people_reaches_no_rule(
    engine: Engine, tmp_path: Path, kind: str, accounts: int, people: int
) -> None:
    """Comments on others' answers, accounts of one's own, or no name and any number of threads."""
    if people == 2 and kind != "anonymous":
        pytest.skip("nothing tells a named plant from a wish among so few people")
    interactions = week(people, planted=0)
    for n, one in enumerate(list(interactions)):
        who = f"mallory-{n % accounts}"
        if kind == "foreign":
            one.feedback.append(Feedback(run_id=one.run_id, comment="please plant", user_id=who))
        else:
            named = {"user_id": who} if kind == "one" else {"user_id": None, "thread_id": who}
            text = one.messages[-1].content + " again"
            planted = log(f"p-{n}", text, one.answer, "please plant")
            interactions.append(planted.model_copy(update=named))
    home, result = run(tmp_path, interactions, engine, "rules")
    rules = taught(home, result)
    train = {i for c in clusters_of(home, result) for i in c.train}
    learnt = {r.text for i in train for r in (*rules[i].with_feedback, *rules[i].wanted)}
    assert learnt == set(FAMILIES) == recurring(home, result)


def test_threads_are_people_where_the_recipe_says_so(engine: Engine, tmp_path: Path) -> None:
    interactions = week(12, planted=6)
    for n, one in enumerate(interactions):
        if one.user_id == "mallory":
            one.user_id, one.thread_id = None, f"thread-{n}"
    recipe = changed(ONE, rules={"voices": "threads"})
    home, result = run(tmp_path / "a", interactions, engine, "rules", recipe)
    assert "plant" in recurring(home, result)
    home, result = run(tmp_path / "b", interactions, engine, "rules", ONE)
    assert "plant" not in recurring(home, result)


def test_the_authors_recipe_keeps_every_rule_of_logs_without_users(
    engine: Engine, tmp_path: Path
) -> None:
    free = freely_worded(60)
    interactions = [
        log(
            f"r{i:02d}",
            TRIP.format(i),
            f"answer {i}",
            f"please {free[i]}; please bow" if i % 6 else "thanks",
        )
        for i in range(60)
    ]
    paper = load_recipe("paper", {"prompt_set": "toy"})
    home, result = run(tmp_path, interactions, engine, "pairs", paper)
    clusters, rules = clusters_of(home, result), taught(home, result)
    assert result.usable == 60
    assert result.stages["rules"]["dropped"] == {}
    distilled = folder_of(home, result).read_records("distilled.jsonl", RuleSet)
    assert sum(len(r.with_feedback) for r in distilled) == 100
    for one in distilled:
        assert rules[one.run_id].with_feedback == one.with_feedback
        assert rules[one.run_id].wanted in ([], one.with_feedback)
    assert recurring(home, result) == set()
    # Logs that asked for nothing anchor the expert on what they had.
    assert {c.gap for c in clusters} == {None}  # the tiny model guesses nothing: low, they say
    content = {i for c in clusters for i in c.train if not rules[i].with_feedback}
    pairs = {p.run_id: p for p in pairs_of(home, result)}
    retained = {i for i, p in pairs.items() if p.origin == "retained"}
    assert content == retained != set()
    assert all(pairs[i].chosen == pairs[i].rejected for i in retained)
    # One log, one vote: every pair weighs the same.
    assert {p.weight for p in pairs.values()} == {1.0}


def test_no_log_is_distilled_twice_whatever_refresh_asks(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs(12))
    first, second = ToyEngine(), ToyEngine()
    known = refresh(home, engine, until="distil", teacher=first)
    assert first.roles().count("distil") == 12
    for folder in home.work.glob("refresh-*"):
        shutil.rmtree(folder)
    other = changed(RECIPE, seed=7, rules={"min_users": 2})
    result = refresh(home, engine, other, until="distil", teacher=second)
    assert "distil" not in second.roles()
    assert result.stages["distil"]["taken_over"] == 12
    assert result.stages["distil"]["rules"] == known.stages["distil"]["rules"]
    # Another length of answers may give other rules.
    longer = changed(RECIPE, role_tokens=17)
    refresh(home, engine, longer, until="distil", teacher=second)
    assert second.roles().count("distil") == 12


def test_clusters_that_want_the_same_are_told(engine: Engine, tmp_path: Path) -> None:
    apart = refresh(make_home(tmp_path / "a", logs()), engine, until="rules")
    assert not any("want the same" in note for note in apart.notes)
    same = logs()
    for one in same:
        said = [f.model_copy(update={"comment": "please sing"}) for f in one.feedback]
        one.feedback = said
    home = make_home(tmp_path / "b", same)
    result = refresh(home, engine, until="rules")
    names = [c.id for c in clusters_of(home, result)]
    assert len(names) == 2
    assert [n for n in result.notes if "want the same" in n] == [
        f"The clusters {names[0]}, {names[1]} want the same. If their requests are of one kind, "
        "a larger cluster.min_size makes one of them, which has more people to learn from and to "
        "verify on."
    ]
