"""The OpenAI-compatible engine against a real server that speaks the protocol."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException

from langchain_uno import UNOChatModel
from langchain_uno.errors import (
    EngineError,
    InputError,
    ModelNotFoundError,
    NameError_,
    ReleaseError,
)
from langchain_uno.home import Home
from langchain_uno.models.embedders import TokenEmbedder
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.openai_compatible import OpenAIEngine
from langchain_uno.models.openai_wire import Collector
from langchain_uno.models.protocols import Engine, GenerateRequest, Sampling
from langchain_uno.records import Message
from tests.unit_tests.models.openai_server import like_vllm, serving
from tests.unit_tests.serving.tiny_release import QUERIES, publish_tiny


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resolver")


@pytest.fixture(scope="module")
def seen() -> list[dict[str, Any]]:
    return []


@pytest.fixture(scope="module")
def server(engine: LocalEngine, resolver: Path, seen: list[dict[str, Any]]) -> Iterator[str]:
    with serving(like_vllm(engine, resolver, seen)) as url:
        yield url


@pytest.fixture(scope="module")
def remote(server: str, resolver: Path) -> Iterator[OpenAIEngine]:
    made = load_engine(server, adapter_dir=resolver, api_key="a-key")
    assert isinstance(made, OpenAIEngine)
    yield made
    made.close()


def ask(text: str, adapter: str | None = None, **sampling: Any) -> GenerateRequest:
    settings = Sampling(**{"max_tokens": 10, **sampling})
    return GenerateRequest([Message(role="user", content=text)], adapter, settings)


async def test_answers_equal_the_local_engine_s(
    remote: OpenAIEngine, engine: LocalEngine, adapter_paths: dict[str, Path]
) -> None:
    assert isinstance(remote, Engine)
    assert remote.model_name == "tiny", "the base, not the first adapter listed"
    assert remote.fingerprint == engine.fingerprint, "the served folder can be read here"
    remote.load_adapter("far", adapter_paths["a1"])
    remote.load_adapter("far", adapter_paths["a1"])
    asked = [ask("one"), ask("two", "far"), ask("three " * 9, temperature=1.5, seed=3)]
    local = [ask("one"), ask("two", "a1"), asked[2]]
    wanted = engine.generate(local)
    done: list[int] = []
    assert remote.generate(asked, on_done=done.append) == wanted
    assert sum(done) == 3
    assert await remote.agenerate(asked[1]) == wanted[1]
    chunks = list(remote.stream(asked[2]))
    assert "".join(c.text for c in chunks) == wanted[2].text
    assert chunks[-1].generation == wanted[2]
    astream = [c async for c in remote.astream(asked[1])]
    assert "".join(c.text for c in astream) == wanted[1].text
    assert astream[-1].generation == wanted[1]


@pytest.mark.parametrize("way", ["generate", "stream", "agenerate", "astream", "together"])
async def test_a_server_whose_template_refuses_is_asked_in_its_form(way: str) -> None:
    """vLLM answers 400 where Gemma's template raises: it is asked again, and the form is kept."""
    app, seen = FastAPI(), list[list[str]]()

    @app.get("/v1/models")
    async def models() -> Any:
        return {"data": [{"id": "gemma", "owned_by": "vllm"}]}

    @app.post("/v1/chat/completions")
    async def chat(body: dict[str, Any]) -> Any:
        roles = [m["role"] for m in body["messages"]]
        seen.append(roles)
        if "system" in roles or roles != (["user", "assistant"] * len(roles))[: len(roles)]:
            raise HTTPException(400, "Conversation roles must alternate user/assistant/...")
        text = body["messages"][-1]["content"]
        return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}

    turns = [Message(role="system", content="S"), Message(role="user", content="U")]
    with serving(app) as url:
        engine = load_engine(url)
        made = []
        for _ in range(2):
            request = GenerateRequest([*turns, Message(role="user", content="V")])
            if way == "agenerate":
                made.append(await engine.agenerate(request))
            elif way == "astream":
                made += [c.generation async for c in engine.astream(request) if c.generation]
            elif way == "stream":
                made += [c.generation for c in engine.stream(request) if c.generation]
            else:
                made += engine.generate([request] * (6 if way == "together" else 1))
            assert {one.text for one in made} == {"S\n\nU\n\nV"}
            asked = len(seen)
        assert seen[-1] == ["user"]
        if way != "together":
            assert asked == 1 + 6 + 1 + 1, "one refused, six to find out, one again; then at once"
        engine.close()


def test_what_is_sent(remote: OpenAIEngine, seen: list[dict[str, Any]]) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = {"name": "f", "args": {"x": "é"}, "id": "1"}
    messages = [
        Message(role="user", content="q"),
        Message(role="assistant", content="", tool_calls=[call]),
        Message(role="tool", content="r", tool_call_id="1"),
    ]
    remote.generate([GenerateRequest(messages, None, Sampling(top_p=0.5, stop=("X",)), (tool,))])
    body = seen[-1]
    assert body["authorization"] == "Bearer a-key"
    assert body["tools"][0]["function"] | {"strict": True} == body["tools"][0]["function"]
    assert body["tools"][0]["function"]["name"] == tool["function"]["name"]
    assert (body["top_p"], body["stop"]) == (0.5, ["X"])
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    function = body["messages"][1]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == {"x": "é"}
    assert body["messages"][2]["tool_call_id"] == "1"


def test_adapters_are_placed_under_safe_unique_names(
    remote: OpenAIEngine, resolver: Path, adapter_paths: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("../x", "/tmp/x", "A"):
        with pytest.raises(NameError_):
            remote.load_adapter(name, adapter_paths["a0"])
    with pytest.raises(ReleaseError, match="no adapter_config"):
        remote.load_adapter("empty", tmp_path)
    remote.load_adapter("placed", adapter_paths["a0"])
    assert sorted(p.name for p in (resolver / "placed").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    with pytest.raises(ReleaseError, match="taken"):
        remote.load_adapter("placed", adapter_paths["a1"])
    restarted = OpenAIEngine(remote._http.url, adapter_dir=resolver)
    restarted.load_adapter("placed", adapter_paths["a0"])
    other = OpenAIEngine(remote._http.url, adapter_dir=resolver)
    with pytest.raises(ReleaseError, match="by other weights"):
        other.load_adapter("placed", adapter_paths["a1"])
    assert "placed" in remote.adapters()
    remote.unload_adapter("placed")
    remote.unload_adapter("placed")
    assert not (resolver / "placed").exists()
    with pytest.raises(EngineError, match="no adapter 'placed'"):
        remote.generate([ask("x", "placed")])
    assert not [p for p in resolver.iterdir() if p.name.startswith(".")]


def test_explicit_loading_without_a_resolver_folder(
    server: str, engine: LocalEngine, adapter_paths: dict[str, Path]
) -> None:
    explicit = OpenAIEngine(server)
    explicit.load_adapter("explicit", adapter_paths["a2"])
    assert explicit.generate([ask("x", "explicit")]) == engine.generate([ask("x", "a2")])
    assert explicit.generate([ask("x")]) == engine.generate([ask("x")]), "through the stand-in"
    # another process of the service, and the server after a restart
    again = OpenAIEngine(server)
    again.load_adapter("explicit", adapter_paths["a2"])
    with pytest.raises(ReleaseError, match="taken on the server"):
        OpenAIEngine(server).load_adapter("explicit", adapter_paths["a1"])
    for name in [n for n in engine.adapters() if n == "explicit" or n.startswith("uno-base-")]:
        engine.unload_adapter(name)
    assert again.generate([ask("x", "explicit")]) == engine.generate([ask("x", "a2")])
    assert list(again.stream(ask("x")))[-1].generation == engine.generate([ask("x")])[0]
    explicit.unload_adapter("explicit")
    assert "explicit" not in engine.adapters()
    again.close()
    explicit.close()


@pytest.mark.parametrize(("trained", "route"), [("acme/tiny", "expert"), ("acme/large", "base")])
def test_a_server_elsewhere_serves_what_was_trained_by_the_same_name(
    engine: LocalEngine,
    resolver: Path,
    adapter_paths: dict[str, Path],
    tmp_path: Path,
    trained: str,
    route: str,
) -> None:
    """``vllm serve acme/tiny``, and the weights are on no disk of this machine."""
    embedder, home = TokenEmbedder(engine), Home.locate(tmp_path / "home").ensure()
    made = Path(shutil.copytree(adapter_paths["a0"], tmp_path / "made"))
    config = made / "adapter_config.json"
    config.write_text(config.read_text().replace(engine.model_name, trained))
    publish_tiny(home, engine, embedder, {"c0": made}, routes={"c0": "expert"}, base_model=trained)
    with serving(like_vllm(engine, resolver, [], root="acme/tiny")) as url:
        there = load_engine(url, adapter_dir=resolver)
        chat = UNOChatModel(home=home.root, engine=there, embedder=embedder, max_tokens=8)
        assert chat.invoke(QUERIES["c0"]).response_metadata["route"] == route
        there.close()


def test_tenants_on_one_server_reach_their_own_adapters_only(
    remote: OpenAIEngine,
    engine: LocalEngine,
    seen: list[dict[str, Any]],
    adapter_paths: dict[str, Path],
    tmp_path: Path,
) -> None:
    embedder = TokenEmbedder(engine)
    prints = {"base_fingerprint": remote.fingerprint}
    names, models = {}, {}
    for tenant, adapter in (("ours", "a0"), ("theirs", "a1")):
        place = Home.locate(tmp_path / "home", tenant)
        place.ensure()
        weights, routes = {"c0": adapter_paths[adapter]}, {"c0": "expert"}
        made = publish_tiny(place, engine, embedder, weights, routes=routes, **prints)  # type: ignore[arg-type]
        names[tenant] = f"{made}-c0-expert"
        models[tenant] = UNOChatModel(
            home=tmp_path / "home",
            namespace=tenant,
            engine=remote,
            embedder=embedder,
            max_tokens=8,
        )
    texts = {tenant: model.invoke(QUERIES["c0"]).content for tenant, model in models.items()}
    assert texts["ours"] != texts["theirs"]
    theirs = names["theirs"]
    for claim in ("model", "model_name", "adapter", "lora", "release", "namespace", "extra_body"):
        answer = models["ours"].bind(**{claim: theirs}).invoke(QUERIES["c0"])
        assert answer.content == texts["ours"], claim
        assert seen[-1]["model"] == names["ours"], claim
    config: Any = {
        "configurable": {"model": theirs, "adapter": theirs},
        "metadata": {"lora": theirs},
    }
    assert models["ours"].invoke(QUERIES["c0"], config).content == texts["ours"]
    assert seen[-1]["model"] == names["ours"]
    for model in models.values():
        model.served.serving.close()


def test_errors_are_clear(server: str, remote: OpenAIEngine) -> None:
    with pytest.raises(ModelNotFoundError, match="serves 'tiny'"):
        load_engine(server, server_model="other")
    with pytest.raises(EngineError, match="does not answer"):
        load_engine("http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match="not the URL"):
        OpenAIEngine("http:///nothing")
    remote._adapters._paths["ghost"] = Path("/nowhere")
    for way in (remote.generate, lambda r: list(remote.stream(r[0]))):
        with pytest.raises(EngineError, match="404.*ghost does not exist"):
            way([ask("x", "ghost")])
    del remote._adapters._paths["ghost"]
    closed = OpenAIEngine(server)
    closed.close()
    with pytest.raises(EngineError):
        closed.generate([ask("x")])


def test_tool_call_deltas_are_joined() -> None:
    collector = Collector(True)
    first = {"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"x"'}}
    second = {"index": 0, "function": {"arguments": ": 1}"}}
    assert collector.take({"choices": [{"delta": {"content": "Hm."}}]}) == "Hm."
    collector.take({"choices": [{"delta": {"tool_calls": [first]}}]})
    collector.take(
        {"choices": [{"delta": {"tool_calls": [second]}, "finish_reason": "tool_calls"}]}
    )
    done = collector.generation()
    assert (done.text, done.finish_reason) == ("Hm.", "tool_calls")
    assert done.tool_calls == [{"name": "f", "args": {"x": 1}, "id": "1"}]
