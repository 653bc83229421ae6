"""Texts to vectors: the base model's own token embeddings, or any LangChain embeddings."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_uno.errors import ConfigError, ModelNotFoundError, no_package
from langchain_uno.models.loading import is_url, without_bars
from langchain_uno.models.protocols import FloatArray, OnDone

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from langchain_uno.models.local import LocalEngine

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
        what = f"tokens-1:{engine.fingerprint}:{_COMMON}:{max_tokens}"
        self.fingerprint = hashlib.sha256(what.encode()).hexdigest()
        """Identifies weights and pooling."""
        self.model_name = f"the token embeddings of {engine.model_name}"

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


class LangChainEmbedder:
    """Any LangChain ``Embeddings``.

    Its fingerprint is made of its class, of what names the model, and of the vector that it gives
    one fixed text: two models that call themselves the same are told apart.

    Args:
        embeddings: the embeddings object. Of a cache around another one, the other one counts.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    @classmethod
    def from_name(cls, name: str) -> LangChainEmbedder:
        """Return ``HuggingFaceEmbeddings`` by model name or folder.

        Raises:
            ConfigError: sentence-transformers is not installed.
            ModelNotFoundError: no such model.
        """
        if is_url(name):
            raise ConfigError(
                f"The embedder {name!r} is a server: name a HuggingFace model or its folder. In "
                "Python any LangChain Embeddings object will do for a chat model (embedder=...)."
            )
        hub = logging.getLogger("huggingface_hub.utils._http")  # it tells of every try
        before = hub.level
        hub.setLevel(logging.ERROR)
        try:
            from langchain_huggingface import HuggingFaceEmbeddings

            with without_bars():
                return cls(HuggingFaceEmbeddings(model_name=name))
        except ImportError as error:
            needs = f"The embedder {name!r} needs"
            raise no_package(needs, "sentence-transformers", "embeddings") from error
        except (OSError, ValueError) as error:
            why = "neither a folder nor reachable on the hub; check the name and the network"
            if Path(name).exists():
                why = f"what is there can't be loaded ({str(error)[:200]})"
            raise ModelNotFoundError(f"There is no embedding model {name!r}: {why}.") from error
        finally:
            hub.setLevel(before)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies model and vectors; asks the model for one vector."""
        parts = [*_names(self._embeddings), _landmarks(self.embed([_PROBE])[0])]
        return hashlib.sha256(f"langchain-2:{json.dumps(parts)}".encode()).hexdigest()

    @property
    def model_name(self) -> str:
        """What people call it: the model's name, else the class."""
        kind, named, _ = _names(self._embeddings)
        return next((str(value) for key, value in named if key in _CALLED), kind)

    @property
    def former_fingerprints(self) -> tuple[str, ...]:
        """What version 0.4 and older called the same model; none where they did not know its name.

        They knew a model by its class and one name, so a home that was made by an embedder without
        a name could be anybody's.
        """
        known = getattr(self._embeddings, "model_name", None)
        known = known or getattr(self._embeddings, "model", None)
        if not isinstance(known, str) or not known:
            return ()
        kind = type(self._embeddings).__name__
        names = [f"{kind}:{known}"]
        if kind == "HuggingFaceEmbeddings":
            names.append(f"huggingface:{known}")
        return tuple(hashlib.sha256(f"langchain-1:{name}".encode()).hexdigest() for name in names)

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
        return unit_rows(out)


_PROBE = "When does the ferry to the northern island leave on Sundays?"
_NAMED_BY = (
    "model", "model_name", "model_id", "model_path", "deployment", "deployment_name",
    "azure_deployment", "deployment_id", "endpoint_name", "repo_id", "revision", "dimensions",
    "output_dimensionality", "truncate_dim", "query_instruction", "embed_instruction",
)  # fmt: skip
"""Attributes by which LangChain's embeddings name what they ask."""
_CALLED = _NAMED_BY[: _NAMED_BY.index("revision")]


def _names(embeddings: Any) -> list[Any]:
    """Return class and names, also of the embeddings that these lean on."""
    while (inner := getattr(embeddings, "underlying_embeddings", None)) is not None:
        embeddings = inner  # a cache gives the vectors of what it caches
    fields = vars(embeddings) if hasattr(embeddings, "__dict__") else {}
    named = {name: getattr(embeddings, name, None) for name in _NAMED_BY}
    told = [[k, v] for k, v in named.items() if isinstance(v, str | int) and v != ""]
    leans_on = [v for v in fields.values() if hasattr(v, "embed_documents") and v != embeddings]
    return [type(embeddings).__name__, told, [_names(v) for v in leans_on]]


def _landmarks(vector: FloatArray) -> list[int]:
    """Return what small noise in a vector does not change: its nearest of some fixed directions.

    Devices and services give the same text slightly different numbers, and rounding would split
    some of them. The nearest of 64 directions, four times, changes where two are equally near.
    """
    directions = np.random.RandomState(0).standard_normal((4, 64, len(vector)))
    return [len(vector), *(int(np.argmax(group @ vector)) for group in directions)]


def unit_rows(rows: FloatArray) -> FloatArray:
    """Return rows of length 1, shape (n, d); rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    result: FloatArray = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return result
