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

from langchain_uno.learning.conditions import MIN_INSIDE, Condition, Vocabulary, words_of
from langchain_uno.learning.surprise import Surprise

__all__ = ["Kind", "find_kinds", "more_telling"]

OWN = 1
"""Rules of its own that each kind must have: one alone is a condition, not a kind of request."""
ELSEWHERE = 0.3
"""Highest rate of a kind's own rule in the other kind, as a share of its rate in its own."""
ALPHA = 0.03
"""Accepted chance of finding kinds where words have nothing to do with wishes."""
MIN_LOGS = 5
MAX_WORDS = 5
GAIN = 2.0
"""What a further word must add to the surprise, in nats."""
SHUFFLES = 200

_Rows = NDArray[np.bool_]


class Kind(NamedTuple):
    """A kind of request: it has one of the words; the rules are wanted there alone."""

    words: tuple[str, ...]
    rules: tuple[int, ...]
    """Columns of the mentions."""
    p_value: float

    def holds(self, queries: Sequence[str]) -> _Rows:
        """Return which queries are of the kind, shape (n,)."""
        return np.array([not words_of(q).isdisjoint(self.words) for q in queries], dtype=np.bool_)


def find_kinds(
    vocabulary: Vocabulary, mentions: _Rows, *, alpha: float = ALPHA, seed: int = 0
) -> tuple[Kind, Kind] | None:
    """Return the two kinds of request in a cluster; None where it has one, or words don't tell.

    Args:
        vocabulary: of the logs' queries.
        mentions: which log names which rule, shape (n, rules), in the order of those queries.
        alpha: accepted chance of finding kinds where words do not tell.
        seed: of the division and the shuffles.
    """
    mentions = mentions[vocabulary.rows]
    singles = vocabulary.columns[: vocabulary.singles] > 0
    if len(mentions) < 2 * MIN_LOGS or mentions.shape[1] < 2 * OWN or not len(singles):
        return None
    second = _divide(mentions, seed)
    own = [_own_rules(mentions, side) for side in (~second, second)]
    if min(second.sum(), (~second).sum()) < MIN_LOGS or min(map(len, own)) < OWN:
        return None
    found = [_tell(singles, side) for side in (~second, second)]
    first = int(found[1].surprise > found[0].surprise)
    rng = np.random.default_rng(seed)
    beaten = 0
    for _ in range(SHUFFLES):
        side = rng.permutation(second)
        by_chance = max(_tell(singles, one).surprise for one in (~side, side))
        beaten += by_chance >= found[first].surprise - 1e-9
    p = (1 + beaten) / (1 + SHUFFLES)
    if p > alpha:
        return None
    # Users forget to name wishes, words are not forgotten: each kind is what the other is not.
    other = _tell(singles, ~found[first].holds)
    told = {first: _tell(singles, ~other.holds), 1 - first: other}
    kinds = [
        Kind(tuple(sorted(vocabulary.names[i][0] for i in told[k].columns)), own[k], p)
        for k in (0, 1)
    ]
    return kinds[0], kinds[1]


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
    own = np.array([condition.holds(query) for query in queries], dtype=np.bool_)
    rows = np.stack([held, own])
    surprise = Surprise(len(mentions), int(mentions.sum()), rows.sum(axis=1))
    by_kind, by_itself = surprise((rows & mentions).sum(axis=1)[:, None])[:, 0]
    return condition if by_itself > by_kind else bound


class _Told(NamedTuple):
    surprise: float
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
    own = (inside >= MIN_INSIDE) & (outside <= ELSEWHERE * inside)
    return tuple(np.flatnonzero(own).tolist())


def _tell(singles: _Rows, side: _Rows) -> _Told:
    """Return the few words one of which the queries of a side have, added one by one."""
    n, total = len(side), int(side.sum())
    weights = singles.astype(np.float32)
    sizes, hits = weights.sum(axis=1), weights @ side.astype(np.float32)
    best = _Told(0.0, [], np.zeros(n, dtype=np.bool_))
    while len(best.columns) < MAX_WORDS:
        both = weights @ best.holds.astype(np.float32)
        right = weights @ (best.holds & side).astype(np.float32)
        size = np.rint(sizes + best.holds.sum() - both).astype(np.int64)
        hit = np.rint(hits + (best.holds & side).sum() - right).astype(np.int64)
        surprise = Surprise(n, total, size)(hit[:, None])[:, 0]
        chosen = int(surprise.argmax())
        if surprise[chosen] < best.surprise + GAIN:
            break
        holds = best.holds | singles[chosen]
        best = _Told(float(surprise[chosen]), [*best.columns, chosen], holds)
    return best
