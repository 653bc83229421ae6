"""Texts to vectors with no second model: the base model's own token embeddings, well pooled.

A plain mean of hidden states says most about the commonest tokens: all texts look alike, and a Ward
cut finds one cluster. Three known corrections mend that (figures in lab/experiments.md):

- the mean embedding of the vocabulary is taken off (Mu and Viswanath 2018, "All-but-the-top");
- each token counts once a text, at unit length;
- frequent tokens count less (Arora et al. 2017, smooth inverse frequency). A token's frequency is
  read off its id: byte-pair vocabularies number their tokens in the order of merging, which is that
  of frequency.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_uno.models.embedders import clipped_ids, unit_rows
from langchain_uno.models.protocols import FloatArray, OnDone

if TYPE_CHECKING:
    from langchain_uno.models.local import LocalEngine

__all__ = ["TokenEmbedder"]

_COMMON = 0.15
"""Share of the vocabulary at whose end a token counts half."""


class TokenEmbedder:
    """Implements :class:`langchain_uno.models.protocols.Embedder`.

    It reads base weights only, which nothing ever changes, so it waits for no forward pass.

    Args:
        engine: a local engine.
        max_tokens: longer texts keep their first and last halves of this many tokens.
    """

    def __init__(self, engine: LocalEngine, max_tokens: int = 2048) -> None:
        self._engine = engine
        self._max_tokens = max_tokens

    @property
    def fingerprint(self) -> str:
        """Identifies weights and pooling."""
        what = f"tokens-1:{self._engine.fingerprint}:{_COMMON}:{self._max_tokens}"
        return hashlib.sha256(what.encode()).hexdigest()

    def embed(self, texts: Sequence[str], on_done: OnDone | None = None) -> FloatArray:
        """Return L2-normalised vectors, shape (n, d), float32; an empty text gives zeros."""
        weight = self._weight
        out = np.zeros((len(texts), weight.shape[1]), np.float32)
        for row, text in enumerate(texts):
            ids = clipped_ids(self._engine, text, self._max_tokens)
            if ids:
                out[row] = self._pooled(list(dict.fromkeys(ids)))
            if on_done is not None:
                on_done(1)
        return unit_rows(out)

    def _pooled(self, ids: list[int]) -> FloatArray:
        """The weighted mean of distinct tokens, (d,), not yet of length 1."""
        import torch

        with torch.inference_mode():
            rows = self._weight[ids].float() - self._mean
            rows = torch.nn.functional.normalize(rows, dim=1)
            rank = torch.tensor(ids, dtype=torch.float32, device=rows.device)
            share = rank / (rank + _COMMON * len(self._weight))
            pooled: FloatArray = (share @ rows).cpu().numpy()
        return pooled

    @property
    def _weight(self) -> Any:
        return self._engine.model.get_input_embeddings().weight.detach()

    @cached_property
    def _mean(self) -> Any:
        """The vocabulary's mean embedding, (d,), float32; in parts, since a large one is GBs."""
        import torch

        weight = self._weight
        total = torch.zeros(weight.shape[1], dtype=torch.float64, device=weight.device)
        for part in weight.split(8192):
            total += part.double().sum(0)
        return (total / len(weight)).float()
