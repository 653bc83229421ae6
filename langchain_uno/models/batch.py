"""The running batch: one forward pass a step for every row, whatever its adapter or settings.

New rows get a pass over their prompts of their own and then join; what all of these begin with (the
words of a role, say) is computed once for them. Finished rows leave when that pays. Rows are
right-aligned (padded on the left), positions are counted without the padding.

``transformers``' ``DynamicCache`` concatenates every layer at every step, which copies the whole
cache for one token. Here each layer keeps spare room at its right end and writes in place; rows can
be dropped, columns trimmed and two batches joined. Keys and values are ``(rows, heads, columns,
head_dim)``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from langchain_uno.models.adapters import AdapterSet
from langchain_uno.models.rows import Row


class RunningBatch:
    """The rows under way on one model. Used by the engine's owner thread only."""

    def __init__(self, model: Any, adapters: AdapterSet, pad_token: int) -> None:
        self._model = model
        self._adapters = adapters
        self._pad = pad_token
        self._accepts = set(inspect.signature(type(model).forward).parameters)
        config = model.config
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        self.can_join = kinds <= {"full_attention", "sliding_attention"}
        """False for models whose layers keep other states: a batch then runs as it started."""
        self.rows: list[Row | None] = []
        """None stands for a row that left and whose place is still computed."""
        self._cache: Cache | None = None
        self._mask: torch.Tensor | None = None
        self._columns = 0

    @property
    def live(self) -> list[Row]:
        """The rows that still want tokens."""
        return [row for row in self.rows if row is not None]

    @torch.inference_mode()
    def start(self, rows: list[Row]) -> torch.Tensor:
        """Run what new rows begin with; those that generate join the batch.

        Returns:
            The logits after each, shape (len(rows), vocabulary).
        """
        device = self._model.device
        columns = max(row.length for row in rows)
        padded = [[self._pad] * (columns - row.length) + row.so_far for row in rows]
        ids = torch.tensor(padded, device=device)
        lengths = torch.tensor([row.length for row in rows], device=device)
        places = torch.arange(columns, device=device)[None, :] - (columns - lengths)[:, None]
        mask = places >= 0
        head, cache = self._shared(rows, columns - lengths)
        generating = [i for i, row in enumerate(rows) if row.options is None]
        if generating and cache is None:
            cache = _RowCache() if self.can_join else DynamicCache(config=self._model.config)
        even = not head and all(row.length == columns for row in rows)
        given = None if even else mask.long()
        with self._adapters.rows([row.adapter for row in rows]):
            logits = self._forward(ids[:, head:], given, places.clamp(min=0)[:, head:], cache)
        if generating:
            assert cache is not None
            self._join(rows, generating, cache, mask, columns)
        return logits

    def _shared(self, rows: Sequence[Row], pads: torch.Tensor) -> tuple[int, Cache | None]:
        """Run the common beginning of the prompts once, where that saves enough.

        Args:
            rows: new ones.
            pads: columns before each row's prompt, shape (rows,).

        Returns:
            How many columns of the padded prompts are known then, and the rows' cache of them.
        """
        prompts = [row.so_far for row in rows]
        first, last = min(prompts), max(prompts)
        most = min(map(len, prompts)) - 1
        head = next((i for i in range(most) if first[i] != last[i]), most)
        adapters = {row.adapter for row in rows}
        if not self.can_join or len(adapters) > 1 or head * (len(rows) - 1) < _WORTH:
            return 0, None
        once, places = _RowCache(), torch.arange(head, device=pads.device)[None, :]
        with self._adapters.rows(list(adapters)):
            self._forward(torch.tensor([first[:head]], device=pads.device), None, places, once)
        # A shorter row has its padding first, so its part of these columns ends earlier.
        index = (places - pads[:, None]).clamp(min=0)
        cache = _RowCache()
        for source in once.layers:
            assert isinstance(source, _Layer)
            keys, values = (x[0][:, index].transpose(0, 1) for x in source.shown())
            layer = _Layer()
            layer.fill([(keys, values)], head)
            cache.layers.append(layer)
        return head, cache

    def _join(
        self, rows: Sequence[Row], chosen: list[int], cache: Cache, mask: torch.Tensor, columns: int
    ) -> None:
        if not self.can_join or (not self.live and len(chosen) == len(rows)):
            self.rows = [row if row.options is None else None for row in rows]
            self._cache, self._columns = cache, columns
            self._mask = _with_room(mask, columns)
            return
        index = None if len(chosen) == len(rows) else torch.tensor(chosen, device=mask.device)
        width = max(rows[i].length for i in chosen)
        self._rebuild((cache, mask, index, width), [rows[i] for i in chosen])

    @torch.inference_mode()
    def step(self) -> torch.Tensor:
        """Run one token of every row; returns logits of the live rows, shape (live, vocabulary)."""
        self._compact()
        device = self._model.device
        live = [i for i, row in enumerate(self.rows) if row is not None]
        tokens = [row.tokens[-1] if row is not None else self._pad for row in self.rows]
        places = [row.length - 1 if row is not None else 0 for row in self.rows]
        assert self._mask is not None and self._cache is not None
        if self._columns >= self._mask.shape[1]:
            self._mask = _with_room(self._mask, self._columns)
        self._columns += 1
        even = len(live) == 1 and len(self.rows) == 1 and places[0] == self._columns - 1
        # Places of rows that left take a live row's adapter, so that one adapter stays one.
        spare = self.live[0].adapter
        names = [row.adapter if row is not None else spare for row in self.rows]
        with self._adapters.rows(names):
            logits = self._forward(
                torch.tensor(tokens, device=device)[:, None],
                None if even else self._mask[:, : self._columns],
                torch.tensor(places, device=device)[:, None],
                self._cache,
            )
        return logits if len(live) == len(self.rows) else logits[live]

    def leave(self, row: Row) -> None:
        """Take a row out. Its place is freed by a later step or join."""
        self.rows = [None if r is row else r for r in self.rows]
        if not self.live:
            self.clear()

    def _compact(self) -> None:
        """Drop the places of rows that left, once they are a quarter of the batch."""
        gone = sum(row is None for row in self.rows)
        if gone and self.can_join and gone * 4 >= len(self.rows):
            self._rebuild(None, [])

    def clear(self) -> None:
        """Forget every row."""
        self.rows, self._cache, self._mask, self._columns = [], None, None, 0

    def _rebuild(
        self, new: tuple[Cache, torch.Tensor, torch.Tensor | None, int] | None, rows: list[Row]
    ) -> None:
        parts = [] if new is None else [new]
        live = [i for i, row in enumerate(self.rows) if row is not None]
        if live:
            assert self._cache is not None and self._mask is not None
            index = None
            if len(live) < len(self.rows):
                index = torch.tensor(live, device=self._mask.device)
            # Columns that only rows now gone had filled are trimmed.
            width = max(row.length for row in self.live) - 1
            parts.insert(0, (self._cache, self._mask[:, : self._columns], index, width))
        columns = max(width for *_, width in parts)
        self._cache = _joined([(cache, index, width) for cache, _, index, width in parts], columns)
        masks = []
        for _, mask, index, width in parts:
            kept = mask[:, -width:] if index is None else mask[index][:, -width:]
            masks.append(torch.nn.functional.pad(kept, (columns - width, 0)))
        self._mask = _with_room(torch.cat(masks), columns)
        self._columns = columns
        self.rows = [*self.live, *rows]

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        places: torch.Tensor,
        cache: Cache | None,
    ) -> torch.Tensor:
        """Run the model; returns the logits after each row's last column."""
        kwargs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if "position_ids" in self._accepts:
            kwargs["position_ids"] = places
        if "logits_to_keep" in self._accepts:
            kwargs["logits_to_keep"] = 1
        output = self._model(**kwargs, past_key_values=cache, use_cache=cache is not None)
        logits: torch.Tensor = output.logits[:, -1]
        return logits


def _with_room(mask: torch.Tensor, columns: int) -> torch.Tensor:
    """The first ``columns`` of a mask, and room for more where every row attends."""
    kept = mask[:, :columns].to(torch.bool)
    return torch.nn.functional.pad(kept, (0, max(64, columns // 4)), value=True)


_WORTH = 256
"""Prompt tokens that a pass of its own over a common beginning has to save."""
_ROOM = 64
"""Columns of spare room added whenever a layer is copied anyway."""


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer: buffers with room to grow, and views of their first ``length`` columns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0
        self._buffers: list[torch.Tensor] = []
        """Of the keys and of the values."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new columns and return all keys and values."""
        start = self.length
        end = start + key_states.shape[-2]
        if not self._buffers:
            self.fill([(key_states, value_states)], end)
            return self.shown()
        if end > self._buffers[0].shape[-2]:
            self.fill([self.shown()], start, end)
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self._show(end)
        return self.shown()

    def shown(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return all keys and values."""
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def fill(
        self, parts: Sequence[tuple[torch.Tensor, torch.Tensor]], length: int, need: int = 0
    ) -> None:
        """Take the rows of ``parts`` (keys, values), right-aligned in ``length`` columns.

        There is room for ``need`` columns and some more.
        """
        keys, _ = parts[0]
        rows = sum(part[0].shape[0] for part in parts)
        need = max(need, length)
        room = need + max(_ROOM, need // 4)
        self._buffers = [
            like.new_zeros((rows, like.shape[1], room, like.shape[-1])) for like in parts[0]
        ]
        at = 0
        for part in parts:
            for buffer, new in zip(self._buffers, part, strict=True):
                buffer[at : at + len(new), :, length - new.shape[-2] : length] = new
            at += len(part[0])
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._show(length)

    def _show(self, length: int) -> None:
        self.length = length
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


class _RowCache(Cache):
    """The cache of one running batch."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_Layer)


def _joined(parts: Sequence[tuple[Cache, torch.Tensor | None, int]], length: int) -> _RowCache:
    """Return one cache of ``length`` columns from the rightmost columns of each part.

    Args:
        parts: (cache, row indices to keep or None for all, columns to keep). The caches are emptied
            layer by layer, so that no more than one layer is there twice.
        length: columns of the widest part.
    """
    joined = _RowCache()
    for index in range(len(parts[0][0].layers)):
        pieces = []
        for cache, rows, columns in parts:
            source, cache.layers[index] = cache.layers[index], _Layer()
            assert isinstance(source, _Layer)
            keys, values = (x[:, :, source.length - columns :] for x in source.shown())
            pieces.append((keys, values) if rows is None else (keys[rows], values[rows]))
        layer = _Layer()
        layer.fill(pieces, length)
        joined.layers.append(layer)
    return joined
