"""Adapters on a vLLM server: how they get there, and what keeps requests from others' weights.

Guards for what vLLM 0.32 does (each was measured):

- ``model="../x"`` loads a folder outside the resolver's: names are checked before they are sent.
- A folder replaced in place keeps serving the old weights: a name stands for one content for ever.
- With every ``--max-loras`` slot in use, base rows in a batch with adapters are answered with an
  adapter's weights, and nothing says so. So once a server has adapters, the base is asked for
  through a stand-in: an adapter of rank 1 whose B is zero, which adds exactly nothing.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from langchain_uno.errors import AdapterTakenError, EngineError, ReleaseError
from langchain_uno.forks import ForkLock
from langchain_uno.home import safe_name

STAND_IN = "uno-base-"
"""How the name of an adapter of zeros begins; a hash of its shapes follows."""

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_RANKS = ("rank_pattern", "alpha_pattern")
_deserialize: Any = deserialize  # its stub carries no types

LinearShapes = Mapping[str, tuple[int, int]]
"""Module name -> (out features, in features) of the base model's linear layers."""


@dataclass(eq=False)
class ServerAdapters:
    """The adapters of one engine on one server. Thread-safe."""

    root: str
    """The server's ``--model`` string, which its resolver compares with the adapter's."""
    folder: Path | None
    """The resolver's; None: adapters are loaded by the server's own call."""
    load: Callable[[str, Path], Any]
    """Tells the server to load (name, folder)."""
    unload: Callable[[str], Any]
    """Tells the server to forget a name; may fail."""
    wants_stand_in: bool
    """Whether the base is asked for through an adapter of zeros."""
    made_in: Path | None = None
    """Where this is made; None: the system's folder for temporary files."""

    def __post_init__(self) -> None:
        """Begin without adapters."""
        self._stand_in: str | None = None
        self._made: tempfile.TemporaryDirectory[str] | None = None
        self._paths: dict[str, Path] = {}
        self._brought: dict[str, Path] = {}
        """What the server was told to load, the stand-in too."""
        self._lock = ForkLock()

    def names(self) -> list[str]:
        """The adapters that were added."""
        return sorted(self._paths)

    def served_name(self, adapter: str | None, base: str) -> str:
        """The name to ask the server for: the adapter's, the base's, or its stand-in's.

        Raises:
            EngineError: the adapter was not added.
        """
        if adapter is not None and adapter not in self._paths:
            raise EngineError(f"There is no adapter {adapter!r} here: load it first.")
        return adapter or self._stand_in or base

    def add(self, name: str, path: Path) -> None:
        """Make the adapter in folder ``path`` available as ``name`` (unique for ever).

        Raises:
            NameError_: the name is not safe.
            ReleaseError: the name is taken, or the folder is no LoRA adapter in safetensors.
            EngineError: the server can't load adapters.
        """
        safe_name(name, "adapter name")
        folder = Path(path).absolute()
        with self._lock:
            if self._paths.get(name, folder) != folder:
                raise AdapterTakenError(
                    f"The adapter name {name!r} is taken: a new version needs a new name."
                )
            if name in self._paths:
                return
            config = adapter_config(folder)
            if self.wants_stand_in and self._stand_in is None:
                self._stand_in = self._make_stand_in(config, folder)
            self._bring(name, folder, config)
            self._paths[name] = folder

    def remove(self, name: str) -> None:
        """Free an adapter; unknown names are ignored."""
        with self._lock:
            if self._paths.pop(name, None) is None:
                return
            self._brought.pop(name, None)
            if self.folder is not None:
                shutil.rmtree(self.folder / safe_name(name, "adapter name"), ignore_errors=True)
            self.unload(name)

    def bring_again(self, served: str) -> bool:
        """The server does not know a name (it was restarted): load it again if we can.

        Returns:
            Whether it is worth asking again. A resolver finds its folders by itself.
        """
        with self._lock:
            folder = self._brought.get(served)
            if folder is not None:
                self.load(served, folder)
            return folder is not None

    def close(self) -> None:
        """Remove what was made for this engine alone."""
        if self._made is not None:
            if self.folder is None and self._stand_in is not None:
                self.unload(self._stand_in)
            self._made.cleanup()

    # -- inside ----------------------------------------------------------------------------------

    def _bring(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        """Load an adapter, or copy it into the resolver's folder: whole, and never in place."""
        if self.folder is None:
            self.load(name, folder)
            self._brought[name] = folder
            return
        target = self.folder / name
        # The resolver compares this with the server's --model string.
        config = {**config, "base_model_name_or_path": self.root}
        if target.exists():
            if _same(target, folder, config):  # placed before, by a process that is gone
                return
            raise ReleaseError(
                f"The adapter name {name!r} is taken in {str(self.folder)!r} by other weights, "
                "which the server may be serving: a new version needs a new name."
            )
        temp = None
        try:
            temp = Path(tempfile.mkdtemp(prefix=".adapter-", dir=self.folder))
            (temp / _CONFIG).write_text(json.dumps(config), encoding="utf-8")
            shutil.copyfile(folder / _WEIGHTS, temp / _WEIGHTS)
            for one, mode in ((temp, 0o755), (temp / _CONFIG, 0o644), (temp / _WEIGHTS, 0o644)):
                one.chmod(mode)  # the server is another user
            os.rename(temp, target)
        except OSError as error:
            if temp is not None:
                shutil.rmtree(temp, ignore_errors=True)
            if target.exists() and _same(target, folder, config):  # another process was first
                return
            raise ReleaseError(f"The adapter {name!r} can't be placed: {error}.") from error

    def _make_stand_in(self, config: dict[str, Any], folder: Path) -> str:
        """Make the adapter of zeros, of the layers that this adapter changes, and bring it."""
        import torch
        from safetensors import safe_open
        from safetensors.torch import save_file

        zeros: dict[str, Any] = {}
        try:
            with safe_open(folder / _WEIGHTS, framework="pt") as weights:
                for key in weights.keys():  # noqa: SIM118 (a handle, not a dict)
                    rows, columns = weights.get_slice(key).get_shape()
                    shape = (1, columns) if ".lora_A" in key else (rows, 1)
                    zeros[key] = torch.zeros(shape, dtype=torch.float32)
        except (OSError, SafetensorError, ValueError) as error:
            raise ReleaseError(f"The adapter in {str(folder)!r} can't be read: {error}.") from error
        plain = {k: v for k, v in config.items() if k not in _RANKS}
        plain |= {"r": 1, "lora_alpha": 1, "use_rslora": False}
        shapes = sorted((key, tuple(value.shape)) for key, value in zeros.items())
        self._made = tempfile.TemporaryDirectory(prefix=f".{STAND_IN}", dir=self.made_in)
        # vLLM 0.32 ends when an adapter that it reads again is gone: a name is of one folder.
        of = "" if self.folder is not None else self._made.name
        name = STAND_IN + sha256(f"{self.root}{shapes}{of}".encode()).hexdigest()[:16]
        made = Path(self._made.name) / name
        made.mkdir()
        (made / _CONFIG).write_text(json.dumps(plain), encoding="utf-8")
        save_file(zeros, made / _WEIGHTS)
        self._bring(name, made, plain)
        return name


def adapter_config(folder: Path, where: str = "") -> dict[str, Any]:
    """Return the settings of the LoRA adapter in a folder, as PEFT wrote them.

    Args:
        folder: the adapter's.
        where: what an error calls it; by default by its folder.

    Raises:
        ReleaseError: the folder holds no LoRA adapter in safetensors.
    """
    where = where or f"The adapter in {str(folder)!r}"
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise ReleaseError(
                f"{where} has no {file}: only LoRA adapters saved by PEFT as safetensors are loaded"
            )
    try:
        config = json.loads((folder / _CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ReleaseError(f"{where} has an {_CONFIG} that is not valid JSON") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ReleaseError(f"{where} is not a LoRA adapter")
    return config


def check_matrices(file: Path, where: str, shapes: LinearShapes | None) -> set[int]:
    """Check the matrices of a LoRA adapter: pairs of A and B, finite, of the base model's layers.

    Args:
        file: the safetensors.
        where: what an error calls the adapter.
        shapes: of the base model; None: they are not compared.

    Returns:
        The ranks.

    Raises:
        ReleaseError: they are not sound; says which and why.
    """
    modules: dict[str, dict[str, list[int]]] = {}
    for name, info in read_tensors(file, f"{where}/{file.name}").items():
        module, _, part = name.removeprefix("base_model.model.").rpartition(".lora_")
        if not module or part not in ("A.weight", "B.weight") or len(info["shape"]) != 2:
            raise ReleaseError(f"{where} has a tensor {name!r} that is no LoRA matrix")
        if info["dtype"] not in _EXPONENTS:
            raise ReleaseError(f"{where} has {info['dtype']} in {name!r}, not {[*_EXPONENTS]}")
        kind, mask = _EXPONENTS[info["dtype"]]
        bits = np.frombuffer(bytes(info["data"]), dtype=kind)
        if ((bits & mask) == mask).any():
            raise ReleaseError(f"{where} has values that are not finite in {name!r}")
        modules.setdefault(module, {})[part[0]] = list(info["shape"])
    if not modules:
        raise ReleaseError(f"{where} holds no weights")
    for module, parts in modules.items():
        a, b = parts.get("A"), parts.get("B")
        if a is None or b is None or a[0] != b[1]:
            raise ReleaseError(f"{where} has shapes A {a}, B {b} at {module!r}")
        if shapes is not None and shapes.get(module) != (b[0], a[1]):
            raise ReleaseError(
                f"{where} changes {module!r} of shape {(b[0], a[1])}, the base model has "
                f"{shapes.get(module, 'no such layer')}"
            )
    return {parts["B"][1] for parts in modules.values()}


def read_tensors(file: Path, where: str) -> dict[str, dict[str, Any]]:
    """Return the tensors of a safetensors file by name: shape, dtype and data.

    Raises:
        ReleaseError: it is none; ``where`` is what the error calls it.
    """
    try:
        return dict(_deserialize(file.read_bytes()))
    except (SafetensorError, OSError) as error:
        raise ReleaseError(f"{where} is not a sound safetensors file ({error})") from error


_EXPONENTS = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
_EXPONENTS["F64"] = ("<u8", 0x7FF0000000000000)
"""The bits of the exponent, which are all set in inf and NaN: no torch needed, bf16 included."""


def _same(target: Path, folder: Path, config: dict[str, Any]) -> bool:
    try:
        placed = json.loads((target / _CONFIG).read_text(encoding="utf-8"))
        same = filecmp.cmp(target / _WEIGHTS, folder / _WEIGHTS, shallow=False)
    except (OSError, ValueError):
        return False
    return bool(placed == config) and same
