"""What people would do instead of training: hand rules to a revision of the base's draft.

- *RAG over past feedback*: the rules of the nearest logs, by BM25 (rank-bm25) or by embeddings.
- *rules in the prompt*: all rules that recur in the request's cluster.

Both see what UNO sees, distilled and aggregated the same way, and their revisions pass the same
guard as UNO's (``recipe.min_kept``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rank_bm25 import BM25Okapi

from langchain_uno.demo.asking import Answered, Asked, Reply, look_at
from langchain_uno.demo.worlds import World
from langchain_uno.models.protocols import Embedder, Engine, FloatArray, GenerateRequest, Sampling
from langchain_uno.models.roles import PromptSet
from langchain_uno.recipe import Recipe
from langchain_uno.records import Message
from langchain_uno.reflect import reflect, run_together

__all__ = ["Past", "by_bm25", "by_cluster", "by_embeddings", "revise_by"]

NEAREST = 3

Rules = Callable[[Sequence[str]], list[list[str]]]
"""From requests to the rules to revise by."""


@dataclass(frozen=True)
class Past:
    """The logs that said something: queries, their vectors (n, d), their rules."""

    queries: list[str]
    vectors: FloatArray
    rules: list[list[str]]


def by_bm25(past: Past) -> Rules:
    """Retrieve by words (Okapi BM25)."""
    index = BM25Okapi([_words(query) for query in past.queries])

    def find(requests: Sequence[str]) -> list[list[str]]:
        scores = [np.asarray(index.get_scores(_words(request))) for request in requests]
        return [_joined(past, np.argsort(-row, kind="stable")[:NEAREST]) for row in scores]

    return find


def by_embeddings(past: Past, embedder: Embedder) -> Rules:
    """Retrieve by the embedder that routes."""

    def find(requests: Sequence[str]) -> list[list[str]]:
        scores = np.asarray(embedder.embed(list(requests)) @ past.vectors.T)
        return [_joined(past, np.argsort(-row, kind="stable")[:NEAREST]) for row in scores]

    return find


def by_cluster(clusters: Sequence[str | None], rules: Mapping[str, Sequence[str]]) -> Rules:
    """Take all recurring rules of each request's cluster.

    Args:
        clusters: one a request; None: it has none.
        rules: of every cluster.
    """

    def find(requests: Sequence[str]) -> list[list[str]]:
        pairs = zip(requests, clusters, strict=True)
        return [list(rules.get(cluster or "", ())) for _, cluster in pairs]

    return find


def revise_by(
    rules: Rules,
    world: World,
    asked: Sequence[Asked],
    drafts: Sequence[Answered],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
) -> list[Answered]:
    """Revise the base's drafts by rules; a draft without any stands."""
    requests = [one.query.text for one in asked]
    began = time.perf_counter()
    plans = [
        reflect(
            GenerateRequest([Message(role="user", content=request)]),
            prompts,
            suggestions=suggestions,
            draft=draft.text,
            revision=Sampling(max_tokens=recipe.revision_tokens),
            min_kept=recipe.min_kept,
            language="en",
        )
        for request, suggestions, draft in zip(requests, rules(requests), drafts, strict=True)
    ]
    ended = run_together(plans, engine)
    each = (time.perf_counter() - began) / max(1, len(asked))
    return [
        look_at(
            world,
            one,
            Reply(
                new.text,
                (
                    draft.tokens_in + new.usage.input_tokens,
                    draft.tokens_out + new.usage.output_tokens,
                ),
                draft.seconds + each,
            ),
        )
        for one, draft, new in zip(asked, drafts, ended, strict=True)
    ]


def _joined(past: Past, chosen: Iterable[int]) -> list[str]:
    return list(dict.fromkeys(rule for i in chosen for rule in past.rules[int(i)]))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
