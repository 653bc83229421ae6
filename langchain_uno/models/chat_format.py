"""From chat messages to a prompt, through the model's own chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_uno.errors import ConfigError, EngineError
from langchain_uno.records import Message

__all__ = ["as_openai", "end_tokens", "render"]


def as_openai(messages: Sequence[Message], *, json_arguments: bool = False) -> list[dict[str, Any]]:
    """Return the messages as OpenAI-style dicts (what chat templates and servers take).

    Args:
        messages: the conversation.
        json_arguments: give tool-call arguments as JSON text (servers) instead of objects
            (chat templates).
    """
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
                        "arguments": (
                            json.dumps(call.get("args", {}), ensure_ascii=False)
                            if json_arguments
                            else call.get("args", {})
                        ),
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

    Raises:
        ConfigError: the model has no chat template.
        EngineError: the template refuses these messages (its own words are passed on).
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            f"The model {getattr(tokenizer, 'name_or_path', '')!r} has no chat template: choose an "
            "instruction-tuned model, or put a chat_template.jinja into its folder."
        )
    import jinja2

    try:
        text = tokenizer.apply_chat_template(
            as_openai(messages),
            tools=list(tools) or None,
            add_generation_prompt=True,
            tokenize=False,
            **dict(template_kwargs or {}),
        )
    except jinja2.exceptions.TemplateError as error:
        raise EngineError(f"The model's chat template refused the messages: {error}") from error
    return str(text)


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: the generation config's, the model's, the tokenizer's."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found.update([ids] if isinstance(ids, int) else ids or [])
    return frozenset(found)
