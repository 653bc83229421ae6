"""One home has one serving, however it is named and whatever happens around it."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.errors import EngineError, InputError, ModelMismatchError
from langchain_uno.home import ENV_HOME, Home
from langchain_uno.models.embedders import LangChainEmbedder
from langchain_uno.models.loading import load_embedder, load_engine, shared_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.releases.publish import revoke
from langchain_uno.serving import hot_swap
from langchain_uno.serving.shared import stop_serving
from tests.unit_tests.serving.tiny_release import QUERIES, publish_tiny

ASK = QUERIES["c0"]


def two(adapters: dict[str, Path]) -> dict[str, Path]:
    return {cluster: adapters[cluster] for cluster in ("c0", "c1")}


@pytest.fixture
def home(
    tmp_path: Path, engine: LocalEngine, adapter_paths: dict[str, Path]
) -> Iterator[tuple[Home, str]]:
    place = Home(tmp_path / "home")
    release = publish_tiny(place, engine, load_embedder(None, engine), two(adapter_paths))
    yield place, release
    stop_serving(place.root)


def told(model: UNOChatModel) -> tuple[Any, ...]:
    info = model.invoke(ASK).response_metadata
    return info["release"], info["route"], info["adapter"]


def test_every_spelling_of_a_home_is_one_serving(
    home: tuple[Home, str], engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, release = home
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(place.root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENV_HOME, "./home")
    spelled = ["home", place.root, tmp_path / "link", "x/../home", "./link/.", "link/../home", None]
    models = [UNOChatModel(home=h, engine=engine, max_tokens=4) for h in spelled]
    monkeypatch.chdir(tmp_path / "x")
    monkeypatch.delenv(ENV_HOME)
    assert {told(model) for model in models} == {(release, "expert", f"{release}-c0-expert")}
    assert len({id(model.served) for model in models}) == 1


def test_a_copy_of_a_home_is_served_beside_it(
    home: tuple[Home, str], engine: LocalEngine, tmp_path: Path
) -> None:
    place, release = home
    shutil.copytree(place.root, tmp_path / "staging")
    first, second = (
        UNOChatModel(home=h, engine=engine, max_tokens=4)
        for h in (place.root, tmp_path / "staging")
    )
    answers = {(told(model), str(model.invoke(ASK).content)) for model in (first, second)}
    assert {answer[0][0] for answer in answers} == {release}
    assert len(answers) == 1
    first.served.serving.close()  # what the one frees, the other keeps
    assert told(second)[0] == release
    stop_serving(tmp_path / "staging")


def test_a_stream_goes_on_when_its_release_is_revoked_and_deleted(
    home: tuple[Home, str], engine: LocalEngine, adapter_paths: dict[str, Path]
) -> None:
    place, first = home
    second = publish_tiny(place, engine, load_embedder(None, engine), two(adapter_paths))
    model = UNOChatModel(home=place.root, engine=engine, temperature=0, max_tokens=12)
    model.served.serving.grace = 0
    whole = model.invoke(ASK)
    stream = model.stream(ASK)
    pieces = [next(stream)]
    revoke(place, second, "a test")
    shutil.rmtree(place.releases / second)
    assert told(model)[0] == told(model)[0] == first
    pieces += stream
    assert "".join(str(piece.content) for piece in pieces) == whole.content
    releases = {piece.response_metadata.get("release") for piece in pieces}
    assert second in releases and first not in releases


def cut_weights(place: Home) -> None:
    for file in place.releases.rglob("*.safetensors"):
        file.chmod(0o644)
        file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "serves"),
    [
        (lambda place: place.traffic.write_text(place.traffic.read_text()[:40]), True),
        (lambda place: place.traffic.write_text(""), True),
        (lambda place: place.traffic.unlink(), False),
        (cut_weights, True),
    ],
    ids=["half traffic", "empty traffic", "no traffic", "cut weights"],
)
def test_what_is_loaded_outlives_damage_and_a_restart_answers_with_the_base(
    home: tuple[Home, str], engine: LocalEngine, damage: Callable[[Home], object], serves: bool
) -> None:
    place, release = home
    model = UNOChatModel(home=place.root, engine=engine, max_tokens=4)
    assert told(model)[0] == release
    damage(place)
    assert told(model)[0] == (release if serves else None)
    stop_serving(place.root)
    assert told(model) == (None, "base", None)
    assert engine.adapters() == []
    assert (model.served.serving.refusal is not None) is serves


def test_embedder_objects_of_one_fingerprint_share_a_home(
    tmp_path: Path, engine: LocalEngine, adapter_paths: dict[str, Path]
) -> None:
    def embeddings(size: int = 24) -> DeterministicFakeEmbedding:
        return DeterministicFakeEmbedding(size=size)

    place = Home(tmp_path / "home")
    release = publish_tiny(place, engine, LangChainEmbedder(embeddings()), two(adapter_paths))
    given = [embeddings(), LangChainEmbedder(embeddings()), embeddings()]
    models = [UNOChatModel(home=place.root, engine=engine, embedder=e, max_tokens=4) for e in given]
    assert {told(model)[0] for model in models} == {release}
    assert len({id(model.served) for model in models}) == 1
    for other in (embeddings(12), None):
        with pytest.raises(ModelMismatchError, match="another embedder"):
            UNOChatModel(home=place.root, engine=engine, embedder=other).invoke(ASK)
    stop_serving(place.root)


def test_releases_of_an_older_version_s_embedder_are_served_where_its_name_was_known(
    tmp_path: Path, engine: LocalEngine, adapter_paths: dict[str, Path]
) -> None:
    class Named(DeterministicFakeEmbedding):
        model: str | None = None

    old = {
        name: sha256(f"langchain-1:Named:{name}".encode()).hexdigest() for name in ("m", "default")
    }
    for name, model, served in (("m", "m", True), ("m", "n", False), ("default", None, False)):
        place, embedder = Home(tmp_path / f"{name}-{model}"), Named(size=24, model=model)
        made = publish_tiny(
            place,
            engine,
            LangChainEmbedder(embedder),
            two(adapter_paths),
            embedder_fingerprint=old[name],
        )
        chat = UNOChatModel(home=place.root, engine=engine, embedder=embedder, max_tokens=4)
        assert told(chat)[0] == (made if served else None)
        assert served or "refresh this home" in str(chat.served.serving.refusal)
        stop_serving(place.root)


def test_a_release_that_failed_is_tried_again_and_said_once(
    home: tuple[Home, str],
    engine: LocalEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, release = home
    monkeypatch.setattr(hot_swap, "_FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(hot_swap, "_LAST_RETRY_S", 0.02)
    model = UNOChatModel(home=place.root, engine=engine, max_tokens=4)
    full = True
    load = engine.load_adapter

    def short_of_memory(name: str, path: Path) -> None:
        if full:
            raise RuntimeError("CUDA out of memory")  # what torch raises
        load(name, path)

    monkeypatch.setattr(engine, "load_adapter", short_of_memory)
    with caplog.at_level(logging.ERROR, "langchain_uno"):
        for _ in range(4):
            assert told(model)[0] is None
            threads_end()
    assert len([r for r in caplog.records if "not served" in r.getMessage()]) == 1
    full = False
    for _ in range(100):
        if told(model)[0] == release:
            break
        threads_end()
    assert told(model) == (release, "expert", f"{release}-c0-expert")
    assert model.served.serving.refusal is None


def threads_end() -> None:
    asyncio.run(asyncio.sleep(0.05))


def test_a_closed_model_comes_back_in_every_way(tiny_model_path: Path) -> None:
    model = UNOChatModel(model=str(tiny_model_path), max_tokens=4)
    said = model.invoke("Hi").content

    async def streamed() -> str:
        return "".join([str(piece.content) async for piece in model.astream("Hi")])

    for ask in (
        lambda: model.invoke("Hi").content,
        lambda: asyncio.run(model.ainvoke("Hi")).content,
        lambda: "".join(str(piece.content) for piece in model.stream("Hi")),
        lambda: asyncio.run(streamed()),
    ):
        model.served.engine.close()
        assert ask() == said
    model.served.engine.close()
    lent = load_engine(str(tiny_model_path))
    around = UNOChatModel(engine=lent)
    lent.close()
    with pytest.raises(EngineError, match="load it again"):
        around.invoke("Hi")


def test_a_model_named_by_a_relative_folder_is_found_from_everywhere(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model_path.parent)
    model = UNOChatModel(
        model=tiny_model_path.name, model_settings={"adapter_dir": "adapters"}, max_tokens=4
    )
    assert model.model_settings == {"adapter_dir": str(tiny_model_path.parent / "adapters")}
    model = UNOChatModel(model=f"./{tiny_model_path.name}", max_tokens=4)
    monkeypatch.chdir(tmp_path)
    assert model.invoke("Hi").response_metadata["model_name"] == str(tiny_model_path)
    assert model.served.engine is shared_engine(str(tiny_model_path))


# Scrapegraph-ai #374, LightRAG #21 and adk-python #3471: frameworks copy and pickle chat models.
def test_used_models_and_handlers_are_copied_and_pickled(
    home: tuple[Home, str], tiny_model_path: Path
) -> None:
    place, _ = home
    handler = UNOFeedbackHandler(home=place.root, user_id="ada", tags={"app": "2"})
    model = UNOChatModel(
        model=str(tiny_model_path), home=place.root, max_tokens=4, callbacks=[handler]
    )
    said = model.invoke(ASK).content
    copies = [
        copy.copy(model),
        copy.deepcopy(model),
        model.model_copy(),
        model.model_copy(deep=True),
        model.model_copy(update={"temperature": 0.0}),
        copy.deepcopy([model])[0],
        copy.deepcopy(model.bind(stop=["zzz"])),
        copy.deepcopy(model.with_fallbacks([model])),
        copy.deepcopy(model.with_retry()),
        copy.deepcopy({"llm": model})["llm"],  # DB-GPT #1715: dataclasses.asdict copies so
        pickle.loads(pickle.dumps(RunnableLambda(str) | model)),
        pickle.loads(pickle.dumps(model)),
        pickle.loads(pickle.dumps(model.bind(stop=["zzz"]))),
    ]
    assert [one.invoke(ASK).content for one in copies] == [said] * len(copies)
    assert copies[1].served is model.served
    assert copy.deepcopy(handler) is handler
    again = pickle.loads(pickle.dumps(handler))
    assert again is not handler
    again.feedback("some-run", score=1.0)
    assert again.stats()["feedback"] == 1
    assert (again._capture.user_id, again._capture.tags) == ("ada", {"app": "2"})
    again.close()
    handler.close()


def test_a_model_around_an_engine_is_copied_but_not_pickled(engine: LocalEngine) -> None:
    model = UNOChatModel(engine=engine, max_tokens=4)
    model.warm()
    assert copy.deepcopy(model).engine is engine
    with pytest.raises(InputError, match="name the model instead"):
        pickle.dumps(model)


def test_the_limit_is_what_answers_were_verified_with(
    home: tuple[Home, str], engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, release = home
    asked: list[int] = []
    generate = engine.generate

    def watched(requests: Any, *more: Any) -> Any:
        asked.extend(r.sampling.max_tokens for r in requests)
        short = [replace(r, sampling=replace(r.sampling, max_tokens=4)) for r in requests]
        return generate(short, *more)

    monkeypatch.setattr(engine, "generate", watched)
    manifest = load_manifest(place, release)
    assert manifest["recipe"]["answer_tokens"] == 2048
    UNOChatModel(home=place.root, engine=engine).invoke(ASK)
    UNOChatModel(engine=engine).invoke(ASK)
    UNOChatModel(home=place.root, engine=engine, max_tokens=7).invoke(ASK)
    UNOChatModel(home=place.root, engine=engine, max_tokens=7).invoke(ASK, max_tokens=5)
    assert asked == [2048, 2048, 7, 5]


def load_manifest(place: Home, release: str) -> Any:
    import json

    return json.loads((place.releases / release / "manifest.json").read_text())


def test_homes_made_at_once_and_odd_paths(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda _: Home.locate(tmp_path / "new").ensure(), range(300))
        assert {home.root for home in made} == {tmp_path / "new"}
        for name in ("new", "newer"):
            place = tmp_path / name
            for handler in pool.map(lambda _, at=place: UNOFeedbackHandler(home=at), range(40)):
                handler.close()
    assert not [p for p in (tmp_path / "new").iterdir() if p.name.startswith((".", "tmp"))]
    long = "x" * 300
    odd: list[Any] = ["a\0b", "\ud800", "~nobody-of-this-name/x", long, b"bytes", 5]
    for path in odd:
        with pytest.raises(InputError, match="can't be a home"):
            Home.locate(path)
    for path in odd[:4]:
        with pytest.raises(InputError, match="can't be a home"):
            UNOChatModel(home=path)
        with pytest.raises(InputError, match="can't be a home"):
            UNOFeedbackHandler(home=path)
