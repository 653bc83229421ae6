"""Make preference pairs (paper, stage 3): a better answer against the one that was logged.

A log gives at most one pair, from the surest source it has:

- *edited*: a user rewrote the answer. The edit is ``chosen`` as it stands; nobody judges it.
- *liked*: an answer was disliked or replaced, and a later answer to the same messages in the same
  thread was liked. The two make a pair as they stand.
- *revised*: candidates are written from the feedback and judged with the wanted rules as the
  standard. The best is ``chosen`` only if it scores above the logged answer *and* well enough to be
  worth imitating; otherwise the log gives nothing.

Thumbs and scores weigh in: a revision of an answer that its user disliked counts more than one of
an answer that its user liked all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_uno.reflect import kept_share, request_text
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.learning.revise import Candidate, count_candidates, revise, wanted_rules
from langchain_uno.models.protocols import Engine, OnDone
from langchain_uno.models.roles import PromptSet
from langchain_uno.recipe import Recipe
from langchain_uno.records import Interaction, PreferencePair, Rule, RuleSet

__all__ = [
    "approval",
    "build_pairs",
    "count_work",
    "edited_pairs",
    "liked_pairs",
    "was_content",
    "was_disliked",
    "weight_of",
]

_LIKED, _DISLIKED = 0.75, 0.25
_ACTIONS = {"like": 1.0, "copy": 0.75, "regenerate": 0.25, "dislike": 0.0}
"""What an implicit action says about an answer when it carries no score of its own."""


def approval(interaction: Interaction) -> float | None:
    """Return how its users took the answer, in [0, 1]: the mean of scores and implicit signals.

    None when nobody gave either.
    """
    said = [
        f.score if f.score is not None else _ACTIONS.get(f.key)
        for f in interaction.feedback
        if f.score is not None or f.key in _ACTIONS
    ]
    known = [min(1.0, max(0.0, s)) for s in said if s is not None]
    return sum(known) / len(known) if known else None


def was_content(interaction: Interaction) -> bool:
    """Whether its users liked the answer: without a wish, they were content with it as it was."""
    return (approval(interaction) or 0.0) >= _LIKED


def was_disliked(interaction: Interaction) -> bool:
    """Whether its users disliked the answer, in words or without."""
    mood = approval(interaction)
    return mood is not None and mood <= _DISLIKED


def weight_of(interaction: Interaction) -> float:
    """Return how much a log's wishes count in training: 1 without scores, 0.5 (liked) to 1.5."""
    mood = approval(interaction)
    return 1.0 if mood is None else 1.5 - mood


def edited_pairs(interactions: Sequence[Interaction]) -> list[PreferencePair]:
    """Return the pairs that users wrote themselves by editing an answer."""
    out = []
    for log in interactions:
        edit = log.correction
        if edit and log.answer.strip() and edit.strip() != log.answer.strip():
            out.append(_pair(log, edit.strip(), "edited", weight=1.0))
    return out


def liked_pairs(interactions: Sequence[Interaction], weight: float = 1.0) -> list[PreferencePair]:
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
                liked = was_content(later)
                text = later.answer.strip()
                if liked and text and text != log.answer.strip():
                    out.append(_pair(log, text, "liked", weight=weight))
                    break
    return out


def build_pairs(
    interactions: Sequence[Interaction],
    rule_sets: Sequence[RuleSet],
    engine: Engine,
    judge_engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
) -> list[PreferencePair]:
    """Return at most one pair a log: users' edits, liked regenerations, judged revisions.

    Give the *training* logs of one cluster. With ``recipe.pairs.max_pairs_per_cluster`` the surest
    are kept: what users did themselves, then the revisions with the widest margin.

    Args:
        interactions: usable logs.
        rule_sets: one a log, in the same order, ``wanted`` set by aggregation.
        engine: writes the candidates.
        judge_engine: scores them.
        prompts: the prompt set of both.
        recipe: ``pairs``, ``seed``, ``max_judge_tokens``.
        on_done: hears of written candidates and of judged answers; see :func:`count_work`.

    Raises:
        EngineError: a model can't answer at all.
    """
    by_users = edited_pairs(interactions)
    edited = {p.run_id for p in by_users}
    by_users += [
        p for p in liked_pairs(interactions, recipe.pairs.liked_weight) if p.run_id not in edited
    ]
    done = {p.run_id for p in by_users}
    open_ = [
        (log, rules)
        for log, rules in zip(interactions, rule_sets, strict=True)
        # A log whose own feedback asked for nothing says nothing about its answer.
        if log.run_id not in done and rules.with_feedback
    ]
    logs, rules = [log for log, _ in open_], [r for _, r in open_]
    candidates = [
        [c for c in tries if _keeps(log, c, recipe)]
        for log, tries in zip(
            logs, revise(logs, rules, engine, prompts, recipe, on_done), strict=True
        )
    ]
    revised = _judged(logs, rules, candidates, judge_engine, prompts, recipe, on_done)
    revised.sort(key=lambda p: (p.rejected_score or 0.0) - (p.chosen_score or 0.0))
    kept = (by_users + revised)[: recipe.pairs.max_pairs_per_cluster]
    order = {log.run_id: i for i, log in enumerate(interactions)}
    return sorted(kept, key=lambda p: order[p.run_id])


def _keeps(log: Interaction, candidate: Candidate, recipe: Recipe) -> bool:
    """Whether a candidate keeps what the logged answer quotes from the request."""
    if recipe.pairs.min_kept <= 0:
        return True
    share = kept_share(request_text(log.messages), log.answer, candidate.text)
    return share >= recipe.pairs.min_kept


def count_work(
    interactions: Sequence[Interaction], rule_sets: Sequence[RuleSet], recipe: Recipe
) -> int:
    """Return about how many items :func:`build_pairs` will report (an upper bound)."""
    counts = [count_candidates(i, r, recipe) for i, r in zip(interactions, rule_sets, strict=True)]
    return sum(2 * n + 1 for n in counts if n)


def _judged(
    logs: Sequence[Interaction],
    rule_sets: Sequence[RuleSet],
    candidates: Sequence[Sequence[Candidate]],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None,
) -> list[PreferencePair]:
    """Judge originals and candidates in one go, and keep the logs whose best candidate wins."""
    items: list[JudgeItem] = []
    spans: list[tuple[int, int]] = []
    for log, rules, tries in zip(logs, rule_sets, candidates, strict=True):
        start = len(items)
        if tries:
            standard = wanted_rules(rules)
            answers = [log.answer, *(c.text for c in tries)]
            items += [JudgeItem(log.messages, standard, a, log.language) for a in answers]
        spans.append((start, len(items)))
    verdicts = judge(items, engine, prompts, recipe, on_done)
    out = []
    for log, rules, tries, (start, end) in zip(logs, rule_sets, candidates, spans, strict=True):
        if start == end:
            continue
        original, *scored = verdicts[start:end]
        read = [(v.score, c) for v, c in zip(scored, tries, strict=True) if v is not None]
        if original is None or not read:
            continue
        score, best = max(read, key=lambda r: r[0])  # the first of equals: order is seeded
        if score <= original.score or score < recipe.pairs.min_chosen_score:
            continue
        out.append(
            _pair(
                log,
                best.text,
                "revised",
                weight=weight_of(log),
                rules=rules.wanted or rules.with_feedback,
                scores=(score, original.score),
            )
        )
    return out


def _pair(
    log: Interaction,
    chosen: str,
    origin: str,
    *,
    weight: float,
    rules: Sequence[Rule] = (),
    scores: tuple[float, float] | None = None,
) -> PreferencePair:
    return PreferencePair.model_validate(
        {
            "run_id": log.run_id,
            "messages": log.messages,
            "chosen": chosen,
            "rejected": log.answer.strip(),
            "rules": list(rules),
            "origin": origin,
            "chosen_score": scores[0] if scores else None,
            "rejected_score": scores[1] if scores else None,
            "weight": weight,
        }
    )
