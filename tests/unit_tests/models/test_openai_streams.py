"""How an OpenAI-compatible server may fail with status 200, and how each is told.

The forms are those of public reports and of documentation: streams that a proxy closed (ollama
#17118, agent-afk #635), errors in the middle of a stream (OpenRouter's docs, "Errors during
streaming"; Anthropic's docs, ``event: error``), ``error:`` lines (llama.cpp's server),
``{"object": "error"}`` (vLLM), ``{"detail": ...}`` (FastAPI).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from langchain_uno.errors import EngineError
from langchain_uno.models.loading import load_engine
from langchain_uno.models.protocols import Engine, GenerateRequest
from langchain_uno.records import Message

ASK = GenerateRequest([Message(role="user", content="Which quay?")])


def piece(text: str, reason: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice], **more})}\n\n"


class Server(ThreadingHTTPServer):
    """Answers every request with what it is told to."""

    body: str = ""
    kind: str = "text/event-stream"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _send(self, body: str, kind: str) -> None:
        data = body.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self._send(json.dumps({"data": [{"id": "m"}]}), "application/json")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send(self.server.body, self.server.kind)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def engine(server: Server) -> Iterator[Engine]:
    made = load_engine(f"http://127.0.0.1:{server.server_port}/v1")
    yield made
    made.close()


async def _gather(engine: Engine) -> list[Any]:
    return [chunk async for chunk in engine.astream(ASK)]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (piece("The boat leaves "), "broke off"),
        ("", "broke off"),
        (": keep-alive\n\n" + piece("The boat"), "broke off"),
        (piece("The") + 'data: {"error": {"message": "out of memory", "code": 500}}\n\n', "memory"),
        (piece("The") + 'event: error\ndata: {"message": "overloaded"}\n\n', "overloaded"),
        (piece("The") + "event: error\ndata: worker died\n\n", "worker died"),
        (piece("The") + 'error: {"code": 500, "message": "context full"}\n\n', "context full"),
        ('data: {"object": "error", "message": "too long", "code": 400}\n\n', "too long"),
        ('data: {"type": "error", "error": {"type": "overloaded_error"}}\n\n', "overloaded_error"),
        (piece("The", "error"), "gives no reason"),
        ('data: {"choices": ' + "[" * 100_000 + "\n\n", "not JSON"),
        ('data: {"choices": [{"index": ' + "1" * 5_000 + "}]}\n\n", "not JSON"),
        ("[" * 100_000, "broke off"),
        # a gateway that answers in JSON under a stream's content type
        ('{"error":\n {"message": "No quota left"}}', "No quota left"),
    ],
)
def test_a_stream_that_fails_is_an_error(
    server: Server, engine: Engine, body: str, told: str
) -> None:
    server.body, server.kind = body, "text/event-stream; charset=utf-8"
    with pytest.raises(EngineError, match=told):
        list(engine.stream(ASK))
    with pytest.raises(EngineError, match=told):
        asyncio.run(_gather(engine))


@pytest.mark.parametrize(
    "end",
    [
        piece("", "stop"),
        "data: [DONE]\n\n",
        "data:[DONE]\n\n",
        piece("", "length"),
        piece("", "stop", error=None),
    ],
)
def test_a_stream_that_ends_is_an_answer(server: Server, engine: Engine, end: str) -> None:
    server.body, server.kind = piece("Quay ") + piece("6.") + end, "text/event-stream"
    *_, last = engine.stream(ASK)
    assert last.generation is not None and last.generation.text == "Quay 6."
    assert last.generation.finish_reason == ("length" if "length" in end else "stop")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": {"message": "No quota left", "code": 429}}, "No quota left"),
        ({"error": "model is loading"}, "model is loading"),
        ({"object": "error", "message": "too long", "code": 400}, "too long"),
        ({"detail": "upstream timed out"}, "upstream timed out"),
        ({"choices": [{"error": {"code": 502, "message": "provider down"}}]}, "provider down"),
    ],
)
def test_an_error_in_a_200_is_told(
    server: Server, engine: Engine, body: dict[str, Any], told: str
) -> None:
    server.body, server.kind = json.dumps(body, indent=1), "application/json"
    with pytest.raises(EngineError, match=told):
        engine.generate([ASK])
    with pytest.raises(EngineError, match=told):
        list(engine.stream(ASK))
    with pytest.raises(EngineError, match=told):
        asyncio.run(_gather(engine))


@pytest.mark.parametrize("body", ["[" * 100_000, "1" * 5_000, "no JSON"])
def test_a_body_that_is_no_readable_json_is_told(server: Server, engine: Engine, body: str) -> None:
    server.body, server.kind = body, "application/json"
    with pytest.raises(EngineError, match="did not answer in JSON"):
        engine.generate([ASK])


@pytest.mark.parametrize(
    "said",
    [
        {"content": "Quay 6."},
        {"content": [{"type": "text", "text": "Quay "}, {"type": "text", "text": "6."}]},  # Mistral
        {"content": None, "refusal": "Quay 6."},  # OpenAI's docs, "Refusals"
    ],
)
def test_a_server_that_does_not_stream_answers_all_the_same(
    server: Server, engine: Engine, said: dict[str, Any]
) -> None:
    choice = {"message": {"role": "assistant", **said}, "finish_reason": "stop"}
    server.body, server.kind = json.dumps({"choices": [choice]}), "application/json"
    chunks = list(engine.stream(ASK))
    assert "".join(chunk.text for chunk in chunks) == "Quay 6."
    assert chunks[-1].generation == engine.generate([ASK])[0]
