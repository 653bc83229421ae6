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

__all__ = ["as_last_chunk", "as_result", "text_chunk"]

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
    generation = ChatGeneration(
        message=message, generation_info={"finish_reason": state["finish_reason"]}
    )
    return ChatResult(generations=[generation], llm_output={"model_name": model})


def text_chunk(text: str) -> ChatGenerationChunk:
    """Return a piece of a streamed answer."""
    return ChatGenerationChunk(message=AIMessageChunk(content=text))


def as_last_chunk(state: Mapping[str, Any], model: str) -> ChatGenerationChunk:
    """Return the end of a streamed answer: tool calls, usage, what answered.

    Raises:
        ContextOverflowError: the prompt left the model no room.
    """
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
    return ChatGenerationChunk(
        message=message, generation_info={"finish_reason": state["finish_reason"]}
    )


def _metadata(state: Mapping[str, Any], model: str) -> dict[str, Any]:
    named = {"model_name": model, "model_provider": "langchain-uno"}
    return {**named, **{key: state[key] for key in _SHOWN}}


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
