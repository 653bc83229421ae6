"""A local engine that has its answers written by a server: training needs the weights here.

    server = load_engine("http://localhost:8000/v1", adapter_dir="/srv/adapters")
    engine = load_engine("Qwen/Qwen3-8B", server=server)

Only :meth:`ServedEngine.generate` asks the server. What a refresh reads off the weights (the gap's
yes or no, perplexities, how likely an answer is) is computed here, and so are single streams.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_uno.errors import EngineError, InputError, ModelMismatchError, UNOError
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.openai_compatible import OpenAIEngine
from langchain_uno.models.protocols import Engine, GenerateRequest, Generation, OnDone, Sampling
from langchain_uno.records import Message

_ASKED = (
    "What is the capital of Portugal?",
    "Name three fruits.",
    "Write one sentence about the sea.",
    "How many days does a week have?",
    "What do bees make?",
    "Say hello to a new colleague.",
    "Why does ice float on water?",
    "List two uses of a spoon.",
)
_TOKENS = 16
_SAME = 0.5
"""The same weights in another dtype differ in a few of these answers, other weights in most."""


class ServedEngine(LocalEngine):
    """Implements :class:`~langchain_uno.models.protocols.Engine` over weights here and a server.

    Args:
        model: as of :class:`~langchain_uno.models.local.LocalEngine`.
        tokenizer: as of it.
        server: serves the same weights. Adapters that are loaded here are placed there too.
        settings: further arguments of :class:`~langchain_uno.models.local.LocalEngine`.
    """

    def __init__(self, model: Any, tokenizer: Any, *, server: Engine, **settings: Any) -> None:
        super().__init__(model, tokenizer, **settings)
        if not isinstance(server, OpenAIEngine):
            raise InputError(f"{type(server).__name__} is no server: give the engine of a URL.")
        self.server = server
        """Writes the answers."""
        limits = (self._rows.positions, server.positions)
        self._there = replace(
            self._rows, positions=min((n for n in limits if n is not None), default=None)
        )

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: OnDone | None = None
    ) -> list[Generation]:
        """Have many requests answered by the server; results in the order of the requests.

        A prompt that leaves no room for an answer gives an empty one with
        ``finish_reason="length"``, as in the local engine.

        Raises:
            EngineError: the server refuses, or an adapter is unknown.
            EngineDownError: the server can't be reached.
        """
        self._refuse_inside_exclusive()
        results: list[Generation | None] = []
        asked: list[GenerateRequest] = []
        for request in requests:
            prompt, sampling = self._there.room(request)
            results.append(None if sampling else self._there.no_room(prompt))
            if sampling:
                asked.append(replace(request, sampling=sampling))
        if on_done is not None and len(asked) < len(requests):
            on_done(len(requests) - len(asked))
        made = iter(self.server.generate(asked, on_done))
        return [next(made) if one is None else one for one in results]

    def load_adapter(self, name: str, path: Path) -> None:
        """Make the adapter in folder ``path`` available as ``name``, here and on the server."""
        super().load_adapter(name, path)
        try:
            self.server.load_adapter(name, path)
        except UNOError:
            super().unload_adapter(name)
            raise

    def unload_adapter(self, name: str) -> None:
        """Free an adapter, here and on the server."""
        super().unload_adapter(name)
        self.server.unload_adapter(name)

    def check_server(self, untrained: Path) -> None:
        """Check that the server answers as the weights here do, and takes adapters.

        Control questions are answered by both, and by the server with an adapter that adds nothing.

        Args:
            untrained: folder of such an adapter, of the rank and the layers that are trained.

        Raises:
            ModelMismatchError: it serves another model, or with another chat template.
            EngineError: it does not answer, or takes no such adapters.
        """
        where = f"The server at {self.server.url!r}"
        there = self.server.fingerprint
        if not there.startswith("served:") and there != self.fingerprint:
            raise ModelMismatchError(
                f"{where} serves {self.server.model_name!r}, which has other weights than "
                f"{self.model_name!r}: start it with the model that is trained."
            )
        turns = [[Message(role="user", content=text)] for text in _ASKED]
        asked = [GenerateRequest(one, sampling=Sampling(max_tokens=_TOKENS)) for one in turns]
        here, base = super().generate(asked), self.generate(asked)
        for own, other in zip(here, base, strict=True):
            mine, theirs = own.usage.input_tokens, other.usage.input_tokens
            if theirs not in (0, mine):
                raise ModelMismatchError(
                    f"{where} makes {theirs} tokens of a question that has {mine} here: start it "
                    f"with the chat template and the tokenizer of {self.model_name!r}."
                )
        if (same := _same(here, base)) < _SAME * len(asked):
            raise ModelMismatchError(
                f"{where} answers {same} of {len(asked)} control questions as "
                f"{self.model_name!r} does here: it serves other weights, or a reasoning parser "
                "takes words away. Start it with the model that is trained."
            )
        name = f"probe-{secrets.token_hex(6)}"
        try:
            with ExitStack() as undo:
                self.load_adapter(name, untrained)
                undo.callback(self.unload_adapter, name)
                adapted = self.generate([replace(one, adapter=name) for one in asked])
        except EngineError as error:
            raise EngineError(
                f"{where} can't answer with an adapter under test ({error}) Start vLLM with "
                "--enable-lora, a --max-lora-rank of the recipe's lora.rank at least, and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and let it see the folder that "
                "--generate-adapters names (without it: the home, under the same path)."
            ) from error
        if _same(base, adapted) < _SAME * len(asked):
            raise EngineError(f"{where} answers differently with an adapter that adds nothing.")

    def close(self) -> None:
        """Free the model and the connections; further calls raise EngineError."""
        super().close()
        self.server.close()


def _same(some: Sequence[Generation], others: Sequence[Generation]) -> int:
    return sum(a.text.strip() == b.text.strip() for a, b in zip(some, others, strict=True))
