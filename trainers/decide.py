"""Whether a module may ship: pure functions over answers, scores and outcomes (paper, stage 7).

An outcome is the module's side of one comparison with the base answer to the same query: 1 for a
win, 0.5 for a tie, 0 for a loss, None when the judge could not be read.

Two numbers are kept apart:

- *point*: the win rate of the best epoch on all queries, which the paper compares with 0.53. It is
  the largest of several noisy numbers, so it flatters the module.
- *cross-fitted*: every query counts with the outcome of the epoch that was best on the *other
  users'* queries. Selection never sees the query that it is judged by, and no query is spent on
  selection alone, which matters when a cluster has ten of them.

The interval is Wilson's on the cross-fitted win rate, at the number of queries that are worth
something: answers to one user's queries resemble each other, so the number is divided by the
design effect (one-way ANOVA intraclass correlation). Wilson's interval stays honest at few queries,
where a bootstrap of ten wins out of ten would claim certainty. Ties make it a little wide, never
narrow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from langchain_uno.learning.content import kept_share
from langchain_uno.recipe import VerifySettings

__all__ = [
    "Choice",
    "Outcome",
    "bleu4",
    "choose_epoch",
    "cross_fitted",
    "effective_n",
    "lost_content",
    "outcome",
    "spread_epochs",
    "wilson",
    "win_rate",
]

Outcome = float | None

_FOLDS = 5


def bleu4(answer: str, reference: str, language: str) -> float:
    """Return sentence BLEU-4 in [0, 1] by sacrebleu (exponential smoothing, effective order).

    Tokens are mteval-13a's, or sacrebleu's ``zh`` (Chinese characters one by one) for Chinese.
    """
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize="zh" if language.startswith("zh") else "13a", effective_order=True)
    return float(metric.sentence_score(answer, [reference]).score) / 100.0


def lost_content(
    answer: str, base_answer: str, language: str, settings: VerifySettings, request: str = ""
) -> bool:
    """Whether an answer lost what the base answer says.

    It did when it is shorter than ``min_length_ratio`` of the base answer, has a BLEU-4 of
    ``min_bleu`` or less against it (both paper), keeps less than ``min_kept`` of what the base
    answer quotes from the request, or is longer than ``max_length_ratio`` times the base answer: it
    has run on, and what it says is buried. Where the base answer is empty there is nothing to lose.
    """
    base, new = base_answer.strip(), answer.strip()
    if not base or new == base:
        return False
    return (
        len(new) < settings.min_length_ratio * len(base)
        or bleu4(new, base, language) <= settings.min_bleu
        or kept_share(request, base, new) < settings.min_kept
        or (settings.max_length_ratio > 0 and len(new) > settings.max_length_ratio * len(base))
    )


def outcome(
    answer: str,
    base_answer: str,
    score: float | None,
    base_score: float | None,
    language: str,
    settings: VerifySettings,
    request: str = "",
) -> Outcome:
    """Return the module's outcome on one query: an answer that lost content never wins or ties."""
    if score is None or base_score is None:
        return None
    if answer.strip() == base_answer.strip():
        return 0.5
    if lost_content(answer, base_answer, language, settings, request):
        return 0.0
    if math.isclose(score, base_score, abs_tol=1e-9):
        return 0.5
    return 1.0 if score > base_score else 0.0


def win_rate(outcomes: Sequence[Outcome]) -> float:
    """Return the mean of the outcomes that are known; 0 when there are none."""
    known = [o for o in outcomes if o is not None]
    return sum(known) / len(known) if known else 0.0


def effective_n(outcomes: Sequence[Outcome], users: Sequence[Hashable]) -> float:
    """Return how many independent queries the known outcomes are worth, users considered.

    n / (1 + (m - 1) rho), with rho the intraclass correlation of outcomes within users (one-way
    ANOVA, cut to [0, 1]) and m the mean number of queries a user, weighted by queries.
    """
    known = [(o, u) for o, u in zip(outcomes, users, strict=True) if o is not None]
    n = len(known)
    groups: dict[Hashable, list[float]] = {}
    for value, user in known:
        groups.setdefault(user, []).append(value)
    k = len(groups)
    if n == 0 or k == n or k < 2:
        # One user alone tells nothing of the others: count that user once.
        return float(n) if k == n else float(k)
    values = np.array([value for value, _ in known])
    sizes = np.array([len(g) for g in groups.values()], dtype=float)
    means = np.array([np.mean(g) for g in groups.values()])
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (k - 1)
    within = sum(float(((np.array(g) - np.mean(g)) ** 2).sum()) for g in groups.values()) / (n - k)
    m0 = (n - float((sizes**2).sum()) / n) / (k - 1)
    total = between + (m0 - 1.0) * within
    rho = min(1.0, max(0.0, (between - within) / total)) if total > 0 else 0.0
    m = float((sizes**2).sum()) / n
    return n / (1.0 + (m - 1.0) * rho)


def wilson(rate: float, n: float, confidence: float) -> tuple[float, float]:
    """Return Wilson's two-sided interval of a proportion; (0, 1) when ``n`` is 0."""
    if n <= 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    centre = rate + z * z / (2.0 * n)
    half = z * math.sqrt(rate * (1.0 - rate) / n + z * z / (4.0 * n * n))
    scale = 1.0 + z * z / n
    return (max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))


def spread_epochs(n_epochs: int, at_most: int | None) -> list[int]:
    """Return which epochs (from 0) are tried: all, or ``at_most`` spread over the later half.

    The last is always among them: it saw the whole of the learning-rate schedule.
    """
    if at_most is None or n_epochs <= at_most:
        return list(range(n_epochs))
    if at_most <= 1:
        return [n_epochs - 1]
    first = n_epochs / 2.0 - 0.5
    step = (n_epochs - 1 - first) / (at_most - 1)
    return sorted({round(first + step * i) for i in range(at_most)})


@dataclass(frozen=True)
class Choice:
    """The epoch that would ship, and what is known about it."""

    epoch: int
    """Index into the epochs given."""
    point: float
    """Its plain win rate (the paper's figure)."""
    rate: float
    """The cross-fitted win rate."""
    interval: tuple[float, float]
    n: int
    n_effective: float


def choose_epoch(
    outcomes: Sequence[Sequence[Outcome]],
    scores: Sequence[Sequence[float | None]],
    users: Sequence[Hashable],
    confidence: float,
) -> Choice:
    """Choose among epochs and say honestly how good the chosen one is.

    Args:
        outcomes: one row an epoch, one column a query.
        scores: the judge's scores in the same shape; they break ties between epochs.
        users: who asked each query.
        confidence: of the interval, 0.95 say.
    """
    best = _best(outcomes, scores, range(len(users)))
    fitted = cross_fitted(outcomes, scores, users)
    n = sum(o is not None for o in fitted)
    rate, n_effective = win_rate(fitted), effective_n(fitted, users)
    interval = wilson(rate, n_effective, confidence)
    return Choice(best, win_rate(outcomes[best]), rate, interval, n, n_effective)


def cross_fitted(
    outcomes: Sequence[Sequence[Outcome]],
    scores: Sequence[Sequence[float | None]],
    users: Sequence[Hashable],
) -> list[Outcome]:
    """Return, for each query, the outcome of the epoch that is best on the other folds' queries.

    Users are dealt to five folds (fewer when there are fewer users), the most active first. A
    single user's queries are dealt one by one; there is nothing better to do then.
    """
    if len(outcomes) == 1:
        return list(outcomes[0])
    counts: dict[Hashable, int] = {}
    for user in users:
        counts[user] = counts.get(user, 0) + 1
    if len(counts) > 1:
        order = sorted(counts, key=lambda user: -counts[user])  # stable: first come, first dealt
        fold_of = {user: i % min(_FOLDS, len(counts)) for i, user in enumerate(order)}
        folds = [fold_of[user] for user in users]
    else:
        folds = [i % _FOLDS for i in range(len(users))]
    out: list[Outcome] = [None] * len(users)
    for fold in set(folds):
        rest = [i for i, f in enumerate(folds) if f != fold]
        epoch = _best(outcomes, scores, rest)
        for i, f in enumerate(folds):
            if f == fold:
                out[i] = outcomes[epoch][i]
    return out


def _best(
    outcomes: Sequence[Sequence[Outcome]],
    scores: Sequence[Sequence[float | None]],
    where: Sequence[int],
) -> int:
    """Return the epoch with the best win rate, then mean score, then the latest one."""

    def merit(epoch: int) -> tuple[float, float, int]:
        known = [s for i in where if (s := scores[epoch][i]) is not None]
        mean = sum(known) / len(known) if known else 0.0
        return (win_rate([outcomes[epoch][i] for i in where]), mean, epoch)

    return max(range(len(outcomes)), key=merit)
