"""Which rules say the same in other words.

Equal texts (but for case and punctuation) are one rule. Beyond that, an embedder proposes and,
where there is one, a yes/no reranker decides, both ways round: "add a title" and "add a short
title" are not the same wish if only one covers the other. Without a reranker only very near
wordings merge.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from langchain_uno.models.protocols import Embedder, FloatArray, OnDone, Reranker

__all__ = ["group_wordings", "plain"]

_EDGES = re.compile(r"[\W_]+")

NEAR = 0.9
NEAR_CENTRED = 0.8
"""Cosines, before and after centring, from which two wordings are one rule without a reranker."""
NEAR_FEW = 0.97
"""The same among fewer than four wordings: too few to know what they have in common."""
ASKED = 3
"""Neighbours of each wording that the reranker is asked about."""
TOGETHER = 0.2
"""Wordings that one user names side by side this often (of the rarer) are two wishes."""


def plain(text: str) -> str:
    """Return a rule's text in lower case with single spaces and no punctuation."""
    return _EDGES.sub(" ", text.casefold()).strip()


def group_wordings(
    logs: Sequence[Sequence[str]],
    embedder: Embedder | None = None,
    reranker: Reranker | None = None,
    on_done: OnDone | None = None,
) -> dict[str, str]:
    """Map every rule text in ``logs`` to the most frequent text of its group.

    Args:
        logs: each log's rule texts.
        embedder: proposes texts that mean the same; None: equal texts only.
        reranker: decides on the proposals (P(yes) >= 0.5 both ways); None: cosine alone decides.
        on_done: hears of the reranker's questions.
    """
    counts = Counter(text for rules in logs for text in dict.fromkeys(rules) if plain(text))
    by_plain: dict[str, list[str]] = {}
    for text in counts:
        by_plain.setdefault(plain(text), []).append(text)
    # The most frequent spelling stands for its plain form.
    heads = {key: max(texts, key=lambda t: (counts[t], t)) for key, texts in by_plain.items()}
    weight = {key: sum(counts[t] for t in texts) for key, texts in by_plain.items()}
    keys = sorted(heads, key=lambda k: (-weight[k], k))
    leader = {key: key for key in keys}
    if embedder is not None and len(keys) > 1:
        vectors = embedder.embed([heads[key] for key in keys])
        pairs = _proposals(vectors, with_reranker=reranker is not None)
        pairs = _without_companions(pairs, keys, logs)
        if reranker is not None:
            pairs = _confirmed(pairs, [heads[key] for key in keys], reranker, on_done)
        # From the most frequent down, each joins the most frequent leader it equals: no chains.
        for rarer, commoner in sorted(pairs, key=lambda p: (p[0], p[1])):
            if leader[keys[rarer]] == keys[rarer] and leader[keys[commoner]] == keys[commoner]:
                leader[keys[rarer]] = keys[commoner]
    return {text: heads[leader[plain(text)]] for text in counts}


def _proposals(vectors: FloatArray, *, with_reranker: bool) -> list[tuple[int, int]]:
    """Pairs (rarer, commoner) of rows that may mean the same."""
    x = np.asarray(vectors, dtype=np.float64)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    # Hidden states share a large common part; less that, unlike rules point in unlike directions.
    centred = x - x.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    cosine, inner = x @ x.T, centred @ centred.T
    pairs = []
    for i in range(1, len(x)):
        if with_reranker:
            near = np.argsort(-inner[i, :i], kind="stable")[:ASKED]
        else:
            enough = (
                cosine[i, :i] >= NEAR_FEW
                if len(x) < 4
                else (cosine[i, :i] >= NEAR) & (inner[i, :i] >= NEAR_CENTRED)
            )
            near = np.flatnonzero(enough)
        pairs += [(i, int(j)) for j in near]
    return pairs


def _without_companions(
    pairs: list[tuple[int, int]], keys: list[str], logs: Sequence[Sequence[str]]
) -> list[tuple[int, int]]:
    number = {key: i for i, key in enumerate(keys)}
    alone: Counter[int] = Counter()
    together: Counter[tuple[int, int]] = Counter()
    for rules in logs:
        named = sorted({number[plain(text)] for text in rules if plain(text)})
        alone.update(named)
        together.update((b, a) for k, a in enumerate(named) for b in named[k + 1 :])
    return [p for p in pairs if together[p] <= TOGETHER * min(alone[p[0]], alone[p[1]])]


def _confirmed(
    pairs: list[tuple[int, int]], texts: list[str], reranker: Reranker, on_done: OnDone | None
) -> list[tuple[int, int]]:
    if not pairs:
        return []
    asked = [(texts[a], texts[b]) for a, b in pairs] + [(texts[b], texts[a]) for a, b in pairs]
    yes = np.asarray(reranker.covered(asked, on_done)) >= 0.5
    return [pair for k, pair in enumerate(pairs) if yes[k] and yes[k + len(pairs)]]
