"""Asking for many answers: some at a time, in threads; equal requests once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from langchain_core.runnables.config import ContextThreadPoolExecutor

from langchain_uno.models.answers import key_of
from langchain_uno.models.protocols import Engine, GenerateRequest, Generation, OnDone

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
        on_done: is told of each answer.
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


def ask_once(
    engine: Engine, requests: Sequence[GenerateRequest], on_done: OnDone | None = None
) -> list[Generation]:
    """Return the engine's answers, in the order of the requests; equal ones are asked once.

    ``on_done`` is told of every request.
    """
    keys = [key_of("", request) for request in requests]
    unique = dict(zip(keys, requests, strict=True))
    made = engine.generate(list(unique.values()), on_done) if unique else []
    if on_done is not None and len(keys) > len(unique):
        on_done(len(keys) - len(unique))
    answers = dict(zip(unique, made, strict=True))
    return [answers[key] for key in keys]
