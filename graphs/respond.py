"""The serving graph: one query, one answer, by the path that its cluster has earned.

    classify_cluster -> expert_generate          an expert answers, or the base model
                     -> draft_critique_revise    base drafts, critic suggests, base revises
                                                 (a memory: the rules that hold are suggested)

    graph = build_respond_graph(Serving(engine, home, embedder))
    graph.invoke({"messages": [{"role": "user", "content": "..."}]})["answer"]

The graph holds no state of its own: what it serves from is bound when it is built, a request's
settings come as :class:`RespondContext`. Its state is small and plain JSON; the answer is a
``str``, so that an outer graph which streams messages does not see it twice. Custom stream events:
``{"type": "progress", "stage": ...}`` and ``{"type": "token", "text": ...}`` for the final answer.
"""

from __future__ import annotations

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from langchain_uno.graphs.respond_run import Classify, Respond
from langchain_uno.graphs.respond_steps import Mode, RespondContext, RespondInput, RespondState
from langchain_uno.records import REFLECTIVE
from langchain_uno.serving.hot_swap import Serving

__all__ = ["Mode", "RespondContext", "RespondInput", "RespondState", "build_respond_graph"]


def build_respond_graph(
    serving: Serving,
) -> CompiledStateGraph[RespondState, RespondContext, RespondInput, RespondState]:
    """Return the compiled graph over ``serving`` (sync and async, streaming in both)."""
    builder = StateGraph(RespondState, context_schema=RespondContext, input_schema=RespondInput)
    builder.add_node("classify_cluster", Classify(serving))
    builder.add_node("expert_generate", Respond(serving))
    builder.add_node("draft_critique_revise", Respond(serving))
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


def _by_route(state: RespondState) -> str:
    return "draft_critique_revise" if state["route"] in REFLECTIVE else "expert_generate"
