"""LoRA adapters on one base model: checked before they are read, then mounted through PEFT.

Nothing in an adapter folder is trusted: only ``adapter_config.json`` (plain LoRA, a short list of
settings) and ``adapter_model.safetensors`` are read, names and shapes are compared with the base
model first, and PEFT never sees the folder itself.

PEFT's mixed batch (``adapter_names``) loops over the adapters in every layer, gathering and
scattering rows; with eight adapters that is four times slower than one. Here the LoRA matrices of
the adapters in a batch are stacked along their rank, so that each layer makes two products whatever
their number, and PEFT's own sums are switched off:

    y = W x + B_all ((A_all x) * own)        own: 1 where a column belongs to the row's adapter

The zeros are exact, so a row's answer is that of its adapter alone, but for the order of summation.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from langchain_uno.errors import EngineError, ReleaseError
from langchain_uno.models.server_adapters import adapter_config, check_matrices

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

_log = logging.getLogger(__name__)

_SETTINGS = ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora")
_REFUSED = (
    "use_dora", "modules_to_save", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "megatron_config", "lora_bias",
    "exclude_modules", "fan_in_fan_out",
)  # fmt: skip


@dataclass(frozen=True)
class CheckedAdapter:
    """An adapter that fits the base: its PEFT settings and its tensors (on the CPU)."""

    config: LoraConfig
    tensors: dict[str, torch.Tensor]


def check_adapter(path: Path, model: Any) -> CheckedAdapter:
    """Read an adapter folder and check it against the base model.

    Args:
        path: folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        model: the transformers base model (LoRA layers may already be mounted on it).

    Raises:
        ReleaseError: missing files, another format, settings beyond plain LoRA, or tensors whose
            names or shapes do not fit the base model.
    """
    from peft import LoraConfig
    from safetensors.torch import load_file

    raw = adapter_config(path)
    weights = path / "adapter_model.safetensors"
    check_matrices(weights, f"The adapter in {str(path)!r}", linear_shapes(model))
    extras = [key for key in _REFUSED if raw.get(key)]
    if extras or raw.get("bias", "none") != "none":
        raise ReleaseError(
            f"The adapter in {str(path)!r} uses {', '.join(extras) or 'bias'}: "
            "only plain LoRA on linear layers is served."
        )
    try:
        # init_lora_weights is never taken over: some of its values rewrite the base weights.
        config = LoraConfig(
            **{key: raw[key] for key in _SETTINGS if raw.get(key) is not None},
            lora_dropout=0.0,
            bias="none",
            inference_mode=True,
            task_type="CAUSAL_LM",
        )
    except (TypeError, ValueError) as error:
        raise ReleaseError(f"The adapter in {str(path)!r} has bad settings: {error}.") from error
    return CheckedAdapter(config, load_file(weights))


def linear_shapes(model: Any) -> dict[str, tuple[int, int]]:
    """Module name -> (out, in) of every linear layer, by its name without mounted LoRA layers."""
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        linear = hasattr(module, "in_features") and hasattr(module, "out_features")
        if linear and ".lora_" not in name:
            key = name.removesuffix(".base_layer")
            shapes[key] = (int(module.out_features), int(module.in_features))
    return shapes


def count_base(model: Any) -> int:
    """Return how many weights a base model has, without LoRA layers that are mounted on it."""
    named = model.named_parameters()
    return sum(int(weights.numel()) for name, weights in named if ".lora_" not in name)


def count_weights(folder: Path) -> int:
    """Return how many weights an adapter has, from the head of its file."""
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dict


class AdapterSet:
    """The adapters mounted on one model, and which of them each row of the next pass uses.

    Used by the engine's owner thread only. PEFT's own names are never re-used, so that an adapter
    unloaded and loaded again under one name can't meet leftovers of the first.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._peft: PeftModel | None = None
        self._mounted: dict[str, tuple[str, Path]] = {}
        """Name -> PEFT's name, and the folder."""
        self._count = 0
        self._stacked = _StackedLora()

    def mount(self, name: str, path: Path, checked: CheckedAdapter) -> None:
        """Add a checked adapter under ``name``; undone wholly when PEFT refuses it."""
        from peft import PeftModel, set_peft_model_state_dict

        self._count += 1
        inner = f"u{self._count}"
        self._stacked.forget()
        try:
            if self._peft is None:
                with warnings.catch_warnings():
                    # PEFT asks transformers by a name that its next version drops
                    warnings.simplefilter("ignore", FutureWarning)
                    self._peft = PeftModel(self.model, checked.config, adapter_name=inner)
            else:
                self._peft.add_adapter(inner, checked.config)
            result = set_peft_model_state_dict(self._peft, checked.tensors, adapter_name=inner)
            left = list(getattr(result, "unexpected_keys", None) or [])
            if left:
                raise ReleaseError(f"The adapter {name!r} has tensors of no use: {left[:3]}.")
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            self._mounted[name] = inner, path
            self.unmount(name)
            if isinstance(error, ReleaseError):
                raise
            raise ReleaseError(f"The adapter {name!r} can't be mounted: {error}") from error
        self._mounted[name] = inner, path
        self.model.eval()
        tuner: Any = self._peft.base_model
        tuner.disable_adapter_layers()
        self._stacked.hook(self.model)

    def mount_again(self, mounted: Mapping[str, Path]) -> list[str]:
        """Mount what was mounted before :meth:`clear`; return the names of what still can be.

        A release that was deleted meanwhile must not keep the others from serving.
        """
        there = []
        for name, path in mounted.items():
            try:
                self.mount(name, path, check_adapter(path, self.model))
            except (ReleaseError, OSError) as gone:
                _log.error("The adapter %s is given up: %s", name, gone)
            else:
                there.append(name)
        return there

    def unmount(self, name: str) -> None:
        """Remove an adapter; the last one gone, the model is the plain base again."""
        inner, _ = self._mounted.pop(name, (None, None))
        self._stacked.forget()
        if self._peft is None or inner is None:
            return
        if not self._mounted:
            self._restore()
        elif inner in self._peft.peft_config:
            if inner in self._peft.active_adapters:
                other, _ = next(iter(self._mounted.values()))
                self._peft.set_adapter(other, inference_mode=True)
            self._peft.delete_adapter(inner)

    def paths(self) -> dict[str, Path]:
        """Name -> folder of every mounted adapter."""
        return {name: path for name, (_, path) in self._mounted.items()}

    def clear(self) -> None:
        """Unmount everything: the model is the plain base afterwards, bit for bit."""
        self._mounted.clear()
        self._restore()

    def _restore(self) -> None:
        if self._peft is not None:
            self._peft.unload()
            self.model.__dict__.pop("forward", None)
            self._peft = None
        self._stacked.clear()

    @contextmanager
    def rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Make the passes inside use ``names[i]`` (None: the base) for row ``i``."""
        inner = [None if name is None else self._mounted[name][0] for name in names]
        self._stacked.set_rows(inner)
        try:
            yield
        finally:
            self._stacked.set_rows([])


_KEPT = 4
"""Sets of adapters whose stacks are kept; each holds a copy of its adapters' weights."""

_Stack = tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]
"""(A, shape (ranks, in); B with the scaling in it, shape (out, ranks); each adapter's rank)."""


class _StackedLora:
    """Adds every row's own LoRA to the outputs of PEFT's (disabled) LoRA layers."""

    def __init__(self) -> None:
        self._hooked: dict[int, Any] = {}
        self._dtype = torch.float32
        """The model's, in which its passes compute; PEFT keeps adapters in float32."""
        self._stacks: OrderedDict[tuple[str, ...], dict[int, _Stack | None]] = OrderedDict()
        self._now: dict[int, _Stack | None] | None = None
        self._places: list[int] | None = []
        """Each row's adapter among those that are stacked; None: all rows have the only one."""
        self._own: dict[tuple[int, ...], torch.Tensor] = {}

    def hook(self, model: Any) -> None:
        """Attach to LoRA layers that are new in the model."""
        from peft.tuners.lora import LoraLayer

        self._dtype = model.dtype
        for module in model.modules():
            if isinstance(module, LoraLayer) and id(module) not in self._hooked:
                layer: Any = module
                layer.register_forward_hook(self._add)
                self._hooked[id(module)] = module

    def forget(self) -> None:
        """Drop the stacks: an adapter came or went."""
        self._stacks.clear()

    def clear(self) -> None:
        """Forget the layers too: the model is the plain base again."""
        self.forget()
        self._hooked.clear()

    def set_rows(self, names: Sequence[str | None]) -> None:
        """Choose each row's adapter (PEFT's name; None: the base)."""
        used = tuple(sorted({name for name in names if name is not None}))
        if not used:
            self._now = None
            return
        if used not in self._stacks:
            kept = {i: _stack(one, used, self._dtype) for i, one in self._hooked.items()}
            self._stacks[used] = kept
            while len(self._stacks) > _KEPT:
                self._stacks.popitem(last=False)
        self._stacks.move_to_end(used)
        self._now = self._stacks[used]
        alone = set(names) == {*used} and len(used) == 1
        places = [-1 if name is None else used.index(name) for name in names]
        if places != self._places:
            self._places, self._own = None if alone else places, {}

    def _add(self, layer: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        stack = self._now and self._now[id(layer)]
        if not stack:
            return None
        a, b, ranks = stack
        x = args[0]
        inner = torch.nn.functional.linear(x.to(a.dtype), a)
        if self._places is not None:
            if x.dim() != 3 or x.shape[0] != len(self._places):
                raise EngineError("This model's layers mix rows, so adapters can't share a batch.")
            own = self._own.get(ranks)
            if own is None:
                own = self._own[ranks] = _own(self._places, ranks, a)
            inner = inner * own
        return (output + torch.nn.functional.linear(inner, b)).to(output.dtype)


def _stack(layer: Any, names: Sequence[str], dtype: torch.dtype) -> _Stack | None:
    """Stack the matrices of the adapters that change this layer; None when none does."""
    ranks = tuple(
        int(layer.lora_A[name].weight.shape[0]) if name in layer.lora_A else 0 for name in names
    )
    with torch.no_grad():
        has = [name for name, rank in zip(names, ranks, strict=True) if rank]
        if not has:
            return None
        a = torch.cat([layer.lora_A[name].weight for name in has])
        b = torch.cat([layer.lora_B[name].weight * layer.scaling[name] for name in has], dim=1)
    return a.to(dtype), b.to(dtype), ranks


def _own(places: Sequence[int], ranks: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Shape (rows, 1, sum of ranks): 1 where a column belongs to the row's adapter."""
    owner = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks))
    own = torch.tensor(places)[:, None] == owner[None, :]
    return own.to(device=like.device, dtype=like.dtype)[:, None, :]
