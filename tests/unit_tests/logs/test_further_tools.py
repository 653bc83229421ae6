"""Exports of versions of 2025 and 2026, in the shapes of their documentation or source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.logs.exchange import import_file
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.records import AT_LIMIT, Interaction
from tests.unit_tests.logs.test_tools import DONE, SAID, A, U

ASKED = "Where is the ferry?"
ABOVE: dict[str, list[str]] = {"u": ["s"], "a1": ["s", "u"], "a2": ["s", "u"]}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.locate(tmp_path / "home")


def imported(home: Home, tmp_path: Path, *rows: Any) -> list[Interaction]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert import_file(path, home).bad_rows == 0
    with Journal(home.journal, readonly=True) as journal:
        return list(read(journal, join(journal)))


def turn(name: str, who: str, content: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "from": who, "content": content, "ancestors": ABOVE[name], **more}


def chat_ui(**score: int) -> dict[str, Any]:
    """A conversation of HuggingFace's chat UI, whose answer was asked for again."""
    first = {"id": "s", "from": "system", "content": "", "ancestors": []}
    tries = [
        turn(n, "assistant", said, **({"score": score[n]} if n in score else {}))
        for n, said in (("a1", "No idea."), ("a2", SAID))
    ]
    return {
        "_id": {"$oid": "665f1c2e9b1e8a0001aa0001"}, "userId": {"$oid": "665f1c2e9b1e8a0001aa00ff"},
        "model": "m", "messages": [first, turn("u", "user", ASKED), *tries],
    }  # fmt: skip


def test_the_branches_of_a_chat_ui_are_not_one_conversation(home: Home, tmp_path: Path) -> None:
    found = imported(home, tmp_path, chat_ui(a1=-1, a2=1))
    assert {one.answer: one.score for one in found} == {"No idea.": 0.0, SAID: 1.0}
    assert {tuple(m.content for m in one.messages) for one in found} == {(ASKED,)}
    assert {one.user_id for one in found} == {"665f1c2e9b1e8a0001aa00ff"}


def test_a_vote_that_was_taken_back_in_a_chat_ui_is_none(home: Home, tmp_path: Path) -> None:
    [one] = imported(home, tmp_path, chat_ui(a2=0))
    assert (one.answer, one.feedback) == (SAID, [])


def test_a_score_of_langfuse_with_its_trace_is_a_score(home: Home, tmp_path: Path) -> None:
    """As ``/api/public/v2/scores`` returns them."""
    run = {
        "id": "t1", "timestamp": "2025-05-01T10:00:00Z", "sessionId": "s", "userId": "u2",
        "input": [U], "output": A,
    }  # fmt: skip
    score = {
        "id": "sc", "name": "thumb", "value": 0, "dataType": "BOOLEAN", "traceId": "t1",
        "observationId": None, "comment": "Say which gate.",
        "trace": {"userId": "u2", "tags": [], "sessionId": "s"},
    }  # fmt: skip
    [one] = imported(home, tmp_path, run, score)
    assert (one.score, one.feedback[0].comment) == (0.0, "Say which gate.")


def test_a_row_of_litellm_that_keeps_the_request_beside(home: Home, tmp_path: Path) -> None:
    row = {
        "request_id": "chatcmpl-9", "call_type": "acompletion", "startTime": "2025-09-30T10:00:00Z",
        "messages": {}, "response": DONE, "end_user": "u2",
        "proxy_server_request": json.dumps({"model": "m", "messages": [U]}),
    }  # fmt: skip
    [one] = imported(home, tmp_path, row)
    assert (one.query, one.answer, one.user_id) == (ASKED, SAID, "u2")


def test_a_trace_of_mlflow_3_has_spans_alone(home: Home, tmp_path: Path) -> None:
    def span(name: str, above: str | None, given: Any, said: Any) -> dict[str, Any]:
        told = {"mlflow.spanInputs": json.dumps(given), "mlflow.spanOutputs": json.dumps(said)}
        return {"span_id": name, "parent_span_id": above, "attributes": told}

    inner = span("b", "a", {"question": "x"}, "y")
    told = {
        "source": {"source_type": "HUMAN", "source_id": "u2"}, "feedback": {"value": False},
        "assessment_name": "thumb", "rationale": "Say which gate.",
    }  # fmt: skip
    row = {
        "info": {"trace_id": "tr-1", "request_time": "2025-09-01T10:00:00Z", "assessments": [told]},
        "data": {"spans": [inner, span("a", None, {"question": ASKED}, SAID)]},
    }  # fmt: skip
    [one] = imported(home, tmp_path, row)
    assert (one.query, one.answer, one.score) == (ASKED, SAID, 0.0)


CHUNKS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "At "}}]},
    {"choices": [{"index": 0, "delta": {"content": "quay 6."}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
]
EVENTS = [
    {"type": "message_start", "message": {"role": "assistant", "content": [], "stop_reason": None}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": SAID}},
    {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
    {"type": "message_stop"},
]
RESPONSES = [
    {"type": "response.output_text.delta", "delta": SAID},
    {"type": "response.incomplete",
     "response": {"incomplete_details": {"reason": "max_output_tokens"}}},
]  # fmt: skip


@pytest.mark.parametrize("events", [CHUNKS, EVENTS, RESPONSES], ids=["chat", "claude", "responses"])
@pytest.mark.parametrize("recorded", ["list", "text"])
def test_a_recorded_stream_tells_that_it_was_cut(
    home: Home, tmp_path: Path, events: list[Any], recorded: str
) -> None:
    lines = "\n\n".join(f"data: {json.dumps(one)}" for one in events) + "\n\ndata: [DONE]\n"
    row = {"request": {"messages": [U]}, "response": events if recorded == "list" else lines}
    [one] = imported(home, tmp_path, row)
    assert (one.answer, one.error) == (SAID, AT_LIMIT)


def test_spans_name_instructions_and_conversation(home: Home, tmp_path: Path) -> None:
    def parts(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "content": text}]

    told = {
        "gen_ai.conversation.id": "c9",
        "gen_ai.system_instructions": json.dumps(parts("Be brief.")),
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": parts(ASKED)}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": parts(SAID)}]),
    }
    ids = {"trace_id": "0x1", "span_id": "0x2"}
    [one] = imported(home, tmp_path, {"name": "chat", "context": ids, "attributes": told})
    assert [m.content for m in one.messages] == ["Be brief.", ASKED]
    assert (one.answer, one.thread_id) == (SAID, "c9")


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_spans_of_the_ai_sdk(home: Home, tmp_path: Path, reason: str) -> None:
    told = {
        "gen_ai.system": "openai", "gen_ai.request.model": "m", "ai.response.text": SAID,
        "ai.response.finishReason": reason, "ai.prompt.messages": json.dumps([U]),
        "ai.telemetry.metadata.userId": "u2",
    }  # fmt: skip
    ids = {"trace_id": "0x1", "span_id": "0x2"}
    [one] = imported(home, tmp_path, {"context": ids, "attributes": told})
    assert (one.query, one.answer, one.user_id) == (ASKED, SAID, "u2")
    assert (one.error is None) is (reason == "stop")


@pytest.mark.parametrize(("word", "score"), [("GOOD", 1.0), ("bad", 0.0), ("👎🏽", 0.0)])
def test_ratings_in_words_and_signs(home: Home, tmp_path: Path, word: str, score: float) -> None:
    [one] = imported(home, tmp_path, {"prompt": ASKED, "response": SAID, "rating": word})
    assert one.score == score


@pytest.mark.parametrize(
    "end",
    [
        {"meta_info": {"finish_reason": {"type": "length", "length": 8}}},
        {"stop_type": "limit", "truncated": False},
        {"details": {"finish_reason": "length"}},
    ],
    ids=["SGLang", "llama.cpp", "TGI"],
)
def test_servers_that_say_elsewhere_that_an_answer_was_cut(
    home: Home, tmp_path: Path, end: dict[str, Any]
) -> None:
    row = {"request": {"prompt": ASKED}, "response": {"content": SAID, **end}}
    [one] = imported(home, tmp_path, row)
    assert (one.answer, one.error) == (SAID, AT_LIMIT)


def test_the_columns_of_langsmiths_bulk_export_are_texts(home: Home, tmp_path: Path) -> None:
    def dumped(kind: str, content: str) -> dict[str, Any]:
        return {"lc": 1, "type": "constructor", "kwargs": {"content": content, "type": kind}}

    row = {
        "id": "0190aaaa-0000-7000-8000-000000000001", "run_type": "llm", "feedback_stats": "{}",
        "trace_id": "0190aaaa-0000-7000-8000-000000000009", "tags": '["nostream"]',
        "inputs": json.dumps({"messages": [[dumped("human", ASKED)]]}),
        "outputs": json.dumps({"generations": [[{"text": SAID, "message": dumped("ai", SAID)}]]}),
        "extra": json.dumps({"metadata": {"user_id": "u2"}}),
    }  # fmt: skip
    [one] = imported(home, tmp_path, row)
    assert (one.query, one.answer, one.user_id) == (ASKED, SAID, "u2")
    assert one.tags["own_call"] == "nostream"


def test_open_webui_names_the_model_of_each_answer(home: Home, tmp_path: Path) -> None:
    asked = {"id": "m1", "parentId": None, "role": "user", "content": ASKED}
    tries = [
        {"id": f"m-{name}", "parentId": "m1", "role": "assistant", "content": f"Of {name}.",
         "model": name, "annotation": {"rating": 1}}
        for name in ("a", "b")
    ]  # fmt: skip
    messages = {one["id"]: one for one in (asked, *tries)}
    chat = {"models": ["a", "b"], "history": {"currentId": "m-b", "messages": messages}}
    found = imported(home, tmp_path, {"id": "c", "user_id": "u2", "chat": chat})
    assert {one.answer: one.model for one in found} == {"Of a.": "a", "Of b.": "b"}
