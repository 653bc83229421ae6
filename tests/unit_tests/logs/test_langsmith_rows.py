"""LangSmith's run and feedback exports: whichever comes first, they meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines, import_file
from langchain_uno.logs.stats import stats

RUN = "0190f3a0-1111-7222-8333-444455556666"


def constructor(kind: str, text: str, **more: Any) -> dict[str, Any]:
    name = f"{kind}Message"
    kwargs = {"content": text, "type": kind.lower(), **more}
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", name], "kwargs": kwargs}


def run(**more: Any) -> dict[str, Any]:
    asked = [constructor("System", "Be kind."), constructor("Human", "Where is my parcel?")]
    said = constructor("AI", "In Oslo.")
    return {
        "id": RUN,
        "run_type": "llm",
        "name": "ChatOpenAI",
        "start_time": "2026-03-01T10:00:00.123",
        "inputs": {"messages": [asked]},
        "outputs": {"generations": [[{"text": "In Oslo.", "message": said}]]},
        "extra": {"metadata": {"thread_id": "t1", "user_id": "u1", "ls_model_name": "qwen"}},
        **more,
    }


FEEDBACK = {
    "id": "f-1",
    "run_id": RUN,
    "key": "thumb",
    "score": 0,
    "comment": "Name the street.",
    "feedback_source": {"type": "app", "user_id": "u1"},
    "created_at": "2026-03-01T10:05:00+00:00",
}


def imported(tmp_path: Path, *rows: Any) -> tuple[Any, list[dict[str, Any]]]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    home = Home.locate(tmp_path / "home")
    result = import_file(path, home)
    again = import_file(path, home)
    assert (again.interactions, again.feedback) == (0, 0)
    return result, [json.loads(line) for line in export_lines(home)]


@pytest.mark.parametrize("first", ["run", "feedback"])
def test_run_and_feedback_meet(tmp_path: Path, first: str) -> None:
    rows = [run(), FEEDBACK] if first == "run" else [FEEDBACK, run()]
    result, [row] = imported(tmp_path, *rows)
    assert (result.interactions, result.feedback, result.bad) == (1, 1, [])
    assert row["run_id"] == RUN
    assert [m["content"] for m in row["messages"]] == [
        "Be kind.",
        "Where is my parcel?",
        "In Oslo.",
    ]
    assert (row["thread_id"], row["user_id"], row["model"]) == ("t1", "u1", "qwen")
    assert row["created_at"].startswith("2026-03-01T10:00:00")
    [said] = row["feedback"]
    assert (said["key"], said["score"], said["comment"]) == ("thumb", 0.0, "Name the street.")
    assert (said["source"], said["user_id"], said["feedback_id"]) == ("app", "u1", "f-1")


@pytest.mark.parametrize(
    "outputs",
    [
        {"generations": [{"message": {"role": "assistant", "content": "In Oslo."}}]},
        {"choices": [{"message": {"role": "assistant", "content": "In Oslo."}}]},
        {"generations": [[{"text": "In Oslo."}]]},
        {"output": "In Oslo."},
        {"role": "assistant", "content": "In Oslo."},
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "In Oslo."},
            ]
        },
    ],
)
@pytest.mark.parametrize(
    "inputs",
    [
        {"messages": [{"role": "user", "content": "Where?"}]},
        {"messages": [{"type": "human", "data": {"content": "Where?"}}]},
        {"input": "Where?"},
        {"prompts": ["Where?"]},
    ],
)
def test_the_shapes_that_runs_come_in(tmp_path: Path, inputs: Any, outputs: Any) -> None:
    _, [row] = imported(tmp_path, run(inputs=inputs, outputs=outputs))
    assert [m["content"] for m in row["messages"]] == ["Where?", "In Oslo."]


def test_only_the_runs_own_answer_is_a_record(tmp_path: Path) -> None:
    asked = [constructor("Human", "hi"), constructor("AI", "hello"), constructor("Human", "where?")]
    calls = [{"name": "find", "args": {"x": 1}, "id": "c1"}]
    said = constructor("AI", "", tool_calls=calls)
    outputs = {"generations": [[{"text": "", "message": said}]]}
    _, [row] = imported(tmp_path, run(inputs={"messages": [asked]}, outputs=outputs))
    assert row["run_id"] == RUN
    assert len(row["messages"]) == 4
    assert row["tool_calls"] == calls


def test_what_is_no_answer_of_a_model_is_passed_over_and_nonsense_is_named(tmp_path: Path) -> None:
    rows = [
        run(run_type="chain"),
        run(outputs=None),
        run(inputs={"messages": [5]}),
        run(inputs=3),
        {**FEEDBACK, "key": "", "score": None, "comment": None},
        {**FEEDBACK, "score": 7.5},
        {**FEEDBACK, "id": "f-2", "correction": {"answer": "In Bergen."}},
    ]
    result, exported = imported(tmp_path, *rows)
    assert [number for number, _ in result.bad] == [3, 4, 5]
    assert exported == []
    waiting = stats(Home.locate(tmp_path / "home"))["waiting_feedback"]
    assert waiting == 2


@pytest.mark.parametrize("mark", [{"tags": ["nostream"]}, {"source": "guard"}])
def test_a_vote_on_a_trace_is_not_the_guards(tmp_path: Path, mark: dict[str, Any]) -> None:
    """LangChain tells the calls of an app's own by metadata and tags; LangSmith keeps both."""
    metadata = {"lc_source": mark["source"]} if "source" in mark else {}
    guard = run(
        id="0190aaaa-0000-7000-8000-000000000009",
        trace_id="trace-7",
        inputs={"messages": [{"role": "user", "content": "In Oslo."}]},
        outputs={"output": "safe"},
        extra={"metadata": metadata},
        tags=mark.get("tags", []),
    )
    vote = {**FEEDBACK, "run_id": "trace-7"}
    _, rows = imported(tmp_path, run(trace_id="trace-7"), guard, vote)
    assert [len(row["feedback"]) for row in rows] == [1, 0]


@pytest.mark.parametrize("alone", [True, False])
def test_a_root_is_the_answer_where_its_model_runs_are_missing(tmp_path: Path, alone: bool) -> None:
    root = "0190aaaa-0000-7000-8000-000000000001"
    chain = run(
        id=root,
        trace_id=root,
        run_type="chain",
        inputs={"question": "Where?"},
        outputs={"answer": "Oslo."},
    )
    rows = [chain] if alone else [chain, run(trace_id=root)]
    result, [row] = imported(tmp_path, *rows, {**FEEDBACK, "run_id": root})
    assert row["messages"][-1]["content"] == ("Oslo." if alone else "In Oslo.")
    assert [f["score"] for f in row["feedback"]] == [0.0]
    assert (result.bad, result.passed_over["not_a_model_run"]) == ([], 0 if alone else 1)


def test_errors_and_thumbs_of_langsmith(tmp_path: Path) -> None:
    votes = [
        {**FEEDBACK, "id": "f-1", "score": None, "value": "thumbs_down"},
        {**FEEDBACK, "id": "f-2", "score": -1},
    ]
    _, [row] = imported(tmp_path, run(error="TimeoutError()"), *votes)
    assert [f["score"] for f in row["feedback"]] == [0.0, 0.0]
    assert row["error"] == "TimeoutError()"
