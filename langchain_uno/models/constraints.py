"""Answers that must have a form: JSON of a schema, or calls of the tools that were offered.

The grammar is llguidance's (https://github.com/guidance-ai/llguidance): at each step it names the
tokens that can still lead to a valid answer, and the engine picks among those. What the model wants
to say stays the model's; that it parses is certain, at every limit that has room for a short one.

>>> constrain = grammar_constrainer(tokenizer, end_tokens)
>>> constrain(GenerateRequest(messages, json_schema={"type": "object", ...}))

A free answer with tools (``tool_choice="auto"``) is bound only from ``<tool_call>`` on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from langchain_uno.errors import EngineError, InputError
from langchain_uno.models.chat_format import closed
from langchain_uno.models.protocols import GenerateRequest
from langchain_uno.models.sampling import Constrainer, TokenConstraint

if TYPE_CHECKING:
    from llguidance import LLMatcher

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
    return f"start: {_json(request.json_schema)}\n" if request.json_schema is not None else None


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
    """A tokenizer as the grammar sees it: the bytes of its tokens, and which lead out soonest."""

    def __init__(self, tokenizer: Any, end_tokens: frozenset[int]) -> None:
        import llguidance.hf

        self.ends = end_tokens or frozenset([tokenizer.eos_token_id])
        try:
            table = llguidance.hf.from_tokenizer(tokenizer, eos_token=sorted(self.ends))
        except ValueError as error:
            raise EngineError(
                f"The tokenizer of {getattr(tokenizer, 'name_or_path', '')!r} can't be used for "
                f"answers of a given form ({str(error)[:200]}): ask without tools and schemas, or "
                "take a model with a byte-level or SentencePiece tokenizer."
            ) from error
        self.table = table
        self.size = int(table.vocab_size)
        self.marks = {"<tool_call>", "</tool_call>"} <= set(tokenizer.get_added_vocab())
        pieces = [table.decode_bytes([i]) for i in range(self.size)]
        special = {i for i in range(self.size) if table.is_special_token(i)} | self.ends
        texts = [i for i in range(self.size) if pieces[i] and i not in special]

        def closing(marks: bytes) -> list[int]:
            found = [i for i in texts if not pieces[i].strip(marks)]
            return sorted(found, key=lambda i: -len(pieces[i]))

        ends = [*self.ends, *(i for i in special if pieces[i] == b"</tool_call>")]
        brackets = closing(b"}]")
        quotes = [i for i in closing(b'"}]') if pieces[i].startswith(b'"')]
        # Tokens of one byte can write whatever must be written; what opens comes last.
        signs = [i for i in texts if len(pieces[i]) == 1 and pieces[i] not in (b"{", b"[")]
        signs.sort(key=lambda i: (pieces[i] == b"-", pieces[i]))
        known = {*ends, *brackets, *quotes, *signs}
        others = sorted({*range(self.size)} - known, key=lambda i: len(pieces[i]))
        # A comma ends a number after which more has to come.
        commas = [i for i in signs if pieces[i] == b","]
        self._in_text = np.array([i for i in signs if pieces[i] == b"~"], int)
        """Allowed in strings only."""
        self._outside = np.array([*ends, *brackets, *closing(b'"'), *commas], int)
        self._inside = np.array([*ends, *quotes], int)
        self._signs, self._others = np.array(signs, int), np.array(others, int)

    def allowed(self, matcher: LLMatcher) -> BoolArray:
        """Which tokens may come next."""
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        return np.unpackbits(bits, bitorder="little")[: self.size].astype(bool)

    def way_out(self, matcher: LLMatcher, room: int) -> list[int] | None:
        """Return tokens that end the answer from here, at most ``room``; None: none were found."""
        ahead, way = matcher.deep_copy(), list[int]()
        used: Counter[int] = Counter()
        while len(way) < room:
            if forced := ahead.compute_ff_tokens():
                way += forced
                ahead.consume_tokens(forced)
                continue
            allowed = self.allowed(ahead)
            closers = self._inside if allowed[self._in_text].any() else self._outside
            found = closers[allowed[closers]][:1]
            for group in (self._signs, self._others):
                found = found if len(found) else group[allowed[group]]
            if not len(found):
                return None
            # What was written least leads out of a pattern's loops.
            token = min(found.tolist(), key=lambda i: used[i])
            way.append(token)
            if token in self.ends:
                return way
            used[token] += 1
            ahead.consume_token(token)
        return None


_TRIES = 8
"""Tokens that may turn out too long at one place before the shortest way out is taken."""


class _Grammar:
    """One answer's way through a grammar: :class:`~langchain_uno.models.sampling.TokenConstraint`.

    It always knows tokens that end the answer from where it is. A token after which they would not
    fit into the room that is left is refused.
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
        self._way = vocabulary.way_out(self._matcher, room)
        """None where no answer of this form fits: it is cut off then."""
        self._refused: list[int] = []

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Forbid every token that the grammar does not allow now."""
        wide = np.zeros(logits.shape[-1], bool)  # a model's table may be wider than its tokenizer's
        if self._way and (len(self._refused) >= _TRIES or len(self._way) >= self._left):
            wide[self._way[0]] = True
        else:
            allowed = self._vocabulary.allowed(self._matcher)[: len(wide)]
            wide[: len(allowed)] = allowed
            wide[self._refused] = False
        return logits.masked_fill(torch.from_numpy(~wide).to(logits.device), float("-inf"))

    def accept(self, token: int) -> bool:
        """Advance by the token that was picked; False: with it the answer could not be ended."""
        if not self._matcher.consume_token(token):
            raise EngineError(f"The answer left its form: {self._matcher.get_error()[:300]}")
        if self._way is not None:
            way = self._way_after(token)
            if way is None:
                self._matcher.rollback(1)
                self._refused.append(token)
                return False
            self._way = way
        self._left -= 1
        self._refused.clear()
        return True

    def _way_after(self, token: int) -> list[int] | None:
        assert self._way is not None
        way, left = self._way, self._left - 1
        if token in self._vocabulary.ends or token == way[0]:
            return way[1:]
        if len(way) <= left and self._matcher.validate_tokens(way) == len(way):
            return way
        return self._vocabulary.way_out(self._matcher, left)
