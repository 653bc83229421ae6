"""Tool calls at the bundled model's size: pick the tool that is asked for, copy its arguments."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from langchain_uno.demo.language import Language
from langchain_uno.records import Message

__all__ = ["tool_example"]

_VERBS = ("get", "find", "set", "check", "send", "open", "book", "count", "read", "make")
_THINGS = ("price", "date", "alarm", "order", "room", "file", "list", "map", "ticket", "note")
_ARGS = ("city", "item", "name", "place", "number", "amount", "key", "a", "b", "text", "user")


def tool_example(language: Language, rng: Random) -> tuple[list[Message], list[dict[str, Any]]]:
    """Return a conversation whose last turn calls the right tool, and the tools on offer."""
    tools = [_tool(language, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    tool = rng.choice(tools)
    fn = tool["function"]
    args: dict[str, Any] = {}
    for name, spec in fn["parameters"]["properties"].items():
        if spec["type"] == "integer":
            args[name] = rng.randint(1, 999)
        else:
            args[name] = language.name(rng, unseen=False)
    verb, thing = fn["description"].rstrip(".").lower().split(" the ", 1)
    said = " and ".join(f"{k} {v}" for k, v in args.items())
    ask = rng.choice(
        (
            "Please {verb} the {thing} with {said}.",
            "{Verb} the {thing} for {said}.",
            "Use the tool {name} with {said}.",
            "Call {name}: {said}.",
            "I want to {verb} the {thing}, {said}.",
        )
    ).format(verb=verb, Verb=verb.capitalize(), thing=thing, said=said, name=fn["name"])
    call = {"name": fn["name"], "args": args, "id": "call_0"}
    messages = [
        Message(role="user", content=ask),
        Message(role="assistant", content="", tool_calls=[call]),
    ]
    if rng.random() < 0.25:  # the tool answered: say its result
        value = language.fill(rng.choice(("{n}", "{name}", "{n} {name}")), rng, unseen=False)
        messages += [
            Message(role="tool", content=value, tool_call_id="call_0"),
            Message(role="assistant", content=f"The {thing} is {value}."),
        ]
    return messages, tools


def _tool(language: Language, rng: Random) -> dict[str, Any]:
    verb, thing = rng.choice(_VERBS), rng.choice(_THINGS)
    if rng.random() < 0.4:
        thing = language.name(rng, unseen=False).lower()
    names = rng.sample(_ARGS, rng.choice((1, 1, 2)))
    properties = {n: {"type": rng.choice(("string", "string", "integer"))} for n in names}
    parameters = {"type": "object", "properties": properties, "required": names}
    return {
        "type": "function",
        "function": {
            "name": f"{verb}_{thing}",
            "description": f"{verb.capitalize()} the {thing}.",
            "parameters": json.loads(json.dumps(parameters)),
        },
    }
