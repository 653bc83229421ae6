"""Whether an answer keeps its content: the words that the first answer took from the request.

A judge reads rules better than it reads digits and names, and one that shares the writer's blind
spots misses the writer's slips. This check is blind to style and sees exactly those slips: facts of
the request that the first answer repeats must stand in the better answer too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_uno.records import Message

__all__ = ["kept_share", "request_text"]

# Latin words and numbers whole; scripts without spaces one character at a time.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def kept_share(request: str, first: str, answer: str) -> float:
    """Return the share of the words quoted from the request that the answer still has, in [0, 1].

    Args:
        request: what was asked.
        first: the answer to compare with (the logged one, or the base model's). Its words that
            stand in the request as well count as quoted; none at all gives 1.
        answer: the new answer. Case, order and everything it adds are of no account.
    """
    quoted = _words(first) & _words(request)
    return len(quoted & _words(answer)) / len(quoted) if quoted else 1.0


def request_text(messages: Sequence[Message]) -> str:
    """Return the user turns, one a line: what answers may quote from."""
    return "\n".join(m.content for m in messages if m.role == "user")


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))
