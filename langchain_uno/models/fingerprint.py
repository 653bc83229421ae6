"""What identifies a set of base weights: releases and caches are refused on another one.

The fingerprint is a sha256 over the canonical config and every safetensors file of the folder.
Files up to 64 MiB are hashed whole; of larger ones the header (names, shapes, dtypes, offsets),
the size and 64 blocks spread over the file, so that a model of 16 GB takes milliseconds. It tells
models apart; it is no proof against somebody who edits weights between the blocks.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from langchain_uno.errors import ModelNotFoundError

__all__ = ["folder_fingerprint", "model_fingerprint"]

_WHOLE = 64 * 2**20
_BLOCK = 64 * 2**10
_BLOCKS = 64
_PASSING = ("transformers_version", "_name_or_path", "_commit_hash", "torch_dtype", "dtype")
"""Config keys that change when the same weights are saved again."""


def folder_fingerprint(folder: Path) -> str:
    """Return the fingerprint of a model folder (cached by the files' sizes and times).

    Raises:
        ModelNotFoundError: the folder holds no ``config.json`` or no safetensors weights.
    """
    weights = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not config.is_file() or not weights:
        raise ModelNotFoundError(
            f"{str(folder)!r} is not a model folder: it needs a config.json and *.safetensors "
            "weights (other weight formats are not loaded)."
        )
    files = [config, *weights]
    stamp = tuple((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    return _folder_fingerprint(folder.resolve(), stamp)


@lru_cache(maxsize=64)
def _folder_fingerprint(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256(_canonical(json.loads((folder / stamp[0][0]).read_text("utf-8"))))
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
