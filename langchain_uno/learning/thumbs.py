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

from langchain_uno.learning.controls import believed
from langchain_uno.learning.distil import ask_for_rules
from langchain_uno.learning.work import Work
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.models.prompts.data_blocks import shortened
from langchain_uno.models.roles import Answered
from langchain_uno.records import Message, RatedAnswer, digest_of

SHOWN = 4
"""People of either side whose answer the teacher sees, at most half of them; first those who are on
both sides."""
CHECKED, EACH = 16, 3
"""People of either side whose answers a judge scores by each rule, and answers of each of them."""
MOST_RULES = 3
LEVEL = 0.05
"""A rule that says nothing of the answers stands so often, however many are tried."""
_REQUEST, _ANSWER = 500, 1_500
"""Characters of each that the teacher sees."""


def rules_of_thumbs(work: Work, rated: Sequence[RatedAnswer]) -> list[str]:
    """Return the rules that set liked answers apart from disliked ones; often none.

    Args:
        work: the refresh; its teacher writes and judges.
        rated: the rated answers of one cluster's training logs.

    Returns:
        At most ``MOST_RULES``. None where the judge can't be believed, the prompt set has no such
        role, or too few people are left to check a rule on.
    """
    spoken = Counter(work.logs[one.run_id].language for one in rated)
    language = spoken.most_common(1)[0][0]
    words = work.teacher_prompts
    if not words.supports(language) or not believed(work, "judge", language):
        return []
    own = [one for one in rated if work.logs[one.run_id].language == language]
    likers, dislikers = (_by_person(work, own, up) for up in (True, False))
    both = likers.keys() & dislikers.keys()
    shown = {
        voice
        for side in (likers, dislikers)
        for voice in sorted(side, key=lambda v: v not in both)[: min(SHOWN, len(side) // 2)]
    }
    liked, disliked = (
        [_short(one[0]) for voice, one in side.items() if voice in shown]
        for side in (likers, dislikers)
    )
    prompt = words.distil_thumbs_prompt(liked, disliked, language)
    if prompt is None:
        return []
    [found] = ask_for_rules(work.teacher, words, [prompt], work.recipe, MOST_RULES)
    tried = [] if isinstance(found, str) else found[:MOST_RULES]
    good, bad = (
        [one for voice, one in side.items() if voice not in shown][:CHECKED]
        for side in (likers, dislikers)
    )
    return [rule for rule in tried if _tells(work, rule, good, bad, LEVEL / len(tried))]


def _by_person(work: Work, rated: Sequence[RatedAnswer], up: bool) -> dict[str, list[RatedAnswer]]:
    """Return some answers that each person liked (or disliked); all in an order drawn by lot."""
    drawn = sorted(
        (one for one in rated if one.liked is up),
        key=lambda one: (digest_of(str(work.recipe.seed), one.voice), one.run_id),
    )
    found: dict[str, list[RatedAnswer]] = {}
    for one in drawn:
        found.setdefault(one.voice, []).append(one)
    return {voice: some[:EACH] for voice, some in found.items()}


def _short(one: RatedAnswer) -> Answered:
    """Return the last request and the answer, as much as the teacher sees of them."""
    asked = next((m.content for m in reversed(one.messages) if m.role == "user"), "")
    request = Message(role="user", content=shortened(asked, _REQUEST))
    return [request], shortened(one.answer, _ANSWER)


def _tells(
    work: Work,
    rule: str,
    good: Sequence[Sequence[RatedAnswer]],
    bad: Sequence[Sequence[RatedAnswer]],
    level: float,
) -> bool:
    """Whether a judge scores the good answers above the bad ones by a rule.

    Each person counts once, by the mean of their answers (Mann-Whitney's one-sided test).
    """
    from scipy.stats import mannwhitneyu

    items = [
        JudgeItem(one.messages, [rule], one.answer, work.logs[one.run_id].language)
        for some in (*good, *bad)
        for one in some
    ]
    verdicts = iter(judge(items, work.teacher, work.teacher_prompts, work.recipe))

    def means(people: Sequence[Sequence[RatedAnswer]]) -> list[float]:
        scores = [[v.score for _ in some if (v := next(verdicts))] for some in people]
        return [sum(own) / len(own) for own in scores if own]

    above, below = means(good), means(bad)
    if not above or not below:
        return False
    return bool(mannwhitneyu(above, below, alternative="greater").pvalue <= level)
