"""Rows of one batch on different adapters, at nearly the cost of one adapter.

PEFT's mixed batch (``adapter_names``) loops over the adapters in every layer, gathering and
scattering rows; with eight adapters that is four times slower than one. Here the LoRA matrices of
the adapters in the batch are stacked along their rank, so that each layer makes two products
whatever their number:

    y = W x + B_all ((A_all x) * own)        own: 1 where a column belongs to the row's adapter

The zeros are exact, so a row's answer is that of its adapter alone, but for the order of summation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from langchain_uno.errors import EngineError

__all__ = ["StackedLora"]

_KEPT = 4
"""Sets of adapters whose stacks are kept; each holds a copy of its adapters' weights."""

_Stack = tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]
"""(A, shape (ranks, in); B with the scaling in it, shape (out, ranks); each adapter's rank)."""


class StackedLora:
    """Adds every row's own LoRA to the outputs of PEFT's (disabled) LoRA layers."""

    def __init__(self) -> None:
        self._hooked: dict[int, Any] = {}
        self._stacks: OrderedDict[tuple[str, ...], dict[int, _Stack | None]] = OrderedDict()
        self._now: dict[int, _Stack | None] | None = None
        self._places: list[int] = []
        self._own: dict[tuple[int, ...], torch.Tensor] = {}

    def hook(self, model: Any) -> None:
        """Attach to LoRA layers that are new in the model."""
        from peft.tuners.lora import LoraLayer

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

    def set_rows(self, names: Sequence[str | None] | None) -> None:
        """Choose each row's adapter (PEFT's name; None: the base); None switches the sums off."""
        if names is None:
            self._now = None
            return
        used = tuple(sorted({name for name in names if name is not None}))
        if used not in self._stacks:
            self._stacks[used] = {i: _stack(layer, used) for i, layer in self._hooked.items()}
            while len(self._stacks) > _KEPT:
                self._stacks.popitem(last=False)
        self._stacks.move_to_end(used)
        self._now = self._stacks[used]
        places = [-1 if name is None else used.index(name) for name in names]
        if places != self._places:
            self._places, self._own = places, {}

    def _add(self, layer: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        if self._now is None:
            return None
        stack = self._now[id(layer)]
        if stack is None:
            return None
        a, b, ranks = stack
        x = args[0]
        if x.dim() != 3 or x.shape[0] != len(self._places):
            raise EngineError("This model's layers mix rows, so adapters can't share a batch.")
        own = self._own.get(ranks)
        if own is None:
            own = self._own[ranks] = _own(self._places, ranks, a)
        inner = torch.nn.functional.linear(x.to(a.dtype), a) * own
        return output + torch.nn.functional.linear(inner, b).to(output.dtype)


def _stack(layer: Any, names: Sequence[str]) -> _Stack | None:
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
    return a, b, ranks


def _own(places: Sequence[int], ranks: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Shape (rows, 1, sum of ranks): 1 where a column belongs to the row's adapter."""
    owner = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks))
    own = torch.tensor(places)[:, None] == owner[None, :]
    return own.to(device=like.device, dtype=like.dtype)[:, None, :]
