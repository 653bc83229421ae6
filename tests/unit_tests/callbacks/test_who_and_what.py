"""Who asked, and what of an answer is kept: thoughts, blocks without words, missing ends.

Each test names the report or the documentation that its shape is from.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.middleware import UNOMiddleware
from langchain_uno.records import person
from tests.unit_tests.callbacks.parts import (
    ANSWER,
    ASK,
    Tools,
    answering,
    graph,
    logs,
    model,
    said,
)

# -- who asks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configurable", "metadata", "user", "thread"),
    [
        # langchain #37373, langgraphjs PR #2305: user ids stay in configurable
        ({"thread_id": "t", "user_id": "u"}, {}, "u", "t"),
        ({"thread_id": "t", "langgraph_auth_user_id": "u"}, {}, "u", "t"),
        ({"session_id": "t", "userId": "u"}, {}, "u", "t"),  # RunnableWithMessageHistory's name
        ({"thread_id": "t"}, {"langfuse_user_id": "u"}, "u", "t"),  # Langfuse's docs for LangChain
        ({}, {"user_id": "u", "conversation_id": "t"}, "u", "t"),
        # whom the server let in is not the client's to say
        (
            {"thread_id": "t", "langgraph_auth_user_id": "u", "user_id": "eve"},
            {"user_id": "eve"},
            "u",
            "t",
        ),
        ({"thread_id": "t"}, {"langchain_uno_user": "", "user_id": "eve"}, None, "t"),
        # ids of databases: UUIDs (SQLAlchemy), ObjectIds in JSON, numbers of a column with gaps
        ({"thread_id": UUID(int=7)}, {"user_id": UUID(int=9)}, str(UUID(int=9)), str(UUID(int=7))),
        ({"thread_id": "t"}, {"user": {"_id": {"$oid": "65f"}}}, "65f", "t"),
        ({"thread_id": 7.0}, {"user_id": 17.0}, "17", "7"),
        # LangGraph's custom authentication: a dict, or an object with such fields
        (
            {"thread_id": "t", "langgraph_auth_user": {"identity": "u"}},
            {"user_id": "eve"},
            "u",
            "t",
        ),
    ],
)
def test_who_asked_and_where(
    handler: UNOFeedbackHandler,
    home: Path,
    configurable: dict[str, Any],
    metadata: dict[str, Any],
    user: str | None,
    thread: str,
) -> None:
    config: Any = {"callbacks": [handler], "configurable": configurable, "metadata": metadata}
    graph(answering(ANSWER)).invoke({"messages": [HumanMessage(ASK)]}, config)
    chain = ChatPromptTemplate.from_template("{x}") | model(ANSWER)
    asyncio.run(chain.ainvoke({"x": ASK}, config))
    assert [(log.user_id, log.thread_id) for log in logs(home)] == [(user, thread)] * 2


def test_the_context_of_a_graphs_run_says_who_asks(handler: UNOFeedbackHandler, home: Path) -> None:
    """LangGraph's docs, "Runtime context": ``invoke(..., context=Context(user_id=...))``."""

    @dataclass
    class Context:
        user_id: str

    agent = create_agent(Tools(messages=iter([AIMessage(ANSWER)])), [], context_schema=Context)
    given: Any = {"messages": [HumanMessage(ASK)]}
    agent.invoke(given, {"callbacks": [handler]}, context=Context("u"))
    assert [log.user_id for log in logs(home)] == ["u"]


def test_one_person_is_one_voice_however_the_name_is_written(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """Addresses in other case; blanks of a form's field; letters as macOS decomposes them."""
    who = ["zoé@example.org", " Zoe\u0301@Example.org", "ZOÉ@example.org\n", "bob", "Bob"]
    for name in who:
        answer = model("A").invoke(ASK, {"callbacks": [handler], "metadata": {"user_id": name}})
        handler.feedback(answer, comment="Shorter.", user_id=f"{name.swapcase()} ")
    found = logs(home)
    assert len({log.user_id for log in found}) == 3  # names that are no addresses stay as they are
    assert [log.user_id for log in found[:3]] == [log.feedback[0].user_id for log in found[:3]]


def test_runs_of_one_trace_are_one_persons(handler: UNOFeedbackHandler, home: Path) -> None:
    one = FakeListChatModel(responses=[ANSWER])

    def chain(text: str, config: RunnableConfig) -> None:
        for user in ("ada", None):
            metadata = {"user_id": user} if user else {}
            one.invoke(text, {"callbacks": config["callbacks"], "metadata": metadata})

    RunnableLambda(chain).invoke(ASK, {"callbacks": [handler]})
    assert [log.user_id for log in logs(home)] == ["ada", "ada"]


# -- what an answer is ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "<think>\nThe user wants days.\n</think>\n\n{}",  # dify #13692, vllm #13375
        "The user wants days.\n</think>\n\n{}",  # the opening tag stands in DeepSeek-R1's template
        "<thinking>days</thinking>{}",
        "<reasoning>days</reasoning>\n{}",
        "[THINK]days[/THINK]{}",  # Magistral's model card
        "{}\n<think>I should stop here, but",
        "<THINK>days</THINK>{}",
        # Command A Reasoning's, Apertus's and LongCat's chat templates, Hunyuan-A13B's model card
        "<|START_THINKING|>days<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
        "<|inner_prefix|>days<|inner_suffix|>{}",
        "<longcat_think>days</longcat_think>{}",
        "<think>\ndays\n</think>\n<answer>\n{}\n</answer>",
        "<antThinking>days</antThinking>{}",
        "◁think▷days◁/think▷{}",  # Kimi-VL-Thinking's model card
        "<|begin_of_thought|>days<|end_of_thought|>\n\n"
        "<|begin_of_solution|>{}<|end_of_solution|>",  # OpenThoughts, Sky-T1
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds'
        "</summary>\n> days\n</details>\n{}",  # Open WebUI's chats
        ":::thinking\ndays\n:::\n\n{}",  # LibreChat's messages
        # gpt-oss's harmony format (openai/harmony, docs/format.md)
        "<|channel|>analysis<|message|>days<|end|><|start|>assistant"
        "<|channel|>final<|message|>{}<|return|>",
    ],
)
@pytest.mark.parametrize("resent_whole", [False, True])
def test_thoughts_are_no_part_of_an_answer(
    handler: UNOFeedbackHandler, home: Path, written: str, resent_whole: bool
) -> None:
    config: RunnableConfig = {"callbacks": [handler]}
    whole = model(written.format(ANSWER)).invoke([HumanMessage(ASK)], config)
    before = whole if resent_whole else AIMessage(ANSWER)
    model("| days |").invoke([HumanMessage(ASK), before, HumanMessage("As a table.")], config)
    assert said(home) == {ANSWER: ["As a table."], "| days |": []}


@pytest.mark.parametrize(
    "text",
    [
        "Write `<think>` first.",
        "<answer>five days</answer>",
        "```xml\n<think>a</think>\n```\nis such a block.",
        "1 < 2 > 0",
        "<details><summary>Days</summary>five</details>",
        "::: note\nfive days\n:::",
        "Its format has a `<|channel|>final<|message|>` in it.",
    ],
)
def test_an_answer_about_such_tags_stays_whole(
    handler: UNOFeedbackHandler, home: Path, text: str
) -> None:
    model(text).invoke(ASK, {"callbacks": [handler]})
    assert [log.answer for log in logs(home)] == [text]


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"model_provider": "openai"}, True),
        ({"model_provider": "openai", "finish_reason": "stop"}, False),
        ({"model_provider": "openai", "id": "resp_1", "status": "completed"}, False),
        ({}, False),
        # The reasons of the providers' own documentation
        ({"model_provider": "openai", "id": "resp_1", "status": "incomplete"}, True),
        ({"model_provider": "anthropic", "stop_reason": "end_turn"}, False),
        ({"model_provider": "anthropic"}, False),  # ChatAnthropic(stream_usage=False)
        ({"model_provider": "google_genai", "finish_reason": "SAFETY"}, True),
        ({"model_provider": "google_genai", "finish_reason": "STOP"}, False),
        ({"model_provider": "google_genai"}, True),
        ({"model_provider": "ollama", "done": False}, True),
        ({"model_provider": "ollama", "done": True}, False),
        ({"finish_reason": "content_filter"}, True),
        # Anthropic, vLLM, DeepSeek, Gemini; chunks that each name the end (OpenRouter's streams)
        ({"model_provider": "anthropic", "stop_reason": "refusal"}, True),
        ({"finish_reason": "abort"}, True),
        ({"finish_reason": "insufficient_system_resource"}, True),
        ({"finish_reason": "UNEXPECTED_TOOL_CALL"}, True),
        ({"finish_reason": "errorerror"}, True),
        ({"finish_reason": "stopstop"}, False),
    ],
)
def test_an_answer_without_an_end_is_an_error(
    handler: UNOFeedbackHandler, home: Path, metadata: dict[str, Any], error: bool
) -> None:
    """ollama #17118, as LangChain's ChatOpenAI hands over a stream that was cut off."""
    model(AIMessage("Refunds take", response_metadata=metadata)).invoke(
        ASK, {"callbacks": [handler]}
    )
    [log] = logs(home)
    assert (log.error is not None) is error
    reason = metadata.get("finish_reason") or metadata.get("stop_reason")
    assert log.tags.get("finish_reason") == reason


@pytest.mark.parametrize(
    "metadata",
    [
        {"model_provider": "openai", "finish_reason": "length"},
        {"model_provider": "openai", "finish_reason": "lengthlength"},
        {"model_provider": "google_genai", "finish_reason": "FinishReason.MAX_TOKENS"},
        {"model_provider": "anthropic", "stop_reason": "max_tokens"},
        {"model_provider": "google_genai", "finish_reason": "MAX_TOKENS"},
        {
            "model_provider": "openai",
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
        },
    ],
)
def test_an_answer_cut_by_a_token_limit_is_told_apart(
    handler: UNOFeedbackHandler, home: Path, metadata: dict[str, Any]
) -> None:
    model(AIMessage("Refunds take", response_metadata=metadata)).invoke(
        ASK, {"callbacks": [handler]}
    )
    assert [log.cut for log in logs(home)] == [True]


def test_the_middleware_names_the_agents_run(home: Path) -> None:
    learnt = UNOMiddleware(home=home, mode="base")
    assert learnt.handler is not None
    agent = create_agent(Tools(messages=iter([])), [], middleware=[learnt])
    run = uuid4()
    agent.invoke({"messages": [HumanMessage(ASK)]}, {"run_id": run})
    learnt.handler.feedback(run, comment="Shorter.")
    [log] = logs(home)
    assert log.feedback_turns == ["Shorter."]
    learnt.handler.close()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (" Ada@X.org ", "ada@x.org"),
        ("tenant@AbC", "tenant@AbC"),  # no address: another one may be tenant@aBC
        ("Ab1", "Ab1"),
        ("  ", None),
    ],
)
def test_addresses_have_one_form_and_other_ids_keep_their_case(
    given: str, kept: str | None
) -> None:
    assert person(given) == kept
