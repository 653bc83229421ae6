"""What people would do instead of training: hand rules to a revision of the base's draft.

- *RAG over past feedback*: the rules of the nearest logs, by BM25 (rank-bm25) or by embeddings.
- *memory*: all rules that recur in the request's cluster.

Both see what UNO sees (training logs alone, distilled and aggregated the same way), and their
revision passes the same guard as UNO's (``min_kept``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from langchain_uno.demo.asking import Answered, Asked, look_at
from langchain_uno.errors import ConfigError
from langchain_uno.learning.aggregate import ClusterRules
from langchain_uno.models.protocols import Embedder, Engine, FloatArray, GenerateRequest, Sampling
from langchain_uno.models.roles import PromptSet
from langchain_uno.records import Message
from langchain_uno.reflect import reflect, run_together

if TYPE_CHECKING:
    from langchain_uno.demo.worlds import World

__all__ = ["Past", "by_bm25", "by_embeddings", "from_memory", "revise_with"]

_NEAREST = 3

Rules = Callable[[Sequence[str]], list[list[str]]]
"""From requests to the rules to revise by."""


@dataclass(frozen=True)
class Past:
    """The training logs that said something: queries, their vectors (n, d), their rules."""

    queries: list[str]
    vectors: FloatArray
    rules: list[list[str]]


def by_bm25(past: Past, *, nearest: int = _NEAREST) -> Rules:
    """Retrieve by words (Okapi BM25, by rank-bm25).

    Raises:
        ConfigError: the extra ``langchain-uno[evaluation]`` is not installed.
    """
    try:
        from rank_bm25 import BM25Okapi
    except ImportError as error:
        raise ConfigError(
            "Retrieval by words needs a package that is missing (rank-bm25): "
            "pip install 'langchain-uno[evaluation]'."
        ) from error

    index = BM25Okapi([_words(query) for query in past.queries])

    def find(requests: Sequence[str]) -> list[list[str]]:
        out = []
        for request in requests:
            scores = index.get_scores(_words(request))
            out.append(_joined(past, np.argsort(-scores, kind="stable")[:nearest]))
        return out

    return find


def by_embeddings(past: Past, embedder: Embedder, *, nearest: int = _NEAREST) -> Rules:
    """Retrieve by the embedder that routes."""

    def find(requests: Sequence[str]) -> list[list[str]]:
        scores = embedder.embed(list(requests)) @ past.vectors.T
        return [
            _joined(past, np.argsort(-row, kind="stable")[:nearest]) for row in np.asarray(scores)
        ]

    return find


def from_memory(recurring: Sequence[ClusterRules | None]) -> Rules:
    """Take all recurring rules of each request's cluster, whether they hold for it or not.

    Args:
        recurring: one a request; None: it has no cluster.
    """

    def find(requests: Sequence[str]) -> list[list[str]]:
        return [
            [rule.text for rule in known.recurring] if known else []
            for _, known in zip(requests, recurring, strict=True)
        ]

    return find


def revise_with(
    rules: Rules,
    world: World,
    asked: Sequence[Asked],
    drafts: Sequence[Answered],
    engine: Engine,
    prompts: PromptSet,
    *,
    min_kept: float,
    route: str,
) -> list[Answered]:
    """Revise the base's drafts by retrieved rules; a draft without any stands."""
    requests = [one.query.text for one in asked]
    began = time.perf_counter()
    found = rules(requests)
    plans = [
        reflect(
            GenerateRequest(
                [Message(role="user", content=request)], sampling=Sampling(max_tokens=1024)
            ),
            prompts,
            suggestions=suggested,
            draft=draft.text,
            min_kept=min_kept,
            language="en",
        )
        for request, draft, suggested in zip(requests, drafts, found, strict=True)
    ]
    finals = run_together(plans, engine)
    each = (time.perf_counter() - began) / max(1, len(asked))
    out = []
    for one, draft, final in zip(asked, drafts, finals, strict=True):
        used = (
            draft.tokens_in + final.usage.input_tokens,
            draft.tokens_out + final.usage.output_tokens,
        )
        out.append(
            look_at(
                world,
                one,
                final.text,
                tokens=used,
                seconds=draft.seconds + each,
                cluster=draft.cluster,
                route=route,
            )
        )
    return out


def _joined(past: Past, chosen: Iterable[int]) -> list[str]:
    return list(dict.fromkeys(rule for i in chosen for rule in past.rules[int(i)]))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
