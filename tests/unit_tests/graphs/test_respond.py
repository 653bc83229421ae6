"""The serving graph: which node answers, what is streamed, what is summed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from langchain_uno.graphs.respond import RespondContext, build_respond_graph
from langchain_uno.models.loading import load_prompt_set
from langchain_uno.models.protocols import Chunk, GenerateRequest, Generation
from langchain_uno.records import Cluster, Message, Usage
from langchain_uno.serving.hot_swap import Serving, Snapshot

ASK = {"messages": [{"role": "user", "content": "what now?"}]}


class ScriptedEngine:
    """Answers by adapter and turn, from a script; everything else is the real graph's."""

    model_name, fingerprint, closed = "scripted", "scripted", False

    def __init__(self, script: dict[str, Generation]) -> None:
        self.script = script
        self.seen: list[tuple[str, GenerateRequest]] = []

    def load_adapter(self, name: str, path: Path) -> None: ...

    def _answer(self, request: GenerateRequest) -> Generation:
        kind = "base" if request.adapter is None else request.adapter.rsplit("-", 1)[-1]
        if kind == "base" and self.seen:
            kind = "revise"
        self.seen.append((kind, request))
        return self.script[kind]

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: Any = None
    ) -> list[Generation]:
        return [self._answer(r) for r in requests]

    def stream(self, request: GenerateRequest) -> Iterator[Chunk]:
        done = self._answer(request)
        for word in done.text.split(" "):
            yield Chunk(word + "|")
        yield Chunk(generation=done)

    async def agenerate(self, request: GenerateRequest) -> Generation:
        return self._answer(request)

    async def astream(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        for chunk in self.stream(request):
            yield chunk


class FixedServing(Serving):
    """A release with one cluster of each route; the query's cluster is given."""

    def __init__(self, engine: Any, cluster: str | None) -> None:
        super().__init__(engine)
        self.choice = SimpleNamespace(cluster_id=cluster, distance=0.25, top_k=[])
        self._current = Snapshot(
            release="r1",
            clusters={
                "c0": Cluster(id="c0", size=1, route="expert", adapter="r1-c0-expert"),
                "c1": Cluster(id="c1", size=1, route="critic", adapter="r1-c1-critic"),
                "c2": Cluster(id="c2", size=1, route="base"),
                "c3": Cluster(
                    id="c3",
                    size=1,
                    route="memory",
                    rules=["Say when."],
                ),
            },
            prompts=load_prompt_set("real"),
            critique_tokens=33,
        )
        self.pool.know({"r1-c0-expert": Path(), "r1-c1-critic": Path()})

    def route(self, snapshot: Snapshot, messages: list[Message]) -> Any:
        return self.choice


def gen(text: str, i: int, o: int, **kwargs: Any) -> Generation:
    return Generation(text, Usage(input_tokens=i, output_tokens=o), **kwargs)


SCRIPT = {
    "base": gen("the draft stands", 1, 2),
    "expert": gen("expert says so", 10, 20),
    "critic": gen("1. Use bullets.\n2. Be brief.", 100, 200),
    "revise": gen("the better answer", 1000, 2000),
}


def run(cluster: str | None, mode: str = "uno", script: Any = None, **settings: Any) -> Any:
    engine = ScriptedEngine({**SCRIPT, **(script or {})})
    graph = build_respond_graph(FixedServing(engine, cluster))
    context = RespondContext(mode=mode, **{"stream": False, **settings})  # type: ignore[arg-type]
    return graph.invoke(ASK, context=context), engine


@pytest.mark.parametrize(
    ("cluster", "mode", "route", "answer"),
    [
        ("c0", "uno", "expert", "expert says so"),
        ("c0", "single", "expert", "expert says so"),
        ("c0", "base", "base", "the draft stands"),
        ("c1", "uno", "critic", "the better answer"),
        ("c1", "single", "base", "the draft stands"),
        ("c1", "base", "base", "the draft stands"),
        ("c2", "uno", "base", "the draft stands"),
        ("c3", "uno", "memory", "the better answer"),
        ("c3", "single", "base", "the draft stands"),
        ("c3", "base", "base", "the draft stands"),
        (None, "uno", "base", "the draft stands"),
    ],
)
def test_routes_and_modes(cluster: str | None, mode: str, route: str, answer: str) -> None:
    state, engine = run(cluster, mode)
    assert (state["route"], state["answer"]) == (route, answer)
    assert state["release"] == "r1"
    assert state["cluster"] == (None if mode == "base" else cluster)
    assert state["distance"] == (None if mode == "base" else 0.25)
    has_adapter = route in ("expert", "critic")
    assert state["adapter"] == (f"r1-{cluster}-{route}" if has_adapter else None)
    assert len(engine.seen) == {"critic": 3, "memory": 2}.get(route, 1)


def test_the_reflective_path_asks_the_right_things() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    state, engine = run("c1", tools=[tool], temperature=0.7, seed=5, stop=("X",), max_tokens=9)
    (_, draft), (_, critique), (_, revision) = engine.seen
    assert state["usage"] == {"input_tokens": 1101, "output_tokens": 2202}
    assert state["revised"]
    prompts = load_prompt_set("real")
    asked = [Message(role="user", content="what now?")]
    assert list(draft.messages) == asked
    assert draft.tools == (tool,)
    assert list(critique.messages) == prompts.critique_prompt(asked, "the draft stands", "en")
    assert critique.adapter == "r1-c1-critic"
    assert (critique.sampling.temperature, critique.sampling.max_tokens) == (0.1, 33)
    assert critique.sampling.stop == ()
    suggestions = ["Use bullets.", "Be brief."]
    assert list(revision.messages) == prompts.revise_draft_prompt(
        asked, "the draft stands", suggestions, "en"
    )
    assert revision.adapter is None
    assert revision.tools == ()
    assert (revision.sampling.max_tokens, revision.sampling.stop) == (9, ("X",))


@pytest.mark.parametrize("critique", ["", "None.", "no numbered list at all?"])
def test_a_critique_without_suggestions_lets_the_draft_stand(critique: str) -> None:
    prompts = load_prompt_set("real")
    try:
        empty = not prompts.parse_critique(critique)
    except ValueError:
        empty = True
    state, engine = run("c1", script={"critic": gen(critique, 3, 4)})
    if empty:
        assert state["answer"] == "the draft stands"
        assert state["usage"] == {"input_tokens": 4, "output_tokens": 6}
        assert len(engine.seen) == 2
        assert not state["revised"]
    else:
        assert state["answer"] == "the better answer"


def test_an_empty_revision_is_not_an_answer() -> None:
    state, _ = run("c1", script={"revise": gen(" ", 5, 0)})
    assert state["answer"] == "the draft stands"
    assert state["usage"] == {"input_tokens": 106, "output_tokens": 202}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("revision", "shown"),
    [("now it is better", "now it is better"), ("then it is better", "now the draft")],
)
def test_a_revision_that_lost_facts_is_thrown_away(revision: str, shown: str, stream: bool) -> None:
    # The draft quotes "now" from the request.
    engine = ScriptedEngine(
        {**SCRIPT, "base": gen("now the draft", 1, 2), "revise": gen(revision, 10, 20)}
    )
    serving = FixedServing(engine, "c1")
    serving._current.min_kept = 1.0
    graph, context = build_respond_graph(serving), RespondContext(stream=stream)
    events: list[Any] = []
    final: Any = None
    for kind, event in graph.stream(ASK, context=context, stream_mode=["custom", "values"]):
        if kind == "custom":
            events.append(event)
        else:
            final = event
    assert final["answer"] == shown
    assert final["revised"] is (shown == revision)
    assert final["usage"] == {"input_tokens": 111, "output_tokens": 222}
    if stream:  # what was thrown away was never shown
        tokens = [e["text"] for e in events if e["type"] == "token"]
        assert "".join(tokens) == shown.replace(" ", "|") + "|"


def test_a_memory_of_an_older_release_revises_by_its_rules() -> None:
    engine = ScriptedEngine(SCRIPT)
    graph = build_respond_graph(FixedServing(engine, "c3"))
    events: list[Any] = []
    final: Any = None
    for kind, event in graph.stream(ASK, stream_mode=["custom", "values"]):
        if kind == "custom":
            events.append(event)
        else:
            final = event
    assert final["answer"] == "the better answer"
    assert final["revised"]
    assert final["usage"] == {"input_tokens": 1001, "output_tokens": 2002}
    asked = [Message(role="user", content="what now?")]
    [(_, draft), (_, revision)] = engine.seen
    assert list(draft.messages) == asked
    assert list(revision.messages) == load_prompt_set("real").revise_draft_prompt(
        asked, "the draft stands", ["Say when."], "en"
    )
    assert [e["stage"] for e in events if e["type"] == "progress"] == ["draft", "revise"]


def test_a_memory_without_rules_lets_the_draft_stand() -> None:
    engine = ScriptedEngine(SCRIPT)
    serving = FixedServing(engine, "c3")
    clusters = serving._current.clusters
    clusters["c3"] = clusters["c3"].model_copy(update={"rules": []})  # type: ignore[index]
    graph = build_respond_graph(serving)
    state = graph.invoke(ASK, context=RespondContext(stream=False))
    assert (state["answer"], state["revised"]) == ("the draft stands", False)
    assert len(engine.seen) == 1


def test_a_tool_call_passes_through_unrevised() -> None:
    call = {"name": "f", "args": {"x": 1}, "id": "1"}
    script = {"base": gen("", 1, 2, tool_calls=[call], finish_reason="tool_calls")}
    state, engine = run("c1", script=script)
    assert state["tool_calls"] == [call]
    assert state["finish_reason"] == "tool_calls"
    assert len(engine.seen) == 1


@pytest.mark.parametrize(
    ("cluster", "script", "text"),
    [
        ("c0", {}, "expert|says|so|"),
        ("c1", {}, "the|better|answer|"),
        ("c1", {"critic": gen("", 1, 1)}, "the|draft|stands|"),
        (None, {}, "the|draft|stands|"),
    ],
)
async def test_the_final_answer_streams_on_every_path(
    cluster: str | None, script: Any, text: str
) -> None:
    def graph() -> Any:
        return build_respond_graph(FixedServing(ScriptedEngine({**SCRIPT, **script}), cluster))

    events = list(graph().stream(ASK, stream_mode="custom"))
    tokens = [e["text"] for e in events if e["type"] == "token"]
    assert "".join(tokens) == text
    assert len(tokens) == 3
    stages = [e["stage"] for e in events if e["type"] == "progress"]
    if cluster == "c1":
        assert stages == ["draft", "critique", "revise"][: 3 if not script else 2]
    assert [e async for e in graph().astream(ASK, stream_mode="custom")] == events


async def test_sync_and_async_agree_and_state_is_plain_json() -> None:
    import json

    for cluster in ("c0", "c1", None):
        graph = build_respond_graph(FixedServing(ScriptedEngine(SCRIPT), cluster))
        sync = graph.invoke(ASK)
        graph = build_respond_graph(FixedServing(ScriptedEngine(SCRIPT), cluster))
        assert await graph.ainvoke(ASK) == sync
        assert json.loads(json.dumps(sync)) == sync


def test_nodes_are_named_and_messages_come_in_any_shape() -> None:
    graph = build_respond_graph(FixedServing(ScriptedEngine(SCRIPT), "c0"))
    names = {"classify_cluster", "expert_generate", "draft_critique_revise"}
    assert names <= set(graph.get_graph().nodes)
    steps = [next(iter(u)) for u in graph.stream(ASK, stream_mode="updates")]
    assert steps == ["classify_cluster", "expert_generate"]
    shapes: list[list[Any]] = [
        [HumanMessage("hi")],
        [("user", "hi")],
        [{"role": "user", "content": "hi"}],
        [Message(role="user", content="hi")],
    ]
    for messages in shapes:
        assert graph.invoke({"messages": messages})["answer"] == "expert says so"


def test_inside_another_graph_with_threads() -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    class Outer(TypedDict):
        messages: list[Any]

    inner = build_respond_graph(FixedServing(ScriptedEngine(SCRIPT), "c0"))

    def answer(state: Outer) -> Outer:
        done = inner.invoke({"messages": state["messages"]})
        return {"messages": [*state["messages"], AIMessage(done["answer"])]}

    builder = StateGraph(Outer)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    outer = builder.compile(checkpointer=InMemorySaver())
    out = outer.invoke({"messages": [HumanMessage("hi")]}, {"configurable": {"thread_id": "1"}})
    assert out["messages"][-1].content == "expert says so"


def test_no_release_and_a_real_engine(tiny_model_path: Path) -> None:
    from langchain_uno.models.loading import load_engine

    engine = load_engine(str(tiny_model_path))
    state = build_respond_graph(Serving(engine)).invoke(ASK, context=RespondContext(max_tokens=4))
    engine.close()
    assert (state["release"], state["route"], state["adapter"]) == (None, "base", None)
    assert state["usage"]["output_tokens"] == 4
