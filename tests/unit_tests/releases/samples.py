"""A small release's parts, made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from langchain_uno.records import Cluster
from langchain_uno.releases.manifest import Manifest

BASE = "tiny-model"


def write_adapter(folder: Path, rank: int = 2, base: str = BASE) -> Path:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file(
        {
            f"{module}.lora_A.weight": np.ones((rank, 8), np.float32),
            f"{module}.lora_B.weight": np.zeros((4, rank), np.float32),
        },
        folder / "adapter_model.safetensors",
    )
    (folder / "training_args.bin").write_bytes(b"a pickle that must stay behind")
    return folder


def draft(run_ids: tuple[str, ...] = ("run-1", "run-2")) -> Manifest:
    return Manifest(
        base_model=BASE,
        base_fingerprint="base-1",
        embedder_fingerprint="embedder-1",
        prompt_set_fingerprint="prompts-1",
        clusters=[
            Cluster(id="c0", size=2, run_ids=list(run_ids), route="expert"),
            Cluster(id="c1", size=1, run_ids=["run-3"], route="critic"),
            Cluster(id="c2", size=1, run_ids=["run-4"]),
        ],
        threshold=0.7,
    )
