"""The handler on real chat models, chains, agents and graphs, through LangChain's own machinery."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.errors import HomeError, InputError, StoreError
from langchain_uno.home import Home
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import FILE_NAME, Journal
from langchain_uno.records import Interaction


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def handler(home: Path) -> Iterator[UNOFeedbackHandler]:
    with UNOFeedbackHandler(home=home) as made:
        yield made


def model(*answers: AIMessage | str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(answers))


def logs(home: Path) -> list[Interaction]:
    with Journal(Home.locate(home).journal, readonly=True) as journal:
        return list(read(journal, join(journal)))


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


class Agentic(GenericFakeChatModel):
    """Takes tools, as agents ask of a model."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def call_weather(city: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "weather", "args": {"city": city}, "id": "c1"}])


def test_one_answer_with_everything_known(home: Path, handler: UNOFeedbackHandler) -> None:
    said = AIMessage(
        "Draft.",
        usage_metadata={"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
        response_metadata={
            "model_name": "qwen3-tiny",
            "release": "r1",
            "cluster": "c1",
            "route": "expert",
            "adapter": "r1-c1-expert",
        },
    )
    run_id = uuid4()
    answer = model(said).invoke(
        [SystemMessage("Be kind."), HumanMessage("请写一封信")],
        config={
            "callbacks": [handler],
            "run_id": run_id,
            "metadata": {"thread_id": "t1", "user_id": "u1"},
        },
    )
    [one] = logs(home)
    assert (one.run_id, one.root_run_id) == (str(run_id), str(run_id))
    assert [(m.role, m.content) for m in one.messages] == [
        ("system", "Be kind."),
        ("user", "请写一封信"),
    ]
    assert (one.answer, one.language, one.model) == ("Draft.", "zh", "qwen3-tiny")
    assert (one.thread_id, one.user_id, one.namespace) == ("t1", "u1", "default")
    assert one.usage and (one.usage.input_tokens, one.usage.output_tokens) == (5, 2)
    assert (one.release, one.cluster, one.route, one.adapter) == (
        "r1", "c1", "expert", "r1-c1-expert",
    )  # fmt: skip
    assert one.latency_s is not None and 0 <= one.latency_s < 60 and one.error is None
    handler.feedback(answer.id or "", score=True)
    assert logs(home)[0].score == 1.0
    assert handler.stats() == {
        "recorded": 1, "feedback": 1, "waiting": 0, "dropped": 0, "errors": 0,
    }  # fmt: skip


def test_streaming_batch_and_async(home: Path, handler: UNOFeedbackHandler) -> None:
    config: Any = {"callbacks": [handler]}
    chunks = list(model("a b c").stream("one", config))
    assert len(chunks) > 1
    model("x", "y").batch(["two", "three"], {**config, "max_concurrency": 1})

    async def later() -> None:
        await model("d e").ainvoke("four", config)
        async for _ in model("f g").astream("five", config):
            pass
        await asyncio.gather(*(model("z").ainvoke(f"many {n}", config) for n in range(20)))

    asyncio.run(later())
    found = {one.messages[0].content: one.answer for one in logs(home)}
    assert [found[q] for q in ("one", "two", "three", "four", "five")] == [
        "a b c", "x", "y", "d e", "f g",
    ]  # fmt: skip
    assert len(found) == 25 and len({one.run_id for one in logs(home)}) == 25
    handler.feedback(chunks[0].id or "", comment="shorter")
    assert [f.comment for one in logs(home) for f in one.feedback] == ["shorter"]


def test_failed_and_abandoned_runs_are_kept_as_such(
    home: Path, handler: UNOFeedbackHandler
) -> None:
    class Fails(GenericFakeChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            raise TimeoutError("no answer for a@b.org")

    with pytest.raises(TimeoutError):
        Fails(messages=iter([])).invoke("one", {"callbacks": [handler]})
    stream = model("a b c d").stream("two", {"callbacks": [handler]})
    next(stream)
    stream.close()
    one, two = logs(home)
    assert one.error == "TimeoutError: no answer for [REDACTED_EMAIL]" and one.answer == ""
    assert two.error == "cancelled (GeneratorExit)" and two.answer == "a"


def test_feedback_on_the_root_run_of_a_chain(home: Path, handler: UNOFeedbackHandler) -> None:
    chain = ChatPromptTemplate.from_template("Write about {x}") | model("Draft.")
    root = uuid4()
    chain.invoke({"x": "bees"}, {"callbacks": [handler], "run_id": root})
    [one] = logs(home)
    assert one.root_run_id == str(root) and one.run_id != str(root)
    handler.feedback(root, correction="Better.", user_id="u")
    assert logs(home)[0].correction == "Better."


def test_an_agent_with_tools(home: Path, handler: UNOFeedbackHandler) -> None:
    agent = create_agent(
        Agentic(
            messages=iter(
                [call_weather("Rome"), "It is sunny.", "- It is sunny."],
            )
        ),
        tools=[weather],
        checkpointer=InMemorySaver(),
    )
    root = uuid4()
    config: Any = {
        "callbacks": [handler],
        "configurable": {"thread_id": "t1"},
        "metadata": {"user_id": "u1"},
    }
    state = agent.invoke({"messages": [HumanMessage("Rome?")]}, {**config, "run_id": root})
    agent.invoke({"messages": [HumanMessage("In bullets, please.")]}, config)
    handler.feedback(root, score=0)
    handler.feedback(state["messages"][-1].id, comment="by message id")
    handler.feedback(state["messages"][1].id, comment="on the call")
    first, second, third = logs(home)
    assert first.tool_calls == [{"name": "weather", "args": {"city": "Rome"}, "id": "c1"}]
    assert [m.role for m in second.messages] == ["user", "assistant", "tool"]
    assert second.messages[1].tool_calls[0]["args"] == {"city": "Rome"}
    assert {one.root_run_id for one in (first, second)} == {str(root)} != {third.root_run_id}
    assert {(one.thread_id, one.user_id) for one in (first, second, third)} == {("t1", "u1")}
    assert [f.comment for f in first.feedback] == ["on the call"]
    assert [(f.key, f.comment, f.score) for f in second.feedback] == [
        ("follow_up", "In bullets, please.", None),
        ("score", None, 0.0),
        ("comment", "by message id", None),
    ]
    assert not third.feedback


def test_a_graph_with_the_handler_on_the_model_only(home: Path) -> None:
    with UNOFeedbackHandler(home=home) as handler:
        inner = GenericFakeChatModel(messages=iter(["One.", "Two."]), callbacks=[handler])
        graph = StateGraph(MessagesState)
        graph.add_node("answer", lambda state: {"messages": inner.invoke(state["messages"])})
        graph.add_edge(START, "answer")
        app = graph.compile(checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": "t"}}
        app.invoke({"messages": [HumanMessage("Count.")]}, config)
        app.invoke({"messages": [HumanMessage("Go on.")]}, config)
    one, two = logs(home)
    assert one.tags == {"node": "answer"} and one.thread_id == "t"
    assert [f.comment for f in one.feedback] == ["Go on."] and two.answer == "Two."


async def test_an_async_graph_and_models_called_in_tools(home: Path) -> None:
    inner = model("inner answer")

    @tool
    async def ask(city: str) -> str:
        """Ask another model."""
        return str((await inner.ainvoke(f"About {city}")).content)

    call = AIMessage("", tool_calls=[{"name": "ask", "args": {"city": "Rome"}, "id": "c1"}])
    agent = create_agent(Agentic(messages=iter([call, "Done."])), tools=[ask])
    root = uuid4()
    with UNOFeedbackHandler(home=home) as handler:
        await agent.ainvoke(
            {"messages": [HumanMessage("Rome?")]}, {"callbacks": [handler], "run_id": root}
        )
    found = logs(home)
    assert [one.answer for one in found] == ["", "inner answer", "Done."]
    assert {one.root_run_id for one in found} == {str(root)}


def test_follow_ups_are_found_across_restarts(home: Path) -> None:
    first = "import sys; from langchain_uno.callbacks import UNOFeedbackHandler\n" + (
        "from langchain_core.language_models.fake_chat_models import GenericFakeChatModel\n"
        "from langchain_core.messages import AIMessage, HumanMessage\n"
        "h = UNOFeedbackHandler(home=sys.argv[1])\n"
        "GenericFakeChatModel(messages=iter(['Draft.'])).invoke([HumanMessage('Write.')],"
        " {'callbacks': [h]})\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", first, str(home)], check=False).returncode == -9
    with UNOFeedbackHandler(home=home) as handler:
        history = [HumanMessage("Write."), AIMessage("Draft."), HumanMessage("Shorter!")]
        model("D.").invoke(history, {"callbacks": [handler]})
    one, two = logs(home)
    assert [(f.key, f.comment) for f in one.feedback] == [("follow_up", "Shorter!")]
    assert not two.feedback


def test_feedback_before_its_run(home: Path, handler: UNOFeedbackHandler) -> None:
    run_id = uuid4()
    handler.feedback(run_id, comment="early")
    assert logs(home) == []
    model("x").invoke("q", {"callbacks": [handler], "run_id": run_id})
    assert [f.comment for f in logs(home)[0].feedback] == ["early"]


def test_several_people_rate_and_one_changes_his_mind(
    home: Path, handler: UNOFeedbackHandler
) -> None:
    answer = model("x").invoke("q", {"callbacks": [handler]})
    run = answer.id or ""
    handler.feedback(run, score=1, user_id="a", feedback_id="f1")
    handler.feedback(run, score=1, user_id="b")
    handler.feedback(run, score=0, user_id="a", feedback_id="f1")
    found = logs(home)[0].feedback
    assert {(f.user_id, f.score) for f in found} == {("a", 0.0), ("b", 1.0)}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "says nothing"),
        ({"comment": ""}, "says nothing"),
        ({"score": 5}, "from 0"),
        ({"score": -1}, "from 0"),
        ({"score": "good"}, "from 0"),
        ({"score": float("nan")}, "from 0"),
        ({"comment": 3}, "must be text"),
        ({"value": [1]}, "scalar"),
        ({"value": float("inf")}, "finite"),
        ({"key": "x" * 300}, "longer than"),
    ],
)
def test_feedback_that_makes_no_sense_is_refused(
    handler: UNOFeedbackHandler, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        handler.feedback(uuid4(), **given)
    with pytest.raises(InputError, match="run_id"):
        handler.feedback("", score=1)


def test_personal_data_never_reaches_the_disk(home: Path) -> None:
    with UNOFeedbackHandler(home=home) as handler:
        answer = model("Dear ann@mail.example").invoke(
            "Write to ann@mail.example about 4111 1111 1111 1111",
            {"callbacks": [handler]},
        )
        handler.feedback(answer.id or "", comment="cc ann@mail.example, host 10.1.2.3")
    data = b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
    for secret in (b"ann@mail", b"4111", b"10.1.2.3"):
        assert secret not in data
    with Journal(Home.locate(home).journal, readonly=True) as journal:
        assert journal.redacted() == {"email": 3, "credit_card": 1, "ip": 1}


def test_options(home: Path, tmp_path: Path) -> None:
    with UNOFeedbackHandler(
        home=home,
        namespace="tenant-b",
        user_id="u",
        tags={"app": "1"},
        redactor=False,
        max_chars=10,
    ) as handler:
        model("0123456789abc").invoke("mail a@b.org", {"callbacks": [handler]})
    with Journal(Home.locate(home, "tenant-b").journal, readonly=True) as journal:
        [one] = read(journal, join(journal))
    assert one.messages[0].content == "mail a@b.o [...]" and one.answer == "0123456789 [...]"
    assert (one.user_id, one.tags, one.namespace) == ("u", {"app": "1"}, "tenant-b")
    with UNOFeedbackHandler(home=tmp_path / "b", record_content=False) as handler:
        model(call_weather("Rome")).invoke("secret question", {"callbacks": [handler]})
    data = (tmp_path / "b" / "journal" / FILE_NAME).read_bytes()
    assert b"secret" not in data and b"Rome" not in data
    with UNOFeedbackHandler(home=tmp_path / "c", sample_rate=0.5) as handler:
        for n in range(64):
            ident = UUID(int=(uuid4().int >> 32 << 32) | (n * 2**26))
            model("x").invoke("q", {"callbacks": [handler], "run_id": ident})
        assert handler.stats()["recorded"] == 32


@pytest.mark.parametrize("wrong", [{"sample_rate": 2}, {"max_chars": 0}])
def test_wrong_options_are_refused(home: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        UNOFeedbackHandler(home=home, **wrong)


def test_no_home_and_a_home_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LANGCHAIN_UNO_HOME", raising=False)
    with pytest.raises(InputError, match="No home was given"):
        UNOFeedbackHandler()
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="can't be written"):
        UNOFeedbackHandler(home=tmp_path / "file" / "home")


def test_a_journal_in_trouble_never_reaches_the_app(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = UNOFeedbackHandler(home=home, max_waiting=3)
    handler.raise_error = True  # LangChain would pass on whatever we raised
    other = sqlite3.connect(home / "journal" / FILE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.WARNING, "langchain_uno"):
        for n in range(5):
            assert model("x").invoke(f"private {n}", {"callbacks": [handler]}).content == "x"
    assert handler.stats()["waiting"] == 3 and handler.stats()["dropped"] == 2
    with pytest.raises(StoreError, match="locked"):
        handler.feedback(uuid4(), score=1)
    assert "locked" in caplog.text and "private" not in caplog.text
    other.execute("ROLLBACK")
    other.close()
    handler.flush()
    assert [one.messages[0].content for one in logs(home)] == [f"private {n}" for n in (2, 3, 4)]
    handler.close()
    handler.close()
    assert model("x").invoke("late", {"callbacks": [handler]}).content == "x"
    assert handler.stats()["dropped"] == 3 and len(logs(home)) == 3


def test_strange_messages_are_stored_as_text(home: Path, handler: UNOFeedbackHandler) -> None:
    handler.raise_error = True
    strange = AIMessage(
        [
            {"type": "reasoning", "reasoning": "hidden"},
            {"type": "text", "text": "Seen\ud800."},
            {"type": "image", "url": "data:..."},
        ]
    )
    model(strange).invoke(
        [HumanMessage("\ud800\x00" + "x" * 100_000), AIMessage([]), HumanMessage([{"x": 1}])],
        {"callbacks": [handler], "metadata": {"thread_id": 7, "user_id": object()}},
    )
    [one] = logs(home)
    assert one.answer == "Seen\ufffd.[image]" and one.messages[0].content.startswith("\ufffd\x00x")
    assert one.thread_id == "7" and handler.stats()["errors"] == 0


def test_arguments_that_are_not_json_are_stored(home: Path, handler: UNOFeedbackHandler) -> None:
    handler.raise_error = True
    args = {"nan": float("nan"), "set": {1}, "deep": [{"a": (1, None, True)}], "o": object}
    call = AIMessage("", tool_calls=[{"name": "f", "args": args, "id": None}])
    model(call).invoke("q", {"callbacks": [handler]})
    [one] = logs(home)
    assert one.tool_calls[0]["args"]["deep"] == [{"a": [1, None, True]}]
    assert json.dumps(one.tool_calls, allow_nan=False)


def test_many_threads_one_handler(home: Path, handler: UNOFeedbackHandler) -> None:
    def work(thread: int) -> None:
        for n in range(25):
            run = model("x").invoke(f"{thread}-{n}", {"callbacks": [handler]}).id or ""
            handler.feedback(run, score=1)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = logs(home)
    assert len(found) == 200 and all(one.score == 1.0 for one in found)
    assert handler.stats()["recorded"] == 200


def test_nothing_piles_up_in_memory(handler: UNOFeedbackHandler) -> None:
    chain = ChatPromptTemplate.from_template("{x}") | model(*["a"] * 50)
    for n in range(50):
        chain.invoke({"x": n}, {"callbacks": [handler]})
    assert not handler._open and not handler._roots
