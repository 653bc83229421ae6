"""Users' text inside prompts: quoted line by line, so that it can't speak for the prompt.

Every line of text that we did not write begins with ``> ``, and none of ours does. So a quotation
ends where we end it, with no random marks: the same input gives the same prompt, and caches keep
working. What a tokenizer turns into a control token of a chat template loses its opening bracket to
``&lt;``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from langchain_uno.records import Message

# Control tokens of common chat templates (ChatML, Llama, Gemma, Mistral, Phi, DeepSeek, EXAONE,
# GLM, Seed), and tags that a template gives a meaning.
_CONTROL = re.compile(
    r"<(?=[|\uff5c][^<>\s]{1,40}>|[^<>\s]{1,40}[|\uff5c]>)"
    r"|\[(?=\|[^\[\]\s]{1,40}\|\])"
    r"|<(?=/?(?:s|bos|eos|pad|unk|sop|eop|start_of_turn|end_of_turn|think|tools|tool_calls?"
    r"|tool_response|unused\d+|SPECIAL_\d+|seed:[a-z_]+)>)"
    r"|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|SYSTEM_PROMPT|THINK|ARGS"
    r"|CALL_ID|gMASK|sMASK)\])"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Return ``text`` as it may stand inside a prompt.

    Line ends become line feeds, control characters go, lone surrogates (which no tokenizer takes)
    become U+FFFD, and openings of control tokens are written ``&lt;`` or ``&#91;``. All else stays,
    so code and HTML come through.
    """
    text = _SURROGATE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _UNPRINTABLE.sub("", text)
    found = 1
    while found:  # "<|<|x|>" becomes "<|&lt;|x|>", which is one again
        text, found = _CONTROL.subn(lambda m: "&#91;" if m[0] == "[" else "&lt;", text)
    return text.strip()


def quoted(text: str) -> str:
    """Return ``text``, cleaned, with ``> `` before every line."""
    return "\n".join(f"> {line}" for line in clean(text).splitlines() or [""])


def shortened(text: str, most: int) -> str:
    """Return a text, or its first ``most`` characters and a mark that it goes on."""
    return text if len(text) <= most else f"{text[:most].rstrip()} …"


def numbered(items: Sequence[str], empty: str) -> str:
    """Return numbered items of one line each, or the word ``empty`` when there are none."""
    lines = [f"{i}. {' '.join(clean(item).split())}" for i, item in enumerate(items, 1)]
    return "\n".join(lines) or empty


def transcript(messages: Sequence[Message]) -> str:
    """Return a conversation turn by turn; tool calls are written as JSON lines."""
    return "\n".join(f"{message.role}:\n{quoted(_said(message))}" for message in messages)


def turns(messages: Sequence[Message]) -> list[Message]:
    """Return a conversation that a model can go on with where no tools are at hand.

    The texts are cleaned, tool calls are written as JSON lines, and what tools gave is said by the
    user.
    """
    out = []
    for message in messages:
        tool = message.role == "tool"
        text = f"[tool result] {_said(message)}" if tool else _said(message)
        out.append(Message(role="user" if tool else message.role, content=text))
    return out


def _said(message: Message) -> str:
    parts = [clean(message.content)] if message.content.strip() else []
    return "\n".join([*parts, *(clean(f"[tool call] {_call(c)}") for c in message.tool_calls)])


def _call(call: dict[str, object]) -> str:
    shown = {"name": call.get("name"), "args": call.get("args", {})}
    return json.dumps(shown, ensure_ascii=False, default=str)
