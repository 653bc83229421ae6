"""What a process does that was forked after use (gunicorn with preload, multiprocessing)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.chat_models import UNOChatModel
from langchain_uno.errors import EngineError, StoreBusyError
from langchain_uno.models.local import LocalEngine

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def in_child(work: Callable[[], object], longest_s: float = 60.0) -> str:
    """Fork; return what ``work`` returned there (or its error), "" where the child hung."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:60_000])
        os._exit(0)
    os.close(writing)
    ended = time.monotonic() + longest_s
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.002)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


def capture(handler: UNOFeedbackHandler) -> None:
    run = uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("When does the ferry leave?")]], run_id=run)
    said = ChatGeneration(message=AIMessage("At nine."))
    handler.on_llm_end(LLMResult(generations=[[said]]), run_id=run)


# gunicorn's preload (benoitc/gunicorn #2478 and #1891: the worker hangs at its first prediction),
# torch's OpenMP pool (pytorch/pytorch #17199 and #41197), an event loop of one's own, a grandchild.
def test_a_used_model_answers_in_every_way_in_a_forked_child(engine: LocalEngine) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        table = torch.ones(600, 600)
        float((table @ table).sum())
        chat = UNOChatModel(engine=engine, max_tokens=6)
        told = chat.invoke("Hello").content

        def everything() -> list[object]:
            return [
                chat.invoke("Hello").content,
                asyncio.run(chat.ainvoke("Hello")).content,
                "".join(str(piece.content) for piece in chat.stream("Hello")),
                in_child(lambda: chat.invoke("Hello").content),
                float((table @ table).sum()) > 0,
            ]

        assert in_child(everything) == str([told, told, told, told, True])
        assert chat.invoke("Hello").content == told
    finally:
        torch.set_num_threads(threads)


def test_a_model_forked_under_load_answers(engine: LocalEngine) -> None:
    chat = UNOChatModel(engine=engine, max_tokens=12)
    told = chat.invoke("Hello").content
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            chat.invoke("When does the ferry leave?")

    busy = [threading.Thread(target=ask) for _ in range(4)]
    for one in busy:
        one.start()
    try:
        for _ in range(4):
            assert in_child(lambda: chat.invoke("Hello").content) == told
    finally:
        stop.set()
        for one in busy:
            one.join()


def test_a_model_that_is_being_trained_says_so_in_the_child(engine: LocalEngine) -> None:
    begun, over = threading.Event(), threading.Event()

    def train() -> None:
        with engine.exclusive():
            begun.set()
            over.wait(60)

    trainer = threading.Thread(target=train)
    trainer.start()
    begun.wait(60)
    said = in_child(lambda: UNOChatModel(engine=engine, max_tokens=4).invoke("Hi"), 20)
    over.set()
    trainer.join()
    assert said.startswith("EngineError: This process was forked while its model was being trained")


def test_a_model_on_an_accelerator_says_what_to_do(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = UNOChatModel(engine=engine, max_tokens=4)
    chat.invoke("Hi")

    class Elsewhere:
        device = torch.device("cuda")

    monkeypatch.setattr(engine._scheduler.adapters, "model", Elsewhere())
    began = time.monotonic()
    said = in_child(lambda: chat.invoke("Hi"))
    assert said.startswith(EngineError.__name__)
    assert "load it in each worker" in said
    assert time.monotonic() - began < 30


# bugs.python.org issue 6721 (locks held by other threads at a fork), sqlite.org's "How To Corrupt
# An SQLite Database File" (a connection carried across a fork).
def test_forks_while_eight_threads_capture(tmp_path: Path) -> None:
    handler = UNOFeedbackHandler(home=tmp_path / "home")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            capture(handler)
            time.sleep(0.001)

    busy = [threading.Thread(target=work) for _ in range(8)]
    for one in busy:
        one.start()

    def child() -> str:
        capture(handler)
        for _ in range(20):  # on a loaded machine the eight keep the journal for long
            with contextlib.suppress(StoreBusyError):
                handler.feedback(str(uuid4()), score=1.0)
                handler.close()
                return "done"
        return "busy"

    try:
        assert [in_child(child) for _ in range(16)] == ["done"] * 16
    finally:
        stop.set()
        for one in busy:
            one.join()
    handler.flush()
    stats = handler.stats()
    assert (stats["dropped"], stats["waiting"], stats["errors"]) == (0, 0, 0)
    with closing(sqlite3.connect(tmp_path / "home" / "journal" / "journal.sqlite3")) as db:
        assert db.execute("SELECT count(*) FROM interactions").fetchone() == (
            stats["recorded"] + 16,
        )
        assert db.execute("SELECT count(*) FROM feedback").fetchone() == (16,)
    handler.close()


def test_a_parent_that_closes_first_loses_nothing_of_its_child(tmp_path: Path) -> None:
    handler = UNOFeedbackHandler(home=tmp_path)
    capture(handler)
    go, gone = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        capture(handler)
        os.write(gone[1], b"x")
        os.read(go[0], 1)  # the parent has closed its journal
        for _ in range(5):
            capture(handler)
        os._exit(0)
    os.read(gone[0], 1)
    handler.close()
    os.write(go[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    with closing(sqlite3.connect(tmp_path / "journal" / "journal.sqlite3")) as db:
        assert db.execute("SELECT count(*) FROM interactions").fetchone() == (7,)
