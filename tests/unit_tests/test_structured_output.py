"""Structured output through the chat model, by every method and in every form of schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_uno import UNOChatModel
from langchain_uno.errors import InputError


class Ticket(BaseModel):
    """A request for help."""

    kind: Literal["bug", "wish"]
    words: str
    urgency: int | None = None


class TicketDict(TypedDict):
    """A request for help."""

    kind: str
    words: str


@pytest.fixture(scope="module")
def model(tiny_model_path: Path) -> UNOChatModel:
    return UNOChatModel(model=str(tiny_model_path), mode="base", max_tokens=200)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [Ticket, TicketDict, Ticket.model_json_schema()])
def test_by_schema_and_by_tool_call(model: UNOChatModel, method: Any, schema: Any) -> None:
    chain = model.with_structured_output(schema, method=method)
    found = chain.invoke("My router is down.")
    if schema is Ticket:
        assert isinstance(found, Ticket)
    else:
        assert isinstance(found, dict)
        assert {"kind", "words"} <= found.keys()


async def test_streamed_and_async(model: UNOChatModel) -> None:
    chain = model.with_structured_output(Ticket)
    assert isinstance(await chain.ainvoke("My router is down."), Ticket)
    *_, last = [part async for part in chain.astream("My router is down.")]
    assert isinstance(last, Ticket)
    *_, parts = list(model.with_structured_output(TicketDict).stream("My router is down."))
    assert {"kind", "words"} <= parts.keys()


def test_json_mode_is_any_object(model: UNOChatModel) -> None:
    assert isinstance(model.with_structured_output(method="json_mode").invoke("Hi."), dict)
    raw: Any = model.with_structured_output(Ticket, method="json_mode", include_raw=True)
    found = raw.invoke("Hi.")
    assert isinstance(found["raw"], AIMessage)
    assert found["parsed"] is None and found["parsing_error"] is not None, "keys are not promised"


def test_include_raw(model: UNOChatModel) -> None:
    found: Any = model.with_structured_output(Ticket, include_raw=True).invoke("Hi.")
    assert isinstance(found["parsed"], Ticket) and found["parsing_error"] is None
    assert Ticket.model_validate_json(found["raw"].text) == found["parsed"]


def test_openai_s_response_format_is_understood(model: UNOChatModel) -> None:
    wanted = {"type": "json_schema", "json_schema": {"schema": Ticket.model_json_schema()}}
    Ticket.model_validate_json(model.bind(response_format=wanted).invoke("Hi.").text)
    with pytest.raises(InputError, match="response_format 'xml'"):
        model.bind(response_format={"type": "xml"}).invoke("Hi.")


def test_an_agent_s_response_format(model: UNOChatModel) -> None:
    agent: Any = create_agent(model, response_format=Ticket)
    state = agent.invoke({"messages": [{"role": "user", "content": "My router is down."}]})
    assert isinstance(state["structured_response"], Ticket)


def test_an_agent_calls_its_tools(tiny_model_path: Path) -> None:
    seen: list[str] = []

    @tool
    def look_up(word: str) -> str:
        """Look a word up."""
        seen.append(word)
        return "found"

    model = UNOChatModel(model=str(tiny_model_path), mode="base", max_tokens=60)
    called: Any = model.bind_tools([look_up], tool_choice="look_up").invoke("Look it up.")
    look_up.invoke(called.tool_calls[0])
    assert seen == [called.tool_calls[0]["args"]["word"]]


@pytest.mark.parametrize(
    "bad", [("json_schema", None), ("function_calling", None), ("xml", Ticket)]
)
def test_a_method_without_its_schema_says_so(model: UNOChatModel, bad: Any) -> None:
    method, schema = bad
    with pytest.raises(InputError, match="with_structured_output"):
        model.with_structured_output(schema, method=method)


class Tree(BaseModel):
    """A thing of things."""

    name: Literal["leaf", "twig"]
    parts: list[Tree] = []


def test_a_class_that_contains_itself_binds_every_depth(model: UNOChatModel) -> None:
    """langchain #26704: LangChain's own schema of it says nothing of what is inside."""
    bound: Any = model.with_structured_output(Tree)
    schema = bound.first.kwargs["json_schema"]
    assert schema["$defs"]["Tree"]["properties"]["parts"]["items"] == {"$ref": "#/$defs/Tree"}
    nested = model.bind(json_schema={**schema, "$defs": {"Tree": {"const": 7}}})
    assert nested.invoke("Which?").text == "7"
