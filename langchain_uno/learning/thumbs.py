"""What lone thumbs ask for: rules that set the answers people liked apart from the others.

A thumb says that an answer was good or bad, and not why. So the teacher is shown some answers that
people liked and some that they disliked, and names what sets them apart. A judge then scores
answers that *other* people rated by each rule. The rule stands if liked answers score higher than
disliked ones (a hypothesis from a few samples, checked on the rest, as in arXiv 2201.12323).

The rules that stand are taught like any other: the teacher revises by them the answers that nobody
liked, and the expert learns from the pairs. They are also the standard by which the judge compares
the module's answers with the base model's. Where none stands, or no pair comes of it, the expert
learns from the rated answers themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from langchain_uno.learning.controls import believed
from langchain_uno.learning.distil import ask_for_rules
from langchain_uno.learning.troubles import is_of_one, without_breakers
from langchain_uno.learning.work import Work
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.models.prompts.data_blocks import shortened
from langchain_uno.models.roles import Answered
from langchain_uno.records import Message, RatedAnswer, digest_of, last_asked, run_of

SHOWN = 4
"""People of each side (likers, dislikers) drawn for the teacher, at most half of the side. Whoever
rated both ways is drawn first, and shown on both sides."""
CHECKED, EACH = 16, 3
"""Other people of each side whose answers a judge scores by each rule, and answers of each, at
most."""
MOST_RULES = 3
LEVEL = 0.05
"""The chance that any rule stands though none tells liked answers from disliked ones."""
_LENGTHS = ((500, 1_500), (200, 400))
"""Characters of a request and of an answer that the teacher sees at most; less, where it can't read
these."""


class Drawn(NamedTuple):
    """What came of a cluster's thumbs."""

    rules: list[str]
    runs: list[str]
    """The runs whose answers the teacher saw: a rule may quote any of them."""
    unread: bool = False
    """Whether the teacher gave no list that can be read."""


def rules_of_thumbs(work: Work, rated: Sequence[RatedAnswer]) -> Drawn:
    """Return the rules that set liked answers apart from disliked ones.

    Only answers in the language that most of them have are used.

    Args:
        work: the refresh; its teacher writes the rules and judges by them.
        rated: the rated answers of one cluster's training logs, at least one.

    Returns:
        At most ``MOST_RULES`` rules, often none: where the judge is not believed, where the prompt
        set lacks the role, and where no rule stands.

    Raises:
        EngineDownError: the teacher answers nobody.
    """
    spoken = Counter(work.logs[one.run_id].language for one in rated)
    language = spoken.most_common(1)[0][0]
    if not believed(work, "judge", language):
        return Drawn([], [])
    own = [one for one in rated if work.logs[one.run_id].language == language]
    likers, dislikers = (_by_person(work, own, up) for up in (True, False))
    both = likers.keys() & dislikers.keys()
    shown = {
        voice
        for side in (likers, dislikers)
        for voice in sorted(side, key=lambda v: v not in both)[: min(SHOWN, len(side) // 2)]
    }
    seen = [[o[0] for v, o in side.items() if v in shown] for side in (likers, dislikers)]
    if not all(seen):
        return Drawn([], [])
    tried = _asked(work, seen, language)
    runs = [run_of(one.run_id) for side in seen for one in side]
    if tried is None:
        return Drawn([], runs, unread=True)
    good, bad = (
        [one for voice, one in side.items() if voice not in shown][:CHECKED]
        for side in (likers, dislikers)
    )
    level = LEVEL / max(1, len(tried))
    return Drawn([rule for rule in tried if _tells(work, rule, good, bad, level)], runs)


def _by_person(work: Work, rated: Sequence[RatedAnswer], up: bool) -> dict[str, list[RatedAnswer]]:
    """Return some answers that each person liked (or disliked).

    The seed orders people and their answers, however many thumbs they gave.
    """
    seed = str(work.recipe.seed)
    drawn = sorted(
        (one for one in rated if one.liked is up),
        key=lambda one: (digest_of(seed, one.voice), digest_of(seed, one.run_id)),
    )
    found: dict[str, list[RatedAnswer]] = {}
    for one in drawn:
        found.setdefault(one.voice, []).append(one)
    return {voice: some[:EACH] for voice, some in found.items()}


def _asked(work: Work, seen: Sequence[Sequence[RatedAnswer]], language: str) -> list[str] | None:
    """Return the teacher's rules for liked and disliked answers; None: it gave no list."""
    words = work.teacher_prompts
    for lengths in _LENGTHS:
        liked, disliked = ([_short(one, *lengths) for one in side] for side in seen)
        prompt = words.distil_thumbs_prompt(liked, disliked, language)
        if prompt is None:
            return []
        try:
            [found] = ask_for_rules(work.teacher, words, [prompt], work.recipe, MOST_RULES)
        except Exception as error:  # a server refuses what is too long for its model
            if not is_of_one(error):
                raise
            continue
        if not isinstance(found, str):
            return found[:MOST_RULES]
    return None


def _short(one: RatedAnswer, request: int, answer: int) -> Answered:
    """Return the last request and the answer, cut to what the teacher sees."""
    asked = shortened(last_asked(one.messages), request)
    return [Message(role="user", content=asked)], shortened(one.answer, answer)


def _tells(
    work: Work,
    rule: str,
    good: Sequence[Sequence[RatedAnswer]],
    bad: Sequence[Sequence[RatedAnswer]],
    level: float,
) -> bool:
    """Whether a judge scores the good answers above the bad ones by a rule.

    One-sided permutation test of the difference of means at ``level``: exact for few people. Each
    person counts once, by the mean of their answers; answers without a judgement are left out.
    """
    from scipy.stats import permutation_test

    def means(people: Sequence[Sequence[RatedAnswer]]) -> list[float]:
        items = [
            JudgeItem(one.messages, [rule], one.answer, work.logs[one.run_id].language)
            for some in people
            for one in some
        ]
        scores = iter(judge(items, work.teacher, work.teacher_prompts, work.recipe))
        read = [[score for _ in some if (score := next(scores))] for some in people]
        return [sum(own) / len(own) for own in read if own]

    above, below = (without_breakers(side, means)[0] for side in (good, bad))
    if min(len(above), len(below)) < 2:  # one person alone decides nothing
        return False
    found = permutation_test(
        (above, below),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        alternative="greater",
        random_state=work.recipe.seed,
    )
    return bool(found.pvalue <= level)
