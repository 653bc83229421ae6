"""HTTP to one OpenAI-compatible server: JSON in, JSON or server-sent events out, clear errors."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from langchain_uno.errors import EngineError, EngineTimeoutError, InputError
from langchain_uno.models.deadline import left

__all__ = ["Http", "UnknownModelError"]

_SHOWN = 300
"""Characters of a server's error message that are passed on."""


class UnknownModelError(EngineError):
    """The server knows no model or adapter of that name."""


class Http:
    """A client that threads and event loops share."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"{base_url!r} is not the URL of a server (http://host:port/v1).")
        path = parts.path.rstrip("/") or "/v1"
        self.url = f"{parts.scheme}://{parts.netloc}{path}"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._settings: dict[str, Any] = {
            "headers": headers,
            "timeout": httpx.Timeout(timeout, connect=10.0),
            "limits": httpx.Limits(max_connections=256, max_keepalive_connections=64),
        }
        self._client = httpx.Client(**self._settings)
        # Connections belong to the event loop that opened them.
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    def get(self, path: str) -> dict[str, Any]:
        """GET JSON."""
        return self._run(lambda: self._client.get(f"{self.url}/{path}"))

    def post(
        self,
        path: str,
        payload: dict[str, Any],
        *,
        parse: bool = True,
        may_fail: bool = False,
        deadline: float | None = None,
    ) -> dict[str, Any]:
        """POST JSON; ``may_fail``: an error status is no error."""
        wait = self._wait(deadline)
        return self._run(
            lambda: self._client.post(f"{self.url}/{path}", json=payload, timeout=wait),
            parse,
            may_fail,
        )

    async def apost(
        self, path: str, payload: dict[str, Any], deadline: float | None = None
    ) -> dict[str, Any]:
        """POST JSON without blocking."""
        wait = self._wait(deadline)
        try:
            client = self._async_client()
            response = await client.post(f"{self.url}/{path}", json=payload, timeout=wait)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return self._checked(response)

    def stream(
        self, path: str, payload: dict[str, Any], deadline: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """POST JSON and yield the events of the answer."""
        self._refuse_when_closed()
        url, wait = f"{self.url}/{path}", self._wait(deadline)
        try:
            with self._client.stream("POST", url, json=payload, timeout=wait) as response:
                if response.is_error:
                    response.read()
                    self._checked(response)
                for line in response.iter_lines():
                    left(deadline)
                    if event := _event(line):
                        yield event
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    async def astream(
        self, path: str, payload: dict[str, Any], deadline: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Like :meth:`stream`, without blocking."""
        url, wait = f"{self.url}/{path}", self._wait(deadline)
        try:
            client = self._async_client()
            async with client.stream("POST", url, json=payload, timeout=wait) as response:
                if response.is_error:
                    await response.aread()
                    self._checked(response)
                async for line in response.aiter_lines():
                    left(deadline)
                    if event := _event(line):
                        yield event
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        """Close the threads' connections; those of event loops go with their loops."""
        self._client.close()

    def _run(self, call: Any, parse: bool = True, may_fail: bool = False) -> dict[str, Any]:
        self._refuse_when_closed()
        try:
            response = call()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if may_fail and response.is_error:
            return {}
        return self._checked(response, parse)

    def _checked(self, response: httpx.Response, parse: bool = True) -> dict[str, Any]:
        if response.is_error:
            kind = UnknownModelError if response.status_code == 404 else EngineError
            raise kind(
                f"The server at {self.url!r} refused with {response.status_code}: "
                f"{_message(response)}"
            )
        if not parse:
            return {}
        try:
            body = response.json()
        except json.JSONDecodeError as error:
            raise EngineError(f"The server at {self.url!r} did not answer in JSON.") from error
        if not isinstance(body, dict):
            raise EngineError(f"The server at {self.url!r} did not answer with a JSON object.")
        return body

    def _wait(self, deadline: float | None) -> httpx.Timeout:
        wait: httpx.Timeout = self._settings["timeout"]
        if (seconds := left(deadline)) is None:
            return wait
        return httpx.Timeout(min(seconds, wait.read or seconds), connect=wait.connect)

    def _unreachable(self, error: Exception) -> EngineError:
        if isinstance(error, httpx.TimeoutException):
            return EngineTimeoutError(
                f"The server at {self.url!r} did not answer in time ({type(error).__name__}): give "
                "it more time (timeout=...), or see what keeps it."
            )
        return EngineError(
            f"The server at {self.url!r} does not answer ({type(error).__name__}): check that it "
            "runs and that the address is right, then ask again."
        )

    def _refuse_when_closed(self) -> None:
        if self._client.is_closed:
            raise EngineError("The engine is closed: load it again.")

    def _async_client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        self._refuse_when_closed()
        client = self._loops.get(loop)
        if client is None:
            client = self._loops[loop] = httpx.AsyncClient(**self._settings)
        return client


def _event(line: str) -> dict[str, Any] | None:
    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
    if not data or data == "[DONE]":
        return None
    try:
        event = json.loads(data)
    except json.JSONDecodeError as error:
        raise EngineError("The server's stream is damaged: an event is not JSON.") from error
    if "error" in event:
        raise EngineError(f"The server failed while answering: {str(event['error'])[:_SHOWN]}")
    return dict(event)


def _message(response: httpx.Response) -> str:
    try:
        body = response.json()
        found = body.get("error", body.get("message", body.get("detail", body)))
        text = found.get("message", found) if isinstance(found, dict) else found
    except (json.JSONDecodeError, AttributeError):
        text = response.text
    return str(text)[:_SHOWN]
