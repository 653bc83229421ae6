"""Asking for many answers: some at a time, in threads; equal requests once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from contextvars import copy_context
from typing import Any, TypeVar

from langchain_uno.models.answers import key_of
from langchain_uno.models.protocols import Engine, GenerateRequest, Generation, OnDone

T = TypeVar("T")
R = TypeVar("R")


def ask_together(
    ask: Callable[[T], R], items: Sequence[T], width: int, on_done: OnDone | None
) -> list[R]:
    """Return what ``ask`` gives for each item, in the order of the items; ``width`` at a time.

    ``ask`` is called in threads. ``on_done`` is told of each answer.
    """
    futures: list[Future[R]] = [Future() for _ in items]
    ends: list[Any] = [None] * min(width, len(items))
    waiting = deque([*zip(futures, items, strict=True), *ends])

    def work() -> None:
        for future, item in iter(waiting.popleft, None):
            try:
                future.set_result(ask(item))
            except BaseException as error:  # noqa: BLE001 - raised below
                future.set_exception(error)

    for _ in ends:  # daemons: after an error or Ctrl-C nobody waits for them, nor does Python's end
        threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        for future in as_completed(futures):
            future.result()
            if on_done is not None:
                on_done(1)
    finally:
        waiting.extendleft(ends)
    return [future.result() for future in futures]


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
