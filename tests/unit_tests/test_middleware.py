"""An existing agent, routed and captured by one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.language_models import FakeListChatModel
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.logs.journal import Journal
from langchain_uno.middleware import UNOMiddleware
from langchain_uno.records import Interaction

ASK = {"messages": [{"role": "user", "content": "What is the weather in Zürich?"}]}


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


@dataclass
class User:
    user_id: str


class Ends(BaseCallbackHandler):
    """Counts answers, as an app's tracer does."""

    count = 0

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.count += 1


class Calls(AgentMiddleware[Any, Any, Any]):
    """Makes the agent's first step a tool call, so that the tool loop runs."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        first = request.messages[-1].type == "human"
        return handler(request.override(tool_choice="weather" if first else "none"))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        first = request.messages[-1].type == "human"
        return await handler(request.override(tool_choice="weather" if first else "none"))


def rows(middleware: UNOMiddleware) -> list[Interaction]:
    assert middleware.handler is not None
    with Journal(middleware.handler.home.journal, readonly=True) as journal:
        found = list(journal.interactions([row.run_id for row in journal.rows()]))
    return sorted(found, key=lambda i: i.created_at)


@pytest.fixture
def middleware(tmp_path: Path, tiny_model_path: Path) -> UNOMiddleware:
    engine = _engine(tiny_model_path)
    return UNOMiddleware(tmp_path / "home", engine=engine, mode="base", max_tokens=150)


def _engine(path: Path) -> Any:
    from langchain_uno.models.loading import load_engine

    return load_engine(str(path))


async def test_an_agent_with_tools_answers_by_uno_and_is_captured(
    middleware: UNOMiddleware,
) -> None:
    theirs = FakeListChatModel(responses=["never asked"])
    agent: Any = create_agent(
        theirs,
        [weather],
        middleware=[Calls(), middleware],
        context_schema=User,
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "t1"}}
    done = agent.invoke(ASK, config, context=User("ada"))
    kinds = [m.type for m in done["messages"]]
    assert kinds == ["human", "ai", "tool", "ai"]
    assert done["messages"][1].tool_calls[0]["name"] == "weather"
    assert "never asked" not in str(done)
    again = await agent.ainvoke(ASK, {"configurable": {"thread_id": "t2"}}, context=User("bob"))
    assert [m.type for m in again["messages"]] == kinds

    assert middleware.handler is not None
    last = done["messages"][-1]
    middleware.handler.feedback(last.id, score=0, user_id="ada")
    kept = rows(middleware)
    assert len(kept) == 4, "one interaction a model run"
    assert [(r.user_id, r.thread_id) for r in kept] == [("ada", "t1")] * 2 + [("bob", "t2")] * 2
    assert kept[0].tool_calls and kept[0].route == "base"
    with Journal(middleware.handler.home.journal, readonly=True) as journal:
        [said] = journal.feedback()
    assert said.run_id == kept[1].run_id
    middleware.handler.close()


def test_without_capture_and_with_a_handler_of_ones_own(
    tmp_path: Path, tiny_model_path: Path
) -> None:
    from langchain_uno import UNOFeedbackHandler

    model = UNOChatModel(engine=_engine(tiny_model_path), mode="base", max_tokens=5)
    bare = UNOMiddleware(model=model, handler=False)
    assert bare.handler is None
    agent: Any = create_agent(FakeListChatModel(responses=["x"]), middleware=[bare])
    assert agent.invoke(ASK)["messages"][-1].content != "x"
    own = UNOFeedbackHandler(home=tmp_path / "home")
    assert UNOMiddleware(model=model, handler=own).handler is own
    own.close()


def test_a_model_keeps_the_callbacks_that_it_came_with(
    tmp_path: Path, tiny_model_path: Path
) -> None:
    for given in ([Ends()], CallbackManager([Ends()])):
        theirs = getattr(given, "handlers", given)[0]
        model = UNOChatModel(engine=_engine(tiny_model_path), max_tokens=4, callbacks=given)
        with UNOFeedbackHandler(home=tmp_path / "home") as handler:
            middleware = UNOMiddleware(model=model, handler=handler)
            middleware.model.invoke("Hi")
            assert (theirs.count, handler.stats()["recorded"]) == (1, 1)
