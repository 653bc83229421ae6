"""Between chat messages and a model's text, both ways.

From messages to a prompt goes through the model's own chat template; from tokens to text by
incremental decoding, with stop strings and tool calls found on the way. Schemas that tools and
answers must fit are closed here, the same on every engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from jinja2.exceptions import TemplateError as TemplateFault

from langchain_uno.errors import ConfigError, TemplateError
from langchain_uno.messages import json_of
from langchain_uno.records import Message


def as_openai(messages: Sequence[Message], *, json_arguments: bool = False) -> list[dict[str, Any]]:
    """Return the messages as OpenAI-style dicts (what chat templates and servers take).

    Args:
        messages: the conversation.
        json_arguments: give tool-call arguments as JSON text (servers) instead of objects
            (chat templates).
    """

    def arguments(args: Any) -> Any:
        return json.dumps(args, ensure_ascii=False) if json_arguments else args

    out: list[dict[str, Any]] = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.name:
            row["name"] = message.name
        if message.tool_call_id:
            row["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            row["tool_calls"] = [
                {
                    "id": call.get("id") or "",
                    "type": "function",
                    "function": {
                        "name": call["name"],
                        "arguments": arguments(call.get("args", {})),
                    },
                }
                for call in message.tool_calls
            ]
        out.append(row)
    return out


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    template_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """Return the prompt text, ending where the answer begins.

    What a template can't say (:func:`refused_by`; Gemma takes no system message, older Mistral
    models want user and assistant in turn) is found out once a tokenizer, and said in another way
    (:func:`in_turn`). Vision models whose template reads content as a list of parts get it so.

    Raises:
        ConfigError: the model has no chat template.
        TemplateError: the template refuses these messages (its own words are passed on), or leaves
            out what a user says.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise ConfigError(
            f"The model {getattr(tokenizer, 'name_or_path', '')!r} has no chat template: choose an "
            "instruction-tuned model, or put a chat_template.jinja into its folder."
        )

    def apply(rows: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]] = tools) -> str:
        try:
            text = tokenizer.apply_chat_template(
                [_in_parts(row) for row in rows] if in_parts else rows,
                tools=list(tools) or None,
                add_generation_prompt=True,
                tokenize=False,
                **dict(template_kwargs or {}),
            )
        except (TemplateFault, TypeError, ValueError, LookupError, AttributeError) as error:
            raise TemplateError(
                f"The model's chat template refused the messages: {error}"
            ) from error
        return str(text)

    def takes(turns: Sequence[Message]) -> bool:
        with suppress(TemplateError):
            text = apply(as_openai(turns), ())
            calls = [call["name"] for turn in turns for call in turn.tool_calls]
            return all(part in text for part in (*calls, *(turn.content for turn in turns)))
        return False

    known, in_parts, refused = _refused.get(tokenizer, (None, False, None))
    if known != template:
        for in_parts in (False, True):  # noqa: B007 (apply and takes read it)
            if (refused := refused_by(takes)) is not None:
                break
        if refused is not None:
            _refused[tokenizer] = (template, in_parts, refused)
    if refused is None:
        in_parts = False
        apply(as_openai(messages))  # raises the template's own words, if it has any
        raise TemplateError(
            f"The chat template of {getattr(tokenizer, 'name_or_path', '')!r} leaves out what a "
            "user says: mend the chat_template.jinja in the model's folder."
        )
    rows = as_openai(messages)
    for more in (frozenset[str](), frozenset(["tool"])):
        with suppress(TemplateError):
            return apply(in_turn(rows, refused | more))
    return apply(in_turn(rows, _PROBES.keys()))


_PROBES = {
    "system": ("system", "user"),
    "late": ("user", "assistant", "system", "user"),
    "repeats": ("user", "user"),
    "greeting": ("assistant", "user"),
    "tool": ("user", "call", "tool"),
}
"""What a template or a server may refuse, each as a small conversation of these roles."""
_refused: WeakKeyDictionary[Any, tuple[Any, bool, frozenset[str]]] = WeakKeyDictionary()
"""Of a tokenizer: its template, whether that wants content in parts, and what it refuses."""


def _in_parts(row: dict[str, Any]) -> dict[str, Any]:
    text = row["content"]
    return {**row, "content": [{"type": "text", "text": text}] if text else []}


def refused_by(takes: Callable[[Sequence[Message]], bool]) -> frozenset[str] | None:
    """Return what can't be said to a model; None: it takes nothing at all.

    It is a system message (``"system"``), one that does not come first (``"late"``), two turns of
    one role (``"repeats"``), an assistant's turn at the beginning (``"greeting"``), or calls of
    tools and their results (``"tool"``).

    Args:
        takes: whether a conversation is taken.
    """
    call = [{"name": "turn1", "args": {}, "id": "turn1call"}]  # Mistral's ids have nine letters
    made = {
        "call": Message(role="assistant", content="", tool_calls=call),
        "tool": Message(role="tool", content="turn two", name="turn1", tool_call_id="turn1call"),
    }

    def refuses(*roles: Any) -> bool:
        turns = [
            made.get(role) or Message(role=role, content=f"turn {i}")
            for i, role in enumerate(roles)
        ]
        return not takes(turns)

    if refuses("user"):
        return None
    return frozenset(name for name, roles in _PROBES.items() if refuses(*roles))


def in_turn(rows: Sequence[dict[str, Any]], refused: Collection[str]) -> list[dict[str, Any]]:
    """Return a conversation as a model takes it that refuses some things (:func:`refused_by`).

    A system message becomes the beginning of the next user turn, neighbours of one role are joined,
    a call and its result are told as text, and an empty user turn comes before a greeting.
    """
    out: list[dict[str, Any]] = []
    moved = False
    for row in rows:
        role, text, calls = row["role"], row["content"], row.get("tool_calls") or []
        if role == "system" and ("system" in refused or (out and "late" in refused)):
            role = "user"
        if role == "tool" and "tool" in refused:
            role, text = "user", f"<tool_response>\n{text}\n</tool_response>"
        if calls and "tool" in refused:
            told = [_told_call(call["function"]) for call in calls]
            text, calls = "\n".join([text, *told] if text else told), []
        if not out and role == "assistant" and "greeting" in refused:
            out.append({"role": "user", "content": ""})
        here, before = role != row["role"], out[-1] if out else {}
        joins = before.get("role") == role != "tool" and not (calls or before.get("tool_calls"))
        if joins and (here or moved or "repeats" in refused):
            texts = [before["content"], text]
            out[-1] = {**before, "content": "\n\n".join(filter(None, texts))}
        elif here or len(calls) < len(row.get("tool_calls") or []):
            out.append({"role": role, "content": text})
        else:
            out.append(row)
        moved = here
    return out


def _told_call(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    name = json.dumps(function["name"], ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: the generation config's, the model's, the tokenizer's."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found.update([ids] if isinstance(ids, int) else ids or [])
    return frozenset(found)


_CALL = "<tool_call>"
_CALLS = re.compile(r"<tool_call>\s*(\{.*?\})\s*(?:</tool_call>|\Z)", re.DOTALL)


class TextStream:
    """Decodes one answer while it grows.

    ``push`` returns the text that is certain by now: never half a character, never text that may
    yet turn out to be a stop string, and nothing of a tool call when tools were given.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), hold_calls: bool = False) -> None:
        self._tokenizer = tokenizer
        self._stop = [s for s in stop if s]
        self._hold_calls = hold_calls
        self._tokens: list[int] = []
        self._context = 0
        self._done = 0
        self.text = ""
        """Everything decoded so far, cut before the stop string if one was met."""
        self._sent = 0
        self.stopped = False

    def push(self, token: int) -> str:
        """Take one token; return the text that can be shown now (often empty)."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._context : self._done])
        now = self._decode(self._tokens[self._context :])
        if len(now) > len(before) and not now.endswith("\ufffd"):
            self._add(now[len(before) :])
        return self._release(final=False)

    def finish(self) -> str:
        """Return what was still held back (an unfinished character shows as U+FFFD)."""
        if not self.stopped:
            before = self._decode(self._tokens[self._context : self._done])
            self._add(self._decode(self._tokens[self._context :])[len(before) :])
        return self._release(final=True)

    def _add(self, new: str) -> None:
        searched = max(0, len(self.text) - max((len(s) for s in self._stop), default=0))
        self.text += new
        # The window starts where the text was last complete: never inside a character.
        self._context, self._done = self._done, len(self._tokens)
        hits = [at for s in self._stop if (at := self.text.find(s, searched)) >= 0]
        if hits:
            self.text, self.stopped = self.text[: min(hits)], True

    def _release(self, final: bool) -> str:
        end = len(self.text)
        if self._hold_calls and (call := self.text.find(_CALL)) >= 0:
            end = call
        if not final and not self.stopped:
            held = [*self._stop, _CALL] if self._hold_calls else self._stop
            end = min(end, len(self.text) - _open_prefix(self.text, held))
        piece = self.text[self._sent : end]
        self._sent = max(self._sent, end)
        return piece

    def _decode(self, tokens: list[int]) -> str:
        if not tokens:
            return ""
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _open_prefix(text: str, marks: Sequence[str]) -> int:
    """The length of the longest end of ``text`` that begins one of the marks."""
    sizes = (size for mark in marks for size in range(1, len(mark)) if text.endswith(mark[:size]))
    return max(sizes, default=0)


def parse_tool_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """Split ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` blocks off an answer.

    Returns:
        The text without them, and ``[{"name", "args", "id"}]``. A block that is not of this form
        stays in the text as it is.
    """
    calls: list[dict[str, Any]] = []

    def take(match: re.Match[str]) -> str:
        found = json_of(match.group(1), {})
        name, args = found.get("name"), found.get("arguments", found.get("parameters", {}))
        if isinstance(args, str):
            args = json_of(args)
        if not isinstance(name, str) or not isinstance(args, dict):
            return match.group(0)
        calls.append({"name": name, "args": args, "id": f"call_{uuid4().hex[:24]}"})
        return ""

    rest = _CALLS.sub(take, text)
    return (rest.strip() if calls else text), calls


def closed(schema: Any) -> Any:
    """Forbid properties that an object's schema does not name, unless it says that they may be.

    JSON Schema allows them; who lists properties wants those. Under ``allOf`` the parts complete
    each other, so nothing is forbidden there.
    """
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    shut = {
        key: value if key in ("allOf", "const", "enum", "default", "examples") else closed(value)
        for key, value in schema.items()
    }
    is_object = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if is_object and not {"patternProperties", "allOf"} & schema.keys():
        shut.setdefault("additionalProperties", False)
    return shut


def closed_tools(tools: Sequence[dict[str, Any]], *, strict: bool) -> list[dict[str, Any]]:
    """Return tools in OpenAI's form, closed; a tool without a schema takes no arguments.

    Args:
        tools: in OpenAI's form.
        strict: say that the arguments must fit (vLLM enforces any schema then; others may refuse
            schemas with optional properties).
    """
    out = []
    for tool in tools:
        function = dict(tool.get("function", tool))
        function["parameters"] = closed(
            function.get("parameters") or {"type": "object", "properties": {}}
        )
        if strict:
            function["strict"] = True
        out.append({"type": "function", "function": function})
    return out
