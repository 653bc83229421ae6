"""Waiting for an answer no longer than its caller will."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from langchain_uno.errors import EngineTimeoutError
from langchain_uno.models.protocols import GenerateRequest

__all__ = ["arrive", "earliest", "get", "left"]

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


def get(arrived: queue.SimpleQueue[T], deadline: float | None) -> T:
    """Return the queue's next item.

    Raises:
        EngineTimeoutError: none came in time.
    """
    try:
        return arrived.get(timeout=left(deadline))
    except queue.Empty as error:
        raise EngineTimeoutError(_SAID) from error


async def arrive(coming: Awaitable[T], deadline: float | None) -> T:
    """Return what an awaitable gives.

    Raises:
        EngineTimeoutError: it did not in time.
    """
    if deadline is None:
        return await coming
    try:
        return await asyncio.wait_for(coming, left(deadline))
    except asyncio.TimeoutError as error:
        raise EngineTimeoutError(_SAID) from error


_SAID = (
    "The answer took longer than the timeout allows: give it more time, lower max_tokens, or see "
    "whether the model has too much to do."
)
