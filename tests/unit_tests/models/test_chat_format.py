"""Incremental text equals the text decoded at once, whatever the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from langchain_uno.errors import TemplateError
from langchain_uno.models.chat_format import TextStream, parse_tool_calls, render
from langchain_uno.records import Message


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_path)


def _run(tokenizer: Any, ids: list[int], **kwargs: Any) -> tuple[list[str], TextStream]:
    stream = TextStream(tokenizer, **kwargs)
    pieces = [stream.push(i) for i in ids]
    return [*pieces, stream.finish()], stream


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30))
def test_any_text_comes_out_whole_and_never_half_a_character(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces, stream = _run(tokenizer, ids)
    wanted = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == wanted == stream.text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=20))
def test_any_bytes_come_out_as_decoded_at_once(tokenizer: Any, data: bytes) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert ByteLevel is not None
    ids = [tokenizer.convert_tokens_to_ids(_byte_token(b)) for b in data]
    pieces, _ = _run(tokenizer, ids)
    wanted = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == wanted


def _byte_token(byte: int) -> str:
    """GPT-2's printable stand-in for a byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in plain:
        return chr(byte)
    return chr(256 + [b for b in range(256) if b not in plain].index(byte))


def test_a_stop_string_split_over_tokens_is_cut_and_never_shown(tokenizer: Any) -> None:
    ids = tokenizer("one STOP two", add_special_tokens=False)["input_ids"]
    pieces, stream = _run(tokenizer, ids, stop=["STOP"])
    assert "".join(pieces) == "one "
    assert stream.stopped
    pieces, stream = _run(tokenizer, ids, stop=["STOX"])
    assert "".join(pieces) == "one STOP two"


def test_tool_calls_are_held_back(tokenizer: Any) -> None:
    text = 'Sure.<tool_call>{"name": "f", "arguments": {"x": "é"}}</tool_call>'
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces, stream = _run(tokenizer, ids, hold_calls=True)
    assert "".join(pieces) == "Sure."
    rest, calls = parse_tool_calls(stream.text)
    assert rest == "Sure."
    assert calls[0]["name"] == "f"
    assert calls[0]["args"] == {"x": "é"}
    shown, _ = _run(tokenizer, ids)
    assert "<tool_call>" in "".join(shown)


@pytest.mark.parametrize(
    ("text", "rest", "args"),
    [
        ('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', "", [{}]),
        ('a <tool_call>{"name": "f", "arguments": {"n": {"m": 1}}}', "a", [{"n": {"m": 1}}]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [{"a": 1}]),
        (
            '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
            '<tool_call>{"name": "f", "arguments": {"b": 2}}</tool_call>',
            "",
            [{"a": 1}, {"b": 2}],
        ),
        ("<tool_call>{broken}</tool_call>", "<tool_call>{broken}</tool_call>", []),
        ('<tool_call>{"arguments": {}}</tool_call>', None, []),
        ("plain", "plain", []),
    ],
)
def test_tool_call_forms(text: str, rest: str | None, args: list[Any]) -> None:
    left, calls = parse_tool_calls(text)
    assert left == (text if rest is None else rest)
    assert [call["args"] for call in calls] == args
    assert len({call["id"] for call in calls}) == len(calls)


# Gemma refuses a system message (mistral.rs #45), Mistral wants turns to alternate
# (vllm-project/vllm #6862), others read a system message only where it comes first
# (suitenumerique/conversations #197).
# An unknown role falls through many templates without a word; calls too.
def _template(refuses: str = "", shows: str = "true") -> str:
    """A template that raises where ``refuses`` holds, and shows a turn where ``shows`` does."""
    check = f"{{% if {refuses} %}}{{{{ raise_exception('refused') }}}}{{% endif %}}"
    turn = "{{ m['role'] ~ ':' ~ m['content'] ~ '|' }}"
    return (
        "{% for m in messages %}" + (check if refuses else "") + f"{{% if {shows} %}}{turn}"
        "{% endif %}{% endfor %}"
    )


NO_SYSTEM = _template("m['role'] == 'system'")
ALTERNATE = _template("(m['role'] == 'user') != (loop.index0 % 2 == 0)")
FIRST_ONLY = _template(shows="m['role'] != 'system' or loop.first")
TWO_ROLES = _template(shows="m['role'] in ('user', 'assistant')")
USER_LAST = _template("loop.last and m['role'] != 'user'")
CALLED = 'assistant:A\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>|'
ANSWERED = "user:<tool_response>\nT\n</tool_response>"


TALK = "user:U|assistant:A|user:S\n\nV|"


@pytest.mark.parametrize(
    ("template", "turns", "prompt"),
    [
        (NO_SYSTEM, ["system:S", "user:U"], "user:S\n\nU|"),
        (NO_SYSTEM, ["user:U", "system:S"], "user:U\n\nS|"),
        (NO_SYSTEM, ["user:U", "assistant:A", "system:S", "user:V"], TALK),
        (NO_SYSTEM, ["user:U", "user:V"], "user:U|user:V|"),
        (ALTERNATE, ["user:U", "user:V"], "user:U\n\nV|"),
        (ALTERNATE, ["system:S", "system:T", "user:U"], "user:S\n\nT\n\nU|"),
        (FIRST_ONLY, ["system:S", "user:U"], "system:S|user:U|"),
        (FIRST_ONLY, ["user:U", "assistant:A", "system:S", "user:V"], TALK),
        (ALTERNATE, ["assistant:A", "user:U"], "user:|assistant:A|user:U|"),
        (NO_SYSTEM, ["assistant:A", "user:U"], "assistant:A|user:U|"),
        (TWO_ROLES, ["system:S", "user:U"], "user:S\n\nU|"),
        (TWO_ROLES, ["user:U", "call:A", "tool:T"], f"user:U|{CALLED}{ANSWERED}|"),
        (ALTERNATE, ["user:U", "call:A", "tool:T", "user:V"], f"user:U|{CALLED}{ANSWERED}\n\nV|"),
    ],
)  # fmt: skip
def test_a_template_gets_the_turns_that_it_takes(
    tiny_model_path: Path, template: str, turns: list[str], prompt: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    tokenizer.chat_template = template
    pairs = [turn.split(":") for turn in turns]
    call = [{"name": "f", "args": {"x": 1}, "id": "call_1"}]
    messages = [
        Message(role="assistant", content=content, tool_calls=call)
        if role == "call"
        else Message.model_validate({"role": role, "content": content})
        for role, content in pairs
    ]
    assert render(tokenizer, messages) == prompt


def test_what_a_template_refuses_all_the_same_is_told(tiny_model_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    tokenizer.chat_template = USER_LAST
    with pytest.raises(TemplateError, match="refused"):
        render(tokenizer, [Message(role="assistant", content="A")])


def test_what_a_template_refuses_is_found_out_once(tiny_model_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    asked = [Message(role="system", content="S"), Message(role="user", content="U")]
    counted = []
    apply = tokenizer.apply_chat_template
    tokenizer.apply_chat_template = lambda rows, **kw: counted.append(1) or apply(rows, **kw)
    tokenizer.chat_template = NO_SYSTEM
    render(tokenizer, asked)
    probed = len(counted)
    assert [render(tokenizer, asked) for _ in range(3)] == ["user:S\n\nU|"] * 3
    assert len(counted) == probed + 3
    tokenizer.chat_template = FIRST_ONLY
    assert render(tokenizer, asked) == "system:S|user:U|"
