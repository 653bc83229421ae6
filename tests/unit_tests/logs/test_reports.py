"""Imports in the shape of further public reports: what was asked, what was answered, what was said.

Each input names where it comes from: an issue, a pull request, or the documentation of an export.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_readers import bring, logs, said, texts
from test_tools import ASKED, DONE, ID, SAID, SCORE, TIME, WISH, A, U

from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines, import_file
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.redaction import pseudonym
from langchain_uno.records import AT_LIMIT

RUN: dict[str, Any] = {
    "id": ID.format(2), "run_type": "llm", "trace_id": ID.format(1), "start_time": TIME,
    "inputs": {"messages": [U]},
    "outputs": {"message": {**A, "id": "resp_0a1b2c3d4e5f60718293a4b5c6d7e8f9"}},
}  # fmt: skip
VOTE = {"id": ID.format(9), "key": "thumb", "score": 0, "comment": WISH}
LATER = "2025-05-01T10:00:01"
GUARD = {"role": "user", "content": f"Safe or unsafe? {SAID}"}
SAFE = {"role": "assistant", "content": "safe"}
GENERATIONS = [
    {"id": f"g{n}", "traceId": "t", "type": "GENERATION", "startTime": time, "input": [asked],
     "output": answer}
    for n, time, asked, answer in ((1, TIME, U, A), (2, LATER, GUARD, SAFE))
]  # fmt: skip
TRACE = {"id": "t", "timestamp": TIME, "userId": "u", "sessionId": "s", "input": ASKED,
         "output": SAID}  # fmt: skip
RATED = {**SCORE, "value": 0, "traceId": "t"}
SPAN = {"context": {"span_id": "a" * 16, "trace_id": "b" * 32}, "parent_id": "c" * 16,
        "attributes": {"llm.input_messages": [U], "llm.output_messages": [A]}}  # fmt: skip
TOP = {"context": {"span_id": "c" * 16, "trace_id": "b" * 32}, "parent_id": None,
       "attributes": {"openinference.span.kind": "AGENT", "input.value": ASKED,
                      "output.value": SAID}}  # fmt: skip
NOTE = {"id": "n", "annotator_kind": "HUMAN", "name": "thumb", "span_id": "c" * 16,
        "result": {"label": "thumbs-down", "score": 0, "explanation": WISH}}  # fmt: skip

LANDS: dict[str, list[Any]] = {
    # the app's answer.id (langchain #39233), in LangSmith's rows and beside a gateway's own id
    "langchain #39233, a run": [{**VOTE, "run_id": RUN["outputs"]["message"]["id"]}, RUN],
    "langchain #39233, a gateway": [
        {"request_id": "h-1", "request_body": {"messages": [U]},
         "response_body": {"id": "chatcmpl-0a1b", **DONE}},
        {"messageId": "chatcmpl-0a1b", "rating": "down", "comment": WISH},
    ],
    "phoenix #14189, the root span": [NOTE, SPAN, TOP],
    "phoenix #6440, the trace": [{**NOTE, "span_id": None, "trace_id": "b" * 32}, SPAN, TOP],
    "langfuse's score_current_span": [
        {**RATED, "observationId": "top"}, {**GENERATIONS[0], "parentObservationId": "top"},
        {"id": "top", "traceId": "t", "type": "SPAN", "input": ASKED, "output": SAID},
    ],
    # a model that checks the answer comes last in the trace
    "NeMo-Guardrails #1547, LangSmith": [
        {**VOTE, "trace_id": ID.format(1)}, RUN,
        {**RUN, "id": ID.format(3), "start_time": LATER, "inputs": {"messages": [GUARD]},
         "outputs": {"message": SAFE}},
        {**RUN, "id": ID.format(1), "run_type": "chain", "outputs": {"messages": [U, A]}},
    ],
    "litellm PR #36741, Langfuse": [RATED, *GENERATIONS, TRACE],
    "langfuse #9518, a whole trace": [{**TRACE, "observations": GENERATIONS, "scores": [RATED]}],
}  # fmt: skip


@pytest.mark.parametrize("name", LANDS)
def test_a_remark_lands_on_the_answer_that_was_shown(home: Home, tmp_path: Path, name: str) -> None:
    for _ in range(2):
        result = bring(home, tmp_path, *LANDS[name])
        assert (result.bad, result.waiting) == ([], 0)
    rated = {log["messages"][-1]["content"] for log in logs(home) if log["feedback"]}
    assert rated == {SAID}
    [one] = [f for log in logs(home) for f in log["feedback"]]
    assert (one["score"], one["comment"]) == (0.0, WISH)


def _stream(*events: Any) -> str:
    return "".join(f"data: {json.dumps(e) if e != '[DONE]' else e}\n\n" for e in events)


def _delta(text: str, end: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": end}]}


def _piece(text: str, end: str | None = None) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": end}]}


def _ollama(text: str, done: bool) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "done": done}


BEGUN = {"type": "response.created", "response": {"status": "in_progress", "output": []}}
PART = {"type": "response.output_text.delta", "delta": SAID}
ENDED = {"type": "response.completed", "response": {"status": "completed", "output": []}}
CUT, ERROR = (f"incomplete: the answer ended by {word!r}" for word in ("in_progress", "error"))

STREAMS: dict[str, tuple[Any, str | None]] = {
    # can1357/oh-my-pi #9433: what [DONE] ends is whole, what the connection ends is not
    "oh-my-pi #9433, no end": (_stream(_delta("At "), _delta("quay 6.")), CUT),
    "oh-my-pi #9433, [DONE]": (_stream(_delta("At "), _delta("quay 6."), "[DONE]"), None),
    "oh-my-pi #9433, as a list": ([_delta("At "), _delta("quay 6.")], CUT),
    "Nexior PR #1706, an error": (_stream(_delta(SAID), {"error": {"message": "x"}}), ERROR),
    "opencodex PR #793": (_stream(BEGUN, PART), CUT),
    "opencodex PR #793, whole": (_stream(BEGUN, PART, ENDED), None),
    # Helicone PR #3976: Gemini's pieces are responses, without "data:"
    "Helicone PR #3976": ([_piece("At "), _piece("quay 6.", "STOP")], None),
    "Helicone PR #3976, cut": ([_piece("At "), _piece("quay 6.", "MAX_TOKENS")], AT_LIMIT),
    "ollama #17118, a list": ([_ollama("At ", False), _ollama("quay 6.", True)], None),
    "ollama #17118, lines": (
        "\n".join(json.dumps(_ollama(t, False)) for t in ("At ", "quay 6.")), CUT),
    "ollama #17118, one": (_ollama(SAID, False), CUT),
    "OpenRouter, an error beside choices": ({**DONE, "error": {"code": 502}}, ERROR),
    "Responses, a cancelled one": (
        {"status": "cancelled", "output": [{"type": "message", "role": "assistant",
                                            "content": [{"type": "output_text", "text": SAID}]}]},
        "incomplete: the answer ended by 'cancelled'"),
}  # fmt: skip


@pytest.mark.parametrize("text", [
    '{"task": "a", "done": false}\n{"task": "b", "done": true}',
    '{"symbol": "A", "delta": 0.4}\n{"symbol": "B", "delta": 0.5}',
    '{"message": "a", "done": true}\n{"message": "b", "done": false}',
])  # fmt: skip
def test_an_answer_of_json_lines_is_no_stream(home: Home, tmp_path: Path, text: str) -> None:
    bring(home, tmp_path, {"request": {"messages": [U]}, "response": text})
    [log] = logs(home)
    assert (texts(log)[-1][1], log.get("error")) == (text, None)


WHOLE: dict[str, dict[str, Any]] = {
    # the status of something else: a ticket, a review of the row, an order
    "JSON with a message": {"prompt": ASKED, "response": json.dumps(
        {"status": "failed", "message": SAID})},
    "JSON with a content": {"prompt": ASKED, "response": json.dumps(
        {"content": SAID, "status": "in_progress", "done": False})},
    "an agent's JSON": {"prompt": ASKED, "response": json.dumps({"response": SAID, "done": False})},
    "a review of the row": {"messages": [U, A], "author": "al", "text": "x", "status": "failed"},
    "metadata": {"messages": [U, {**A, "metadata": {"author": "al", "status": "in_progress"}}]},
    "an error of nothing": {"messages": [U, {**A, "error": {"code": 0, "message": ""}}]},
    "a chain's outputs": {**RUN, "outputs": {"output": SAID, "status": "in_progress"}},
    "a status that is no HTTP": {"request": {"messages": [U]}, "response": DONE, "status": 1000},
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_status_of_something_else(home: Home, tmp_path: Path, name: str) -> None:
    assert bring(home, tmp_path, WHOLE[name]).bad == []
    [log] = logs(home)
    assert (texts(log)[-1][1], log.get("error")) == (SAID, None)


def _rated_answers(home: Home) -> list[tuple[str, list[str]]]:
    return [(log["run_id"], [f["feedback_id"] for f in log["feedback"]]) for log in logs(home)]


def _top(n: int, kind: str = "SPAN", trace: str = "t") -> dict[str, Any]:
    return {"id": f"top-{n}", "traceId": trace, "type": kind, "input": ASKED, "output": f"{n}."}


def test_roots_of_one_trace_keep_their_remarks(home: Home, tmp_path: Path) -> None:
    for _ in range(2):
        assert bring(home, tmp_path, _top(1), _top(2)).bad == []
    bring(home, tmp_path, *({**RATED, "id": f"s{n}", "observationId": f"top-{n}"} for n in (1, 2)))
    assert _rated_answers(home) == [("top-1", ["s1"]), ("top-2", ["s2"])]


def test_a_span_beside_a_model_run_is_not_its_answer(home: Home, tmp_path: Path) -> None:
    result = bring(home, tmp_path, _top(1), GENERATIONS[0], {**RATED, "observationId": "top-1"})
    assert (result.waiting, _rated_answers(home)) == (1, [("g1", [])])


@pytest.mark.parametrize("row", [
    *({**TOP, "attributes": {**TOP["attributes"], "openinference.span.kind": kind}}
      for kind in ("TOOL", "RETRIEVER", "EVALUATOR")),
    _top(1, "TOOL"), {**RUN, "id": RUN["trace_id"], "run_type": "tool"},
])  # fmt: skip
def test_a_tool_alone_is_no_answer(home: Home, tmp_path: Path, row: dict[str, Any]) -> None:
    result = bring(home, tmp_path, row)
    assert (dict(result.passed_over), result.interactions) == ({"not_a_model_run": 1}, 0)


@pytest.mark.parametrize("ids", [
    [("chatcmpl-0a1b", "chatcmpl-0a1b"), ("chatcmpl-0a1b_cache_hit17", "chatcmpl-0a1b")],
    [("2", 3), ("1", 2)],
])  # fmt: skip
@pytest.mark.parametrize("way", [1, -1])
def test_a_run_keeps_its_own_id(home: Home, tmp_path: Path, ids: list[Any], way: int) -> None:
    """LiteLLM's rows of a cached answer name the first one's response."""
    rows = [{"request_id": own, "user": own, "request_body": {"messages": [U]},
             "response_body": {"id": name, **DONE}} for own, name in ids]  # fmt: skip
    bring(home, tmp_path, *rows[::way], {**VOTE, "run_id": ids[0][0]})
    assert [run for run, given in _rated_answers(home) if given] == [ids[0][0]]


def test_what_earlier_releases_imported_is_not_doubled(home: Home, tmp_path: Path) -> None:
    turns = [{**one, "id": ID.format(n), "conversationId": "c"} for n, one in enumerate((U, A), 1)]
    vote = {"messageId": ID.format(2), "rating": "up", "userId": "u@x.org"}
    bring(home, tmp_path, *turns, {**vote, "id": f"vote-{ID.format(2)}"})
    bring(home, tmp_path, vote, {**vote, "userId": "other"})
    [(_, given)] = _rated_answers(home)
    assert len(given) == 2  # each person's one


def test_a_message_id_is_a_name_beside_the_run_id(home: Home, tmp_path: Path) -> None:
    row = {"conversation_id": "c", "message_id": ID.format(2), "query": ASKED, "answer": SAID}
    bring(home, tmp_path, row, {"messageId": ID.format(2), "rating": "down"})
    [log] = logs(home)
    assert log["run_id"] != ID.format(2) and len(log["feedback"]) == 1


def test_a_rating_with_a_line_end(home: Home, tmp_path: Path) -> None:
    rows = [_row(n, feedback=one) for n, one in enumerate(("good\n", {"rating": "up\r\n"}))]
    rows.append(_row(2, feedback={"score": "", "comment": WISH}))
    bring(home, tmp_path, *rows)
    assert [said(log)[0][1:4] for log in logs(home)] == [
        (1.0, None, None), (1.0, None, None), (None, None, WISH)]  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_responses_and_their_ends(home: Home, tmp_path: Path, name: str) -> None:
    response, error = STREAMS[name]
    assert bring(home, tmp_path, {"request": {"messages": [U]}, "response": response}).bad == []
    [log] = logs(home)
    assert (texts(log)[-1], log.get("error")) == (("assistant", SAID), error)


def _openwebui(**more: Any) -> dict[str, Any]:
    two = {"id": "a", "parentId": "u", **A, **more}
    return {"id": "c", "chat": {"history": {"currentId": "a", "messages": {
        "u": {"id": "u", "parentId": None, **U}, "a": two}}}}  # fmt: skip


def _librechat(**more: Any) -> dict[str, Any]:
    asked = {"messageId": "1", "isCreatedByUser": True, "text": ASKED}
    return {"conversationId": "c", "messages": [asked, {
        "messageId": "2", "parentMessageId": "1", "isCreatedByUser": False, "text": SAID, **more,
    }]}  # fmt: skip


def _chatgpt(**more: Any) -> dict[str, Any]:
    def node(above: str | None, role: str, text: str, **more: Any) -> dict[str, Any]:
        content = {"content_type": "text", "parts": [text]}
        return {"parent": above, "message": {"author": {"role": role}, "content": content, **more}}

    return {"id": "c", "mapping": {
        "a": node(None, "user", ASKED), "b": node("a", "assistant", SAID, **more)}}  # fmt: skip


PARTS = [{"type": "text", "text": SAID, "state": "streaming"}]
STOPPED: dict[str, dict[str, Any]] = {
    "Open WebUI, an error": _openwebui(error={"content": "429"}),
    "Open WebUI, done": _openwebui(done=False),
    "LibreChat PR #894": _librechat(unfinished=True),
    "LibreChat, finish_reason": _librechat(finish_reason="length"),
    "ChatGPT, in_progress": _chatgpt(status="in_progress"),
    "ChatGPT, finish_details": _chatgpt(metadata={"finish_details": {"type": "max_tokens"}}),
    "Claude's export": {"chat_messages": [
        {"sender": "human", "text": ASKED},
        {"sender": "assistant", "text": SAID, "stop_reason": "user_canceled"}]},
    "vercel/chatbot #1060": {"messages": [U, {"role": "assistant", "parts": PARTS}]},
    "AI SDK, metadata": {"messages": [U, {**A, "metadata": {"finishReason": "length"}}]},
    "LiteLLM, a failure": {"call_type": "completion", "status": "failure", "messages": [U],
                           "response": DONE},
    "Helicone, status 500": {"request_body": {"messages": [U]}, "response_body": DONE,
                             "response_status": 500},
}  # fmt: skip


@pytest.mark.parametrize("name", STOPPED)
def test_stored_answers_that_were_stopped(home: Home, tmp_path: Path, name: str) -> None:
    assert bring(home, tmp_path, STOPPED[name]).bad == []
    [log] = logs(home)
    assert texts(log)[-1] == ("assistant", SAID) and log.get("error")


@pytest.mark.parametrize("made", [_openwebui(done=True), _librechat(unfinished=False), _chatgpt(
    status="finished_successfully", metadata={"finish_details": {"type": "stop"}})])  # fmt: skip
def test_stored_answers_that_are_whole(home: Home, tmp_path: Path, made: dict[str, Any]) -> None:
    bring(home, tmp_path, made)
    assert [log.get("error") for log in logs(home)] == [None]


DIFY = {
    "feedback_id": "f", "conversation_id": "c", "message_id": ID.format(2), "user_query": ASKED,
    "ai_response": SAID, "feedback_rating": "\U0001f44e", "feedback_comment": WISH,
    "from_end_user_id": "u2",
}  # fmt: skip
TALKS: dict[str, Any] = {
    "dify PR #28652": {"export_info": {"total": 1}, "feedback_data": [DIFY]},
    "streamlit-feedback #25": {"messages": [U, A], "feedback": {
        "type": "thumbs", "score": "\U0001f44e", "text": WISH}},
    "n8n #14917, Postgres memory": [
        {"session_id": "s", "message": {"type": kind, "content": text, "additional_kwargs": {}},
         **more}
        for kind, text, more in (
            ("human", ASKED, {}), ("ai", SAID, {"feedback": {"rating": "down", "comment": WISH}}))
    ],
    "Zep's messages": {"rating": "thumbs down", "comment": WISH, "messages": [
        {"role": "John", "role_type": "user", "content": ASKED},
        {"role": "Max", "role_type": "assistant", "content": SAID}]},
    "Gemini CLI's sessions": {"rating": "down", "comment": WISH, "messages": [
        {"type": "user", "content": ASKED}, {"type": "gemini", "content": SAID}]},
    "roles in type, capitals": {"rating": "down", "comment": WISH, "messages": [
        {"type": "USER", "content": ASKED}, {"type": "ASSISTANT", "content": SAID}]},
    "Cloudflare's AI Gateway": {
        "request": json.dumps({"messages": [U]}), "response": json.dumps(DONE), "feedback": [
            {"score": -1, "comment": WISH}]},
}  # fmt: skip


@pytest.mark.parametrize("name", TALKS)
def test_a_thumb_down_with_words(home: Home, tmp_path: Path, name: str) -> None:
    rows = TALKS[name] if isinstance(TALKS[name], list) else [TALKS[name]]
    assert bring(home, tmp_path, *rows).bad == []
    [log] = logs(home)
    assert texts(log) == [("user", ASKED), ("assistant", SAID)]
    assert [s[1:4] for s in said(log)] == [(0.0, None, WISH)]


def test_pairs_beside_an_instruction(home: Home, tmp_path: Path) -> None:
    """argilla's ORPO data sets: chosen_response and rejected_response."""
    bring(home, tmp_path, {"instruction": ASKED, "chosen_response": "Quay 7.",
                           "rejected_response": SAID})  # fmt: skip
    assert [[s[4] for s in said(log)] for log in logs(home)] == [["Quay 7."]]


def _row(n: int, **more: Any) -> dict[str, Any]:
    return {"question": f"{n} {ASKED}", "answer": SAID, **more}


@pytest.mark.parametrize("backwards", [False, True])
def test_thumbs_in_words_beside_stars(home: Home, tmp_path: Path, backwards: bool) -> None:
    """streamlit/streamlit #8416 (thumbs, later stars): one file has ratings of two widgets."""
    ratings = ("thumbs up", "like", 5, 1, "down", True)
    rows = [_row(n, rating=rating) for n, rating in enumerate(ratings)]
    result = bring(home, tmp_path, *(rows[::-1] if backwards else rows))
    found = {log["messages"][0]["content"][0]: said(log)[0][1:3] for log in logs(home)}
    kept = [(1.0, None), (1.0, None), (None, 5.0), (None, 1.0), (0.0, None), (1.0, None)]
    assert ([found[str(n)] for n in range(6)], result.stars) == (kept, 2)


@pytest.mark.parametrize("backwards", [False, True])
def test_thumbs_in_words_beside_stars_in_rows_of_their_own(
    home: Home, tmp_path: Path, backwards: bool
) -> None:
    """langsmith-sdk #325: feedback as a table; two widgets gave their ratings one key.

    Names of votes that have an address in them are redacted.
    """
    given = [("up", 1.0, None), ("5", None, 5.0), ("down", 0.0, None), ("1", None, 1.0),
             ("True", 1.0, None)]  # fmt: skip
    names = [f"f{n}-ada@example.org" for n in range(len(given))]
    cells = [
        f"{name},run,rating,{rating}\n" for name, (rating, *_) in zip(names, given, strict=True)
    ]
    path = tmp_path / "rows.csv"
    path.write_text("id,run_id,key,score\n" + "".join(cells[::-1] if backwards else cells))
    assert import_file(path, home).stars == 2
    with Journal(home.journal, readonly=True) as journal:
        found = {f.feedback_id: (f.score, f.value) for f in journal.feedback()}
    assert found == {pseudonym(n): tuple(one) for n, (_, *one) in zip(names, given, strict=True)}


def test_what_was_exported_comes_back_with_thumbs_and_stars(home: Home, tmp_path: Path) -> None:
    bring(home, tmp_path, *(_row(n, rating=r) for n, r in enumerate(("up", 5, "down", 1))))
    path, other = tmp_path / "out.jsonl", Home(tmp_path / "other", "default")
    path.write_text("\n".join(lines := list(export_lines(home))), encoding="utf-8")
    import_file(path, other)
    assert list(export_lines(other)) == lines


def test_stars_and_votes_by_message(home: Home, tmp_path: Path) -> None:
    """agent-service-toolkit PR #43 (stars of an answer by its id); two people, no ids of votes."""
    turns = [{**one, "id": ID.format(n), "conversationId": "c"} for n, one in enumerate((U, A), 1)]
    votes = [{"messageId": ID.format(2), "rating": rating, "userId": user}
             for user, rating in (("u1", 4), ("u2", 1), ("u3", "up"))]  # fmt: skip
    assert bring(home, tmp_path, *turns, *votes).bad == []
    [log] = logs(home)
    assert {s[5]: s[1:3] for s in said(log)} == {
        "u1": (None, 4.0), "u2": (None, 1.0), "u3": (1.0, None)}  # fmt: skip


def test_scores_in_a_table_are_numbers(home: Home, tmp_path: Path) -> None:
    """langsmith-sdk #325: feedback as a table; cells are texts."""
    top = "id,run_id,key,score,comment\n"
    cells = "f1,run-1,thumb,0.0,x\nf2,run-1,stars,4,x\nf3,run-1,thumb,n/a,x\n"
    path = tmp_path / "rows.csv"
    path.write_text(top + cells)
    result = import_file(path, home)
    assert result.bad == [(4, "the score 'n/a' is no number")]
    bring(home, tmp_path, {**RUN, "id": "run-1"})
    assert [s[:3] for s in said(logs(home)[0])] == [("thumb", 0.0, None), ("stars", None, 4.0)]


@pytest.mark.parametrize("name", ["enduser.id", "end_user_id", "endUserId"])
def test_further_names_of_users(home: Home, tmp_path: Path, name: str) -> None:
    """OpenTelemetry's attribute, Flowise's and Langflow's metadata."""
    bring(home, tmp_path, {"messages": [U, A], "metadata": {name: "u1"}})
    assert [log["user_id"] for log in logs(home)] == ["u1"]
