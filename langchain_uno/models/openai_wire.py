"""OpenAI's JSON, both ways: requests to payloads, answers and stream events to generations."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from langchain_uno.errors import EngineError
from langchain_uno.models.chat_format import as_openai
from langchain_uno.models.json_schemas import closed, closed_tools
from langchain_uno.models.protocols import GenerateRequest, Generation
from langchain_uno.models.text_out import parse_tool_calls
from langchain_uno.records import Usage

__all__ = ["Collector", "first_token_probs", "payload_of", "read_generation"]


def payload_of(
    request: GenerateRequest, model: str, *, stream: bool, strict: bool = False
) -> dict[str, Any]:
    """Return the body of a chat-completions request; ``strict`` tools have to fit their schemas."""
    sampling = request.sampling
    payload: dict[str, Any] = {
        "model": model,
        "messages": as_openai(request.messages, json_arguments=True),
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.top_p < 1.0:
        payload["top_p"] = sampling.top_p
    if sampling.seed is not None:
        payload["seed"] = sampling.seed
    if sampling.stop:
        payload["stop"] = list(sampling.stop)
    if request.tools:
        payload["tools"] = closed_tools(request.tools, strict=strict)
        if request.tool_choice == "required":
            payload["tool_choice"] = "required"
        elif request.tool_choice != "auto":
            payload["tool_choice"] = {
                "type": "function",
                "function": {"name": request.tool_choice},
            }
    if request.json_schema == {"type": "object"}:
        payload["response_format"] = {"type": "json_object"}
    elif request.json_schema is not None:
        payload["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": closed(request.json_schema)},
        }
    if stream:
        payload |= {"stream": True, "stream_options": {"include_usage": True}}
    return payload


def read_generation(body: dict[str, Any]) -> Generation:
    """Return the answer in a chat-completions body.

    Raises:
        EngineError: the body has no answer.
    """
    collector = Collector(False)
    collector.take_whole(body)
    return collector.generation()


class Collector:
    """Gathers one answer from stream events (or from one whole body)."""

    def __init__(self, has_tools: bool) -> None:
        self._text = ""
        self._reason = ""
        self._usage = Usage()
        self._calls: dict[int, dict[str, str]] = {}
        self._has_tools = has_tools
        self._shown = 0

    def take(self, event: dict[str, Any]) -> str:
        """Take one event; return the text that may be shown now."""
        for choice in event.get("choices") or []:
            self._add(choice.get("delta") or {})
            self._reason = choice.get("finish_reason") or self._reason
        self._count(event)
        # Servers without a tool parser write calls into the text: hold everything from there on.
        end = len(self._text)
        if self._has_tools and (at := self._text.find("<")) >= 0:
            end = at
        piece = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece

    def rest(self) -> str:
        """Return text that was held back and is no tool call."""
        text, _ = self._parsed()
        piece = text[self._shown :]
        self._shown = len(text)
        return piece

    def take_whole(self, body: dict[str, Any]) -> None:
        """Take a whole answer."""
        try:
            choice = body["choices"][0]
            message = choice["message"]
        except (KeyError, IndexError, TypeError) as error:
            raise EngineError("The server's answer has no choices.") from error
        self._has_tools = bool(message.get("tool_calls")) or "<tool_call>" in str(
            message.get("content") or ""
        )
        self._add(message)
        self._reason = choice.get("finish_reason") or "stop"
        self._count(body)

    def generation(self) -> Generation:
        """Return the answer gathered."""
        text, calls = self._parsed()
        reason = self._reason or "stop"
        return Generation(text, self._usage, "tool_calls" if calls else reason, calls)

    def _parsed(self) -> tuple[str, list[dict[str, Any]]]:
        calls = [_call(call) for _, call in sorted(self._calls.items())]
        if calls or not self._has_tools:
            return self._text, calls
        return parse_tool_calls(self._text)

    def _add(self, part: dict[str, Any]) -> None:
        self._text += part.get("content") or ""
        for at, call in enumerate(part.get("tool_calls") or []):
            known = self._calls.setdefault(
                int(call.get("index", at)), {"id": "", "name": "", "arguments": ""}
            )
            function = call.get("function") or {}
            known["id"] = known["id"] or str(call.get("id") or "")
            known["name"] += function.get("name") or ""
            known["arguments"] += function.get("arguments") or ""

    def _count(self, body: dict[str, Any]) -> None:
        if used := body.get("usage"):
            self._usage = Usage(
                input_tokens=int(used.get("prompt_tokens") or 0),
                output_tokens=int(used.get("completion_tokens") or 0),
            )


def _call(call: dict[str, str]) -> dict[str, Any]:
    try:
        args = json.loads(call["arguments"] or "{}")
    except json.JSONDecodeError as error:
        raise EngineError("The server wrote a tool call whose arguments are not JSON.") from error
    return {"name": call["name"], "args": args, "id": call["id"]}


def first_token_probs(body: dict[str, Any], options: Sequence[str]) -> list[float]:
    """Return P(option) over the options, from the first token's ``top_logprobs``.

    Raises:
        EngineError: the server tells none.
    """
    try:
        top = body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        told = [(str(t["token"]), float(t["logprob"])) for t in top]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise EngineError(
            "The server tells no log probabilities, which yes/no questions need: use a local "
            "reranker, or a server with logprobs."
        ) from error
    if not told:
        raise EngineError("The server tells no log probabilities for the first token.")
    floor = min(value for _, value in told) - 5.0
    found = []
    for option in options:
        matching = [v for token, v in told if token and option.startswith(token.strip() or "\0")]
        found.append(max(matching, default=floor))
    top_value = max(found)
    weights = [math.exp(value - top_value) for value in found]
    return [w / sum(weights) for w in weights]
