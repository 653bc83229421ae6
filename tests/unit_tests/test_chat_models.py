"""UNOChatModel: what a LangChain user sees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_uno.chat_models import UNOChatModel
from langchain_uno.errors import EngineTimeoutError, InputError, ModelNotFoundError, NameError_
from langchain_uno.home import Home
from langchain_uno.messages import from_langchain
from langchain_uno.models.loading import load_embedder, load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.serving.shared import stop_serving
from langchain_uno.testing import make_tiny_adapter
from tests.unit_tests.serving.tiny_release import QUERIES, publish_tiny


@pytest.fixture(scope="module")
def engine(tiny_model_path: Path) -> Iterator[LocalEngine]:
    made = load_engine(str(tiny_model_path))
    assert isinstance(made, LocalEngine)
    yield made
    made.close()


@pytest.fixture(scope="module")
def home(
    engine: LocalEngine, tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Home:
    folder = tmp_path_factory.mktemp("chat")
    adapters = {
        c: make_tiny_adapter(folder / c, tiny_model_path, seed=i)
        for i, c in enumerate(("c0", "c1"), 1)
    }
    home = Home(folder / "home")
    publish_tiny(home, engine, load_embedder(None, engine), adapters)
    return home


@pytest.fixture(scope="module")
def model(engine: LocalEngine, home: Home) -> UNOChatModel:
    return UNOChatModel(home=home.root, engine=engine, model="tiny", max_tokens=12)


def _expected(engine: LocalEngine, text: str, adapter: str | None, n: int = 12) -> str:
    request = GenerateRequest(from_langchain([HumanMessage(text)]), adapter, Sampling(max_tokens=n))
    return engine.generate([request])[0].text


async def test_an_expert_answers_its_cluster_in_every_way(
    model: UNOChatModel, engine: LocalEngine
) -> None:
    text = QUERIES["c0"]
    answer = model.invoke(text)
    info = answer.response_metadata
    assert info["model_name"] == "tiny"
    assert (info["cluster"], info["route"]) == ("c0", "expert")
    assert info["adapter"] == f"{info['release']}-c0-expert"
    assert info["distance"] < 1e-3
    assert info["finish_reason"] == "length"
    assert answer.content == _expected(engine, text, info["adapter"])
    assert answer.content != _expected(engine, text, None)
    usage = answer.usage_metadata
    assert usage is not None
    assert usage["output_tokens"] == 12
    assert usage["total_tokens"] == usage["input_tokens"] + 12

    chunks = list(model.stream(text))
    whole = AIMessageChunk(content="")
    for chunk in chunks:
        whole = whole + chunk
    assert whole.content == answer.content
    assert whole.usage_metadata == usage
    assert whole.response_metadata == info
    assert len([c for c in chunks if c.content]) > 1

    assert (await model.ainvoke(text)).content == answer.content
    assert "".join([str(c.content) async for c in model.astream(text)]) == answer.content
    batch = await model.abatch([text, QUERIES["c2"], "?!" * 40])
    assert [m.response_metadata["route"] for m in batch] == ["expert", "base", "base"]
    assert batch[2].response_metadata["cluster"] is None, "an unseen query"


def test_it_explains_where_a_conversation_goes(model: UNOChatModel) -> None:
    choice = model.explain(QUERIES["c1"])
    assert choice is not None and choice.cluster_id == "c1"
    assert choice.top_k[0][0] == "c1" and len(choice.top_k) == 3
    follow_up = [HumanMessage(QUERIES["c1"]), AIMessage("So be it."), HumanMessage("Shorter.")]
    again = model.explain(follow_up)
    assert again is not None and again.top_k[0][0] == "c1", "a follow-up stays where its talk is"
    unseen = model.explain("?!" * 40)
    assert unseen is not None and unseen.cluster_id is None and unseen.top_k
    assert UNOChatModel(engine=model.engine).explain("anything") is None


def test_the_reflective_path_sums_usage(model: UNOChatModel) -> None:
    # Sampled, since a random model's greedy draft may be blank.
    reflective = model.bind(temperature=1.5, seed=1).invoke(QUERIES["c1"])
    assert reflective.response_metadata["route"] == "critic"
    single = UNOChatModel(home=model.home, engine=model.engine, mode="single", max_tokens=12)
    draft = single.bind(temperature=1.5, seed=1).invoke(QUERIES["c1"])
    assert draft.response_metadata["route"] == "base"
    assert draft.response_metadata["cluster"] == "c1"
    assert reflective.usage_metadata is not None
    assert draft.usage_metadata is not None
    # The critic's prompt holds query and draft, so it costs more than the draft did.
    assert reflective.usage_metadata["input_tokens"] > 2 * draft.usage_metadata["input_tokens"]
    base = model.bind(mode="base").invoke(QUERIES["c0"])
    assert base.response_metadata["route"] == "base"


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.models: list[tuple[UUID, UUID | None, dict[str, Any]]] = []
        self.chains: list[str] = []
        self.ended: list[Any] = []
        self.tokens: list[str] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.models.append((kwargs["run_id"], kwargs["parent_run_id"], kwargs["metadata"]))

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.chains.append(str(kwargs.get("name")))

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ended.append(response)


async def test_tracing_shows_one_chat_model_run(model: UNOChatModel) -> None:
    for way in ("invoke", "stream", "ainvoke", "astream"):
        recorder = Recorder()
        config: Any = {"callbacks": [recorder]}
        if way == "invoke":
            model.invoke(QUERIES["c1"], config)
        elif way == "stream":
            list(model.stream(QUERIES["c1"], config))
        elif way == "ainvoke":
            await model.ainvoke(QUERIES["c1"], config)
        else:
            _ = [c async for c in model.astream(QUERIES["c1"], config)]
        assert len(recorder.models) == len(recorder.ended) == 1, way
        _, parent, metadata = recorder.models[0]
        assert parent is None
        assert metadata["ls_provider"] == "langchain-uno"
        assert metadata["ls_model_name"] == "tiny"
        if way.endswith("invoke"):  # LangChain hands a streaming model no run to trace below
            assert "draft_critique_revise" in recorder.chains, "its steps are traced below it"
        message = recorder.ended[0].generations[0][0].message
        assert message.response_metadata["route"] == "critic"


async def test_a_chain_streams_the_critic_s_answer(model: UNOChatModel) -> None:
    """A chain has a config and no graph: there is nobody to tell of the stages."""
    chain = model | StrOutputParser()
    whole = model.invoke(QUERIES["c1"]).text
    assert "".join(chain.stream(QUERIES["c1"])) == whole
    assert "".join([piece async for piece in chain.astream(QUERIES["c1"])]) == whole
    inside = RunnableLambda(lambda asked: "".join(c.text for c in model.stream(asked)))
    assert inside.invoke(QUERIES["c1"]) == whole


async def test_inside_a_langgraph_app(model: UNOChatModel) -> None:
    def chat(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("chat", chat)
    builder.add_edge(START, "chat")
    builder.add_edge("chat", END)
    app = builder.compile()
    recorder = Recorder()
    asked: Any = {"messages": [HumanMessage(QUERIES["c0"])]}
    out = app.invoke(asked, {"callbacks": [recorder]})
    assert len(recorder.models) == 1
    assert out["messages"][-1].response_metadata["route"] == "expert"
    parts = list(app.stream(asked, stream_mode="messages", subgraphs=True))
    text = "".join(str(m.content) for _, (m, _) in parts if isinstance(m, AIMessageChunk))
    assert text == out["messages"][-1].content, "every token once"
    assert len(parts) > 2


async def test_progress_is_a_custom_event_of_the_graph_around(model: UNOChatModel) -> None:
    from langgraph.graph import END, START, MessagesState, StateGraph

    async def answer(state: MessagesState) -> Any:
        told = [c async for c in model.bind(temperature=1.5, seed=1).astream(state["messages"])]
        return {"messages": [AIMessage("".join(str(c.content) for c in told))]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    asked: Any = {"messages": [HumanMessage(QUERIES["c1"])]}
    events = [e async for e in builder.compile().astream(asked, stream_mode="custom")]
    stages = [e["stage"] for e in events if e["type"] == "progress"]
    assert stages[:2] == ["draft", "critique"]
    assert all(e["type"] == "progress" for e in events), "tokens travel as the model's own chunks"


def test_a_home_that_is_served_no_more_loads_again_when_asked(
    engine: LocalEngine, home: Home
) -> None:
    chat = UNOChatModel(home=home.root, engine=engine, max_tokens=3)
    answer, pool = chat.invoke(QUERIES["c0"]), chat.served.serving.pool
    assert answer.response_metadata["adapter"] in pool.loaded()
    stop_serving(home.root)
    assert pool.loaded() == []
    assert chat.invoke(QUERIES["c0"]).content == answer.content


def test_without_home_or_release_the_base_answers(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = UNOChatModel(engine=engine, max_tokens=3)
    answer = plain.invoke("hello")
    assert answer.response_metadata["release"] is None
    assert answer.response_metadata["route"] == "base"
    monkeypatch.setenv("LANGCHAIN_UNO_HOME", str(tmp_path / "empty"))
    fresh = UNOChatModel(engine=engine, max_tokens=3)
    assert fresh.home == str(tmp_path / "empty")
    assert fresh.invoke("hello").content == answer.content
    assert not (tmp_path / "empty").exists()


def test_loading_by_name_shares_one_engine(tiny_model_path: Path, tmp_path: Path) -> None:
    one = UNOChatModel(model=str(tiny_model_path), max_tokens=2)
    two = UNOChatModel(model=str(tiny_model_path), home=tmp_path, temperature=1.0, max_tokens=2)
    assert one.served.engine is two.served.engine
    assert one.served.serving is not two.served.serving
    assert UNOChatModel(model=str(tiny_model_path)).served is one.served
    one.served.engine.close()
    assert one.model_copy().invoke("still there?").usage_metadata is not None


def test_bad_arguments_are_clear(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no/such-model"):
        UNOChatModel(model="no/such-model").invoke("x")
    with pytest.raises(NameError_):
        UNOChatModel(engine=engine, home=tmp_path, namespace="../other").invoke("x")
    with pytest.raises(ValueError, match="mode"):
        UNOChatModel(mode="best")  # type: ignore[arg-type]
    with pytest.raises(ContextOverflowError, match="no room"):
        UNOChatModel(engine=engine).invoke("x" * 5000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"max_tokens": "many"},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"timeout": 0},
        {"mode": "best"},
    ],
)
def test_a_call_takes_no_setting_that_the_model_would_not(
    engine: LocalEngine, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        UNOChatModel(engine=engine).invoke("Hello", **wrong)


def test_stop_settings_and_per_call_overrides(engine: LocalEngine) -> None:
    model = UNOChatModel(engine=engine, max_tokens=40, temperature=2.0, seed=3)
    whole = str(model.invoke("say a lot").content)
    assert whole == model.invoke("say a lot").content
    cut = model.invoke("say a lot", stop=[whole[4:6]])
    assert cut.content == whole[: whole.index(whole[4:6])]
    assert cut.response_metadata["finish_reason"] == "stop"
    short = model.invoke("say a lot", max_tokens=2, seed=4)
    assert short.usage_metadata is not None
    assert short.usage_metadata["output_tokens"] == 2
    assert model.bind(temperature=0.0).invoke("x").content == _expected(engine, "x", None, 40)


def test_a_system_turn_changes_the_prompt(engine: LocalEngine) -> None:
    model = UNOChatModel(engine=engine, max_tokens=2)
    alone = model.invoke([HumanMessage("hi")]).usage_metadata
    both = model.invoke([SystemMessage("be brief"), HumanMessage("hi")]).usage_metadata
    assert alone is not None
    assert both is not None
    assert both["input_tokens"] > alone["input_tokens"]


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


def _forced(tokenizer: Any, text: str) -> Any:
    """A constrainer that makes the model write ``text``: tool calls without a trained model."""
    import torch

    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    class Forced:
        def __init__(self) -> None:
            self.at = 0

        def mask(self, logits: Any) -> Any:
            out = torch.full_like(logits, -torch.inf)
            out[ids[self.at]] = 0.0
            return out

        def accept(self, token: int) -> None:
            self.at += 1

    return lambda request: Forced()


async def test_tool_calls_come_out_whole_and_streamed(tiny_model_path: Path) -> None:
    from transformers import AutoTokenizer

    written = 'Wait.<tool_call>{"name": "weather", "arguments": {"city": "Zürich"}}</tool_call>'
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    engine = load_engine(str(tiny_model_path), constrainer=_forced(tokenizer, written))
    model = UNOChatModel(engine=engine, max_tokens=200)
    bound = model.bind_tools([weather], json_schema={"type": "object"})
    answer = bound.invoke("weather in Zürich?")
    assert isinstance(answer, AIMessage)
    assert answer.content == "Wait."
    assert [(c["name"], c["args"]) for c in answer.tool_calls] == [("weather", {"city": "Zürich"})]
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    whole = AIMessageChunk(content="")
    async for chunk in bound.astream("weather in Zürich?"):
        whole = whole + chunk
    assert whole.content == "Wait."
    assert [(c["name"], c["args"]) for c in whole.tool_calls] == [("weather", {"city": "Zürich"})]
    without = model.bind(json_schema={}).invoke("x")
    assert "<tool_call>" in str(without.content), "no tools were offered: it is text"
    # and back in: the template renders calls and results
    again = bound.invoke([HumanMessage("?"), answer, weather.invoke(answer.tool_calls[0])])
    assert again.content == "Wait."
    engine.close()


def test_bind_tools_and_tool_choice(model: UNOChatModel) -> None:
    def offered(**kwargs: Any) -> tuple[list[str], str]:
        bound: Any = model.bind_tools([weather, _Other], **kwargs)
        return [t["function"]["name"] for t in bound.kwargs["tools"]], bound.kwargs["tool_choice"]

    both = ["weather", "Other"]
    assert offered() == (both, "auto")
    assert offered(tool_choice="any") == offered(tool_choice=True) == (both, "required")
    assert offered(tool_choice="none") == ([], "auto")
    assert offered(tool_choice="weather") == (both, "weather")
    choice = {"type": "function", "function": {"name": "Other"}}
    assert offered(tool_choice=choice) == (both, "Other")
    with pytest.raises(InputError, match="nothing_known"):
        offered(tool_choice="nothing_known")


_Other = {
    "title": "Other",
    "description": "Another tool.",
    "type": "object",
    "properties": {"x": {"type": "integer"}},
}


def test_tools_that_are_no_functions_are_refused_and_the_flat_form_is_read(
    engine: LocalEngine,
) -> None:
    chat = UNOChatModel(engine=engine)
    for wrong in ({"type": "web_search"}, {"type": "file_search"}, "search", None, 3):
        with pytest.raises(InputError, match="tool"):
            chat.bind_tools([wrong])  # type: ignore[list-item]
    flat = {"type": "function", "name": "go", "parameters": {"type": "object", "properties": {}}}
    bound: Any = chat.bind_tools([flat], tool_choice="go")
    assert bound.kwargs["tools"][0]["function"]["name"] == "go"


def test_a_servers_key_is_shown_to_no_tracer() -> None:
    """LangChain hands ``repr(model)`` to callbacks, LangSmith and ``dumps``."""
    key = "sk-quagga-0123456789"
    for settings in ({"api_key": key}, {"model_settings": {"api_key": key}}):
        chat = UNOChatModel(model="http://127.0.0.1:9/v1", **settings)  # type: ignore[arg-type]
        shown = [repr(chat), dumps(chat), str(chat.model_dump()), str(chat._identifying_params)]
        assert not [one for one in shown if key in one]
        assert chat.model_settings["api_key"] == key


async def test_cancelling_an_async_request(engine: LocalEngine) -> None:
    model = UNOChatModel(engine=engine, max_tokens=3000)
    task = asyncio.create_task(model.ainvoke("very long"))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await model.bind(max_tokens=2).ainvoke("short")).content is not None


def test_from_langchain_takes_the_parts_out(tiny_model_path: Path) -> None:
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    raw = AutoModelForCausalLM.from_pretrained(tiny_model_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    chat = HuggingFacePipeline(pipeline=pipeline("text-generation", raw, tokenizer=tokenizer))
    for other in (chat, ChatHuggingFace(llm=chat)):
        model = UNOChatModel.from_langchain(other, max_tokens=4)
        assert model.served.engine.model is raw
        assert model.invoke("hi").usage_metadata is not None
        model.served.engine.close()
    with pytest.raises(InputError, match="no local transformers model"):
        UNOChatModel.from_langchain(object())


def test_it_describes_itself(model: UNOChatModel) -> None:
    assert model._llm_type == "langchain-uno"
    assert json.dumps(model._identifying_params)
    params = model._get_ls_params(stop=["x"], temperature=0.5)
    assert (params["ls_temperature"], params["ls_stop"]) == (0.5, ["x"])
    assert model.profile is not None
    assert model.profile["tool_calling"]
    assert UNOChatModel().model_name == "bundled"


async def test_a_timeout_ends_the_wait_in_every_way(tiny_model_path: Path) -> None:
    slow = UNOChatModel(model=str(tiny_model_path), mode="base", max_tokens=3000, timeout=0.05)
    with pytest.raises(TimeoutError, match="longer than the timeout"):
        slow.invoke("hi")
    with pytest.raises(EngineTimeoutError):
        list(slow.stream("hi"))
    with pytest.raises(EngineTimeoutError):
        await slow.ainvoke("hi")
    with pytest.raises(EngineTimeoutError):
        [_ async for _ in slow.astream("hi")]
    patient: Any = slow.bind(timeout=60.0, max_tokens=5)
    assert patient.invoke("hi").usage_metadata["output_tokens"] > 0, "and nothing was left behind"
