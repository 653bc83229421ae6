"""Which trace a run belongs to where LangChain does not say, and what runs inside one name.

Each test names the report or the documentation that its shape is from.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import MessagesState
from langsmith import Client, get_current_run_tree, traceable, tracing_context

from langchain_uno.callbacks import UNOFeedbackHandler
from tests.unit_tests.callbacks.parts import (
    ANSWER,
    ASK,
    Tools,
    answering,
    asking,
    graph,
    logs,
    model,
    own,
    said,
)


class Broken(GenericFakeChatModel):
    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise RuntimeError("429")

    def _stream(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("429")


@pytest.mark.parametrize(
    "way", ["invoke", "ainvoke", "batch", "stream", "in a chain", "of chains", "of retries"]
)
def test_the_root_of_models_with_fallbacks(
    handler: UNOFeedbackHandler, home: Path, way: str
) -> None:
    """langchain #36072: the models of RunnableWithFallbacks have no parent."""
    chain: Any = Broken(messages=iter([])).with_fallbacks([FakeListChatModel(responses=[ANSWER])])
    run = uuid4()
    config: RunnableConfig = {"callbacks": [handler], "run_id": run}
    if way == "ainvoke":
        asyncio.run(chain.ainvoke(ASK, config))
    elif way == "in a chain":
        (RunnableLambda(lambda text: text) | chain).invoke(ASK, config)
    elif way == "batch":
        chain.batch([ASK], config)
    elif way == "of chains":
        good = RunnableLambda(lambda text: text) | FakeListChatModel(responses=[ANSWER])
        Broken(messages=iter([])).with_fallbacks([good]).invoke(ASK, config)
    elif way == "of retries":
        twice: Any = Broken(messages=iter([])).with_retry(
            stop_after_attempt=2, wait_exponential_jitter=False
        )
        twice.with_fallbacks([chain]).invoke(ASK, config)
    elif way == "stream":
        # A model that streams fails at its first piece.
        good = FakeListChatModel(responses=[ANSWER])
        list(
            RunnableLambda(lambda text: good.with_fallbacks([good]).invoke(text)).stream(
                ASK, config
            )
        )
    else:
        chain.invoke(ASK, config)
    handler.feedback(run, comment="Shorter.")
    assert {answer: words for answer, words in said(home).items() if answer} == {
        ANSWER: ["Shorter."]
    }


@pytest.mark.parametrize("over", [True, False])
@pytest.mark.parametrize("asks", ["chain", "model"])
def test_requests_of_a_worker_that_a_run_has_started_are_their_own(
    handler: UNOFeedbackHandler, home: Path, asks: str, over: bool
) -> None:
    """``asyncio.create_task`` copies the context of the run that starts the worker."""
    users = ("ann", "bob", "ann", "bob")

    async def answer(text: str) -> Any:
        return await model("On " + text).ainvoke(text)

    async def work(started: asyncio.Event) -> None:
        await started.wait()
        for n, user in enumerate(users):
            config: RunnableConfig = {"callbacks": [handler]}
            config["metadata"] = {"user_id": user, "thread_id": user}
            if asks == "chain":
                await RunnableLambda(answer).ainvoke(f"{user} {n}", config)
            else:
                await model(f"On {user} {n}").ainvoke(f"{user} {n}", config)

    async def app() -> None:
        started, tasks = asyncio.Event(), []

        async def first(text: str) -> str:
            tasks.append(asyncio.create_task(work(started)))
            if not over:
                started.set()
                await tasks[0]
            return str((await model(ANSWER).ainvoke(text)).content)

        config: RunnableConfig = {"callbacks": [handler], "metadata": {"user_id": "eve"}}
        assert await RunnableLambda(first).ainvoke(ASK, config) == ANSWER
        started.set()
        await tasks[0]

    asyncio.run(app())
    assert len({log.root_run_id for log in logs(home)}) == 5
    found = said(home)
    assert {text: words for text, words in found.items() if words} == {
        "On ann 0": ["ann 2"],
        "On bob 1": ["bob 3"],
    }
    assert own(home) == set()


def test_a_nameless_request_after_the_run_that_started_its_task_is_its_own(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """Whoever inherits a context inherits the user in it as well."""
    run = uuid4()

    async def app() -> None:
        started, tasks = asyncio.Event(), []

        async def later() -> None:
            await started.wait()
            chain = RunnableLambda(lambda text: model("Later.").invoke(text).content)
            await chain.ainvoke("As a table.", {"callbacks": [handler], "run_id": run})

        async def first(text: str) -> str:
            tasks.append(asyncio.create_task(later()))
            return str((await model(ANSWER).ainvoke(text)).content)

        await RunnableLambda(first).ainvoke(ASK, {"callbacks": [handler]})
        started.set()
        await tasks[0]

    asyncio.run(app())
    handler.feedback(run, comment="Shorter.")
    assert {log.answer: log.root_run_id for log in logs(home)}["Later."] == str(run)
    assert said(home)["Later."] == ["Shorter."]


@pytest.mark.parametrize("inner", ["chain", "agent"])
def test_a_run_inside_a_trace_names_its_answer(
    handler: UNOFeedbackHandler, home: Path, inner: str
) -> None:
    """LangGraph's docs, "Subgraphs": a node calls a graph or a chain."""
    run, titles = uuid4(), FakeListChatModel(responses=["Refund time"])

    def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        own: RunnableConfig = {**config, "run_id": run}
        if inner == "chain":
            chain = ChatPromptTemplate.from_template("{q}") | model(ANSWER)
            return {"messages": [chain.invoke({"q": state["messages"][-1].content}, own)]}
        agent = create_agent(Tools(messages=iter([AIMessage(ANSWER)])), [])
        return {"messages": agent.invoke(state, own)["messages"][-1:]}

    def title(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        titles.invoke("Write a title.", config)
        return {}

    graph(node, title).invoke({"messages": [HumanMessage(ASK)]}, {"callbacks": [handler]})
    handler.feedback(run, comment="Shorter.")
    assert said(home) == {ANSWER: ["Shorter."], "Refund time": []}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    "nodes",
    [
        (answering(ANSWER), asking("Write a title for: " + ASK, "Refund time")),
        (answering(ANSWER), asking("Safe or unsafe? {}", "safe")),
        (asking("Search terms for: {}", "refund days"), answering(ANSWER)),
    ],
)
def test_a_run_inside_a_trace_names_the_answer_that_it_gave_back(
    handler: UNOFeedbackHandler, home: Path, nodes: tuple[Any, ...], early: bool
) -> None:
    run, inner = uuid4(), graph(*nodes)
    given: list[str] = []

    def app(text: str, config: RunnableConfig) -> str:
        own: RunnableConfig = {**config, "run_id": run}
        last = inner.invoke({"messages": [HumanMessage(text)]}, own)["messages"][-1]
        given.append(last.id)
        return "Done."

    if early:
        handler.feedback(run, comment="Shorter.")
    RunnableLambda(app).invoke(ASK, {"callbacks": [handler]})
    if not early:
        handler.feedback(run, comment="Shorter.")
    handler.feedback(given[0], comment="In hours.")
    assert {answer: words for answer, words in said(home).items() if words} == {
        ANSWER: ["Shorter.", "In hours."]
    }
    assert ANSWER not in own(home)


@pytest.mark.parametrize("fails", [True, False])
def test_a_run_inside_a_trace_that_makes_the_question_anew(
    handler: UNOFeedbackHandler, home: Path, fails: bool
) -> None:
    """What was given back is the answer; of a run that failed, the last to the user's turn."""
    run = uuid4()

    def inner(text: str, config: RunnableConfig) -> dict[str, Any]:
        asked = model("How many days does it take?").invoke("Make anew: " + text, config).content
        answer = model(ANSWER).invoke(text if fails else asked, config)
        model("Refund time").invoke("Write a title for: " + text, config)
        if fails:
            raise RuntimeError("down")
        message = AIMessage(answer.content, id="ui-1")
        return {"messages": [HumanMessage(text), message]}

    def app(text: str, config: RunnableConfig) -> str:
        with suppress(RuntimeError):
            RunnableLambda(inner).invoke(text, {**config, "run_id": run})
        return "Done."

    RunnableLambda(app).invoke(ASK, {"callbacks": [handler]})
    handler.feedback(run, comment="Shorter.")
    if not fails:
        handler.feedback("ui-1", comment="In hours.")
    assert said(home)[ANSWER] == (["Shorter."] if fails else ["Shorter.", "In hours."])
    assert handler.stats()["errors"] == 0


def test_a_handler_on_the_model_alone_knows_the_graphs_run(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    one = FakeListChatModel(responses=[ANSWER], callbacks=[handler])
    run = uuid4()
    app = graph(lambda state, config: {"messages": [one.invoke(state["messages"], config)]})
    app.invoke({"messages": [HumanMessage(ASK)]}, {"run_id": run})
    handler.feedback(run, comment="Shorter.")
    assert said(home) == {ANSWER: ["Shorter."]}


@pytest.mark.parametrize("in_a_chain", [False, True])
def test_functions_that_langsmith_traces_name_the_answer(
    handler: UNOFeedbackHandler, home: Path, in_a_chain: bool
) -> None:
    """LangSmith's "Log user feedback" guide: the id is that of a traced function, often nested."""
    ids = {}

    @traceable
    def answer(question: str) -> None:
        ids["answer"] = _traced()
        one = FakeListChatModel(responses=[ANSWER])
        step = RunnableLambda(lambda said, config: one.invoke(said, config))
        (step if in_a_chain else one).invoke(question, {"callbacks": [handler]})

    @traceable
    def service(question: str) -> None:
        ids["service"] = _traced()
        title = FakeListChatModel(responses=["Refunds"])
        title.invoke(f"A title for: {question}", {"callbacks": [handler], "tags": ["nostream"]})
        answer(question)

    offline = Client(api_key="none", session=MagicMock(), info={}, auto_batch_tracing=False)
    with tracing_context(enabled="local", client=offline):
        service(ASK)
    for name in ("service", "answer"):
        handler.feedback(ids[name], comment=name)
    assert said(home) == {"Refunds": [], ANSWER: ["service", "answer"]}


def _traced() -> str:
    tree = get_current_run_tree()
    assert tree is not None
    return str(tree.id)
