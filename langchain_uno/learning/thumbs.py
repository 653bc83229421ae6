"""What lone thumbs ask for: rules that set the answers people liked apart from the others.

A thumb says that an answer was good or bad, and not why. So the teacher is shown some answers that
people liked and some that they disliked, and names what sets them apart. A judge then scores
answers that *other* people rated by each rule. The rule stands if liked answers score higher than
disliked ones (a hypothesis from a few samples, checked on the rest, as in arXiv 2201.12323).

The rules that stand are the standard by which the judge compares the answers of the cluster's
module with the base model's. They train nothing: the expert learns from the rated answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from langchain_uno.learning.controls import believed
from langchain_uno.learning.distil import ask_for_rules
from langchain_uno.learning.work import Work
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.models.prompts.data_blocks import shortened
from langchain_uno.models.roles import Answered
from langchain_uno.records import Message, RatedAnswer, digest_of

SHOWN = 4
"""People of each side (likers, dislikers) drawn for the teacher, at most half of the side. Whoever
rated both ways is shown on both sides."""
CHECKED = 16
"""Other people of each side whose answers a judge scores by each rule, at most."""
MOST_RULES = 3
LEVEL = 0.05
"""The chance that any rule stands though none tells liked answers from disliked ones."""
_REQUEST, _ANSWER = 500, 1_500
"""Characters of a request and of an answer that the teacher sees at most."""


def rules_of_thumbs(work: Work, rated: Sequence[RatedAnswer]) -> list[str]:
    """Return the rules that set liked answers apart from disliked ones.

    Only answers in the language that most of them have are used, one of each person and side.

    Args:
        work: the refresh; its teacher writes the rules and judges by them.
        rated: the rated answers of one cluster's training logs, at least one.

    Returns:
        At most ``MOST_RULES``, often an empty list. It is empty where the judge is not believed,
        where the prompt set lacks the language or the role, and where no rule stands.

    Raises:
        EngineError: the teacher can't answer.
    """
    spoken = Counter(work.logs[one.run_id].language for one in rated)
    language = spoken.most_common(1)[0][0]
    words = work.teacher_prompts
    if not words.supports(language) or not believed(work, "judge", language):
        return []
    own = [one for one in rated if work.logs[one.run_id].language == language]
    likers, dislikers = (_first_of_each(work, own, up) for up in (True, False))
    shown = {one.voice for side in (likers, dislikers) for one in side[: _shown(side)]}
    liked, disliked = (
        [_short(one) for one in side if one.voice in shown] for side in (likers, dislikers)
    )
    prompt = words.distil_thumbs_prompt(liked, disliked, language)
    if prompt is None:
        return []
    [found] = ask_for_rules(work.teacher, words, [prompt], work.recipe, MOST_RULES)
    tried = [] if isinstance(found, str) else found[:MOST_RULES]
    good, bad = (
        [one for one in side if one.voice not in shown][:CHECKED] for side in (likers, dislikers)
    )
    return [rule for rule in tried if _tells(work, rule, good, bad, LEVEL / len(tried))]


def _first_of_each(work: Work, rated: Sequence[RatedAnswer], up: bool) -> list[RatedAnswer]:
    """Return one answer of each person who liked (or disliked) any, in an order by the seed."""
    drawn = sorted(
        (one for one in rated if one.liked is up),
        key=lambda one: digest_of(str(work.recipe.seed), one.voice, one.run_id),
    )
    return list({one.voice: one for one in reversed(drawn)}.values())


def _shown(side: Sequence[RatedAnswer]) -> int:
    return min(SHOWN, len(side) // 2)


def _short(one: RatedAnswer) -> Answered:
    """Return the last request and the answer, cut to what the teacher sees."""
    asked = next((m.content for m in reversed(one.messages) if m.role == "user"), "")
    request = Message(role="user", content=shortened(asked, _REQUEST))
    return [request], shortened(one.answer, _ANSWER)


def _tells(
    work: Work, rule: str, good: Sequence[RatedAnswer], bad: Sequence[RatedAnswer], level: float
) -> bool:
    """Whether a judge scores the good answers above the bad ones by a rule.

    One-sided Mann-Whitney test at ``level``; answers without a judgement are left out.
    """
    from scipy.stats import mannwhitneyu

    items = [
        JudgeItem(one.messages, [rule], one.answer, work.logs[one.run_id].language)
        for one in (*good, *bad)
    ]
    verdicts = judge(items, work.teacher, work.teacher_prompts, work.recipe)
    scores = [None if one is None else one.score for one in verdicts]
    above = [s for s in scores[: len(good)] if s is not None]
    below = [s for s in scores[len(good) :] if s is not None]
    if not above or not below:
        return False
    return bool(mannwhitneyu(above, below, alternative="greater").pvalue <= level)
