"""Results that are made once: each in a folder of its own, shared by processes, kept for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from langchain_uno.errors import InputError
from langchain_uno.releases.traffic import write_atomic

__all__ = ["once", "read_result", "read_results", "write_result"]

Result = dict[str, Any]


def once(
    folder: Path,
    make: Callable[[], Result],
    *,
    done: Callable[[Result], bool] = lambda _: True,
) -> Result | None:
    """Return a folder's result, making it if need be; None while another process is at it.

    Args:
        folder: ``result.json`` in it is the result.
        make: makes it; what it has finished when it is stopped is its own affair.
        done: whether a result that is there needs nothing more.
    """
    known = read_result(folder)
    if known is not None and done(known):
        return known
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            known = read_result(folder)
            if known is None or not done(known):
                known = make()
                write_result(folder, known)
            return known
    except Timeout:
        return None


def read_result(folder: Path) -> Result | None:
    """Return a finished result; None when there is none yet.

    Raises:
        InputError: the file is damaged.
    """
    file = folder / "result.json"
    if not file.is_file():
        return None
    try:
        found: Result = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{str(file)!r} is damaged ({error}): delete it and run again.") from error
    return found


def read_results(top: Path) -> list[Result]:
    """Return the finished results of a study's folders, by name.

    Raises:
        InputError: a file is damaged.
    """
    found = (read_result(path) for path in sorted(top.glob("*/")))
    return [result for result in found if result is not None]


def write_result(folder: Path, result: Result) -> None:
    """Write a result, atomically."""
    write_atomic(folder / "result.json", json.dumps(result).encode())
