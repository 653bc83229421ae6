"""Logs that repeat the history: one answer is one record, whatever its rows are called.

Reported: raycast/extensions 27075 and cloudflare/vibesdk 428 (every exchange saved anew with all
messages so far), LiteLLM and Helicone (a row a request, with its own id).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.logs.exchange import ImportResult, export_lines, import_file

TURNS = [
    {"role": role, "content": text}
    for role, text in (
        ("user", "How do I descale the kettle?"),
        ("assistant", "Boil water with citric acid."),
        ("user", "Please number the steps."),
        ("assistant", "1. Add acid.\n2. Boil."),
        ("user", "And in grams."),
        ("assistant", "1. Add 20 g.\n2. Boil."),
    )
]


def bring(home: Home, folder: Path, *rows: Any) -> ImportResult:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_file(path, home)


def logs(home: Home) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export_lines(home)]


def requests(**about: Any) -> list[dict[str, Any]]:
    """Three requests of one conversation, each with the whole history."""
    return [
        {**{k: v.format(n=n) for k, v in about.items()}, "messages": TURNS[:n]} for n in (2, 4, 6)
    ]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    "about",
    [
        {},
        {"id": "req-{n}"},
        {"id": "req-{n}", "user_id": "u1"},
        {"id": "req-{n}", "thread_id": "t1"},
        {"run_id": "run-{n}", "user_id": "u1", "thread_id": "t1"},
        {"run_id": "run-{n}"},
    ],
)
def test_three_requests_are_three_answers(
    home: Home, tmp_path: Path, about: dict[str, str], backwards: bool
) -> None:
    rows = requests(**about)
    rows = rows[::-1] if backwards else rows
    first = bring(home, tmp_path, *rows)
    assert (first.interactions, first.known, first.bad) == (3, 3, [])
    found = {one["messages"][-1]["content"]: one["feedback"] for one in logs(home)}
    assert [[f["comment"] for f in found[TURNS[n]["content"]]] for n in (1, 3, 5)] == [
        ["Please number the steps."],
        ["And in grams."],
        [],
    ]
    again = bring(home, tmp_path, *rows)
    assert (again.interactions, again.feedback, again.known) == (0, 0, 6)


@pytest.mark.parametrize("backwards", [False, True])
def test_feedback_on_any_copy_joins(home: Home, tmp_path: Path, backwards: bool) -> None:
    rows: list[dict[str, Any]] = requests(run_id="run-{n}", user_id="u1")
    rows[0]["feedback"] = [{"score": 0}]
    rows[2]["feedback"] = [{"comment": "Too short.", "turn": 0}]
    rows = rows[::-1] if backwards else rows
    late = {"run_id": "run-4", "key": "thumb", "score": 1}
    result = bring(home, tmp_path, *rows, late)
    assert (result.interactions, result.waiting) == (3, 0)
    found = {one["messages"][-1]["content"]: one["feedback"] for one in logs(home)}
    first = found["Boil water with citric acid."]
    assert {f["key"] for f in first} == {"score", "comment", "follow_up"} and len(first) == 3
    assert [f.get("score") for f in found[TURNS[3]["content"]] if f["key"] == "thumb"] == [1.0]


def test_other_people_and_threads_have_answers_of_their_own(home: Home, tmp_path: Path) -> None:
    one = {"messages": TURNS[:2]}
    rows = [
        {**one, "id": 1, "user_id": "u1", "thread_id": "t1"},
        {**one, "id": 2, "user_id": "u2", "thread_id": "t1"},
        {**one, "id": 3, "user_id": "u1", "thread_id": "t2"},
        {**one, "id": 4},
        {**one, "id": 5},  # nobody named, and no conversation that goes on: two people, perhaps
    ]
    assert bring(home, tmp_path, *rows).interactions == 5


def test_conversations_that_part_stay_apart(home: Home, tmp_path: Path) -> None:
    other = [*TURNS[:2], {"role": "user", "content": "In verse."}, TURNS[3]]
    bring(home, tmp_path, {"id": 1, "messages": TURNS[:4]}, {"id": 2, "messages": other})
    assert len(logs(home)) == 4


def test_litellm_rows_and_an_answer_of_another_system_prompt(home: Home, tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        system = {"role": "system", "content": f"It is {n} o'clock."}
        return {
            "id": f"chatcmpl-{n}",
            "call_type": "acompletion",
            "end_user": "u-1",
            "messages": [system, *TURNS[: n - 1]],
            "response": {"choices": [{"message": TURNS[n - 1]}]},
        }

    result = bring(home, tmp_path, row(2), row(4), row(6))
    assert [one["run_id"] for one in logs(home)] == ["chatcmpl-2", "chatcmpl-4", "chatcmpl-6"]
    assert result.known == 3


def test_steps_with_tools_are_not_counted_twice(home: Home, tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    turns = [
        TURNS[0],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "acid"},
        {"role": "assistant", "content": "Use acid."},
    ]
    more = [*turns, TURNS[2], TURNS[3]]
    rows = [
        {"id": "a", "user_id": "u1", "messages": turns},
        {"id": "b", "user_id": "u1", "messages": more},
    ]
    assert bring(home, tmp_path, *rows).interactions == 3
