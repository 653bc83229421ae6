"""The small protocols between whatever runs a model and everything that needs one.

Engines are plain objects with plain functions, not LangChain chat models: a chat model nested in a
chat model would show up as two runs in every trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from langchain_uno.errors import EngineError
from langchain_uno.records import Message, Usage

FloatArray = NDArray[np.float32]
OnDone = Callable[[int], None]
"""Progress callback of batch calls: receives how many more items are done."""

BASE = None
"""``GenerateRequest.adapter`` of the base model."""


@dataclass(frozen=True)
class Sampling:
    """How one request is decoded. ``temperature`` 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerateRequest:
    """One answer to make: ``adapter`` is the unique name of a loaded adapter, or None for base."""

    messages: Sequence[Message]
    adapter: str | None = BASE
    sampling: Sampling = field(default_factory=Sampling)
    tools: Sequence[dict[str, Any]] = ()
    """Tools in OpenAI's JSON form; rendered by the model's own chat template."""
    tool_choice: str = "auto"
    """``"auto"``; ``"required"``: the answer is one call or more; or one of the tools' names."""
    json_schema: dict[str, Any] | None = None
    """When set, the answer is JSON of this schema; ``{"type": "object"}`` is any JSON object."""
    deadline: float | None = None
    """When (``time.monotonic()``) the caller stops waiting: EngineTimeoutError then."""


@dataclass(frozen=True)
class Generation:
    """One finished answer. ``tool_calls`` is ``[{"name", "args", "id"}]``."""

    text: str
    usage: Usage = field(default_factory=Usage)
    finish_reason: str = "stop"
    """``stop``, ``length``, ``tool_calls``, ``cancelled``, or ``failed`` (a teacher's call)."""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed answer; the last one carries ``generation`` and usually no text."""

    text: str = ""
    generation: Generation | None = None


@runtime_checkable
class Engine(Protocol):
    """Runs a base model with any number of LoRA adapters. Thread-safe.

    All methods raise ``EngineError`` (or a subclass of ``UNOError``) when the model can't answer.
    What is written here is for one that only generates.
    """

    @property
    def model_name(self) -> str:
        """The name or path that the model was loaded by."""

    @property
    def fingerprint(self) -> str:
        """Identifies the base weights; releases are refused on another one."""

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: OnDone | None = None
    ) -> list[Generation]:
        """Answer many requests, batched; results in the order of the requests."""

    def stream(self, request: GenerateRequest) -> Iterator[Chunk]:
        """Answer one request piece by piece. Closing the iterator cancels the request."""
        yield Chunk(generation=self.generate([request])[0])

    async def agenerate(self, request: GenerateRequest) -> Generation:
        """Answer one request without blocking the event loop. Cancellable."""
        return (await asyncio.to_thread(self.generate, [request]))[0]

    async def astream(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Like :meth:`stream`, without blocking the event loop."""
        yield Chunk(generation=await self.agenerate(request))

    def load_adapter(self, name: str, path: Path) -> None:
        """Make the adapter in folder ``path`` available as ``name`` (unique for ever)."""
        raise EngineError(f"The model {self.model_name!r} can't load the adapter {name!r}.")

    def unload_adapter(self, name: str) -> None:
        """Free an adapter. Requests under way with it finish first."""
        raise EngineError(f"The model {self.model_name!r} has no adapter {name!r}.")

    def adapters(self) -> list[str]:
        """The names of the loaded adapters."""
        return []

    def close(self) -> None:
        """Free the model; further calls raise EngineError."""


class Known(tuple[str, ...]):
    """A model's fingerprint, and after it those that older versions gave it; with its name."""

    name: str = ""

    @classmethod
    def of(cls, fingerprint: str | None, name: str | None, former: Iterable[str] = ()) -> Known:
        """Return what a model is known as, as far as anybody knows."""
        known = cls((fingerprint, *former) if fingerprint else ())
        known.name = name or ""
        return known

    def beside(self, other: Known) -> tuple[str, str]:
        """Return what both are called: by names, and by fingerprints where those do not do."""
        own, theirs = self.name or self[0], other.name or other[0]
        return (own, theirs) if own != theirs else (f"{own} ({self[0]})", f"{theirs} ({other[0]})")


def known_as(model: Engine | Embedder) -> Known:
    """Return what an engine or an embedder is known as."""
    name = getattr(model, "model_name", None)
    return Known.of(model.fingerprint, name, getattr(model, "former_fingerprints", ()))


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors; the same text gives the same vector for ever."""

    @property
    def fingerprint(self) -> str:
        """Identifies model and pooling; a home never mixes two."""

    def embed(self, texts: Sequence[str], on_done: OnDone | None = None) -> FloatArray:
        """Return L2-normalised vectors, shape (n, d), float32; an empty text gives zeros."""


@runtime_checkable
class Reranker(Protocol):
    """A yes/no judge: is the suggestion covered by what is known (paper, stage 5)?"""

    @property
    def fingerprint(self) -> str:
        """Identifies weights and words."""

    def covered(
        self, pairs: Sequence[tuple[str, str]], on_done: OnDone | None = None
    ) -> FloatArray:
        """Return P(yes) for each pair (suggestion, known rule): shape (n,), in [0, 1]."""

    def covered_by_list(
        self, items: Sequence[tuple[str, Sequence[str]]], on_done: OnDone | None = None
    ) -> FloatArray:
        """Return P(yes) for each (suggestion, all known rules, one at least): shape (n,)."""
