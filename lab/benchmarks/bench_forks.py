"""Forks of a process in use: python -m lab.benchmarks.bench_forks servers | capture

servers  gunicorn (``--preload``, two workers of four threads) and uvicorn (two workers) in front of
         the bundled model, which answered before gunicorn forked; 8 threads ask 200 times. Needs
         gunicorn: pip install gunicorn
capture  1,000 children, forked while eight threads capture; each captures an answer, gives feedback
         on it and ends. A child that takes a minute hangs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.errors import StoreBusyError
from langchain_uno.logs.journal import FILE_NAME

ASKED = "When does the ferry to Rost leave? It says: 9:10, quay 4."
HANG_S = 60


def wsgi() -> Callable[..., Iterable[bytes]]:
    """Return the app for gunicorn; its model has answered already."""
    chat = UNOChatModel(max_tokens=12)
    chat.invoke(ASKED)

    def app(environ: Any, start: Any) -> Iterable[bytes]:
        text = chat.invoke(ASKED).text
        start("200 OK", [("content-type", "text/plain")])
        return [f"{os.getpid()} {text}".encode()]

    return app


def asgi() -> Callable[..., Awaitable[None]]:
    """Return the same app for uvicorn."""
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    chat, app = UNOChatModel(max_tokens=12), FastAPI()
    chat.invoke(ASKED)

    @app.get("/")
    async def ask() -> PlainTextResponse:
        return PlainTextResponse(f"{os.getpid()} {(await chat.ainvoke(ASKED)).text}")

    return app


def servers(requests: int) -> None:
    name = "lab.benchmarks.bench_forks"
    quiet = ["--workers", "2", "--log-level", "warning"]
    for command in (
        ["gunicorn", "--preload", *quiet, "--threads", "4", "-b", "{}", f"{name}:wsgi()"],
        ["uvicorn", "--factory", *quiet, "--port", "{}", f"{name}:asgi"],
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        where = f"127.0.0.1:{port}" if command[0] == "gunicorn" else str(port)
        call = [sys.executable, "-m", *(part.replace("{}", where) for part in command)]
        with tempfile.TemporaryFile() as log, subprocess.Popen(call, stderr=log) as server:
            try:
                ask_all(command[0], f"http://127.0.0.1:{port}/", requests)
            finally:
                server.terminate()


def ask_all(name: str, url: str, requests: int) -> None:
    def ask(_: int) -> tuple[str, str]:
        try:
            told = httpx.get(url, timeout=HANG_S)
        except httpx.HTTPError as error:
            return "failed", repr(error)
        pid, _, text = told.text.partition(" ")
        return (pid, text) if told.status_code == 200 else ("failed", told.text[:80])

    end = time.monotonic() + HANG_S
    while ask(0)[0] == "failed" and time.monotonic() < end:
        time.sleep(0.5)
    start = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(requests)))
    failed = [text for pid, text in found if pid == "failed"]
    workers = {pid for pid, _ in found} - {"failed"}
    print(
        f"{name}: {requests - len(failed)} of {requests} answered by {len(workers)} workers in "
        f"{time.perf_counter() - start:.0f} s, {len({t for _, t in found})} different answer(s)"
    )
    print("\n".join(failed[:3]))


def capture_one(handler: UNOFeedbackHandler) -> str:
    run = uuid4()
    answer = LLMResult(generations=[[ChatGeneration(message=AIMessage("At 9:10."))]])
    handler.on_chat_model_start({}, [[HumanMessage(ASKED)]], run_id=run)
    handler.on_llm_end(answer, run_id=run)
    return str(run)


def in_child(handler: UNOFeedbackHandler) -> bool:
    """Capture in a forked child; False: it hung."""
    child = os.fork()
    if not child:
        run = capture_one(handler)
        for _ in range(100):  # eight threads keep the journal for long on a loaded machine
            with contextlib.suppress(StoreBusyError):
                handler.feedback(run, score=1.0)
                break
        handler.close()
        os._exit(0)
    end = time.monotonic() + HANG_S
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.001)
    return True


def capture(children: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        handler = UNOFeedbackHandler(home=folder)
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                capture_one(handler)
                time.sleep(0.001)

        busy = [threading.Thread(target=work) for _ in range(8)]
        for one in busy:
            one.start()
        hung = sum(not in_child(handler) for _ in range(children))
        over.set()
        for one in busy:
            one.join()
        handler.close()
        stats = handler.stats()
        with contextlib.closing(sqlite3.connect(Path(folder) / "journal" / FILE_NAME)) as db:
            (kept,) = db.execute("SELECT count(*) FROM interactions").fetchone()
            (said,) = db.execute("SELECT count(*) FROM feedback").fetchone()
        print(
            f"{children} forks while 8 threads captured {stats['recorded']} answers: {hung} hung; "
            f"{kept - stats['recorded']} answers and {said} pieces of feedback of children kept; "
            f"parent: {stats}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["servers", "capture"])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--children", type=int, default=1000)
    given = parser.parse_args()
    if given.what == "servers":
        servers(given.requests)
    else:
        capture(given.children)


if __name__ == "__main__":
    main()
