"""Recurring rules, conditions on the query, and wordings that mean the same."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from langchain_uno.errors import InputError
from langchain_uno.learning.aggregate import ClusterRules, aggregate_rules
from langchain_uno.learning.conditions import (
    Condition,
    Vocabulary,
    common_words,
    find_condition,
    words_of,
)
from langchain_uno.learning.wordings import group_wordings, plain
from langchain_uno.models.protocols import FloatArray, OnDone
from langchain_uno.records import Rule, RuleSet

CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Delhi", "Quito")


def rule_set(*texts: str) -> RuleSet:
    return RuleSet(run_id="r", with_feedback=[Rule(text=t) for t in texts])


def logs(
    n: int,
    *,
    condition: str | None = None,
    mention: float = 0.75,
    noise: float = 0.33,
    seed: int = 0,
) -> tuple[list[RuleSet], list[str]]:
    """Users who want a title and a recap always, and a phone number where ``condition`` stands."""
    rng = random.Random(seed)
    sets, queries = [], []
    for _ in range(n):
        urgent = rng.random() < 0.4
        opening = rng.choice(
            ("Plan a tour to", "Tell me about the tour to", "Write up the trip to")
        )
        query = f"{opening} {rng.choice(CITIES)}, {rng.randint(2, 9)} days."
        if urgent:
            query += rng.choice((" This is urgent.", " Urgent!", " It is urgent, please hurry."))
        wishes = ["Add a title.", "End with a recap."]
        if condition is None or (condition == "urgent" and urgent):
            wishes.append("Give a phone number.")
        if condition == "south" and any(c in query for c in ("Lima", "Quito")):
            wishes.append("Give a phone number.")
        said = [w for w in wishes if rng.random() < mention] if rng.random() > noise else []
        sets.append(rule_set(*said))
        queries.append(query)
    return sets, queries


def texts(rules: Sequence[Rule]) -> set[str]:
    return {rule.text for rule in rules}


class BagOfWords:
    """A real embedder of the plainest kind."""

    fingerprint = "bag-of-words"

    def embed(self, texts: Sequence[str], on_done: OnDone | None = None) -> FloatArray:
        words = sorted({w for t in texts for w in plain(t).split()})
        table = np.array(
            [[plain(t).split().count(w) for w in words] for t in texts], dtype=np.float32
        )
        return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)


class SharedWord:
    """Says yes where two texts share a word of five letters or more, except one way for "short"."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def covered(
        self, pairs: Sequence[tuple[str, str]], on_done: OnDone | None = None
    ) -> FloatArray:
        self.asked += pairs
        return np.array([float(self._yes(a, b)) for a, b in pairs], dtype=np.float32)

    def _yes(self, a: str, b: str) -> bool:
        long = {w for w in plain(a).split() if len(w) >= 5} & {
            w for w in plain(b).split() if len(w) >= 5
        }
        return bool(long - {"short"}) and not ("short" in a and "short" not in b)


def test_partial_mentions_make_the_whole_list() -> None:
    sets, queries = logs(30)
    rules = aggregate_rules(sets, queries)
    everything = {"Add a title.", "End with a recap.", "Give a phone number."}
    assert {r.text for r in rules.recurring} == everything
    for own, query in zip(sets, queries, strict=True):
        done = rules.complete(own, query)
        assert texts(done.wanted) == everything
        added = {r.text for r in done.wanted if r.source == "aggregated"}
        assert added == everything - texts(own.with_feedback)
        assert own.wanted == [] and done.with_feedback == own.with_feedback


def test_the_order_and_the_words_are_those_of_the_cluster() -> None:
    sets = [rule_set("add a TITLE", "End with a recap."), *[rule_set("Add a title.")] * 3]
    sets += [rule_set("Add a title.", "End with a recap.")] * 2
    rules = aggregate_rules(sets, ["q"] * 6)
    done = rules.complete(rule_set("End with a recap.", "add a TITLE", "Sing."), "q")
    assert [(r.text, r.source) for r in done.wanted] == [
        ("Add a title.", "feedback"),
        ("End with a recap.", "feedback"),
        ("Sing.", "feedback"),
    ]
    assert rules.recurring[0].support == 1.0
    assert set(rules.recurring[0].wordings) == {"Add a title.", "add a TITLE"}


def test_a_rule_of_a_few_is_not_everybodys() -> None:
    sets = [rule_set("Add a title.")] * 9 + [rule_set("Add a title.", "Sing.")]
    rules = aggregate_rules(sets, ["q"] * 10)
    assert [r.text for r in rules.recurring] == ["Add a title."]
    assert texts(rules.complete(sets[-1], "q").wanted) == {"Add a title.", "Sing."}
    assert aggregate_rules([rule_set("Sing.")], ["q"]).recurring == ()


def test_silent_logs_do_not_vote_but_are_completed() -> None:
    sets = [rule_set("Add a title.")] * 3 + [rule_set()] * 17
    rules = aggregate_rules(sets, ["q"] * 20)
    assert rules.recurring[0].support == 1.0
    assert (rules.n_logs, rules.n_voting) == (20, 3)
    assert texts(rules.complete(sets[-1], "q").wanted) == {"Add a title."}


def test_one_loud_user_can_be_asked_for_company() -> None:
    sets = [rule_set("Sing.")] * 6 + [rule_set("Add a title.")] * 6
    users = ["loud"] * 6 + [f"u{i}" for i in range(5)] + [None]
    rules = aggregate_rules(sets, ["q"] * 12, user_ids=users, min_users=2)
    assert {r.text: r.users for r in rules.recurring} == {"Add a title.": 6}
    assert len(aggregate_rules(sets, ["q"] * 12, user_ids=users).recurring) == 2


def test_urgent_queries_want_more() -> None:
    found = 0
    for seed in range(12):
        sets, queries = logs(40, condition="urgent", seed=seed)
        rules = aggregate_rules(sets, queries)
        by_text = {r.text: r.condition for r in rules.recurring}
        assert by_text["Add a title."] is None or seed
        condition = by_text.get("Give a phone number.")
        if condition is not None and condition.words == ("urgent",):
            found += 1
            assert "Give a phone number." in texts(rules.wanted_for("Go to Bern. Very urgent."))
            assert "Give a phone number." not in texts(rules.wanted_for("Go to Bern."))
            assert condition.inside > 2 * condition.outside
    assert found >= 10


def test_a_condition_may_be_one_of_two_words() -> None:
    sets, queries = logs(150, condition="south", seed=1)
    rules = aggregate_rules(sets, queries)
    condition = {r.text: r.condition for r in rules.recurring}["Give a phone number."]
    assert condition is not None and condition.words == ("lima", "quito")


def test_hardly_any_condition_is_found_where_there_is_none() -> None:
    conditions = [
        rule.condition
        for seed in range(30)
        for rule in aggregate_rules(*logs(40, seed=seed)).recurring
    ]
    assert len(conditions) == 90
    assert sum(c is not None for c in conditions) <= 4


def test_layouts_that_exclude_each_other_are_not_added_up() -> None:
    sets = [rule_set("Use bullets."), rule_set("Use one sentence.")] * 12 + [
        rule_set("Use bullets.")
    ]
    rules = aggregate_rules(sets, [f"q{i}" for i in range(25)])
    assert texts(rules.wanted_for("q")) == {"Use bullets."}
    assert texts(rules.complete(sets[1], "q").wanted) == {"Use one sentence."}


def test_the_model_survives_json() -> None:
    sets, queries = logs(60, condition="urgent", seed=2)
    rules = aggregate_rules(sets, queries)
    assert ClusterRules.model_validate_json(rules.model_dump_json()) == rules


def test_no_rules_at_all_and_lists_that_do_not_fit() -> None:
    rules = aggregate_rules([rule_set(), rule_set()], ["a", "b"])
    assert rules.recurring == () and rules.wanted_for("a") == []
    assert aggregate_rules([], []).recurring == ()
    with pytest.raises(InputError, match="2 logs, 1 queries"):
        aggregate_rules([rule_set(), rule_set()], ["a"])


def test_wordings_merge_by_text_embedding_and_reranker() -> None:
    said = [["Add a title."], ["add a title"], ["Give a headline, a title."], ["Use bullets."]] * 2
    by_text = group_wordings(said)
    assert by_text["add a title"] == by_text["Add a title."]
    assert by_text["Give a headline, a title."] != by_text["Add a title."]
    near = [
        ["Please add a big title here now."],
        ["Please add a big title here."],
        ["Sing."],
        ["Use bullets."],
    ]
    merged = group_wordings(near, BagOfWords())
    assert len(set(merged.values())) == 3
    judge = SharedWord()
    asked = group_wordings([*said, ["Add a short title."]], BagOfWords(), judge)
    assert asked["Give a headline, a title."] == asked["Add a title."]
    assert asked["Add a short title."] == "Add a short title."
    assert asked["Use bullets."] == "Use bullets."
    assert all((b, a) in judge.asked for a, b in judge.asked)


def test_wishes_named_side_by_side_are_two() -> None:
    said = [["Name the author.", "Name the authors."]] * 4
    assert len(set(group_wordings(said, BagOfWords(), SharedWord()).values())) == 2


def test_words_of_english_and_chinese() -> None:
    assert {"urgent", "is urgent", "it's"} <= words_of("It's late. This is URGENT!")
    assert "late this" not in words_of("It's late. This")
    assert {"紧急", "合同"} <= words_of("紧急合同, 3 pages")


def test_find_condition_needs_contrast() -> None:
    queries = [f"a {'red' if i % 2 else 'blue'} car {i % 5}" for i in range(60)]
    red = np.array([i % 2 == 1 for i in range(60)])
    found = find_condition(Vocabulary(queries), red)
    assert found is not None and found.words == ("red",) and found.p_value < 0.05
    assert isinstance(found, Condition) and found.holds("My RED car") and not found.holds("reddish")
    assert find_condition(Vocabulary(queries), np.ones(60, dtype=np.bool_)) is None
    assert find_condition(Vocabulary([]), np.zeros(0, dtype=np.bool_)) is None


def _few_urgent(topics: int) -> tuple[list[str], np.ndarray]:
    """Sixteen requests of many words of their own; a wish in four of the six urgent ones."""
    rng = np.random.default_rng(topics)
    words = [f"{'abcdefghijklmnop'[i]}{'xyz'[topics % 3]}ord" for i in range(16)]
    queries, mentions = [], np.zeros(16, dtype=np.bool_)
    for i in range(16):
        own = " ".join(rng.choice(words, 8, replace=False))
        queries.append(f"{own}. {'It is urgent.' if i < 6 else ''}")
        mentions[i] = i < 4
    return queries, mentions


def test_words_that_many_clusters_share_are_a_smaller_search() -> None:
    clusters = [_few_urgent(topics) for topics in range(6)]
    common = common_words([queries for queries, _ in clusters])
    assert "urgent" in common and "axord" not in common
    assert common_words([queries for queries, _ in clusters[:2]]) == frozenset()
    found = {True: 0, False: 0}
    for queries, mentions in clusters:
        for shared in found:
            vocabulary = Vocabulary(queries, common=common if shared else ())
            condition = find_condition(vocabulary, mentions, alpha=0.1)
            found[shared] += condition is not None and "urgent" in condition.words[0]
    assert found[True] > found[False]


def test_what_tells_elsewhere_is_believed_on_less() -> None:
    queries, mentions = _few_urgent(3)
    common = common_words([_few_urgent(topics)[0] for topics in range(6)])
    vocabulary = Vocabulary(queries, common=common)
    assert find_condition(vocabulary, mentions, alpha=0.04) is None
    found = find_condition(vocabulary, mentions, alpha=0.04, told={"urgent", "it is", "is urgent"})
    assert found is not None and "urgent" in found.words[0]
    assert find_condition(vocabulary, mentions, alpha=0.04, told={"axord"}) is None


def test_one_who_writes_much_has_one_vote() -> None:
    honest = [RuleSet(run_id=f"h{i}", with_feedback=[Rule(text="Be brief.")]) for i in range(12)]
    planted = [RuleSet(run_id=f"x{i}", with_feedback=[Rule(text="Buy now!")]) for i in range(8)]
    sets, users = honest + planted, [f"u{i}" for i in range(12)] + ["mallory"] * 8
    queries = [f"question {i}" for i in range(20)]
    by_logs = aggregate_rules(sets, queries, user_ids=users)
    assert {r.text for r in by_logs.recurring} == {"Be brief.", "Buy now!"}
    fair = aggregate_rules(
        sets, queries, user_ids=users, votes="users", min_users=3, own_rules=False
    )
    assert [r.text for r in fair.recurring] == ["Be brief."]
    assert fair.recurring[0].support == pytest.approx(12 / 13)
    cleaned = fair.complete(planted[0], queries[-1])
    assert cleaned.with_feedback == [] and [r.text for r in cleaned.wanted] == ["Be brief."]


def test_what_a_module_gives_is_not_forgotten_because_nobody_asks_for_it() -> None:
    # Ten logs of the base, then thirty of a module that sings: people ask for what else they want.
    sets = [rule_set("Sing.") for _ in range(7)] + [rule_set("Hum.") for _ in range(3)]
    sets += [rule_set("Dance.") for _ in range(30)]
    queries = [f"q{i}" for i in range(40)]
    given: list[list[str]] = [[] for _ in range(10)] + [["sing"] for _ in range(30)]
    forgetful = aggregate_rules(sets, queries)
    assert [r.text for r in forgetful.recurring] == ["Dance."]
    rules = aggregate_rules(sets, queries, given=given)
    assert [r.text for r in rules.recurring] == ["Dance.", "Sing."]
    assert rules.recurring[1].support == 0.7
    assert rules.rivals == ()
    # Asked for again in spite of the module, it counts like any wish.
    sets[10] = rule_set("Sing.", "Dance.")
    again = aggregate_rules(sets, queries, given=given)
    assert next(r for r in again.recurring if r.text == "Sing.").support == 8 / 11
