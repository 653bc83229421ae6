"""The verifier: what is asked, what is compared, what it takes to ship, what is cleaned up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_uno.models.protocols import GenerateRequest, Generation
from langchain_uno.models.roles import RoleError
from langchain_uno.recipe import Recipe, VerifySettings, load_recipe
from langchain_uno.records import ANONYMOUS, Message, VerifierReport
from langchain_uno.reflect import bleu4
from langchain_uno.trainers.deciding import (
    Outcome,
    cluster_p_value,
    decide,
    lower_bound,
    may_ship,
    p_values,
    wilson,
)
from langchain_uno.trainers.verifier import BaseSide, Exam, HeldOut, outcome_of


class Words:
    """A prompt set that says plainly which role is asked."""

    fingerprint = "words"

    def judge_prompt(self, messages: Any, rules: Any, answer: str, language: str) -> list[Message]:
        return [Message(role="user", content=f"judge {'|'.join(rules)} >> {answer}")]

    def parse_judgement(self, text: str) -> float:
        try:
            return float(text)
        except ValueError as error:
            raise RoleError(text) from error

    def judge_schema(self) -> None:
        return None

    def critique_prompt(self, messages: Any, draft: str, language: str) -> list[Message]:
        return [Message(role="user", content=f"critique {draft}")]

    def parse_critique(self, text: str) -> list[str]:
        if text == "garbled":
            raise RoleError(text)
        return [line for line in text.split("\n") if line]

    def revise_draft_prompt(
        self, messages: Any, draft: str, suggestions: Sequence[str], language: str
    ) -> list[Message]:
        return [Message(role="user", content=f"revise {draft} << {'; '.join(suggestions)}")]


class Desk:
    """An engine whose answers are a function of adapter and prompt (pure, so it can be read)."""

    def __init__(self, say: Callable[[str | None, str], str]) -> None:
        self.say = say
        self.loaded: dict[str, Path] = {}
        self.asked: list[tuple[str | None, str]] = []

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: Callable[[int], None] | None = None
    ) -> list[Generation]:
        out = []
        for request in requests:
            path = self.loaded[request.adapter].name if request.adapter else None
            prompt = request.messages[-1].content
            self.asked.append((path, prompt))
            out.append(Generation(self.say(path, prompt)))
            if on_done is not None:
                on_done(1)
        return out

    def load_adapter(self, name: str, path: Path) -> None:
        assert name not in self.loaded
        self.loaded[name] = path

    def unload_adapter(self, name: str) -> None:
        del self.loaded[name]


def plain(n: str) -> str:
    return f"the answer to this question is number {n} as you know"


def say(adapter: str | None, prompt: str) -> str:
    """Base answers plainly; epoch-2 and revisions are cheerful; the judge likes cheer."""
    if prompt.startswith("judge"):
        return "9" if prompt.endswith("hurray") else "5"
    if prompt.startswith("critique"):
        return "" if prompt.endswith("number 0 as you know") else "be cheerful"
    if prompt.startswith("revise"):
        return prompt.removeprefix("revise ").partition(" << ")[0] + " hurray"
    if adapter == "epoch-2":
        return plain(prompt) + " hurray"
    if adapter == "epoch-3":
        return "hurray"
    return plain(prompt)


def items(n: int) -> list[HeldOut]:
    return [
        HeldOut(str(i), [Message(role="user", content=str(i))], ["Be cheerful."], voice=f"u{i}")
        for i in range(n)
    ]


def made(**verify: Any) -> Recipe:
    """The authors' guards, one judgement, and a level unless told otherwise."""
    more = {key: verify.pop(key) for key in ("min_kept",) if key in verify}
    settings = VerifySettings(**{"judgements": 1, "min_bleu": 0.05, **verify})
    return load_recipe("paper").model_copy(update={"verify": settings, **more})


RECIPE = made()
EPOCHS = [Path(f"/nowhere/epoch-{n}") for n in (1, 2, 3)]
WORDS: Any = Words()


def verify(
    desk: Any, recipe: Recipe = RECIPE, n: int = 10, epochs: Sequence[Path] = EPOCHS, **kw: Any
) -> VerifierReport:
    exam = Exam(desk, desk, WORDS, recipe, kw.get("on_done"))
    side = kw.get("base") or exam.answer_as_base(kw.get("asked") or items(n))
    return exam.verify_expert(side, epochs)


def judge_critic(
    desk: Any, recipe: Recipe = RECIPE, n: int = 10, on_done: Any = None
) -> VerifierReport:
    exam = Exam(desk, desk, WORDS, recipe, on_done)
    return exam.verify_critic(exam.answer_as_base(items(n)), Path("/nowhere/critic"))


# -- Asking and comparing --------------------------------------------------------------------------


def test_the_good_epoch_is_found_and_named() -> None:
    desk = Desk(say)
    done: list[int] = []
    report = verify(desk, on_done=done.append)
    assert report.passed
    assert (report.epoch, report.n, report.people, report.win_rate) == (2, 10, 10, 1.0)
    # Turned round, the epoch that always lost would always win; several epochs: a fifth more.
    assert report.p_value == pytest.approx(1.2 * 2 / 2**10)
    assert report.interval == pytest.approx(wilson(1.0, 10, 1 - 0.05 / 3))
    assert (report.mean_score, report.mean_base_score) == (9.0, 5.0)
    assert report.reason == "10 held-out requests of 10 people"
    assert desk.loaded == {}
    assert sum(done) == 10 * 2 * 4  # an answer and a judgement for base and three epochs
    assert any("Be cheerful." in prompt for _, prompt in desk.asked)


def test_an_expert_that_lost_the_content_fails() -> None:
    report = verify(Desk(say), epochs=EPOCHS[2:])
    assert not report.passed
    assert not report.undecided
    assert (report.win_rate, report.lost) == (0.0, 10)  # the judge gave it 9, the guards did not
    assert "win rate 0.00 is below 0.53" in report.reason


def test_where_no_bleu_is_asked_for_a_short_cut_may_win() -> None:
    def shorter(adapter: str | None, prompt: str) -> str:
        if prompt.startswith("judge"):
            return "9" if ">> brief" in prompt else "5"
        return f"brief: {prompt}" if adapter else plain(prompt)

    assert verify(Desk(shorter), epochs=EPOCHS[:1]).win_rate == 0.0
    assert verify(Desk(shorter), made(min_bleu=0.0), epochs=EPOCHS[:1]).win_rate == 1.0


LONG = (
    "To plant a tree you first dig a hole that is twice as wide as its roots. Then you loosen the "
    "soil, set the tree in, and check that it stands upright. After that you fill the hole, tread "
    "the soil down, drive in a stake and tie the tree to it. Finally water it well, cover the soil "
    "with mulch, and water it again every week of the first summer. "
) * 4
SHORT = (
    "Dig a wide hole, set the tree in, fill it and water well.",
    "Set the tree upright in a wide hole and water it weekly.",
    "Plant it in loose soil, tie it to a stake and water it.",
    "Dig, plant, fill, stake, and water it every week.",
    "Put it in a hole twice as wide as its roots, then water.",
    "Use a wide hole, a stake, mulch and plenty of water.",
    "Loosen the soil, plant the tree, stake it, water it.",
    "A wide hole, firm soil, a stake and weekly water do it.",
    "Plant it upright, tread the soil down and water well.",
    "Dig a wide hole, plant, stake and mulch it.",
)


@pytest.mark.parametrize(("recipe", "rate"), [("default", 1.0), ("paper", 0.0)])
def test_ten_right_answers_of_one_sentence_pass_where_one_was_asked_for(
    recipe: str, rate: float
) -> None:
    """Each is below a tenth of the base's answer."""

    def brief(adapter: str | None, prompt: str) -> str:
        if prompt.startswith("judge"):
            return "9" if prompt.partition(" >> ")[2] in SHORT else "4"
        return SHORT[int(prompt)] if adapter else LONG

    assert all(len(answer) < 0.1 * len(LONG) for answer in SHORT)
    report = verify(Desk(brief), load_recipe(recipe, {"verify": {"judgements": 1}}), 10, EPOCHS[:1])
    assert (report.win_rate, report.passed) == (rate, rate == 1.0)


@pytest.mark.parametrize("answer", ["", "I can't help with that.", "Dig a hole that is"])
def test_an_empty_refusing_or_cut_answer_does_not_ship(answer: str) -> None:
    """The judge finds that a refusal is no answer; an end that lacks is seen without it."""

    def bad(adapter: str | None, prompt: str) -> str:
        if prompt.startswith("judge"):
            return "1" if "can't help" in prompt else "9" if "Dig a hole that is" in prompt else "4"
        return answer if adapter else LONG

    class Cutting(Desk):
        def generate(self, requests: Any, on_done: Any = None) -> list[Generation]:
            made = super().generate(requests, on_done)
            return [
                Generation(one.text, finish_reason="length" if one.text == "Dig a hole that is"
                           else "stop")
                for one in made
            ]  # fmt: skip

    default = load_recipe("default", {"verify": {"judgements": 1}})
    report = verify(Cutting(bad), default, 10, EPOCHS[:1])
    assert (report.win_rate, report.passed) == (0.0, False)


def slipping(adapter: str | None, prompt: str) -> str:
    """Like ``say``, but the cheerful expert writes 7 where it should write 6 or 8."""
    said = say(adapter, prompt)
    slips = adapter is not None and not prompt.startswith("judge")
    return said.replace("number 6", "number 7").replace("number 8", "number 7") if slips else said


def test_rules_obeyed_do_not_pay_for_facts_lost() -> None:
    blind = verify(Desk(slipping), RECIPE, 20, EPOCHS[1:2])
    assert blind.passed  # the judge likes cheer and does not see the slip; the paper neither
    assert (blind.win_rate, blind.lost) == (1.0, 0)
    refused = verify(Desk(slipping), made(min_kept=1.0), 20, EPOCHS[1:2])
    assert (refused.win_rate, refused.lost) == (0.9, 2)
    assert not refused.passed
    assert "2 of 20 answers lost content" in refused.reason
    assert verify(Desk(slipping), made(min_kept=1.0), 40, EPOCHS[1:2]).passed  # 2 of 40 is bearable


def test_an_epoch_that_lost_facts_is_not_chosen_over_one_that_kept_them() -> None:
    def late(adapter: str | None, prompt: str) -> str:
        # epoch-2 is always cheerful but slips; epoch-3 forgets the cheer once, and keeps every fact
        if adapter == "epoch-3":
            return plain(prompt) + ("" if prompt == "5" else " hurray")
        return slipping(adapter, prompt)

    assert verify(Desk(late), RECIPE, 20).epoch == 2
    guarded = verify(Desk(late), made(min_kept=1.0), 20)
    assert guarded.passed
    assert (guarded.epoch, guarded.lost) == (3, 0)


def test_where_nobody_said_a_word_the_users_edits_are_the_standard() -> None:
    def mute(adapter: str | None, prompt: str) -> str:
        assert not prompt.startswith("judge"), "there is nothing to judge by"
        return say(adapter, prompt)

    for edit, rate in ((" hurray", 1.0), (" alas", 0.0)):
        asked = [
            replace(item, rules=[], edit=plain(item.id) + (edit if i else ""))
            for i, item in enumerate(items(10))
        ]
        done: list[int] = []
        report = verify(Desk(mute), epochs=EPOCHS[1:2], asked=asked, on_done=done.append)
        # The first edit is the base's own answer: there the module loses.
        assert report.win_rate == pytest.approx(0.9 * rate)
        assert report.passed is (rate > 0)
        assert sum(done) == 10 * 2 * 2


def test_an_expert_like_the_base_ties_and_does_not_ship() -> None:
    report = verify(Desk(say), epochs=EPOCHS[:1])
    assert not report.passed
    assert not report.undecided
    assert (report.win_rate, report.p_value) == (0.5, 1.0)


def test_without_held_out_queries_nothing_ships() -> None:
    for recipe in (RECIPE, made(level=None)):
        empty = verify(Desk(say), recipe, n=0)
        assert not empty.passed
        assert (empty.n, empty.p_value, empty.interval) == (0, None, (0.0, 1.0))
        assert not judge_critic(Desk(say), recipe, 0).passed


@pytest.mark.parametrize(("n", "tried"), [(8, [1, 2, 3, 4, 5, 6, 7, 8]), (3, [1, 2, 3]), (9, [9])])
def test_all_epochs_are_tried_or_the_last_where_some_were_added(n: int, tried: list[int]) -> None:
    desk = Desk(say)
    assert RECIPE.lora.epochs == 8
    epochs = [Path(f"/nowhere/e{i}") for i in range(1, n + 1)]
    report = verify(desk, RECIPE, 1, epochs)
    assert {adapter for adapter, _ in desk.asked} == {None, *(f"e{i}" for i in tried)}
    assert report.epoch == max(tried)  # all tie: the latest


def test_an_expert_may_take_the_place_of_the_critic_that_it_equals() -> None:
    desk: Any = Desk(say)
    exam = Exam(desk, desk, WORDS, RECIPE)
    side, critic = exam.answer_as_base(items(10)), Path("/nowhere/critic")
    # epoch-2 is as cheerful as the revisions, epoch-1 answers as the base does
    assert exam.falls_behind(side, Path("/nowhere/epoch-2"), critic) == ""
    assert "1.00 of the comparisons" in exam.falls_behind(side, Path("/nowhere/epoch-1"), critic)
    assert desk.loaded == {}


def test_a_lower_bound_needs_people() -> None:
    assert lower_bound([]) == lower_bound([0.5]) == -1.0
    assert lower_bound([0.0] * 5) == 0.0
    # mean .25, standard error .25 / sqrt(3), t(.95, 3) = 2.353
    assert lower_bound([0.0, 0.0, 0.5, 0.5]) == pytest.approx(
        0.25 - 2.3534 * 0.288675 / 2, abs=1e-3
    )


def test_the_base_side_is_made_once() -> None:
    desk: Any = Desk(say)
    side = Exam(desk, desk, WORDS, RECIPE).answer_as_base(items(5))
    asked = len(desk.asked)
    verify(desk, n=5, epochs=EPOCHS[1:2], base=side)
    assert len(desk.asked) == asked + 10


def test_a_sample_keeps_as_many_people_as_it_can() -> None:
    desk: Any = Desk(say)
    asked = [replace(item, voice=f"u{max(0, i - 15)}") for i, item in enumerate(items(20))]

    def side(seed: int, most: int) -> BaseSide:
        recipe = made(max_queries=most).model_copy(update={"seed": seed})
        return Exam(desk, desk, WORDS, recipe).answer_as_base(asked)

    small = side(1, 5)
    assert len(small.items) == len([one for one in small.said if one.score]) == 5
    assert {item.voice for item in small.items} == {"u0", "u1", "u2", "u3", "u4"}
    assert {item.id for seed in range(9) for item in side(seed, 5).items} > {"0", "19"}
    assert [i.id for i in side(1, 7).items] == [i.id for i in side(1, 7).items]
    assert side(1, 20).items == asked


def test_a_critic_is_judged_over_its_whole_path() -> None:
    desk = Desk(say)
    done: list[int] = []
    report = judge_critic(desk, on_done=done.append)
    assert report.passed
    assert report.epoch is None
    assert report.win_rate == pytest.approx(0.95)  # nine wins, and one draft left as it was
    assert sum(done) == 10 * 2 + 10 + 9 + 10
    revisions = [adapter for adapter, prompt in desk.asked if prompt.startswith("revise")]
    assert revisions == [None] * 9  # the base revises, the critic only suggests
    assert desk.loaded == {}


def test_a_critics_revision_that_lost_facts_counts_as_the_draft_as_in_serving() -> None:
    def forgetful(adapter: str | None, prompt: str) -> str:
        said = say(adapter, prompt)
        return said.replace("number 6", "number 7") if prompt.startswith("revise") else said

    report = judge_critic(Desk(forgetful), RECIPE, 10)
    assert (report.lost, report.win_rate) == (0, pytest.approx(0.95))
    report = judge_critic(Desk(forgetful), made(min_kept=1.0), 10)
    assert (report.lost, report.win_rate) == (0, pytest.approx(0.9))


def test_a_critic_that_talks_nonsense_changes_nothing() -> None:
    def garbled(adapter: str | None, prompt: str) -> str:
        return "garbled" if prompt.startswith("critique") else say(adapter, prompt)

    report = judge_critic(Desk(garbled), n=6)
    assert report.win_rate == 0.5
    assert not report.passed


def test_an_unreadable_judge_decides_nothing() -> None:
    def mute(adapter: str | None, prompt: str) -> str:
        return "well" if prompt.startswith("judge") else say(adapter, prompt)

    report = verify(Desk(mute))
    assert (report.passed, report.undecided, report.n) == (False, True, 0)
    assert "could not be read" in report.reason


def test_adapters_are_unloaded_when_the_engine_fails() -> None:
    def failing(adapter: str | None, prompt: str) -> str:
        if adapter is not None:
            raise KeyboardInterrupt
        return say(adapter, prompt)

    desk = Desk(failing)
    with pytest.raises(KeyboardInterrupt):
        verify(desk)
    assert desk.loaded == {}


BASE = "the cat sat on the mat and looked at the dog"


@pytest.mark.parametrize(
    ("answer", "base", "score", "base_score", "expected"),
    [
        (BASE + " today", BASE, 8.0, 5.0, 1.0),
        (BASE + " today", BASE, 5.0, 8.0, 0.0),
        (BASE + " today", BASE, 5.0, 5.0, 0.5),
        (BASE + " ", BASE, 9.0, 5.0, 0.5),  # the same answer, whatever the judge says
        (BASE + " today", BASE, None, 5.0, None),
        (BASE + " today", BASE, 5.0, None, None),
        ("the", BASE, 10.0, 1.0, 0.0),  # shorter than a tenth
        ("", BASE, 10.0, 10.0, 0.0),
        ("something else entirely, with other words", BASE, 10.0, 1.0, 0.0),  # content lost
        ("something else entirely, with other words", BASE, 5.0, 5.0, 0.0),  # loses its tie
        ("any answer", "", 5.0, 1.0, 1.0),  # no content to lose
    ],
)
def test_outcomes_are_the_papers(
    answer: str, base: str, score: float | None, base_score: float | None, expected: float | None
) -> None:
    [item] = items(1)
    assert outcome_of(item, answer, base, score, base_score, load_recipe("paper")) == expected


def test_bleu_splits_chinese_into_characters() -> None:
    base, answer = "会议改到星期三下午三点", "会议改到星期三下午四点。"
    assert bleu4(answer, base, "zh") > 0.5
    assert bleu4(answer, base, "en") < 0.05
    assert bleu4(base, base, "zh") == pytest.approx(1.0)
    assert bleu4(BASE, BASE, "en") == pytest.approx(1.0)


# -- Deciding --------------------------------------------------------------------------------------


def ask(
    outcomes: Sequence[Sequence[Outcome]], voices: str, level: float | None = 0.05, kinds: int = 1
) -> VerifierReport:
    return decide(outcomes, list(voices), level=level, win_rate=0.53, kinds=kinds)


def test_every_person_counts_once() -> None:
    found = ask([[1.0] * 6 + [0.0] * 3], "aaaaaabcd")
    assert (found.win_rate, found.people, found.n) == (0.25, 4, 9)
    assert found.interval == pytest.approx(wilson(0.25, 4, 0.95))
    assert ask([[1.0] * 6 + [0.0] * 3], "aaaaaabcd", level=None).win_rate == pytest.approx(2 / 3)
    half = ask([[1.0, 0.0, 1.0, 1.0, None]], "aabbc")
    assert (half.win_rate, half.people) == (0.75, 2)


def test_ten_wins_of_one_person_are_one_win() -> None:
    two = ask([[1.0] * 20], "a" * 10 + "b" * 10)
    assert (two.passed, two.undecided, two.p_value, two.win_rate) == (False, True, 0.25, 1.0)
    assert two.needed == 3  # five people who all win: 1 / 32
    assert "about 3 more held-out people with such feedback would decide" in two.reason
    five = ask([[1.0] * 5], "abcde")
    assert (five.passed, five.p_value, five.needed) == (True, 1 / 32, None)
    # Of two kinds tried, each needs to be twice as sure.
    both = ask([[1.0] * 5], "abcde", kinds=2)
    assert (both.passed, both.undecided, both.p_value, both.needed) == (False, True, 1 / 16, 1)
    nobody = verify(Desk(say), asked=[replace(item, voice=ANONYMOUS) for item in items(9)])
    assert (nobody.passed, nobody.undecided, nobody.people, nobody.needed) == (False, True, 1, 4)


def test_the_papers_rule_looks_at_the_point_alone() -> None:
    assert ask([[1.0, 0.0, 1.0]], "abc", level=None).passed
    assert not ask([[1.0, 0.0, 0.5]], "abc", level=None).passed
    assert ask([[1.0] * 20], "a" * 20, level=None).passed


def test_a_win_rate_too_small_to_matter_does_not_ship_however_sure() -> None:
    voices = [str(i) for i in range(400)]
    rare: list[Outcome] = [1.0] * 20 + [0.5] * 380
    found = decide([rare], voices, level=0.05, win_rate=0.53)
    assert found.p_value is not None
    assert found.p_value < 1e-4
    assert (found.passed, found.undecided) == (False, False)
    assert found.reason == "win rate 0.53 is below 0.53"
    assert decide([rare], voices, level=0.05, win_rate=0.52).passed


def test_the_best_epoch_is_chosen_and_scores_break_ties() -> None:
    outcomes: list[list[Outcome]] = [[1.0, 0.0, 0.0], [1.0, 1.0, 0.5], [1.0, 1.0, 0.5]]
    scores: list[list[float | None]] = [[9.0] * 3, [7.0, 7.0, 8.0], [7.0, 7.0, 7.0]]
    found = decide(outcomes, list("abc"), scores=scores, level=None, win_rate=0.53)
    assert (found.epoch, found.n) == (1, 3)
    assert found.win_rate == pytest.approx(2.5 / 3)
    assert decide(outcomes, list("abc"), level=None, win_rate=0.53).epoch == 2
    fewest = decide(outcomes, list("abc"), scores=scores, lost=[0, 2, 1], level=None, win_rate=0.53)
    assert fewest.epoch == 2  # wins as often as the second, and lost less
    among = decide(outcomes, list("abc"), among=[0], level=None, win_rate=0.2)
    assert (among.epoch, among.passed) == (0, True)


@pytest.mark.parametrize(("epochs", "raised"), [(1, 1.0), (3, 1.2)])
def test_the_p_value_is_the_share_of_swaps_that_do_as_well(epochs: int, raised: float) -> None:
    rng = np.random.default_rng(0)
    gains = rng.choice([-0.5, 0.0, 0.25, 0.5], size=(20, 6, epochs))
    for case, p in zip(gains, p_values(gains), strict=True):
        best = case.sum(axis=0).max()
        swaps = [np.array(s) @ case for s in itertools.product([1, -1], repeat=6)]
        share = np.mean([row.max() >= best - 1e-9 for row in swaps])
        assert p == pytest.approx(min(1.0, raised * share))


def test_beyond_14_people_a_group_of_swaps_stands_for_all() -> None:
    # Against the binomial distribution.
    wins = np.where(np.arange(40)[None] < np.array([[26], [24], [20]]), 0.5, -0.5)[:, :, None]
    assert p_values(wins, seed=5) == pytest.approx([0.0403, 0.1341, 0.5627], abs=0.012)


@pytest.mark.parametrize(
    ("rate", "n", "expected"),
    [
        (0.5, 10, (0.2366, 0.7634)),
        (1.0, 10, (0.7225, 1.0)),
        (0.0, 10, (0.0, 0.2775)),
        (1.0, 3, (0.4385, 1.0)),
        (1.0, 4, (0.5101, 1.0)),
        (0.3, 0, (0.0, 1.0)),
    ],
)
def test_wilson(rate: float, n: int, expected: tuple[float, float]) -> None:
    assert wilson(rate, n, 0.95) == pytest.approx(expected, abs=1e-4)


def worthless(rng: Any, people: int, queries: int, correlation: float, epochs: int) -> Any:
    """Outcomes of modules no better than the base; a person's own agree as much as told."""
    if correlation == 1.0:
        taste = rng.integers(0, 2, (epochs, people, 1)).astype(float)
    elif correlation == 0.0:
        taste = np.full((epochs, people, 1), 0.5)
    else:
        spread = (1.0 / correlation - 1.0) / 2.0
        taste = rng.beta(spread, spread, (epochs, people, 1))
    return (rng.random((epochs, people, queries)) < taste).astype(float).reshape(epochs, -1)


@pytest.mark.parametrize(
    ("people", "queries", "correlation"),
    [*itertools.product([2, 5, 6], [1, 10], [0.0, 0.5, 1.0]), (17, 10, 0.5)],
)
def test_a_worthless_module_ships_at_the_level_stated(
    people: int, queries: int, correlation: float
) -> None:
    rng = np.random.default_rng(people)
    voices = [f"u{p}" for p in range(people) for _ in range(queries)]
    shipped, runs = 0, 300
    for run in range(runs):
        kinds = [worthless(rng, people, queries, correlation, 3).tolist() for _ in range(2)]
        shipped += any(
            decide(rows, voices, level=0.05, win_rate=0.53, kinds=2, seed=run).passed
            for rows in kinds
        )
    # 0.05 and two standard errors of 300 runs; the whole table is lab/results/verifier-levels.md.
    assert shipped / runs <= 0.075


# -- Over a refresh --------------------------------------------------------------------------------


def test_of_what_ships_together_a_bounded_share_is_luck() -> None:
    assert may_ship([0.01, 0.04, 0.2, None, 0.001], 0.05) == [True, False, False, False, True]
    assert may_ship([0.04, 0.04], 0.05) == [True, True]
    assert may_ship([0.04, 1.0], 0.05) == [False, False]
    assert may_ship([0.04, None], 0.05) == [True, False]
    assert may_ship([], 0.05) == []
    assert may_ship([1.0, None], None) == [True, True]


def test_a_cluster_counts_by_the_module_that_would_ship() -> None:
    def report(p: float | None, passed: bool) -> VerifierReport:
        rate = VerifierReport(kind="expert", n=9, win_rate=0.7, interval=(0, 1), passed=passed)
        return rate.model_copy(update={"p_value": p})

    assert cluster_p_value([], None) is None
    assert cluster_p_value([report(None, False)], None) is None
    assert cluster_p_value([report(0.001, False)], None) == 1.0  # it lost content, say
    critic, taught = report(0.004, True), report(0.03, True)
    assert cluster_p_value([report(0.2, False), critic, taught], taught) == 0.03


def test_if_nothing_helps_a_refresh_of_eight_clusters_rarely_ships_anything() -> None:
    rng = np.random.default_rng(8)
    gains = worthless(rng, 10, 3, 0.5, 8 * 1000).reshape(1000, 8, 10, 3).mean(axis=3) - 0.5
    values = p_values(gains.reshape(-1, 10, 1)).reshape(1000, 8)
    shipped = np.mean([any(may_ship(row.tolist(), 0.05)) for row in values])
    assert 0.01 <= shipped <= 0.05 + 2 * 0.007
