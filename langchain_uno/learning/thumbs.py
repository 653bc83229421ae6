"""What lone thumbs ask for: a rule that sets the answers people liked apart from the others.

A thumb says that an answer was good or bad, and not why. So the teacher is shown some answers that
people liked and some that they disliked, and names what sets them apart. A rule stands if a judge
scores the liked answers of *other* people above the disliked ones by it (a hypothesis from a few
samples, checked on the rest, as in arXiv 2201.12323). What stands is the standard by which the
cluster's module is verified: on its own answers, like any module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from langchain_uno.learning.controls import believed
from langchain_uno.learning.distil import ask_for_rules
from langchain_uno.learning.troubles import is_of_one, without_breakers
from langchain_uno.learning.work import Work
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.models.prompts.data_blocks import shortened
from langchain_uno.models.roles import Answered
from langchain_uno.records import Message, RatedAnswer, digest_of, run_of

SHOWN = 4
"""People of either side whose answer the teacher sees, and at most half of them."""
CHECKED = 16
"""People of either side whose answers a judge scores by each rule."""
MOST_RULES = 3
LEVEL = 0.05
"""A rule that says nothing of the answers stands so often, however many are tried."""
_LENGTHS = ((500, 1_500), (200, 400))
"""Characters of each request and answer that the teacher sees; less, where it can't read these."""


class Drawn(NamedTuple):
    """What came of a cluster's thumbs."""

    rules: list[str]
    runs: list[str]
    """The runs whose answers the teacher saw: a rule may quote any of them."""
    unread: bool = False
    """Whether the teacher gave no list that can be read."""


def rules_of_thumbs(work: Work, rated: Sequence[RatedAnswer]) -> Drawn:
    """Return the rules that set liked answers apart from disliked ones; often none.

    Args:
        work: the refresh; its teacher writes and judges.
        rated: the rated answers of one cluster's training logs.

    Returns:
        At most ``MOST_RULES``. None where the judge can't be believed, the prompt set has no such
        role, or too few people are left to check a rule on.

    Raises:
        EngineDownError: the teacher answers nobody.
    """
    spoken = Counter(work.logs[one.run_id].language for one in rated)
    language = spoken.most_common(1)[0][0]
    words = work.teacher_prompts
    if not words.supports(language) or not believed(work, "judge", language):
        return Drawn([], [])
    own = [one for one in rated if work.logs[one.run_id].language == language]
    likers, dislikers = (_first_of_each(work, own, up) for up in (True, False))
    shown = {one.voice for side in (likers, dislikers) for one in side[: _shown(side)]}
    seen = [[one for one in side if one.voice in shown] for side in (likers, dislikers)]
    if not all(seen):
        return Drawn([], [])
    tried = _asked(work, seen, language)
    runs = [run_of(one.run_id) for side in seen for one in side]
    if tried is None:
        return Drawn([], runs, unread=True)
    good, bad = (
        [one for one in side if one.voice not in shown][:CHECKED] for side in (likers, dislikers)
    )
    level = LEVEL / max(1, len(tried))
    return Drawn([rule for rule in tried if _tells(work, rule, good, bad, level)], runs)


def _first_of_each(work: Work, rated: Sequence[RatedAnswer], up: bool) -> list[RatedAnswer]:
    """Return one answer of each person who liked (or disliked) any.

    People come in an order drawn by lot, however many thumbs they gave.
    """
    seed = str(work.recipe.seed)
    drawn = sorted(
        (one for one in rated if one.liked is up),
        key=lambda one: (digest_of(seed, one.voice), digest_of(seed, one.run_id)),
    )
    return list({one.voice: one for one in reversed(drawn)}.values())


def _shown(side: Sequence[RatedAnswer]) -> int:
    return min(SHOWN, len(side) // 2)


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
    """Return the last request and the answer, as much as the teacher sees of them."""
    asked = next((m.content for m in reversed(one.messages) if m.role == "user"), "")
    return [Message(role="user", content=shortened(asked, request))], shortened(one.answer, answer)


def _tells(
    work: Work, rule: str, good: Sequence[RatedAnswer], bad: Sequence[RatedAnswer], level: float
) -> bool:
    """Whether a judge scores the good answers above the bad ones by a rule (Mann-Whitney)."""
    from scipy.stats import mannwhitneyu

    def scores(some: Sequence[RatedAnswer]) -> list[float]:
        items = [
            JudgeItem(one.messages, [rule], one.answer, work.logs[one.run_id].language)
            for one in some
        ]
        verdicts = judge(items, work.teacher, work.teacher_prompts, work.recipe)
        return [one.score for one in verdicts if one is not None]

    above, below = (without_breakers(side, scores)[0] for side in (good, bad))
    if not above or not below:
        return False
    return bool(mannwhitneyu(above, below, alternative="greater").pvalue <= level)
