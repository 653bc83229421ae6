"""A vote on a root run lands on the answer that was shown, in further ways to run an app.

Each way names the report or the documentation that it is from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from langchain_uno.callbacks import UNOFeedbackHandler
from tests.unit_tests.callbacks.parts import (
    ANSWER,
    ASK,
    Tools,
    answering,
    asking,
    graph,
    model,
    said,
)

TALK = {"messages": [HumanMessage(ASK)]}


def _guarded() -> Any:
    return graph(answering(ANSWER), asking("Safe? {}", "safe"))


def _of(prompt: str, text: str) -> Any:
    return ChatPromptTemplate.from_template(prompt) | model(text) | StrOutputParser()


async def _events(app: Any, given: Any, config: RunnableConfig) -> None:
    async for _ in app.astream_events(given, config, version="v2"):
        pass


async def _stream(app: Any, given: Any, config: RunnableConfig) -> None:
    async for _ in app.astream(given, config):
        pass


def _one_update(app: Any, given: Any, config: RunnableConfig) -> None:
    next(iter(app.stream(given, config, stream_mode="updates")))


def _fallbacks() -> Any:
    tagged = FakeListChatModel(responses=[ANSWER]).with_config(tags=["main"])
    return tagged.with_fallbacks([FakeListChatModel(responses=["No."])])


@entrypoint()
def _flow(given: dict[str, str]) -> dict[str, str]:
    answer = str(model(ANSWER).invoke([HumanMessage(given["question"])]).content)
    return {"title": str(model("Days").invoke("Title of: " + answer).content), "answer": answer}


def _generator() -> Any:
    def pieces(given: Iterator[str]) -> Iterator[str]:
        for text in given:
            yield str(model(ANSWER).invoke(text).content)
            model("noted").invoke("Sum up for the log: x")

    return RunnableGenerator(pieces)


def _routed() -> Any:
    def route(state: MessagesState, config: RunnableConfig) -> Command[Any]:
        model("billing").invoke([HumanMessage("Which team? " + ASK)], config)
        return Command(goto="billing")

    builder = StateGraph(MessagesState)
    builder.add_node("route", route, destinations=("billing",))
    builder.add_node("billing", answering(ANSWER))
    builder.add_edge(START, "route")
    return builder.compile()


def _optimized() -> Any:
    def loop(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        draft = str(model("Some days.").invoke(state["messages"], config).content)
        model("too vague").invoke("Grade: " + draft, config)
        return {"messages": [model(ANSWER).invoke(f"{ASK}\nImprove: {draft}", config)]}

    return graph(loop)


def _summarized() -> Any:
    middleware = SummarizationMiddleware(
        model=FakeListChatModel(responses=["A summary."]), trigger=("messages", 2),
        keep=("messages", 1),
    )  # fmt: skip
    return create_agent(Tools(messages=iter([AIMessage(ANSWER)])), [], middleware=[middleware])


def _translated() -> Any:
    def app(text: str, config: RunnableConfig) -> str:
        draft = str(model("Fem dager.").invoke(text, config).content)
        return str(model(ANSWER).invoke("Translate: " + draft, config).content)

    return RunnableLambda(app)


Q = {"question": ASK}
LONG = {"messages": [HumanMessage("Hi."), AIMessage("Hello."), HumanMessage(ASK)]}
# name: (the app, what it is given, how it is run)
WAYS: dict[str, tuple[Any, Any, Any]] = {
    "langchain #25337, with_config before with_fallbacks": (_fallbacks, ASK, "invoke"),
    "langchain PR #36075, a stream of fallbacks": (_fallbacks, ASK, _stream),
    "langchain PR #36081, abatch of fallbacks": (_fallbacks, [ASK], "abatch"),
    "LangGraph's guide on streaming events": (_guarded, TALK, _events),
    "vercel/chatbot #1060, a client that goes away": (_guarded, TALK, _one_update),
    "LangGraph's functional API": (lambda: _flow, Q, "invoke"),
    "LangChain's RunnableGenerator": (_generator, ASK, "invoke"),
    "LangGraph's guide on routing": (_routed, TALK, "invoke"),
    "LangGraph's guide on evaluator and optimizer": (_optimized, TALK, "invoke"),
    "langchainjs #9455, history to be summed up": (_summarized, LONG, "invoke"),
    "LangChain's guide on parallel steps": (
        lambda: RunnableParallel(
            answer=model(ANSWER),
            more=RunnableLambda(lambda q: f"Suggest: {q}") | model("And?")),
        ASK, "invoke"),
    "LangChain's guide on sources": (
        lambda: RunnablePassthrough.assign(answer=_of("{question}", ANSWER)).assign(
            sources=_of("What backs {answer}?", "none")),
        Q, "ainvoke"),
    "an answer that is translated": (_translated, ASK, "invoke"),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_a_vote_on_a_root_run(handler: UNOFeedbackHandler, home: Path, name: str) -> None:
    make, given, way = WAYS[name]
    run = uuid4()
    config: RunnableConfig = {"callbacks": [handler], "run_id": run}
    done = getattr(make(), way)(given, config) if isinstance(way, str) else way(
        make(), given, config)  # fmt: skip
    if asyncio.iscoroutine(done):
        asyncio.run(done)
    handler.feedback(run, comment="Say which days count.")
    found = said(home)
    assert found.pop(ANSWER) == ["Say which days count."] and not any(found.values())
