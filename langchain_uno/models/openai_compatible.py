"""An engine over any OpenAI-compatible server; vLLM with LoRA first, others in base mode.

    engine = load_engine("http://localhost:8000/v1", adapter_dir="/srv/adapters")

Adapters reach vLLM by its filesystem resolver: the server runs with
``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``, ``VLLM_PLUGINS=lora_filesystem_resolver`` and
``VLLM_LORA_RESOLVER_CACHE_DIR=DIR``, the engine puts each adapter into ``DIR/NAME`` and asks for
``model=NAME``. Without ``adapter_dir`` they are loaded by vLLM's explicit endpoint.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_uno.errors import EngineError, ModelNotFoundError, ReleaseError
from langchain_uno.forks import ForkLock
from langchain_uno.models.chat_format import as_openai, in_turn, refused_by
from langchain_uno.models.deadline import earliest
from langchain_uno.models.openai_wire import Collector, Http, payload_of, read_generation
from langchain_uno.models.protocols import Chunk, GenerateRequest, Generation, OnDone
from langchain_uno.models.rows import RowMaker
from langchain_uno.models.server_adapters import ServerAdapters
from langchain_uno.models.together import ask_together
from langchain_uno.records import Message

_CHAT = "chat/completions"
_PATIENCE_S, _WAITS_S = 1_800.0, (1, 2, 5, 15, 30, 60)
_PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Told to vLLM, which would sample as generation_config.json says; modules are verified without."""


class OpenAIEngine:
    """Implements :class:`~langchain_uno.models.protocols.Engine` over HTTP.

    Args:
        base_url: the server's address, with or without ``/v1``.
        model: the served base model's name; by default the first that ``/v1/models`` lists.
        api_key: sent as a bearer token; by default ``LANGCHAIN_UNO_API_KEY``. Other services' keys
            are never sent to an address that somebody typed.
        adapter_dir: the folder that the server's filesystem resolver watches.
        timeout: seconds for one answer.
        work: where a refresh has room for adapters. A refresh is patient: it waits half an hour for
            one answer, and two minutes while the server is too busy or not up.
        max_concurrency: requests under way at a time in :meth:`generate`.
        tokenizer: the model's, as a folder or a name on the hub, for counting tokens; by default
            that of the folder the server loaded, where it can be read here.
        template_kwargs: sent to vLLM's chat template (``enable_thinking=False`` by default); other
            servers get none.

    Raises:
        EngineError: the server does not answer.
        ModelNotFoundError: it serves no such model.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        adapter_dir: str | os.PathLike[str] | None = None,
        timeout: float = 300.0,
        work: Path | None = None,
        max_concurrency: int = 16,
        tokenizer: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        key = api_key or os.environ.get("LANGCHAIN_UNO_API_KEY")
        self._http = Http(
            base_url,
            key,
            timeout if work is None else _PATIENCE_S,
            bring_again=lambda name: self._adapters.bring_again(name),
            reword=self._reword,
            waits=() if work is None else _WAITS_S,
        )
        self._refused: frozenset[str] | None = None
        """What the served chat template refuses; None: it refused nothing so far."""
        self._finding_out = ForkLock()
        try:
            card = self._find_model(model)
        except BaseException:
            self._http.close()
            raise
        self.model_name = str(card["id"])
        """The served base model's name."""
        self._root = str(card.get("root") or self.model_name)
        self._is_vllm = card.get("owned_by") == "vllm"
        self.url = self._http.url
        """The server's address."""
        most = card.get("max_model_len")
        self.positions = most if isinstance(most, int) else None
        """Tokens of a prompt and its answer, as vLLM was started; None: it does not tell."""
        self._template_kwargs = {"enable_thinking": False, **dict(template_kwargs or {})}
        self._adapters = ServerAdapters(
            self._root,
            None if adapter_dir is None else Path(adapter_dir),
            load=self._load_on_server,
            unload=self._unload_on_server,
            wants_stand_in=self._is_vllm,
            made_in=work if adapter_dir is None else None,
        )
        self.load_adapter = self._adapters.add
        self.unload_adapter = self._adapters.remove
        self.adapters = self._adapters.names
        self._tokenizer = tokenizer or (self._root if Path(self._root).is_dir() else None)
        self._width = max(1, max_concurrency)
        self.closed = False
        """Whether :meth:`close` was called."""

    @property
    def fingerprint(self) -> str:
        """That of the folder the server loaded, where it can be read here; else its name."""
        from langchain_uno.models.loading import folder_fingerprint

        try:
            return folder_fingerprint(Path(self._root))
        except ModelNotFoundError:  # no such folder here, or one which is no model
            return f"served:{self._root}"

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: OnDone | None = None
    ) -> list[Generation]:
        """Answer many requests, some at a time; results in the order of the requests."""
        deadline = earliest(requests)

        def ask(payload: dict[str, Any]) -> Generation:
            return read_generation(self._http.post(_CHAT, payload, deadline))

        payloads = [self._payload(request) for request in requests]
        return ask_together(ask, payloads, self._width, on_done)

    def stream(self, request: GenerateRequest) -> Iterator[Chunk]:
        """Answer one request piece by piece. Closing the iterator cancels the request."""
        collector = Collector(bool(request.tools))
        payload = self._payload(request, stream=True)
        for event in self._http.stream(_CHAT, payload, request.deadline):
            if piece := collector.take(event):
                yield Chunk(piece)
        yield Chunk(collector.rest(), collector.generation())

    async def agenerate(self, request: GenerateRequest) -> Generation:
        """Answer one request without blocking the event loop. Cancellable."""
        payload = self._payload(request)
        return read_generation(await self._http.apost(_CHAT, payload, request.deadline))

    async def astream(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Like :meth:`stream`, without blocking the event loop."""
        collector = Collector(bool(request.tools))
        payload = self._payload(request, stream=True)
        async for event in self._http.astream(_CHAT, payload, request.deadline):
            if piece := collector.take(event):
                yield Chunk(piece)
        yield Chunk(collector.rest(), collector.generation())

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text as it is.

        Raises:
            EngineError: the model's tokenizer was not named.
            ModelNotFoundError: there is no such tokenizer.
        """
        return self._rows.encode(text)

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
    ) -> list[int]:
        """Return the tokens of a conversation, ending where the answer begins.

        Raises:
            EngineError, ModelNotFoundError: see :meth:`encode`.
        """
        return self._rows.prompt(messages, tools)

    @cached_property
    def _rows(self) -> RowMaker:
        if self._tokenizer is None:
            raise EngineError(
                "A server does not tell how many tokens a text has: name the model's tokenizer "
                "(model_settings={'tokenizer': 'Qwen/Qwen3-8B'}, a folder or a name on the hub)."
            )
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._tokenizer, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ModelNotFoundError(
                f"There is no tokenizer {self._tokenizer!r}: neither a folder nor on the hub."
            ) from error
        return RowMaker(tokenizer, self.model_name, None, self._template_kwargs, lambda _: None)

    def close(self) -> None:
        """Close the connections; further calls raise EngineError."""
        self.closed = True
        self._adapters.close()
        self._http.close()

    # -- inside ----------------------------------------------------------------------------------

    def _find_model(self, wanted: str | None) -> dict[str, Any]:
        cards = self._http.get("models").get("data") or []
        # vLLM lists adapters too; they name their base as parent.
        bases = [card for card in cards if not card.get("parent")] or cards
        for card in bases:
            if wanted is None or card.get("id") == wanted:
                return dict(card)
        served = ", ".join(repr(str(card.get("id"))) for card in bases[:5]) or "nothing"
        raise ModelNotFoundError(
            f"The server at {self._http.url!r} does not serve {wanted or 'any model'!r}: it serves "
            f"{served}."
        )

    def _payload(self, request: GenerateRequest, stream: bool = False) -> dict[str, Any]:
        name = self._adapters.served_name(request.adapter, self.model_name)
        payload = payload_of(request, name, stream=stream, strict=self._is_vllm)
        payload["messages"] = in_turn(payload["messages"], self._refused or ())
        if self._is_vllm:
            payload["chat_template_kwargs"] = self._template_kwargs
            payload = {**_PLAIN, **payload}
        return payload

    def _reword(self, payload: dict[str, Any]) -> bool:
        """Say refused messages as the server's chat template takes them; whether that differs.

        What it takes is found out at its first refusal, by requests of one token.
        """

        def takes(turns: Sequence[Message]) -> bool:
            messages = as_openai(turns, json_arguments=True)
            body = {"model": self.model_name, "messages": messages, "max_tokens": 1}
            return self._http.takes(_CHAT, body)

        with self._finding_out:
            if self._refused is None:
                self._refused = refused_by(takes)
        before = payload["messages"]
        payload["messages"] = in_turn(before, self._refused or ())
        return bool(payload["messages"] != before)

    def _load_on_server(self, name: str, folder: Path) -> None:
        body = {"lora_name": name, "lora_path": str(folder)}
        try:
            self._http.tell("load_lora_adapter", body)
        except EngineError as error:
            if "already been loaded" not in str(error):
                raise
            # By a process before this one.
            cards = self._http.get("models").get("data") or []
            roots = [str(card.get("root")) for card in cards if card.get("id") == name]
            if str(folder) not in roots:
                raise ReleaseError(
                    f"The adapter name {name!r} is taken on the server by other weights: a new "
                    "version needs a new name."
                ) from error

    def _unload_on_server(self, name: str) -> None:
        if self._is_vllm:
            with suppress(EngineError):
                self._http.tell("unload_lora_adapter", {"lora_name": name})
