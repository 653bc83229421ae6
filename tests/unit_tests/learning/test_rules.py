"""What is taught: a log's own rules, no plants; what enough people want completes the others."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from langchain_uno.learning.plants import (
    WITNESSES,
    Mention,
    added,
    repeated_by_few,
    request_of,
)
from langchain_uno.learning.rules import recurring_rules, wanted_rules
from langchain_uno.learning.wordings import group_wordings, in_own_words, plain
from langchain_uno.models.protocols import FloatArray, OnDone
from langchain_uno.records import Rule, RuleSet
from tests.unit_tests.learning.toy_language import ToyEmbedder, ToyReranker, log


def freely_worded(n: int, seed: int = 0) -> list[str]:
    """Rules of three words each, of which others use the one or other word too."""
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(1200)}" for _ in range(3)) for _ in range(n)]


def honest(n: int = 200) -> list[Mention]:
    """Forty people with free wishes."""
    return [
        Mention(text, f"user-{i % 40}", f"request-{i}") for i, text in enumerate(freely_worded(n))
    ]


def marked(mentions: Sequence[Mention], min_users: int = 3) -> list[bool]:
    return repeated_by_few(mentions, ToyEmbedder(), min_users).tolist()


# -- What one person wants everywhere --------------------------------------------------------------


def test_a_wish_planted_by_two_people_in_ten_wordings_is_told_from_free_ones() -> None:
    plants = [
        Mention(f"plant~{i % 10}", f"mallory-{i % 2}", f"request-{1000 + i}") for i in range(20)
    ]
    found = marked([*honest(), *plants])
    assert all(found[200:])
    assert sum(found[:200]) <= 4  # two in a hundred


def test_the_room_that_plants_take_does_not_grow_with_the_square_of_the_wishes() -> None:
    """Wishes of one kind are all near each other, and nameless people are one voice."""
    n = 1500
    texts = [f"short~{i}" for i in range(n)]
    rows = ToyEmbedder().embed(texts).nbytes
    for voice in ("user-{}", "nameless"):
        every = [Mention(text, voice.format(i), f"r{i}") for i, text in enumerate(texts)]
        tracemalloc.start()
        found = marked(every)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert any(found) == (voice == "nameless")
        assert most < 8 * n**2 + 6 * rows, f"{most / 1e6:.0f} MB"


def test_a_plant_is_told_though_all_its_requests_come_in_one_thread() -> None:
    sent = [log(f"m-{i}", f"request {i}", "answer", thread_id="mallory's") for i in range(12)]
    assert len({request_of(one) for one in sent}) == 12
    plants = [Mention("buy brandx now", "mallory", request_of(one)) for one in sent]
    found = marked([*honest(), *plants])
    assert all(found[200:])
    # A conversation that goes on is one request, however often something is said in it.
    first = sent[0]
    turn = first.messages[0].model_copy(update={"content": "shorter"})
    later = first.model_copy(update={"run_id": "later", "messages": [*first.messages, turn]})
    assert request_of(later) == request_of(first)


def test_a_wish_in_nearly_the_same_words_vouches_for_no_plant() -> None:
    """To an embedder "name the source" is near "name the deadline"; a reranker tells them apart."""
    others = [Mention("name the deadline", f"user-{i}", f"r-{i}", cluster="c0") for i in range(9)]
    kept = [Mention("name a deadline", "user-1", f"s-{i}", cluster="c0") for i in range(2)]
    plants = [Mention("name the source", "mallory", f"m-{i}", cluster=f"c{i}") for i in range(9)]

    class Same(ToyReranker):
        def _covers(self, a: str, b: str) -> float:
            return float(("deadline" in a) == ("deadline" in b))

    every, reranker = [*honest(), *others, *kept, *plants], Same()
    assert not any(marked(every)[200:])
    found = repeated_by_few(every, ToyEmbedder(), 3, reranker).tolist()
    assert all(found[-9:]) and not any(found[200:-9])
    # Asked is about what somebody repeats and others say in nearly the same words.
    assert 0 < len(reranker.asked) <= 6


class Agreeing(ToyReranker):
    def _covers(self, a: str, b: str) -> float:
        return float(a.split("~")[0] == b.split("~")[0])


def test_a_reranker_is_asked_about_a_few_people_though_all_have_a_wish() -> None:
    wishes = [
        Mention(f"brief~{i}", f"user-{i}", f"r-{i}-{n}", cluster="c0")
        for i in range(80)
        for n in range(2)
    ]
    reranker = Agreeing()
    assert not repeated_by_few([*honest(), *wishes], ToyEmbedder(), 3, reranker)[200:].any()
    assert 0 < len(reranker.asked) < 2 * 80 * WITNESSES


def test_who_has_a_wish_everywhere_vouches_for_none_of_its_wordings() -> None:
    """Five people, each with ten wordings of one wish, and each wording in one cluster."""
    plants = [
        Mention(f"plant~{i}", f"mallory-{i % 5}", f"p-{i}", cluster=f"c{i // 5}") for i in range(50)
    ]
    found = repeated_by_few([*honest(), *plants], ToyEmbedder(), 3, Agreeing()).tolist()
    assert all(found[200:])


def test_who_repeats_what_few_share_vouches_for_nothing_else() -> None:
    """Five accounts plant by words everywhere, and each by edits in two clusters only."""
    words = [
        Mention("plant~1", f"m-{i % 5}", f"w-{i}", cluster=f"c{i // 5 % 4}") for i in range(40)
    ]
    edits = [
        Mention("**stamp** here", f"m-{i % 5}", f"e-{i}", cluster=f"c{i // 5}") for i in range(10)
    ]
    found = marked([*honest(), *words, *edits])
    assert all(found[200:]) and sum(found[:200]) <= 4
    assert not any(marked([*honest(), *edits])[200:]), "edits of five people alone are a wish"


def test_what_enough_people_repeat_is_a_wish() -> None:
    def wish_of(people: int) -> list[bool]:
        said = [Mention(f"bullets~{i}", f"u-{i % people}", f"r-{i}") for i in range(12)]
        return marked([*said, *honest()])[:12]

    assert not any(wish_of(3))
    assert all(wish_of(2))


def test_a_wish_on_one_request_is_one_however_often_it_is_said() -> None:
    said = [Mention(f"plant~{i}", "mallory", "request-1") for i in range(8)]
    assert not any(marked(said))
    said[0] = said[0]._replace(request="request-2")
    assert all(marked(said))


def test_nobody_strikes_out_others_wishes_by_repeating_them() -> None:
    wishes = [Mention(f"wish {i}", f"user-{i}", f"request-{i}") for i in range(24)]
    echoes = [Mention(m.text, "mallory", f"echo-{k}-{m.request}") for m in wishes for k in range(2)]
    assert marked([*wishes, *echoes]) == [False] * 24 + [True] * 48


def test_nobody_said_anything() -> None:
    assert marked([]) == []


def test_an_edit_wishes_what_it_adds() -> None:
    before = "It is open. It costs 5 euros."
    after = "It costs 5 euros.  Buy now! It is open.\n- Also: tea"
    assert added(before, after) == ["Buy now!", "- Also: tea"]
    assert added(before, before) == []


def test_who_asks_for_it_everywhere_vouches_for_nobody() -> None:
    five = [
        Mention(f"plant~{k}", f"mallory-{n}", f"request-{n}-{k}", f"c{k}")
        for n in range(5)
        for k in range(3)
    ]
    assert marked([*five, *honest()])[:15] == [True] * 15
    # Of one kind of request it is what five people want of such requests.
    at_one = [m._replace(cluster="c0") for m in five]
    assert marked([*at_one, *honest()])[:15] == [False] * 15


def test_what_many_want_everywhere_is_everybody_s() -> None:
    ten = [
        Mention("be concise", f"user-{n}", f"request-{n}-{k}", f"c{k}")
        for n in range(10)
        for k in range(3)
    ]
    assert not any(marked([*ten, *honest(40)][:30]))
    assert marked([*ten, *honest(200)])[:30] == [False] * 30


# -- What is the same wish -------------------------------------------------------------------------


class Agrees:
    """A reranker for which rules with the same first letter cover each other, but one pair."""

    fingerprint = "agrees"

    def __init__(self, one_way: tuple[str, str] | None = None) -> None:
        self.one_way, self.asked = one_way, 0

    def covered(
        self, pairs: Sequence[tuple[str, str]], on_done: OnDone | None = None
    ) -> FloatArray:
        self.asked += len(pairs)
        yes = [a[0] == b[0] and (a, b) != self.one_way for a, b in pairs]
        return np.array(yes, dtype=np.float32)

    def covered_by_list(self, items, on_done=None):  # type: ignore[no-untyped-def]
        raise AssertionError("wordings are asked about one by one")


def test_texts_that_differ_in_case_and_punctuation_are_one_rule() -> None:
    logs = [["Use bullets."], ["use BULLETS"], ["use bullets!"], ["Use bullets."], ["sing"]]
    same = group_wordings(logs)
    assert {same[text] for text in ("Use bullets.", "use BULLETS", "use bullets!")} == {
        "Use bullets."
    }
    assert same["sing"] == "sing"
    assert plain("Use  bullets!") == plain("use bullets.") == "use bullets"


def test_the_embedder_proposes_and_the_reranker_decides_both_ways_round() -> None:
    logs = [["sing~1"], ["sing~1"], ["sing~2"], ["dance~1"], ["dance~2"]]
    same = group_wordings(logs, ToyEmbedder(), Agrees())
    assert same["sing~2"] == same["sing~1"] == "sing~1"
    assert same["dance~1"] == same["dance~2"]
    one_way = group_wordings(logs, ToyEmbedder(), Agrees(one_way=("sing~2", "sing~1")))
    assert one_way["sing~2"] == "sing~2"
    # Without a reranker only near wordings are one rule: these are not near enough.
    assert group_wordings(logs, ToyEmbedder())["sing~2"] == "sing~2"


def test_wishes_named_side_by_side_are_two() -> None:
    logs = [["sing~1", "sing~2"], ["sing~1", "sing~2"], ["sing~1"]]
    assert group_wordings(logs, ToyEmbedder(), Agrees())["sing~2"] == "sing~2"


# -- What recurs -----------------------------------------------------------------------------------


def sets(*each: str) -> list[RuleSet]:
    """One rule set a text: ``"sing; dance"``."""
    return [
        RuleSet(run_id=str(i), with_feedback=[Rule(text=t) for t in text.split("; ") if t])
        for i, text in enumerate(each)
    ]


def recurring(
    each: list[RuleSet],
    voices: str,
    *,
    least: int = 2,
    support: float = 0.25,
    given: Sequence[Sequence[str]] | None = None,
    weights: Sequence[float] | None = None,
) -> list[str]:
    return recurring_rules(
        each,
        list(voices),
        {},
        min_voices=least,
        support=support,
        given=given,
        weights=weights,
    )


def test_a_rule_needs_people_logs_and_support() -> None:
    assert recurring(sets("sing", "sing"), "ab") == ["sing"]
    assert recurring(sets("sing", "sing"), "aa") == []  # one person
    assert recurring(sets("sing", "sing"), "aa", least=1) == ["sing"]
    assert recurring(sets("sing"), "a", least=1) == []  # one log
    four = sets("sing", "sing", "dance", "dance", "bow", "bow", "nod", "nod")
    assert recurring(four, "abcdefgh") == ["bow", "dance", "nod", "sing"]
    assert recurring(four, "abcdefgh", support=0.26) == []


def test_the_most_supported_come_first_and_people_count_not_logs() -> None:
    each = sets("sing", "sing", "sing", "sing", "dance", "dance", "dance")
    assert recurring(each, "aaabcde") == ["dance", "sing"]


def test_whoever_asks_for_nothing_has_no_vote() -> None:
    assert recurring(sets("sing", "sing", *[""] * 20), "ab" + "z" * 20, support=1.0) == ["sing"]


def test_nobody_asks_for_what_the_module_gives() -> None:
    each = sets("sing", "sing", "dance", "dance", "dance", "dance")
    assert recurring(each, "abcdef", support=0.5) == ["dance"]
    # Those who want dancing had singing already: they say nothing about it.
    given = [(), (), *[("Sing.",)] * 4]
    by_name = recurring_rules(
        each, list("abcdef"), {"sing": "sing"}, min_voices=2, support=0.5, given=given
    )
    assert by_name == ["sing", "dance"]


def test_old_votes_count_less() -> None:
    each = sets("sing", "sing", "dance", "dance")
    assert recurring(each, "abcd", support=0.4) == ["dance", "sing"]
    assert recurring(each, "abcd", support=0.4, weights=[0.25, 0.25, 1.0, 1.0]) == ["dance"]
    # A person's newest word counts.
    assert recurring(sets("sing", "sing", "sing", "bow"), "aabc", support=0.6) == ["sing"]
    aged = [0.01, 1.0, 1.0, 1.0]
    assert recurring(sets("sing", "sing", "sing", "bow"), "aabc", support=0.6, weights=aged) == [
        "sing"
    ]


def test_the_completed_list_is_what_an_answer_should_follow() -> None:
    own = RuleSet(run_id="a", with_feedback=[Rule(text="sing")])
    assert wanted_rules(own) == ["sing"]
    full = own.model_copy(update={"wanted": [Rule(text="dance"), Rule(text="sing")]})
    assert wanted_rules(full) == ["dance", "sing"]


@pytest.mark.parametrize("spelt", ["Sing", "sing!"])
def test_wordings_are_counted_together(spelt: str) -> None:
    each = sets("sing", spelt, "sing")
    same = group_wordings([[r.text for r in s.with_feedback] for s in each])
    assert recurring_rules(each, list("abc"), same, min_voices=3, support=1.0) == ["sing"]


@pytest.mark.parametrize("reranker", [None, Agrees()])
def test_texts_beside_the_logs_join_groups_and_change_none(reranker: Agrees | None) -> None:
    logs = [["sing"], ["sing"], ["sing~1"], ["dance"], ["dance~1"], ["hum"]]
    alone = group_wordings(logs, ToyEmbedder(), reranker)
    also = [f"rest~{n}" for n in range(60)] + ["Sing!", "sing~2"]
    beside = group_wordings(logs, ToyEmbedder(), reranker, also=also)
    assert {text: beside[text] for text in alone} == alone
    assert beside["Sing!"] == "sing"
    assert beside["sing~2"] == ("sing" if reranker else "sing~2")
    assert set(also) <= set(beside)


def test_a_cluster_s_rules_are_in_words_of_its_own_people() -> None:
    same = {"Be brief.": "Be brief.", "Keep it short.": "Be brief.", "Short!": "Be brief."}
    said = ["Keep it short.", "Keep it short.", "Short!", "Sing."]
    sets = [RuleSet(run_id=str(n), with_feedback=[Rule(text=t)]) for n, t in enumerate(said)]
    own = in_own_words(same, sets)
    assert {own[text] for text in same} == {"Keep it short."}
    # What the module was taught stays the word for it while somebody says it.
    assert {in_own_words(same, sets, ["Short!"])[text] for text in same} == {"Short!"}
    assert set(in_own_words(same, sets, ["Be brief."]).values()) == {"Keep it short."}
    # Of rules that nobody here said it tells what it was told.
    assert in_own_words({"Hum.": "Hum."}, sets) == {"Hum.": "Hum."}
