"""Requests on their way through the local engine: rows of a batch, and the calls they are of."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.forks import ForkLock
from langchain_uno.models.chat_format import TextStream, parse_tool_calls, render
from langchain_uno.models.protocols import Chunk, GenerateRequest, Generation, Sampling
from langchain_uno.models.sampling import Constrainer, Picker, TokenConstraint
from langchain_uno.records import Message, Usage


@dataclass(eq=False)
class Row:
    """One prompt and what is made of it. Touched by the owner thread once it is submitted."""

    index: int
    prompt: list[int]
    adapter: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    options: list[int] | None = None
    """Token ids to weigh after the prompt; such a row is done after its prompt."""
    constraint: TokenConstraint | None = None
    has_tools: bool = False
    tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stream: TextStream | None = None
    call: Call = field(init=False)
    """Which it is a row of."""

    def __post_init__(self) -> None:
        """Make the row's source of randomness."""
        self.picker = Picker(self.sampling, self.constraint)

    @property
    def so_far(self) -> list[int]:
        """The prompt and what was made of it: what a row that has no cache begins with."""
        return [*self.prompt, *self.tokens]

    @property
    def length(self) -> int:
        """Positions that the row fills in the cache after its next pass."""
        return len(self.prompt) + len(self.tokens)

    def open_stream(self, tokenizer: Any) -> None:
        """Decode while generating (streaming, or stop strings to look for)."""
        self.stream = TextStream(tokenizer, self.sampling.stop, hold_calls=self.has_tools)

    def take(self, token: int, end_tokens: frozenset[int]) -> str:
        """Add one token; sets ``finish_reason`` when it is the last. Returns text to show."""
        if token in end_tokens:
            self.finish_reason = "stop"
            self.tokens.append(token)
            return ""
        self.tokens.append(token)
        piece = self.stream.push(token) if self.stream is not None else ""
        if self.stream is not None and self.stream.stopped:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.sampling.max_tokens:
            self.finish_reason = "length"
        return piece

    def generation(self, tokenizer: Any, end_tokens: frozenset[int]) -> Generation:
        """Return the finished answer."""
        if self.stream is not None:
            text = self.stream.text
        else:
            ids = self.tokens[:-1] if self.tokens and self.tokens[-1] in end_tokens else self.tokens
            text = tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        calls: list[dict[str, Any]] = []
        reason = self.finish_reason or "cancelled"
        if self.has_tools:
            text, calls = parse_tool_calls(text)
            if calls and reason == "stop":
                reason = "tool_calls"
        usage = Usage(input_tokens=len(self.prompt), output_tokens=len(self.tokens))
        return Generation(text=text, usage=usage, finish_reason=reason, tool_calls=calls)


@dataclass(eq=False)
class Call:
    """The rows of one call; the scheduler takes rows from calls in turn, so none starves.

    ``deliver(row, result)`` is called by the owner thread for each finished row, ``fail(error)``
    once when the call can't go on, ``show(chunk)`` for streamed pieces.
    """

    rows: InitVar[list[Row]]
    deliver: Callable[[Row, Any], None]
    fail: Callable[[BaseException], None]
    show: Callable[[Chunk], None] | None = None
    cancelled: bool = False

    def __post_init__(self, rows: list[Row]) -> None:
        """Let the rows know whose they are."""
        self.waiting = deque(rows)
        for row in rows:
            row.call = self


def tell(loop: asyncio.AbstractEventLoop, put: Callable[[Any], object], item: Any) -> None:
    """Hand an item to an event loop that may have closed meanwhile (its caller is gone then)."""
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(put, item)
        except RuntimeError:
            return


@dataclass(frozen=True)
class RowMaker:
    """Turns requests into rows, on the callers' threads."""

    tokenizer: Any
    name: str
    positions: int | None
    """What the model holds; None: nobody knows."""
    template_kwargs: Mapping[str, Any]
    constrainer: Constrainer
    # Fast tokenizers keep padding state inside: two threads at once raise "Already borrowed".
    lock: ForkLock = field(default_factory=lambda: ForkLock(wait=True))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text as it is."""
        with self.lock:
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
    ) -> list[int]:
        """Return the tokens of a conversation, ending where the answer begins."""
        ids = self.encode(render(self.tokenizer, messages, tools, self.template_kwargs))
        if not ids:
            raise InputError("The prompt is empty: give at least one message.")
        return ids

    def room(self, request: GenerateRequest) -> tuple[list[int], Sampling | None]:
        """Return a request's prompt, and its sampling within what is held; None: no room."""
        prompt, sampling = self.prompt(request.messages, request.tools), request.sampling
        most = sampling.max_tokens
        if self.positions is not None:
            most = min(most, self.positions - len(prompt))
        return prompt, replace(sampling, max_tokens=most) if most >= 1 else None

    def no_room(self, prompt: Sequence[int]) -> Generation:
        """Return the empty answer to a prompt that leaves no room for one."""
        return Generation("", Usage(input_tokens=len(prompt)), finish_reason="length")

    def generating(self, index: int, request: GenerateRequest) -> tuple[Row, Generation | None]:
        """Return the request's row, or with it the (empty) answer when there is no room for any."""
        prompt, sampling = self.room(request)
        if sampling is None:
            return Row(index, prompt), self.no_room(prompt)
        row = Row(
            index,
            prompt,
            adapter=request.adapter,
            sampling=sampling,
            constraint=self.constrainer(replace(request, sampling=sampling)),
            has_tools=bool(request.tools),
        )
        if sampling.stop:
            row.open_stream(self.tokenizer)
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
            if self.positions is not None and len(prompt) > self.positions:
                raise InputError(
                    f"The prompt has {len(prompt)} tokens; the model {self.name!r} holds "
                    f"{self.positions}."
                )
        return [Row(i, list(p), options=firsts) for i, p in enumerate(prompts)]
