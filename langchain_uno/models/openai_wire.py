"""One OpenAI-compatible server: its HTTP, and its JSON both ways.

JSON in, JSON or server-sent events out, clear errors; requests to payloads, answers and events to
generations.
"""

from __future__ import annotations

import asyncio
import json
import time
import weakref
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from langchain_uno.errors import EngineDownError, EngineError, EngineTimeoutError, InputError
from langchain_uno.forks import survive_forks
from langchain_uno.messages import json_of, text_of
from langchain_uno.models.chat_format import as_openai, closed, closed_tools, parse_tool_calls
from langchain_uno.models.deadline import left
from langchain_uno.models.protocols import GenerateRequest, Generation
from langchain_uno.records import Usage

_REFUSES = (400, 422, 500)
"""What servers answer to messages that the chat template refuses (vLLM, TGI, llama.cpp)."""
_OF_ALL = (401, 429, 502, 503, 504)
"""What servers answer to whatever they are asked: no key, too busy, not up."""
_NO_JSON = (ValueError, RecursionError)
"""What reading JSON raises: it is none, has a number too long to read, or is too deep."""
_SHOWN = 300
"""Characters of a server's error message that are passed on."""


class Http:
    """A client that threads and event loops share.

    Args:
        base_url: the server's address.
        api_key: sent as a bearer token.
        timeout: seconds for one answer.
        waits: seconds between the tries of a blocking POST while nobody is answered.
        bring_again: called with the name of a model that the server does not know; whether it is
            worth asking again.
        reword: called with a payload that the server refuses; whether it said it in another way.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        timeout: float,
        bring_again: Callable[[str], bool] = lambda name: False,
        reword: Callable[[dict[str, Any]], bool] = lambda payload: False,
        waits: Sequence[float] = (),
    ) -> None:
        self.waits = waits
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            raise InputError(f"{base_url!r} is not the URL of a server (http://host:port/v1).")
        path = parts.path.rstrip("/") or "/v1"
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
        """The address without a name and a password: messages and reports show it."""
        self._settings: dict[str, Any] = {
            "base_url": f"{parts.scheme}://{parts.netloc}{path}",
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            "timeout": httpx.Timeout(timeout, connect=10.0),
            "limits": httpx.Limits(max_connections=256, max_keepalive_connections=64),
        }
        self._client = httpx.Client(**self._settings)
        self._bring_again = bring_again
        self._reword = reword
        survive_forks(self, child=Http._in_child)
        # Connections belong to the event loop that opened them.
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    def _in_child(self, _: bool) -> None:
        """Two processes on one connection would read each other's answers."""
        if not self._client.is_closed:
            self._client = httpx.Client(**self._settings)
        self._loops = weakref.WeakKeyDictionary()

    def get(self, path: str) -> dict[str, Any]:
        """GET JSON."""
        with self._reaching():
            response = self._client.get(path)
        return self._read(response)

    def post(
        self, path: str, payload: dict[str, Any], deadline: float | None = None
    ) -> dict[str, Any]:
        """POST JSON and return the JSON of the answer."""
        return self._read(self.tell(path, payload, deadline))

    def tell(
        self, path: str, payload: dict[str, Any], deadline: float | None = None, tried: int = 0
    ) -> httpx.Response:
        """POST JSON; the answer has any form. Asked again where nobody is answered."""
        asked = self._asked(payload, deadline)
        try:
            with self._reaching():
                response = self._client.post(path, **asked)
                if self._worth_again(response, payload):
                    response = self._client.post(path, **asked)
            self._check(response)
        except EngineDownError as error:
            late = isinstance(error.__cause__, httpx.ReadTimeout)
            if late or tried >= len(waits := self.waits):
                self.waits = ()  # it was given up: nothing more waits for it
                raise
            time.sleep(waits[tried])
            return self.tell(path, payload, deadline, tried + 1)
        return response

    def takes(self, path: str, payload: dict[str, Any]) -> bool:
        """Whether the server takes a request: it does not say that there is something wrong in it.

        Its chat template's refusal is one.
        """
        with self._reaching():
            response = self._client.post(path, json=payload)
        return response.status_code not in _REFUSES

    async def apost(
        self, path: str, payload: dict[str, Any], deadline: float | None = None
    ) -> dict[str, Any]:
        """POST JSON without blocking."""
        asked = self._asked(payload, deadline)
        with self._reaching():
            client = self._async_client()
            response = await client.post(path, **asked)
            if response.is_error and await to_thread(self._worth_again, response, payload):
                response = await client.post(path, **asked)
        return self._read(response)

    def stream(
        self, path: str, payload: dict[str, Any], deadline: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """POST JSON and yield the events of the answer."""
        asked = self._asked(payload, deadline)
        with self._reaching(), ExitStack() as opened:
            response = opened.enter_context(self._client.stream("POST", path, **asked))
            if self._worth_again(response, payload):
                response = opened.enter_context(self._client.stream("POST", path, **asked))
            if _is_whole(response):
                response.read()
                yield _as_event(self._read(response))
                return
            events = _Events()
            for line in response.iter_lines():
                left(deadline)
                if event := events.take(line):
                    yield event
            events.end()

    async def astream(
        self, path: str, payload: dict[str, Any], deadline: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Like :meth:`stream`, without blocking."""
        asked = self._asked(payload, deadline)
        with self._reaching():
            async with AsyncExitStack() as opened:
                enter, client = opened.enter_async_context, self._async_client()
                response = await enter(client.stream("POST", path, **asked))
                if response.is_error and await to_thread(self._worth_again, response, payload):
                    response = await enter(client.stream("POST", path, **asked))
                if _is_whole(response):
                    await response.aread()
                    yield _as_event(self._read(response))
                    return
                events = _Events()
                async for line in response.aiter_lines():
                    left(deadline)
                    if event := events.take(line):
                        yield event
                events.end()

    def close(self) -> None:
        """Close the threads' connections; those of event loops go with their loops."""
        self._client.close()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        if self._client.is_closed:
            raise EngineError("The engine is closed: load it again.")
        try:
            yield
        except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout) as error:
            kind = EngineDownError if self.waits else EngineTimeoutError
            raise kind(
                f"The server at {self.url!r} did not answer in time ({type(error).__name__}): give "
                "it more time (timeout=...), or see what keeps it."
            ) from error
        except httpx.HTTPError as error:
            raise EngineDownError(
                f"The server at {self.url!r} does not answer ({type(error).__name__}): check that "
                "it runs and that the address is right, then ask again."
            ) from error

    def _worth_again(self, response: httpx.Response, payload: dict[str, Any]) -> bool:
        if response.status_code in _REFUSES and "messages" in payload:
            return self._reword(payload)
        unknown = response.status_code == 404 and "model" in payload
        return unknown and self._bring_again(payload["model"])

    def _check(self, response: httpx.Response) -> None:
        if not response.is_success:
            kind = EngineDownError if response.status_code in _OF_ALL else EngineError
            key = " (LANGCHAIN_UNO_API_KEY holds its key)" if response.status_code == 401 else ""
            raise kind(
                f"The server at {self.url!r} refused with {response.status_code}{key}: "
                f"{_message(response)}"
            )

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        self._check(response)
        try:
            body = response.json()
        except _NO_JSON as error:
            raise EngineError(f"The server at {self.url!r} did not answer in JSON.") from error
        if not isinstance(body, dict):
            raise EngineError(f"The server at {self.url!r} did not answer with a JSON object.")
        if wrong := _error_in(body):
            raise EngineError(_failed(wrong))
        return body

    def _asked(self, payload: dict[str, Any], deadline: float | None) -> dict[str, Any]:
        wait: httpx.Timeout = self._settings["timeout"]
        if (seconds := left(deadline)) is not None:
            wait = httpx.Timeout(min(seconds, wait.read or seconds), connect=wait.connect)
        return {"json": payload, "timeout": wait}

    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._loops.get(loop)
        if client is None:
            client = self._loops[loop] = httpx.AsyncClient(**self._settings)
        return client


def _is_whole(response: httpx.Response) -> bool:
    """Whether a server sent one body where a stream was asked for: most often it is an error."""
    kind = str(response.headers.get("content-type", ""))
    return response.is_error or kind.startswith("application/json")


def _as_event(body: dict[str, Any]) -> dict[str, Any]:
    choices = [{**c, "delta": c.get("message") or {}} for c in body.get("choices") or []]
    return {**body, "choices": choices}


class _Events:
    """The events of one stream; each is a JSON object."""

    def __init__(self) -> None:
        self._kind = ""
        self._ended = False
        self._other: list[str] = []
        """Lines that are no event's: a body that is no stream, perhaps."""

    def take(self, line: str) -> dict[str, Any] | None:
        """Take one line; return the event that it holds, if it holds one.

        Raises:
            EngineError: it holds an error, or no JSON.
        """
        line = line.strip()
        name, _, data = line.partition(":")
        data = data.strip()
        if name == "event" or not line:
            self._kind = data
            return None
        if name not in ("data", "error") or not data:  # llama.cpp writes "error: {...}"
            self._other.append(line)
            return None
        if data == "[DONE]":
            self._ended = True
            return None
        try:
            event = json.loads(data)
        except _NO_JSON as error:
            if "error" in (name, self._kind):
                raise EngineError(_failed(data)) from error
            raise EngineError("The server's stream is damaged: an event is not JSON.") from error
        if not isinstance(event, dict):
            raise EngineError("The server's stream is damaged: an event is no JSON object.")
        wrong = _error_in(event)
        if wrong is None and "error" in (name, self._kind):
            wrong = str(event.get("message") or data)
        if wrong is not None:
            raise EngineError(_failed(wrong))
        choices = event.get("choices") or []
        self._ended = self._ended or any(choice.get("finish_reason") for choice in choices)
        return event

    def end(self) -> None:
        """Check that the stream was not cut off.

        Raises:
            EngineError: nothing in it said that the answer is whole, or it is an error's body.
        """
        if not self._ended:
            body = json_of("\n".join(self._other))
            if isinstance(body, dict) and (wrong := _error_in(body)):
                raise EngineError(_failed(wrong))
            raise EngineError(
                "The server's stream broke off: it ended without a finish reason and without "
                "[DONE], so the answer is not whole. Ask again, or see what closes the connection."
            )


def _error_in(body: dict[str, Any]) -> str | None:
    """Return the message of an error that a server sends in place of an answer; None: it is none.

    Read are OpenAI's form, Anthropic's, vLLM's, a choice's own error (OpenRouter), and a message or
    detail where choices should be.
    """
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    found = body.get("error") or (first.get("error") if isinstance(first, dict) else None)
    if isinstance(found, dict):
        return str(found.get("message") or found)
    if found:
        return str(found)
    if isinstance(first, dict) and first.get("finish_reason") == "error":
        return "it gives no reason"
    if first is None and "error" in (body.get("object"), body.get("type")):
        return str(body.get("message") or body)
    said = body.get("message") or body.get("detail")
    return str(said) if said and choices is None and "usage" not in body else None


def _failed(why: str) -> str:
    return f"The server failed while answering: {why[:_SHOWN]}"


def _message(response: httpx.Response) -> str:
    try:
        said = _error_in(response.json())
    except (*_NO_JSON, AttributeError):
        said = None
    return (said or response.text)[:_SHOWN]


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
            payload["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice}}
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
    try:
        body["choices"][0]["message"]
    except (KeyError, IndexError, TypeError) as error:
        raise EngineError("The server's answer has no choices.") from error
    collector = Collector(has_tools=True)
    collector.take(_as_event(body))
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

    def generation(self) -> Generation:
        """Return the answer gathered."""
        text, calls = self._parsed()
        reason = self._reason or "stop"
        return Generation(text, self._usage, "tool_calls" if calls else reason, calls)

    def _parsed(self) -> tuple[str, list[dict[str, Any]]]:
        calls = [_call(call) for _, call in sorted(self._calls.items())]
        return (self._text, calls) if calls or not self._has_tools else parse_tool_calls(self._text)

    def _add(self, part: dict[str, Any]) -> None:
        self._text += text_of(part.get("content"), "assistant") or part.get("refusal") or ""
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
    except _NO_JSON as error:
        raise EngineError("The server wrote a tool call whose arguments are not JSON.") from error
    return {"name": call["name"], "args": args, "id": call["id"]}
