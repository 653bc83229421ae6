"""A chat model standing where an engine generates."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from langchain_uno.errors import EngineDownError, EngineError, ModelNotFoundError
from langchain_uno.learning.distil import distil
from langchain_uno.models.answers import Answers, key_of
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.models.protocols import Engine, GenerateRequest, Sampling
from langchain_uno.models.teacher import Teacher, load_teacher, teacher_notes
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Message
from tests.unit_tests.learning.toy_language import ToyPrompts, log


class Refusal(Exception):
    """As the clients of OpenAI-compatible servers raise it."""

    status_code = 400


_ENDS = {"long": "length", "withheld": "content_filter"}


class Echo(BaseChatModel):
    """Answers with what it was given; fails on the word "fail"."""

    seen: list[dict[str, Any]] = Field(default_factory=list)
    strict: bool = False
    base_url: str = ""

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
        if text.endswith("refuse"):
            raise Refusal("content filter: the user's words")
        if text == "fail":
            raise ConnectionError("secret: the user's words")
        self.seen.append(kwargs)
        message = AIMessage(
            f"{[m.type for m in messages]} {text}",
            usage_metadata={"input_tokens": 2, "output_tokens": 3, "total_tokens": 5},
            response_metadata={"finish_reason": _ENDS.get(text, "stop")},
        )
        if text == "empty":
            message.content = " "
        return ChatResult(generations=[ChatGeneration(message=message)])


def ask(text: str, **sampling: Any) -> GenerateRequest:
    turns = [Message(role="system", content="s"), Message(role="user", content=text)]
    return GenerateRequest(messages=turns, sampling=Sampling(**sampling))


def teacher() -> Teacher:
    return Teacher(Echo(), "echo:1")


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
    one = Teacher(model, "echo")
    texts = one.generate(
        [ask("a", temperature=0.5), ask("b", max_tokens=7), ask("c", temperature=0.5)]
    )
    assert [g.text.split()[-1] for g in texts] == ["a", "b", "c"]
    assert sorted((k["temperature"], k["max_tokens"]) for k in model.seen) == [
        (0.0, 7),
        (0.5, 512),
        (0.5, 512),
    ]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_uno.models.teacher.PAUSE_S", 0.0)


def test_one_call_that_fails_costs_its_own_answer_alone() -> None:
    one = teacher()
    out = one.generate([ask(t) for t in ("a", "fail", "b")])
    assert [g.finish_reason for g in out] == ["stop", "failed", "stop"]
    assert out[1].text == ""
    [note] = teacher_notes(one)
    assert note.startswith("1 calls of the teacher 'echo:1' failed") and "ConnectionError" in note
    assert teacher_notes(teacher()) == []


def test_a_call_that_fails_is_made_once_more() -> None:
    class Flaky(Echo):
        def _generate(self, messages: list[BaseMessage], *args: Any, **more: Any) -> ChatResult:
            self.seen.append({})
            if len(self.seen) == 1:
                raise ValueError("a line of JSON that ends in the middle")
            return super()._generate(messages, *args, **more)

    model = Flaky(seen=[])
    one = Teacher(model, "flaky")
    assert one.generate([ask("a")])[0].text.endswith("a")
    assert len(model.seen) == 3 and not one.failures


def test_a_teacher_that_is_down_ends_the_call_without_the_users_words() -> None:
    one = teacher()
    with pytest.raises(EngineDownError, match="5 times in a row: ConnectionError") as caught:
        one.generate([ask("fail")] * 40)
    assert "secret" not in str(caught.value)
    with pytest.raises(EngineError, match="no adapters"):
        teacher().generate([GenerateRequest(messages=ask("a").messages, adapter="x")])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_requests_that_are_refused_cost_their_own_answers_alone(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(Refusal, "status_code", status)
    one = teacher()
    out = one.generate([ask("refuse")] * 20 + [ask("a")])
    assert [g.finish_reason for g in out] == ["failed"] * 20 + ["stop"]
    assert one.failures == {"Refusal": 20}
    # They reset nothing either.
    for text in ["fail", "refuse"] * 4:
        assert one.generate([ask(text)])[0].finish_reason == "failed"
    with pytest.raises(EngineDownError, match="5 times in a row"):
        one.generate([ask("fail")])


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_refusals_of_everything_end_the_call(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(Refusal, "status_code", status)
    with pytest.raises(EngineDownError, match="5 times in a row: Refusal"):
        teacher().generate([ask("refuse")] * 20)


def test_a_call_is_made_once_more_until_two_have_failed() -> None:
    asked: list[str] = []

    class Counting(Echo):
        def _generate(self, messages: list[BaseMessage], *args: Any, **more: Any) -> ChatResult:
            asked.append(str(messages[-1].text))
            return super()._generate(messages, *args, **more)

    one = Teacher(Counting(), "echo")
    for text in ("refuse", "refuse", "refuse", "fail", "fail", "fail"):
        one.generate([ask(text)])
    assert asked == ["refuse", "s\n\nrefuse"] * 3 + ["fail"] * (2 + 2 + 1)


@pytest.mark.parametrize("name", ["nobody:nothing", "no-such-model-anywhere"])
def test_unknown_teachers_are_named(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="can't be started"):
        load_teacher(name)


async def test_async() -> None:
    one = teacher()
    assert (await one.agenerate(ask("a"))).text.endswith("a")
    chunks = [c async for c in one.astream(ask("b"))]
    assert chunks[-1].generation is not None
    assert chunks[-1].generation.text.endswith("b")


def test_a_teacher_without_a_system_role_is_asked_in_its_form() -> None:
    model = Echo(strict=True)
    one = Teacher(model, "gemma")
    assert [g.text for g in one.generate([ask("x"), ask("y")])] == [
        "['human'] s\n\nx",
        "['human'] s\n\ny",
    ]
    turns = [Message(role="user", content="a"), Message(role="assistant", content="b")]
    assert one.generate([GenerateRequest(turns)])[0].finish_reason == "failed"
    assert one.failures == {"Refusal": 1}


def test_answers_are_kept_and_asked_for_once(tmp_path: Path) -> None:
    model = Echo(seen=[])
    for _ in range(2):
        one = Teacher(model, "echo")
        one.keep_answers(tmp_path / "answers.sqlite3")
        first = one.generate([ask("a"), ask("b", seed=1), ask("b", seed=2), ask("long")])
        one.close()
    assert [g.text.split()[-1] for g in first] == ["a", "b", "b", "long"]
    assert first[3].finish_reason == "length" and first[0].usage.output_tokens == 3
    assert len(model.seen) == 4
    other = Teacher(model, "another")
    other.keep_answers(tmp_path / "answers.sqlite3")
    other.generate([ask("a")])
    other.close()
    assert len(model.seen) == 5


def test_a_failed_call_is_not_kept(tmp_path: Path) -> None:
    one = teacher()
    one.keep_answers(tmp_path / "answers.sqlite3")
    for _ in range(2):
        assert one.generate([ask("fail"), ask("a")])[0].finish_reason == "failed"
    assert one.failures == {"ConnectionError": 2}
    one.close()


def test_what_is_empty_or_withheld_is_no_answer_and_not_kept(tmp_path: Path) -> None:
    one = teacher()
    one.keep_answers(tmp_path / "answers.sqlite3")
    for _ in range(2):
        out = one.generate([ask("empty"), ask("withheld"), ask("a")])
        assert [(g.finish_reason, g.text[-1:]) for g in out] == [
            ("failed", ""),
            ("failed", ""),
            ("stop", "a"),
        ]
    assert one.failures == {"empty or withheld": 4}
    one.close()


def test_an_answer_that_cannot_be_read_is_asked_for_again(tmp_path: Path) -> None:
    model = Echo()
    one = Teacher(model, "echo")
    one.keep_answers(tmp_path / "answers.sqlite3")
    item = JudgeItem([Message(role="user", content="q")], [], "an answer")
    recipe = load_recipe("default")
    for n in (1, 2):
        assert judge([item], one, ToyPrompts(), recipe) == [None]  # type: ignore[arg-type]
        assert len(model.seen) == n
    for n in (3, 4):
        [found] = distil(
            [log("a", "q", "text", "please sing")],
            one,
            ToyPrompts(),  # type: ignore[arg-type]
            recipe,
        )
        assert found.outcome == "unparsable" and len(model.seen) == n
    one.close()


def test_another_server_gives_other_answers(tmp_path: Path) -> None:
    for url, asked in (("http://a/v1", 1), ("http://b/v1", 1), ("http://a/v1", 0)):
        model = Echo(base_url=url)
        one = Teacher(model, "echo")
        one.keep_answers(tmp_path / "answers.sqlite3")
        one.generate([ask("a")])
        one.close()
        assert len(model.seen) == asked


def test_a_damaged_file_of_answers_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite3"
    path.write_bytes(b"no database at all" * 100)
    one = teacher()
    one.keep_answers(path)
    assert one.generate([ask("a")])[0].text.endswith("a")
    one.close()


def test_answers_that_nobody_asks_for_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers.sqlite3"
    now = time.time()
    for text, days in (("old", 0), ("new", 60), ("new", 100)):
        monkeypatch.setattr(time, "time", lambda days=days: now + days * 86_400)
        one = teacher()
        one.keep_answers(path)
        one.generate([ask(text)])
        one.close()
    kept = Answers(path)
    assert kept.get(key_of("teacher:echo:1", ask("new"))) is not None
    assert kept.get(key_of("teacher:echo:1", ask("old"))) is None
    kept.close()
