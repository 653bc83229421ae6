"""What users did with answers in place of words: edits, likes, other answers that they chose.

An edit is a preference pair as it stands, and so is a liked answer after one that was disliked or
replaced. Thumbs and implicit actions rate an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_uno.messages import without_thinking
from langchain_uno.recipe import Recipe
from langchain_uno.records import Interaction, Origin, PreferencePair, RatedAnswer, mean_of

_LIKED, _DISLIKED = 0.75, 0.25
_ACTIONS = {"like": 1.0, "copy": 0.75, "regenerate": 0.25, "dislike": 0.0}
"""The score, in [0, 1], of an implicit action that comes without one."""


def approval(interaction: Interaction) -> float | None:
    """Return how its users took the answer, in [0, 1]: the mean of scores and implicit actions.

    None when nobody gave either.
    """
    said = [_ACTIONS.get(f.key) if f.score is None else f.score for f in interaction.feedback]
    return mean_of(min(1.0, max(0.0, s)) for s in said if s is not None)


def was_content(interaction: Interaction) -> bool:
    """Whether its users liked the answer: without a wish, they were content with it as it was."""
    return (approval(interaction) or 0.0) >= _LIKED


def rated_answers(
    interactions: Sequence[Interaction], voices: Mapping[str, str]
) -> list[RatedAnswer]:
    """Return the answers that somebody plainly liked or disliked, as KTO's examples.

    Edited and empty answers are left out, and liked ones that a token limit cut.

    Args:
        interactions: logs whose words, if any, ask for nothing.
        voices: whose vote each log is, by id.
    """
    out = []
    for log in interactions:
        mood = approval(log)
        if mood is None or _DISLIKED < mood < _LIKED or log.correction or not log.answer.strip():
            continue
        if log.cut and mood >= _LIKED:
            continue  # its end is not what anybody liked
        out.append(
            RatedAnswer(
                run_id=log.run_id,
                messages=log.messages,
                answer=log.answer.strip(),
                liked=mood >= _LIKED,
                voice=voices[log.run_id],
            )
        )
    return out


def thumbs_of(rated: Sequence[RatedAnswer]) -> tuple[int, int]:
    """Return how many people gave a thumb up, and how many gave one down."""
    ups = {one.voice for one in rated if one.liked}
    downs = {one.voice for one in rated if not one.liked}
    return len(ups), len(downs)


def thumbs_teach(rated: Sequence[RatedAnswer], recipe: Recipe) -> bool:
    """Whether these thumbs teach anything.

    Each direction takes ``min_users`` people, however many thumbs they gave, because in training
    both weigh the same. With ``pairs.retention`` (paper) thumbs teach nothing.
    """
    return min(thumbs_of(rated)) >= recipe.rules.min_users and not recipe.pairs.retention


def edited_pairs(interactions: Sequence[Interaction]) -> list[PreferencePair]:
    """Return the pairs that users wrote themselves by editing an answer."""
    out = []
    for log in interactions:
        edit = without_thinking(log.correction or "").strip()
        if edit and log.answer.strip() and edit != log.answer.strip():
            out.append(pair_of(log, edit, "edited"))
    return out


def liked_pairs(interactions: Sequence[Interaction]) -> list[PreferencePair]:
    """Return the pairs of a disliked or replaced answer and a later, liked one.

    Both answer the same messages in the same thread; logs without a thread give none. Each rejected
    answer makes one pair, with the first liked answer after it.
    """
    threads: dict[tuple[object, ...], list[Interaction]] = {}
    for log in interactions:
        if log.thread_id is not None:
            turns = tuple((m.role, m.content) for m in log.messages)
            threads.setdefault((log.thread_id, turns), []).append(log)
    out = []
    for tries in threads.values():
        tries.sort(key=lambda t: t.created_at)
        for i, log in enumerate(tries):
            mood = approval(log)
            if not log.answer.strip() or (mood is not None and mood > _DISLIKED):
                continue  # a middling or liked answer was not what its user wanted replaced
            for later in tries[i + 1 :]:
                liked = was_content(later) and not later.cut
                text = later.answer.strip()
                if liked and text and text != log.answer.strip():
                    out.append(pair_of(log, text, "liked"))
                    break
    return out


def pair_of(
    log: Interaction, chosen: str, origin: Origin, *, scores: tuple[float, float] | None = None
) -> PreferencePair:
    """Return the pair of a log's answer and a better one; ``scores`` are (chosen, rejected)."""
    return PreferencePair(
        run_id=log.run_id,
        messages=log.messages,
        chosen=chosen,
        rejected=log.answer.strip(),
        origin=origin,
        chosen_score=scores[0] if scores else None,
        rejected_score=scores[1] if scores else None,
    )
