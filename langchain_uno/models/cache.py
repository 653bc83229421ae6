"""A key/value cache for batches whose rows come and go.

``transformers``' ``DynamicCache`` concatenates every layer at every step, which copies the whole
cache for one token. Here each layer keeps spare room at its right end and writes in place; rows can
be dropped, columns trimmed and two batches joined. Keys and values are ``(rows, heads, columns,
head_dim)``, right-aligned: a row shorter than the batch is padded on the left and masked there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["RowCache", "supports_rows"]

_ROOM = 64
"""Columns of spare room added whenever a layer is copied anyway."""


def supports_rows(config: Any) -> bool:
    """Whether every layer keeps plain keys and values, so that rows can join and leave."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    types = set(getattr(text, "layer_types", None) or ["full_attention"])
    return types <= {"full_attention", "sliding_attention"}


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer: a buffer with room to grow, and a view of its first ``length`` columns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0
        self._key_buffer: torch.Tensor | None = None
        self._value_buffer: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new columns and return all keys and values."""
        end = self.length + key_states.shape[-2]
        if self._key_buffer is None or end > self._key_buffer.shape[-2]:
            self._grow(key_states, value_states, end)
        assert self._key_buffer is not None and self._value_buffer is not None
        self._key_buffer[:, :, self.length : end] = key_states
        self._value_buffer[:, :, self.length : end] = value_states
        self._show(end)
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def _grow(self, keys: torch.Tensor, values: torch.Tensor, needed: int) -> None:
        room = needed + max(_ROOM, needed // 4)
        old_keys, old_values = self._key_buffer, self._value_buffer
        self._key_buffer = keys.new_zeros((*keys.shape[:2], room, keys.shape[-1]))
        self._value_buffer = values.new_zeros((*values.shape[:2], room, values.shape[-1]))
        if old_keys is not None and old_values is not None:
            self._key_buffer[:, :, : self.length] = old_keys[:, :, : self.length]
            self._value_buffer[:, :, : self.length] = old_values[:, :, : self.length]
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def _show(self, length: int) -> None:
        assert self._key_buffer is not None and self._value_buffer is not None
        self.length = length
        self.keys = self._key_buffer[:, :, :length]
        self.values = self._value_buffer[:, :, :length]

    def rebuild(
        self, parts: Sequence[tuple[_Layer, torch.Tensor | None, int]], length: int
    ) -> None:
        """Fill from ``parts``: (source, rows to keep or None for all, columns to keep)."""
        pieces = []
        for source, rows, columns in parts:
            assert source.keys is not None and source.values is not None
            keys = source.keys[:, :, source.length - columns :]
            values = source.values[:, :, source.length - columns :]
            if rows is not None:
                keys, values = keys[rows], values[rows]
            pieces.append((keys, values, columns))
        n = sum(keys.shape[0] for keys, _, _ in pieces)
        keys, values, _ = pieces[0]
        room = length + max(_ROOM, length // 4)
        key_buffer = keys.new_zeros((n, keys.shape[1], room, keys.shape[-1]))
        value_buffer = values.new_zeros((n, values.shape[1], room, values.shape[-1]))
        at = 0
        for keys, values, columns in pieces:
            rows_here = slice(at, at + keys.shape[0])
            key_buffer[rows_here, :, length - columns : length] = keys
            value_buffer[rows_here, :, length - columns : length] = values
            at += keys.shape[0]
        self._key_buffer, self._value_buffer = key_buffer, value_buffer
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._show(length)


class RowCache(Cache):
    """The cache of one running batch."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_Layer)

    @property
    def columns(self) -> int:
        """How many columns (positions, padding included) are filled."""
        return self._rows_layer(0).length if self.layers else 0

    def _rows_layer(self, index: int) -> _Layer:
        layer = self.layers[index]
        assert isinstance(layer, _Layer)
        return layer

    @classmethod
    def join(cls, parts: Sequence[tuple[RowCache, torch.Tensor | None, int]]) -> RowCache:
        """Return one cache of the given rows and rightmost columns of each part, right-aligned.

        Args:
            parts: (cache, row indices to keep or None for all, columns to keep).
        """
        length = max(columns for _, _, columns in parts)
        joined = cls()
        for index in range(len(parts[0][0].layers)):
            layer = _Layer()
            layer.rebuild([(c._rows_layer(index), rows, cols) for c, rows, cols in parts], length)
            joined.layers.append(layer)
        return joined
