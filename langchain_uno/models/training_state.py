"""Going on with a training that was killed: its state, kept every minute, without a pickle.

    keeper = Keeper(out, records.digest_of(rows, settings, seed))
    trainer.add_callback(keeper)
    trainer.train(resume_from_checkpoint=keeper.checkpoint)

The trainer is a :class:`Resumable`. Weights, the optimizer's moments and the random states are
safetensors, the rest is JSON. A training that goes on ends with the very weights that it would have
had. A state of other examples or settings, or one that can't be read, counts for nothing.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState

EVERY_S = 60.0
"""Seconds of training that a kill may cost, a step's or an evaluation's own time aside."""

_WEIGHTS = "adapter.safetensors"
_TENSORS = "optimizer.safetensors"
_REST = "rest.json"
_TRAINER = "trainer_state.json"  # as transformers has it


@dataclass(eq=False)
class Keeper(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Keeps the state of a training, and finds the one that an earlier call left."""

    out: Path
    """The training's folder."""
    digest: str
    """Of what is trained (:func:`langchain_uno.records.digest_of`)."""
    make_notes: Callable[[], dict[str, Any]] = dict
    """Returns what the caller wants back, as JSON."""
    epochs: int = 0
    """Epochs that are over, those before the state that was found among them."""
    lost: int = 0
    """Steps that were left out."""
    notes: dict[str, Any] = field(default_factory=dict)
    """The caller's, as they were then."""

    def __post_init__(self) -> None:
        """Look for a state."""
        self._kept_at = time.monotonic()
        self.checkpoint = self._find()
        """The folder to go on from; None: begin anew."""

    def _find(self) -> str | None:
        for folder in sorted(
            self.out.glob("state-*"), key=lambda f: int(f.name[len("state-") :]), reverse=True
        ):
            try:
                rest = json.loads((folder / _REST).read_bytes())
                for name in (_WEIGHTS, _TENSORS):
                    load_file(folder / name)
                TrainerState.load_from_json(str(folder / _TRAINER))
            except (OSError, ValueError, TypeError, SafetensorError):
                continue
            if rest["digest"] == self.digest:
                self.epochs, self.lost, self.notes = rest["epochs"], rest["lost"], rest["notes"]
                return str(folder)
        return None

    def clear(self) -> None:
        """Remove all states: the training is over, or begins anew."""
        for folder in [*self.out.glob("state-*"), *self.out.glob(".state-*.part")]:
            shutil.rmtree(folder, ignore_errors=True)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **with_: Any) -> None:
        """Keep a state within an epoch; at its end the other callbacks come first."""
        if not float(state.epoch or 0.0).is_integer() and state.global_step < state.max_steps:
            self._keep(state, **with_)

    def on_epoch_end(self, args: Any, state: TrainerState, control: Any, **with_: Any) -> None:
        """Keep a state between two epochs, unless an evaluation comes between them."""
        if not control.should_evaluate:
            self._keep(state, **with_)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **with_: Any) -> None:
        """Keep a state between two epochs that have an evaluation between them."""
        self._keep(state, **with_)

    def _keep(
        self, state: TrainerState, *, model: Any, optimizer: Any, lr_scheduler: Any, **_: Any
    ) -> None:
        if time.monotonic() - self._kept_at < EVERY_S:
            return
        folder = self.out / f"state-{state.global_step}"
        temp = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir(parents=True)
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        save_file({k: v.detach().contiguous() for k, v in weights.items()}, temp / _WEIGHTS)
        moments = optimizer.state_dict()
        tensors = {
            f"{parameter}/{name}": value.detach().contiguous()
            for parameter, values in moments["state"].items()
            for name, value in values.items()
        }
        tensors["random/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random/cuda"] = torch.cuda.get_rng_state()
        save_file(tensors, temp / _TENSORS)
        kind, words, *more = np.random.get_state()
        rest = {
            "digest": self.digest,
            "epochs": int(state.epoch or 0.0),
            "lost": self.lost,
            "notes": self.make_notes(),
            "rates": [group["lr"] for group in moments["param_groups"]],
            "scheduler": lr_scheduler.state_dict(),
            "python": random.getstate(),
            "numpy": [kind, np.asarray(words).tolist(), *more],
        }
        (temp / _REST).write_text(json.dumps(rest), encoding="utf-8")
        state.save_to_json(str(temp / _TRAINER))
        shutil.rmtree(folder, ignore_errors=True)
        temp.rename(folder)
        for old in self.out.glob("state-*"):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
        self._kept_at = time.monotonic()


class Resumable:
    """For a trainer of transformers: reads what a :class:`Keeper` kept, and nothing else."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        weights = load_file(Path(resume_from_checkpoint) / _WEIGHTS)
        trainer: Any = self
        set_peft_model_state_dict(trainer.model, weights)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        trainer: Any = self
        rest = json.loads((Path(checkpoint) / _REST).read_bytes())
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in load_file(Path(checkpoint) / _TENSORS).items():
            parameter, _, name = key.partition("/")
            if parameter.isdigit():
                moments.setdefault(int(parameter), {})[name] = value
        groups = trainer.optimizer.state_dict()["param_groups"]
        for group, rate in zip(groups, rest["rates"], strict=True):
            group["lr"] = rate
        trainer.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        trainer.lr_scheduler.load_state_dict(rest["scheduler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        rest = json.loads((Path(checkpoint) / _REST).read_bytes())
        tensors = load_file(Path(checkpoint) / _TENSORS)
        version, words, gauss = rest["python"]
        random.setstate((version, tuple(words), gauss))
        kind, numbers, *more = rest["numpy"]
        np.random.set_state((kind, np.asarray(numbers, dtype=np.uint32), *more))
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random/cuda"])
