"""The cognitive gap: how far what users want lies from what the model would guess (paper, stage 5).

Every rule distilled *with* feedback is held against the list the model wrote *without* it. The
reranker is asked pair by pair and the best match counts: single pairs are judged far more reliably
than "is it covered by this list?" (99 % against 76 % in the bundled model's pilot), and the
maximum over pairs is what covering by a list means.

``novelty`` of a rule is ``1 - max P(covered)``; of a log, the minimum (paper) or the mean over its
rules; of a cluster, the mean over the logs that have both lists. Measured on what each log's user
asked, not on the rules that recur in the cluster: those would give every log the same list.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from langchain_uno.models.protocols import OnDone, Reranker
from langchain_uno.records import RuleSet

__all__ = ["cluster_gap", "cognitive_gap", "count_questions"]


def cognitive_gap(
    rule_sets: Sequence[RuleSet],
    reranker: Reranker,
    on_done: OnDone | None = None,
    *,
    over_rules: Literal["min", "mean"] = "min",
) -> list[RuleSet]:
    """Return the rule sets with ``novelty`` set: in [0, 1], or None where either list is empty.

    Args:
        rule_sets: one per log, of any clusters; they are not changed.
        reranker: says how likely a suggestion is covered by a known rule.
        on_done: hears of every question asked (:func:`count_questions` in all).
        over_rules: how a log's novelty comes of its rules' (``min``: paper).

    Raises:
        EngineError: the reranker can't answer.
    """
    questions = _questions(rule_sets)
    answers: dict[tuple[str, str], float] = {}
    if questions:
        covered = reranker.covered(questions, on_done)
        # Clipped, since a probability summed in float32 may leave [0, 1] by a rounding error.
        answers = {q: min(1.0, max(0.0, float(p))) for q, p in zip(questions, covered, strict=True)}
    return [s.model_copy(update={"novelty": _novelty(s, answers, over_rules)}) for s in rule_sets]


def count_questions(rule_sets: Sequence[RuleSet]) -> int:
    """Return how many questions :func:`cognitive_gap` will ask: equal pairs are asked once."""
    return len(_questions(rule_sets))


def cluster_gap(rule_sets: Sequence[RuleSet]) -> tuple[float, int]:
    """Return a cluster's gap in [0, 1], and the number of logs that it is the mean over.

    Give the *training* logs' sets. No log with both lists gives ``(0.0, 0)``, as in the paper.
    """
    known = [s.novelty for s in rule_sets if s.novelty is not None]
    return (sum(known) / len(known), len(known)) if known else (0.0, 0)


def _questions(rule_sets: Sequence[RuleSet]) -> list[tuple[str, str]]:
    seen = {
        (rule.text, guess.text): None
        for s in rule_sets
        for rule in s.with_feedback
        for guess in s.without_feedback
    }
    return list(seen)


def _novelty(
    rules: RuleSet, answers: dict[tuple[str, str], float], over_rules: Literal["min", "mean"]
) -> float | None:
    if not rules.with_feedback or not rules.without_feedback:
        return None
    each = [
        1.0 - max(answers[(rule.text, guess.text)] for guess in rules.without_feedback)
        for rule in rules.with_feedback
    ]
    return min(each) if over_rules == "min" else fmean(each)
