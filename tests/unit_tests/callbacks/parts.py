"""Chat models that say what they are told to, graphs of them, and what a home has of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_uno.home import Home
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Interaction


def model(*answers: AIMessage | str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(answers))


def logs(home: Path) -> list[Interaction]:
    with Journal(Home.locate(home).journal, readonly=True) as journal:
        return list(read(journal, join(journal)))


ASK = "How long does a refund take?"
ANSWER = "Refunds take five days."


def said(home: Path) -> dict[str, list[str]]:
    """Answer -> the words of its feedback."""
    return {log.answer: log.feedback_turns for log in logs(home)}


def own(home: Path) -> set[str]:
    """The answers that the app is taken to have asked for itself."""
    return {log.answer for log in logs(home) if "own_call" in log.tags}


def graph(*nodes: Any, saver: Any = None) -> Any:
    """The nodes in a row; each gives back an update of the messages."""
    builder = StateGraph(MessagesState)
    names = [f"node-{n}" for n in range(len(nodes))]
    for name, node in zip(names, nodes, strict=True):
        builder.add_node(name, node)
    for a, b in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(a, b)
    return builder.compile(checkpointer=saver)


def answering(text: str) -> Any:
    one = FakeListChatModel(responses=[text])
    return lambda state, config: {"messages": [one.invoke(state["messages"], config)]}


def asking(prompt: str, text: str) -> Any:
    """A node that asks a model for the app, and keeps what it says to itself."""
    one = FakeListChatModel(responses=[text])

    def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        last = state["messages"][-1].content
        one.invoke([HumanMessage(prompt.format(last))], config)
        return {}

    return node


class Tools(GenericFakeChatModel):
    """A model that takes tools and calls none."""

    def bind_tools(self, *args: Any, **kwargs: Any) -> Any:
        return self
