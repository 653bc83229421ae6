"""The local engine: transformers and PEFT in this process, many adapters, one owner of the model.

    engine = load_engine("path/to/model")
    engine.load_adapter("r1-c0-expert", folder)
    [answer] = engine.generate([GenerateRequest(messages, adapter="r1-c0-expert")])

Callers on any number of threads and tasks share forward passes; see ``scheduler.py`` for how.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from langchain_uno.errors import AdapterTakenError, EngineError
from langchain_uno.forks import ForkLock
from langchain_uno.home import safe_name
from langchain_uno.models.adapters import check_adapter
from langchain_uno.models.chat_format import end_tokens
from langchain_uno.models.constraints import grammar_constrainer
from langchain_uno.models.deadline import arrive, earliest, get
from langchain_uno.models.lending import borrowed
from langchain_uno.models.protocols import Chunk, FloatArray, GenerateRequest, Generation, OnDone
from langchain_uno.models.rows import Call, Row, RowMaker, tell
from langchain_uno.models.sampling import Constrainer
from langchain_uno.models.scheduler import Scheduler
from langchain_uno.records import Message


class LocalEngine:
    """Implements :class:`~langchain_uno.models.protocols.Engine` over one transformers model.

    Args:
        model: an ``AutoModelForCausalLM`` model; put into eval mode and owned from here on.
        tokenizer: its tokenizer, with a chat template.
        name: what the model was loaded by.
        fingerprint: identifies the base weights.
        max_batch: rows that share a forward pass at most.
        max_prompt_tokens: padded prompt tokens of one prompt pass at most (bounds memory).
        template_kwargs: passed to the chat template; ``enable_thinking=False`` by default.
        constrainer: binds answers to the form that a request asks for (JSON schema, tool calls);
            by default :func:`~langchain_uno.models.constraints.grammar_constrainer`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        fingerprint: str,
        max_batch: int = 32,
        max_prompt_tokens: int = 16_384,
        template_kwargs: Mapping[str, Any] | None = None,
        constrainer: Constrainer | None = None,
    ) -> None:
        self.model = model.eval()
        """The transformers model (with LoRA layers mounted while adapters are loaded)."""
        self.tokenizer = tokenizer
        """The model's tokenizer."""
        self.model_name = name
        """The name or path that the model was loaded by."""
        self.fingerprint = fingerprint
        """Identifies the base weights; releases are refused on another one."""
        self._adapter_lock = ForkLock()
        self._exclusive_thread: int | None = None
        ends = end_tokens(model, tokenizer)
        self._rows = RowMaker(
            tokenizer,
            name,
            getattr(model.config.get_text_config(), "max_position_embeddings", None),
            {"enable_thinking": False, **dict(template_kwargs or {})},
            constrainer or grammar_constrainer(tokenizer, ends),
        )
        self.encode = self._rows.encode
        """Returns the tokens of a text as it is. Thread-safe."""
        self.prompt = self._rows.prompt
        """Returns the tokens of a conversation, ending where the answer begins. Thread-safe."""
        pad = tokenizer.pad_token_id
        self._scheduler = Scheduler(
            model,
            tokenizer,
            ends,
            0 if pad is None else pad,
            max_batch=max_batch,
            max_prompt_tokens=max_prompt_tokens,
        )
        self._finalizer = weakref.finalize(self, self._scheduler.close)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return not self._finalizer.alive

    # -- answering -------------------------------------------------------------------------------

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: OnDone | None = None
    ) -> list[Generation]:
        """Answer many requests, batched; results in the order of the requests.

        A prompt that leaves the model no room for an answer gives an empty one with
        ``finish_reason="length"`` (one long log must not end a refresh).

        Raises:
            EngineError: an unknown adapter, a closed engine, or a model that fails.
        """
        made = [self._row(index, request) for index, request in enumerate(requests)]
        results = [done for _, done in made]
        rows = [row for row, done in made if done is None]
        if on_done is not None and len(rows) < len(requests):
            on_done(len(requests) - len(rows))
        self._wait_for(rows, results, on_done, earliest(requests))
        return [g for g in results if g is not None]

    def stream(self, request: GenerateRequest) -> Iterator[Chunk]:
        """Answer one request piece by piece. Closing the iterator cancels the request."""
        arrived: queue.SimpleQueue[Chunk | BaseException] = queue.SimpleQueue()
        with self._under_way(request, arrived.put, show=True):
            chunk = Chunk()
            while chunk.generation is None:
                chunk = get(arrived, request.deadline)
                yield chunk

    async def agenerate(self, request: GenerateRequest) -> Generation:
        """Answer one request without blocking the event loop. Cancellable."""
        [chunk] = [chunk async for chunk in self._arriving(request, show=False)]
        assert chunk.generation is not None, "nothing else is put without show"
        return chunk.generation

    def astream(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Like :meth:`stream`, without blocking the event loop."""
        return self._arriving(request, show=True)

    async def _arriving(self, request: GenerateRequest, *, show: bool) -> AsyncIterator[Chunk]:
        arrived: asyncio.Queue[Chunk | BaseException] = asyncio.Queue()
        put = partial(tell, asyncio.get_running_loop(), arrived.put_nowait)
        with self._under_way(request, put, show=show):
            chunk = Chunk()
            while chunk.generation is None:
                chunk = await arrive(arrived, request.deadline)
                yield chunk

    @contextmanager
    def _under_way(
        self, request: GenerateRequest, put: Callable[[Any], None], *, show: bool
    ) -> Iterator[None]:
        """Have a request answered while the block runs: its chunks, or an error, are put.

        With ``show=False`` only the last chunk is.
        """
        row, done = self._row(0, request)
        if done is not None:
            put(Chunk(generation=done))
            yield
            return
        if show:
            row.open_stream(self.tokenizer)
        call = Call(
            [row], lambda _, result: put(Chunk(generation=result)), put, put if show else None
        )
        self._scheduler.submit(call)
        try:
            yield
        finally:
            self._scheduler.cancel(call)

    def choose(
        self,
        prompts: Sequence[Sequence[Message]],
        options: Sequence[str],
        on_done: OnDone | None = None,
    ) -> FloatArray:
        """Return P(first token of each option | prompt), normalised over the options: (n, k).

        Raises:
            InputError: two options begin with the same token, so they can't be told apart.
        """
        return self.choose_tokens([self._rows.prompt(p) for p in prompts], options, on_done)

    def choose_tokens(
        self, prompts: Sequence[list[int]], options: Sequence[str], on_done: OnDone | None = None
    ) -> FloatArray:
        """Like :meth:`choose`, over prompts that are tokens already (no chat template)."""
        self._refuse_inside_exclusive()
        rows = self._rows.weighing(prompts, options)
        results: list[FloatArray | None] = [None] * len(rows)
        self._wait_for(rows, results, on_done)
        if not rows:
            return np.zeros((0, len(options)), np.float32)
        return np.stack([r for r in results if r is not None]).astype(np.float32)

    def call_in_owner(self, job: Callable[[], Any], adapter: str | None = None) -> Any:
        """Run ``job()`` on the owner thread between two passes, with a loaded adapter or none."""
        self._refuse_inside_exclusive()

        def with_adapter() -> Any:
            with self._scheduler.adapters.rows([adapter]):
                return job()

        return self._scheduler.call_in_owner(with_adapter)

    # -- adapters --------------------------------------------------------------------------------

    def load_adapter(self, name: str, path: Path) -> None:
        """Make the adapter in folder ``path`` available as ``name`` (unique for ever).

        Loading the same name again from the same folder is a no-op.

        Raises:
            NameError_: the name is not safe.
            AdapterTakenError: the name is taken.
            ReleaseError: the folder is not a plain LoRA adapter in safetensors that fits this
                base model.
        """
        safe_name(name, "adapter name")
        self._refuse_inside_exclusive()
        folder = Path(path).absolute()
        with self._adapter_lock:
            loaded = self._scheduler.adapters.paths().get(name)
            if loaded == folder:
                self._scheduler.offer(name)  # a fork may have come between mounting and offering
                return
            if loaded is not None:
                raise AdapterTakenError(
                    f"The adapter name {name!r} is taken: a new version needs a new name."
                )
            checked = check_adapter(folder, self.model)
            self._scheduler.call_in_owner(
                lambda: self._scheduler.adapters.mount(name, folder, checked)
            )
            self._scheduler.offer(name)

    def unload_adapter(self, name: str) -> None:
        """Free an adapter. Requests under way with it finish first; unknown names are ignored."""
        self._refuse_inside_exclusive()
        with self._adapter_lock:
            self._scheduler.retire(name)
            self._scheduler.call_in_owner(lambda: self._scheduler.adapters.unmount(name))

    def adapters(self) -> list[str]:
        """The names of the loaded adapters."""
        return sorted(self._scheduler.adapters.paths())

    @contextmanager
    def exclusive(self) -> Iterator[tuple[Any, Any]]:
        """Hand ``(model, tokenizer)`` to a trainer: the plain base, no adapters, nobody else on it.

        What is under way finishes first; new requests wait until the block ends. Afterwards the
        model is the plain base again, and the adapters are mounted again from their folders.
        """
        self._refuse_inside_exclusive()
        with self._adapter_lock:
            resume = self._scheduler.pause()
            self._exclusive_thread = threading.get_ident()
            adapters, ready = self._scheduler.adapters, self._scheduler.ready
            mounted = adapters.paths()
            try:
                adapters.clear()
                with borrowed(self.model, self.tokenizer):
                    yield self.model, self.tokenizer
            finally:
                try:
                    ready.difference_update(mounted)
                    ready.update(adapters.mount_again(mounted))
                finally:
                    self._exclusive_thread = None
                    resume()

    def close(self) -> None:
        """Free the model; further calls raise EngineError."""
        self._finalizer()

    # -- inside ----------------------------------------------------------------------------------

    def _row(self, index: int, request: GenerateRequest) -> tuple[Row, Generation | None]:
        self._refuse_inside_exclusive()
        return self._rows.generating(index, request)

    def _wait_for(
        self,
        rows: list[Row],
        results: list[Any],
        on_done: OnDone | None,
        deadline: float | None = None,
    ) -> None:
        """Run rows to their end, longest prompts first so that a pass pads little."""
        if not rows:
            return
        arrived: queue.SimpleQueue[tuple[Row, Any] | BaseException] = queue.SimpleQueue()
        rows.sort(key=lambda row: len(row.prompt), reverse=True)
        call = Call(rows, lambda row, result: arrived.put((row, result)), arrived.put)
        missing = len(rows)
        self._scheduler.submit(call)
        try:
            while missing:
                row, result = get(arrived, deadline)
                results[row.index] = result
                missing -= 1
                if on_done is not None:
                    on_done(1)
        finally:
            if missing:  # Ctrl-C, or the callback raised: nobody waits for the rest
                self._scheduler.cancel(call)

    def _refuse_inside_exclusive(self) -> None:
        if self._exclusive_thread == threading.get_ident():
            raise EngineError(
                "The engine can't answer inside its own exclusive() block: leave it first."
            )
