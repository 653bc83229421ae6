"""MemoryBench: answer its test rows, write predictions in its format.

MemoryBench (Ai et al. 2025, arXiv 2510.17281; github.com/LittleDinoC/MemoryBench) keeps a data set
as rows of two splits. Rows of ``train`` hold dialogs with simulated users and are imported like any
log (``langchain-uno logs import train.jsonl``); rows of ``test`` are asked here. Its own
``evaluate`` and ``summary_results`` grade what this writes: a JSON list of ``{"test_idx",
"dataset", "response"}``. A test row that is in the log is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.logs.readers.base import literal
from langchain_uno.models.protocols import OnDone
from langchain_uno.releases.traffic import answering, write_atomic

_TOGETHER = 32
"""Requests under way at a time, and between two saves."""


class BenchRow(BaseModel):
    """One request of a test split."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    test_idx: int
    messages: list[tuple[str, str]]
    """(role, content), the user's turn last."""


def read_test_rows(path: Path) -> list[BenchRow]:
    """Read a test split: one JSON object a line.

    ``input_prompt`` is the request, or ``input_chat_messages`` (a list, or on the hub a string that
    holds one) the conversation.

    Raises:
        InputError: the file can't be read, a line is no such row, or a row is there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The test rows {str(path)!r} can't be read ({error}).") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, InputError) as error:
            raise InputError(f"{str(path)!r}, line {number}: {error}") from error
    seen: set[tuple[str, int]] = set()
    for row in rows:
        if (row.dataset, row.test_idx) in seen:
            raise InputError(f"{str(path)!r} holds row {row.test_idx} of {row.dataset!r} twice.")
        seen.add((row.dataset, row.test_idx))
    if not rows:
        raise InputError(f"{str(path)!r} holds no row.")
    return rows


def _row(row: Any) -> BenchRow:
    if not isinstance(row, dict):
        raise InputError("a row must be a JSON object")
    index, dataset = row.get("test_idx"), row.get("dataset_name", row.get("dataset"))
    if not isinstance(index, int) or isinstance(index, bool):
        raise InputError(f"test_idx must be a whole number, not {index!r}")
    if not isinstance(dataset, str) or not dataset:
        raise InputError("there is no dataset_name")
    said = row.get("input_chat_messages")
    turns = literal(said, "input_chat_messages") if said else None
    if turns is None:
        turns = [{"role": "user", "content": row.get("input_prompt")}]
    messages = []
    for turn in turns if isinstance(turns, list) else ():
        turn = turn if isinstance(turn, dict) else {}
        role, content = turn.get("role"), turn.get("content")
        if not isinstance(role, str) or not isinstance(content, str) or not content.strip():
            raise InputError("a turn of the request has no role or no text")
        messages.append((role, content))
    if not messages or messages[-1][0] != "user":
        raise InputError("the request must end with a user's turn (input_prompt)")
    return BenchRow(dataset=dataset, test_idx=index, messages=messages)


def check_apart(home: Home, rows: Sequence[BenchRow]) -> None:
    """Check that the home's log holds none of the test requests.

    Raises:
        InputError: it does; answers to them would be learnt by heart.
    """
    from langchain_uno.logs.exchange import export_lines

    turns = (m for line in export_lines(home) for m in json.loads(line)["messages"])
    known = {_plain(m["content"]) for m in turns if m["role"] == "user"}
    both = [row for row in rows if _plain(row.messages[-1][1]) in known]
    if both:
        raise InputError(
            f"{len(both)} of {len(rows)} test requests are in the log of {str(home.path)!r}, first "
            f"row {both[0].test_idx} of {both[0].dataset!r}: import the train split only."
        )


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def predict(
    home: Home,
    rows: Sequence[BenchRow],
    out: Path,
    *,
    mode: str = "uno",
    model: str | None = None,
    embeddings: str | None = None,
    on_done: OnDone | None = None,
) -> list[dict[str, Any]]:
    """Answer the rows with ``UNOChatModel`` and write the predictions; goes on after a stop.

    Args:
        home: whose current release answers.
        rows: to be answered.
        out: JSON list of ``{"test_idx", "dataset", "response"}``; answers in it are kept. A file of
            the same name that ends in ``.by.json`` says of which mode, model and release they are.
        mode: "uno", "single" or "base".
        model: the base model; None: the bundled one.
        embeddings: the embedding model that the release was made with; None: the base model's own.
        on_done: is told of every answer.

    Raises:
        InputError: a test request is in the log, or ``out`` holds something else, answers of
            another mode, model or release among it.
        ReleaseError: the current release was refused.
    """
    from langchain_uno.chat_models import UNOChatModel
    from langchain_uno.demo.asking import settle

    check_apart(home, rows)
    by = {"mode": mode, "model": model, "release": None if mode == "base" else answering(home)}
    done = _read(out, by)
    known = {(one["dataset"], one["test_idx"]) for one in done}
    left = [row for row in rows if (row.dataset, row.test_idx) not in known]
    told: OnDone = on_done or (lambda n: None)
    told(len(rows) - len(left))
    settings: dict[str, Any] = {"mode": mode, "model": model, "embedder": embeddings}
    chat = UNOChatModel(home=str(home.root), namespace=home.namespace, **settings)
    if left and mode != "base":
        settle(chat, home)  # a service would answer by the base model where a release is refused
    write_atomic(_by(out), json.dumps(by).encode())
    for start in range(0, len(left), _TOGETHER):
        some = left[start : start + _TOGETHER]
        replies = chat.batch([list(row.messages) for row in some], {"max_concurrency": _TOGETHER})
        done += [
            {"test_idx": row.test_idx, "dataset": row.dataset, "response": str(reply.text)}
            for row, reply in zip(some, replies, strict=True)
        ]
        write_atomic(out, json.dumps(done, ensure_ascii=False, indent=1).encode())
        told(len(some))
    return done


def _read(out: Path, by: dict[str, str | None]) -> list[dict[str, Any]]:
    if not out.is_file():
        return []
    try:
        found = json.loads(out.read_bytes())
        if not all({"test_idx", "dataset", "response"} <= set(one) for one in found):
            raise ValueError("something else is in it")
        made = {**by, **json.loads(beside.read_bytes())} if (beside := _by(out)).is_file() else by
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{str(out)!r} is there, but no list of predictions, or {_by(out).name!r} beside it is "
            f"damaged ({error}): name another --out."
        ) from error
    if other := [f"{k} {made[k]!r}, not {by[k]!r}" for k in by if made[k] != by[k]]:
        raise InputError(f"{str(out)!r} holds answers of {other[0]}: name another --out.")
    return list(found)


def _by(out: Path) -> Path:
    return out.with_suffix(".by.json")
