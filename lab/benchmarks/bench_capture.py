"""What capture costs: python -m lab.benchmarks.bench_capture

First the request path: a fake chat model with our handler (everything on), with LangChain's own
tracer (sending to a sink in another process) and with a handler that upserts into Chroma at once,
each interleaved with the same calls bare, so that other load hits both alike. Then how many
interactions a second two processes journal, and how fast they are drained.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from numpy.typing import NDArray

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import LogStore
from langchain_uno.models.loading import load_embedder, shared_engine

WORDS = "The invoice of 14 May over 120.50 is open; please write to the client. " * 1000


class Upserting(BaseCallbackHandler):
    """The obvious way: one Chroma upsert per answer, vectors for nothing."""

    def __init__(self, folder: Path) -> None:
        import chromadb

        self._vector = [0.1] * 192
        self._collection = chromadb.PersistentClient(path=str(folder)).create_collection("answers")

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Write the answer."""
        text = response.generations[0][0].text
        self._collection.upsert(str(run_id), embeddings=[self._vector], documents=[text])


class Sink(BaseHTTPRequestHandler):
    """Takes what a tracer sends and says thank you."""

    def do_POST(self) -> None:
        """Read and forget."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(202)
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_PATCH = do_POST

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def serve(port: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    port.value = server.server_address[1]
    server.serve_forever()


def timed(call: Callable[[int], object], n: int, clock: Callable[[], float]) -> NDArray[np.float64]:
    """Milliseconds of each of ``n`` calls."""
    out = np.empty(n)
    for i in range(n):
        start = clock()
        call(i)
        out[i] = clock() - start
    return out * 1e3


def prompt(i: int, chars: int, history: int) -> list[BaseMessage]:
    """Call ``i``: talks of ``history`` + 1 calls each, every one resending what was said before."""
    talk, turn = divmod(i, history + 1)
    turns: list[BaseMessage] = [SystemMessage("You are a helpful clerk.")]
    for earlier in range(turn):
        turns += [HumanMessage(f"{talk}-{earlier} " + WORDS[:chars]), AIMessage(WORDS[:chars])]
    return [*turns, HumanMessage(f"{talk}-{turn} " + WORDS[:chars])]


def request_path(calls: int, chars: int, history: int, clock: Callable[[], float]) -> None:
    from langchain_core.tracers import LangChainTracer
    from langsmith import Client

    port = multiprocessing.Value("i", 0)
    sink = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    sink.start()
    while not port.value:
        time.sleep(0.01)
    client = Client(api_url=f"http://127.0.0.1:{port.value}", api_key="none")
    model = FakeListChatModel(responses=[WORDS[:chars]])
    prompts = [prompt(i, chars, history) for i in range(calls)]
    gc.freeze()  # thousands of waiting prompts are this script's, not an app's
    with tempfile.TemporaryDirectory() as folder:
        ours = UNOFeedbackHandler(home=Path(folder) / "home")
        about = {"thread_id": "t", "user_id": "u"}
        rivals: dict[str, Callable[[], Any]] = {
            "ours": lambda: {"callbacks": [ours], "metadata": about},
            "LangChain's tracer": lambda: {"callbacks": [LangChainTracer(client=client)]},
            "Chroma upsert": lambda: {"callbacks": [Upserting(Path(folder) / "chroma")]},
        }
        print("\n| request path | p50 ms | p99 ms | bare beside it | added p50 | added p99 |")
        print("|---|---|---|---|---|---|")
        for name, make in rivals.items():  # one by one: the others' threads go on beside the calls
            pair = {"bare": {}, name: make()}
            for config in pair.values():
                timed(lambda i, c=config: model.invoke(prompts[i], c), min(200, calls), clock)
            found: dict[str, list[NDArray[np.float64]]] = {"bare": [], name: []}
            for part in range(0, calls, 250):
                for which, config in pair.items():
                    n = min(250, calls - part)
                    found[which].append(
                        timed(lambda i, c=config, p=part: model.invoke(prompts[p + i], c), n, clock)
                    )
            low, high = (np.percentile(np.concatenate(found[w]), [50, 99]) for w in pair)
            print(
                f"| {name} | {high[0]:.3f} | {high[1]:.3f} | {low[0]:.3f}, {low[1]:.3f} "
                f"| {high[0] - low[0]:.3f} | {high[1] - low[1]:.3f} |"
            )
        print(f"\n{calls} calls each, 0 to {history} earlier turns, {chars} characters a message;")
        print(f"handler: {ours.stats()}")
        ours.close()
    sink.kill()


def capture(home: str, n: int, chars: int, go: Any, told: Any) -> None:
    """One process: ``n`` interactions through the handler's callbacks, as fast as it can."""
    prompts = [prompt(i, chars, 1) for i in range(n)]
    answer = LLMResult(generations=[[ChatGeneration(message=AIMessage(WORDS[:chars]))]])
    with UNOFeedbackHandler(home=home) as handler:
        go.wait()
        start = time.perf_counter()
        for i in range(n):
            run = uuid4()
            about = {"thread_id": f"t{i}", "user_id": f"u{i % 50}"}
            handler.on_chat_model_start({}, [prompts[i]], run_id=run, metadata=about)
            handler.on_llm_end(answer, run_id=run)
        told.put((time.perf_counter() - start, handler.stats()))


def throughput(n: int, chars: int, processes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home.locate(folder).ensure()
        go, told = multiprocessing.Event(), multiprocessing.Queue()
        args = (folder, n, chars, go, told)
        workers = [multiprocessing.Process(target=capture, args=args) for _ in range(processes)]
        for worker in workers:
            worker.start()
        time.sleep(3)
        start = time.perf_counter()
        go.set()
        results = [told.get() for _ in workers]
        wall = time.perf_counter() - start
        for worker in workers:
            worker.join()
        with Journal(home.journal, readonly=True) as journal:
            kept = journal.counts()[0]
        shed = sum(stats["dropped"] + stats["waiting"] for _, stats in results)
        print(f"\njournalled: {kept / wall:,.0f} interactions/s by {processes} processes ", end="")
        print(f"({kept} of {n * processes} kept, {shed} shed, {chars} characters a message)")
        embedder = load_embedder(None, shared_engine())
        with LogStore.open(home, embedder) as store:
            start = time.perf_counter()
            drained = store.drain()
            spent = time.perf_counter() - start
        print(f"drained: {drained / spent:,.0f}/s (embedding and Chroma; lag {spent:.1f} s)")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--chars", type=int, default=600)
    parser.add_argument("--history", type=int, default=2)
    parser.add_argument("--rate", type=int, default=20_000, help="interactions a process")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="processor time, for a busy machine")
    given = parser.parse_args(argv)
    clock = time.thread_time if given.cpu else time.perf_counter
    request_path(given.calls, given.chars, given.history, clock)
    throughput(given.rate, given.chars, given.processes)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
