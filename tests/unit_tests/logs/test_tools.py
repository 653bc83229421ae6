"""What further tools export: each row asks and answers the same, and has a remark on the answer.

The names say whose export it is; shapes are those of their documentation or source.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines, import_file
from langchain_uno.logs.filters import spoken
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal

ASKED, SAID, WISH = "Where is the ferry?", "At quay 6.", "Say which gate."
U = {"role": "user", "content": ASKED}
A = {"role": "assistant", "content": SAID}
DONE = {"choices": [{"message": A}]}
ID = "0190aaaa-0000-7000-8000-00000000000{}"
TIME = "2025-05-01T10:00:00"
DOWN = (0.0, WISH, "u2")

STEPS = [
    {"id": ID.format(1), "type": "user_message", "output": ASKED, "createdAt": TIME},
    {"id": ID.format(3), "type": "llm", "output": "x", "createdAt": TIME},
    {"id": ID.format(2), "type": "assistant_message", "output": SAID, "createdAt": TIME},
]
LANGFUSE = {
    "id": "t1", "timestamp": TIME, "sessionId": "s", "userId": "u2", "input": [U], "output": A
}  # fmt: skip

# name: (rows, (score, words, who said it) of the one piece of feedback)
TOOLS: dict[str, tuple[Any, tuple[Any, Any, Any]]] = {
    "Dify, a message": (
        {
            "id": "m", "conversation_id": "c", "query": ASKED, "answer": SAID, "created_at": TIME,
            "feedbacks": [{"rating": "dislike", "content": WISH, "from_end_user_id": "u2"}],
            "from_end_user_id": "u1",
        },
        DOWN,
    ),
    "Dify, feedback by itself": (
        [
            {"id": ID.format(2), "conversation_id": "c", "query": ASKED, "answer": SAID,
             "created_at": TIME},
            {"id": "f", "message_id": ID.format(2), "conversation_id": "c", "rating": "dislike",
             "content": WISH, "from_end_user_id": "u2"},
        ],
        DOWN,
    ),
    "Flowise, messages of the API": (
        [
            {"id": "1", "role": "userMessage", "content": ASKED, "sessionId": "s",
             "createdDate": TIME},
            {"id": "2", "role": "apiMessage", "content": SAID, "sessionId": "s",
             "createdDate": TIME, "user_id": "u2",
             "feedback": {"rating": "THUMBS_DOWN", "content": WISH, "userId": "u2"}},
        ],
        DOWN,
    ),
    "MLflow, a trace": (
        {
            "info": {
                "trace_id": "t", "request_time": TIME,
                "trace_metadata": {"mlflow.trace.user": "u1"},
                "assessments": [{"assessment_name": "thumb", "feedback": {"value": False},
                                 "rationale": WISH, "source": {"source_id": "u2"}}],
            },
            "data": {"request": json.dumps({"messages": [U]}), "response": json.dumps(DONE)},
        },
        DOWN,
    ),
    "Opik, a trace": (
        {"id": "o", "input": {"messages": [U]}, "output": DONE, "start_time": TIME,
         "feedback_scores": [{"name": "f", "value": 0.0, "reason": WISH, "created_by": "u2"}]},
        DOWN,
    ),
    "Weave, a call": (
        {"id": "w", "inputs": {"messages": [U]}, "output": DONE, "started_at": TIME,
         "summary": {"weave": {"feedback": [{"feedback_type": "wandb.reaction.1",
                                             "payload": {"emoji": "👎"}, "wb_user_id": "u2"}]}}},
        (0.0, None, "u2"),
    ),
    "Argilla, a record": (
        {"fields": {"chat": [U, A]}, "metadata": {"created_at": TIME},
         "responses": {"wish": [{"value": WISH, "user_id": "u2"}]}},
        (None, WISH, "u2"),
    ),
    "Argilla, a table": (
        {"prompt": ASKED, "response": SAID, "created_at": TIME, "wish.responses": [WISH],
         "wish.responses.users": ["u2"]},
        (None, WISH, "u2"),
    ),
    "Langfuse, a table of traces": ({**LANGFUSE, "tags": [], "thumb": [0]}, (0.0, None, "u2")),
    "Langfuse, a table of words": ({**LANGFUSE, "user-feedback": ["down"]}, (0.0, None, "u2")),
    "Langfuse, a downloaded trace": (
        {"trace": LANGFUSE,
         "observations": [{"id": "o", "traceId": "t1", "type": "GENERATION", "startTime": TIME,
                           "input": json.dumps([U]), "output": json.dumps(A)}],
         "scores": [{"id": "s", "traceId": "t1", "name": "thumb", "value": 0, "comment": WISH,
                     "dataType": "NUMERIC", "authorUserId": "u2"}]},
        DOWN,
    ),
    "Chainlit, a thread": (
        {"id": "t", "userId": "u2", "steps": [*STEPS[:2], {
            **STEPS[2], "feedback": {"forId": ID.format(2), "value": 0, "comment": WISH}}]},
        DOWN,
    ),
    "Chainlit, tables": (
        [{**STEPS[0], "threadId": "t"}, {**STEPS[2], "threadId": "t"},
         {"id": "f", "forId": ID.format(2), "value": 0, "comment": WISH, "userId": "u2"}],
        DOWN,
    ),
    "Vercel's chatbot, votes": (
        [{"id": ID.format(1), "chatId": "c", "role": "user", "createdAt": TIME,
          "parts": [{"type": "text", "text": ASKED}]},
         {"id": ID.format(2), "chatId": "c", "role": "assistant", "createdAt": TIME,
          "parts": [{"type": "text", "text": SAID}]},
         {"chatId": "c", "messageId": ID.format(2), "isUpvoted": False}],
        (0.0, None, None),
    ),
    "Gradio, a liked message": (
        {"conversation": json.dumps([U, A]), "index": "1", "flag": "Dislike", "timestamp": TIME},
        (0.0, None, None),
    ),
    "Helicone, feedback of a request": (
        {"request_id": "h", "request_created_at": TIME, "request_body": {"messages": [U]},
         "response_body": DONE, "request_user_id": "u2", "request_feedback": {"rating": False}},
        (0.0, None, "u2"),
    ),
}  # fmt: skip


SCORE = {"name": "h", "value": 0.0, "reason": WISH, "comment": WISH}
SPAN = {
    "name": "llm", "context": {"span_id": "a" * 16, "trace_id": "b" * 32},
    "attributes": {"user.id": "u2", "llm.input_messages": [U], "llm.output_messages": [A]},
}  # fmt: skip
RAN = {"id": "b", "input": [U], "output": DONE, "metadata": {"user_id": "u2"}}


def _annotation(kind: str) -> list[dict[str, Any]]:
    given = {"label": "hallucinated", "score": 0, "explanation": WISH}
    return [SPAN, {"id": "a", "annotator_kind": kind, "name": "h", "result": given,
                   "span_id": "a" * 16, "identifier": "judge"}]  # fmt: skip


def _assessed(kind: str) -> dict[str, Any]:
    source = {"source_type": kind, "source_id": "openai:/gpt-4o"}
    given = {"assessment_name": "h", "source": source, "feedback": {"value": "no"},
             "rationale": WISH}  # fmt: skip
    return {
        "info": {"trace_id": "t", "trace_metadata": {"mlflow.trace.user": "u2"},
                 "assessments": [given]},
        "data": {"request": json.dumps({"messages": [U]}), "response": json.dumps(DONE)},
    }  # fmt: skip


MACHINES: dict[str, tuple[Any, str]] = {  # what wrote of the answer, and what is kept as its source
    "Phoenix, a model": (_annotation("LLM"), "LLM"),
    "Phoenix, code": (_annotation("CODE"), "CODE"),
    "MLflow, a model": (_assessed("LLM_JUDGE"), "LLM_JUDGE"),
    "MLflow, an older model": (_assessed("AI_JUDGE"), "AI_JUDGE"),
    "MLflow, code": (_assessed("CODE"), "CODE"),
    "Opik, a rule": (
        {**RAN, "feedback_scores": [{**SCORE, "source": "online_scoring", "created_by": "admin"}]},
        "online_scoring",
    ),
    "Braintrust, a log": ({**RAN, "scores": {"Factuality": 0, "thumb": 1}}, "eval"),
    "Helicone, scores": ({**RAN, "scores": {"right": {"value": 1, "valueType": "number"}}}, "eval"),
    "Literal AI, a model": ({**RAN, "scores": [{**SCORE, "type": "AI"}]}, "AI"),
    "Langfuse, an evaluator": (
        [LANGFUSE, {**SCORE, "id": "s", "traceId": "t1", "source": "EVAL", "dataType": "NUMERIC",
                    "authorUserId": "u2"}],
        "EVAL",
    ),
}  # fmt: skip


RECORD = {"fields": {"prompt": ASKED, "response": SAID}, "metadata": {}}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({**RECORD, "responses": {"wish": [
            {"value": WISH, "user_id": "u1", "status": "discarded"},
            {"value": WISH, "user_id": "u2", "status": "draft"},
            {"value": "Shorter.", "user_id": "u3", "status": "submitted"}]}},
         [("wish", None, "Shorter.", "u3")]),
        ({"prompt": ASKED, "response": SAID, "wish.responses": [WISH, "Shorter."],
          "wish.responses.users": ["u1", "u2"],
          "wish.responses.status": ["discarded", "submitted"]},
         [("wish", None, "Shorter.", "u2")]),
        ({**RECORD, "responses": {"topics": [{"value": ["ferry", "quay"], "user_id": "u1"}]}},
         [("topics", '["ferry", "quay"]', None, "u1")]),
        ({**RECORD, "responses": {"best": [{"value": [{"value": "a", "rank": 1}]}]}},
         [("best", '[{"value": "a", "rank": 1}]', None, None)]),
        ({"messages": [U, A], "survey.responses": "great"}, []),
        ({"messages": [U, A], "survey.responses": ["great"], "survey.responses.users": "ann"},
         [("survey", None, "great", None)]),
    ],
)  # fmt: skip
def test_answers_of_annotators(
    home: Home, tmp_path: Path, row: dict[str, Any], expected: list[Any]
) -> None:
    [log] = bring(home, tmp_path, json.dumps(row))
    found = [(f["key"], *map(f.get, ("value", "comment", "user_id"))) for f in log["feedback"]]
    assert found == expected


@pytest.mark.parametrize("word", ["nan", "Infinity", "-inf", "1e999"])
@pytest.mark.parametrize("name", ["feedback", "comment", "rating"])
def test_a_number_that_is_none_is_a_word(home: Home, tmp_path: Path, name: str, word: str) -> None:
    [log] = bring(home, tmp_path, json.dumps({"messages": [U, A], name: word}))
    [said] = log["feedback"]
    assert said.get("score") is None and word in (said.get("comment"), said.get("value"))


def test_a_span_takes_as_long_as_its_turns(home: Home, tmp_path: Path) -> None:
    turns = [dict(one, content=f"{n} {one['content']}") for n in range(3000) for one in (U, A)]
    row = {**SPAN, "attributes": {"llm.input_messages": [*turns, U], "llm.output_messages": [A]}}
    start = time.process_time()
    [log] = bring(home, tmp_path, json.dumps(row))
    assert time.process_time() - start < 5
    assert len(log["messages"]) == 6002


PRIVATE = "I hate my boss Carl, help me write to him."
TABLE = [
    {**U, "conversation_id": "t1", "user_id": "ann"},
    {**A, "conversation_id": "t1", "user_id": "ann"},
    {"role": "user", "content": PRIVATE, "conversation_id": "t2", "user_id": "eve"},
    {"role": "assistant", "content": "Dear Carl.", "conversation_id": "t2", "user_id": "eve"},
]
CHAINLIT = [
    {**step, "threadId": f"t{n}", "id": ID.format(at + 2 * n)}
    for n in (1, 2)
    for at, step in enumerate((STEPS[0], STEPS[2]))
]


@pytest.mark.parametrize(
    "given",
    [
        {"messages": TABLE}, {"history": TABLE}, {"data": TABLE}, TABLE, [TABLE],
        {"messages": TABLE, "id": "export"}, {"messages": TABLE[::2] + TABLE[1::2]},
        {"steps": CHAINLIT}, {"messages": CHAINLIT},
    ],
)  # fmt: skip
def test_a_table_of_messages_is_several_conversations(
    home: Home, tmp_path: Path, given: Any
) -> None:
    logs = bring(home, tmp_path, json.dumps(given))
    assert [(len(log["messages"]), log["feedback"]) for log in logs] == [(2, []), (2, [])]
    assert [log["thread_id"] for log in logs] == ["t1", "t2"]
    if given not in ({"steps": CHAINLIT}, {"messages": CHAINLIT}):
        assert [log["user_id"] for log in logs] == ["ann", "eve"]


def test_a_table_of_messages_in_a_cell(home: Home, tmp_path: Path) -> None:
    cell = json.dumps(TABLE).replace('"', '""')
    logs = bring(home, tmp_path, f'id,messages\n1,"{cell}"\n')
    assert [log["thread_id"] for log in logs] == ["t1", "t2"]


def test_the_user_beside_a_table_of_messages_is_kept(home: Home, tmp_path: Path) -> None:
    table = [{k: v for k, v in one.items() if k != "user_id"} for one in TABLE]
    logs = bring(home, tmp_path, json.dumps({"user_id": "u2", "messages": table}))
    assert [(log["thread_id"], log["user_id"]) for log in logs] == [("t1", "u2"), ("t2", "u2")]


def test_messages_that_no_reader_takes_one_by_one_are_not_mixed(home: Home, tmp_path: Path) -> None:
    names = {"role": "from", "content": "value"}
    table = [{names.get(k, k): v for k, v in one.items()} for one in TABLE]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"conversations": table}))
    result = import_file(path, home)
    assert (result.interactions, result.bad_rows) == (0, 4)


@pytest.mark.parametrize(
    "beside",
    [
        {"info": {"source": "x"}, "data": {"k": 1}},
        {"fields": {"k": "v"}, "responses": {"wish": [{"value": "x"}]}},
        {"chunkedPrompt": {"chunks": [{"role": "user", "text": "x"}]}},
        {"steps": STEPS},
        {"type": "leftvote", "states": [{"messages": []}, {"messages": []}]},
    ],
)
def test_other_fields_of_a_chat_row_do_not_replace_it(
    home: Home, tmp_path: Path, beside: dict[str, Any]
) -> None:
    [log] = bring(home, tmp_path, json.dumps({"messages": [U, A], "user_id": "u2", **beside}))
    assert texts(log) == [("user", ASKED), ("assistant", SAID)]
    assert log["user_id"] == "u2" and log["feedback"] == []


def _span(**more: Any) -> dict[str, Any]:
    return {**SPAN, "attributes": {**SPAN["attributes"], **more}}


USED = {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.input_tokens.cached": 1}
ODD = [  # a row, and whether it is read
    (_span(**USED), True),
    (_span(**dict(reversed(USED.items()))), True),
    (_span(**{"llm": "a", "llm.model_name": "m", "llm.model_name.x": 3}), True),
    (_span(**{"a" + ".b" * 3000: 1}), True),
    ({"role": "user", "content": ASKED, "thread_id": "\ud800"}, False),
    ({"type": "leftvote", "states": [{"messages": [{"role": "user", "id": 1, "content": "x"}]},
                                     {"messages": []}]}, False),
    ({"data": [{"states": [{"messages": 5}, {"messages": 4}]}]}, False),
    (_span(**{"llm.input_messages.0.message.role": "user"}), False),
]  # fmt: skip


@pytest.mark.parametrize(("row", "good"), ODD)
def test_an_odd_row_does_not_end_an_import(
    home: Home, tmp_path: Path, row: Any, good: bool
) -> None:
    others = [{"messages": [U, {**A, "content": said}]} for said in ("one", "two")]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (others[0], row, others[1])))
    result = import_file(path, home)
    assert [number for number, _ in result.bad] == ([] if good else [2])
    assert result.interactions == 2 + good


def test_an_odd_row_of_a_page_costs_that_row(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    odd = {"states": [{"messages": 5}, {"messages": 4}]}
    path.write_text(
        json.dumps({"data": [{"messages": [U, A]}, odd, {"query": "x", "answer": "y"}]})
    )
    result = import_file(path, home)
    assert (result.interactions, result.bad_rows) == (2, 1)


@pytest.mark.parametrize("name", MACHINES)
def test_an_automatic_score_is_nobodys_vote_or_wish(home: Home, tmp_path: Path, name: str) -> None:
    rows, source = MACHINES[name]
    rows = rows if isinstance(rows, list) else [rows]
    [log] = bring(home, tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
    assert {(f["source"], f.get("user_id")) for f in log["feedback"]} == {(source, None)}
    with Journal(home.journal, readonly=True) as journal:
        [read_back] = read(journal, join(journal))
    assert spoken(read_back).feedback == []


@pytest.mark.parametrize(
    "row",
    [
        {**RAN, "summary": {"weave": {"feedback": [{"feedback_type": "wandb.runnable.judge",
                                                   "payload": {"output": {"score": 0}}}]}}},
        {**_assessed("HUMAN"), "info": {"assessments": [{"assessment_name": "e",
                                                         "expectation": {"value": "Quay 7"}}]}},
        {**LANGFUSE, "embedding": [0.1, 0.2], "latency": [3], "toxic": ["true"]},
    ],
)  # fmt: skip
def test_results_beside_an_answer_are_no_feedback(
    home: Home, tmp_path: Path, row: dict[str, Any]
) -> None:
    [log] = bring(home, tmp_path, json.dumps(row))
    assert log["feedback"] == []


def bring(home: Home, folder: Path, text: str) -> list[dict[str, Any]]:
    path = folder / "rows"
    path.write_text(text)
    result = import_file(path, home)
    assert (result.bad, result.waiting) == ([], 0)
    return [json.loads(line) for line in export_lines(home)]


def texts(log: dict[str, Any]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in log["messages"]]


@pytest.mark.parametrize("name", TOOLS)
def test_a_remark_on_an_answer(home: Home, tmp_path: Path, name: str) -> None:
    rows, expected = TOOLS[name]
    rows = rows if isinstance(rows, list) else [rows]
    [log] = bring(home, tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
    assert texts(log) == [("user", ASKED), ("assistant", SAID)]
    [said] = log["feedback"]
    assert (said.get("score"), said.get("comment"), said.get("user_id")) == expected
    assert log["created_at"].startswith("2025-05-01T10:00:00") or "Argilla, a record" in name


def test_an_edited_answer_of_dify(home: Home, tmp_path: Path) -> None:
    row = {"query": ASKED, "answer": SAID, "annotation": {"question": ASKED, "content": "Quay 7."}}
    [log] = bring(home, tmp_path, json.dumps(row))
    assert [f["correction"] for f in log["feedback"]] == ["Quay 7."]


def test_votes_of_fastchat_are_preferences(home: Home, tmp_path: Path) -> None:
    sides = [{"messages": [["USER", ASKED], ["ASSISTANT", text]]} for text in ("Quay 7.", SAID)]
    [log] = bring(home, tmp_path, json.dumps({"type": "leftvote", "states": sides}))
    assert texts(log)[-1] == ("assistant", SAID)
    assert [f["correction"] for f in log["feedback"]] == ["Quay 7."]


MORE = [{"role": "user", "content": "And the bus?"}, {"role": "assistant", "content": "Outside."}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([[U, A], MORE]),
        json.dumps([U, A]) + "\n" + json.dumps(MORE),
        json.dumps({"chats": [{"messages": [U, A]}, {"messages": MORE}]}, indent=1),
        json.dumps({"a": {"messages": [U, A]}, "b": {"messages": MORE}}),
        "".join(json.dumps({"id": n, "talk": t}) + "\n" for n, t in enumerate(([U, A], MORE))),
        "".join(
            json.dumps({"id": n, "items": [{"from": m["role"], "value": m["content"]} for m in t]})
            + "\n"
            for n, t in enumerate(([U, A], MORE))
        ),
    ],
)
def test_two_conversations_stay_two(home: Home, tmp_path: Path, text: str) -> None:
    logs = bring(home, tmp_path, text)
    assert [len(log["messages"]) for log in logs] == [2, 2]
    assert [log["feedback"] for log in logs] == [[], []]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [U, {**A, "content": "hm", "metadata": {"title": "Thinking"}}, A]},  # Gradio
        {"chunkedPrompt": {"chunks": [
            {"role": "user", "text": ASKED}, {"role": "model", "text": "hm", "isThought": True},
            {"role": "model", "text": SAID}]}},  # Google AI Studio
        {"input": {"inputBodyJson": {"messages": [U]}}, "output": {"outputBodyJson": [
            {"type": "message_start", "message": {}}, {"delta": {"text": "At quay"}},
            {"delta": {"text": " 6."}}]}},  # a stream in Bedrock's logs
        {"input": {"inputBodyJson": {"inputText": ASKED}},
         "output": {"outputBodyJson": {"results": [{"outputText": SAID}]}}},  # Bedrock's Titan
        {"message_data": json.dumps(U)},  # Agents SDK
        {"messages": [{"role": m["role"], "blocks": [{"block_type": "text", "text": m["content"]}]}
                      for m in (U, A)]},  # LlamaIndex
        {"messages": [{"role": m["role"],
                       "parts": json.dumps([{"type": "text", "text": m["content"]}])}
                      for m in (U, A)]},  # a column of JSON in SQLite
    ],
)  # fmt: skip
def test_thoughts_and_streams(home: Home, tmp_path: Path, row: dict[str, Any]) -> None:
    rows = [row, {"message_data": json.dumps(A)}] if "message_data" in row else [row]
    [log] = bring(home, tmp_path, "".join(json.dumps(one) + "\n" for one in rows))
    assert texts(log) == [("user", ASKED), ("assistant", SAID)]


@pytest.mark.parametrize("feedback", [{"rating": None}, {"name": "thumb", "value": None}])
def test_a_rating_that_was_taken_back_costs_no_words(
    home: Home, tmp_path: Path, feedback: dict[str, Any]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"query": ASKED, "answer": SAID, "feedback": feedback}))
    result = import_file(path, home)
    assert (result.bad, result.interactions) == ([], 1)
    assert result.passed_over == {"empty_rating": 1}


@pytest.mark.parametrize("value", [5, "too long"])
def test_a_value_without_a_name_is_a_rating(home: Home, tmp_path: Path, value: Any) -> None:
    row = {"query": ASKED, "answer": SAID, "feedback": {"value": value}}
    [log] = bring(home, tmp_path, json.dumps(row))
    assert [(f["key"], f["value"]) for f in log["feedback"]] == [("rating", value)]


def test_steps_beside_messages_are_something_else(home: Home, tmp_path: Path) -> None:
    row = {"messages": [U, A], "steps": [{"type": "search", "output": "x"}]}
    [log] = bring(home, tmp_path, json.dumps(row))
    assert texts(log) == [("user", ASKED), ("assistant", SAID)]


def test_a_table_of_librechat(home: Home, tmp_path: Path) -> None:
    top = "sender,text,isCreatedByUser,error,unfinished,messageId,parentMessageId\n"
    rows = f"User,{ASKED},true,false,false,m1,\nGPT,{SAID},false,false,false,m2,m1\n"
    [log] = bring(home, tmp_path, top + rows)
    assert texts(log) == [("user", ASKED), ("assistant", SAID)]
