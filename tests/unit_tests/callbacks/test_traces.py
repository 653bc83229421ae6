"""Feedback finds the answer that the user saw, in the shapes that frameworks and providers have.

Each test names the report or the documentation that its shape is from.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.logs.exchange import find
from langchain_uno.logs.journal import Journal
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

# -- ids of answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        AIMessage(ANSWER, id="resp_0123"),  # OpenAI's Responses API (langchain #39233)
        AIMessage(ANSWER, id="msg_01XFD"),  # Anthropic
        AIMessage(ANSWER, response_metadata={"id": "chatcmpl-9a"}),  # OpenAI's chat completions
        AIMessage(ANSWER, id="gen-17", response_metadata={"id": "gen-17"}),  # OpenRouter
        AIMessage(ANSWER, id="run-0bad-not-a-uuid"),
        AIMessage(ANSWER, id="4111111111111111"),  # looks like a card's number
        AIMessage(ANSWER, id="msg_" + "a" * 400),  # GitHub Copilot's are that long
    ],
)
@pytest.mark.parametrize("early", [False, True])
def test_the_providers_id_names_the_answer(
    handler: UNOFeedbackHandler, home: Path, message: AIMessage, early: bool
) -> None:
    name = message.response_metadata.get("id") or message.id
    if early:
        handler.feedback(name, comment="Say which days count.")
    answer = model(message).invoke(ASK, config={"callbacks": [handler]})
    assert not early or said(home) == {ANSWER: ["Say which days count."]}
    if not early:
        handler.feedback(name, comment="Say which days count.")
    handler.feedback(answer.id, comment="Shorter.")
    assert said(home) == {ANSWER: ["Say which days count.", "Shorter."]}
    assert str(name)[:200] in logs(home)[0].message_ids
    assert find(handler.home, str(name))["answer"] == ANSWER


def test_an_id_with_an_address_is_kept_as_its_pseudonym(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    name = "ada@example.com/7"
    answer = model(AIMessage(ANSWER, id=name)).invoke(ASK, config={"callbacks": [handler]})
    handler.feedback(answer.id, comment="Shorter.")
    assert said(home) == {ANSWER: ["Shorter."]}
    assert not [p for p in home.rglob("*") if p.is_file() and b"ada@example" in p.read_bytes()]


def test_a_streamed_answer_has_the_providers_id_too(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    class Streams(FakeListChatModel):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            for text in ("Refunds take ", "five days."):
                yield ChatGenerationChunk(message=AIMessageChunk(text, id="resp_77"))

    chunks = list(Streams(responses=[""]).stream(ASK, {"callbacks": [handler]}))
    handler.feedback(chunks[-1].id, comment="Shorter.")
    assert said(home) == {ANSWER: ["Shorter."]}


def test_ids_that_an_app_gives_to_messages_name_the_answer(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """``add_messages`` numbers messages without an id, and keeps those that have one."""
    one = FakeListChatModel(responses=[ANSWER])

    def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [AIMessage(one.invoke(state["messages"], config).content)]}

    def named(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        text = one.invoke(state["messages"], config).content
        return {"messages": [{"role": "assistant", "content": text, "id": "my-message-1"}]}

    config: RunnableConfig = {"callbacks": [handler]}
    state = graph(node).invoke({"messages": [("user", ASK)]}, config)
    handler.feedback(state["messages"][-1].id, comment="By its number.")
    handler.feedback("my-message-1", comment="Before the run.")
    asyncio.run(graph(named).ainvoke({"messages": [("user", ASK)]}, config))
    assert [log.feedback_turns for log in logs(home)] == [["By its number."], ["Before the run."]]


def test_changing_ones_mind_works_by_every_name(handler: UNOFeedbackHandler, home: Path) -> None:
    handler.feedback("resp_1", score=1, feedback_id="thumb")
    answer = model(AIMessage(ANSWER, id="resp_1")).invoke(ASK, config={"callbacks": [handler]})
    [log] = logs(home)
    handler.feedback(log.run_id, score=0, feedback_id="thumb")
    assert [f.score for f in logs(home)[0].feedback] == [0.0]
    handler.feedback(answer.id, score=1, feedback_id="thumb")
    assert [f.score for f in logs(home)[0].feedback] == [1.0]


def test_of_ids_that_repeat_the_latest_answer_is_meant(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """Some servers give every answer the same id."""
    for text in ("One.", "Two."):
        model(AIMessage(text, id="chatcmpl-0")).invoke(ASK, config={"callbacks": [handler]})
        handler.feedback("chatcmpl-0", comment=f"On {text}")
    assert said(home) == {"One.": ["On One."], "Two.": ["On Two."]}


def test_forgotten_records_leave_no_name(handler: UNOFeedbackHandler, home: Path) -> None:
    model(AIMessage(ANSWER, id="resp_1")).invoke(ASK, config={"callbacks": [handler]})
    with Journal(handler.home.journal) as journal:
        assert set(journal.names()) == {"resp_1"}
        journal.database.write(lambda db: db.execute("DELETE FROM interactions"))
        assert journal.names() == {}


# -- what the user saw ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodes",
    [
        # a guard after the answer (NeMo-Guardrails #1547), one before it, a title (langgraph #7509)
        (answering(ANSWER), asking("Safe or unsafe? {}", "safe")),
        (asking("Does this ask for secrets? {}", "no"), answering(ANSWER)),
        (answering(ANSWER), asking("Write a title of 3 words for this talk.", "Refund time")),
        (asking("Search terms for: {}", "refund days"), answering(ANSWER), asking("{}", "fine")),
    ],
)
def test_a_trace_stands_for_the_answer_that_was_shown(
    handler: UNOFeedbackHandler, home: Path, nodes: tuple[Any, ...]
) -> None:
    run = uuid4()
    config: RunnableConfig = {"callbacks": [handler], "run_id": run}
    graph(*nodes).invoke({"messages": [HumanMessage(ASK)]}, config)
    handler.feedback(run, comment="Say which days count.")
    found = said(home)
    assert found.pop(ANSWER) == ["Say which days count."]
    assert len(found) == len(nodes) - 1 and not any(found.values())


def test_a_trace_whose_end_was_not_seen_is_told_by_the_users_turn(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    run = uuid4()

    def fails(state: MessagesState) -> dict[str, Any]:
        raise RuntimeError("down")

    nodes = (answering(ANSWER), asking("Safe or unsafe? {}", "safe"), fails)
    config: RunnableConfig = {"callbacks": [handler], "run_id": run}
    with pytest.raises(RuntimeError):
        graph(*nodes).invoke({"messages": [HumanMessage(ASK)]}, config)
    handler.feedback(run, comment="Say which days count.")
    assert said(home) == {ANSWER: ["Say which days count."], "safe": []}
    assert own(home) == {"safe"}


def test_a_question_made_anew_is_answered_by_the_answer(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """LangChain's "rephrase the question" chains: the answer is to other words than the user's."""
    rephrase = ChatPromptTemplate.from_template("Make a question of its own of: {q}") | model(
        "How many days does a refund take?"
    )
    chain = rephrase | StrOutputParser() | model(ANSWER) | StrOutputParser()
    run = uuid4()
    assert chain.invoke({"q": ASK}, {"callbacks": [handler], "run_id": run}) == ANSWER
    handler.feedback(run, comment="Say which days count.")
    assert said(home)[ANSWER] == ["Say which days count."]


def test_models_that_a_chain_asks_for_its_searches(handler: UNOFeedbackHandler, home: Path) -> None:
    """The root gives back a dict: the key tells nothing, what the user asked does."""
    search, main = FakeListChatModel(responses=["days"]), FakeListChatModel(responses=[ANSWER])

    async def chain(given: dict[str, str], config: RunnableConfig) -> dict[str, str]:
        answer = await main.ainvoke([SystemMessage("Be kind."), HumanMessage(given["q"])], config)
        found = await search.ainvoke("Name the topic of this answer.", config)
        return {"answer": str(answer.content), "topic": str(found.content)}

    run = uuid4()
    asyncio.run(RunnableLambda(chain).ainvoke({"q": ASK}, {"callbacks": [handler], "run_id": run}))
    handler.feedback(run, comment="Say which days count.")
    assert said(home) == {ANSWER: ["Say which days count."], "days": []}


class Model(BaseModel):
    question: str
    answer: str = ""


@dataclass
class Data:
    question: str
    answer: str = ""


class Fields(TypedDict, total=False):
    question: str
    answer: str
    title: str


@pytest.mark.parametrize(
    ("kind", "prompt"),
    [
        # LangGraph's docs, "Use Pydantic models for graph state", and dataclasses beside them
        (Model, "Is this safe: {}"),
        (Data, "Is this safe: {}"),
        # both prompts quote the question, and the title comes last
        (Fields, "Title: " + ASK),
    ],
)
def test_the_state_of_a_graph_may_be_of_any_kind(
    handler: UNOFeedbackHandler, home: Path, kind: Any, prompt: str
) -> None:
    main, other = FakeListChatModel(responses=[ANSWER]), FakeListChatModel(responses=["Short"])

    def answer(state: Any, config: RunnableConfig) -> dict[str, Any]:
        asked = state["question"] if kind is Fields else state.question
        return {"answer": main.invoke("Answer: " + asked, config).content}

    def more(state: Any, config: RunnableConfig) -> dict[str, Any]:
        said = other.invoke(prompt.format(ANSWER), config).content
        return {"title": said} if kind is Fields else {"answer": ANSWER}

    builder = StateGraph(kind)
    builder.add_node("first", answer)
    builder.add_node("second", more)
    for a, b in ((START, "first"), ("first", "second"), ("second", END)):
        builder.add_edge(a, b)
    run = uuid4()
    builder.compile().invoke(kind(question=ASK), {"callbacks": [handler], "run_id": run})
    handler.feedback(run, comment="Say which days count.")
    assert said(home) == {ANSWER: ["Say which days count."], "Short": []}


def test_models_in_retrievers_and_in_tools_are_of_the_trace(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """MultiQueryRetriever asks a model; an agent may be a tool, and that the root."""

    class Rewriting(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            config: RunnableConfig = {"callbacks": run_manager.get_child()}
            model("refund days").invoke("Rewrite: " + query, config)
            return []

    @tool
    def ask(question: str) -> str:
        """Answer a question."""
        Rewriting().invoke(question)
        answer = str(model(ANSWER).invoke(question).content)
        model("A summary.").invoke("Sum up for the log: " + answer)
        return answer

    run = uuid4()
    ask.invoke({"question": ASK}, {"callbacks": [handler], "run_id": run})
    handler.feedback(run, comment="Say which days count.")
    found = {log.answer: log.root_run_id for log in logs(home)}
    assert set(found.values()) == {str(run)}
    assert said(home) == {"refund days": [], ANSWER: ["Say which days count."], "A summary.": []}


def test_an_answer_that_the_app_adds_to_is_that_answer(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """Chainlit and Open WebUI: sources below the answer, and an id of the app's own."""

    run = uuid4()

    def app(text: str, config: RunnableConfig) -> AIMessage:
        model("days").invoke("Name the topic: " + text, config)
        answer = model(ANSWER).invoke(text, config)
        return AIMessage(f"{answer.content}\n\nSources: [1]", id="ui-1")

    RunnableLambda(app).invoke(ASK, {"callbacks": [handler], "run_id": run})
    handler.feedback("ui-1", comment="Say which days count.")
    handler.feedback(run, comment="Shorter.")
    assert said(home) == {"days": [], ANSWER: ["Say which days count.", "Shorter."]}


def test_a_follow_up_is_what_the_user_said_and_not_the_apps_template(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """LangChain's RAG guide: the prompt is context and question, the root gets the question."""
    template = "Use the context.\nContext: page {n}\nQuestion: {q}"
    config: RunnableConfig = {"callbacks": [handler], "metadata": {"thread_id": "t"}}
    for n, (text, answer) in enumerate([(ASK, ANSWER), ("As a table.", "| days |")]):
        chain = ChatPromptTemplate.from_template(template.replace("{n}", str(n))) | model(answer)
        chain.invoke({"q": text}, config)
    assert said(home) == {ANSWER: ["As a table."], "| days |": []}


def test_blocks_of_a_providers_own_tools_are_no_words(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """OpenAI's Responses API, Anthropic's web search, Gemini's code execution, Bedrock."""
    blocks: list[Any] = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "code_interpreter_call", "id": "ci_1"},
        {"type": "executableCode", "code": "1"},
        {"type": "non_standard", "value": {}},
        {"reasoningContent": {"reasoningText": {"text": "days"}}},
        {"type": "thought", "text": "days"},
        {"type": "text", "text": ANSWER},
        {"type": "web_search_tool_result", "content": []},
        {"type": "image", "url": "https://example.com/a.png"},
    ]
    config: RunnableConfig = {"callbacks": [handler]}
    answer = model(AIMessage(blocks)).invoke([HumanMessage(ASK)], config)
    assert answer.text == ANSWER
    picture = HumanMessage([{"type": "image_url", "image_url": {"url": "https://example.com/b"}}])
    for last in (picture, HumanMessage("As a table.")):
        model("| days |").invoke([HumanMessage(ASK), AIMessage(answer.text), last], config)
    assert said(home)[ANSWER] == ["As a table."]


@pytest.mark.parametrize(
    "marked",
    [
        {"metadata": {"lc_source": "summarization"}},  # langchainjs #9455, deepagentsjs #629
        {"metadata": {"lc_source": "tool_selection"}},
        {"tags": ["nostream"]},  # LangGraph's docs on streaming
        {"tags": ["langsmith:hidden"]},
    ],
)
def test_what_an_app_asks_for_itself_is_no_follow_up(
    handler: UNOFeedbackHandler, home: Path, marked: dict[str, Any]
) -> None:
    side = FakeListChatModel(responses=["The user asks about refunds."]).with_config(**marked)

    def beside(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        side.invoke([HumanMessage("Context: " + state["messages"][-1].content)], config)
        return {}

    answers = FakeListChatModel(responses=[ANSWER, "5 days."])

    def main(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        # The history is cut, as summaries do: the thread alone tells what follows what.
        return {"messages": [answers.invoke(state["messages"][-1:], config)]}

    app = graph(beside, main, beside, saver=InMemorySaver())
    for text in (ASK, "Shorter, please."):
        app.invoke(
            {"messages": [HumanMessage(text)]},
            {"callbacks": [handler], "configurable": {"thread_id": "t"}},
        )
    found = [(log.answer, log.feedback_turns) for log in logs(home) if log.feedback]
    assert found == [(ANSWER, ["Shorter, please."])]
    assert own(home) == {"The user asks about refunds."}


def test_an_answer_that_is_not_streamed_is_an_answer(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    one = FakeListChatModel(responses=[ANSWER, "5 days."]).with_config(tags=["nostream"])
    app = graph(
        lambda state, config: {"messages": [one.invoke(state["messages"], config)]},
        saver=InMemorySaver(),
    )
    for text in (ASK, "Shorter, please."):
        app.invoke(
            {"messages": [HumanMessage(text)]},
            {"callbacks": [handler], "configurable": {"thread_id": "t"}},
        )
    assert said(home) == {ANSWER: ["Shorter, please."], "5 days.": []}
    assert own(home) == set()


def test_a_summary_of_the_hook_before_the_model(handler: UNOFeedbackHandler, home: Path) -> None:
    """``pre_model_hook`` of create_react_agent (LangGraph's how-to on managing the history)."""
    summary = FakeListChatModel(responses=["A summary."])

    def hook(state: Any, config: RunnableConfig) -> dict[str, Any]:
        prompt = [*state["messages"], HumanMessage("Summarize the conversation above.")]
        summary.invoke(prompt, config)
        return {"llm_input_messages": state["messages"][-1:]}

    main = Tools(messages=iter([AIMessage(ANSWER), AIMessage("5 days.")]))
    agent = create_react_agent(main, [], pre_model_hook=hook, checkpointer=InMemorySaver())
    run = uuid4()
    for text, more in ((ASK, {}), ("Shorter, please.", {"run_id": run})):
        config: Any = {"callbacks": [handler], "configurable": {"thread_id": "t"}, **more}
        agent.invoke({"messages": [HumanMessage(text)]}, config)
    handler.feedback(run, comment="Good.")
    found = said(home)
    assert found == {ANSWER: ["Shorter, please."], "5 days.": ["Good."], "A summary.": []}
    assert own(home) == {"A summary."}


def test_a_guard_of_an_agents_own_middleware(handler: UNOFeedbackHandler, home: Path) -> None:
    """LangChain's docs on guardrails: a model that judges the last message in ``after_agent``."""
    judge = FakeListChatModel(responses=["SAFE"])

    class Guard(AgentMiddleware[Any, Any, Any]):
        def after_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
            judge.invoke([{"role": "user", "content": "Safe? " + state["messages"][-1].content}])
            return None

    agent = create_agent(Tools(messages=iter([AIMessage(ANSWER)])), [], middleware=[Guard()])
    run = uuid4()
    agent.invoke({"messages": [HumanMessage(ASK)]}, {"callbacks": [handler], "run_id": run})
    handler.feedback(run, comment="Good.")
    assert said(home) == {ANSWER: ["Good."], "SAFE": []}


def test_a_clients_title_prompt_takes_nobodys_place(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """Open WebUI sends its tasks as requests of their own (open-webui/pipelines #343)."""
    task = "### Task:\nGenerate a concise title.\n<chat_history>\nUSER: hi\n</chat_history>"
    for text, answer in ((ASK, ANSWER), (task, "Refund Time"), ("Shorter, please.", "5 days.")):
        model(answer).invoke(text, {"callbacks": [handler], "metadata": {"chat_id": "c"}})
    assert said(home) == {ANSWER: ["Shorter, please."], "Refund Time": [], "5 days.": []}


def test_requests_that_repeat_the_history_are_one_new_answer_each(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """raycast/extensions #27075: every request sends all messages so far."""
    talk: list[Any] = []
    for n, text in enumerate((ASK, "Shorter.", "In hours.")):
        talk.append(HumanMessage(text))
        talk.append(model(f"Answer {n}.").invoke(talk, {"callbacks": [handler]}))
    assert said(home) == {"Answer 0.": ["Shorter."], "Answer 1.": ["In hours."], "Answer 2.": []}
