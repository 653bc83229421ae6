"""Find out on which queries a wish holds: ``urgent``, ``for a beginner``, a kind of product.

Wishes that depend on the query are what real logs have and what a fixed list of rules can't carry.
A condition is the presence of one of at most two words (or word pairs; characters for Chinese) in
the query. It is looked for among the words of a cluster's training queries and believed only where
the rates inside and outside differ by more than a search among so many words would find by chance:
the mentions are shuffled over the logs and the whole search is done again, some hundred times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

__all__ = ["Condition", "Vocabulary", "find_condition", "words_of"]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_HAN = re.compile(r"[㐀-鿿]+")

MIN_INSIDE = 0.4
"""Rate of mention inside a condition from which it is worth having."""
MAX_OUTSIDE = 0.5
"""Highest rate outside, as a share of the rate inside."""
MAX_WORDS = 1_500
MAX_PAIRS = 1_500
MAX_LOGS = 2_000
"""Conditions are looked for on a sample of this many logs."""
SHUFFLES = 400


class Condition(BaseModel):
    """A wish holds for queries that have at least one of ``words``."""

    model_config = ConfigDict(frozen=True)

    words: tuple[str, ...]
    inside: float
    """Share of the voting logs inside that name the rule."""
    outside: float
    p_value: float
    """How often a search over shuffled mentions finds a difference this strong, in (0, 1]."""

    def holds(self, query: str) -> bool:
        """Whether the condition is met by a query's text."""
        return not words_of(query).isdisjoint(self.words)


def words_of(text: str) -> frozenset[str]:
    """Return the words and word pairs of a text, lower case; Chinese by two characters."""
    found: set[str] = set()
    for sentence in re.split(r"[.!?;:\n]+", text.lower()):
        words = _WORD.findall(_HAN.sub(" ", sentence))
        found.update(words)
        found.update(f"{a} {b}" for a, b in pairwise(words))
    for run in _HAN.findall(text):
        found.update(run[i : i + 2] for i in range(max(len(run) - 1, 1)))
    return frozenset(found)


class Vocabulary:
    """The words of some queries as columns, and pairs of words that stand for one another.

    Only words in at least three queries (and 5 %) and missing from as many count. Words that stand
    in the same queries are one column, under the longest of their names. A pair of words that never
    meet (two of six kinds of product) is a column too: the union of both. All this is fixed before
    any mention is looked at.
    """

    def __init__(self, queries: Sequence[str], seed: int = 0) -> None:
        self.rows: NDArray[np.int64] = np.arange(len(queries))
        """Which of the queries are looked at: all, or a sample of ``MAX_LOGS``."""
        if len(queries) > MAX_LOGS:
            rng = np.random.default_rng(seed)
            self.rows = np.sort(rng.choice(len(queries), MAX_LOGS, replace=False))
        n = len(self.rows)
        sets = [words_of(queries[i]) for i in self.rows]
        counts: dict[str, int] = {}
        for words in sets:
            for word in words:
                counts[word] = counts.get(word, 0) + 1
        least = max(3, int(np.ceil(0.05 * n)))
        kept = sorted((w for w, c in counts.items() if least <= c <= n - least), key=_plainness)
        kept = sorted(kept, key=lambda w: -min(counts[w], n - counts[w]))[: 2 * MAX_WORDS]
        columns: dict[bytes, tuple[str, NDArray[np.bool_]]] = {}
        for word in sorted(kept, key=_plainness):
            column = np.fromiter((word in words for words in sets), dtype=np.bool_, count=n)
            columns.setdefault(column.tobytes(), (word, column))
        singles = list(columns.values())[:MAX_WORDS]
        self.names: list[tuple[str, ...]] = [(word,) for word, _ in singles]
        self.singles = len(singles)
        stacked = [column for _, column in singles]
        pairs = _exclusive(self.names, stacked, n)
        self.names += [names for names, _ in pairs]
        self.columns: NDArray[np.float32] = (
            np.array(stacked + [c for _, c in pairs], dtype=np.float32)
            if stacked
            else np.zeros((0, n), dtype=np.float32)
        )
        """One row a word or pair, one column a query of ``rows``: 1 where it occurs."""


def _plainness(word: str) -> tuple[bool, int, str]:
    """Single words before pairs, long ones before short ones, then by alphabet."""
    return (" " in word, -len(word), word)


def _exclusive(
    names: list[tuple[str, ...]], columns: list[NDArray[np.bool_]], n: int
) -> list[tuple[tuple[str, ...], NDArray[np.bool_]]]:
    words = [i for i, (name,) in enumerate(names) if " " not in name and columns[i].sum() <= n / 2]
    words.sort(key=lambda i: -int(columns[i].sum()))
    pairs = []
    for position, i in enumerate(words):
        for j in words[:position]:
            if not (columns[i] & columns[j]).any():
                union = columns[i] | columns[j]
                if union.sum() <= 0.7 * n:
                    pairs.append((tuple(sorted((names[i][0], names[j][0]))), union))
        if len(pairs) >= MAX_PAIRS:
            break
    return pairs[:MAX_PAIRS]


def find_condition(
    vocabulary: Vocabulary, mentions: NDArray[np.bool_], *, alpha: float = 0.05, seed: int = 0
) -> Condition | None:
    """Return the condition under which a rule is mentioned, or None where none is believed.

    Args:
        vocabulary: of the logs' queries.
        mentions: whether each log names the rule, shape (n,), in the order of those queries.
        alpha: accepted chance of a false condition for a rule that has none.
        seed: of the shuffles.
    """
    mentions = mentions[vocabulary.rows]
    n, total = len(mentions), int(mentions.sum())
    if total < 3 or total > n - 3 or not vocabulary.names:
        return None
    columns = vocabulary.columns
    sizes = columns.sum(axis=1).astype(np.int64)
    hits = np.rint(columns @ mentions.astype(np.float32)).astype(np.int64)
    surprise = _Surprise(n, total, sizes)
    observed = surprise(hits[:, None])[:, 0]
    inside = hits / np.maximum(sizes, 1)
    outside = (total - hits) / np.maximum(n - sizes, 1)
    usable = (inside >= MIN_INSIDE) & (outside <= MAX_OUTSIDE * inside) & (hits >= 3)
    # A search can't be surer than its best single test.
    if not usable.any() or observed[usable].max() < -np.log(alpha):
        return None
    rng = np.random.default_rng(seed)
    shuffles = np.stack([rng.permutation(mentions) for _ in range(SHUFFLES)], axis=1)
    by_chance = surprise(np.rint(columns @ shuffles.astype(np.float32)).astype(np.int64))
    best: tuple[float, float, int] | None = None
    # Single words and pairs are two searches, each with half of the accepted error.
    for part in (slice(0, vocabulary.singles), slice(vocabulary.singles, len(sizes))):
        scores = np.where(usable, observed, -np.inf)[part]
        if not len(scores) or not np.isfinite(scores.max()):
            continue
        at = int(scores.argmax())
        strongest = by_chance[part].max(axis=0)
        p = 2 * (1 + int((strongest >= scores[at] - 1e-9).sum())) / (1 + SHUFFLES)
        # What the search costs in surprise makes the two comparable when p is at its floor.
        margin = float(scores[at] - np.quantile(strongest, 0.95))
        if p <= alpha and (best is None or margin > best[1]):
            best = (p, margin, at + (part.start or 0))
    if best is None:
        return None
    p, _, at = best
    return Condition(
        words=vocabulary.names[at],
        inside=float(inside[at]),
        outside=float(outside[at]),
        p_value=min(1.0, p),
    )


class _Surprise:
    """-log of Fisher's one-sided p value for counts of hits, by a table over sizes."""

    def __init__(self, n: int, total: int, sizes: NDArray[np.int64]) -> None:
        from scipy.special import gammaln

        def log_choose(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
            inner = np.minimum(np.maximum(b, 0), a)
            value = gammaln(a + 1) - gammaln(inner + 1) - gammaln(a - inner + 1)
            return np.where((b < 0) | (b > a), -np.inf, value)

        rows, self._inverse = np.unique(sizes, return_inverse=True)
        size, hit = rows[:, None], np.arange(total + 1)[None, :]
        log_pmf = (
            log_choose(np.full_like(size, total), hit)
            + log_choose(np.full_like(size, n - total), size - hit)
            - log_choose(np.full_like(size, n), size)
        )
        tail = np.logaddexp.accumulate(log_pmf[:, ::-1], axis=1)[:, ::-1]
        self._table = np.minimum(-tail, 700.0)

    def __call__(self, hits: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(self._table[self._inverse[:, None], hits], dtype=np.float64)
