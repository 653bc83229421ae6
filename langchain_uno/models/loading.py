"""From a model's name to a running engine.

    load_engine()                            # the bundled model
    load_engine("Qwen/Qwen3-8B")             # a folder, or a name on the hub
    load_engine("http://localhost:8000/v1")  # any OpenAI-compatible server (vLLM first)

``AutoModelForCausalLM`` and ``AutoTokenizer`` are the one path for all models; only safetensors
weights are read, and no code that comes with a model is run.

A fingerprint identifies base weights: releases and caches are refused on other ones. It is a sha256
over the canonical config and every safetensors file of the folder. Files up to 64 MiB are hashed
whole; of larger ones the header (names, shapes, dtypes, offsets), the size and 64 blocks spread
over the file, so that a model of 16 GB takes milliseconds. It tells models apart; it is no proof
against somebody who edits weights between the blocks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_uno.errors import ConfigError, InputError, ModelNotFoundError, no_package
from langchain_uno.forks import ForkLock
from langchain_uno.models.protocols import Embedder, Engine, Known
from langchain_uno.models.roles import PromptSet

if TYPE_CHECKING:
    from langchain_uno.models.local import LocalEngine

BUNDLED = "bundled"
"""The bundled model's name; the same as leaving the name out."""

_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
_shared: dict[tuple[Any, ...], Engine] = {}
_shared_lock = ForkLock()


def bundled_path() -> Path:
    """Return the folder of the bundled model inside the package."""
    return Path(str(resources.files("langchain_uno") / "models" / "bundled"))


def is_bundled(model: str | None) -> bool:
    """Whether ``model`` means the bundled model (None, its name, or its folder)."""
    if model is None or model == BUNDLED:
        return True
    folder = Path(model)
    return folder.is_dir() and folder.resolve() == bundled_path().resolve()


def is_url(model: str | None) -> bool:
    """Whether ``model`` is the address of a server."""
    return bool(model) and str(model).startswith(("http://", "https://"))


def model_folder(model: str | None = None) -> Path:
    """Return the local folder of a model, downloading it from the hub when it is a hub name.

    Raises:
        ModelNotFoundError: neither a folder, nor in the hub's cache, nor reachable on the hub; or
            a folder without config and safetensors weights.
    """
    if is_bundled(model):
        return bundled_path()
    assert model is not None
    folder = Path(model).expanduser()
    if folder.exists():
        folder_fingerprint(folder)
        return folder
    return _from_hub(model)


def _from_hub(name: str, *, load: bool = True) -> Path:
    """The folder of a hub's model; ``load=False``: only where it is on this machine already."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=not load)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"There is no model {name!r}: it is neither a folder nor reachable on the hub; check "
            "the spelling or the network, or give a folder's path. Without a name the bundled "
            "model runs."
        ) from error
    return Path(found)


def known_model(model: str | None) -> Known:
    """Return what a model is known as without loading it; empty: it is not on this machine."""
    name = model or BUNDLED
    folder = bundled_path() if model is None or is_bundled(model) else Path(model).expanduser()
    try:
        found = folder if folder.is_dir() else _from_hub(name, load=False)
        return Known.of(folder_fingerprint(found), name)
    except ModelNotFoundError:
        return Known.of(None, name)  # loading says what is wrong


def load_engine(
    model: str | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    server_model: str | None = None,
    api_key: str | None = None,
    server: Engine | None = None,
    **settings: Any,
) -> Engine:
    """Load a model and return an engine over it.

    Args:
        model: None for the bundled model, a folder, a hub name, or a server's base URL.
        device: ``"cpu"``, ``"cuda"``, ...; by default an accelerator where there is one. The
            bundled model always runs on the CPU.
        dtype: ``"float32"``, ``"bfloat16"``, ...; by default float32 on the CPU and what the
            weights are stored in elsewhere. The bundled model always runs in float32.
        server_model: for a URL, the served model's name; by default the first one it lists.
        api_key: for a URL.
        server: for a model that is no URL: the engine of a server that has the same weights and
            writes the answers (:class:`~langchain_uno.models.served.ServedEngine`).
        settings: further arguments of :class:`~langchain_uno.models.local.LocalEngine` (or
            :class:`~langchain_uno.models.openai_compatible.OpenAIEngine` for a URL).

    Raises:
        ModelNotFoundError: no such model.
        EngineError: the server does not answer.
    """
    if is_url(model):
        if server is not None:
            raise InputError(f"{model!r} is a server: name the weights that are to be here.")
        try:
            from langchain_uno.models.openai_compatible import OpenAIEngine
        except ImportError as error:
            raise no_package("A server's models need", error.name, "openai") from error

        return OpenAIEngine(str(model), model=server_model, api_key=api_key, **settings)
    import torch

    from langchain_uno.models.local import LocalEngine

    folder = model_folder(model)
    bundled = is_bundled(model)
    chosen = "cpu" if bundled else device or ("cuda" if torch.cuda.is_available() else "cpu")
    stored = dtype or ("float32" if chosen == "cpu" else "auto")
    weights, tokenizer = load_weights(folder, device=chosen, dtype="float32" if bundled else stored)
    settings["name"] = BUNDLED if bundled else str(model)
    settings["fingerprint"] = folder_fingerprint(folder)
    if server is None:
        return LocalEngine(weights, tokenizer, **settings)
    from langchain_uno.models.served import ServedEngine

    return ServedEngine(weights, tokenizer, server=server, **settings)


def load_weights(folder: Path, *, device: str = "cpu", dtype: str = "float32") -> tuple[Any, Any]:
    """Return (transformers model, tokenizer) from a folder; safetensors only, no foreign code.

    Raises:
        ModelNotFoundError: transformers can't load what the folder holds.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto_model: Any = AutoModelForCausalLM

    kind = dtype if dtype == "auto" else getattr(torch, dtype, None)
    if kind is None:
        raise ConfigError(f"There is no dtype {dtype!r}: give 'float32', 'bfloat16' or 'auto'.")
    try:
        with without_bars():
            model = auto_model.from_pretrained(
                folder, dtype=kind, use_safetensors=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelNotFoundError(
            f"The model in {str(folder)!r} can't be loaded: {error}"
        ) from error
    return model.to(device), tokenizer


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing bars while it loads weights."""
    import transformers.utils.logging as transformers_logging

    bars: Any = transformers_logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def engine_from_objects(model: Any, tokenizer: Any, **settings: Any) -> LocalEngine:
    """Return an engine over a transformers model that is already in memory.

    The fingerprint is the folder's it was loaded from, where that can be found, so that releases
    made by name and by object fit each other.
    """
    from langchain_uno.models.local import LocalEngine

    name = str(getattr(model.config, "_name_or_path", "") or "in-memory")
    known = known_model(name) or (model_fingerprint(model),)
    return LocalEngine(model, tokenizer, name=name, fingerprint=known[0], **settings)


def shared_engine(model: str | None = None, **settings: Any) -> Engine:
    """Like :func:`load_engine`, but one engine a process for the same model and settings."""
    folder = None if is_url(model) else str(model_folder(model).resolve())
    key = (folder or model, *sorted((k, repr(v)) for k, v in settings.items()))
    with _shared_lock:
        engine = _shared.get(key)
        if engine is None or getattr(engine, "closed", False):
            engine = _shared[key] = load_engine(model, **settings)
        return engine


def engine_from_langchain(other: Any, **settings: Any) -> LocalEngine:
    """Return an engine over the parts of a ``HuggingFacePipeline``, or of a chat model over one.

    Raises:
        InputError: ``other`` holds no local transformers model.
    """
    pipeline = getattr(getattr(other, "llm", other), "pipeline", None)
    model = getattr(pipeline, "model", None)
    tokenizer = getattr(pipeline, "tokenizer", None)
    if model is None or tokenizer is None:
        raise InputError(
            f"{type(other).__name__} holds no local transformers model: give a "
            "HuggingFacePipeline or a ChatHuggingFace over one, or name the model itself."
        )
    return engine_from_objects(model, tokenizer, **settings)


def load_embedder(name: str | None, engine: Engine | None = None) -> Embedder:
    """Return an embedder.

    Args:
        name: a HuggingFace name or folder; None for the base model's token embeddings.
        engine: the base model's engine, for the latter.

    Raises:
        ConfigError: no name, and the engine is not a local one.
        ModelNotFoundError: no such model.
    """
    from langchain_uno.models.embedders import LangChainEmbedder, TokenEmbedder
    from langchain_uno.models.local import LocalEngine

    if name is not None:
        return LangChainEmbedder.from_name(name)
    if not isinstance(engine, LocalEngine):
        raise ConfigError(
            "A server's token embeddings can't be read: name an embedding model "
            "(embedder='Qwen/Qwen3-Embedding-0.6B')."
        )
    return TokenEmbedder(engine)


def load_prompt_set(name: str) -> PromptSet:
    """Return the prompt set ``"bundled"`` or ``"real"``.

    Raises:
        ConfigError: there is no such prompt set.
    """
    from langchain_uno.models.prompts import get_prompt_set

    return get_prompt_set(name)


_WHOLE = 64 * 2**20
_BLOCK = 64 * 2**10
_BLOCKS = 64
_PASSING = ("transformers_version", "_name_or_path", "_commit_hash", "torch_dtype", "dtype")
"""Config keys that change when the same weights are saved again."""


def folder_fingerprint(folder: Path) -> str:
    """Return the fingerprint of a model folder (cached by the files' sizes and times).

    Raises:
        ModelNotFoundError: the folder holds no ``config.json`` or no safetensors weights, or those
            of a model that writes no text.
    """
    weights = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not config.is_file() or not weights:
        raise ModelNotFoundError(f"{str(folder)!r} is not a model folder{_other_kind(folder)}.")
    files = [config, *weights]
    stamp = tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    return _folder_fingerprint(folder.resolve(), stamp)


def _other_kind(path: Path) -> str:
    """Say what a file or folder is in place of a model, and what to do."""
    files = [path, *sorted(path.glob("*")), *path.glob("onnx/*")]
    found = {file.suffix: file for file in reversed(files)}
    if gguf := found.get(".gguf"):
        return (
            " but a GGUF file, which can't be trained or served here. Convert it once (pip install "
            f"gguf): AutoModelForCausalLM.from_pretrained({str(gguf.parent)!r}, "
            f"gguf_file={gguf.name!r}), the same with AutoTokenizer, then save_pretrained(FOLDER) "
            "of both (docs/guides/real-models.md), and give that folder"
        )
    adapter = path / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text("utf-8")).get("base_model_name_or_path")
        return (
            f" but an adapter of the model {base!r}: give that one, or merge them first (PEFT's "
            "merge_and_unload, then save_pretrained)"
        )
    if ".onnx" in found:
        return " but an ONNX export, which can't be trained: give the model that it was made of"
    if path.is_file():
        return ": it is a file; give the folder that holds it, its config.json and its tokenizer"
    has_config = (path / "config.json").is_file()
    missing = "*.safetensors weights" if has_config else "config.json (transformers' own format)"
    return f": it has no {missing}; other formats are not loaded"


def _check_config(folder: Path, config: dict[str, Any]) -> None:
    modules = folder / "modules.json"
    kinds = config.get("architectures") or ["ForCausalLM"]
    if modules.is_file() and "Pooling" in modules.read_text("utf-8"):
        kinds = []
    if not any(word in kind for kind in kinds for word in _WRITES):
        raise ModelNotFoundError(
            f"The model in {str(folder)!r} writes no text ({', '.join(kinds) or 'an embedder'}): "
            "give a chat model; a sentence embedder goes into --embeddings (embedder=)."
        )
    if "bits" in (config.get("quantization") or ()):
        raise ModelNotFoundError(
            f"The model in {str(folder)!r} is quantized for MLX, which can't be loaded here: give "
            "the model that it was made of."
        )


_WRITES = ("CausalLM", "LMHead", "ConditionalGeneration")
"""In the names of transformers' classes that write text."""


@lru_cache(maxsize=64)
def _folder_fingerprint(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    config = json.loads((folder / stamp[0][0]).read_text("utf-8"))
    _check_config(folder, config)
    digest = hashlib.sha256(_canonical(config))
    for name, size, _ in stamp[1:]:
        digest.update(f"{name}:{size}\n".encode())
        with (folder / name).open("rb") as file:
            if size <= _WHOLE:
                digest.update(file.read())
                continue
            header = int.from_bytes(file.read(8), "little")
            digest.update(file.read(min(header, _WHOLE)))
            for i in range(_BLOCKS):
                file.seek((size - _BLOCK) * i // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def model_fingerprint(model: Any) -> str:
    """Return a fingerprint of a model in memory that came from no folder we know."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    digest = hashlib.sha256(_canonical(config))
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}\n".encode())
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 4096)].float().cpu().numpy()
        digest.update(sample.tobytes())
    return digest.hexdigest()


def _canonical(config: dict[str, Any]) -> bytes:
    kept = {k: v for k, v in config.items() if k not in _PASSING}
    return json.dumps(kept, sort_keys=True, ensure_ascii=False).encode()
