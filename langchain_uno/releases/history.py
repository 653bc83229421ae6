"""Who changed what answers, when and why: one JSON object a line, beside ``traffic.json``.

Lines are only ever added. They name releases and people who run the service, never its users.
"""

from __future__ import annotations

import getpass
import json
import os
from typing import Any

from langchain_uno.errors import HomeError
from langchain_uno.home import Home
from langchain_uno.records import utc_now
from langchain_uno.releases.traffic import write_atomic

__all__ = ["held", "hold", "let_go", "note", "read_history"]

_FILE = "history.jsonl"
_HOLD = "hold.json"


def note(home: Home, what: str, release: str | None, why: str = "") -> None:
    """Add a line.

    Args:
        home: the namespace.
        what: ``publish``, ``promote``, ``rollback``, ``retire``, ``revoke``, ``hold``, ``let go``.
        release: its id; None: the base model.
        why: in the words of whoever did it.

    Raises:
        HomeError: the line can't be written.
    """
    line = json.dumps(_entry(what=what, release=release, why=why), ensure_ascii=False) + "\n"
    path = home.path / _FILE
    try:
        with path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise HomeError(f"{str(path)!r} can't be written ({error.strerror or error}).") from error


def read_history(home: Home) -> list[dict[str, Any]]:
    """Return all lines, oldest first; a line that a crash cut off is left out."""
    try:
        lines = (home.path / _FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def hold(home: Home, why: str = "") -> None:
    """Let refreshes publish without promoting, until :func:`let_go`.

    Raises:
        HomeError: the home can't be written.
    """
    entry = _entry(what="hold", why=why)
    write_atomic(home.path / _HOLD, (json.dumps(entry, ensure_ascii=False) + "\n").encode())
    note(home, "hold", None, why)


def let_go(home: Home, why: str = "") -> bool:
    """End a hold; False: there was none."""
    try:
        (home.path / _HOLD).unlink()
    except FileNotFoundError:
        return False
    note(home, "let go", None, why)
    return True


def held(home: Home) -> dict[str, Any] | None:
    """Return who holds the home since when and why; None: nobody does.

    A file that can't be read holds too: what was meant to stop is not let through.
    """
    try:
        found = json.loads((home.path / _HOLD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return _entry(what="hold", why="the file can't be read", at="", by="somebody")
    return found if isinstance(found, dict) else _entry(what="hold")


def _entry(**told: Any) -> dict[str, Any]:
    return {"at": utc_now().isoformat(timespec="seconds"), "by": _me(), **told}


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "somebody"
