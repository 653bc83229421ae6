"""What LangChain and its users ask of a chat model beside an answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.rate_limiters import InMemoryRateLimiter
from pydantic import SecretStr

from langchain_uno.chat_models import UNOChatModel
from langchain_uno.errors import EngineError, InputError
from langchain_uno.home import Home
from langchain_uno.models.loading import load_embedder, load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.releases.publish import rollback
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
def model(engine: LocalEngine) -> UNOChatModel:
    return UNOChatModel(engine=engine, max_tokens=4)


# -- Keywords --------------------------------------------------------------------------------------


# ChatOpenAI's model_name, a slip of the hand, Hugging Face's max_new_tokens, a forgotten s.
@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("model_name", "model"),
        ("temprature", "temperature"),
        ("modle", "model"),
        ("mdoe", "mode"),
        ("max_new_tokens", "max_tokens"),
        ("namespaces", "namespace"),
        ("model_kwargs", "model_settings"),
    ],
)
def test_a_wrong_keyword_is_refused_with_the_near_name(wrong: str, near: str) -> None:
    known: dict[str, Any] = {wrong: 1}
    if near == "model_settings":  # nothing is near enough: all are named
        with pytest.raises(InputError, match=wrong):
            UNOChatModel(**known)
        return
    with pytest.raises(InputError, match=rf"no '{wrong}': did you mean '{near}'\?$"):
        UNOChatModel(**known)


def test_what_every_chat_model_takes_is_taken(engine: LocalEngine) -> None:
    model = UNOChatModel(
        engine=engine,
        name="ours",
        cache=False,
        callbacks=[],
        tags=["a"],
        metadata={"b": 1},
        verbose=False,
        rate_limiter=InMemoryRateLimiter(requests_per_second=1000),
        disable_streaming=False,
        output_version="v0",
        custom_get_token_ids=None,
        max_tokens=4,
    )
    assert isinstance(model.invoke("Hi").content, str)


def test_a_server_s_key_is_passed_on_and_others_are_left_alone() -> None:
    key: dict[str, Any] = {"api_key": SecretStr("k"), "max_retries": 2, "streaming": True}
    assert UNOChatModel(model="http://127.0.0.1:9/v1", **key).model_settings == {"api_key": "k"}
    assert UNOChatModel(**key).model_settings == {}


def test_a_wrong_keyword_of_one_call_is_refused_and_others_are_left_alone(
    model: UNOChatModel,
) -> None:
    for wrong, near in (("temprature", "temperature"), ("max_token", "max_tokens")):
        with pytest.raises(InputError, match=f"did you mean '{near}'"):
            model.invoke("Hi", **{wrong: 1})
        with pytest.raises(InputError, match=f"did you mean '{near}'"):
            list(model.bind(**{wrong: 1}).stream("Hi"))
    other: dict[str, Any] = {"user": "ada", "model": "other", "stream": False, "strict": True}
    assert model.invoke("Hi", **other).content == model.invoke("Hi").content


def test_a_stop_that_is_one_text_is_one_stop(model: UNOChatModel) -> None:
    whole = model.invoke("Hi").text
    stop = f"{whole[0]}END"
    assert whole and stop not in whole
    assert model.invoke("Hi", stop=stop).text == whole  # type: ignore[arg-type]


# -- Counting --------------------------------------------------------------------------------------


def test_tokens_are_the_model_s_own(model: UNOChatModel, engine: LocalEngine) -> None:
    text = "When does the ferry leave?"
    assert model.get_token_ids(text) == engine.encode(text)
    assert model.get_num_tokens(text) == len(engine.encode(text)) > 0
    talks: list[list[BaseMessage]] = [
        [HumanMessage(text)],
        [
            SystemMessage("Be brief."),
            HumanMessage(text),
            AIMessage("At nine."),
            HumanMessage("No."),
        ],
    ]
    for talk in talks:
        used = model.invoke(talk).usage_metadata
        assert used is not None
        assert model.get_num_tokens_from_messages(talk) == used["input_tokens"]
    assert model.get_num_tokens_from_messages([]) == 0
    tool = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
    used = model.bind_tools([tool]).invoke(talks[0]).usage_metadata
    assert used is not None
    assert model.get_num_tokens_from_messages(talks[0], tools=[tool]) == used["input_tokens"]


# langchain-ai/langchain PR #25563 (bound models count), #29637 (counting while trimming).
@pytest.mark.parametrize("strategy", ["first", "last"])
def test_messages_are_trimmed_by_the_model(model: UNOChatModel, strategy: Any) -> None:
    talk: list[BaseMessage] = [SystemMessage("Be brief.")]
    for i in range(6):
        talk += [HumanMessage(f"Question {i}: when?"), AIMessage(f"At {i}.")]
    most = model.get_num_tokens_from_messages(talk) // 2
    for counter in (model, model.bind(stop=["x"])):
        kept = trim_messages(talk, max_tokens=most, token_counter=counter, strategy=strategy)
        assert 0 < len(kept) < len(talk)
        assert model.get_num_tokens_from_messages(kept) <= most


def test_a_strict_template_is_counted_all_the_same(tiny_model_path: Path) -> None:
    engine = load_engine(str(tiny_model_path))
    assert isinstance(engine, LocalEngine)
    engine.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ raise_exception('no') }}"
        "{% endif %}{{ m['content'] }}{% endfor %}"
    )
    model = UNOChatModel(engine=engine)
    words = "At nine."
    assert model.get_num_tokens_from_messages([AIMessage(words)]) == len(engine.encode(words)) + 4
    engine.close()


def test_a_server_s_tokens_are_counted_where_its_tokenizer_is_named(
    tiny_model_path: Path, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langchain_uno.models.openai_compatible import OpenAIEngine

    monkeypatch.setattr(OpenAIEngine, "_find_model", lambda *_: {"id": "served"})
    url = "http://127.0.0.1:9/v1"
    text = "When does the ferry leave?"
    named = UNOChatModel(model=url, model_settings={"tokenizer": str(tiny_model_path)})
    assert named.get_token_ids(text) == engine.encode(text)
    assert named.get_num_tokens_from_messages([HumanMessage(text)]) > len(engine.encode(text))
    plain = UNOChatModel(model=url)
    with pytest.raises(EngineError, match="name the model's tokenizer"):
        plain.get_num_tokens(text)
    own = UNOChatModel(model=url, custom_get_token_ids=lambda text: list(range(len(text))))
    assert own.get_num_tokens(text) == len(text)
    assert own.get_num_tokens_from_messages([HumanMessage(text)]) == len(text) + 4


# -- LangChain's cache -----------------------------------------------------------------------------


# langchain-ai/langchain #14590, #19328 and PR #6396: a key that leaves out what made the answer.
async def test_a_new_release_never_gives_an_old_one_s_answers(
    engine: LocalEngine, tiny_model_path: Path, tmp_path: Path
) -> None:
    place, embedder = Home(tmp_path / "home"), load_embedder(None, engine)
    releases = []
    for seed in (1, 2):
        paths = {
            c: make_tiny_adapter(tmp_path / f"{c}-{seed}", tiny_model_path, seed=seed * 10 + i)
            for i, c in enumerate(("c0", "c1"))
        }
        releases.append(publish_tiny(place, engine, embedder, paths))
    cache = InMemoryCache()
    model = UNOChatModel(home=place.root, engine=engine, cache=cache, max_tokens=4)

    def released() -> list[Any]:
        return [
            model.invoke(QUERIES["c0"]).response_metadata["release"],
            asyncio.run(model.ainvoke(QUERIES["c0"])).response_metadata["release"],
        ]

    def seen() -> list[Any]:
        for _ in range(2):  # the first may be the one that makes the model load its release
            found = released()
        return found

    for expected, change in (
        (releases[1], lambda: rollback(place)),
        (releases[0], lambda: rollback(place, "base")),
        (None, lambda: None),
    ):
        assert await asyncio.to_thread(seen) == [expected, expected]
        size = len(cache._cache)
        assert await asyncio.to_thread(released) == [expected, expected]
        assert len(cache._cache) == size  # answered by the cache
        change()
    other = UNOChatModel(home=place.root, engine=engine, cache=cache, max_tokens=5)
    before = len(cache._cache)
    other.invoke(QUERIES["c0"])
    assert len(cache._cache) == before + 1
    stop_serving(place.root)


# -- What is not text ------------------------------------------------------------------------------


# Blocks as providers' guides have them: OpenAI (Chat Completions and Responses), Anthropic, Gemini,
# Bedrock's Converse, LangChain's own of version 1.
MEDIA: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    {"type": "input_image", "image_url": "https://example.com/a.png"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa"}},
    {"type": "image", "url": "https://example.com/a.png"},
    {"type": "input_audio", "input_audio": {"data": "aa", "format": "wav"}},
    {"type": "audio", "base64": "aa", "mime_type": "audio/wav"},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "input_file", "file_id": "file-1"},
    {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
    {"type": "video", "url": "https://example.com/a.mp4"},
    {"type": "media", "mime_type": "image/png", "data": "aa"},
    {"inline_data": {"mime_type": "image/png", "data": "aa"}},
    {"image": {"format": "png", "source": {"bytes": "aa"}}},
    {"type": "text-plain", "url": "https://example.com/a.txt"},
    {"type": "image", "url": "https://example.com/a.png", "text": "A plug, from the left"},
]


@pytest.mark.parametrize(
    "block", MEDIA, ids=lambda block: str(block.get("type", next(iter(block))))
)
async def test_media_are_refused(model: UNOChatModel, block: dict[str, Any]) -> None:
    text = {"type": "text", "text": "What is this?"}
    for message in (
        HumanMessage([text, block]),
        SystemMessage([block]),
        ToolMessage([text, block], tool_call_id="1"),
    ):
        talk = [HumanMessage("Hi"), message] if message.type != "system" else [message]
        with pytest.raises(InputError, match="reads text alone"):
            model.invoke(talk)
        with pytest.raises(InputError, match="reads text alone"):
            await model.ainvoke(talk)
        with pytest.raises(InputError, match="reads text alone"):
            list(model.stream(talk))
        with pytest.raises(InputError, match="reads text alone"):
            model.get_num_tokens_from_messages(talk)


def test_text_in_blocks_is_read(model: UNOChatModel) -> None:
    plain = model.invoke([HumanMessage("Hi there"), AIMessage("Yes?"), HumanMessage("No")])
    blocks = model.invoke(
        [
            HumanMessage([{"type": "text", "text": "Hi "}, "there"]),
            AIMessage([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Yes?"}]),
            HumanMessage([{"type": "input_text", "text": "No"}]),
        ]
    )
    assert blocks.content == plain.content
    assert blocks.usage_metadata == plain.usage_metadata


# -- Many requests at once -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "most"),
    [(None, 20), ({"max_concurrency": 2}, 2), ([{}] * 20, 20)],
)
def test_a_batch_goes_in_together_unless_told_otherwise(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, config: Any, most: int
) -> None:
    together, here, seen = threading.Condition(), 0, 0

    def answer(self: Any, *args: Any, **kwargs: Any) -> ChatResult:
        nonlocal here, seen
        with together:
            here += 1
            seen = max(seen, here)
            together.notify_all()
            together.wait_for(lambda: seen >= most, 30)
        time.sleep(0.02)  # whoever else would be let in comes now
        with together:
            here -= 1
        return ChatResult(generations=[ChatGeneration(message=AIMessage("ok"))])

    monkeypatch.setattr(UNOChatModel, "_generate", answer)
    chat = UNOChatModel(engine=engine, max_tokens=4)
    assert [m.text for m in chat.batch(["hi"] * 20, config)] == ["ok"] * 20
    assert seen == most
