"""Waiting for an answer no longer than its caller will."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Sequence
from typing import TypeVar

from langchain_uno.errors import EngineTimeoutError
from langchain_uno.models.protocols import GenerateRequest

T = TypeVar("T")


def left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline (``time.monotonic()``), None for ever.

    Raises:
        EngineTimeoutError: it has passed.
    """
    if deadline is None:
        return None
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise EngineTimeoutError(_SAID)
    return seconds


def earliest(requests: Sequence[GenerateRequest]) -> float | None:
    """Return the first deadline among requests."""
    return min((r.deadline for r in requests if r.deadline is not None), default=None)


def get(arrived: queue.SimpleQueue[T | BaseException], deadline: float | None) -> T:
    """Return the queue's next item, or raise it when it is an error.

    Raises:
        EngineTimeoutError: none came in time.
    """
    try:
        item = arrived.get(timeout=left(deadline))
    except queue.Empty as error:
        raise EngineTimeoutError(_SAID) from error
    if isinstance(item, BaseException):
        raise item
    return item


async def arrive(arrived: asyncio.Queue[T | BaseException], deadline: float | None) -> T:
    """Like :func:`get`, without blocking the event loop."""
    try:
        item = await asyncio.wait_for(arrived.get(), left(deadline))
    except asyncio.TimeoutError as error:
        raise EngineTimeoutError(_SAID) from error
    if isinstance(item, BaseException):
        raise item
    return item


_SAID = (
    "The answer took longer than the timeout allows: give it more time, lower max_tokens, or see "
    "whether the model has too much to do."
)
