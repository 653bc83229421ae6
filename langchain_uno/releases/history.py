"""Who changed what answers, when and why: one JSON object a line, beside ``traffic.json``.

Lines are only ever added. They name releases and who runs the service, never its users. A line
that can't be written is logged and holds nothing up: what answers is decided by ``traffic.json``.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
from typing import Any

from langchain_uno.home import Home
from langchain_uno.records import utc_now
from langchain_uno.releases.traffic import write_atomic

__all__ = ["held", "hold", "let_go", "note", "read_history"]

_log = logging.getLogger(__name__)
_FILE = "history.jsonl"
_HOLD = "hold.json"


def note(home: Home, what: str, release: str | None, why: str = "", by: str = "") -> None:
    """Add a line.

    Args:
        home: the namespace.
        what: ``publish``, ``publish, not promoted``, ``promote``, ``rollback``, ``retire``,
            ``revoke``, ``canary with 20 %``, ``end canary``, ``hold`` or ``let go``.
        release: its id; None: the base model.
        why: in the words of whoever did it.
        by: who did it; the name of the process's user by default.
    """
    line = json.dumps(_entry(by=by, what=what, release=release, why=why)).encode() + b"\n"
    path = home.path / _FILE
    try:
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a crash cut the last line off
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        _log.warning("%s can't be written (%s): %s", path, error.strerror or error, line.decode())


def read_history(home: Home) -> list[dict[str, Any]]:
    """Return all lines, oldest first; those that can't be read are left out."""
    try:
        lines = (home.path / _FILE).read_bytes().split(b"\n")
    except OSError:
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


def hold(home: Home, why: str = "", by: str = "") -> None:
    """Let refreshes publish without promoting, until :func:`let_go`.

    Raises:
        HomeError: the home can't be written.
    """
    write_atomic(
        home.path / _HOLD, json.dumps(_entry(by=by, what="hold", why=why)).encode() + b"\n"
    )
    note(home, "hold", None, why, by)


def let_go(home: Home, why: str = "", by: str = "") -> bool:
    """End a hold; False: there was none."""
    try:
        (home.path / _HOLD).unlink()
    except FileNotFoundError:
        return False
    note(home, "let go", None, why, by)
    return True


def held(home: Home) -> dict[str, Any] | None:
    """Return who holds the home since when and why; None: nobody does.

    A file that can't be read holds too: what was meant to stop is not let through.
    """
    unknown = {"what": "hold", "by": "somebody", "at": "an unknown time", "why": ""}
    try:
        found = json.loads((home.path / _HOLD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return unknown
    return {**unknown, **found} if isinstance(found, dict) else unknown


def _entry(*, by: str, why: str, **told: Any) -> dict[str, Any]:
    why = why.encode("utf-8", "replace").decode()  # a shell may give bytes that are no text
    return {"at": utc_now().isoformat(timespec="seconds"), "by": by or _me(), **told, "why": why}


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "somebody"
