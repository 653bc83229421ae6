"""Requests to models and their responses, in the shapes of the providers' APIs.

``asked`` finds the messages of a request, ``said`` those of a response: OpenAI's chat completions
and Responses, Anthropic, Gemini, Bedrock, Ollama, and what LangChain's runs hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_uno.logs.readers.base import as_object, first, is_chat, objects
from langchain_uno.messages import incomplete, json_of, role_named, text_of
from langchain_uno.records import AT_LIMIT

_SYSTEM = ("system", "instructions", "systemInstruction", "system_instruction", "system_prompt")
_PROMPT = ("messages", "contents", "conversations", "conversation", "input", "prompt",
           "prompts", "question", "query", "inputText")  # fmt: skip
_ANSWER = ("choices", "candidates", "generations", "output", "message", "content", "parts",
           "messages", "output_text", "response", "completion", "generated_text", "generation",
           "answer", "text", "result", "results", "outputText")  # fmt: skip


REASONS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason",
           "stop_type", "finish_details")  # fmt: skip
_AROUND = ("choices", "delta", "candidates", "generations", "message", "kwargs", "data",
           "generation_info", "response_metadata", "additional_kwargs", "llm_output",
           "response", "meta_info", "details", "metadata")  # fmt: skip


def body_of(value: Any) -> Any:
    """Return a request or response without its wrapping: JSON in a text, an HTTP ``body``."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        value = json_of(value, value)  # or words that begin with a bracket
    if isinstance(value, Mapping):
        inner = first(value, "body", "inputBodyJson", "outputBodyJson")  # the latter are Bedrock's
        if isinstance(inner, Mapping | str | list):
            return body_of(inner)
    return value


def asked(value: Any) -> list[Any] | None:
    """Return the messages that a model was asked with; None: they can't be found.

    Args:
        value: a request's body, a list of messages, or the words alone.
    """
    value = body_of(value)
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]  # a batch of one
    if isinstance(value, str):
        return [_turn("user", value)] if value.strip() else None
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], str):
            return [_turn("user", value[0])]
        if not objects(value):
            return None
        if all("parts" in m for m in value):
            return [{"role": "user", **m} for m in value]  # Gemini's contents need no role
        blocks = all(_is_block(m) and not {"role", "from"} & m.keys() for m in value)
        return [_turn("user", value)] if blocks else value
    if not isinstance(value, Mapping):
        return None
    found = next((m for k in _PROMPT if (m := value.get(k)) and (m := asked(m))), None)
    if found is None:
        return None
    system = first(value, *_SYSTEM) or first(as_object(value.get("config")), *_SYSTEM)
    if system and not _speaks(found[0], "system", "developer"):
        inner = system.get("parts") if isinstance(system, Mapping) else system
        return [_turn("system", inner), *found]
    return found


def cut_off(value: Any) -> str | None:
    """Return why an answer is not whole, by the end that its response names; None: it is whole.

    A stream that was recorded must name its end; another response or a message need not.

    Args:
        value: a response's body or a message.
    """
    broken = [*filter(None, map(incomplete, _ends(value)))]
    return AT_LIMIT if AT_LIMIT in broken else next(iter(broken), None)


def _ends(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the words by which a response, an event of a stream or a message says how it ended."""
    if events := _events(value):  # what the last of them that says anything says
        last = next((ends for one in events[::-1] if (ends := [*_ends(one, depth + 1)])), None)
        yield from last or ["stop" if "[DONE]" in value else "in_progress"]
        return
    if isinstance(value, list):
        value = value[0] if value else None
    if depth > 8 or not isinstance(value, Mapping):
        return
    details = as_object(value.get("incomplete_details"))
    # A response, a message or a part of one: the status of another object is something else's.
    who = [value.get(name) for name in ("role", "type", "sender", "from")]
    spoken = isinstance(value.get("output"), list) or "text" in who or any(map(role_named, who))
    told = value if spoken else {}
    words = (*map(value.get, REASONS), *map(told.get, ("status", "state")), details.get("reason"))
    for word in words:
        word = word.get("type") if isinstance(word, Mapping) else word  # SGLang's, ChatGPT's
        if isinstance(word, str) and word:
            yield word
    if isinstance(done := value.get("done"), bool):  # Ollama's and Open WebUI's
        whole = done or not (told or "model" in value or isinstance(value.get("message"), Mapping))
        yield "stop" if whole else "in_progress"
    if (error := value.get("error")) is True or any(as_object(error).values()):
        yield "error"
    for name in _AROUND:
        inner = value.get(name)
        if isinstance(inner, list) and inner and name != "response":  # the first of several tries
            inner = inner[0]
        yield from _ends(inner, depth + 1)
    for name in ("parts", "output"):  # the last item is the end of the answer
        if isinstance(items := value.get(name), list) and items:
            yield from _ends(items[-1], depth + 1)


def said(value: Any) -> list[Any] | None:
    """Return the messages that a model answered with; None: they can't be found.

    Args:
        value: a response's body, an item of one, or the words alone.
    """
    value = body_of(value)
    if events := _events(value):
        text = "".join(map(_delta, events))
        return [_turn("assistant", text)] if text.strip() or isinstance(value, list) else None
    if isinstance(value, str):
        return [_turn("assistant", value)] if value.strip() else None
    if isinstance(value, list):
        if objects(value) and all(_is_block(v) for v in value):
            if any(v.get("type") == "message" or "call_id" in v for v in value):
                return value  # items of OpenAI's Responses
            return [_turn("assistant", value)]
        whole = is_chat(value)  # a conversation: its last message; else the first of several tries
        return said(value[-1 if whole else 0]) if value else None
    if not isinstance(value, Mapping):
        return None
    inner = value.get("kwargs", value.get("data"))
    if isinstance(inner, Mapping) and ("content" in inner or "tool_calls" in inner):
        return [{**inner, "role": "assistant"}]  # LangChain's dumps
    calls = value.get("tool_calls") and value.get("role")
    if calls or "content" in value or "parts" in value:
        # The status in an answer of JSON is something else's.
        told = value if "role" in value else {**value, "status": "", "state": "", "done": None}
        return [{**told, "role": "assistant"}]
    return next((m for k in _ANSWER if value.get(k) and (m := said(value[k]))), None)


def _events(value: Any) -> list[Any]:
    """The events of a stream that was recorded, as it came or as a list; none: it is no stream."""
    sse = isinstance(value, str) and value.lstrip().startswith(("data:", "event:"))
    if sse or (isinstance(value, str) and value.lstrip()[:1] == "{"):  # or a line an object
        lines = (line.removeprefix("data:").strip() for line in value.splitlines())
        value = [one for line in lines if isinstance(one := body_of(line), Mapping)]
        if not sse and not any(map(_delta, value)):
            return []  # an answer of lines of JSON
    if sse or not objects(value):
        return value if sse else []
    firsts = [v["choices"][0] if objects(v.get("choices")) else v for v in value]
    # Gemini and Ollama send pieces in the shape of whole responses.
    parts = ({"candidates"}, {"message", "done"}, {"response", "done"})
    whole = len(value) > 1 and all(any(p <= one.keys() for p in parts) for one in value)
    return [*value] if whole or any("delta" in one for one in firsts) else []


def _delta(event: Mapping[str, Any]) -> str:
    """The words of one event: of OpenAI's chats and Responses, Anthropic's or Gemini's."""
    kind = str(event.get("type") or "")
    if kind.startswith("response."):
        return text_of(event.get("delta")) if kind == "response.output_text.delta" else ""
    given = first(event, "choices", "candidates")
    one = given[0] if objects(given) else event
    delta = first(one, "delta", "message") or one
    content = first(delta, "content", "text", "response") if isinstance(delta, Mapping) else None
    return text_of(content.get("parts") if isinstance(content, Mapping) else content)


def _is_block(value: Mapping[str, Any]) -> bool:
    """Whether an object is a part of a message, or an item of OpenAI's Responses; or a message."""
    kind = value.get("type")
    spoken = "content" in value or kind in ("human", "ai")
    return "type" in value and kind != "constructor" and not (spoken and role_named(kind))


def _speaks(message: Any, *roles: str) -> bool:
    return isinstance(message, Mapping) and str(message.get("role", "")).lower() in roles


def _turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}
