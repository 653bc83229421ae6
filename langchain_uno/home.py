"""A home: where everything lies on disk, its own settings, and which names a path may hold.

A home is one folder per service. Each namespace (tenant) has a folder of its own in it::

    HOME/                       namespace "default" is the home itself
      settings.toml  traffic.json  canary.json  history.jsonl  review.jsonl
      journal/  chroma/  work/  releases/<id>/  reports/<id>/
      namespaces/<name>/        the same again for every other tenant

``settings.toml`` is written by people, and read by commands and handler::

    [logs]
    chroma = "http://chroma.internal:8000"    # default: "embedded", a folder of the home
    retention_days = 90                       # default: kept until somebody forgets it

    [redaction]
    kinds = ["email", "credit_card", "ip", "phone", "secret"]    # these are the default

    [serving]
    max_adapters = 32                         # default: all of the release are loaded

    [releases]
    keep = 10                                 # releases that keep their weights, to go back to
    max_percent = 200                         # of the base model's weights, all modules together

    [recipe.lora]                             # any setting of the recipe
    rank = 32
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_uno.errors import (
    ConfigError,
    HomeError,
    InputError,
    NameError_,
    StoreBusyError,
    UNOError,
    reason_of,
)

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

ENV_HOME = "LANGCHAIN_UNO_HOME"
MAX_RETENTION_DAYS = 36_500
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}\Z")


def safe_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it may stand in a path or a URL, else raise.

    Lower-case letters, digits, ``-`` and ``_``, 1 to 80 characters, starting with a letter or
    digit: no dots, slashes or spaces, so no name can leave its folder.

    Raises:
        NameError_: the name is anything else.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise NameError_(
            f"{what} {name!r} is not usable: give 1 to 80 lower-case letters, digits, '-' or '_', "
            "starting with a letter or digit."
        )
    return name


def is_safe(name: str) -> bool:
    """Whether :func:`safe_name` takes a name."""
    return bool(_NAME.match(name))


def read_toml(data: bytes, what: str = "The file") -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        ConfigError: it is not TOML; ``what`` begins the message.
    """
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} is not valid TOML: {error}.") from error


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FULL = ("no space left", "disk is full", "quota exceeded")
"""What libraries say in errors that carry no number: SQLite, safetensors, Chroma."""
_LEAST_BYTES = 2**16
"""Free on a disk that is not full."""


def why_unwritable(error: BaseException, at: Path | None = None) -> str | None:
    """Return why the disk can't be written, if an error says so; else None.

    Args:
        error: of any library, with its causes.
        at: what was written to. SQLite only says "disk I/O error" where a full disk has no room
            for its index of the log.
    """
    vague = "disk i/o error" in str(error).lower()
    if at and vague and shutil.disk_usage(at).free < _LEAST_BYTES:
        return "no space left on the disk"
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _UNWRITABLE:
            return seen.strerror or str(seen)
        ours = isinstance(seen, UNOError)  # its message says what to do, and may have such words
        if not ours and any(words in str(seen).lower() for words in _FULL):
            return "no space left on the disk"
        seen = seen.__cause__ or seen.__context__
    return None


@dataclass(frozen=True)
class _Below:
    """A path in the folder of a home's namespace."""

    name: str

    def __get__(self, home: Home, _: object = None) -> Path:
        """Return it for a home."""
        return home.path / self.name


@dataclass(frozen=True)
class Home:
    """The folders of one namespace of one home. Nothing is created before :meth:`ensure`."""

    root: Path
    namespace: str = "default"

    @classmethod
    def locate(cls, home: str | os.PathLike[str] | None = None, namespace: str = "default") -> Home:
        """Return the home given, or the one that ``LANGCHAIN_UNO_HOME`` names.

        The path is resolved, so that one folder is one home however it is spelled, and whatever the
        current folder is later.

        Raises:
            InputError: neither is set, or it is no path.
            NameError_: the namespace is not a safe name.
        """
        chosen = home if home is not None else os.environ.get(ENV_HOME)
        if not chosen:
            raise InputError(
                f"No home was given: pass --home DIR (or home=DIR), or set {ENV_HOME}."
            )
        try:
            os.fsencode(chosen)
            (root := Path(chosen).expanduser().resolve()).exists()  # a name may be too long
        except (TypeError, ValueError, RuntimeError, OSError) as error:
            raise InputError(
                f"{chosen!r} can't be a home ({error}): give the path of a folder."
            ) from error
        return cls(root, safe_name(namespace, "namespace"))

    @property
    def path(self) -> Path:
        """The namespace's own folder."""
        if self.namespace == "default":
            return self.root
        return self.root / "namespaces" / self.namespace

    journal = _Below("journal")
    """Folder of the append-only journal, the only thing the request path writes."""
    chroma = _Below("chroma")
    """Folder of the embedded Chroma store (rebuildable from the journal)."""
    work = _Below("work")
    """Refreshes under way and caches; safe to delete."""
    releases = _Below("releases")
    """Folder of the immutable releases."""
    reports = _Below("reports")
    """Folder of the refreshes' reports, one a release; they quote users."""
    traffic = _Below("traffic.json")
    """Which release gets which share; replaced atomically."""
    settings = _Below("settings.toml")
    """Of this namespace."""

    def ensure(self) -> Home:
        """Create the folders if missing and check that they can be written.

        Raises:
            HomeError: the home is not a folder, or can't be written.
        """
        try:
            for folder in (self.journal, self.chroma, self.work, self.releases):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise HomeError(
                f"The home {str(self.path)!r} can't be written ({error.strerror or error}): choose "
                f"another with --home or {ENV_HOME}, or mend its permissions."
            ) from error
        return self

    def require(self) -> Home:
        """Check that the home exists (for commands that only read).

        Raises:
            HomeError: there is no home at this path.
        """
        if not self.path.is_dir():
            raise HomeError(
                f"There is no home at {str(self.path)!r}: capture something first "
                "(UNOFeedbackHandler(home=...), or langchain-uno logs import FILE --home DIR)."
            )
        return self


@contextmanager
def locked(home: Home, name: str, wait_s: float, busy: str) -> Iterator[None]:
    """Keep other processes out until the block ends, or this process dies.

    Args:
        home: the namespace; its folders are made if they are missing.
        name: of the lock.
        wait_s: seconds to wait for another holder.
        busy: the error's message where it stays locked.

    Raises:
        StoreBusyError: another process holds it.
        HomeError: the home can't be written.
    """
    from filelock import FileLock, Timeout

    # Another thread may end the block than began it.
    lock = FileLock(home.ensure().work / f"{name}.lock", timeout=wait_s, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise StoreBusyError(busy) from error
    try:
        yield
    finally:
        lock.release()


ONE_AT_A_TIME = "and one runs at a time"
"""Why a refresh does not go on while another runs."""


def refresh_lock(home: Home, otherwise: str) -> AbstractContextManager[None]:
    """Keep refreshes of a home out; see :func:`locked`.

    Args:
        home: the namespace.
        otherwise: why the caller can't go on while a refresh runs, for the message.
    """
    busy = (
        f"A refresh of {str(home.path)!r} is running, {otherwise}: stop it, or wait for it to "
        "end. (If none is, this goes away by itself: the lock dies with its process.)"
    )
    return locked(home, "refresh", 0.5, busy)  # somebody may just be looking


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LogSettings(_Section):
    """Where the logs' index lies, and how long logs are kept."""

    chroma: str = "embedded"
    """``embedded``, or the URL of a Chroma server (many hosts, one store)."""
    chroma_tenant: str = "langchain-uno"
    """Chroma's tenant on the server; each namespace is a database of it."""
    retention_days: float | None = Field(default=None, gt=0, le=MAX_RETENTION_DAYS)
    """Logs older than this are forgotten by each refresh and by ``logs retain``."""


class RedactionSettings(_Section):
    """What is taken out before storing."""

    kinds: list[str] | None = None
    """None: all that :mod:`langchain_uno.logs.redaction` knows; an empty list: nothing."""


class ServingSettings(_Section):
    """How releases are served."""

    max_adapters: int | None = Field(default=None, ge=1)
    """Adapters loaded at a time; the one used longest ago makes room. None: all that are served."""


class ReleaseSettings(_Section):
    """How much of what was learnt is kept."""

    keep: int = Field(default=10, ge=1)
    """How many of the newest releases keep their weights and reports after a refresh, besides those
    in use."""
    max_percent: float = Field(default=200.0, gt=0)
    """The most weights that all modules of a release have together, in percent of the base model's.
    Beyond, the clusters with the least proven gain stay with the base model."""


class HomeSettings(_Section):
    """The whole file."""

    logs: LogSettings = Field(default_factory=LogSettings)
    redaction: RedactionSettings = Field(default_factory=RedactionSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)
    releases: ReleaseSettings = Field(default_factory=ReleaseSettings)
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the recipe; checked when it is loaded."""


def load_settings(home: Home) -> HomeSettings:
    """Return the namespace's settings; all defaults when it has no ``settings.toml``.

    Raises:
        ConfigError: the file can't be read, is not TOML, or has an unknown or bad value.
    """
    name = str(home.settings)
    if not home.settings.is_file():
        return HomeSettings()
    try:
        return HomeSettings.model_validate(read_toml(home.settings.read_bytes(), repr(name)))
    except OSError as error:
        raise ConfigError(f"{name!r} can't be read ({error.strerror or error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{name!r} has a bad value at {where!r}: {reason_of(error)}.") from error
