"""Find out on which queries a wish holds: ``urgent``, ``for a beginner``, a kind of product.

Wishes that depend on the query are what real logs have and what a fixed list of rules can't carry.
A condition is the presence of one of at most two words (or word pairs; characters for Chinese) in
the query; of more only where several wishes hang on them together (``learning/kinds.py``). It is
looked for among the words of a cluster's training queries and believed only where the rates inside
and outside differ by more than a search among so many words would find by chance: the mentions are
shuffled over the logs and the whole search is done again, some hundred times.

Topics have their own words; how somebody asks (urgent, for a beginner) is said in the same words
everywhere. So the few words that many clusters share are a search of their own, which little is
found in by chance, and a word that tells in two clusters is believed on less in a third.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from langchain_uno.learning.surprise import Surprise

__all__ = ["Condition", "Vocabulary", "common_words", "find_condition", "rules_for", "words_of"]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_HAN = re.compile(r"[㐀-鿿]+")

MIN_INSIDE = 0.4
"""Rate of mention inside a condition from which it is worth having."""
MAX_OUTSIDE = 0.3
"""Highest rate outside, as a share of the rate inside."""
MAX_WORDS = 1_500
MAX_PAIRS = 1_500
MAX_LOGS = 2_000
"""Conditions are looked for on a sample of this many logs."""
SHUFFLES = 400
COMMON_SHARE = 0.5
"""Words in at least this share of the clusters are no topic's own."""
COMMON_WEIGHT = 0.5
"""Share of the accepted error that the search among common words gets."""


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


def rules_for(query: str, rules: Sequence[str], conditions: Sequence[Sequence[str]]) -> list[str]:
    """Return the rules that hold for a request, in their order.

    Args:
        query: the request's text (``records.routing_text``).
        rules: of its cluster.
        conditions: for each the words of which a request must have one, none: always. Releases of
            before conditions were looked for have an empty list: all rules hold always.
    """
    said = words_of(query)
    return [
        rule
        for rule, words in zip(rules, conditions or [()] * len(rules), strict=True)
        if not words or not said.isdisjoint(words)
    ]


def common_words(queries: Sequence[Sequence[str]]) -> frozenset[str]:
    """Return the words (and pairs) that stand in three queries of half of the clusters or more.

    Args:
        queries: one list a cluster. Fewer than three clusters have no common words.
    """
    clusters: dict[str, int] = {}
    for own in queries:
        counts: dict[str, int] = {}
        for query in own:
            for word in words_of(query):
                counts[word] = counts.get(word, 0) + 1
        for word, count in counts.items():
            if count >= 3:
                clusters[word] = clusters.get(word, 0) + 1
    if len(queries) < 3:
        return frozenset()
    return frozenset(w for w, c in clusters.items() if c >= COMMON_SHARE * len(queries))


class Vocabulary:
    """The words of some queries as columns, and pairs of words that stand for one another.

    Only words in at least three queries (and 5 %) and missing from as many count. Words that stand
    in the same queries are one column, under the longest of their names. A pair of words that never
    meet (two of six kinds of product) is a column too: the union of both. All this is fixed before
    any mention is looked at.

    Args:
        queries: of the logs.
        seed: of the sample, where there are more than ``MAX_LOGS``.
        common: words that other clusters have too (:func:`common_words`); they come first.
    """

    def __init__(self, queries: Sequence[str], seed: int = 0, common: Collection[str] = ()) -> None:
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
        singles.sort(key=lambda single: single[0] not in common)
        self.common = sum(word in common for word, _ in singles)
        """How many of the columns, the first ones, are common words."""
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

    def parts(self) -> tuple[tuple[slice, float], ...]:
        """Return the searches (common words, other words, pairs) and each one's error share."""
        common, singles, n = self.common, self.singles, len(self.names)
        weight = COMMON_WEIGHT if common else 0.0
        rest = (1 - weight) / 2
        return (
            (slice(0, common), weight),
            (slice(common, singles), rest),
            (slice(singles, n), rest),
        )


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
    vocabulary: Vocabulary,
    mentions: NDArray[np.bool_],
    *,
    alpha: float = 0.05,
    seed: int = 0,
    told: Collection[str] = (),
) -> Condition | None:
    """Return the condition under which a rule is mentioned, or None where none is believed.

    Where the whole search finds none, the words that told in other clusters are a small one.

    Args:
        vocabulary: of the logs' queries.
        mentions: whether each log names the rule, shape (n,), in the order of those queries.
        alpha: accepted chance of a false condition for a rule that has none.
        seed: of the shuffles.
        told: words that are conditions in other clusters.
    """
    found = _search(vocabulary, mentions, vocabulary.parts(), alpha, seed)
    if found is not None or not told:
        return found
    at = [i for i, names in enumerate(vocabulary.names) if all(name in told for name in names)]
    return _search(vocabulary, mentions, ((at, 1.0),), alpha, seed) if at else None


def _search(
    vocabulary: Vocabulary,
    mentions: NDArray[np.bool_],
    parts: Sequence[tuple[slice | list[int], float]],
    alpha: float,
    seed: int,
) -> Condition | None:
    """The strongest condition of several searches that share ``alpha`` by their weights."""
    mentions = mentions[vocabulary.rows]
    n, total = len(mentions), int(mentions.sum())
    if total < 3 or total > n - 3 or not vocabulary.names:
        return None
    columns = vocabulary.columns
    sizes = columns.sum(axis=1).astype(np.int64)
    hits = np.rint(columns @ mentions.astype(np.float32)).astype(np.int64)
    surprise = Surprise(n, total, sizes)
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
    everywhere = np.arange(len(sizes))
    for part, weight in parts:
        at = everywhere[part]
        scores = np.where(usable, observed, -np.inf)[at]
        if not len(scores) or not np.isfinite(scores.max()):
            continue
        first = int(scores.argmax())
        strongest = by_chance[at].max(axis=0)
        p = (1 + int((strongest >= scores[first] - 1e-9).sum())) / (1 + SHUFFLES) / weight
        # What the search costs in surprise makes the parts comparable when p is at its floor.
        margin = float(scores[first] - np.quantile(strongest, 0.95))
        if p <= alpha and (best is None or margin > best[1]):
            best = (p, margin, int(at[first]))
    if best is None:
        return None
    p, _, chosen = best
    return Condition(
        words=vocabulary.names[chosen],
        inside=float(inside[chosen]),
        outside=float(outside[chosen]),
        p_value=min(1.0, p),
    )
