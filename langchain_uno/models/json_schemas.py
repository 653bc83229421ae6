"""JSON schemas as an answer's form, the same on every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["closed", "closed_tools"]


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
