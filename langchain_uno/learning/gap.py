"""Stage "gap": how far what users want lies from what the model would guess (paper, stage 5).

Every rule distilled *with* feedback is compared with the list that the model wrote *without* it.
The novelty of a rule is ``1 - P(covered)``, that of a log the smallest of its rules. The gap of a
cluster is the mean novelty of its training logs that have both lists. With ``gap.over = "list"``
(paper) the reranker is asked about the whole list at once; with "pairs" about every pair, and the
best match counts: small rerankers judge single pairs far more reliably (99 % against 76 % in the
bundled model's pilot).

The gap is measured on what each log's user asked, not on the rules that recur in the cluster: those
would give every log the same list. Where nothing was guessed the gap is unknown, which counts as
``gap.unknown``. Where the reranker fails its control questions the gap can't be measured: an expert
is tried first, which costs less than a critic, and then a critic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from langchain_uno.learning.controls import believed
from langchain_uno.learning.work import Work
from langchain_uno.models.protocols import FloatArray, OnDone, Reranker
from langchain_uno.records import RuleSet


def gap_stage(work: Work) -> dict[str, Any]:
    """Measure each cluster's cognitive gap on its training logs."""
    clusters = work.clusters()
    given = work.folder.read_json("given.json")
    sets: list[list[RuleSet]] = []
    for cluster in clusters:
        # Wishes about a module's answers say what the module lacks; the gap is that of the base.
        plain = [j for j in cluster.train if j not in given and work.taught[j].with_feedback]
        able = [
            j
            for j in plain or cluster.train
            if believed(work, "reranker", work.logs[j].language) or not work.taught[j].with_feedback
        ]
        cluster.unmeasured = not able
        sets.append([work.taught[j] for j in able])
    every = [rules for own in sets for rules in own]
    over = work.recipe.gap.over
    work.progress.start("gap", count_questions(every, over), "is the wish covered by the guess?")
    # All clusters in one call: equal questions are asked once, and batches are full.
    measured = iter(cognitive_gap(every, work.reranker, work.counter("gap"), over=over))
    for cluster, own in zip(clusters, sets, strict=True):
        cluster.gap, cluster.n_gap_logs = cluster_gap([next(measured) for _ in own])
    work.folder.write_records("clusters-gap.jsonl", clusters)
    unknown = sum(c.gap is None for c in clusters)
    low = sum(work.is_low(c) for c in clusters)
    told = f" ({unknown} unknown)" if unknown else ""
    return {
        "low": low,
        "high": len(clusters) - low,
        "unknown": unknown,
        "note": f"{low} low, {len(clusters) - low} high{told}",
    }


def cognitive_gap(
    rule_sets: Sequence[RuleSet],
    reranker: Reranker,
    on_done: OnDone | None = None,
    *,
    over: Literal["list", "pairs"] = "list",
) -> list[RuleSet]:
    """Return the rule sets with ``novelty`` set: in [0, 1], or None where either list is empty.

    Args:
        rule_sets: one per log, of any clusters; they are not changed.
        reranker: says how likely a suggestion is covered.
        on_done: is told of every question asked (:func:`count_questions` in all).
        over: what a rule is held against at once.

    Raises:
        EngineError: the reranker can't answer.
    """
    asked = [_questions(rules, over) for rules in rule_sets]
    unique = _unique(asked)
    found: Sequence[float] | FloatArray = []
    if unique and over == "list":
        found = reranker.covered_by_list([(rule, list(known)) for rule, *known in unique], on_done)
    elif unique:
        found = reranker.covered([(rule, known) for rule, known in unique], on_done)
    covered = {question: float(p) for question, p in zip(unique, found, strict=True)}
    return [
        rules.model_copy(update={"novelty": _novelty([[covered[q] for q in qs] for qs in each])})
        for rules, each in zip(rule_sets, asked, strict=True)
    ]


def count_questions(rule_sets: Sequence[RuleSet], over: Literal["list", "pairs"] = "list") -> int:
    """Return how many questions :func:`cognitive_gap` will ask: equal ones are asked once."""
    return len(_unique([_questions(rules, over) for rules in rule_sets]))


def cluster_gap(rule_sets: Sequence[RuleSet]) -> tuple[float | None, int]:
    """Return a cluster's gap in [0, 1], and the number of logs that it is the mean over.

    Give the *training* logs' sets. No log with both lists gives ``(None, 0)``.
    """
    known = [s.novelty for s in rule_sets if s.novelty is not None]
    return (sum(known) / len(known), len(known)) if known else (None, 0)


def _questions(rules: RuleSet, over: Literal["list", "pairs"]) -> list[list[tuple[str, ...]]]:
    """Return what is asked about each rule: the rule, and all of the guesses or one of them."""
    known = [guess.text for guess in rules.without_feedback]
    if not known:
        return []
    against = [known] if over == "list" else [[text] for text in known]
    return [[(rule.text, *some) for some in against] for rule in rules.with_feedback]


def _unique(asked: Sequence[Sequence[Sequence[tuple[str, ...]]]]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(q for each in asked for questions in each for q in questions))


def _novelty(covered: Sequence[Sequence[float]]) -> float | None:
    """Return 1 - the best match of the rule that is covered best; None without rules."""
    # Clipped, since a probability summed in float32 may leave [0, 1] by a rounding error.
    each = [1.0 - min(1.0, max(0.0, max(answers))) for answers in covered]
    return min(each) if each else None
