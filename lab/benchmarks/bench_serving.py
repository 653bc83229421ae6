"""Serving under load: python -m lab.benchmarks.bench_serving WHAT

load      16 threads and 200 asyncio tasks ask 10,000 times through ``UNOChatModel`` while releases
          are switched 20 times, back too; every answer is compared with its adapter's alone.
rollback  four threads ask without a pause while a release is rolled back and made current again, 20
          changes in all: failed requests, and how long after a change a request began that still
          got the release before. Releases stay as they are, byte for byte.
overhead  the expert path against bare ``model.generate``, paired; 8 rows on 8 adapters against one
          adapter and against PEFT's own ``adapter_names``.
router    routing among 10,000 clusters, embedding aside.
reflect   what a reflective answer takes against an expert's and the base's, on a demo's home
          (``--home``): tokens and time, one request at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from langchain_core.messages import AIMessage

from langchain_uno import UNOChatModel
from langchain_uno.home import Home
from langchain_uno.models.embedders import TokenEmbedder
from langchain_uno.models.loading import bundled_path, load_engine, load_prompt_set, load_weights
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Cluster, Message, routing_text
from langchain_uno.releases.manifest import Manifest
from langchain_uno.releases.publish import make_current, publish, rollback
from langchain_uno.serving.router import Router
from langchain_uno.testing import make_tiny_adapter

TOPICS = ("ferry to Rost", "parcel for Ada", "invoice 12", "router reset", "soup recipe",
          "hotel in Oslo", "broken lamp", "museum hours")  # fmt: skip
ASKS = ("When is the {}?", "Tell me about the {}.", "What about the {}, please?",
        "I need the {} by 9:10.", "Who knows the {} at quay 4?")  # fmt: skip
NOISE = 1e-3
"""Logits nearer than this are a tie: float32 sums in another order differ by some 1e-5."""


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def adapters(folder: Path, n: int = 8, rank: int = 14) -> list[Path]:
    base = bundled_path()
    return [make_tiny_adapter(folder / f"a{i}", base, seed=i, rank=rank) for i in range(n)]


def release(home: Home, engine: LocalEngine, embedder: TokenEmbedder, of: list[Path]) -> str:
    """Publish eight expert clusters; ``of[i]`` is cluster i's adapter."""
    ids = [f"c{i}" for i in range(len(of))]
    draft = Manifest(
        base_model=str(bundled_path()),
        base_fingerprint=engine.fingerprint,
        embedder_fingerprint=embedder.fingerprint,
        prompt_set_fingerprint=load_prompt_set("bundled").fingerprint,
        recipe=load_recipe("bundled").model_dump(mode="json"),
        clusters=[Cluster(id=c, size=1, run_ids=[c], route="expert") for c in ids],
        threshold=None,
    )
    texts = [[routing_text(user(a.format(t))) for a in ASKS] for t in TOPICS]
    centroids = np.stack([embedder.embed(t).mean(0) for t in texts])
    return publish(home, draft, dict(zip(ids, of, strict=True)), centroids)


def differs(engine: LocalEngine, adapter: str, asked: str, got: str, alone: str) -> bool:
    """Whether two greedy answers differ by more than a tie of logits."""
    if got == alone:
        return False
    tokenizer = engine.tokenizer
    one, two = engine.encode(got), engine.encode(alone)
    at = next((i for i, (x, y) in enumerate(zip(one, two, strict=False)) if x != y), None)
    if at is None:
        at = min(len(one), len(two))
    prefix = tokenizer.decode(two[:at])
    prompt = engine._rows.prompt(user(asked)) + engine.encode(prefix)

    def logits() -> torch.Tensor:
        with engine._scheduler.adapters.rows([adapter]), torch.inference_mode():
            out: torch.Tensor = engine.model(torch.tensor([prompt])).logits[0, -1]
        return out

    top = engine._scheduler.call_in_owner(logits)
    ends = [*one[at : at + 1], *two[at : at + 1]] or [int(top.argmax())]
    near = [float(top.max() - top[t]) for t in ends]
    return max(near) > NOISE


def load(requests: int, switches: int, tokens: int) -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = Home(folder / "home")
        engine = load_engine()
        assert isinstance(engine, LocalEngine)
        embedder = TokenEmbedder(engine)
        made = adapters(folder)
        asks = [(c, a.format(t)) for c, t in enumerate(TOPICS) for a in ASKS]
        plain = load_engine()
        assert isinstance(plain, LocalEngine)
        for i, path in enumerate(made):
            plain.load_adapter(f"a{i}", path)
        alone = {
            (a, text): plain.generate(
                [GenerateRequest(user(text), f"a{a}", Sampling(max_tokens=tokens))]
            )[0].text
            for a in range(len(made))
            for _, text in asks
        }
        print(f"{len(alone)} answers of 8 adapters alone, {len(set(alone.values()))} different")
        # Release k gives cluster c the adapter (c + k) % 8, so a wrong release shows.
        shift: dict[str, int] = {}

        def publish_next(k: int) -> None:
            rotated = [made[(c + k) % 8] for c in range(8)]
            shift[release(home, engine, embedder, rotated)] = k

        publish_next(0)
        model = UNOChatModel(home=home.path, engine=engine, max_tokens=tokens).warm()
        graph_errors: list[str] = []
        wrong: list[str] = []
        seen: Counter[str] = Counter()
        rng = random.Random(0)
        todo = [rng.choice(asks) for _ in range(requests)]
        todo_lock, done = threading.Lock(), []
        memory = psutil.Process().memory_info

        def take() -> tuple[int, str] | None:
            with todo_lock:
                return todo.pop() if todo else None

        def check(cluster: int, text: str, answer: AIMessage) -> None:
            told = answer.response_metadata
            seen[told["release"]] += 1
            adapter = (cluster + shift[told["release"]]) % 8
            done.append((adapter, text, answer.content))
            if told["adapter"] != f"{told['release']}-c{cluster}-expert":
                wrong.append(f"adapter {told}")
            elif answer.content != alone[adapter, text] and differs(
                plain, f"a{adapter}", text, str(answer.content), alone[adapter, text]
            ):
                wrong.append(f"{told['release']} {text!r}: {answer.content!r}")

        def thread() -> None:
            while (item := take()) is not None:
                try:
                    check(*item, model.invoke(item[1]))
                except Exception as error:  # noqa: BLE001 - counted
                    graph_errors.append(repr(error))

        async def task() -> None:
            while (item := take()) is not None:
                try:
                    check(*item, await model.ainvoke(item[1]))
                except Exception as error:  # noqa: BLE001 - counted
                    graph_errors.append(repr(error))

        async def tasks() -> None:
            await asyncio.gather(*(task() for _ in range(200)))

        start, before = time.perf_counter(), memory().rss
        workers = [threading.Thread(target=thread) for _ in range(16)]
        workers.append(threading.Thread(target=lambda: asyncio.run(tasks())))
        for worker in workers:
            worker.start()
        for k in range(1, switches + 1):  # as many requests between two switches
            while len(todo) > requests * (1 - k / (switches + 1)):
                time.sleep(0.02)
            if k % 4 == 0:
                print(f"  after {requests - len(todo)} requests: {memory().rss >> 20} MiB")
            if k % 3 == 0:
                rollback(home)
            else:
                publish_next(k)
        for worker in workers:
            worker.join()
        wall, peak = time.perf_counter() - start, memory().rss
        ties = sum(text != alone[a, asked] for a, asked, text in done)
        print(
            f"{len(done)} answers in {wall:.0f} s ({len(done) / wall:.0f}/s), {switches} switches, "
            f"{len(seen)} releases answered: {len(graph_errors)} errors, {len(wrong)} wrong, "
            f"{ties} differ by a tie of logits (< {NOISE})"
        )
        for line in [*graph_errors[:3], *wrong[:3]]:
            print("  ", line)
        model.served.serving.grace = 0
        for _ in range(100):
            model.invoke(asks[0][1])
            if len(engine.adapters()) == 8:
                break
            time.sleep(0.1)
        print(
            f"memory: {before >> 20} MiB before, {peak >> 20} at the end, {memory().rss >> 20} "
            f"once old releases were freed; {len(engine.adapters())} adapters loaded"
        )
        assert not graph_errors and not wrong
        engine.close()
        plain.close()


def paired(one: Callable[[], Any], two: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median milliseconds of two calls, taken in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for r in range(rounds):
        for which in (0, 1) if r % 2 else (1, 0):
            start = time.perf_counter()
            (one, two)[which]()
            times[which].append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def rollbacks(changes: int, tokens: int) -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        home = Home(Path(name) / "home")
        engine = load_engine()
        assert isinstance(engine, LocalEngine)
        embedder, made = TokenEmbedder(engine), adapters(Path(name))
        old, new = (release(home, engine, embedder, of) for of in (made, made[::-1]))
        model = UNOChatModel(home=home.path, engine=engine, max_tokens=tokens).warm()
        before = _digests(home)
        answers: list[tuple[float, str]] = []
        failed: list[str] = []
        over = threading.Event()

        def ask(nth: int) -> None:
            rng = random.Random(nth)
            while not over.is_set():
                began = time.perf_counter()
                try:
                    told = model.invoke(rng.choice(ASKS).format(rng.choice(TOPICS)))
                    answers.append((began, told.response_metadata["release"]))
                except Exception as error:  # noqa: BLE001 - counted
                    failed.append(repr(error))

        clients = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for client in clients:
            client.start()
        done: list[tuple[float, float, str]] = []
        for k in range(changes):
            time.sleep(3)
            begun = time.perf_counter()
            rollback(home) if k % 2 == 0 else make_current(home, new)
            done.append((begun, time.perf_counter(), old if k % 2 == 0 else new))
        time.sleep(3)
        over.set()
        for client in clients:
            client.join()
        late = [0.0] * changes
        for nth, (_, at, current) in enumerate(done):
            end = done[nth + 1][0] if nth + 1 < changes else np.inf  # the next change begins
            late[nth] = max([b - at for b, r in answers if at <= b < end and r != current] or [0.0])
        print(f"{len(answers)} answers by 4 threads, {changes} changes: {len(failed)} failed")
        print("the last request that got the release before began after the change by, in seconds:")
        print(", ".join(f"{x:.2f}" for x in late))
        print(f"releases unchanged: {_digests(home) == before}")
        print("\n".join(failed[:3]))
        engine.close()


def _digests(home: Home) -> dict[str, str]:
    """Every file of every release, and what is in it."""
    files = [file for file in sorted(home.releases.rglob("*")) if file.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def overhead(rounds: int, tokens: int) -> None:
    from peft import PeftModel

    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = adapters(folder)
        engine = load_engine()
        assert isinstance(engine, LocalEngine)
        embedder = TokenEmbedder(engine)
        home = Home(folder / "home")
        release(home, engine, embedder, made)
        model = UNOChatModel(home=home.path, engine=engine, max_tokens=tokens).warm()
        weights, tokenizer = load_weights(bundled_path())
        peft = PeftModel.from_pretrained(weights, str(made[0]), adapter_name="a0")
        for i in range(1, 8):
            peft.load_adapter(str(made[i]), adapter_name=f"a{i}")
        peft.eval()
        peft.set_adapter("a0")
        text = ASKS[0].format(TOPICS[0])
        shape: dict[str, Any] = {
            "do_sample": False, "min_new_tokens": tokens, "max_new_tokens": tokens,
            "temperature": None, "top_p": None, "top_k": None,
        }  # fmt: skip

        def prompts(texts: list[str]) -> Any:
            rendered = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": t}], add_generation_prompt=True, tokenize=False
                )
                for t in texts
            ]
            tokenizer.padding_side = "left"
            return tokenizer(rendered, return_tensors="pt", padding=True, add_special_tokens=False)

        def bare() -> str:
            asked = prompts([text])
            with torch.inference_mode():
                out = peft.generate(**asked, **shape)
            told: str = tokenizer.decode(out[0, asked["input_ids"].shape[1] :])
            return told

        ends = list(engine._scheduler._end)
        never = lambda: model.invoke(text)  # noqa: E731
        engine._scheduler._end = frozenset()  # both write the same number of tokens
        for _ in range(5):
            bare(), never()
        ours, theirs = paired(never, bare, rounds)
        alone = lambda: engine.generate(  # noqa: E731
            [GenerateRequest(user(text), f"{model.served.serving.current().release}-c0-expert",
                             Sampling(max_tokens=tokens))]
        )  # fmt: skip
        direct, again = paired(alone, bare, rounds)
        print(f"{tokens} tokens, one request, median of {rounds} pairs:")
        print(f"  expert path of UNOChatModel {ours:.2f} ms, bare model.generate {theirs:.2f} ms "
              f"(x{ours / theirs:.3f}, {ours - theirs:+.2f} ms)")  # fmt: skip
        print(f"  engine alone {direct:.2f} ms, bare {again:.2f} ms (x{direct / again:.3f})")
        start = time.perf_counter()
        for _ in range(50):
            embedder.embed([text])
        print(f"  embedding a query {(time.perf_counter() - start) * 20:.2f} ms")

        texts = [ASKS[i % 5].format(TOPICS[i]) for i in range(8)]
        current = model.served.serving.current().release
        asked = prompts(texts)

        def ours_on(n: int) -> Callable[[], Any]:
            rows = [
                GenerateRequest(user(t), f"{current}-c{i % n}-expert", Sampling(max_tokens=tokens))
                for i, t in enumerate(texts)
            ]
            return lambda: engine.generate(rows)

        def theirs_on(n: int) -> Callable[[], Any]:
            names = [f"a{i % n}" for i in range(8)]

            def run() -> Any:
                with torch.inference_mode():
                    return peft.generate(**asked, **shape, adapter_names=names)

            return run

        def theirs_one() -> Any:
            with torch.inference_mode():
                return peft.generate(**asked, **shape)

        eight, one = paired(ours_on(8), ours_on(1), rounds)
        mixed, single = paired(theirs_on(8), theirs_one, max(5, rounds // 4))
        print(f"8 rows x {tokens} tokens: ours on 8 adapters {eight:.1f} ms, on one {one:.1f} ms "
              f"(x{eight / one:.2f}); PEFT adapter_names on 8 {mixed:.1f} ms, one adapter "
              f"{single:.1f} ms (x{mixed / single:.2f})")  # fmt: skip
        engine._scheduler._end = frozenset(ends)
        engine.close()


def router(clusters: int, dimension: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(clusters, dimension)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    made = Router(table, [f"c{i}" for i in range(clusters)], 0.5)
    queries = rng.normal(size=(2000, dimension)).astype(np.float32)
    times = []
    for query in queries:
        start = time.perf_counter()
        made.route(query)
        times.append((time.perf_counter() - start) * 1e3)
    low, high = np.percentile(times, [50, 99])
    print(f"{clusters} clusters of {dimension} dimensions: p50 {low:.2f} ms, p99 {high:.2f} ms")


def reflect(folder: Path) -> None:
    from langchain_uno.demo.drawing import make_world
    from langchain_uno.demo.service import held_out_queries

    torch.set_num_threads(2)
    settings = json.loads((folder / "demo.json").read_bytes())["settings"]
    world = make_world(settings["seed"], noise=settings["noise"])
    queries = [q.text for _, q in held_out_queries(world, 12, seed=1)]
    rows: dict[tuple[str, str], list[tuple[float, int, int]]] = {}
    for text in queries:
        uno = UNOChatModel(home=folder)
        route = str(uno.invoke(text).response_metadata["route"])
        for system in ("base", "uno"):
            start = time.perf_counter()
            used = uno.bind(mode=system).invoke(text).usage_metadata or {}
            took = (time.perf_counter() - start) * 1e3
            one = (took, used["input_tokens"], used["output_tokens"])
            rows.setdefault((route, system), []).append(one)
    for (route, system), found in sorted(rows.items()):
        took, asked, wrote = (statistics.median(x) for x in zip(*found, strict=True))
        print(f"{route} clusters, {system}: {len(found)} answers, median {took:.0f} ms, "
              f"{asked:.0f} tokens in, {wrote:.0f} out")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["load", "rollback", "overhead", "router", "reflect"])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--switches", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--home", type=Path, default=Path(".demo"))
    given = parser.parse_args()
    if given.what == "load":
        load(given.requests, given.switches, given.tokens)
    elif given.what == "rollback":
        rollbacks(given.switches, given.tokens)
    elif given.what == "overhead":
        overhead(given.rounds, given.tokens)
    elif given.what == "reflect":
        reflect(given.home)
    else:
        for dimension in (192, 384, 1024):
            router(10_000, dimension)


if __name__ == "__main__":
    main()
