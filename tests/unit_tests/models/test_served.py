"""A local engine whose answers a server writes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.responses import JSONResponse

from langchain_uno.errors import (
    AdapterTakenError,
    EngineDownError,
    EngineError,
    EngineTimeoutError,
    InputError,
    ModelMismatchError,
    ReleaseError,
)
from langchain_uno.models import openai_compatible
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.models.served import ServedEngine
from langchain_uno.models.together import ask_together
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Message
from langchain_uno.testing import make_tiny_model
from langchain_uno.trainers.common import TrainSettings, save_untrained
from tests.unit_tests.models.openai_server import like_vllm, serving

SCHEMA = {"type": "array", "items": {"type": "string"}, "maxItems": 2}
SETTINGS = TrainSettings.of(load_recipe("bundled"), "expert")


def ask(text: str, adapter: str | None = None, **more: Any) -> GenerateRequest:
    schema = more.pop("json_schema", None)
    sampling = Sampling(**{"max_tokens": 10, **more})
    turns = [Message(role="user", content=text)]
    return GenerateRequest(turns, adapter, sampling, json_schema=schema)


@pytest.fixture
def seen() -> list[dict[str, Any]]:
    return []


Starts = Callable[..., ServedEngine]


@pytest.fixture
def start(
    engine: LocalEngine, tiny_model_path: Path, tmp_path: Path, seen: list[dict[str, Any]]
) -> Iterator[Starts]:
    """Serve the tiny model, or another one; gives an engine over the tiny model's weights here."""
    with ExitStack() as opened:

        def started(app: Any = None, **card: Any) -> ServedEngine:
            (tmp_path / "resolver").mkdir(exist_ok=True)
            app = app or like_vllm(engine, tmp_path / "resolver", seen, **card)
            server = load_engine(
                opened.enter_context(serving(app)), adapter_dir=tmp_path / "resolver"
            )
            made = load_engine(str(tiny_model_path), device="cpu", server=server)
            assert isinstance(made, ServedEngine)
            opened.callback(made.close)
            return made

        yield started


@pytest.fixture
def untrained(engine: LocalEngine, tiny_model_path: Path, tmp_path: Path) -> Path:
    alone = load_engine(str(tiny_model_path), device="cpu")
    save_untrained(alone, SETTINGS, tmp_path / "untrained")
    alone.close()
    return tmp_path / "untrained"


def test_answers_come_from_the_server_and_equal_the_local_engine_s(
    start: Starts, engine: LocalEngine, adapter_paths: dict[str, Path], seen: list[dict[str, Any]]
) -> None:
    served = start()
    served.load_adapter("mine", adapter_paths["a1"])
    asked = [
        ask("one"),
        ask("two", "mine"),
        ask("three", temperature=1.5, seed=3),
        ask("four", json_schema=SCHEMA, max_tokens=24),
    ]
    wanted = engine.generate([asked[0], ask("two", "a1"), *asked[2:]])
    done: list[int] = []
    assert served.generate(asked, on_done=done.append) == wanted
    assert sum(done) == len(seen) == 4
    assert {body["repetition_penalty"] for body in seen} == {1.0}


def test_what_is_too_long_for_the_server_is_cut_or_empty(start: Starts) -> None:
    served = start(max_model_len=40)
    done: list[int] = []
    long, short = ask("word " * 90), ask("hi", max_tokens=999)
    made = served.generate([long, short, long], on_done=done.append)
    assert [(one.text, one.finish_reason) for one in made[::2]] == [("", "length")] * 2
    assert made[1].usage.input_tokens + made[1].usage.output_tokens <= 40
    assert sum(done) == 3
    own = start(max_model_len=10**6)
    positions = own.model.config.max_position_embeddings
    [cut] = own.generate([ask("word " * positions)])
    assert cut.finish_reason == "length" and not cut.text


def test_adapters_are_on_both_sides_or_on_none(
    start: Starts, adapter_paths: dict[str, Path], tmp_path: Path
) -> None:
    served = start()
    served.load_adapter("mine", adapter_paths["a0"])
    assert (tmp_path / "resolver" / "mine").is_dir()
    assert served.adapters() == served.server.adapters() == ["mine"]
    with pytest.raises(AdapterTakenError):
        served.load_adapter("mine", adapter_paths["a1"])
    served.unload_adapter("mine")
    assert served.adapters() == served.server.adapters() == []
    assert not (tmp_path / "resolver" / "mine").exists()
    (tmp_path / "resolver" / "taken").mkdir()
    with pytest.raises(ReleaseError, match="taken"):
        served.load_adapter("taken", adapter_paths["a0"])
    assert served.adapters() == []


def test_a_server_of_the_same_model_passes_its_check(
    start: Starts, untrained: Path, tmp_path: Path
) -> None:
    served = start()
    served.check_server(untrained)
    assert served.adapters() == []
    left = [p.name for p in (tmp_path / "resolver").iterdir()]
    assert all(name.startswith("uno-base-") for name in left), left


def test_a_server_of_another_model_does_not(
    start: Starts, engine: LocalEngine, untrained: Path, tmp_path: Path
) -> None:
    other = load_engine(str(make_tiny_model(tmp_path / "other", seed=5)), device="cpu")
    assert isinstance(other, LocalEngine)
    app = like_vllm(other, tmp_path / "resolver", [])
    with pytest.raises(ModelMismatchError, match=r"serves 'tiny', which has other weights than"):
        start(app).check_server(untrained)
    torch.manual_seed(1)  # the tiny model repeats the last word, whatever its seed
    other.model.lm_head = torch.nn.Linear(
        other.model.config.hidden_size, other.model.config.vocab_size, bias=False
    )
    hidden = like_vllm(other, tmp_path / "resolver", [], root="/nowhere")
    with pytest.raises(ModelMismatchError, match=r"answers \d of 8 control questions as"):
        start(hidden).check_server(untrained)
    other.close()


def test_a_server_with_another_template_does_not(
    start: Starts, tiny_model_path: Path, untrained: Path, tmp_path: Path
) -> None:
    other = load_engine(str(tiny_model_path), device="cpu")
    assert isinstance(other, LocalEngine)
    other.tokenizer.chat_template = "You help. " + other.tokenizer.chat_template
    with pytest.raises(ModelMismatchError, match=r"tokens of a question .* the chat template"):
        start(like_vllm(other, tmp_path / "resolver", [])).check_server(untrained)
    other.close()


def test_a_server_that_takes_no_adapters_does_not(
    start: Starts, engine: LocalEngine, untrained: Path, tmp_path: Path
) -> None:
    served = start(like_vllm(engine, tmp_path / "elsewhere", []))
    with pytest.raises(EngineError, match=r"(?s)can't answer with an adapter.*--enable-lora"):
        served.check_server(untrained)
    assert served.adapters() == []


def test_a_server_whose_adapters_change_what_they_must_not(
    start: Starts, engine: LocalEngine, adapter_paths: dict[str, Path]
) -> None:
    """An adapter that was trained stands for a server that mixes up adapters."""
    with pytest.raises(EngineError, match="answers differently with an adapter that adds nothing"):
        start().check_server(adapter_paths["a2"])


def test_a_server_that_is_gone_ends_everything(tiny_model_path: Path, engine: LocalEngine) -> None:
    with serving(like_vllm(engine, Path("/nowhere"), [])) as url:
        served = load_engine(str(tiny_model_path), device="cpu", server=load_engine(url))
    with pytest.raises(EngineDownError, match="does not answer"):
        served.generate([ask("one")])
    served.close()


def test_a_local_engine_is_no_server(tiny_model_path: Path, engine: LocalEngine) -> None:
    for server in (engine, "http://localhost:8000/v1"):
        with pytest.raises(InputError, match="is no server"):
            load_engine(str(tiny_model_path), device="cpu", server=server)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="name the weights"):
        load_engine("http://127.0.0.1:9/v1", server=engine)


def test_a_server_that_is_busy_or_started_again_is_asked_again(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One busy answer, or one connection closed at the wrong moment, does not end a refresh."""
    app, trouble = like_vllm(engine, tmp_path, []), deque[int]()

    @app.middleware("http")
    async def troubled(request: Any, call_next: Any) -> Any:
        if request.method == "POST" and trouble:
            if (status := trouble.popleft()) == 0:
                raise ConnectionResetError  # uvicorn closes the connection, or answers with 500
            return JSONResponse({"error": {"message": "busy"}}, status)
        return await call_next(request)

    monkeypatch.setattr(openai_compatible, "_WAITS_S", (0.0, 0.0, 0.0))
    with serving(app) as url:
        patient, hasty = load_engine(url, work=tmp_path), load_engine(url)
        for status in (429, 502, 503, 504):
            trouble.extend([status] * 3)
            assert patient.generate([ask("one")]) == engine.generate([ask("one")])
            trouble.append(status)
            with pytest.raises(EngineDownError, match=f"refused with {status}: busy"):
                hasty.generate([ask("one")])
        trouble.extend([413, 503])
        with pytest.raises(EngineError, match="413") as refused:
            patient.generate([ask("one")])
        assert not isinstance(refused.value, EngineDownError), "one request's own fault"
        trouble.clear()
        trouble.extend([503] * 5)
        with pytest.raises(EngineDownError):
            patient.generate([ask("one")])
        assert len(trouble) == 1
        with pytest.raises(EngineDownError):
            patient.generate([ask("one")])
        assert not trouble, "what was given up is not waited for once more"
        patient.close()
        hasty.close()


def test_a_refresh_takes_a_server_that_does_not_answer_in_time_for_down(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its logs would be tried again in ever smaller parts, each as long."""
    app, asked = like_vllm(engine, tmp_path, []), list[str]()

    @app.middleware("http")
    async def slow(request: Any, call_next: Any) -> Any:
        asked.append(request.method)
        await asyncio.sleep(0.6 * (request.method == "POST"))
        return await call_next(request)

    monkeypatch.setattr(openai_compatible, "_PATIENCE_S", 0.2)
    with serving(app) as url:
        patient = load_engine(url, work=tmp_path)
        with pytest.raises(EngineDownError, match="did not answer in time"):
            patient.generate([ask("one")])
        assert asked == ["GET", "POST"], "and it is not asked again"
        hasty = load_engine(url, timeout=0.2)
        with pytest.raises(EngineTimeoutError):
            hasty.generate([ask("one")])


def test_nobody_waits_for_what_is_under_way_after_an_error() -> None:
    go_on, begun, counted = threading.Event(), threading.Barrier(4), list[int]()

    def answer(n: int) -> int:
        counted.append(n)
        if n < 4:
            begun.wait(10)
        if n == 0:
            raise EngineError("refused")
        go_on.wait(10)
        return n

    before = set(threading.enumerate())
    with pytest.raises(EngineError, match="refused"):
        ask_together(answer, range(50), 4, None)
    left = set(threading.enumerate()) - before
    assert len(left) >= 3 and all(one.daemon for one in left), "they don't keep Python from ending"
    go_on.set()
    for one in left:
        one.join(10)
    assert len(counted) <= 8, "what was not begun is not asked"


def test_what_the_server_reads_is_made_in_the_home_and_can_be_read(
    start: Starts, engine: LocalEngine, adapter_paths: dict[str, Path], tmp_path: Path
) -> None:
    """A server in a container sees the home and no /tmp; a resolver's may be another user."""
    (tmp_path / "work").mkdir()
    before, known = os.umask(0o077), set(engine.adapters())
    try:
        with serving(like_vllm(engine, tmp_path, [])) as url:
            explicit = load_engine(url, work=tmp_path / "work")
            explicit.load_adapter("explicit", adapter_paths["a0"])
            [stand_in] = (tmp_path / "work").glob(".uno-base-*/uno-base-*")
            with closing(load_engine(url, work=tmp_path / "work")) as other:
                other.load_adapter("explicit", adapter_paths["a0"])
                there = set(engine.adapters()) - known - {"explicit"}
                assert len(there) == 2 and stand_in.name in there, "none is of another's folder"
            explicit.unload_adapter("explicit")
            explicit.close()
            explicit.close()
            assert set(engine.adapters()) == known
        assert not list((tmp_path / "work").iterdir())
        start().load_adapter("mine", adapter_paths["a0"])
        placed = [tmp_path / "resolver" / "mine", *(tmp_path / "resolver" / "mine").iterdir()]
        assert all(path.stat().st_mode & 0o044 == 0o044 for path in placed)
    finally:
        os.umask(before)


def test_no_message_holds_a_password() -> None:
    with pytest.raises(EngineDownError) as error:
        load_engine("http://ada:secret@127.0.0.1:9/v1")
    assert "127.0.0.1:9" in str(error.value) and "secret" not in str(error.value)
