"""Who changed what answers, when and why: one JSON object a line, beside ``traffic.json``.

Lines are only ever added. They name releases and who runs the service, never its users. A line
that can't be written is logged and holds nothing up: what answers is decided by ``traffic.json``.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from langchain_uno.errors import HomeError
from langchain_uno.home import Home
from langchain_uno.records import utc_now
from langchain_uno.releases.traffic import write_atomic, writing

_log = logging.getLogger(__name__)
_FILE = "history.jsonl"
_HOLD = "hold.json"
NEW_LOGS = "new logs, decisions or settings come"

HoldWhen = Literal["always", "routes"]
"""Which releases a hold stops: all, or those that change which module answers a cluster."""


def note(home: Home, what: str, release: str | None, why: str = "", by: str = "") -> None:
    """Add a line.

    Args:
        home: the namespace.
        what: ``publish``, ``publish, not promoted``, ``promote``, ``rollback``, ``retire``,
            ``revoke``, ``canary with 20 %``, ``end canary``, ``hold``, ``hold changes of routes``,
            ``let go`` or ``review: 3 decided``.
        release: its id; None: the base model.
        why: in the words of whoever did it.
        by: who did it; the name of the process's user by default.
    """
    entry = _entry(by=by, what=what, release=release, why=why)
    try:
        append_lines(home.path / _FILE, [entry])
    except HomeError as error:
        _log.warning("%s %s", error, entry)


def append_lines(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Add JSON objects to a file, a line each, durably; a line that was cut off stays apart.

    Raises:
        HomeError: the file can't be written; it holds none of the entries then.
    """
    lines = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    with writing(path), path.open("ab+", buffering=0) as file:
        size = file.tell()
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a crash cut the last line off
                lines = b"\n" + lines
        try:
            if file.write(lines) != len(lines):
                raise OSError("the disk is full")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what :func:`append_lines` wrote, oldest first, without lines that can't be read."""
    with suppress(OSError), path.open("rb") as file:
        for line in file:
            with suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield entry


def read_history(home: Home) -> list[dict[str, Any]]:
    """Return all lines, oldest first; those that can't be read are left out."""
    return list(read_lines(home.path / _FILE))


def waiting(home: Home) -> str | None:
    """Return the release that was published last and waits for a person; None: none does.

    What was published before a release that a person took, or after which one was promoted by a
    refresh, does not wait any more.
    """
    found: list[str] = []
    for entry in read_history(home):
        what, release = entry.get("what"), str(entry.get("release"))
        if what == "publish, not promoted":
            found.append(release)
        elif what == "publish":
            found.clear()
        elif release in found and what in ("promote", "rollback"):
            del found[: found.index(release) + 1]
        elif release in found and what in ("revoke", "end canary"):
            found.remove(release)
    return found[-1] if found else None


def rolled_back(home: Home) -> dict[str, Any] | None:
    """Return how what answers was taken back, ``from`` what, ``until`` when; None: it was not."""
    before, last, until = None, dict[str, Any](), ""
    for entry in read_history(home):
        what, anew = str(entry.get("what")), entry.get("release") != last.get("release")
        if what in ("publish", "promote") or (what in ("rollback", "retire") and anew):
            before, last, until = last.get("release"), entry, NEW_LOGS
        elif what.startswith("forget "):  # the next refresh begins anew
            until = "the next refresh"
    if last.get("what") not in ("rollback", "retire"):
        return None
    if (held(home) or {}).get("when") == "always":
        until = "a person promotes a release"
    return {**{k: last.get(k) for k in ("at", "by", "why")}, "from": before, "until": until}


def hold(home: Home, why: str = "", by: str = "", when: HoldWhen = "always") -> None:
    """Let refreshes publish without promoting, until :func:`let_go`.

    Args:
        home: the namespace.
        why: for the history.
        by: who did it; the name of the process's user by default.
        when: ``"routes"`` stops only releases in which another kind of module, or none, answers a
            cluster than in the current release.

    Raises:
        HomeError: the home can't be written.
    """
    entry = _entry(by=by, what="hold", why=why, when=when)
    write_atomic(home.path / _HOLD, json.dumps(entry).encode() + b"\n")
    note(home, "hold" if when == "always" else "hold changes of routes", None, why, by)


def let_go(home: Home, why: str = "", by: str = "") -> bool:
    """End a hold; False: there was none.

    Raises:
        HomeError: the home can't be written; the hold stays.
    """
    path = home.path / _HOLD
    if not path.exists():
        return False
    with writing(path):
        path.unlink(missing_ok=True)
    note(home, "let go", None, why, by)
    return True


def held(home: Home) -> dict[str, Any] | None:
    """Return who holds the home since when, why, and ``when``; None: nobody does.

    A file that can't be read holds everything: what was meant to stop is not let through.
    """
    unknown = {"by": "somebody", "at": "an unknown time", "why": "", "when": "always"}
    try:
        found = json.loads((home.path / _HOLD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return unknown
    return {**unknown, **found} if isinstance(found, dict) else unknown


def _entry(*, by: str, why: str, **told: Any) -> dict[str, Any]:
    why = why.encode("utf-8", "replace").decode()  # a shell may give bytes that are no text
    return {
        "at": utc_now().isoformat(timespec="seconds"),
        "by": by or present_user(),
        **told,
        "why": why,
    }


def present_user() -> str:
    """Return the name of the process's user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "somebody"
