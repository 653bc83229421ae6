"""The serving graph: one query, one answer, by the path that its cluster has earned.

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
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langchain_core.messages import convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import set_config_context
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime, get_runtime
from typing_extensions import TypedDict

from langchain_uno.learning.content import kept_share, request_text
from langchain_uno.logs.conversation import language_of
from langchain_uno.models.protocols import GenerateRequest, Generation, Sampling
from langchain_uno.models.roles import RoleError
from langchain_uno.records import Message, Route, Usage
from langchain_uno.serving.hot_swap import Serving, Snapshot
from langchain_uno.serving.messages import from_langchain

__all__ = ["Mode", "RespondContext", "RespondState", "build_respond_graph"]

Mode = Literal["uno", "single", "base"]
Writer = Callable[[Any], None]


@dataclass(frozen=True)
class RespondContext:
    """One request's settings (plain JSON, so that a graph server can take them)."""

    mode: Mode = "uno"
    """``"single"``: reflective clusters fall back to the base; ``"base"``: everything does."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int | None = None
    stop: Sequence[str] = ()
    tools: Sequence[dict[str, Any]] = ()
    """Tools in OpenAI's JSON form."""
    tool_choice: str = "auto"
    """``"auto"``, ``"required"``, or the name of the one tool to call."""
    json_schema: dict[str, Any] | None = None
    stream: bool = True
    """Whether tokens are sent as custom stream events."""

    def request(self, messages: Sequence[Message], adapter: str | None = None) -> GenerateRequest:
        """Return the request for one answer with these settings."""
        sampling = Sampling(
            self.temperature, self.top_p, self.max_tokens, self.seed, tuple(self.stop)
        )
        return GenerateRequest(
            messages, adapter, sampling, tuple(self.tools), self.tool_choice, self.json_schema
        )


class RespondState(TypedDict, total=False):
    """What travels through the graph; ``messages`` comes in, the rest is filled."""

    messages: list[Any]
    """OpenAI-style dicts or LangChain messages."""
    release: str | None
    """The release this request is served from, from its start to its end."""
    cluster: str | None
    distance: float | None
    """Euclidean, to the nearest centroid (also when that was too far: an unseen query)."""
    route: Route
    adapter: str | None
    answer: str
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    usage: dict[str, int]
    """Summed over draft, critique and revision."""
    critiqued: bool
    """Whether the answer is a revision after a critique."""


@dataclass
class _Ask:
    """A generation that a node wants; the drivers below run it, in either colour."""

    request: GenerateRequest
    final: bool
    """Its tokens are the answer's, so they are shown."""
    pieces: list[str] = field(default_factory=list)


_Plan = Generator[_Ask, Generation, RespondState]


def build_respond_graph(
    serving: Serving,
) -> CompiledStateGraph[RespondState, RespondContext, RespondState, RespondState]:
    """Return the compiled graph over ``serving`` (sync and async, streaming in both)."""
    builder = StateGraph(RespondState, context_schema=RespondContext)
    builder.add_node("classify_cluster", _Classify(serving))
    builder.add_node("expert_generate", _Node(serving, _answer))
    builder.add_node("draft_critique_revise", _Node(serving, _reflect))
    builder.add_edge(START, "classify_cluster")
    builder.add_conditional_edges(
        "classify_cluster",
        _by_route,
        ["expert_generate", "draft_critique_revise"],
    )
    builder.add_edge("expert_generate", END)
    builder.add_edge("draft_critique_revise", END)
    # A chat model keeps no threads: inside another graph, that graph's checkpointer is not used.
    return builder.compile(name="respond", checkpointer=False)


# -- what the nodes do (no waiting in here, so that sync and async share every line) ---------------


def _classify(
    serving: Serving, snapshot: Snapshot, messages: list[Message], mode: Mode
) -> RespondState:
    found = RespondState(
        release=snapshot.release, cluster=None, distance=None, route="base", adapter=None
    )
    if mode == "base":
        return found
    choice = serving.route(snapshot, messages)
    if choice is None:
        return found
    found["distance"] = float(choice.distance)
    if choice.cluster_id is None:
        return found
    cluster = snapshot.clusters[choice.cluster_id]
    found["cluster"] = cluster.id
    if cluster.route != "base" and not (mode == "single" and cluster.route == "critic"):
        found["route"], found["adapter"] = cluster.route, cluster.adapter
    return found


def _by_route(state: RespondState) -> str:
    return "draft_critique_revise" if state["route"] == "critic" else "expert_generate"


def _answer(
    state: RespondState, snapshot: Snapshot, context: RespondContext, write: Writer
) -> _Plan:
    """The expert answers, or the base model."""
    done = yield _Ask(context.request(_read(state), state.get("adapter")), final=True)
    return _result(done, done.usage)


def _reflect(
    state: RespondState, snapshot: Snapshot, context: RespondContext, write: Writer
) -> _Plan:
    """The base drafts, the critic suggests, the base revises (paper, stage 9)."""
    messages = _read(state)
    prompts = snapshot.prompts
    assert prompts is not None, "a release with clusters has prompts"
    write({"type": "progress", "stage": "draft"})
    ask = _Ask(context.request(messages), final=False)
    draft = yield ask
    used = draft.usage
    if draft.tool_calls or not draft.text.strip():
        return _as_it_is(ask, draft, used, write)

    write({"type": "progress", "stage": "critique"})
    language = language_of([m.content for m in messages if m.role == "user"], draft.text)
    sampling = Sampling(
        temperature=snapshot.critique_temperature,
        max_tokens=snapshot.max_critique_tokens,
        # A request that asks for a repeatable answer gets one: greedy requests have no seed.
        seed=0 if context.seed is None and context.temperature == 0 else context.seed,
    )
    prompt = prompts.critique_prompt(messages, draft.text, language)
    critique = yield _Ask(GenerateRequest(prompt, state["adapter"], sampling), final=False)
    used = _sum(used, critique.usage)
    try:
        suggestions = prompts.parse_critique(critique.text)
    except RoleError:  # not a critique: the draft was worth showing before it
        suggestions = []
    if not suggestions:
        return _as_it_is(ask, draft, used, write)

    write({"type": "progress", "stage": "revise", "suggestions": suggestions})
    prompt = prompts.revise_draft_prompt(messages, draft.text, suggestions, language)
    request = replace(context.request(prompt), tools=(), tool_choice="auto")
    guarded = snapshot.revision_min_kept > 0  # then nothing is shown before it is whole
    second = _Ask(request, final=not guarded)
    revised = yield second
    used = _sum(used, revised.usage)
    if not revised.text.strip():
        return _as_it_is(ask, draft, used, write)
    if guarded:
        kept = kept_share(request_text(messages), draft.text, revised.text)
        if kept < snapshot.revision_min_kept:
            write({"type": "progress", "stage": "keep draft", "kept": kept})
            return _as_it_is(ask, draft, used, write)
        return {**_as_it_is(second, revised, used, write), "critiqued": True}
    return {**_result(revised, used), "critiqued": True}


def _as_it_is(ask: _Ask, text: Generation, used: Usage, write: Writer) -> RespondState:
    """A text that was held back stands: show it in the pieces it was written in."""
    for piece in ask.pieces:
        write({"type": "token", "text": piece})
    return _result(text, used)


def _result(done: Generation, used: Usage) -> RespondState:
    return RespondState(
        answer=done.text,
        tool_calls=done.tool_calls,
        finish_reason=done.finish_reason,
        usage=used.model_dump(),
        critiqued=False,
    )


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(
        input_tokens=a.input_tokens + b.input_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
    )


def _read(state: RespondState) -> list[Message]:
    """The conversation in our shape, whatever shape it came in."""
    given = state["messages"]
    if all(isinstance(m, dict) and _is_ours(m) for m in given):
        return [Message.model_validate(m) for m in given]
    return from_langchain(convert_to_messages(given))


def _is_ours(message: dict[str, Any]) -> bool:
    return (
        message.get("role") in ("system", "user", "assistant", "tool")
        and isinstance(message.get("content"), str)
        and not any("function" in call for call in message.get("tool_calls") or ())
    )


# -- how they are run ------------------------------------------------------------------------------


class _Classify(Runnable[RespondState, RespondState]):
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
            return _classify(self._serving, snapshot, _read(state), context.mode)


class _Node(Runnable[RespondState, RespondState]):
    """Runs a plan: sync or async, token by token or at once."""

    def __init__(self, serving: Serving, plan: Callable[..., _Plan]) -> None:
        self._serving = serving
        self._plan = plan

    def invoke(
        self, input: RespondState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RespondState:
        """Run the plan, waiting for the engine."""
        runtime = _runtime(config)
        context, write = _settings(runtime), runtime.stream_writer
        with self._serving.hold(input.get("release")) as snapshot:
            plan = self._plan(input, snapshot, context, write)
            done: Generation | None = None
            while True:
                try:
                    ask = next(plan) if done is None else plan.send(done)
                except StopIteration as stop:
                    result: RespondState = stop.value
                    return result
                if not context.stream:
                    [done] = self._serving.engine.generate([ask.request])
                    continue
                done = None
                for chunk in self._serving.engine.stream(ask.request):
                    _show(ask, chunk.text, write)
                    done = chunk.generation or done
                assert done is not None

    async def ainvoke(
        self, input: RespondState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> RespondState:
        """Run the plan without blocking the event loop."""
        runtime = _runtime(config)
        context, write = _settings(runtime), runtime.stream_writer
        with self._serving.hold(input.get("release")) as snapshot:
            plan = self._plan(input, snapshot, context, write)
            done: Generation | None = None
            while True:
                try:
                    ask = next(plan) if done is None else plan.send(done)
                except StopIteration as stop:
                    result: RespondState = stop.value
                    return result
                if not context.stream:
                    done = await self._serving.engine.agenerate(ask.request)
                    continue
                done = None
                async for chunk in self._serving.engine.astream(ask.request):
                    _show(ask, chunk.text, write)
                    done = chunk.generation or done
                assert done is not None


def _show(ask: _Ask, text: str, write: Writer) -> None:
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
