"""Releases come and go under traffic; bad ones are refused and the old one serves on."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from langchain_uno.errors import EngineError
from langchain_uno.home import Home
from langchain_uno.models.embedders import TokenEmbedder
from langchain_uno.models.local import LocalEngine
from langchain_uno.records import Route
from langchain_uno.releases.publish import revoke, rollback
from langchain_uno.serving.hot_swap import Serving
from tests.unit_tests.serving.tiny_release import QUERIES, publish_tiny, user


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def two(adapter_paths: dict[str, Path]) -> dict[str, Path]:
    return {c: adapter_paths[c] for c in ("c0", "c1")}


def _serving(engine: LocalEngine, home: Home | None, embedder: TokenEmbedder) -> Serving:
    return Serving(engine, home, embedder, swap_wait=60, grace=0)


def test_no_home_and_no_release_mean_base(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home
) -> None:
    for place in (None, home):
        serving = _serving(engine, place, embedder)
        snapshot = serving.current()
        assert snapshot.release is None
        assert serving.route(snapshot, user("anything")) is None
    assert not home.path.exists(), "serving writes nothing"


def test_a_release_is_picked_up_switched_and_rolled_back(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home, two: dict[str, Path]
) -> None:
    serving = _serving(engine, home, embedder)
    assert serving.current().release is None
    first = publish_tiny(home, engine, embedder, two)
    snapshot = serving.current()
    assert snapshot.release == first
    assert engine.adapters() == [f"{first}-c0-expert", f"{first}-c1-critic"]
    for cluster, text in QUERIES.items():
        choice = serving.route(snapshot, user(text))
        assert choice is not None
        assert choice.cluster_id == cluster
    assert serving.route(snapshot, user("")) is None

    with serving.lease() as held:
        second = publish_tiny(home, engine, embedder, two)
        assert serving.current().release == second
        serving.current()
        assert held.release == first
        assert f"{first}-c0-expert" in engine.adapters(), "a release in use is not freed"
        with serving.hold(first) as again:
            assert again is held
    _until(lambda: serving.current() and f"{first}-c0-expert" not in engine.adapters())
    with pytest.raises(EngineError, match="served no more"), serving.hold(first):
        pass
    rollback(home)
    assert serving.current().release == first
    assert f"{first}-c0-expert" in engine.adapters()
    serving.close()
    assert engine.adapters() == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"base_fingerprint": "another"}, r"(another)' and this is '"),
        ({"embedder_fingerprint": "another"}, "embedder 'another'"),
        ({"prompt_set_fingerprint": "another"}, "prompt set 'another'"),
    ],
)
def test_foreign_releases_are_refused_while_the_old_one_serves(
    engine: LocalEngine,
    embedder: TokenEmbedder,
    home: Home,
    two: dict[str, Path],
    change: dict[str, str],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    serving = _serving(engine, home, embedder)
    good = publish_tiny(home, engine, embedder, two)
    assert serving.current().release == good
    publish_tiny(home, engine, embedder, two, **change)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert serving.current().release == good
    assert reason in str(serving.refusal)
    assert caplog.text.count("is not served") == 1, "one try a change"
    third = publish_tiny(home, engine, embedder, two)
    assert serving.current().release == third
    assert serving.refusal is None


@pytest.mark.parametrize("what", ["base_fingerprint", "embedder_fingerprint"])
def test_a_revoked_release_is_not_succeeded_by_one_of_another_model(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home, two: dict[str, Path], what: str
) -> None:
    sound = publish_tiny(home, engine, embedder, two)
    publish_tiny(home, engine, embedder, two, **{what: "another"})
    newest = publish_tiny(home, engine, embedder, two)
    serving = _serving(engine, home, embedder)
    assert serving.current().release == newest
    revoke(home, newest, "tainted")
    assert serving.current().release == sound
    assert serving.refusal is None


def test_a_revoked_release_serves_no_more_where_its_heir_can_not(
    engine: LocalEngine,
    embedder: TokenEmbedder,
    home: Home,
    two: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound, newest = (publish_tiny(home, engine, embedder, two) for _ in range(2))
    serving = _serving(engine, home, embedder)
    assert serving.current().release == newest
    revoke(home, newest, "tainted")
    with monkeypatch.context() as short:

        def no_memory(*_: object, **__: object) -> None:
            raise MemoryError("no memory")

        short.setattr("langchain_uno.releases.load.load_release", no_memory)
        assert serving.current().release is None
        assert serving.refusal == "no memory"
    serving._retry_at = 0.0
    _until(lambda: serving.current().release == sound)
    assert serving.refusal is None


def test_experts_alone_are_served_whatever_the_words_of_critics(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home, two: dict[str, Path]
) -> None:
    routes: dict[str, Route] = dict.fromkeys(two, "expert")
    serving = _serving(engine, home, embedder)
    made = publish_tiny(
        home, engine, embedder, two, routes=routes, prompt_set_fingerprint="another"
    )
    assert serving.current().release == made


def test_damage_is_refused(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home, two: dict[str, Path]
) -> None:
    serving = _serving(engine, home, embedder)
    good = publish_tiny(home, engine, embedder, two)
    assert serving.current().release == good
    bad = publish_tiny(home, engine, embedder, two)
    weights = next((home.releases / bad).rglob(f"{bad}-c1-critic/adapter_model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert serving.current().release == good
    assert bad in str(serving.refusal)
    home.traffic.write_text("{")
    assert serving.current().release == good
    assert "traffic.json" in str(serving.refusal)
    assert all(bad not in name for name in engine.adapters())


def test_switching_under_load_fails_nobody(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home, two: dict[str, Path]
) -> None:
    from langchain_uno.graphs.respond import RespondContext, build_respond_graph

    serving = _serving(engine, home, embedder)
    releases = {publish_tiny(home, engine, embedder, two)}
    graph = build_respond_graph(serving)
    failures: list[BaseException] = []
    seen: set[str] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                out = graph.invoke(
                    {"messages": [{"role": "user", "content": QUERIES["c0"]}]},
                    context=RespondContext(max_tokens=3, stream=False),
                )
                assert out["adapter"] == f"{out['release']}-c0-expert"
                seen.add(out["release"])
            except BaseException as error:  # noqa: BLE001 (checked below)
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        new = publish_tiny(home, engine, embedder, two)
        releases.add(new)
        _until(lambda new=new: new in seen or failures)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert seen <= releases


def _until(condition: object, seconds: float = 60.0) -> None:
    import time

    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
