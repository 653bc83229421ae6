"""The serving graph: one query, one answer, by the route of the query's cluster.

    classify_cluster -> expert_generate          an expert answers, or the base model
                     -> draft_critique_revise    base drafts, critic suggests, base revises

    graph = build_respond_graph(Serving(engine, home, embedder))
    graph.invoke({"messages": [{"role": "user", "content": "..."}]})["answer"]

The graph holds no state of its own: what it serves from is bound when it is built, a request's
settings come as :class:`RespondContext`. Its state is small and plain JSON; the answer is a
``str``, so that an outer graph which streams messages does not see it twice. Custom stream events:
``{"type": "progress", "stage": ...}`` and ``{"type": "token", "text": ...}`` for the final answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langchain_core.messages import convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime, get_runtime
from typing_extensions import TypedDict

from langchain_uno.messages import from_langchain
from langchain_uno.models.protocols import Chunk, GenerateRequest, Generation, Sampling
from langchain_uno.records import REFLECTIVE, Message, Route
from langchain_uno.reflect import Ask, Plan, Reflected, reflect, result_of
from langchain_uno.serving.hot_swap import ANSWER_TOKENS, Serving, Snapshot

Mode = Literal["uno", "single", "base"]
_Config = RunnableConfig | None


@dataclass(frozen=True)
class RespondContext:
    """One request's settings (plain JSON, so that a graph server can take them)."""

    mode: Mode = "uno"
    """``"single"``: clusters with a critic fall back to the base; ``"base"``: all clusters do."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int | None = None
    """The most tokens of an answer; None: what the release's answers were verified with."""
    seed: int | None = None
    stop: Sequence[str] = ()
    tools: Sequence[dict[str, Any]] = ()
    """Tools in OpenAI's JSON form."""
    tool_choice: str = "auto"
    """``"auto"``, ``"required"``, or the name of the one tool to call."""
    json_schema: dict[str, Any] | None = None
    timeout: float | None = None
    """Seconds that the answer may take once its cluster is known; None: no limit."""
    stream: bool = True
    """Whether tokens are sent as custom stream events."""
    sticky: str = ""
    """A name for who asks. Where several releases have shares, the same release answers all
    requests of one name. Empty: each request is drawn by itself."""

    def request(
        self, messages: Sequence[Message], adapter: str | None = None, *, limit: int = ANSWER_TOKENS
    ) -> GenerateRequest:
        """Return the request for one answer with these settings.

        Args:
            messages: the conversation.
            adapter: answers; None: the base.
            limit: tokens of the answer where the settings do not say.
        """
        sampling = Sampling(
            self.temperature, self.top_p, self.max_tokens or limit, self.seed, tuple(self.stop)
        )
        return GenerateRequest(
            messages, adapter, sampling, tuple(self.tools), self.tool_choice, self.json_schema
        )


class RespondInput(TypedDict):
    """What comes in."""

    messages: list[Any]
    """OpenAI-style dicts, LangChain messages or :class:`~langchain_uno.records.Message`."""


class RespondState(TypedDict, total=False):
    """What travels through the graph; ``messages`` comes in, the rest is filled."""

    messages: list[Any]
    """As they came in."""
    release: str | None
    """The release this request is served from, from its start to its end."""
    cluster: str | None
    distance: float | None
    """To the nearest centroid, also of an unseen query: 1 - cosine, or Euclidean (recipe paper)."""
    route: Route
    adapter: str | None
    canary: str | None
    """The canary that chose the release; None: none is running, or the mode is ``"base"``."""
    answer: str
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    usage: dict[str, int]
    """Summed over draft, critique and revision."""
    revised: bool
    """Whether the answer is a revision of the draft."""


def build_respond_graph(
    serving: Serving,
) -> CompiledStateGraph[RespondState, RespondContext, RespondInput, RespondState]:
    """Return the compiled graph over ``serving`` (sync and async, streaming in both)."""
    builder = StateGraph(RespondState, context_schema=RespondContext, input_schema=RespondInput)
    builder.add_node("classify_cluster", ClassifyCluster(serving))
    builder.add_node("expert_generate", Running(serving, expert_generate))
    builder.add_node("draft_critique_revise", Running(serving, draft_critique_revise))
    builder.add_edge(START, "classify_cluster")
    builder.add_conditional_edges(
        "classify_cluster",
        lambda state: (
            "draft_critique_revise" if state["route"] in REFLECTIVE else "expert_generate"
        ),
        ["expert_generate", "draft_critique_revise"],
    )
    builder.add_edge("expert_generate", END)
    builder.add_edge("draft_critique_revise", END)
    # A chat model keeps no threads: inside another graph, that graph's checkpointer is not used.
    return builder.compile(name="respond", checkpointer=False)


# -- classify_cluster ------------------------------------------------------------------------------


class ClassifyCluster(Runnable[RespondState, RespondState]):
    """Takes the request's snapshot and finds its cluster, and with it the route."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def invoke(self, input: RespondState, config: _Config = None, **kwargs: Any) -> RespondState:
        """Classify one conversation; ``ainvoke`` does so in a thread, where the embedding waits."""
        _, settings = _runtime(config)
        mode = settings.mode
        with self._serving.draw(settings.sticky) as (snapshot, canary):
            choice = None if mode == "base" else self._serving.route(snapshot, _messages(input))
            cluster = None if choice is None else choice.cluster_id
            route, adapter = snapshot.path_of(cluster, mode)
            return RespondState(
                release=snapshot.release,
                cluster=cluster,
                distance=None if choice is None else float(choice.distance),
                route=route,
                adapter=adapter,
                canary=None if mode == "base" else canary,
            )


# -- expert_generate -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """What a node answers: the conversation, and where it goes in its release."""

    messages: list[Message]
    context: RespondContext
    snapshot: Snapshot
    cluster: str | None
    adapter: str | None


def expert_generate(given: Given) -> Plan:
    """The cluster's expert answers, or the base model."""
    limit = given.snapshot.answer_tokens
    request = given.context.request(given.messages, given.adapter, limit=limit)
    done = yield Ask(request, "answer", final=True)
    return result_of(done, done, done.usage)


# -- draft_critique_revise -------------------------------------------------------------------------


def draft_critique_revise(given: Given) -> Plan:
    """The base drafts, the critic suggests, the base revises (paper, stage 9).

    In releases of version 0.1.0 a cluster of the route ``"memory"`` has no critic: its rules are
    the suggestions.
    """
    snapshot = given.snapshot
    assert snapshot.prompts is not None, "a release with clusters has prompts"
    request = given.context.request(given.messages, limit=snapshot.answer_tokens)
    revised = given.context.max_tokens or snapshot.revision_tokens
    return reflect(
        request,
        snapshot.prompts,
        revision=replace(request.sampling, max_tokens=revised),
        critic=given.adapter,
        suggestions=snapshot.rules_of(given.cluster),
        critique_tokens=snapshot.critique_tokens,
        min_kept=snapshot.min_kept,
    )


# -- Running a node's plan -------------------------------------------------------------------------


class Running(Runnable[RespondState, RespondState]):
    """A node that runs a plan: sync or async, token by token or at once."""

    def __init__(self, serving: Serving, plan: Callable[[Given], Plan]) -> None:
        self._serving = serving
        self._plan = plan

    def invoke(self, input: RespondState, config: _Config = None, **kwargs: Any) -> RespondState:
        """Run the plan, waiting for the engine."""
        engine = self._serving.engine
        with self._serving.hold(input.get("release")) as snapshot:
            run = self._start(input, snapshot, config)
            with self._serving.pool.hold(run.given.adapter) as run.called:
                while (request := run.next()) is not None:
                    if run.given.context.stream:
                        for chunk in engine.stream(request):
                            run.take(chunk)
                    else:
                        run.take(Chunk(generation=engine.generate([request])[0]))
        return run.result

    async def ainvoke(
        self, input: RespondState, config: _Config = None, **kwargs: Any
    ) -> RespondState:
        """Run the plan without blocking the event loop."""
        engine = self._serving.engine
        with self._serving.hold(input.get("release")) as snapshot:
            run = self._start(input, snapshot, config)
            async with _aheld(self._serving, run.given.adapter) as run.called:
                while (request := run.next()) is not None:
                    if run.given.context.stream:
                        async for chunk in engine.astream(request):
                            run.take(chunk)
                    else:
                        run.take(Chunk(generation=await engine.agenerate(request)))
        return run.result

    def _start(
        self, state: RespondState, snapshot: Snapshot, config: RunnableConfig | None
    ) -> _Run:
        runtime, context = _runtime(config)
        cluster = state.get("cluster")
        # The adapter is the release's for this cluster: the state can be written from outside.
        _, adapter = snapshot.path_of(cluster, context.mode)
        given = Given(_messages(state), context, snapshot, cluster, adapter)
        return _Run(self._plan(given), given, runtime.stream_writer)


@dataclass
class _Run:
    """One request's way through its plan; the caller decides how to wait."""

    plan: Plan
    given: Given
    write: Callable[[Any], None]
    called: str | None = None
    """The engine's name of the adapter."""
    result: RespondState = field(default_factory=RespondState)
    deadline: float | None = None
    ask: Ask | None = None
    done: Generation | None = None
    held: dict[str, list[str]] = field(default_factory=dict)
    """By stage, the pieces that were not shown."""

    def next(self) -> GenerateRequest | None:
        """Return the next generation that the plan wants; None: it has ended with ``result``."""
        try:
            if self.ask is None:
                self.ask = next(self.plan)
                if (timeout := self.given.context.timeout) is not None:
                    self.deadline = time.monotonic() + timeout
            else:
                assert self.done is not None, "the engine ended without an answer"
                self.ask = self.plan.send(self.done)
        except StopIteration as stop:
            self._end(stop.value)
            return None
        self.done = None
        ask = self.ask
        if ask.stage != "answer":
            told = {"suggestions": list(ask.suggestions)} if ask.stage == "revise" else {}
            self.write({"type": "progress", "stage": ask.stage, **told})
        adapter = None if ask.request.adapter is None else self.called
        return replace(ask.request, adapter=adapter, deadline=self.deadline)

    def take(self, chunk: Chunk) -> None:
        """Take a piece of a text: shown when it is the final one's, else kept back."""
        assert self.ask is not None
        if chunk.text and self.ask.final:
            self.write({"type": "token", "text": chunk.text})
        elif chunk.text:
            self.held.setdefault(self.ask.stage, []).append(chunk.text)
        self.done = chunk.generation or self.done

    def _end(self, done: Reflected) -> None:
        if done.kept is not None and not done.revised:
            self.write({"type": "progress", "stage": "keep draft", "kept": done.kept})
        # The answer was held back: show it in the pieces it was written in.
        for piece in self.held.get("revise" if done.revised else "draft", ()):
            self.write({"type": "token", "text": piece})
        self.result = RespondState(
            answer=done.text,
            tool_calls=done.tool_calls,
            finish_reason=done.finish_reason,
            usage=done.usage.model_dump(),
            revised=done.revised,
        )


@asynccontextmanager
async def _aheld(serving: Serving, adapter: str | None) -> AsyncIterator[str | None]:
    """Hold an adapter; when that means loading or waiting, a thread does it."""
    held = serving.pool.hold(adapter)
    if serving.pool.at_hand(adapter):
        name = held.__enter__()
    else:
        entering = asyncio.ensure_future(asyncio.to_thread(held.__enter__))
        try:
            name = await asyncio.shield(entering)
        except asyncio.CancelledError:  # the thread goes on: release the adapter when it has it
            entering.add_done_callback(
                lambda done: None if done.exception() else held.__exit__(None, None, None)
            )
            raise
    try:
        yield name
    finally:
        held.__exit__(None, None, None)


# -- What comes with a request ---------------------------------------------------------------------


def _runtime(config: _Config) -> tuple[Runtime[RespondContext], RespondContext]:
    """The run, from the config, as Python 3.10 loses it in tasks; and the request's settings.

    A graph run without a context has the default ones.
    """
    with set_config_context(config or {}) as scope:
        runtime = scope.run(get_runtime, RespondContext)
    context: Any = runtime.context
    return runtime, context if isinstance(context, RespondContext) else RespondContext()


def _messages(state: RespondState) -> list[Message]:
    """The conversation as records, whatever shape it came in."""
    given = state["messages"]
    if all(isinstance(m, Message) for m in given):
        return list(given)
    return from_langchain(convert_to_messages(given))
