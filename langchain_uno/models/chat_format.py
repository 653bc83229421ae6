"""Between chat messages and a model's text, both ways.

From messages to a prompt goes through the model's own chat template; from tokens to text by
incremental decoding, with stop strings and tool calls found on the way. Schemas that tools and
answers must fit are closed here, the same on every engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from langchain_uno.errors import ConfigError, TemplateError
from langchain_uno.records import Message

__all__ = [
    "TextStream",
    "as_openai",
    "closed",
    "closed_tools",
    "end_tokens",
    "parse_tool_calls",
    "render",
]


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

    Some templates refuse a system message (Gemma, older Mistral models), leave out one that does
    not come first, or want user and assistant in turn. They get it in front of the next user turn,
    and turns of one role joined.

    Raises:
        ConfigError: the model has no chat template.
        TemplateError: the template refuses these messages (its own words are passed on).
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            f"The model {getattr(tokenizer, 'name_or_path', '')!r} has no chat template: choose an "
            "instruction-tuned model, or put a chat_template.jinja into its folder."
        )
    import jinja2

    def apply(given: Sequence[Message]) -> str:
        text = tokenizer.apply_chat_template(
            as_openai(given),
            tools=list(tools) or None,
            add_generation_prompt=True,
            tokenize=False,
            **dict(template_kwargs or {}),
        )
        return str(text)

    refused = None
    try:
        text = apply(messages)
        if all(m.content.strip() in text for m in messages if m.role == "system"):
            return text
    except jinja2.exceptions.TemplateError as error:
        refused = error
    try:
        return apply(_in_turn(messages))
    except jinja2.exceptions.TemplateError as error:
        said = refused or error
        raise TemplateError(f"The model's chat template refused the messages: {said}") from error


def _in_turn(messages: Sequence[Message]) -> list[Message]:
    """System messages become the beginning of the next user turn; neighbours of a role are one."""
    out: list[Message] = []
    for message in messages:
        role = "user" if message.role == "system" else message.role
        last = out[-1] if out else None
        joins = last is not None and last.role == role and role != "tool"
        if last is not None and joins and not (last.tool_calls or message.tool_calls):
            text = f"{last.content}\n\n{message.content}"
            out[-1] = last.model_copy(update={"content": text})
        else:
            out.append(message.model_copy(update={"role": role}))
    return out


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
    longest = 0
    for mark in marks:
        for size in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:size]):
                longest = size
                break
    return longest


def parse_tool_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """Split ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` blocks off an answer.

    Returns:
        The text without them, and ``[{"name", "args", "id"}]``. A block that is not of this form
        stays in the text as it is.
    """
    calls: list[dict[str, Any]] = []

    def take(match: re.Match[str]) -> str:
        try:
            found = json.loads(match.group(1))
        except json.JSONDecodeError:
            return match.group(0)
        name, args = found.get("name"), found.get("arguments", found.get("parameters", {}))
        if isinstance(args, str):
            try:
                args = json.loads(args)
            except json.JSONDecodeError:
                return match.group(0)
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
