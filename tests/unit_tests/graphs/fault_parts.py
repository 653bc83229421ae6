"""A process that dies between two writes: a seam at everything that changes a file's name."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Moment = Literal["before", "half", "after"]

_CHANGES = re.compile(r"r\d{8}-\d{6}-[0-9a-f]+|refresh-[0-9a-f]+|\.new-\d+|\.old-[\d-]+|\.\d+\b")
"""Parts of names that are another one in every home and process."""


class Died(BaseException):
    """The process is gone; nobody may catch it and go on."""


class Faults:
    """Counts what changes the files below ``root``, and dies at a given change.

    A change is a rename, a removed file or a removed folder: all that a refresh does durably ends
    with one of them. ``half`` dies when half of a folder is gone.
    """

    def __init__(self, root: Path, dies: Callable[[int, str], Moment | None]) -> None:
        self.root, self.dies = root, dies
        self.seen: list[str] = []
        self.dead = False

    def meet(self, what: str, path: Any, act: Callable[[], Any]) -> Any:
        place = Path(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else None
        if place is None or not place.is_relative_to(self.root) or "chroma" in place.parts:
            return act()
        if self.dead:
            return None  # what its handlers would still do is not done
        if what != "rename" and not place.exists():
            return act()
        name = f"{what} {_CHANGES.sub('*', str(place.relative_to(self.root)))}"
        moment = self.dies(len(self.seen), name)
        self.seen.append(name)
        self.dead = moment is not None
        if moment == "before":
            raise Died(name)
        if moment == "half" and place.is_dir():
            files = sorted(p for p in place.rglob("*") if p.is_file())
            for file in files[: max(1, len(files) // 2)]:
                file.unlink()
            raise Died(name)
        out = act()
        if moment is not None:
            raise Died(name)
        return out


@contextmanager
def faulty(root: Path, dies: Callable[[int, str], Moment | None]) -> Iterator[Faults]:
    """Watch (and end) what happens to the files below ``root`` in the block."""
    faults = Faults(root, dies)
    replace, rename, rmtree, unlink = os.replace, os.rename, shutil.rmtree, os.unlink
    path_rename, path_unlink = Path.rename, Path.unlink
    inside = False

    def whole(what: str, path: Any, act: Callable[[], Any]) -> Any:
        """One change, not those that it is made of."""
        nonlocal inside
        if inside:
            return act()
        inside = True
        try:
            return faults.meet(what, path, act)
        finally:
            inside = False

    def on_replace(a: Any, b: Any, **more: Any) -> Any:
        return whole("rename", b, lambda: replace(a, b, **more))

    def on_rename(a: Any, b: Any, **more: Any) -> Any:
        return whole("rename", b, lambda: rename(a, b, **more))

    def on_rmtree(path: Any, *args: Any, **more: Any) -> Any:
        return whole("remove", path, lambda: rmtree(path, *args, **more))

    def on_path_rename(self: Path, to: Any) -> Any:
        return whole("rename", to, lambda: path_rename(self, to))

    def on_path_unlink(self: Path, missing_ok: bool = False) -> Any:
        if Path(self).name.startswith("."):  # what was never written
            return path_unlink(self, missing_ok=missing_ok)
        return whole("remove", self, lambda: path_unlink(self, missing_ok=missing_ok))

    os.replace, os.rename, shutil.rmtree = on_replace, on_rename, on_rmtree  # type: ignore[assignment]
    Path.rename, Path.unlink = on_path_rename, on_path_unlink  # type: ignore[assignment,method-assign]
    try:
        yield faults
    finally:
        os.replace, os.rename, shutil.rmtree, os.unlink = replace, rename, rmtree, unlink
        Path.rename, Path.unlink = path_rename, path_unlink  # type: ignore[method-assign]
