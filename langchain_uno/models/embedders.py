"""Texts to vectors: the hidden states of a layer, or any LangChain embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from langchain_uno.errors import ConfigError, EngineError, ModelNotFoundError
from langchain_uno.models.protocols import FloatArray, OnDone

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from langchain_uno.models.local import LocalEngine

__all__ = ["HiddenStateEmbedder", "LangChainEmbedder", "clipped_ids", "unit_rows"]

_BATCH = 64


def clipped_ids(engine: LocalEngine, text: str, max_tokens: int) -> list[int]:
    """Return a text's tokens; a longer text keeps its first and last halves of ``max_tokens``."""
    if not text.strip():
        return []
    ids = engine.encode(text)
    if len(ids) > max_tokens:
        half = max_tokens // 2
        ids = ids[:half] + ids[-half:]
    return ids


def unit_rows(rows: FloatArray) -> FloatArray:
    """Return rows of length 1, shape (n, d); rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    result: FloatArray = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return result


class HiddenStateEmbedder:
    """Mean-pooled early hidden states of the engine's base model: no second model is needed.

    The text is embedded as it is (no chat template), with base weights whatever adapters are
    loaded, in one pass through the first ``layer`` layers only.

    Args:
        engine: a local engine.
        layer: whose output is pooled (0: token embeddings). By default a third of the way, at least
            1: early layers separate kinds of requests best, later ones the next token.
        max_tokens: longer texts keep their first and last halves of this many tokens.
    """

    def __init__(
        self, engine: LocalEngine, layer: int | None = None, max_tokens: int = 2048
    ) -> None:
        self._engine = engine
        self._layers = _decoder_layers(engine.model)
        self.layer = max(1, len(self._layers) // 3) if layer is None else layer
        if not 0 <= self.layer <= len(self._layers):
            raise ConfigError(f"The model has layers 0 to {len(self._layers)}, not {layer}.")
        self._max_tokens = max_tokens

    @property
    def fingerprint(self) -> str:
        """Identifies weights, layer and pooling."""
        what = f"hidden-mean-1:{self._engine.fingerprint}:{self.layer}:{self._max_tokens}"
        return hashlib.sha256(what.encode()).hexdigest()

    def embed(self, texts: Sequence[str], on_done: OnDone | None = None) -> FloatArray:
        """Return L2-normalised vectors, shape (n, d), float32; an empty text gives zeros."""
        ids = [clipped_ids(self._engine, text, self._max_tokens) for text in texts]
        size = self._engine.model.get_input_embeddings().weight.shape[1]
        out = np.zeros((len(texts), size), np.float32)
        order = sorted((i for i in range(len(ids)) if ids[i]), key=lambda i: len(ids[i]))
        if on_done is not None and len(order) < len(ids):
            on_done(len(ids) - len(order))
        for at in range(0, len(order), _BATCH):
            part = order[at : at + _BATCH]
            # One job a batch: requests under way keep getting their turns in between.
            pooled = self._engine.call_in_owner(partial(self._pool, [ids[i] for i in part]))
            out[part] = pooled
            if on_done is not None:
                on_done(len(part))
        return unit_rows(out)

    def _pool(self, ids: list[list[int]]) -> Any:
        """Means over each text's own tokens, shape (len(ids), d). Runs on the owner thread."""
        import torch

        model = self._engine.model
        width = max(map(len, ids))
        # Right padding: with causal attention no real token ever sees a pad, so no mask is needed.
        padded = torch.tensor([row + [0] * (width - len(row)) for row in ids], device=model.device)
        with torch.inference_mode():
            hidden = self._hidden(model, padded).float()
            lengths = torch.tensor([len(row) for row in ids], device=model.device)
            real = torch.arange(width, device=model.device)[None, :] < lengths[:, None]
            pooled = (hidden * real[..., None]).sum(1) / lengths[:, None]
        return pooled.cpu().numpy()

    def _hidden(self, model: Any, ids: Any) -> Any:
        if self.layer == 0:
            return model.get_input_embeddings()(ids)
        caught: list[Any] = []

        def catch(_: Any, __: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)
            raise _EnoughError

        handle = self._layers[self.layer - 1].register_forward_hook(catch)
        try:
            model(input_ids=ids, use_cache=False)
        except _EnoughError:
            return caught[0]
        finally:
            handle.remove()
        raise EngineError(f"Layer {self.layer} of {self._engine.model_name!r} never ran.")


class _EnoughError(Exception):
    """Ends a pass once the wanted layer is done; never leaves this module."""


def _decoder_layers(model: Any) -> Any:
    """The list of decoder layers: the longest module list named like one."""
    import torch

    lists = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and name.rsplit(".", 1)[-1] in ("layers", "h")
    ]
    if not lists:
        raise ConfigError(
            f"The layers of {type(model).__name__} are not known: name an embedding model instead."
        )
    return max(lists, key=len)


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
                "pip install 'langchain-huggingface[full]'."
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
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        result: FloatArray = np.divide(out, norms, out=np.zeros_like(out), where=norms > 0)
        return result
