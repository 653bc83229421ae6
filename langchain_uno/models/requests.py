"""From requests to rows: chat template, tokens, limits."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.models.chat_format import render
from langchain_uno.models.protocols import GenerateRequest, Generation
from langchain_uno.models.rows import Row
from langchain_uno.models.sampling import Constrainer
from langchain_uno.records import Message, Usage

__all__ = ["RowMaker"]


class RowMaker:
    """Turns requests into rows, on the callers' threads."""

    def __init__(
        self,
        tokenizer: Any,
        name: str,
        positions: int | None,
        template_kwargs: Mapping[str, Any],
        constrainer: Constrainer,
    ) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._positions = positions
        self._template_kwargs = template_kwargs
        self._constrainer = constrainer
        # Fast tokenizers keep padding state inside: two threads at once raise "Already borrowed".
        self._lock = threading.Lock()

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text as it is."""
        with self._lock:
            ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
    ) -> list[int]:
        """Return the tokens of a conversation, ending where the answer begins."""
        ids = self.encode(render(self._tokenizer, messages, tools, self._template_kwargs))
        if not ids:
            raise InputError("The prompt is empty: give at least one message.")
        return ids

    def generating(self, index: int, request: GenerateRequest) -> tuple[Row, Generation | None]:
        """Return the request's row, or with it the (empty) answer when there is no room for any."""
        prompt = self.prompt(request.messages, request.tools)
        sampling = request.sampling
        room = None if self._positions is None else self._positions - len(prompt)
        if sampling.max_tokens < 1 or (room is not None and room < 1):
            usage = Usage(input_tokens=len(prompt))
            return Row(index, prompt), Generation("", usage, finish_reason="length")
        if room is not None and sampling.max_tokens > room:
            sampling = replace(sampling, max_tokens=room)
        row = Row(
            index,
            prompt,
            adapter=request.adapter,
            sampling=sampling,
            constraint=self._constrainer(replace(request, sampling=sampling)),
            has_tools=bool(request.tools),
        )
        if sampling.stop:
            row.open_stream(self._tokenizer)
        return row, None

    def weighing(self, prompts: Sequence[Sequence[int]], options: Sequence[str]) -> list[Row]:
        """Return rows that weigh the options' first tokens after each prompt.

        Raises:
            InputError: two options begin with the same token, or a prompt is too long.
        """
        firsts = [self.encode(option)[0] for option in options]
        if len(set(firsts)) < len(firsts):
            raise InputError(f"The options {list(options)!r} begin with the same token.")
        for prompt in prompts:
            if self._positions is not None and len(prompt) > self._positions:
                raise InputError(
                    f"The prompt has {len(prompt)} tokens; the model {self._name!r} holds "
                    f"{self._positions}."
                )
        return [Row(i, list(p), options=firsts) for i, p in enumerate(prompts)]
