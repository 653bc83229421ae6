"""The bundled model on disk: checkpoints (safetensors and JSON) and the shipped folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lab.bundled.data import BundledConfig

__all__ = ["checkpoint", "resume", "save", "ship"]


def checkpoint(
    out: Path,
    model: Any,
    optimisers: tuple[Any, Any],
    position: dict[str, int],
    pool: list[dict[str, Any]],
) -> None:
    """Write weights, optimiser moments and position, atomically and without pickle.

    ``position`` counts the steps done, the chunks drawn and the samplings of own revisions.
    """
    tensors = {f"model.{k}": v.detach().cpu().clone() for k, v in model.state_dict().items()}
    tensors.pop("model.lm_head.weight", None)  # tied
    for i, optimiser in enumerate(optimisers):
        for j, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimiser.{i}.{j}.{key}"] = torch.as_tensor(value).detach().cpu().clone()
    temporary = out / ".checkpoint.tmp"
    save_file(tensors, temporary)
    whole = {**position, "pool": pool}
    (out / ".position.tmp").write_text(json.dumps(whole), encoding="utf-8")
    os.replace(temporary, out / "checkpoint.safetensors")
    os.replace(out / ".position.tmp", out / "position.json")


def resume(
    out: Path, model: Any, optimisers: tuple[Any, Any]
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Load the last checkpoint, if any; return the position and the pool of own revisions."""
    position: dict[str, Any] = {"step": 0, "chunk": 0, "drawn": 0}
    if not (out / "position.json").is_file():
        return position, []
    tensors = load_file(out / "checkpoint.safetensors")
    weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(weights, strict=False)
    for i, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimiser.{i}."):
                _, _, j, name = key.split(".")
                state.setdefault(int(j), {})[name] = value
        whole = optimiser.state_dict()
        whole["state"] = state
        optimiser.load_state_dict(whole)
    position |= json.loads((out / "position.json").read_text(encoding="utf-8"))
    return position, position.pop("pool")


def save(out: Path, model: Any, tokenizer: Any, config: BundledConfig) -> None:
    """Save in float32 beside the checkpoint; shipping rounds to the tested dtype."""
    final = out / "model"
    model.save_pretrained(final, safe_serialization=True)
    tokenizer.save_pretrained(final)
    (final / "training.json").write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")


def ship(trained: Path, target: Path, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Round the trained weights to the shipped dtype and copy what loading needs to ``target``.

    Weights are stored rounded and always run in float32, so the test of the shipped folder is the
    test of what users get.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    model = model.to(dtype)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target, safe_serialization=True)
    AutoTokenizer.from_pretrained(trained).save_pretrained(target)
    (target / "training.json").write_bytes((trained / "training.json").read_bytes())
    return target
