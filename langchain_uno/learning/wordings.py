"""Which wordings of users' wishes are one rule, and in whose words it is taught."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from langchain_uno.models.protocols import Embedder, FloatArray, Reranker
from langchain_uno.records import RuleSet

NEAR, NEAR_CENTRED = 0.9, 0.8
"""Cosines, before and after centring, from which two wordings are one rule without a reranker."""
ASKED = 3
"""Neighbours of each wording that the reranker is asked about."""
WORTH_ASKING = 0.2
"""Centred cosine from which the reranker is asked at all."""
TOGETHER = 0.2
"""Wordings that one log names side by side this often (of the rarer) are two wishes."""

BACKGROUND = (
    files("langchain_uno.learning").joinpath("background.txt").read_text("utf-8").splitlines()
)
"""Ordinary wishes. Their vectors join those that are centred: of a few wishes, or of many of one
kind, the mean alone would take away what tells them apart."""

_EDGES = re.compile(r"[\W_]+")


def plain(text: str) -> str:
    """Return a text in lower case with single spaces and no punctuation."""
    return _EDGES.sub(" ", text.casefold()).strip()


def group_wordings(
    logs: Sequence[Sequence[str]],
    embedder: Embedder | None = None,
    reranker: Reranker | None = None,
    *,
    also: Collection[str] = (),
) -> dict[str, str]:
    """Map every rule text in ``logs`` and ``also`` to the most frequent text of its group.

    Equal texts (but for case and punctuation) are one rule. Beyond that an embedder proposes and,
    where there is one, a yes/no reranker decides, both ways round: "add a title" and "add a short
    title" are not the same wish if only one covers the other.

    Args:
        logs: each log's rule texts.
        embedder: proposes texts that mean the same; None: equal texts only.
        reranker: decides on the proposals (P(yes) >= 0.5 both ways); None: cosine alone decides.
        also: texts that no log names: they join groups and change none.
    """
    counts = Counter(text for rules in logs for text in dict.fromkeys(rules) if plain(text))
    counts.update({text: 0 for text in also if plain(text)})
    by_plain: dict[str, list[str]] = {}
    for text in counts:
        by_plain.setdefault(plain(text), []).append(text)
    # The most frequent spelling stands for its plain form.
    heads = {key: max(texts, key=lambda t: (counts[t], t)) for key, texts in by_plain.items()}
    weight = {key: sum(counts[t] for t in texts) for key, texts in by_plain.items()}
    keys = sorted(heads, key=lambda k: (-weight[k], k))
    leader = {key: key for key in keys}
    if embedder is not None and len(keys) > 1:
        vectors = embedder.embed([*(heads[key] for key in keys), *BACKGROUND])
        said = sum(n > 0 for n in weight.values())
        pairs = _proposals(vectors, slice(said, len(keys)), with_reranker=reranker is not None)
        pairs = _without_companions(pairs, keys, logs)
        if reranker is not None:
            pairs = confirmed(pairs, [heads[key] for key in keys], reranker)
        # From the most frequent down, each joins the most frequent leader it equals: no chains.
        for rarer, commoner in sorted(pairs):
            if leader[keys[rarer]] == keys[rarer] and leader[keys[commoner]] == keys[commoner]:
                leader[keys[rarer]] = keys[commoner]
    return {text: heads[leader[plain(text)]] for text in counts}


def _proposals(vectors: FloatArray, aside: slice, *, with_reranker: bool) -> list[tuple[int, int]]:
    """Pairs (rarer, commoner) that may mean the same, of the rows to the end of those ``aside``."""
    n = aside.stop
    middled = centred(vectors, aside)[:n]
    x = np.asarray(vectors, dtype=np.float64)[:n]
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    pairs = []
    for i in range(1, n):
        inner = middled[:i] @ middled[i]
        if with_reranker:
            near = np.argsort(-inner, kind="stable")[:ASKED]
            near = near[inner[near] >= WORTH_ASKING]
        else:
            near = np.flatnonzero((x[:i] @ x[i] >= NEAR) & (inner >= NEAR_CENTRED))
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


def confirmed(
    pairs: list[tuple[int, int]], texts: list[str], reranker: Reranker
) -> list[tuple[int, int]]:
    """Return the pairs of texts that a reranker takes for one wish, both ways round."""
    if not pairs:
        return []
    asked = [(texts[a], texts[b]) for a, b in pairs] + [(texts[b], texts[a]) for a, b in pairs]
    yes = np.asarray(reranker.covered(asked)) >= 0.5
    return [pair for k, pair in enumerate(pairs) if yes[k] and yes[k + len(pairs)]]


def in_own_words(
    same: Mapping[str, str], sets: Iterable[RuleSet], before: Collection[str] = ()
) -> dict[str, str]:
    """Return which wordings are one rule, each in a wording of a cluster's own people.

    So a cluster's module holds the words of nobody outside the cluster.

    Args:
        same: which wordings are one rule, among all clusters.
        sets: rules of the cluster's training logs.
        before: wordings that its module was taught. They stay while somebody says them, so that a
            rule which is said in other words more often does not count as another rule. Else the
            most frequent one stands for a rule.
    """
    counts = Counter(rule.text for rules in sets for rule in rules.with_feedback)
    order = sorted(counts, key=lambda text: (text in before, counts[text], text))
    best = {same.get(text, text): text for text in order}
    return {text: best.get(head, head) for text, head in same.items()}


def centred(vectors: FloatArray, aside: slice = slice(0)) -> NDArray[np.float64]:
    """Return unit vectors less what all but those ``aside`` have in common, at length 1."""
    x = np.asarray(vectors, dtype=np.float64)
    x = x - np.delete(x, aside, axis=0).mean(axis=0)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
