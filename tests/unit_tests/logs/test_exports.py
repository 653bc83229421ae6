"""Exports as apps and services write them: ratings, stored histories, scores, cut answers, streams.

The shapes are documented by OpenAI, Anthropic, Gemini and OpenTelemetry (gen_ai messages), Langfuse
(scores, traces), LiteLLM (redacted messages), langchain-community (chat message histories),
LangGraph (state), Gradio (chat histories), LLaMA-Factory (ranking) and LMArena (votes).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_readers import ASKED, bring, logs, said, texts

from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines, import_file
from langchain_uno.records import AT_LIMIT

F = "As a table, please."
RATED: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
    ({"rating": -1, "comment": F}, ("comment", 0.0, None, F)),
    ({"feedback": {"thumbs": "down", "comment": F}}, ("comment", 0.0, None, F)),
    ({"score": 0, "feedback_comment": F}, ("comment", 0.0, None, F)),
    ({"thumb": "up"}, ("score", 1.0, None, None)),
    ({"rating": 4}, ("rating", None, 4.0, None)),
    ({"feedback": "4"}, ("rating", None, 4.0, None)),
    ({"feedback": [{"score": -1}]}, ("score", 0.0, None, None)),
    ({"feedback": {"value": 0, "comment": F}}, ("comment", 0.0, None, F)),  # Chainlit
    ({"feedback": {"key": "stars", "value": 1}}, ("stars", None, 1, None)),
    ({"feedback": "\U0001f44e"}, ("score", 0.0, None, None)),
]


@pytest.mark.parametrize(("beside", "expected"), RATED)
@pytest.mark.parametrize("where", ["row", "message", "question"])
def test_ratings_in_the_names_of_apps(
    home: Home, tmp_path: Path, beside: dict[str, Any], expected: tuple[Any, ...], where: str
) -> None:
    """Hugging Face's chat-ui has a message's score, Dify a rating, exported tables a thumb."""
    answer: dict[str, Any] = {"role": "assistant", "content": "Six."}
    row: dict[str, Any] = {"question": "x", "answer": "Six."}
    if where != "question":
        row = {"messages": [ASKED, {**answer, **(beside if where == "message" else {})}]}
    bring(home, tmp_path, row if where == "message" else {**row, **beside})
    [log] = logs(home)
    assert [s[:4] for s in said(log)] == [expected]
    assert log["tags"] == {}


def test_one_star_of_five_is_no_thumb_up(home: Home, tmp_path: Path) -> None:
    """A file tells whether a number is a thumb: scores of Langfuse and LangSmith have any range."""
    stars = [{"question": f"{n}?", "answer": "x", "rating": r} for n, r in enumerate((1, 5, 1, 0))]
    thumbs = [{**GENERATION, "id": f"o{n}", "input": f"t{n}"} for n in range(2)]
    votes = [
        {**SCORE, "id": f"s{n}", "observationId": f"o{n}", "name": "up", "value": n}
        for n in range(2)
    ]
    kept = []
    for _ in range(2):
        assert bring(home, tmp_path, *stars, *thumbs, *votes).stars == 4
        found = [s[1:3] for log in logs(home) for s in said(log)]
        scale = [(None, 1.0), (None, 5.0), (None, 1.0), (None, 0.0)]
        assert found == [*scale, (0.0, None), (1.0, None)]
        kept.append(list(export_lines(home)))
    assert kept[0] == kept[1]


def test_a_conversation_ends_before_a_turn_without_words(home: Home, tmp_path: Path) -> None:
    six = {"role": "assistant", "content": "Six."}
    more = {"role": "user", "content": F}
    thought = {"role": "assistant", "content": "<think>Which quay"}
    result = bring(
        home,
        tmp_path,
        {"id": "1", "messages": [ASKED, six, more, {**six, "content": None}, ASKED, six]},
        {"id": "2", "messages": [ASKED, thought]},
        {"id": "3", "messages": [ASKED, {**six, "content": ""}, {**six, "content": "7."}]},
        # The feedback is about the last answer, and must not go to the first one.
        {"id": "4", "messages": [ASKED, six, {**more, "content": ""}, six], "feedback": "down"},
    )
    first, third = logs(home)
    assert [s[3] for s in said(first)] == [F]
    assert (third["messages"][-1]["content"], len(third["messages"])) == ("7.", 2)
    assert (result.bad, result.passed_over) == ([], {"empty_turn": 2, "no_answer": 1})


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"rating": 0}, []),
        ({"feedback": {"turn": 1, "score": 0}}, []),
        ({"feedback": {"turn": -1, "score": 0}}, []),
        ({"feedback": [{"turn": -2, "score": 1}, {"comment": "Shorter."}]}, [1.0]),
        ({"last": {"feedback": ["down"]}}, []),
    ],
)
def test_what_is_told_of_a_last_answer_without_words_goes_to_no_other(
    home: Home, tmp_path: Path, told: dict[str, Any], kept: list[float]
) -> None:
    six = {"role": "assistant", "content": "Six minutes."}
    last = {"role": "assistant", "content": "", **told.pop("last", {})}
    talk = [ASKED, six, {"role": "user", "content": F}, last]
    result = bring(home, tmp_path, {"messages": talk, "finish_reason": "length", **told})
    [log] = logs(home)
    assert [f["comment"] for f in log["feedback"] if f["key"] == "follow_up"] == [F]
    assert [f["score"] for f in log["feedback"] if f["key"] != "follow_up"] == kept
    assert (result.bad, result.passed_over) == ([], {"no_answer": 1})
    assert not log.get("error")


def test_an_empty_step_after_an_answer_changes_nothing(home: Home, tmp_path: Path) -> None:
    six = {"role": "assistant", "content": "Six minutes."}
    bring(home, tmp_path, {"messages": [ASKED, six, {**six, "content": ""}], "rating": 0})
    assert [f["score"] for f in logs(home)[0]["feedback"]] == [0.0]


def test_an_error_of_the_last_answer_is_not_that_of_one_before(home: Home, tmp_path: Path) -> None:
    six = {"role": "assistant", "content": "Six minutes."}
    talk = [ASKED, six, {"role": "user", "content": ""}, {**six, "content": "Seven."}]
    bring(home, tmp_path, {"messages": talk, "finish_reason": "length"})
    assert not logs(home)[0].get("error")


@pytest.mark.parametrize(
    "answer",
    [
        {"content": None, "refusal": "Six."},  # OpenAI, structured outputs
        {"content": None, "audio": {"id": "a", "transcript": "Six."}},  # OpenAI, audio
        {"content": [{"type": "output_audio", "transcript": "Six."}]},  # OpenAI, realtime
        {"parts": [{"type": "text", "content": "Six."}]},  # OpenTelemetry, gen_ai messages
        {"role": "apiMessage", "content": "Six."},  # Flowise
        {"role": "ROLE_ASSISTANT", "content": "Six."},
        {"role": "AI_MESSAGE", "content": "Six."},
        {"role": "bing", "content": "Six."},  # ShareGPT
        {"role": "agent", "content": "Six."},
    ],
)
def test_the_words_of_an_answer_in_every_shape(
    home: Home, tmp_path: Path, answer: dict[str, Any]
) -> None:
    question = {"role": "USER_MESSAGE", "content": [{"type": "text", "content": "x"}]}
    bring(home, tmp_path, {"messages": [question, {"role": "assistant", **answer}]})
    assert [texts(log) for log in logs(home)] == [[("user", "x"), ("assistant", "Six.")]]


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ({"type": "custom", "custom": {"name": "f", "input": "raw"}}, {"_raw": "raw"}),
        ({"function": {"name": "f", "arguments": '{"a": '}}, {"_raw": '{"a": '}),
        ({"function": {"name": "f", "arguments": '"Oslo"'}}, {"_raw": '"Oslo"'}),
        ({"function": {"name": "f", "arguments": ""}}, {}),
    ],
)
def test_arguments_that_are_no_object_are_kept(
    home: Home, tmp_path: Path, call: dict[str, Any], args: dict[str, Any]
) -> None:
    """OpenAI has custom tools with a text, and models write arguments that are cut."""
    asked = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", **call}]}
    told = {"role": "tool", "tool_call_id": "c", "content": "6"}
    bring(home, tmp_path, {"messages": [ASKED, asked, told, {"role": "ai", "content": "Six."}]})
    step, last = logs(home)
    assert step["tool_calls"] == [{"name": "f", "args": args, "id": "c"}]
    assert last["messages"][-1]["content"] == "Six."


def test_a_bad_time_costs_the_time_only(home: Home, tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "b", "feedback": {"score": 1, "created_at": "x"}}
    result = bring(home, tmp_path, {"created_at": "yesterday", "messages": [ASKED, answer]})
    assert (result.interactions, result.feedback) == (1, 1)
    assert (result.bad, result.passed_over) == ([], {"bad_time": 2})


HUMAN = {"type": "human", "data": {"content": "x"}}
AI = {"type": "ai", "data": {"content": "Six."}}
STORED: dict[str, list[dict[str, Any]]] = {
    "messages_to_dict": [HUMAN, AI],
    "OpenAI's messages alone": [ASKED, {"role": "assistant", "content": "Six."}],
    "PostgresChatMessageHistory": [{"session_id": "s", "message": m} for m in (HUMAN, AI)],
    "SQLChatMessageHistory": [
        {"id": n, "session_id": "s", "message": json.dumps(m)} for n, m in enumerate((HUMAN, AI))
    ],
    "MongoDBChatMessageHistory": [
        {"SessionId": "s", "History": json.dumps(m)} for m in (HUMAN, AI)
    ],
    "DynamoDBChatMessageHistory": [{"SessionId": "s", "History": [HUMAN, AI]}],
    "LangGraph's get_state": [
        {
            "values": {
                "messages": [HUMAN["data"] | {"type": "human"}, AI["data"] | {"type": "ai"}]
            },
            "config": {"configurable": {"thread_id": "s"}},
            "metadata": {"user_id": "u"},
        }
    ],
    "a list of conversations": [
        {"conversations": [{"thread_id": "s", "messages": [HUMAN, AI]}]},
    ],
}


@pytest.mark.parametrize("name", STORED)
def test_histories_that_langchain_stores(home: Home, tmp_path: Path, name: str) -> None:
    """langchain-community's chat message histories, and the state of LangGraph's threads."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(STORED[name]))
    assert import_file(path, home).bad == []
    [log] = logs(home)
    assert texts(log) == [("user", "x"), ("assistant", "Six.")]
    assert log.get("thread_id") == (
        None if name in ("messages_to_dict", "OpenAI's messages alone") else "s"
    )
    assert log.get("user_id") == ("u" if "get_state" in name else None)


GENERATION = {
    "id": "o1",
    "traceId": "t1",
    "type": "GENERATION",
    "input": [ASKED],
    "output": {"role": "assistant", "content": "Six."},
}
SCORE = {"id": "s1", "traceId": "t1", "name": "note", "value": 0}


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ({"stringValue": F, "dataType": "TEXT"}, (None, None, F)),
        ({"stringValue": F, "dataType": "TEXT", "comment": "Hm."}, (None, None, f"{F}\n\nHm.")),
        ({"stringValue": "thumbs_down", "dataType": "CATEGORICAL"}, (0.0, "thumbs_down", None)),
        ({"stringValue": "so-so", "dataType": "CATEGORICAL"}, (None, "so-so", None)),
        ({"stringValue": "False", "dataType": "BOOLEAN"}, (0.0, None, None)),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_scores_of_langfuse(
    home: Home, tmp_path: Path, score: dict[str, Any], expected: tuple[Any, ...], inside: bool
) -> None:
    """Langfuse's score types, in rows of their own and in a trace as its page downloads it."""
    told = {**SCORE, **score}
    own = {k: v for k, v in GENERATION.items() if k != "traceId"}
    span = {"id": "o0", "type": "SPAN", "input": "x", "output": "y"}
    trace = {"id": "t1", "userId": "u", "sessionId": "s", "input": "x", "output": "Six."}
    rows = (
        [{**trace, "scores": [told], "observations": [span, own]}] if inside else [GENERATION, told]
    )
    assert bring(home, tmp_path, *rows).bad == []
    [log] = logs(home)
    assert [s[1:4] for s in said(log)] == [expected]
    assert (log.get("user_id"), log.get("thread_id")) == (("u", "s") if inside else (None, None))


def test_a_trace_of_langfuse_without_a_question(home: Home, tmp_path: Path) -> None:
    trace = {"id": "t1", "timestamp": 1, "userId": "u", "input": None, "output": "Six."}
    assert bring(home, tmp_path, trace).passed_over == {"no_question": 1}


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({**GENERATION, "level": "ERROR", "statusMessage": "boom"}, "boom"),
        (
            {
                "messages": [ASKED],
                "response": {"choices": [{"text": "S", "finish_reason": "length"}]},
            },
            AT_LIMIT,
        ),
        (
            {
                "request": {"messages": [ASKED]},
                "response": {
                    "content": [{"type": "text", "text": "S"}],
                    "stop_reason": "max_tokens",
                },
            },
            AT_LIMIT,
        ),
        (
            {
                "request": {"contents": [{"parts": [{"text": "x"}]}]},
                "response": {
                    "candidates": [
                        {"content": {"parts": [{"text": "S"}]}, "finishReason": "SAFETY"}
                    ]
                },
            },
            "incomplete: the answer ended by 'SAFETY'",
        ),
        (
            {
                "input": "x",
                "output": [{"type": "message", "role": "assistant", "content": "S"}],
                "status": "incomplete",
                "incomplete_details": {"reason": "max_output_tokens"},
            },
            AT_LIMIT,
        ),
        (
            {"messages": [ASKED, {"role": "ai", "content": "S", "finish_reason": "length"}]},
            AT_LIMIT,
        ),
        (
            {
                "messages": [ASKED],
                "response": {"choices": [{"text": "S", "finish_reason": "stop"}]},
            },
            None,
        ),
    ],
)
def test_answers_that_were_cut_off(
    home: Home, tmp_path: Path, row: dict[str, Any], error: str | None
) -> None:
    assert bring(home, tmp_path, row).bad == []
    assert [log.get("error") for log in logs(home)] == [error]


STREAMS = {
    "OpenAI": ['{"choices": [{"delta": {"content": "Si"}}]}',
               '{"choices": [{"delta": {"content": "x."}}]}', '{"choices": []}', "[DONE]"],
    "Anthropic": ['{"type": "message_start", "message": {"content": []}}',
                  '{"delta": {"type": "thinking_delta", "thinking": "hm"}}',
                  '{"delta": {"type": "text_delta", "text": "Six."}}',
                  '{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}'],
    "Responses": ['{"type": "response.reasoning_summary_text.delta", "delta": "hm"}',
                  '{"type": "response.output_text.delta", "delta": "Six."}',
                  '{"type": "response.output_text.done", "text": "Six."}'],
    "Gemini": ['{"candidates": [{"content": {"parts": [{"text": "Six."}], "role": "model"}}]}'],
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_is_read_as_its_answer(home: Home, tmp_path: Path, name: str) -> None:
    stream = "".join(f"event: x\ndata: {line}\n\n" for line in STREAMS[name])
    asked = {"request": {"messages": [ASKED]}}
    broken = {**asked, "response": 'data: {"error": {"message": "quota"}}\n\n'}
    result = bring(home, tmp_path, {**asked, "response": stream}, broken)
    assert [n for n, _ in result.bad] == [2]
    assert [texts(log) for log in logs(home)] == [[("user", "x"), ("assistant", "Six.")]]


def test_an_answer_may_repeat_the_question(home: Home, tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "x"}
    hidden = {"role": "user", "content": "redacted-by-litellm"}
    result = bring(
        home,
        tmp_path,
        {"messages": [ASKED], "response": {"choices": [{"message": answer}]}},
        {"messages": [hidden], "response": {"choices": [{"message": answer}]}},
    )
    assert [texts(log) for log in logs(home)] == [[("user", "x"), ("assistant", "x")]]
    assert (result.bad, result.passed_over) == ([], {"redacted": 1})


@pytest.mark.parametrize(
    "row",
    [
        {"history": [["x", "Six."], [F, None]]},  # Gradio's chat interface, before messages
        {"messages": [["human", "x"], ["ai", "Six."], ["user", F]]},  # LangChain's pairs
    ],
)
def test_turns_in_pairs(home: Home, tmp_path: Path, row: dict[str, Any]) -> None:
    bring(home, tmp_path, row)
    [log] = logs(home)
    assert texts(log) == [("user", "x"), ("assistant", "Six.")]
    assert [s[3] for s in said(log)] == [F]


def test_responses_name_the_answer_before(home: Home, tmp_path: Path) -> None:
    """OpenAI's Responses with previous_response_id send the new turn alone."""
    six = [{"type": "message", "role": "assistant", "content": "Six."}]
    rows = [
        {"id": "resp_2", "previous_response_id": "resp_1", "input": F, "output": six},
        {"id": "resp_1", "previous_response_id": None, "input": "x", "output": six},
    ]
    for _ in range(2):
        bring(home, tmp_path, *rows)
    found = {log["run_id"]: [s[3] for s in said(log)] for log in logs(home)}
    assert found == {"resp_1": [F], "resp_2": []}


def test_the_better_of_two_answers(home: Home, tmp_path: Path) -> None:
    result = bring(
        home,
        tmp_path,
        {"instruction": "x", "output": ["Six.", "It may be six."]},
        {"winner": "both_bad", "conversation_a": [ASKED], "conversation_b": [ASKED]},
    )
    [log] = logs(home)
    assert log["messages"][-1]["content"] == "It may be six."
    assert [s[4] for s in said(log)] == ["Six."]
    assert (result.bad, result.passed_over) == ([], {"tie": 1})


def test_whoever_rates_in_open_webui_may_not_have_asked(home: Home, tmp_path: Path) -> None:
    """A shared chat is rated by others: models/feedbacks.py keeps the rater beside the snapshot."""
    turns = {
        "a": {"id": "a", "parentId": None, **ASKED},
        "b": {"id": "b", "parentId": "a", "role": "assistant", "content": "Six."},
    }
    chat = {"id": "c", "user_id": "asker", "chat": {"history": {"messages": turns}}}
    rating = {"user_id": "rater", "data": {"rating": -1}, "meta": {"message_id": "b"}}
    bring(home, tmp_path, {**rating, "snapshot": {"chat": chat}})
    [log] = logs(home)
    assert (log["user_id"], [s[5] for s in said(log)]) == ("asker", ["rater"])


def test_librechat_that_got_an_error_only(home: Home, tmp_path: Path) -> None:
    rows = [
        {"conversationId": "c", "messageId": "1", "isCreatedByUser": True, "text": "x"},
        {
            "conversationId": "c",
            "messageId": "2",
            "isCreatedByUser": False,
            "error": True,
            "text": "429",
        },
    ]
    result = bring(home, tmp_path, *rows)
    assert (result.bad, result.passed_over) == ([], {"failed_request": 1})


@pytest.mark.parametrize("odd", ["m2", ["m2"], [None], 5, {"a": 1}])
def test_librechat_children_that_are_no_messages_are_passed_over(
    home: Home, tmp_path: Path, odd: Any
) -> None:
    asked = {"messageId": "m1", "isCreatedByUser": True, "text": "hi", "children": odd}
    said_ = {"messageId": "m2", "parentMessageId": "m1", "isCreatedByUser": False, "text": "hello"}
    result = bring(home, tmp_path, {"conversationId": "c1", "messages": [asked, said_]})
    assert (result.bad, [texts(log)[-1][1] for log in logs(home)]) == ([], ["hello"])
