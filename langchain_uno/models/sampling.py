"""Picking each row's next token by its own settings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from langchain_uno.models.protocols import GenerateRequest, Sampling


class TokenConstraint(Protocol):
    """Keeps one answer inside a grammar; one fresh object an answer.

    Called by the engine's owner thread only.
    """

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (vocabulary,), with every forbidden token at ``-inf``."""
        ...

    def accept(self, token: int) -> bool:
        """Advance by the token that was picked; False: pick another one by a new mask."""
        ...


Constrainer = Callable[[GenerateRequest], TokenConstraint | None]
"""Makes a request's constraint; None leaves the answer free. Called by callers' threads."""


class Picker:
    """One row's source of randomness: a seeded row picks the same tokens in any company."""

    def __init__(self, sampling: Sampling, constraint: TokenConstraint | None = None) -> None:
        self.temperature = sampling.temperature
        self.top_p = sampling.top_p
        self.constraint = constraint
        self.error: Exception | None = None
        """What the constraint raised: this row's trouble, not its neighbours'."""
        self.random = random.Random(sampling.seed)

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """Keep what a constraint raises for this row's caller."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (the scheduler hands it to the row's caller)
            self.error = self.error or error


def pick_tokens(logits: torch.Tensor, pickers: Sequence[Picker]) -> list[int]:
    """Return the next token of every row.

    Args:
        logits: shape (rows, vocabulary).
        pickers: one a row.
    """
    free = logits
    if any(p.constraint is not None for p in pickers):
        logits = logits.clone()
        for row, picker in enumerate(pickers):
            if picker.constraint is not None:
                with picker.own_errors():
                    logits[row] = picker.constraint.mask(logits[row])
    tokens = _pick(logits, pickers)
    for row, picker in enumerate(pickers):
        if picker.constraint is not None:
            with picker.own_errors():
                while picker.constraint.accept(tokens[row]) is False:
                    [tokens[row]] = _pick(picker.constraint.mask(free[row])[None], [picker])
    return tokens


def _pick(logits: torch.Tensor, pickers: Sequence[Picker]) -> list[int]:
    tokens: list[int] = logits.argmax(-1).tolist()
    sampled = [row for row, picker in enumerate(pickers) if picker.temperature > 0.0]
    if sampled:
        drawn = _sample(logits[sampled].float(), [pickers[row] for row in sampled])
        for row, token in zip(sampled, drawn, strict=True):
            tokens[row] = token
    return tokens


def _sample(logits: torch.Tensor, pickers: Sequence[Picker]) -> list[int]:
    """Inverse-CDF sampling: one uniform number a row, tokens in order of falling probability."""
    new = logits.new_tensor
    scaled = logits / new([p.temperature for p in pickers])[:, None]
    probs, order = torch.sort(torch.softmax(scaled, -1), dim=-1, descending=True, stable=True)
    before = probs.cumsum(-1) - probs
    # Nucleus: keep a token while the mass before it is below top_p (so at least the first).
    keep = before < new([p.top_p for p in pickers])[:, None]
    keep[:, 0] = True
    kept = (probs * keep).cumsum(-1)
    target = new([p.random.random() for p in pickers])[:, None] * kept[:, -1:]
    at = torch.searchsorted(kept, target, right=True)
    at = torch.minimum(at, keep.sum(-1, keepdim=True) - 1)
    picked: list[int] = order.gather(-1, at)[:, 0].tolist()
    return picked
