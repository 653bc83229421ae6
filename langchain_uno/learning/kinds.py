"""Two kinds of request in one cluster, told apart by words, each with wishes of its own.

Families that differ in a word of the request (refunds of goods, refunds of tickets) are one cluster
by their embeddings. A rule by itself says little about which words it hangs on when each kind has
several (train, bus, flight); all the wishes of a kind together say more. So the logs are divided in
two by what their users name, and a few words are looked for of which one side's queries have one
and the other's none. The sides are shuffled and the search is done again: what would chance find?

Not in the paper. What follows in :mod:`langchain_uno.learning.aggregate`: a kind's own rules are
bound to its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from langchain_uno.learning.conditions import (
    MAX_OUTSIDE,
    MIN_INSIDE,
    Condition,
    Vocabulary,
    words_of,
)

__all__ = ["Kind", "find_kinds", "more_telling"]

OWN = 1
"""Rules of its own that each kind must have: if one has none, the other's have a condition."""
ALPHA = 0.03
"""Accepted chance of finding kinds where words have nothing to do with wishes."""
MIN_LOGS = 5
MAX_WORDS = 5
GAIN = 2.0
"""What a further word must add to what the words tell, in nats."""
SHUFFLES = 200

_Rows = NDArray[np.bool_]
_Weights = NDArray[np.float32]


class Kind(NamedTuple):
    """A kind of request: it has one of the words; the rules are wanted there alone."""

    words: tuple[str, ...]
    rules: tuple[int, ...]
    """Columns of the mentions."""
    p_value: float

    def holds(self, queries: Sequence[str]) -> _Rows:
        """Return which queries are of the kind, shape (n,)."""
        return _having(self.words, queries)


def find_kinds(
    vocabulary: Vocabulary, mentions: _Rows, *, alpha: float = ALPHA, seed: int = 0
) -> list[Kind]:
    """Return the kinds of request in a cluster; none where it has one, or words don't tell.

    Mostly two; one where only one of them has words of its own.

    Args:
        vocabulary: of the logs' queries.
        mentions: which log names which rule, shape (n, rules), in the order of those queries.
        alpha: accepted chance of finding kinds where words do not tell.
        seed: of the division and the shuffles.
    """
    mentions = mentions[vocabulary.rows]
    words = vocabulary.columns[: vocabulary.singles]
    if not len(words) or len(np.unique(mentions, axis=0)) < 2:
        return []
    second = _divide(mentions, seed)
    sides = (~second, second)
    own = [_own_rules(mentions, side) for side in sides]
    if min(side.sum() for side in sides) < MIN_LOGS or min(map(len, own)) < OWN:
        return []
    found = [_tell(words, side) for side in sides]
    first = int(found[1].information > found[0].information)
    rng = np.random.default_rng(seed)
    beaten = 0
    for _ in range(SHUFFLES):
        side = rng.permutation(second)
        by_chance = max(_tell(words, one).information for one in (~side, side))
        beaten += by_chance >= found[first].information - 1e-9
    p = (1 + beaten) / (1 + SHUFFLES)
    if p > alpha:
        return []
    # Users forget to name wishes, words are not forgotten: each kind is what the other is not.
    other = _tell(words, ~found[first].holds)
    told = [(first, found[first])]
    if other.columns:
        told = [(first, _tell(words, ~other.holds)), (1 - first, other)]
    names = [name for (name,) in vocabulary.names[: vocabulary.singles]]
    return [Kind(tuple(sorted(names[i] for i in one.columns)), own[k], p) for k, one in told]


def more_telling(
    kind: Kind, condition: Condition | None, queries: Sequence[str], mentions: _Rows
) -> Condition:
    """Return the condition that a rule of a kind has: the kind's words, unless others tell more.

    Args:
        kind: that the rule is of.
        condition: found for the rule alone.
        queries: of logs that may name the rule.
        mentions: which of them do, shape (n,).
    """
    held = kind.holds(queries)
    bound = Condition(
        words=kind.words,
        inside=float(mentions[held].mean()) if held.any() else 0.0,
        outside=float(mentions[~held].mean()) if not held.all() else 0.0,
        p_value=kind.p_value,
    )
    if condition is None or set(condition.words) <= set(kind.words):
        return bound
    rows = np.stack([held, _having(condition.words, queries)])
    hits = (rows & mentions).sum(axis=1, dtype=np.float32)
    by_kind, by_itself = _information(rows.sum(axis=1, dtype=np.float32), hits, mentions)
    return condition if by_itself > by_kind else bound


def _having(words: Sequence[str], queries: Sequence[str]) -> _Rows:
    return np.array([not words_of(q).isdisjoint(words) for q in queries], dtype=np.bool_)


class _Told(NamedTuple):
    information: float
    columns: list[int]
    holds: _Rows


def _divide(mentions: _Rows, seed: int) -> _Rows:
    """Divide logs in two by the rules that they name; whether each is of the second side."""
    from sklearn.cluster import KMeans

    sides = KMeans(2, n_init=10, random_state=seed).fit_predict(mentions.astype(np.float64))
    return np.asarray(sides == 1)


def _own_rules(mentions: _Rows, side: _Rows) -> tuple[int, ...]:
    """Return the rules that one side names and the other does not."""
    if side.all() or not side.any():
        return ()
    inside, outside = mentions[side].mean(axis=0), mentions[~side].mean(axis=0)
    own = (inside >= MIN_INSIDE) & (outside <= MAX_OUTSIDE * inside)
    return tuple(np.flatnonzero(own).tolist())


def _tell(words: _Weights, side: _Rows) -> _Told:
    """Return the few words one of which the queries of a side have, added one by one."""
    sizes, hits = words.sum(axis=1), words @ side.astype(np.float32)
    best = _Told(0.0, [], np.zeros(len(side), dtype=np.bool_))
    while len(best.columns) < MAX_WORDS:
        right = best.holds & side
        size = sizes + best.holds.sum() - words @ best.holds.astype(np.float32)
        hit = hits + right.sum() - words @ right.astype(np.float32)
        information = _information(size, hit, side)
        chosen = int(information.argmax())
        if information[chosen] < best.information + GAIN:
            break
        holds = best.holds | (words[chosen] > 0)
        best = _Told(float(information[chosen]), [*best.columns, chosen], holds)
    return best


def _information(size: _Weights, hit: _Weights, side: _Rows) -> NDArray[np.float64]:
    """Return what groups of logs tell of a side, in nats; 0 for those that speak against it.

    The log-likelihood ratio of "in a group and out of it the side has rates of their own" to "one
    rate" (Dunning 1993, Accurate Methods for the Statistics of Surprise and Coincidence).

    Args:
        size: logs of each group, (groups,).
        hit: those of them that are of the side, (groups,).
        side: of every log, (n,).
    """
    from scipy.special import rel_entr

    n, total = len(side), float(side.sum())
    within, without = np.asarray(size, np.float64), n - np.asarray(size, np.float64)
    counts = np.stack([hit, within - hit, total - hit, without - (total - hit)])
    expected = np.stack(
        [within * total, within * (n - total), without * total, without * (n - total)]
    )
    told = rel_entr(counts, expected / n).sum(axis=0)
    return np.asarray(np.where(hit * n > within * total, told, 0.0))
