"""Single values of imported rows: times, encoded columns, text that is valid Unicode."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from langchain_uno.errors import InputError
from langchain_uno.logs.conversation import clean_text

__all__ = ["SPACE", "aware", "clean", "literal", "time_of"]

SPACE = UUID("6f0e1f5c-64f5-5c0e-9d39-6c0f1b8f5a11")
"""The name space of ids made from imported content; changing it would import everything anew."""
_MAX_DEPTH = 50


def time_of(value: Any) -> datetime | None:
    """Return the time that ISO 8601 text or Unix seconds name; None for None.

    Raises:
        InputError: it is no time.
    """
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, timezone.utc)
        found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{str(value)[:40]!r} is not a time (give ISO 8601 or Unix seconds)"
        ) from error
    return aware(found)


def aware(time: datetime) -> datetime:
    """Return the time with its zone; UTC where it names none."""
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def literal(value: Any, name: str) -> Any:
    """Return what a text column holds: JSON, or a Python literal (MemoryBench on the hub).

    Raises:
        InputError: it is neither.
    """
    if not isinstance(value, str) or name == "feedback":
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    raise InputError(f"{name!r} is a text that is neither JSON nor a Python literal")


def clean(value: Any, depth: int = 0) -> Any:
    """Return the value with every text in it valid Unicode.

    Raises:
        InputError: nested too deeply.
    """
    if isinstance(value, str):
        return clean_text(value)
    if depth > _MAX_DEPTH:
        raise InputError("nested too deeply")
    if isinstance(value, list):
        return [clean(v, depth + 1) for v in value]
    if isinstance(value, Mapping):
        return {clean_text(str(k)): clean(v, depth + 1) for k, v in value.items()}
    return value
