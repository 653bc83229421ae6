from __future__ import annotations

from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
)

from langchain_uno.messages import from_langchain


def test_every_kind_of_message() -> None:
    call = {"name": "f", "args": {"x": 1}, "id": "1", "type": "tool_call"}
    got = from_langchain(
        [
            SystemMessage("s"),
            ChatMessage(role="developer", content="d"),
            HumanMessage([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
            HumanMessageChunk(content="chunk"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("done", tool_call_id="1", name="f"),
            ChatMessage(role="assistant", content="c"),
        ]
    )
    assert [(m.role, m.content) for m in got] == [
        ("system", "s"),
        ("system", "d"),
        ("user", "ab"),
        ("user", "chunk"),
        ("assistant", ""),
        ("tool", "done"),
        ("assistant", "c"),
    ]
    assert got[4].tool_calls == [{"name": "f", "args": {"x": 1}, "id": "1"}]
    assert (got[5].tool_call_id, got[5].name) == ("1", "f")
