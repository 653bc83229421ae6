"""The handler on real chat models, chains, agents and graphs, through LangChain's own machinery."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.home import Home
from langchain_uno.logs.stats import stats
from tests.unit_tests.callbacks.parts import logs, model


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
    # Feedback on an unknown answer is in the journal: the log's own figure says that it waits.
    handler.feedback("nowhere", score=0.0)
    assert handler.stats()["waiting"] == 0
    assert stats(Home(home))["waiting_feedback"] == 1


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
