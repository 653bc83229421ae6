"""What stands around the rows of a file: pages of APIs, objects with a row's fields in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.logs.names import THREAD_KEYS, USER_KEYS, first_name
from langchain_uno.logs.readers.base import Row, as_object, first, literal, objects, told_as_input
from langchain_uno.logs.readers.chats import MESSAGES

_SAYS = {"content", "parts", "value"}
_PAGES = ("data", "rows", "items", "results", "records", "runs")
"""Fields of a page of an API under which its rows may be."""


def rows_in(value: Any, is_row: Callable[[Row], bool]) -> Sequence[Any]:
    """Return the rows that a value of a file holds: mostly one, itself.

    Args:
        value: a line, an element of an array, or the whole file.
        is_row: whether an object has the shape of a format.

    Returns:
        An ``InputError`` stands in place of a row that can't be looked into.
    """
    try:
        with told_as_input():
            return _rows(value, is_row)
    except InputError as error:
        return [error]


def _rows(value: Any, is_row: Callable[[Row], bool]) -> Sequence[Any]:
    if isinstance(value, list) and objects(value):  # a conversation, or a page of rows
        one = {"messages": value}
        if _is_table(value):
            return value
        return [one] if is_row(one) and _speaks(value[0]) else _all(value, is_row)
    if not isinstance(value, dict):
        return [value]
    if "row_idx" in value and isinstance(value.get("row"), dict):  # HuggingFace's viewer
        return [value["row"]]
    value = value if is_row(value) else _whole(value)
    lists = {n: one for n, one in value.items() if objects(one) or (n in _PAGES and one == [])}
    parts = list(value.values())
    if table := next(filter(_is_table, lists.values()), None):
        who = {name: value[name] for name in USER_KEYS if name in value}
        return [{**who, **one} for one in table]
    if not (lists or objects(parts)) or is_row(value):
        return [value]
    name = next((n for n in _PAGES if n in lists), None)
    name = name or next((n for n, one in lists.items() if is_row(_whole(one[0]))), None)
    page: Any = lists.get(name or "")
    if page and _speaks(page[0]) and (name not in _PAGES or "from" in page[0]):
        return [{**{k: v for k, v in value.items() if k != name}, "messages": page}]
    if page is None and objects(parts) and all(is_row(_whole(one)) for one in parts):
        page = parts  # by their ids
    return [value] if page is None else _all(page, is_row)


def _all(page: Sequence[Any], is_row: Callable[[Row], bool]) -> list[Any]:
    return [row for one in page for row in rows_in(one, is_row)]


def _is_table(page: Sequence[Any]) -> bool:
    """Whether it holds the messages of several conversations, each a row."""
    threads = {first_name(THREAD_KEYS, one) for one in page} - {None}
    return len(threads) > 1 and any(_speaks(one) or MESSAGES.matches(one) for one in page)


def _speaks(message: Row) -> bool:
    return ("role" in message or "from" in message) and bool(_SAYS & message.keys())


def _whole(row: Row) -> Row:
    """Return a row whose fields stand in parts as one object."""
    data = as_object(row.get("data"))
    if data and isinstance(row.get("info"), Mapping):  # MLflow's traces
        return {**row["info"], **_of_root(data), **data}
    if isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses"), Mapping):
        given = {f"{name}.responses": one for name, one in row["responses"].items()}
        return {**row["fields"], "metadata": row.get("metadata"), **given}  # Argilla's records
    if isinstance(row.get("chunkedPrompt"), Mapping):  # Google AI Studio
        return {**row, "messages": row["chunkedPrompt"].get("chunks")}
    if objects(states := row.get("states")) and len(states) == 2:  # FastChat's votes
        winner = {"leftvote": "model_a", "rightvote": "model_b"}.get(str(row.get("type")), "tie")
        a, b = map(_turns, states)
        return {**row, "conversation_a": a, "conversation_b": b, "winner": winner}
    steps = row.get("steps")  # of Chainlit's threads
    if objects(steps) and any(str(one.get("type")).endswith("_message") for one in steps):
        return {**row, "thread_id": row.get("id"), "messages": steps}
    return row


def _of_root(data: Row) -> Row:
    """What the first span of an MLflow trace was asked, and what it gave."""
    spans = [one for one in data.get("spans") or () if isinstance(one, Mapping)]
    root = next((one for one in spans if not first(one, "parent_span_id", "parent_id")), {})
    told = as_object(root.get("attributes"))
    found = {"request": told.get("mlflow.spanInputs"), "response": told.get("mlflow.spanOutputs")}
    return {k: literal(v, "spans") for k, v in found.items() if v}


def _turns(state: Row) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in state.get("messages") or ()]
