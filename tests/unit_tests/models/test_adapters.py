"""Bad adapter folders are refused with a reason, and the engine serves on."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from langchain_uno.errors import EngineError, NameError_, ReleaseError
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.records import Message
from langchain_uno.testing import make_tiny_adapter, make_tiny_model


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    file.unlink()
    save_file(tensors, file)


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return sorted(tensors)[0]


def _rename(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[name.replace("layers.0", "layers.9")] = tensors.pop(name)


def _to_pickle(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    torch.save(load_file(file), folder / "adapter_model.bin")
    file.unlink()


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "no adapter_model"),
    "a pickle": (_to_pickle, "no adapter_model.safetensors"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "no adapter_config.json"),
    "config is no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "not valid JSON"),
    "damaged weights": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(b"\0" * 64),
        "not a sound safetensors",
    ),
    "another method": (lambda f: _config(f, peft_type="IA3"), "not a LoRA"),
    "DoRA": (lambda f: _config(f, use_dora=True), "use_dora"),
    "biases": (lambda f: _config(f, bias="all"), "bias"),
    "whole modules": (lambda f: _config(f, modules_to_save=["lm_head"]), "modules_to_save"),
    "no rank": (lambda f: _config(f, r=0), "bad settings|can't be mounted"),
    "another rank": (lambda f: _config(f, r=3), "can't be mounted"),
    "unknown layer": (lambda f: _tensors(f, _rename), "no such layer"),
    "wrong shape": (
        lambda f: _tensors(f, lambda t: t.update({_first(t): torch.zeros(4, 7)})),
        "the base model has",
    ),
    "not a number": (
        lambda f: _tensors(f, lambda t: t[_first(t)].fill_(float("nan"))),
        "not finite",
    ),
    "another type of number": (
        lambda f: _tensors(
            f, lambda t: t.update({_first(t): t[_first(t)].to(torch.float8_e4m3fn)})
        ),
        "F8_E4M3",
    ),
    "empty": (lambda f: _tensors(f, lambda t: t.clear()), "no weights"),
}


def _ask(adapter: str | None, **sampling: Any) -> GenerateRequest:
    settings = Sampling(**{"max_tokens": 8, **sampling})
    return GenerateRequest([Message(role="user", content="hello")], adapter, settings)


@pytest.mark.parametrize("kind", BAD)
def test_bad_folders_are_refused(
    engine: LocalEngine, adapter_paths: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    break_it, reason = BAD[kind]
    folder = Path(shutil.copytree(adapter_paths["a1"], tmp_path / "bad"))
    break_it(folder)
    before = engine.generate([_ask("a0"), _ask(None)])
    with pytest.raises(ReleaseError, match=reason):
        engine.load_adapter("bad", folder)
    assert "bad" not in engine.adapters()
    assert engine.generate([_ask("a0"), _ask(None)]) == before
    with pytest.raises(EngineError, match="no adapter 'bad'"):
        engine.generate([_ask("bad")])


def test_an_adapter_computes_in_the_type_of_its_base(
    tiny_model_path: Path, adapter_paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in its training, and without casts; PEFT mounts every adapter in float32."""
    one = load_engine(str(tiny_model_path), device="cpu", dtype="bfloat16")
    assert isinstance(one, LocalEngine)
    one.load_adapter("a0", adapter_paths["a0"])
    seen: list[torch.dtype] = []
    real = torch.nn.functional.linear

    def linear(x: torch.Tensor, weight: torch.Tensor, *more: Any) -> torch.Tensor:
        seen.append(weight.dtype)
        return real(x, weight, *more)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    one.generate([_ask(None, max_tokens=1)])
    plain = len(seen)
    one.generate([_ask("a0", max_tokens=1)])
    assert len(seen) > 2 * plain and set(seen) == {torch.bfloat16}
    one.close()


def test_weights_in_double_precision_are_loaded(
    engine: LocalEngine, adapter_paths: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(adapter_paths["a1"], tmp_path / "double"))
    _tensors(folder, lambda t: t.update({name: one.double() for name, one in t.items()}))
    engine.load_adapter("double", folder)
    asked = [_ask("double", max_tokens=20), _ask("a1", max_tokens=20)]
    double, single = engine.generate(asked)
    assert double.text == single.text
    engine.unload_adapter("double")


def test_another_base_s_adapter_is_refused(engine: LocalEngine, tmp_path: Path) -> None:
    wider = make_tiny_model(tmp_path / "wider", hidden=96)
    with pytest.raises(ReleaseError, match="the base model has"):
        engine.load_adapter("foreign", make_tiny_adapter(tmp_path / "foreign", wider))


@pytest.mark.parametrize("name", ["../x", "/etc/x", "A", "a.b", "", "__base__", "a" * 81])
def test_unsafe_names_are_refused(
    engine: LocalEngine, adapter_paths: dict[str, Path], name: str
) -> None:
    with pytest.raises(NameError_):
        engine.load_adapter(name, adapter_paths["a0"])


def test_init_settings_can_t_rewrite_the_base(
    engine: LocalEngine, adapter_paths: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(adapter_paths["a1"], tmp_path / "pissa"))
    _config(folder, init_lora_weights="pissa", base_model_name_or_path="../elsewhere")
    before = engine.generate([_ask(None), _ask("a1")])
    engine.load_adapter("pissa", folder)
    try:
        assert engine.generate([_ask(None), _ask("pissa")]) == before
    finally:
        engine.unload_adapter("pissa")


def test_names_are_unique_until_unloaded(
    engine: LocalEngine, adapter_paths: dict[str, Path]
) -> None:
    engine.load_adapter("again", adapter_paths["a0"])
    engine.load_adapter("again", adapter_paths["a0"])
    with pytest.raises(ReleaseError, match="taken"):
        engine.load_adapter("again", adapter_paths["a1"])
    engine.unload_adapter("again")
    engine.unload_adapter("again")
    engine.load_adapter("again", adapter_paths["a1"])
    try:
        assert engine.generate([_ask("again")]) == engine.generate([_ask("a1")])
    finally:
        engine.unload_adapter("again")


def test_unloading_waits_for_requests_under_way(
    engine: LocalEngine, adapter_paths: dict[str, Path]
) -> None:
    engine.load_adapter("leaving", adapter_paths["a2"])
    stream = engine.stream(_ask("leaving", max_tokens=60, temperature=1.0, seed=4))
    first = next(stream)
    gone = threading.Thread(target=engine.unload_adapter, args=("leaving",))
    gone.start()
    text = first.text + "".join(chunk.text for chunk in stream)
    gone.join(30)
    assert not gone.is_alive()
    assert "leaving" not in engine.adapters()
    same = _ask("a2", max_tokens=60, temperature=1.0, seed=4)
    assert text == engine.generate([same])[0].text
