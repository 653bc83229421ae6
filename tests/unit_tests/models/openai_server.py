"""A real HTTP server that speaks OpenAI's protocol as vLLM does, over a local engine."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from langchain_core.messages import convert_to_messages

from langchain_uno.messages import from_langchain
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Sampling


def like_vllm(engine: LocalEngine, resolver: Path, seen: list[dict[str, Any]], **card: Any) -> Any:
    """What vLLM does, over the local engine: adapters found by name in ``resolver``.

    Args:
        engine: answers.
        resolver: the folder that is looked into for adapters that were not loaded by the call.
        seen: gets the body of each request.
        card: what ``/v1/models`` tells of the base besides.
    """
    app = FastAPI()
    base = {"id": "tiny", "root": engine.model_name, "owned_by": "vllm", "parent": None, **card}

    @app.get("/v1/models")
    async def models() -> Any:
        paths = engine._scheduler.adapters.paths()
        loaded = [{**base, "id": k, "root": str(v), "parent": "tiny"} for k, v in paths.items()]
        return {"data": [*loaded, base]}

    @app.post("/v1/unload_lora_adapter")
    async def unload(body: dict[str, Any]) -> Any:
        if body["lora_name"] not in engine.adapters():
            raise HTTPException(404, "not loaded yet")
        await asyncio.to_thread(engine.unload_adapter, body["lora_name"])

    @app.post("/v1/load_lora_adapter")
    async def load(body: dict[str, Any]) -> Any:
        if body["lora_name"] in engine.adapters():
            raise HTTPException(
                400, f"The lora adapter {body['lora_name']} has already been loaded"
            )
        engine.load_adapter(body["lora_name"], Path(body["lora_path"]))
        return "Success"

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        body = await request.json()
        seen.append({**body, "authorization": request.headers.get("authorization")})
        name = None if body["model"] == "tiny" else body["model"]
        if name is not None and name not in engine.adapters():
            config = resolver / name / "adapter_config.json"
            if not config.is_file():
                raise HTTPException(404, f"The model {name} does not exist.")
            assert json.loads(config.read_text())["base_model_name_or_path"] == base["root"]
            engine.load_adapter(name, resolver / name)
        messages = from_langchain(convert_to_messages(body["messages"]))
        sampling = Sampling(
            body["temperature"],
            body.get("top_p", 1.0),
            body["max_tokens"],
            body.get("seed"),
            tuple(body.get("stop", ())),
        )
        form = body.get("response_format", {})
        schema = form.get("json_schema", {}).get("schema") or (form and {"type": "object"}) or None
        tools = tuple(body.get("tools", ()))
        ask = GenerateRequest(messages, name, sampling, tools, json_schema=schema)
        if not body.get("stream"):
            done = await engine.agenerate(ask)
            return {
                "choices": [
                    {"message": {"content": done.text}, "finish_reason": done.finish_reason}
                ],
                "usage": _usage(done),
            }

        async def events() -> Any:
            async for chunk in engine.astream(ask):
                if chunk.text:
                    yield _sse({"choices": [{"delta": {"content": chunk.text}}]})
                if chunk.generation:
                    reason = chunk.generation.finish_reason
                    yield _sse({"choices": [{"delta": {}, "finish_reason": reason}]})
                    yield _sse({"choices": [], "usage": _usage(chunk.generation)})
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def _usage(done: Any) -> dict[str, int]:
    return {
        "prompt_tokens": done.usage.input_tokens,
        "completion_tokens": done.usage.output_tokens,
    }


def _sse(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an app on a free port; gives its address."""
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join(20)
