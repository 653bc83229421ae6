"""Preference pairs: from edits, from likes, from judged revisions; and what makes none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from langchain_uno.learning.acts import approval, liked_pairs, rated_answers, was_content
from langchain_uno.learning.pairs import balanced, build_pairs, count_work
from langchain_uno.recipe import PairSettings, Recipe
from langchain_uno.records import (
    AT_LIMIT,
    Feedback,
    Interaction,
    PreferencePair,
    Rule,
    RuleSet,
    utc_now,
)
from tests.unit_tests.learning.toy_language import ToyEngine, ToyPrompts, log

RECIPE = Recipe(name="test", pairs=PairSettings(candidates=1, min_score=6.0))


def rules_of(interaction: Interaction, *texts: str, wanted: tuple[str, ...] = ()) -> RuleSet:
    return RuleSet(
        run_id=interaction.run_id,
        with_feedback=[Rule(text=t) for t in texts],
        wanted=[Rule(text=t) for t in wanted],
    )


def build(
    logs: list[Interaction],
    rules: list[RuleSet],
    judge: ToyEngine | None = None,
    recipe: Recipe = RECIPE,
) -> list[PreferencePair]:
    writer, reader = ToyEngine(), judge or ToyEngine()
    return build_pairs(logs, rules, writer, reader, ToyPrompts(), recipe).pairs


def said(run_id: str, **what: Any) -> Feedback:
    return Feedback(run_id=run_id, **what)


def test_the_best_candidate_beats_the_logged_answer() -> None:
    one = log("a", "q", "old [sing]", "please dance")
    [pair] = build([one], [rules_of(one, "dance", wanted=("sing", "dance"))])
    assert pair.chosen == "old [sing] [dance]"  # the fresh start lost [sing]
    assert pair.rejected == "old [sing]"
    assert pair.chosen_score == 10.0
    assert pair.rejected_score == 5.5
    assert pair.origin == "revised"
    assert pair.messages == one.messages


def test_a_candidate_that_lost_what_was_quoted_is_not_imitated() -> None:
    # The fresh start is judged best here, but has none of the words that the old answer quotes.
    scores = {"f": "r 9", "o": "r 7"}
    judge = ToyEngine(
        lambda what, request: scores[what["answer"][0]] if "[" in what["answer"] else "r 2"
    )
    one = log("a", "tell me about 45 kettles", "old: 45 kettles", "please sing")
    rules = [rules_of(one, "sing")]
    [blind] = build([one], rules, judge)
    assert blind.chosen.startswith("fresh")
    [kept] = build([one], rules, judge, RECIPE.model_copy(update={"min_kept": 1.0}))
    assert kept.chosen == "old: 45 kettles [sing]"


def test_ties_and_poor_winners_make_no_pair() -> None:
    tie = log("a", "q", "old [sing]", "please sing")  # already obeyed: both score 10
    assert build([tie], [rules_of(tie, "sing")]) == []
    better = log("b", "q", "old", "please sing")
    judge = ToyEngine(lambda what, request: "r 5" if "[sing]" in what["answer"] else "r 2")
    assert build([better], [rules_of(better, "sing")], judge) == []
    judge = ToyEngine(lambda what, request: "r 6" if "[sing]" in what["answer"] else "r 2")
    assert len(build([better], [rules_of(better, "sing")], judge)) == 1


def test_an_unreadable_judgement_of_either_side_makes_no_pair() -> None:
    one = log("a", "q", "old", "please sing")
    blind_to_old = ToyEngine(lambda what, r: "?" if what["answer"] == "old" else "fine 9")
    assert build([one], [rules_of(one, "sing")], blind_to_old) == []
    blind_to_new = ToyEngine(lambda what, r: "fine 2" if what["answer"] == "old" else "?")
    assert build([one], [rules_of(one, "sing")], blind_to_new) == []


def test_logs_whose_feedback_asked_for_nothing_make_no_pair() -> None:
    one = log("a", "q", "old", "thanks")
    assert build([one], [rules_of(one, wanted=("sing",))]) == []


def test_an_edit_is_a_pair_as_it_stands_and_is_not_judged() -> None:
    edit = said("a", key="correction", correction="as I want it")
    one = log("a", "q", "old", "please sing", extra=[edit])
    judge = ToyEngine()
    [pair] = build([one], [rules_of(one, "sing")], judge)
    assert (pair.chosen, pair.rejected, pair.origin) == ("as I want it", "old", "edited")
    assert not judge.asked
    same = log("a", "q", "old", extra=[said("a", key="correction", correction=" old ")])
    assert build([same], [rules_of(same)]) == []


def regenerated(first: list[Feedback], second: list[Feedback], **more: Any) -> list[Interaction]:
    now = utc_now()
    tries = [
        log("a", "q", "first", extra=first, thread_id="t", created_at=now),
        log("b", "q", "second", extra=second, thread_id="t", created_at=now + timedelta(minutes=1)),
    ]
    tries[1] = tries[1].model_copy(update=more)
    return tries


@pytest.mark.parametrize("first", [[said("a", key="dislike")], [said("a", key="regenerate")], []])
def test_a_liked_regeneration_is_a_pair(first: list[Feedback]) -> None:
    tries = regenerated(first, [said("b", key="like")])
    [pair] = build(tries, [rules_of(t) for t in tries])
    assert (pair.run_id, pair.chosen, pair.rejected) == ("a", "second", "first")
    assert pair.origin == "liked"


def test_what_is_no_liked_regeneration() -> None:
    like, dislike = [said("b", key="like")], [said("b", score=0.0)]
    assert not liked_pairs(regenerated([said("a", score=1.0)], like))  # the first was liked too
    assert not liked_pairs(regenerated([], dislike))
    assert not liked_pairs(regenerated([], []))
    assert not liked_pairs(regenerated([], like, thread_id="other"))
    assert not liked_pairs(regenerated([], like, thread_id=None))
    assert not liked_pairs(regenerated([], like, answer="first"))
    assert not liked_pairs(regenerated([], like, messages=log("x", "other", "").messages))
    assert not liked_pairs(regenerated([], like, created_at=utc_now() - timedelta(days=1)))


def test_an_answer_that_a_token_limit_cut_is_not_imitated() -> None:
    like, dislike = [said("b", key="like")], [said("a", key="dislike")]
    tries = regenerated(dislike, like, error=AT_LIMIT)
    assert not liked_pairs(tries)
    voices = {"a": "user:x", "b": "user:y"}
    assert [one.run_id for one in rated_answers(tries, voices)] == ["a"]
    cut = [one.model_copy(update={"error": AT_LIMIT}) for one in regenerated(dislike, like)]
    assert [(one.run_id, one.liked) for one in rated_answers(cut, voices)] == [("a", False)]
    keeping = RECIPE.model_copy(update={"pairs": PairSettings(candidates=1, retention=True)})
    assert build(cut[1:], [rules_of(cut[1])], recipe=keeping) == []


def test_approval_joins_scores_and_signals() -> None:
    assert approval(log("a", "q", "x", "words only")) is None
    both = log("a", "q", "x", extra=[said("a", key="like"), said("a", key="score", score=0.0)])
    assert approval(both) == 0.5
    own = log("a", "q", "x", extra=[said("a", key="like", score=0.8), said("a", key="session")])
    assert approval(own) == 0.8


def test_the_best_candidate_is_taken_whatever_it_scores_where_the_paper_is_followed() -> None:
    worse = log("a", "q", "old [sing]", "please sing")
    judge = ToyEngine(lambda what, request: "r 9" if what["answer"] == "old [sing]" else "r 2")
    paper = RECIPE.model_copy(update={"pairs": PairSettings(candidates=1, min_score=0.0)})
    assert build([worse], [rules_of(worse, "dance")], judge) == []
    [pair] = build([worse], [rules_of(worse, "dance")], judge, paper)
    assert (pair.chosen_score, pair.rejected_score) == (2.0, 9.0)


def test_logs_without_rules_hold_the_expert_to_their_answers_if_the_recipe_says_so() -> None:
    logs = [
        log("asks", "q1", "old", "please sing"),
        log("thanks", "q2", " fine ", "thanks"),
        log("empty", "q3", "", "thanks"),
    ]
    rules = [rules_of(logs[0], "sing"), rules_of(logs[1]), rules_of(logs[2])]
    assert [p.origin for p in build(logs, rules)] == ["revised"]
    keeping = RECIPE.model_copy(update={"pairs": PairSettings(candidates=1, retention=True)})
    pairs = build(logs, rules, recipe=keeping)
    assert [(p.run_id, p.origin) for p in pairs] == [("asks", "revised"), ("thanks", "retained")]
    assert pairs[1].chosen == pairs[1].rejected == "fine"


def test_every_voice_weighs_the_same_however_much_it_writes() -> None:
    voices = ["editor"] * 40 + ["a", "b", "b", "c", "c"]
    weights = balanced(voices)
    by_voice = {
        v: sum(w for w, one in zip(weights, voices, strict=True) if one == v) for v in "abc"
    }
    editor = sum(weights[:40])
    assert by_voice == pytest.approx(dict.fromkeys("abc", editor))
    assert sum(weights) == pytest.approx(len(voices))  # one example weighs one, on average
    assert len(set(weights[:40])) == 1
    assert balanced(["a", "b"]) == [1.0, 1.0]
    assert balanced([]) == []


def test_who_liked_an_answer_was_content_with_it() -> None:
    assert was_content(log("a", "q", "x", extra=[said("a", score=1.0)]))
    assert was_content(log("a", "q", "x", extra=[said("a", key="copy")]))
    assert not was_content(log("a", "q", "x", extra=[said("a", score=0.5)]))
    assert not was_content(log("a", "q", "x", "words only"))


def test_reported_work_is_bounded_by_the_count() -> None:
    logs = [log(str(i), f"q{i}", "old", "please sing") for i in range(4)]
    rules, done = [rules_of(one, "sing") for one in logs], []
    build_pairs(logs, rules, ToyEngine(), ToyEngine(), ToyPrompts(), RECIPE, done.append)
    assert 0 < sum(done) <= count_work(logs, rules, RECIPE)
