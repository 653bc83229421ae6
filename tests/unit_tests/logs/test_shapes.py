"""Rows in further shapes that public APIs, logs and data sets have: each asks and answers the same.

The names say whose documentation or data card shows the shape.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines, import_file

ASKED, SAID = "Where is the ferry?", "At quay 6."
U = {"role": "user", "content": ASKED}
A = {"role": "assistant", "content": SAID}
DONE = {"choices": [{"index": 0, "message": A}]}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "6"}
OUTPUT = [
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": SAID}]}
]

ROWS: dict[str, dict[str, Any]] = {
    "OpenAI batch, input beside output": {
        "custom_id": "r1",
        "body": {"messages": [U]},
        "response": {"status_code": 200, "body": DONE},
    },
    "OpenPipe request logs": {"input": {"messages": [U]}, "output": DONE, "tags": {}},
    "Portkey, bodies as text": {
        "request": json.dumps({"messages": [U]}),
        "response": json.dumps(DONE),
    },
    "Bedrock Converse": {
        "request": {"messages": [{"role": "user", "content": [{"text": ASKED}]}]},
        "response": {"output": {"message": {"role": "assistant", "content": [{"text": SAID}]}}},
    },
    "Bedrock invocation logging": {
        "schemaType": "ModelInvocationLog",
        "input": {"inputBodyJson": {"messages": [U]}},
        "output": {"outputBodyJson": {"content": [{"type": "text", "text": SAID}]}},
    },
    "Ollama chat": {"request": {"messages": [U]}, "response": {"message": A, "done": True}},
    "Ollama generate": {"request": {"prompt": ASKED}, "response": {"response": SAID}},
    "LiteLLM, plain texts": {
        "id": "x",
        "call_type": "completion",
        "messages": ASKED,
        "response": SAID,
    },
    "LiteLLM spend logs": {
        "request_id": "x",
        "startTime": "2025-01-01T00:00:00Z",
        "messages": {"messages": [U]},
        "response": DONE,
    },
    "OpenAI Responses": {
        "request": {"input": ASKED},
        "response": {"object": "response", "output": OUTPUT, "output_text": SAID},
    },
    "OpenAI legacy completions": {"prompt": ASKED, "choices": [{"text": SAID, "index": 0}]},
    "Gemini, snake case": {
        "contents": [
            {"role": "user", "parts": [{"text": ASKED}]},
            {"role": "model", "parts": [{"text": SAID}]},
        ]
    },
    "Gemini SDK history": {
        "history": [{"role": "user", "parts": [ASKED]}, {"role": "model", "parts": [SAID]}]
    },
    "Langfuse trace": {
        "id": "t1",
        "timestamp": "2025-01-01T00:00:00Z",
        "userId": "u",
        "sessionId": "s",
        "input": ASKED,
        "output": SAID,
    },
    "Langfuse generation of LangChain": {
        "id": "o",
        "traceId": "t",
        "type": "GENERATION",
        "input": [U],
        "output": {**A, "additional_kwargs": {}},
    },
    "LangSmith key-value dataset": {"inputs": {"input": ASKED}, "outputs": {"output": SAID}},
    "LangSmith chat dataset": {
        "inputs": {"input": [{"type": "human", "data": {"content": ASKED}}]},
        "outputs": {"output": {"type": "ai", "data": {"content": SAID}}},
    },
    "MLflow traces": {"request_id": "tr", "inputs": {"messages": [U]}, "outputs": DONE},
    "TRL prompt-completion": {"prompt": [U], "completion": [A]},
    "HelpSteer": {"prompt": ASKED, "response": SAID, "helpfulness": 3},
    "LLaMA-Factory KTO, ShareGPT": {
        "conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}],
        "kto_tag": True,
    },
    "LLaMA-Factory KTO, Alpaca": {"instruction": ASKED, "output": SAID, "kto_tag": False},
    "Open WebUI chat by itself": {
        "title": "x",
        "history": {
            "messages": {
                "a": {"id": "a", "parentId": None, **U},
                "b": {"parentId": "a", "id": "b", **A},
            },
            "currentId": "b",
        },
    },
    "Claude's data export": {
        "uuid": "u",
        "chat_messages": [
            {"sender": "human", "text": ASKED},
            {"sender": "assistant", "text": SAID},
        ],
    },
    "LangChain messages to dict": {
        "messages": [{"type": "human", "content": ASKED}, {"type": "ai", "content": SAID}]
    },
    "Assistants, a thread's messages": {
        "messages": [
            {"role": m["role"], "content": [{"type": "text", "text": {"value": m["content"]}}]}
            for m in (U, A)
        ]
    },
    "an answer beside its messages": {"messages": [U], "answer": SAID},
    "another field beside a finished chat": {"messages": [U, A], "answer": "42"},
}


@pytest.mark.parametrize("name", ROWS)
def test_asked_and_said(home: Home, tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[name]) + "\n")
    assert import_file(path, home).bad == []
    [log] = [json.loads(line) for line in export_lines(home)]
    found = [(m["role"], m["content"]) for m in log["messages"]]
    assert found == [("user", ASKED), ("assistant", SAID)]


STEPS: dict[str, dict[str, Any]] = {
    "OpenAI Responses": {"input": [U, CALL, RESULT], "output": OUTPUT},
    "AI SDK 4": {
        "messages": [
            U,
            {
                "role": "assistant",
                "content": "",
                "parts": [
                    {
                        "type": "tool-invocation",
                        "toolInvocation": {
                            "state": "result",
                            "toolCallId": "c",
                            "toolName": "f",
                            "args": {},
                            "result": "6",
                        },
                    },
                    {"type": "text", "text": SAID},
                ],
            },
        ]
    },
    "AI SDK 4, before parts": {
        "messages": [
            U,
            {
                "role": "assistant",
                "content": SAID,
                "toolInvocations": [
                    {
                        "state": "result",
                        "toolCallId": "c",
                        "toolName": "f",
                        "args": {},
                        "result": "6",
                    }
                ],
            },
        ]
    },
    "OpenTelemetry": {
        "input": [
            {"role": "user", "parts": [{"type": "text", "content": ASKED}]},
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": "c", "name": "f", "arguments": {}}],
            },
            {
                "role": "tool",
                "parts": [{"type": "tool_call_response", "id": "c", "response": "6"}],
            },
        ],
        "output": [{"role": "assistant", "parts": [{"type": "text", "content": SAID}]}],
    },
    "AI SDK model messages": {
        "messages": [
            U,
            {
                "role": "assistant",
                "content": [{"type": "tool-call", "toolCallId": "c", "toolName": "f", "input": {}}],
            },
            {
                "role": "tool",
                "content": [
                    {
                        "type": "tool-result",
                        "toolCallId": "c",
                        "toolName": "f",
                        "output": {"type": "text", "value": "6"},
                    }
                ],
            },
            A,
        ]
    },
    "Gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": ASKED}]},
            {"role": "model", "parts": [{"functionCall": {"id": "c", "name": "f", "args": {}}}]},
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": "c", "name": "f", "response": "6"}}],
            },
            {"role": "model", "parts": [{"text": SAID}]},
        ]
    },
    "Bedrock": {
        "messages": [
            U,
            {
                "role": "assistant",
                "content": [{"toolUse": {"toolUseId": "c", "name": "f", "input": {}}}],
            },
            {
                "role": "user",
                "content": [{"toolResult": {"toolUseId": "c", "content": [{"text": "6"}]}}],
            },
            A,
        ]
    },
    "LibreChat agents": {
        "messages": [
            U,
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "tool_call",
                        "tool_call": {"id": "c", "name": "f", "args": "{}", "output": "6"},
                    },
                    {"type": "text", "text": SAID},
                ],
            },
        ]
    },
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_with_tools(home: Home, tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(STEPS[name]) + "\n")
    assert import_file(path, home).bad == []
    step, last = [json.loads(line) for line in export_lines(home)]
    assert step["tool_calls"] == [{"name": "f", "args": {}, "id": "c"}]
    assert [(m["role"], m["content"], m.get("tool_call_id")) for m in last["messages"][-2:]] == [
        ("tool", "6", "c"),
        ("assistant", SAID, None),
    ]


@pytest.mark.parametrize(
    ("correction", "edit", "comment"),
    [
        ("In Oslo.", "In Oslo.", None),
        ({"answer": "In Oslo."}, "In Oslo.", None),
        ({"output": "In Oslo.", "reason": "shorter"}, "In Oslo.", None),
        ({"why": "shorter", "response": "In Oslo."}, "In Oslo.", None),
        ({"output": {"role": "assistant", "content": "In Oslo."}}, "In Oslo.", None),
        ({"messages": [{"role": "assistant", "content": "In Oslo."}]}, "In Oslo.", None),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "In Oslo."}]},
            "In Oslo.",
            None,
        ),
        ({"outputs": {"output": "In Oslo."}}, "In Oslo.", None),
        ({"tone": "warm", "length": "short"}, None, '{"tone": "warm", "length": "short"}'),
        (["In Oslo."], "In Oslo.", None),
        ({"label": "table", "score": 3}, None, '{"label": "table", "score": 3}'),
        ({"stars": 3}, None, '{"stars": 3}'),
    ],
)
def test_corrections_of_langsmith(
    home: Home, tmp_path: Path, correction: Any, edit: str | None, comment: str | None
) -> None:
    """docs.langchain.com, feedback data format: a correction is a text or any object."""
    run = {"id": "0190aaaa-0000-7000-8000-000000000002", "run_type": "llm", "outputs": DONE}
    said = {"run_id": None, "trace_id": "trace-7", "key": "edit", "correction": correction}
    path = tmp_path / "rows.jsonl"
    rows = [said, {**run, "trace_id": "trace-7", "inputs": {"messages": [U]}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert import_file(path, home).waiting == 0
    [log] = [json.loads(line) for line in export_lines(home)]
    [found] = log["feedback"]
    assert (found.get("correction"), found.get("comment")) == (edit, comment)
