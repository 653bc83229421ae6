"""Users' text inside prompts: data between tags that the text itself can't write.

Every piece of text that we did not write goes into a block ``<uno-NAME> ... </uno-NAME>``. Inside,
anything that a model could read as one of our tags, or that a tokenizer turns into a control token
of a chat template, loses its opening bracket to ``&lt;``. So a block ends where we end it, with no
random marks: the same input gives the same prompt, and caches keep working.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from langchain_uno.records import Message

__all__ = ["block", "clean", "numbered", "transcript", "turns"]

# Brackets that models read as "<": ASCII, full-width, small form, mathematical, guillemets.
_OPEN = "[<\uff1c\ufe64\u27e8\u3008\u2039]"
# What may hide between the letters of a tag: white space, soft hyphen, zero-width and joiner signs,
# direction marks, variation selectors.
_HIDDEN = r"\s\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff"
_GAP = f"[{_HIDDEN}]*"
# Our prefix "uno-", its dash in any common form and its letters in full width too.
_PREFIX = _GAP.join(["[uU\uff35\uff55]", "[nN\uff2e\uff4e]", "[oO\uff2f\uff4f]"])
_OUR_TAG = re.compile(f"{_OPEN}(?=[/\uff0f{_HIDDEN}]*{_PREFIX}{_GAP}[-_\u2010-\u2015\u2212\uff0d])")
# Control tokens of common chat templates (ChatML, Llama, Gemma, Mistral, Phi, DeepSeek), and tags
# that a template gives a meaning.
_CONTROL = re.compile(
    r"<(?=[|\uff5c][^<>\s]{1,40}[|\uff5c]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think|tool_call|tool_response|tools)>)"
    r"|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\])"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Return ``text`` as it may stand inside a block.

    Line ends become line feeds, control characters go, lone surrogates (which no tokenizer takes)
    become U+FFFD, and openings of our tags and of control tokens are written ``&lt;`` or ``&#91;``.
    All else stays, so code and HTML come through.
    """
    text = _SURROGATE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _UNPRINTABLE.sub("", text)
    text = _OUR_TAG.sub("&lt;", text)
    found = 1
    while found:  # "<|<|x|>" becomes "<|&lt;|x|>", which is one again
        text, found = _CONTROL.subn(lambda m: "&#91;" if m[0] == "[" else "&lt;", text)
    return text.strip()


def block(name: str, text: str, **attributes: str | int) -> str:
    """Return ``text``, cleaned, between the tags of ``uno-NAME``."""
    return _tagged(name, clean(text), **attributes)


def numbered(name: str, items: Sequence[str], empty: str) -> str:
    """Return a block of numbered one-line items, or of the word ``empty`` when there are none."""
    lines = [f"{i}. {' '.join(clean(item).split())}" for i, item in enumerate(items, 1)]
    return _tagged(name, "\n".join(lines) or empty)


def transcript(messages: Sequence[Message]) -> str:
    """Return a conversation as a block a turn; tool calls are written as JSON lines."""
    return "\n".join(_tagged("turn", _said(message), role=message.role) for message in messages)


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


def _tagged(name: str, body: str, **attributes: str | int) -> str:
    head = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f"<uno-{name}{head}>\n{body}\n</uno-{name}>"


def _call(call: dict[str, object]) -> str:
    shown = {"name": call.get("name"), "args": call.get("args", {})}
    return json.dumps(shown, ensure_ascii=False, default=str)
