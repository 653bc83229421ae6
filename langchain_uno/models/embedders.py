"""Texts to vectors: the base model's own token embeddings, or any LangChain embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_uno.errors import ConfigError, ModelNotFoundError
from langchain_uno.models.protocols import FloatArray, OnDone

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from langchain_uno.models.local import LocalEngine

__all__ = ["LangChainEmbedder", "TokenEmbedder"]

_COMMON = 0.15
"""Share of the vocabulary at whose end a token counts half."""
_BATCH = 64


class TokenEmbedder:
    """The base model's token embeddings, pooled: no second model, and no forward pass.

    A plain mean says most about the commonest tokens: all texts look alike, and a Ward cut finds
    one cluster. Three known corrections mend that:

    - the mean embedding of the vocabulary is taken off (Mu and Viswanath 2018);
    - each token counts once a text, at unit length;
    - frequent tokens count less (Arora et al. 2017, smooth inverse frequency). A token's frequency
      is read off its id: byte-pair vocabularies number their tokens in the order of merging, which
      is that of frequency.

    It reads base weights only, which nothing ever changes, so it waits for nobody.

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
        out = np.zeros((len(texts), self._weight.shape[1]), np.float32)
        for row, text in enumerate(texts):
            ids = self._engine.encode(text) if text.strip() else []
            if len(ids) > self._max_tokens:
                half = self._max_tokens // 2
                ids = ids[:half] + ids[-half:]
            if ids:
                out[row] = self._pooled(list(dict.fromkeys(ids)))
            if on_done is not None:
                on_done(1)
        return _unit_rows(out)

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


class LangChainEmbedder:
    """Any LangChain ``Embeddings``.

    Args:
        embeddings: the embeddings object.
        name: identifies it in fingerprints; by default its class and model name.
    """

    def __init__(self, embeddings: Embeddings, name: str | None = None) -> None:
        self._embeddings = embeddings
        known = getattr(embeddings, "model_name", None) or getattr(embeddings, "model", None)
        self._name = name or f"{type(embeddings).__name__}:{known if known else 'default'}"

    @classmethod
    def from_name(cls, name: str) -> LangChainEmbedder:
        """Return ``HuggingFaceEmbeddings`` by model name or folder.

        Raises:
            ConfigError: sentence-transformers is not installed.
            ModelNotFoundError: no such model.
        """
        try:
            from langchain_huggingface import HuggingFaceEmbeddings

            return cls(HuggingFaceEmbeddings(model_name=name), name=f"huggingface:{name}")
        except ImportError as error:
            raise ConfigError(
                f"The embedder {name!r} needs sentence-transformers: "
                "pip install 'langchain-uno[embeddings]'."
            ) from error
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(
                f"There is no embedding model {name!r}: neither a folder nor reachable on the hub."
            ) from error

    @property
    def fingerprint(self) -> str:
        """Identifies the embeddings by name."""
        return hashlib.sha256(f"langchain-1:{self._name}".encode()).hexdigest()

    def embed(self, texts: Sequence[str], on_done: OnDone | None = None) -> FloatArray:
        """Return L2-normalised vectors, shape (n, d), float32; an empty text gives zeros."""
        full = [i for i, text in enumerate(texts) if text.strip()]
        rows: list[list[float]] = []
        for at in range(0, len(full), _BATCH):
            part = full[at : at + _BATCH]
            rows += self._embeddings.embed_documents([texts[i] for i in part])
            if on_done is not None:
                on_done(len(part))
        if not full:  # the dimension is not known yet: ask with a harmless word
            size = len(self._embeddings.embed_query("text"))
            return np.zeros((len(texts), size), np.float32)
        out = np.zeros((len(texts), len(rows[0])), np.float32)
        out[full] = np.asarray(rows, np.float32)
        return _unit_rows(out)


def _unit_rows(rows: FloatArray) -> FloatArray:
    """Return rows of length 1, shape (n, d); rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    result: FloatArray = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return result
