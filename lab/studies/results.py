"""Results that are made once: a JSON file each, shared by processes, kept for ever."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from langchain_uno.errors import InputError
from langchain_uno.releases.traffic import write_atomic

__all__ = ["Result", "once", "read_results"]

Result = dict[str, Any]


def once(name: str, top: Path, scratch: Path, make: Callable[[Path], Result]) -> Result | None:
    """Return a result, making it if need be; None while another process is at it.

    Args:
        name: of the result; ``NAME.json`` in ``top`` says that it is done.
        top: where results lie.
        scratch: where homes lie while a result is made. What was finished there is taken up by the
            next call; it goes when the result is there.
        make: makes the result in the folder that it is given.
    """
    file, folder = top / f"{name}.json", scratch / name
    if file.is_file():
        return _read(file)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(scratch / f"{name}.lock", timeout=0):
            if not file.is_file():
                result = make(folder)
                top.mkdir(parents=True, exist_ok=True)
                write_atomic(file, json.dumps(result).encode())
                shutil.rmtree(folder, ignore_errors=True)
            return _read(file)
    except Timeout:
        return None


def read_results(top: Path, kind: str) -> list[Result]:
    """Return the finished results whose names begin with ``kind``, by name.

    Raises:
        InputError: a file is damaged.
    """
    return [_read(file) for file in sorted(top.glob(f"{kind}-*.json"))]


def _read(file: Path) -> Result:
    try:
        found: Result = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{str(file)!r} is damaged ({error}): delete it and run again.") from error
    return found
