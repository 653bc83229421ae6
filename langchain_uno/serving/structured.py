"""Settings, tools and structured output: from LangChain's forms to an engine's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Annotated, Any, Literal

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, TypeAdapter, ValidationError

from langchain_uno.errors import InputError, reason_of

Method = Literal["json_schema", "function_calling", "json_mode"]

ANY_JSON = {"type": "object"}
"""The schema of ``json_mode``: any JSON object."""


def checked(of: type[BaseModel], name: str, value: Any) -> Any:
    """Return a call's setting as the field of a model takes it.

    Raises:
        InputError: the model could not have been made with it.
    """
    try:
        return _form_of(of, name).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{name}={value!r}: {reason_of(error)}.") from None


@cache
def _form_of(of: type[BaseModel], name: str) -> TypeAdapter[Any]:
    field = of.model_fields[name]
    form: Any = Annotated[field.annotation, field]
    return TypeAdapter(form)


def offer(
    tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
    choice: str | dict[str, Any] | bool | None,
    parallel: bool = True,
) -> tuple[list[dict[str, Any]], str]:
    """Return the tools in OpenAI's form, and the choice as engines take it.

    Args:
        tools: anything that LangChain can turn into an OpenAI tool.
        choice: None, ``"auto"``; ``"none"``: no tools; ``"any"``, ``"required"``, True: at least
            one call; a tool's name, or OpenAI's object that names one: one call of that tool.
        parallel: whether a required answer may hold several calls.

    Raises:
        InputError: the choice names none of the tools, or one is no function.
    """
    offered = [_function_of(tool) for tool in tools]
    name: Any = choice
    if isinstance(choice, Mapping):
        name = choice.get("function", choice).get("name") or choice.get("type")
    if name == "none" or not offered:
        return [], "auto"
    if name in (None, False, "auto"):
        return offered, "auto"
    names = [tool["function"]["name"] for tool in offered]
    if name is True or name in ("any", "required"):
        # One tool and one call: its name says just that.
        return offered, "required" if parallel or len(names) > 1 else names[0]
    if name not in names:
        raise InputError(f"tool_choice names {name!r}, which is none of the tools given.")
    return offered, str(name)


def _function_of(tool: Any) -> dict[str, Any]:
    try:
        found = convert_to_openai_tool(tool)
    except (TypeError, ValueError) as error:
        raise InputError(f"This is no tool: {str(tool)[:80]!r}.") from error
    if found.get("type") == "function" and "name" in found:  # as OpenAI's Responses API has it
        return {"type": "function", "function": {k: v for k, v in found.items() if k != "type"}}
    if "function" not in found:
        raise InputError(
            f"{found.get('type')!r} is a tool that its provider runs: this model calls functions."
        )
    return found


def json_schema_of(
    json_schema: dict[str, Any] | None, response_format: Any
) -> dict[str, Any] | None:
    """Return the schema of a request's answer, from ours or OpenAI's way to say it.

    Args:
        json_schema: the schema itself.
        response_format: OpenAI's ``{"type": "json_schema", "json_schema": {"schema": ...}}`` or
            ``{"type": "json_object"}``; a pydantic class or any schema that LangChain knows.

    Raises:
        InputError: a response format of another kind.
    """
    if json_schema is not None or response_format is None:
        return json_schema
    if not isinstance(response_format, Mapping):
        return schema_of(response_format)
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return dict(ANY_JSON)
    if kind == "json_schema" and isinstance(response_format.get("json_schema"), Mapping):
        return dict(response_format["json_schema"].get("schema") or ANY_JSON)
    raise InputError(f"response_format {kind!r} is none of 'json_schema', 'json_object', 'text'.")


def schema_of(form: Any) -> dict[str, Any]:
    """Return the JSON schema of a form; a pydantic class's own, as it may contain itself."""
    is_class = isinstance(form, type) and issubclass(form, BaseModel)
    return form.model_json_schema() if is_class else convert_to_json_schema(form)


def parser_of(schema: dict[str, Any] | type | None, method: Method) -> Runnable[Any, Any]:
    """Return what reads the answer: a pydantic object for a pydantic class, else a dict."""
    pydantic: Any = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
    if method == "function_calling":
        assert schema is not None, "the method needs one"
        if pydantic is not None:
            return PydanticToolsParser(tools=[pydantic], first_tool_only=True)
        name = convert_to_openai_tool(schema)["function"]["name"]
        return JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    if pydantic is not None:
        return PydanticOutputParser(pydantic_object=pydantic)
    return JsonOutputParser()


def with_raw(model: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return a chain to ``{"raw", "parsed", "parsing_error"}``; a parsing error is not raised."""
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")
