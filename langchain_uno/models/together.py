"""Asking for many answers, some at a time, in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from langchain_core.runnables.config import ContextThreadPoolExecutor

from langchain_uno.models.protocols import OnDone

T = TypeVar("T")
R = TypeVar("R")


def ask_together(
    ask: Callable[[T], R], items: Sequence[T], width: int, on_done: OnDone | None
) -> list[R]:
    """Return what ``ask`` gives for each item, in the order of the items.

    Args:
        ask: called in threads.
        items: what is asked.
        width: calls under way at a time.
        on_done: hears of each answer.
    """
    answers: list[R] = []
    pool = ContextThreadPoolExecutor(width)
    try:
        for answer in pool.map(ask, items):
            answers.append(answer)
            if on_done is not None:
                on_done(1)
    finally:  # after an error or Ctrl-C nobody waits for the rest
        pool.shutdown(wait=False, cancel_futures=True)
    return answers
