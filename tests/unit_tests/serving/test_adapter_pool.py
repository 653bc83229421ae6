"""The adapters that are loaded: bounded, never freed under a request."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from langchain_uno.errors import EngineError, ReleaseError
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.records import Message
from langchain_uno.serving.adapter_pool import AdapterPool
from langchain_uno.testing import make_tiny_adapter


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_model_path: Path) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("adapters")
    names = [f"r1-c{i}-expert" for i in range(5)]
    return {n: make_tiny_adapter(top / n, tiny_model_path, seed=i) for i, n in enumerate(names)}


def answer(engine: LocalEngine, adapter: str | None) -> str:
    messages = [Message(role="user", content="Which one are you?")]
    return engine.generate([GenerateRequest(messages, adapter, Sampling(max_tokens=8))])[0].text


def test_without_a_bound_all_are_loaded(engine: LocalEngine, folders: dict[str, Path]) -> None:
    pool = AdapterPool(engine)
    pool.know(folders)
    assert engine.adapters() == pool.loaded() == sorted(folders)
    pool.forget(list(folders)[:2])
    assert engine.adapters() == sorted(folders)[2:]


def test_the_longest_unused_makes_room(engine: LocalEngine, folders: dict[str, Path]) -> None:
    pool = AdapterPool(engine, most=2)
    pool.know(folders)
    names = list(folders)
    assert pool.loaded() == names[:2]
    with pool.hold(names[0]), pool.hold(names[3]):
        assert pool.loaded() == [names[0], names[3]]
    with pool.hold(names[1]):
        assert pool.loaded() == [names[1], names[3]]
    assert engine.adapters() == pool.loaded()


def test_held_adapters_stay_and_others_wait(engine: LocalEngine, folders: dict[str, Path]) -> None:
    pool = AdapterPool(engine, most=1)
    pool.know(folders)
    first, second, *_ = folders
    arrived = threading.Event()

    def other() -> None:
        with pool.hold(second):
            arrived.set()

    with pool.hold(first):
        thread = threading.Thread(target=other)
        thread.start()
        assert not arrived.wait(0.2)
        assert pool.loaded() == [first]
    assert arrived.wait(5)
    thread.join()


def test_many_threads_get_the_adapter_they_asked_for(
    engine: LocalEngine, folders: dict[str, Path], tiny_model_path: Path
) -> None:
    plain = load_engine(str(tiny_model_path))
    assert isinstance(plain, LocalEngine)
    for name, folder in folders.items():
        plain.load_adapter(name, folder)
    alone = {name: answer(plain, name) for name in folders}
    assert len(set(alone.values())) == len(folders)
    plain.close()
    pool = AdapterPool(engine, most=2)
    pool.know(folders)

    def one(i: int) -> bool:
        name = list(folders)[i % len(folders)]
        with pool.hold(name):
            return answer(engine, name) == alone[name]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(80)))
    assert len(engine.adapters()) == 2


def test_forgetting_waits_for_requests_under_way(
    engine: LocalEngine, folders: dict[str, Path]
) -> None:
    pool = AdapterPool(engine)
    pool.know(folders)
    name = next(iter(folders))
    with ThreadPoolExecutor(1) as threads:
        messages = [Message(role="user", content="A long one.")]
        request = GenerateRequest(messages, name, Sampling(max_tokens=150))
        with pool.hold(name):
            running = threads.submit(engine.generate, [request])
            time.sleep(0.05)
            pool.forget([name])
            assert running.result()[0].usage.output_tokens > 0
    with pytest.raises(EngineError, match="no more"), pool.hold(name):
        pass


def test_a_refused_adapter_leaves_nothing_behind(
    engine: LocalEngine, folders: dict[str, Path], tmp_path: Path
) -> None:
    pool = AdapterPool(engine)
    pool.know(dict(list(folders.items())[:1]))
    with pytest.raises(ReleaseError):
        pool.know({**dict(list(folders.items())[1:3]), "r2-c9-expert": tmp_path})
    assert engine.adapters() == pool.loaded() == list(folders)[:1]
    bounded = AdapterPool(engine, most=1)
    bounded.know({"r3-c0-expert": folders["r1-c0-expert"], "r3-c1-expert": tmp_path})
    with pytest.raises(ReleaseError), bounded.hold("r3-c1-expert"):
        pass
    with bounded.hold("r3-c0-expert"):
        assert bounded.loaded() == ["r3-c0-expert"]
