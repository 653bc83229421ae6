"""How the serving graph's nodes run their plans: sync or async, token by token or at once."""

from __future__ import annotations

import asyncio
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
    Writer,
    classify,
    plan_of,
    read_messages,
)
from langchain_uno.models.protocols import Generation
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
        runtime = _runtime(config)
        context, write = _settings(runtime), runtime.stream_writer
        engine = self._serving.engine
        with self._serving.hold(input.get("release")) as snapshot:
            state = _trusted(input, snapshot, context)
            with self._serving.pool.hold(state["adapter"]):
                plan = plan_of(state, snapshot, context, write)
                deadline = context.deadline()
                done: Generation | None = None
                while True:
                    try:
                        ask = next(plan) if done is None else plan.send(done)
                    except StopIteration as stop:
                        result: RespondState = stop.value
                        return result
                    request = replace(ask.request, deadline=deadline)
                    if not context.stream:
                        [done] = engine.generate([request])
                        continue
                    done = None
                    for chunk in engine.stream(request):
                        _show(ask, chunk.text, write)
                        done = chunk.generation or done
                    assert done is not None

    async def ainvoke(
        self, input: RespondState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RespondState:
        """Run the plan without blocking the event loop."""
        runtime = _runtime(config)
        context, write = _settings(runtime), runtime.stream_writer
        engine = self._serving.engine
        with self._serving.hold(input.get("release")) as snapshot:
            state = _trusted(input, snapshot, context)
            async with _aheld(self._serving, state["adapter"]):
                plan = plan_of(state, snapshot, context, write)
                deadline = context.deadline()
                done: Generation | None = None
                while True:
                    try:
                        ask = next(plan) if done is None else plan.send(done)
                    except StopIteration as stop:
                        result: RespondState = stop.value
                        return result
                    request = replace(ask.request, deadline=deadline)
                    if not context.stream:
                        done = await engine.agenerate(request)
                        continue
                    done = None
                    async for chunk in engine.astream(request):
                        _show(ask, chunk.text, write)
                        done = chunk.generation or done
                    assert done is not None


def _trusted(given: RespondState, snapshot: Snapshot, context: RespondContext) -> RespondState:
    """The state with its adapter as the release names it: a state can be written from outside."""
    route, adapter = snapshot.path_of(given.get("cluster"), reflect=context.mode == "uno")
    if context.mode == "base":
        route, adapter = "base", None
    return {**given, "route": route, "adapter": adapter}


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


def _show(ask: Ask, text: str, write: Writer) -> None:
    if not text:
        return
    if ask.final:
        write({"type": "token", "text": text})
    else:
        ask.pieces.append(text)


def _settings(runtime: Runtime[RespondContext]) -> RespondContext:
    """The request's settings; a graph run without a context has the defaults."""
    context: Any = runtime.context
    return context if isinstance(context, RespondContext) else RespondContext()


def _runtime(config: RunnableConfig | None) -> Runtime[RespondContext]:
    """The run's context and stream writer; by config, since Python 3.10 loses them in tasks."""
    with set_config_context(config or {}) as scope:
        return scope.run(get_runtime, RespondContext)
