"""A chat model standing where an engine generates."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from langchain_uno.errors import EngineError, ModelNotFoundError
from langchain_uno.models.protocols import Engine, GenerateRequest, Sampling
from langchain_uno.models.teacher import Teacher, load_teacher
from langchain_uno.records import Message
from tests.unit_tests.learning.toy_language import ToyEngine


class Refusal(Exception):
    """As the clients of OpenAI-compatible servers raise it."""

    status_code = 400


class Echo(BaseChatModel):
    """Answers with what it was given; fails on the word "fail"."""

    seen: list[dict[str, Any]] = Field(default_factory=list)
    strict: bool = False

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = str(messages[-1].text)
        if self.strict and [m.type for m in messages] != ["human"]:
            raise Refusal
        if text == "fail":
            raise ConnectionError("secret: the user's words")
        self.seen.append(kwargs)
        message = AIMessage(
            f"{[m.type for m in messages]} {text}",
            usage_metadata={"input_tokens": 2, "output_tokens": 3, "total_tokens": 5},
            response_metadata={"finish_reason": "length" if text == "long" else "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def ask(text: str, **sampling: Any) -> GenerateRequest:
    turns = [Message(role="system", content="s"), Message(role="user", content=text)]
    return GenerateRequest(messages=turns, sampling=Sampling(**sampling))


def teacher() -> Teacher:
    return Teacher(Echo(), "echo:1", ToyEngine())  # type: ignore[arg-type]


def test_it_is_an_engine_that_answers_in_order() -> None:
    one, done = teacher(), []
    assert isinstance(one, Engine)
    out = one.generate([ask(t) for t in ("a", "b", "c", "long", "e")], done.append)
    assert [g.text.split()[-1] for g in out] == ["a", "b", "c", "long", "e"]
    assert out[0].text.startswith("['system', 'human']")
    assert [g.finish_reason for g in out] == ["stop", "stop", "stop", "length", "stop"]
    assert (out[0].usage.input_tokens, out[0].usage.output_tokens) == (2, 3)
    assert done == [1] * 5
    assert one.generate([]) == []


def test_each_request_keeps_its_own_sampling() -> None:
    model = Echo(seen=[])
    one = Teacher(model, "echo", ToyEngine())  # type: ignore[arg-type]
    texts = one.generate(
        [ask("a", temperature=0.5), ask("b", max_tokens=7), ask("c", temperature=0.5)]
    )
    assert [g.text.split()[-1] for g in texts] == ["a", "b", "c"]
    assert sorted((k["temperature"], k["max_tokens"]) for k in model.seen) == [
        (0.0, 7),
        (0.5, 512),
        (0.5, 512),
    ]


def test_failures_are_engine_errors_without_the_users_words() -> None:
    with pytest.raises(EngineError, match="ConnectionError") as caught:
        teacher().generate([ask("fail")])
    assert "secret" not in str(caught.value)
    with pytest.raises(EngineError, match="no adapters"):
        teacher().generate([GenerateRequest(messages=ask("a").messages, adapter="x")])


def test_choosing_is_the_local_engines() -> None:
    class Local(ToyEngine):
        def choose(self, prompts: Any, options: Any, on_done: Any = None) -> Any:
            return [options[0]] * len(prompts)

    one = Teacher(Echo(), "echo", Local())  # type: ignore[arg-type]
    assert one.choose([[], []], ["yes", "no"]) == ["yes", "yes"]  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("name", ["nobody:nothing", "no-such-model-anywhere"])
def test_unknown_teachers_are_named(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="can't be started"):
        load_teacher(name, ToyEngine())  # type: ignore[arg-type]


async def test_async() -> None:
    one = teacher()
    assert (await one.agenerate(ask("a"))).text.endswith("a")
    chunks = [c async for c in one.astream(ask("b"))]
    assert chunks[-1].generation is not None
    assert chunks[-1].generation.text.endswith("b")


def test_a_teacher_without_a_system_role_is_asked_in_its_form() -> None:
    model = Echo(strict=True)
    one = Teacher(model, "gemma", ToyEngine())  # type: ignore[arg-type]
    assert [g.text for g in one.generate([ask("x"), ask("y")])] == [
        "['human'] s\n\nx",
        "['human'] s\n\ny",
    ]
    turns = [Message(role="user", content="a"), Message(role="assistant", content="b")]
    with pytest.raises(EngineError, match="Refusal"):
        one.generate([GenerateRequest(turns)])
