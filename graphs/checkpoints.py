"""The folder of one refresh under way: what is written here is finished, and is not done twice.

Every file appears whole or not at all (written beside its place, then renamed), so that a file's
presence means that its step is done. A refresh that was killed is taken up by reading what is here.
No pickle: JSON lines for records, ``.npy`` for arrays.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from langchain_uno.errors import HomeError, StoreError
from langchain_uno.models.protocols import FloatArray

__all__ = ["WorkFolder", "sweep_work"]

Record = TypeVar("Record", bound=BaseModel)
_REFRESH = re.compile(r"refresh-[0-9a-f]{16}\Z")


class WorkFolder:
    """Reads and writes the results of one refresh's steps; names may contain ``/``.

    Raises (all methods that write):
        HomeError: the folder can't be written (full, or read-only).
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Return where ``name`` lies."""
        return self.root / name

    def has(self, name: str) -> bool:
        """Whether the step that writes ``name`` is finished."""
        return self.path(name).exists()

    def write_records(self, name: str, records: Iterable[BaseModel]) -> None:
        """Write records as JSON lines."""

        def put(file: IO[bytes]) -> None:
            for record in records:
                file.write(record.model_dump_json().encode("utf-8", "surrogatepass") + b"\n")

        self._put(name, put)

    def read_records(self, name: str, kind: type[Record]) -> list[Record]:
        """Read what :meth:`write_records` wrote.

        Raises:
            StoreError: the file is damaged.
        """
        with self._mended(name), self.path(name).open("rb") as file:
            return [kind.model_validate_json(line) for line in file if line.strip()]

    def write_json(self, name: str, data: Any) -> None:
        """Write one JSON value."""
        text = json.dumps(data, ensure_ascii=False, indent=1, sort_keys=True)
        self._put(name, lambda file: file.write(text.encode("utf-8", "surrogatepass")))

    def read_json(self, name: str) -> Any:
        """Read what :meth:`write_json` wrote.

        Raises:
            StoreError: the file is damaged.
        """
        with self._mended(name):
            return json.loads(self.path(name).read_bytes())

    def write_array(self, name: str, array: FloatArray) -> None:
        """Write one numeric array."""
        self._put(name, lambda file: np.save(file, array, allow_pickle=False))

    def read_array(self, name: str) -> FloatArray:
        """Read what :meth:`write_array` wrote.

        Raises:
            StoreError: the file is damaged.
        """
        with self._mended(name):
            array: FloatArray = np.load(self.path(name), allow_pickle=False)
            return array

    def fresh_folder(self, name: str) -> Path:
        """Return an empty folder for a step that writes many files (an adapter's training)."""
        folder = self.path(name)
        self.remove(name)
        folder.mkdir(parents=True)
        return folder

    def remove(self, name: str) -> None:
        """Remove a file or folder if it is there."""
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _put(self, name: str, write: Callable[[IO[bytes]], Any]) -> None:
        path = self.path(name)
        temp = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temp.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, path)
        except OSError as error:
            raise HomeError(
                f"{str(path)!r} can't be written ({error.strerror or error}): free some space or "
                "mend its permissions, then call the refresh again; it goes on from there."
            ) from error
        finally:
            with suppress(OSError):
                temp.unlink()

    def _mended(self, name: str) -> _Damaged:
        return _Damaged(self.path(name))


class _Damaged:
    """Turns what a damaged file raises into one error that says what to do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (ValueError, ValidationError, EOFError, OSError)):
            raise StoreError(
                f"{str(self._path)!r} is damaged: delete the folder {str(self._path.parent)!r} and "
                "call the refresh again."
            ) from error


def sweep_work(work: Path, keep: Sequence[str]) -> None:
    """Remove the folders of other refreshes, finished or given up (under the refresh's lock)."""
    for folder in work.iterdir():
        if _REFRESH.match(folder.name) and folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)
