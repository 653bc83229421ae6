"""How the serving graph's nodes run their plans: sync or async, token by token or at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.runtime import Runtime, get_runtime

from langchain_uno.graphs.respond_steps import (
    Ask,
    RespondContext,
    RespondState,
    classify,
    plan_of,
    read_messages,
)
from langchain_uno.models.protocols import Chunk, GenerateRequest, Generation
from langchain_uno.serving.hot_swap import Serving, Snapshot

__all__ = ["Classify", "Respond"]


class Classify(Runnable[RespondState, RespondState]):
    """Takes the request's snapshot and finds its cluster."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def invoke(
        self, input: RespondState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RespondState:
        """Classify one conversation."""
        return self._run(input, _settings(_runtime(config)))

    async def ainvoke(
        self, input: RespondState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RespondState:
        """Classify one conversation; the embedding waits for its turn on the model in a thread."""
        context = _settings(_runtime(config))
        return await asyncio.to_thread(self._run, input, context)

    def _run(self, state: RespondState, context: RespondContext) -> RespondState:
        with self._serving.lease() as snapshot:
            return classify(self._serving, snapshot, read_messages(state), context.mode)


class Respond(Runnable[RespondState, RespondState]):
    """Runs the plan of the cluster's route: sync or async, token by token or at once."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def invoke(
        self, input: RespondState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RespondState:
        """Run the plan, waiting for the engine."""
        engine = self._serving.engine
        with self._serving.hold(input.get("release")) as snapshot:
            run = _Run(input, snapshot, _runtime(config))
            with self._serving.pool.hold(run.adapter):
                while (request := run.next()) is not None:
                    if run.streams:
                        for chunk in engine.stream(request):
                            run.take(chunk)
                    else:
                        run.take(Chunk(generation=engine.generate([request])[0]))
        return run.result

    async def ainvoke(
        self, input: RespondState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RespondState:
        """Run the plan without blocking the event loop."""
        engine = self._serving.engine
        with self._serving.hold(input.get("release")) as snapshot:
            run = _Run(input, snapshot, _runtime(config))
            async with _aheld(self._serving, run.adapter):
                while (request := run.next()) is not None:
                    if run.streams:
                        async for chunk in engine.astream(request):
                            run.take(chunk)
                    else:
                        run.take(Chunk(generation=await engine.agenerate(request)))
        return run.result


class _Run:
    """One request's way through its plan; who drives it decides how to wait.

    The adapter is the one that the release names for the state's cluster: the state itself can have
    been written from outside.
    """

    def __init__(
        self, given: RespondState, snapshot: Snapshot, runtime: Runtime[RespondContext]
    ) -> None:
        context = _settings(runtime)
        route, self.adapter = snapshot.path_of(given.get("cluster"), context.mode)
        state: RespondState = {**given, "route": route, "adapter": self.adapter}
        self.streams = context.stream
        self.result: RespondState = {}
        self._write = runtime.stream_writer
        self._plan = plan_of(state, snapshot, context, self._write)
        self._timeout = context.timeout
        self._deadline: float | None = None
        self._ask: Ask | None = None
        self._done: Generation | None = None

    def next(self) -> GenerateRequest | None:
        """Return what the plan wants generated now; None: it has ended, ``result`` is there."""
        try:
            if self._ask is None:
                self._ask = next(self._plan)
                if self._timeout is not None:
                    self._deadline = time.monotonic() + self._timeout
            else:
                assert self._done is not None, "the engine ended without an answer"
                self._ask = self._plan.send(self._done)
        except StopIteration as stop:
            self.result = stop.value
            return None
        self._done = None
        return replace(self._ask.request, deadline=self._deadline)

    def take(self, chunk: Chunk) -> None:
        """Take a piece of the answer: shown when it is the final one's, else kept back."""
        assert self._ask is not None
        if chunk.text and self._ask.final:
            self._write({"type": "token", "text": chunk.text})
        elif chunk.text:
            self._ask.pieces.append(chunk.text)
        self._done = chunk.generation or self._done


@asynccontextmanager
async def _aheld(serving: Serving, adapter: str | None) -> AsyncIterator[None]:
    """Hold an adapter; when that means loading or waiting, a thread does it."""
    held = serving.pool.hold(adapter)
    if serving.pool.at_hand(adapter):
        held.__enter__()
    else:
        entering = asyncio.ensure_future(asyncio.to_thread(held.__enter__))
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:  # the thread goes on: give back what it gets
            entering.add_done_callback(
                lambda done: None if done.exception() else held.__exit__(None, None, None)
            )
            raise
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def _settings(runtime: Runtime[RespondContext]) -> RespondContext:
    """The request's settings; a graph run without a context has the defaults."""
    context: Any = runtime.context
    return context if isinstance(context, RespondContext) else RespondContext()


def _runtime(config: RunnableConfig | None) -> Runtime[RespondContext]:
    """The run's context and stream writer; by config, since Python 3.10 loses them in tasks."""
    with set_config_context(config or {}) as scope:
        return scope.run(get_runtime, RespondContext)
