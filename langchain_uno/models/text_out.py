"""From tokens to text: incremental decoding, stop strings and tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

__all__ = ["TextStream", "parse_tool_calls"]

_CALL = "<tool_call>"
_CALLS = re.compile(r"<tool_call>\s*(\{.*?\})\s*(?:</tool_call>|\Z)", re.DOTALL)


class TextStream:
    """Decodes one answer while it grows.

    ``push`` returns the text that is certain by now: never half a character, never text that may
    yet turn out to be a stop string, and nothing of a tool call when tools were given.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), hold_calls: bool = False) -> None:
        self._tokenizer = tokenizer
        self._stop = [s for s in stop if s]
        self._hold_calls = hold_calls
        self._tokens: list[int] = []
        self._context = 0
        self._done = 0
        self._text = ""
        self._sent = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """Everything decoded so far, cut before the stop string if one was met."""
        return self._text

    def push(self, token: int) -> str:
        """Take one token; return the text that can be shown now (often empty)."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._context : self._done])
        now = self._decode(self._tokens[self._context :])
        if len(now) > len(before) and not now.endswith("\ufffd"):
            self._add(now[len(before) :])
        return self._release(final=False)

    def finish(self) -> str:
        """Return what was still held back (an unfinished character shows as U+FFFD)."""
        if not self.stopped:
            before = self._decode(self._tokens[self._context : self._done])
            self._add(self._decode(self._tokens[self._context :])[len(before) :])
        return self._release(final=True)

    def _add(self, new: str) -> None:
        searched = max(0, len(self._text) - max((len(s) for s in self._stop), default=0))
        self._text += new
        # The window starts where the text was last complete: never inside a character.
        self._context, self._done = self._done, len(self._tokens)
        hits = [at for s in self._stop if (at := self._text.find(s, searched)) >= 0]
        if hits:
            self._text, self.stopped = self._text[: min(hits)], True

    def _release(self, final: bool) -> str:
        end = len(self._text)
        if self._hold_calls and (call := self._text.find(_CALL)) >= 0:
            end = call
        if not final and not self.stopped:
            held = [*self._stop, _CALL] if self._hold_calls else self._stop
            end = min(end, len(self._text) - _open_prefix(self._text, held))
        piece = self._text[self._sent : end]
        self._sent = max(self._sent, end)
        return piece

    def _decode(self, tokens: list[int]) -> str:
        if not tokens:
            return ""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _open_prefix(text: str, marks: Sequence[str]) -> int:
    """The length of the longest end of ``text`` that begins one of the marks."""
    longest = 0
    for mark in marks:
        for size in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:size]):
                longest = size
                break
    return longest


def parse_tool_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """Split ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` blocks off an answer.

    Returns:
        The text without them, and ``[{"name", "args", "id"}]``. A block that is not of this form
        stays in the text as it is.
    """
    calls: list[dict[str, Any]] = []

    def take(match: re.Match[str]) -> str:
        try:
            found = json.loads(match.group(1))
        except json.JSONDecodeError:
            return match.group(0)
        name, args = found.get("name"), found.get("arguments", found.get("parameters", {}))
        if isinstance(args, str):
            try:
                args = json.loads(args)
            except json.JSONDecodeError:
                return match.group(0)
        if not isinstance(name, str) or not isinstance(args, dict):
            return match.group(0)
        calls.append({"name": name, "args": args, "id": f"call_{uuid4().hex[:24]}"})
        return ""

    rest = _CALLS.sub(take, text)
    return (rest.strip() if calls else text), calls
