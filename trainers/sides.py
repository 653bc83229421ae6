"""The two sides that verification compares: what it asks, and what the base answers to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from langchain_uno.models.protocols import Sampling
from langchain_uno.recipe import Recipe
from langchain_uno.records import Message

__all__ = ["BaseSide", "VerifyItem", "greedy"]


@dataclass(frozen=True)
class VerifyItem:
    """One held-out query with its standard. It must not have been trained on, nor its user's rules.

    Queries whose own feedback said nothing may serve too, with the recurring rules of their cluster
    (from training logs) as the standard: they cost no label.
    """

    id: str
    messages: Sequence[Message]
    rules: Sequence[str]
    language: str = "en"
    user_id: str | None = None
    idle: Sequence[str] = ()
    """Rules of the cluster that do not hold for this request."""
    edit: str | None = None
    """What the user made of the answer. Where no wish was put into words it is the standard: the
    better answer is the one nearer to it (BLEU-4)."""


@dataclass(frozen=True)
class BaseSide:
    """The base model's answers to the items, and their scores: made once, used for every module."""

    items: list[VerifyItem] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)


def greedy(recipe: Recipe) -> Sampling:
    """Return how both sides answer: without chance, as long as an answer may be."""
    return Sampling(max_tokens=recipe.pairs.max_answer_tokens)
