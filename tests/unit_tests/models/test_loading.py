from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_uno.errors import ConfigError, ModelNotFoundError
from langchain_uno.models import loading
from langchain_uno.models.loading import folder_fingerprint, model_fingerprint
from langchain_uno.testing import make_tiny_model


def test_the_fingerprint_is_of_weights_and_config(tiny_model_path: Path, tmp_path: Path) -> None:
    same = make_tiny_model(tmp_path / "same", seed=0)
    other = make_tiny_model(tmp_path / "other", seed=1)
    assert folder_fingerprint(same) == folder_fingerprint(tiny_model_path)
    assert folder_fingerprint(other) != folder_fingerprint(same)
    config = json.loads((same / "config.json").read_text())
    (same / "config.json").write_text(json.dumps({**config, "transformers_version": "0"}))
    assert folder_fingerprint(same) == folder_fingerprint(tiny_model_path), "saved by another"
    (same / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert folder_fingerprint(same) != folder_fingerprint(tiny_model_path), "another function"


def test_objects_and_folders_agree(tiny_model_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    engine = loading.engine_from_objects(model, tokenizer)
    assert engine.fingerprint == folder_fingerprint(tiny_model_path)
    engine.close()
    model.config._name_or_path = "nowhere/at-all"
    engine = loading.engine_from_objects(model, tokenizer)
    assert engine.fingerprint == model_fingerprint(model)
    engine.close()


@pytest.mark.parametrize("name", ["no/such-model", "nosuchmodel", "./nothing", "a b c", "../x/y/z"])
def test_a_missing_model_says_what_to_do(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="neither a folder nor reachable on the hub"):
        loading.load_engine(name)


def test_other_weight_formats_are_not_loaded(tiny_model_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_path, tmp_path / "pickled"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match="safetensors"):
        loading.load_engine(str(folder))


GGUF = r"AutoModelForCausalLM.from_pretrained\('.*', gguf_file='m-Q4.gguf'\)"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"m-Q4.gguf": "GGUF"}, GGUF),
        ({"config.json": "{}", "m-Q4.gguf": "GGUF"}, GGUF),
        (
            {"adapter_config.json": '{"base_model_name_or_path": "org/base"}',
             "adapter_model.safetensors": ""},
            "an adapter of the model 'org/base'",
        ),
        ({"config.json": "{}", "onnx/model.onnx": ""}, "ONNX"),
        ({"model.safetensors": "", "tokenizer.json": "{}"}, "no config.json"),
        ({"config.json": "{}", "tokenizer.json": "{}"}, r"no \*.safetensors"),
        ({"config.json": '{"architectures": ["BertModel"]}', "model.safetensors": ""},
         r"writes no text \(BertModel\).*--embeddings"),
        ({"config.json": '{"architectures": ["Qwen3ForCausalLM"]}', "model.safetensors": "",
          "modules.json": '[{"type": "sentence_transformers.models.Pooling"}]'}, "an embedder"),
        ({"config.json": '{"quantization": {"group_size": 64, "bits": 4}}',
          "model.safetensors": ""}, "MLX"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_called_by_its_name(
    files: dict[str, str], said: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        file = tmp_path / "model" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with pytest.raises(ModelNotFoundError, match=said):
        loading.load_engine(str(tmp_path / "model"))


def test_a_file_is_no_model(tmp_path: Path, tiny_model_path: Path) -> None:
    file = tmp_path / "m-Q4.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelNotFoundError, match=GGUF):
        loading.load_engine(str(file))
    with pytest.raises(ModelNotFoundError, match="give the folder that holds it"):
        loading.load_engine(str(tiny_model_path / "model.safetensors"))
    with pytest.raises(ModelNotFoundError, match="embedding model .* can't be loaded"):
        loading.load_embedder(str(tmp_path))


def test_damaged_weights_are_a_clear_error(tiny_model_path: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_path, tmp_path / "damaged"))
    (folder / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(ModelNotFoundError, match="can't be loaded"):
        loading.load_engine(str(folder))


def test_a_bad_dtype_is_a_clear_error(tiny_model_path: Path) -> None:
    with pytest.raises(ConfigError, match="dtype"):
        loading.load_engine(str(tiny_model_path), dtype="float99")


def test_is_bundled() -> None:
    assert loading.is_bundled(None)
    assert loading.is_bundled("bundled")
    assert loading.is_bundled(str(loading.bundled_path())) == loading.bundled_path().is_dir()
    assert not loading.is_bundled("Qwen/Qwen3-8B")
    assert not loading.is_bundled("http://localhost:1/v1")


def test_engines_are_shared_until_closed(tiny_model_path: Path) -> None:
    one = loading.shared_engine(str(tiny_model_path), max_batch=7)
    assert loading.shared_engine(str(tiny_model_path), max_batch=7) is one
    assert loading.shared_engine(f"{tiny_model_path}/.", max_batch=7) is one
    assert loading.shared_engine(str(tiny_model_path), max_batch=8) is not one
    one.close()
    two = loading.shared_engine(str(tiny_model_path), max_batch=7)
    assert two is not one
    two.close()


def test_prompt_sets_by_name() -> None:
    assert loading.load_prompt_set("real").supports("en")
    with pytest.raises(ConfigError, match="no prompt set 'x'"):
        loading.load_prompt_set("x")
