"""What the serving graph returned, as LangChain's messages and chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from langchain_uno.serving.tracing import tell_outer_graph

_SHOWN = ("finish_reason", "release", "cluster", "distance", "route", "adapter")


def as_result(state: Mapping[str, Any], model: str) -> ChatResult:
    """Return a finished answer.

    Raises:
        ContextOverflowError: the prompt left the model no room.
    """
    message = AIMessage(
        content=state["answer"],
        tool_calls=[{**call, "type": "tool_call"} for call in state["tool_calls"]],
        response_metadata=_metadata(state, model),
        usage_metadata=_usage(state, model),
    )
    info = {"finish_reason": state["finish_reason"]}
    generation = ChatGeneration(message=message, generation_info=info)
    return ChatResult(generations=[generation], llm_output={"model_name": model})


def as_chunk(kind: str, event: Mapping[str, Any], model: str) -> ChatGenerationChunk | None:
    """Return the piece of an answer that an event of the graph's stream holds, if it holds one.

    The last piece has tool calls, usage and what answered.

    Args:
        kind: ``"custom"`` or ``"values"``.
        event: of that kind. Progress is passed on to the graph that the model runs in.
        model: the model's name.

    Raises:
        ContextOverflowError: the prompt left the model no room.
    """
    if kind == "custom" and event["type"] == "token":
        return ChatGenerationChunk(message=AIMessageChunk(content=event["text"]))
    if kind == "custom":
        tell_outer_graph(event)
        return None
    return _last_chunk(event, model) if "answer" in event else None


def _last_chunk(state: Mapping[str, Any], model: str) -> ChatGenerationChunk:
    message = AIMessageChunk(
        content="",
        tool_call_chunks=[
            tool_call_chunk(
                name=call["name"],
                args=json.dumps(call["args"], ensure_ascii=False),
                id=call["id"],
                index=index,
            )
            for index, call in enumerate(state["tool_calls"])
        ],
        response_metadata=_metadata(state, model),
        usage_metadata=_usage(state, model),
        chunk_position="last",
    )
    info = {"finish_reason": state["finish_reason"]}
    return ChatGenerationChunk(message=message, generation_info=info)


def _metadata(state: Mapping[str, Any], model: str) -> dict[str, Any]:
    named = {"model_name": model, "model_provider": "langchain-uno"}
    canary = {"canary": state["canary"]} if state.get("canary") else {}
    return {**named, **{key: state[key] for key in _SHOWN}, **canary}


def _usage(state: Mapping[str, Any], model: str) -> UsageMetadata:
    used = state["usage"]
    if state["finish_reason"] == "length" and used["output_tokens"] == 0:
        raise ContextOverflowError(
            f"The conversation has {used['input_tokens']} tokens, which leaves the model "
            f"{model!r} no room to answer: shorten it."
        )
    return UsageMetadata(
        input_tokens=used["input_tokens"],
        output_tokens=used["output_tokens"],
        total_tokens=used["input_tokens"] + used["output_tokens"],
    )
