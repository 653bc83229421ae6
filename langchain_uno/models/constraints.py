"""Answers that must have a form: JSON of a schema, or calls of the tools that were offered.

The grammar is llguidance's (https://github.com/guidance-ai/llguidance): at each step it names the
tokens that can still lead to a valid answer, and the engine picks among those. What the model wants
to say stays the model's; that it parses is certain, also when it runs out of room.

>>> constrain = grammar_constrainer(tokenizer, end_tokens)
>>> constrain(GenerateRequest(messages, json_schema={"type": "object", ...}))

A free answer with tools (``tool_choice="auto"``) is bound only from ``<tool_call>`` on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langchain_uno.errors import EngineError, InputError
from langchain_uno.models.chat_format import closed
from langchain_uno.models.protocols import GenerateRequest
from langchain_uno.models.sampling import Constrainer, TokenConstraint

__all__ = ["grammar_constrainer", "grammar_of"]

BoolArray = NDArray[np.bool_]

_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As chat templates print it (``tojson``): one way to write each value, so no loops of blanks."""


_LARGEST = 9 * 10**18
"""Of a whole number: ids of 64 bits fit, and it is the most that llguidance takes."""


def grammar_of(request: GenerateRequest, *, marks: bool) -> str | None:
    """Return the request's grammar in llguidance's Lark, or None when any text will do.

    With tools, ``tool_choice`` decides: ``"auto"`` is text in which each ``<tool_call>`` is one;
    ``"required"`` one call or more; a tool's name exactly one of that tool. A ``json_schema`` binds
    the whole answer; with tools beside it (and no choice) the answer is calls or such JSON.

    Args:
        request: what was asked for.
        marks: whether ``<tool_call>`` and ``</tool_call>`` are tokens of their own.
    """
    if request.tools:
        return _calls(request.tools, request.tool_choice, request.json_schema, marks)
    if request.json_schema is not None:
        return f"start: {_json(request.json_schema)}\n"
    return None


def _calls(
    tools: Sequence[dict[str, Any]], choice: str, schema: dict[str, Any] | None, marks: bool
) -> str:
    functions = [tool.get("function", tool) for tool in tools]
    if choice not in ("auto", "required"):
        functions = [f for f in functions if f["name"] == choice]
    opened, closed = (
        ("<tool_call>", "</tool_call>") if marks else ('"<tool_call>"', '"</tool_call>"')
    )
    several = f"{opened} call (gap {opened} call)*"
    free = choice == "auto" and schema is None
    start = {"required": several, "auto": "(lead call)* TEXT" if free else f"{several} | final"}
    names = [f"tool_{i}" for i in range(len(functions))]
    lines = [
        f"start: {start.get(choice, f'{opened} call')}",
        f"call: gap ( {' | '.join(names)} ) gap {closed}",
        'gap: "\\n"?',
    ]
    if choice == "auto" and schema is not None:
        lines.append(f"final: {_json(schema)}")
    if free:
        # A lazy lexeme ends at the first mark; where the mark is a token, it can't be text.
        lead = f"lead: TEXT {opened}" if marks else f"lead[lazy]: TEXT {opened}"
        lines += [lead, r"TEXT: /(.|\n)*/"]
    for name, function in zip(names, functions, strict=True):
        head = json.dumps(f'{{"name": {json.dumps(function["name"])}, "arguments": ')
        arguments = function.get("parameters") or {"type": "object", "properties": {}}
        lines.append(f'{name}: {head} {_json(arguments)} "}}"')
    return "\n".join(lines) + "\n"


def _json(schema: dict[str, Any]) -> str:
    # Lenient: a keyword that the grammar has no form for is left to whoever validates the value.
    form = _ending(closed(schema))
    return "%json " + json.dumps({**form, "x-guidance": {**_JSON, "lenient": True}})


def _ending(schema: Any) -> Any:
    """Bound whole numbers that the schema leaves open: digits of nothing else would go on."""
    if isinstance(schema, list):
        return [_ending(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    form = {
        key: value if key in ("const", "enum", "default", "examples") else _ending(value)
        for key, value in schema.items()
    }
    kinds = schema.get("type")
    whole = "integer" in kinds and "number" not in kinds if isinstance(kinds, str | list) else False
    if whole and not {"const", "enum"} & schema.keys():
        for side, bound in (("Minimum", -_LARGEST), ("Maximum", _LARGEST)):
            if f"exclusive{side}" not in schema:
                form.setdefault(side.lower(), bound)
    return form


def grammar_constrainer(tokenizer: Any, end_tokens: frozenset[int]) -> Constrainer:
    """Return the hook that :class:`~langchain_uno.models.local.LocalEngine` takes.

    Args:
        tokenizer: a fast tokenizer; its table is built at the first request that needs it (about
            a second for 150,000 tokens).
        end_tokens: tokens that end an answer.
    """

    @cache
    def vocabulary() -> _Vocabulary:
        return _Vocabulary(tokenizer, end_tokens)

    def constrain(request: GenerateRequest) -> TokenConstraint | None:
        if not request.tools and request.json_schema is None:
            return None
        grammar = grammar_of(request, marks=vocabulary().marks)
        assert grammar is not None
        return _Grammar(vocabulary(), grammar, request.sampling.max_tokens)

    return constrain


class _Vocabulary:
    """A tokenizer as the grammar sees it, and the tokens that close what is open."""

    def __init__(self, tokenizer: Any, end_tokens: frozenset[int]) -> None:
        import llguidance.hf

        ends = sorted(end_tokens) or [tokenizer.eos_token_id]
        self.table = llguidance.hf.from_tokenizer(tokenizer, eos_token=ends)
        self.size = int(self.table.vocab_size)
        added = set(tokenizer.get_added_vocab())
        self.marks = {"<tool_call>", "</tool_call>"} <= added
        whole = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        texts = [text.strip() for text in whole]
        self.quotes = self._where(i for i, t in enumerate(texts) if t and not t.strip('"}]'))
        self.quotes &= self._where(i for i, t in enumerate(texts) if t.startswith('"'))
        self.brackets = self._where(i for i, t in enumerate(texts) if t and not t.strip("}]"))
        self.brackets |= self._where(ends)
        self.brackets |= self._where(i for i, t in enumerate(texts) if t == "</tool_call>")
        self.commas = self._where(i for i, t in enumerate(texts) if t == ",")
        # Nothing but the letter: a tab before it, say, is allowed in no string.
        self.letters = [i for i, text in enumerate(whole) if text in ("e", "z")]
        self.opened = [sum(map(t.count, "[{")) - sum(map(t.count, "]}")) for t in texts]

    def _where(self, tokens: Iterable[int]) -> BoolArray:
        found = np.zeros(self.size, bool)
        found[list(tokens)] = True
        return found

    def closing(self, allowed: BoolArray) -> BoolArray:
        """Of the allowed tokens, those that end what is open soonest; all when none does."""
        in_string = bool(self.letters and allowed[self.letters].all())
        # A comma ends a number after which more has to come.
        order = [self.quotes] if in_string else [self.brackets, self.quotes, self.commas]
        for kind in order:
            if (allowed & kind).any():
                return allowed & kind
        return allowed


class _Grammar:
    """One answer's way through a grammar: :class:`~langchain_uno.models.sampling.TokenConstraint`.

    When little room is left, strings, lists and objects are closed as soon as the grammar allows.
    """

    def __init__(self, vocabulary: _Vocabulary, grammar: str, room: int) -> None:
        from llguidance import LLMatcher

        self._vocabulary = vocabulary
        self._matcher = LLMatcher(vocabulary.table, grammar, log_level=0)
        if self._matcher.is_error():
            # The first line says what; the rest is the library's own state.
            said = self._matcher.get_error().splitlines()[0][:300]
            raise InputError(f"No answer can be given this form: {said}")
        self._left = room
        self._reserve = min(room // 2, 16 + len(grammar) // 3)
        self._opened = 0
        self._free = "TEXT" in grammar

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Forbid every token that the grammar does not allow now."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocabulary.size].astype(bool)
        if self._left <= self._reserve + self._opened and not self._free:
            allowed = self._vocabulary.closing(allowed)
        wide = np.zeros(logits.shape[-1], bool)  # a model's table may be wider than its tokenizer's
        wide[: len(allowed)] = allowed[: len(wide)]
        return logits.masked_fill(torch.from_numpy(~wide).to(logits.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Advance by the token that was picked."""
        self._left -= 1
        if token < len(self._vocabulary.opened):
            self._opened = max(0, self._opened + self._vocabulary.opened[token])
        if not self._matcher.consume_token(token):
            raise EngineError(f"The answer left its form: {self._matcher.get_error()[:300]}")
