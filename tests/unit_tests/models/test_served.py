"""A local engine whose answers a server writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from langchain_uno.errors import (
    AdapterTakenError,
    EngineDownError,
    EngineError,
    InputError,
    ModelMismatchError,
    ReleaseError,
)
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.models.served import ServedEngine
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
    with pytest.raises(ModelMismatchError, match=r"tokens of a question .* its chat template"):
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
    with pytest.raises(InputError, match="is no server"):
        load_engine(str(tiny_model_path), device="cpu", server=engine)
