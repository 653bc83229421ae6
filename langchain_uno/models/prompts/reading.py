"""Read what models write: JSON in fences, after thinking, half finished; numbered lists.

Nothing here evaluates code. Each function raises :class:`RoleError` when the text does not hold
what was asked for; the caller drops the case or asks again.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from langchain_uno.messages import without_thinking
from langchain_uno.models.roles import RoleError

_ITEM = re.compile(r"^\s*(?:[(（]?\d{1,3}(?:[.)](?!\d)|[）、．:：])\s*|[-*•]\s+)(?=\S)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_MAX_ITEM_CHARS = 2000
_MAX_OPENINGS = 200
"""Brackets tried as the start of a value: text of brackets alone must not take minutes."""


def json_values(text: str, opening: str) -> Iterator[Any]:
    """Yield the outermost JSON values in ``text`` that start with ``opening`` (``[`` or ``{``).

    Python literals (single quotes, ``None``) are read too, by ``ast.literal_eval``.
    """
    decoder = json.JSONDecoder(strict=False)
    at = text.find(opening)
    for _ in range(_MAX_OPENINGS):
        if at < 0:
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end = _python_literal(text, at)
        if end > at:
            yield value
        at = text.find(opening, max(end, at + 1))


def _python_literal(text: str, at: int) -> tuple[Any, int]:
    closing = {"[": "]", "{": "}"}[text[at]]
    end = text.find("\n\n", at)
    end = text.rfind(closing, at, end if end > 0 else len(text)) + 1
    if not 0 < end - at <= 20_000:
        return None, at
    try:
        return ast.literal_eval(text[at:end]), end
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None, at


def string_list(text: str) -> list[str]:
    """Return the JSON list of strings in ``text``, cleaned of doubles and of empty items.

    A bare list, one in a code fence, ``{"rules": [...]}`` and items like ``{"rule": "..."}`` are
    all read. From a list that was cut off, the finished items are kept.

    Raises:
        RoleError: there is no list, or its items are not text.
    """
    text = without_thinking(text)
    lists = [found for value in json_values(text, "[") if isinstance(value, list)
             for found in [_texts(value)] if found is not None]  # fmt: skip
    if lists:
        return lists[-1]
    start = text.find("[")
    cut = _STRING.findall(text[start:]) if start >= 0 and "]" not in text[start:] else []
    if cut and re.match(r"\[\s*\"", text[start:]):
        return _texts([json.loads(item, strict=False) for item in cut]) or []
    raise RoleError(f"expected a JSON list of strings, got {_short(text)}")


def _texts(items: list[Any]) -> list[str] | None:
    out: list[str] = []
    for item in items:
        if isinstance(item, dict):
            values = [v for v in item.values() if isinstance(v, str)]
            item = values[0] if len(values) == 1 else None
        if not isinstance(item, str):
            return None
        line = " ".join(item.split())[:_MAX_ITEM_CHARS]
        if line and line not in out:
            out.append(line)
    return out


def numbered_items(text: str) -> list[str]:
    """Return the items of a numbered or bulleted list; lines that follow an item belong to it.

    Raises:
        RoleError: no line starts an item.
    """
    items: list[str] = []
    for line in without_thinking(text).splitlines():
        match = _ITEM.match(line)
        if match:
            items.append(line[match.end() :].strip())
        elif items and line.strip():
            items[-1] += " " + line.strip()
    found = _texts(items)
    if not found:
        raise RoleError(f"expected numbered suggestions, got {_short(text)}")
    return found


def _short(text: str) -> str:
    """Say how much came back, never what: model text may repeat a user's words."""
    return f"{len(text)} characters without one"
