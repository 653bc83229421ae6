"""The verifier over an engine: what is asked, what is compared, what is cleaned up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.models.protocols import GenerateRequest, Generation
from langchain_uno.models.roles import Judgement, RoleError
from langchain_uno.recipe import Recipe, VerifySettings, load_recipe
from langchain_uno.records import Cluster, Message, VerifierReport
from langchain_uno.trainers.verifier import (
    VerifyItem,
    answer_as_base,
    verify_critic,
    verify_expert,
    verify_memory,
)


class Words:
    """A prompt set that says plainly which role is asked."""

    fingerprint = "words"

    def judge_prompt(self, messages: Any, rules: Any, answer: str, language: str) -> list[Message]:
        return [Message(role="user", content=f"judge {'|'.join(rules)} >> {answer}")]

    def parse_judgement(self, text: str) -> Judgement:
        try:
            return Judgement(float(text))
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


def items(n: int) -> list[VerifyItem]:
    return [
        VerifyItem(
            str(i), [Message(role="user", content=str(i))], ["Be cheerful."], user_id=f"u{i}"
        )
        for i in range(n)
    ]


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("paper").model_copy(
        update={"verify": VerifySettings(judgements=1), "prompt_set": "x"}
    )


EPOCHS = [Path(f"/nowhere/epoch-{n}") for n in (1, 2, 3)]


def verify(
    desk: Any, recipe: Recipe, n: int = 10, epochs: Sequence[Path] = EPOCHS, **kw: Any
) -> Any:
    return verify_expert(items(n), epochs, desk, desk, Words(), recipe, **kw)  # type: ignore[arg-type]


def judge_critic(
    desk: Any, recipe: Recipe, n: int, on_done: Any = None, **more: Any
) -> VerifierReport:
    words: Any = Words()
    critic = Path("/nowhere/critic")
    return verify_critic(items(n), critic, desk, desk, words, recipe, on_done, **more)


def test_the_good_epoch_is_found_and_named(recipe: Recipe) -> None:
    desk = Desk(say)
    done: list[int] = []
    report = verify(desk, recipe, on_done=done.append)
    assert report.passed
    assert (report.epoch, report.n, report.win_rate) == (2, 10, 1.0)
    assert report.interval == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert (report.mean_score, report.mean_base_score) == (9.0, 5.0)
    assert "10 queries of 10 users" in report.reason
    assert desk.loaded == {}
    assert sum(done) == 10 * 2 * 4  # an answer and a judgement for base and three epochs
    assert any("Be cheerful." in prompt for _, prompt in desk.asked)


def test_an_expert_that_lost_the_content_fails(recipe: Recipe) -> None:
    report = verify(Desk(say), recipe, epochs=EPOCHS[2:])
    assert not report.passed
    assert report.win_rate == 0.0  # the judge gave it 9, the guards did not
    assert "win rate 0.00 is below 0.53" in report.reason


def slipping(adapter: str | None, prompt: str) -> str:
    """Like ``say``, but the cheerful expert writes 7 where it should write 6 or 8."""
    said = say(adapter, prompt)
    slips = adapter is not None and not prompt.startswith("judge")
    return said.replace("number 6", "number 7").replace("number 8", "number 7") if slips else said


def test_rules_obeyed_do_not_pay_for_facts_lost(recipe: Recipe) -> None:
    def ask(**guards: float) -> VerifierReport:
        settings = VerifySettings(judgements=1, **guards)
        one = recipe.model_copy(update={"verify": settings})
        report: VerifierReport = verify(Desk(slipping), one, 20, EPOCHS[1:2])
        return report

    blind = ask()  # the judge likes cheer and does not see the slip; the paper's guards neither
    assert blind.passed
    assert (blind.win_rate, blind.lost) == (1.0, 0)
    seen = ask(min_kept=1.0)
    assert seen.passed
    assert (seen.win_rate, seen.lost) == (0.9, 2)
    refused = ask(min_kept=1.0, max_lost=0.05)
    assert not refused.passed
    assert "2 of 20 answers lost content" in refused.reason
    assert ask(min_kept=1.0, max_lost=0.1).passed


def test_a_rule_obeyed_where_it_does_not_hold_is_no_merit(recipe: Recipe) -> None:
    def everywhere(adapter: str | None, prompt: str) -> str:
        if prompt.startswith("judge Wave."):
            return "9" if " wave" in prompt else "5"
        waves = adapter is not None and prompt in "012"
        return say(adapter, prompt).replace(" hurray", (" wave" if waves else "") + " hurray")

    # Waving is wanted of nobody here; asked about it are the first half, of which three wave.
    asked = [replace(item, idle=["Wave."] if i < 5 else []) for i, item in enumerate(items(10))]
    words: Any = Words()
    for bound, passed, seen in ((1.0, True, 0), (0.6, True, 3), (0.5, False, 3)):
        settings = VerifySettings(judgements=1, max_overreach=bound)
        one = recipe.model_copy(update={"verify": settings})
        desk: Any = Desk(everywhere)
        report = verify_expert(asked, EPOCHS[1:2], desk, desk, words, one)
        assert (report.passed, report.overreached, report.win_rate) == (passed, seen, 1.0)
        more = sum(prompt.startswith("judge Wave.") for _, prompt in desk.asked)
        assert more == (10 if seen else 0)
    assert "3 of 5 answers obey a rule that does not hold for the request" in report.reason
    assert not report.undecided


def test_where_nobody_said_a_word_the_users_edits_are_the_standard(recipe: Recipe) -> None:
    def mute(adapter: str | None, prompt: str) -> str:
        assert not prompt.startswith("judge"), "there is nothing to judge by"
        return say(adapter, prompt)

    words: Any = Words()
    for edit, rate in ((" hurray", 1.0), (" alas", 0.0)):
        asked = [
            replace(item, rules=[], edit=plain(item.id) + (edit if i else ""))
            for i, item in enumerate(items(10))
        ]
        desk: Any = Desk(mute)
        done: list[int] = []
        report = verify_expert(asked, EPOCHS[1:2], desk, desk, words, recipe, done.append)
        # The first edit is the base's own answer: there the module loses.
        assert report.win_rate == pytest.approx(0.9 * rate)
        assert report.passed is (rate > 0)
        assert sum(done) == 10 * 2 * 2


def test_an_epoch_that_lost_facts_is_not_chosen_over_one_that_kept_them(recipe: Recipe) -> None:
    def late(adapter: str | None, prompt: str) -> str:
        # epoch-2 is always cheerful but slips; epoch-3 forgets the cheer once, and keeps every fact
        if adapter == "epoch-3":
            return plain(prompt) + ("" if prompt == "5" else " hurray")
        return slipping(adapter, prompt)

    def ask(**guards: float) -> VerifierReport:
        settings = VerifySettings(judgements=1, **guards)
        one = recipe.model_copy(update={"verify": settings})
        report: VerifierReport = verify(Desk(late), one, 20)
        return report

    assert ask().epoch == 2
    guarded = ask(min_kept=1.0, max_lost=0.05)
    assert guarded.passed
    assert (guarded.epoch, guarded.lost) == (3, 0)


def test_an_expert_like_the_base_ties_and_does_not_ship(recipe: Recipe) -> None:
    report = verify(Desk(say), recipe, epochs=EPOCHS[:1])
    assert not report.passed
    assert report.win_rate == 0.5


def test_too_few_queries_decide_nothing_unless_the_papers_rule_is_asked_for(recipe: Recipe) -> None:
    report = verify(Desk(say), recipe, n=3)
    assert not report.passed
    assert "not decided" in report.reason
    assert report.epoch == 2
    point = recipe.model_copy(update={"verify": VerifySettings(judgements=1, decision="point")})
    assert verify(Desk(say), point, n=3).passed
    empty = verify(Desk(say), point, n=0)
    assert not empty.passed
    assert empty.reason == "there is no held-out query"


def test_max_epochs_tries_the_later_ones(recipe: Recipe) -> None:
    one = recipe.model_copy(update={"verify": VerifySettings(judgements=1, max_epochs=1)})
    desk = Desk(say)
    report = verify(desk, one)
    assert report.epoch == 3
    assert {adapter for adapter, _ in desk.asked} == {None, "epoch-3"}


def test_the_base_side_is_made_once(recipe: Recipe) -> None:
    desk = Desk(say)
    side = answer_as_base(items(5), desk, desk, Words(), recipe)  # type: ignore[arg-type]
    asked = len(desk.asked)
    verify(desk, recipe, n=5, epochs=EPOCHS[1:2], base=side)
    assert len(desk.asked) == asked + 10
    capped = recipe.model_copy(update={"verify": VerifySettings(judgements=1, max_queries=3)})
    small = answer_as_base(items(9), desk, desk, Words(), capped)  # type: ignore[arg-type]
    assert len(small.items) == len(small.answers) == 3


def test_a_critic_is_judged_over_its_whole_path(recipe: Recipe) -> None:
    desk = Desk(say)
    done: list[int] = []
    report = judge_critic(desk, recipe, 10, done.append)
    assert report.passed
    assert report.epoch is None
    assert report.win_rate == pytest.approx(0.95)  # nine wins, and one draft left as it was
    assert sum(done) == 10 * 2 + 10 * 3
    revisions = [adapter for adapter, prompt in desk.asked if prompt.startswith("revise")]
    assert revisions == [None] * 9  # the base revises, the critic only suggests
    assert desk.loaded == {}


def test_a_revision_that_lost_facts_counts_as_the_draft_where_serving_keeps_the_draft(
    recipe: Recipe,
) -> None:
    def forgetful(adapter: str | None, prompt: str) -> str:
        said = say(adapter, prompt)
        return said.replace("number 6", "number 7") if prompt.startswith("revise") else said

    settings = VerifySettings(judgements=1, min_kept=1.0)
    blind = recipe.model_copy(update={"verify": settings})
    report = judge_critic(Desk(forgetful), blind, 10)
    assert (report.lost, report.win_rate) == (1, pytest.approx(0.85))
    guarded = blind.model_copy(update={"revision_min_kept": 1.0})
    report = judge_critic(Desk(forgetful), guarded, 10)
    assert (report.lost, report.win_rate) == (0, pytest.approx(0.9))


def test_a_reminded_critic_is_judged_with_its_reminders(recipe: Recipe) -> None:
    known = Cluster(id="c", size=9, rules=["smile", "frown"], conditions=[[], ["never"]])
    reminded = recipe.model_copy(update={"remind": True})
    for one, rate, smiles in ((recipe, 0.95, 0), (reminded, 1.0, 10)):
        desk = Desk(say)
        assert judge_critic(desk, one, 10, known=known).win_rate == pytest.approx(rate)
        revisions = [prompt for _, prompt in desk.asked if prompt.startswith("revise")]
        assert sum("smile" in prompt for prompt in revisions) == smiles
        assert not any("frown" in prompt for prompt in revisions)


def test_a_memory_revises_by_the_rules_that_hold_and_asks_no_critic(recipe: Recipe) -> None:
    known = Cluster(id="c", size=9, rules=["smile", "frown"], conditions=[["urgent"], ["never"]])
    asked = items(10)
    asked[1:3] = [
        replace(item, messages=[Message(role="user", content=f"urgent {item.id}")])
        for item in asked[1:3]
    ]
    words: Any = Words()
    desk: Any = Desk(say)
    done: list[int] = []
    report = verify_memory(asked, known, desk, desk, words, recipe, done.append)
    assert (report.kind, report.epoch, report.n) == ("memory", None, 10)
    assert report.win_rate == pytest.approx(0.6)  # two wins, and eight drafts that stand
    assert sum(done) == 10 * 2 + 10 * 2
    assert not report.passed
    revisions = [prompt for _, prompt in desk.asked if prompt.startswith("revise")]
    assert revisions == [f"revise {plain(f'urgent {n}')} << smile" for n in "12"]
    assert not any(prompt.startswith("critique") for _, prompt in desk.asked)
    assert all(adapter is None for adapter, _ in desk.asked)
    # What the judge takes for a rule that was never told is no overreach.
    settings = VerifySettings(judgements=1, max_overreach=0.0)
    strict = recipe.model_copy(update={"verify": settings})
    idle = [replace(item, idle=["Frown."]) for item in asked]
    assert verify_memory(idle, known, desk, desk, words, strict).overreached == 0
    always = known.model_copy(update={"conditions": []})
    assert verify_memory(items(10), always, desk, desk, words, recipe).passed
    empty = verify_memory([], known, desk, desk, words, recipe)
    assert (empty.kind, empty.passed, empty.n) == ("memory", False, 0)


def test_a_critic_that_talks_nonsense_changes_nothing(recipe: Recipe) -> None:
    def garbled(adapter: str | None, prompt: str) -> str:
        return "garbled" if prompt.startswith("critique") else say(adapter, prompt)

    desk = Desk(garbled)
    report = judge_critic(desk, recipe, 6)
    assert report.win_rate == 0.5
    assert not report.passed


def test_an_unreadable_judge_decides_nothing(recipe: Recipe) -> None:
    def mute(adapter: str | None, prompt: str) -> str:
        return "well" if prompt.startswith("judge") else say(adapter, prompt)

    report = verify(Desk(mute), recipe)
    assert (report.passed, report.n, report.interval) == (False, 0, (0.0, 1.0))
    assert "could not be read" in report.reason


def test_adapters_are_unloaded_when_the_engine_fails(recipe: Recipe) -> None:
    def failing(adapter: str | None, prompt: str) -> str:
        if adapter is not None:
            raise KeyboardInterrupt
        return say(adapter, prompt)

    desk = Desk(failing)
    with pytest.raises(KeyboardInterrupt):
        verify(desk, recipe)
    assert desk.loaded == {}
