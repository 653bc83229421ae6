"""Every error that langchain-uno raises on purpose, in one tree.

Each message says what was wrong, with which input, and what to do next. Each class also derives
from the stdlib class a caller would expect, so that ``except ValueError`` keeps working. Command
lines print the message alone (no traceback) and exit with the class's ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def reason_of(error: Any) -> str:
    """Return what is wrong first in pydantic's ``ValidationError``, in our own words if we did."""
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")


def bad_value(error: Any) -> str:
    """Return where the first bad value of pydantic's ``ValidationError`` is, and what is wrong."""
    where = ".".join(str(part) for part in error.errors()[0]["loc"])
    return f"{where!r}: {reason_of(error)}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return what a misspelt name stands for most likely, letters in another order first."""
    near = get_close_matches(name, known, cutoff=cutoff)
    return min(near, key=lambda one: sorted(one) != sorted(name), default=None)


class UNOError(Exception):
    """Base of all errors of this package."""

    exit_code: int = 1


class InputError(UNOError, ValueError):
    """A file, row or argument given by the user is not usable."""

    exit_code = 2


class ForgottenError(InputError):
    """Feedback is about an answer that somebody had forgotten."""


class NameError_(InputError):
    """A name (namespace, release, adapter, cluster) is not safe to put in a path or a URL."""


class ConfigError(UNOError, ValueError):
    """A recipe or a settings file is not valid."""

    exit_code = 2


def no_package(what: str, package: str | None, extra: str) -> ConfigError:
    """Return the error of what needs a package that only an extra installs."""
    return ConfigError(
        f"{what} a package that is missing ({package}): pip install 'langchain-uno[{extra}]'."
    )


class HomeError(UNOError, OSError):
    """The home folder can't be used (missing, read-only, or of an unknown schema)."""

    exit_code = 3


class ModelNotFoundError(UNOError, LookupError):
    """The named model is neither a local folder nor available from the hub."""

    exit_code = 4


class ModelMismatchError(UNOError, ValueError):
    """The home (or a release) belongs to another base model or embedder."""

    exit_code = 5


class EmptyLogError(UNOError, LookupError):
    """There is nothing to learn from: no interactions, or none with usable feedback."""

    exit_code = 6


class StoreError(UNOError, RuntimeError):
    """The journal or the Chroma store could not be read or written."""

    exit_code = 7


class StoreBusyError(StoreError):
    """Another process holds the store's lock."""

    exit_code = 8


class ReleaseError(UNOError, ValueError):
    """A release is incomplete, foreign or tampered with, and was refused."""

    exit_code = 9


class ReleaseMismatchError(ReleaseError, ModelMismatchError):
    """A sound release that was made for another base model, embedder or prompt set."""

    exit_code = 5


class AdapterTakenError(ReleaseError):
    """The engine has an adapter of this name from another folder."""


class EngineError(UNOError, RuntimeError):
    """A model engine failed to answer."""

    exit_code = 10


class TemplateError(EngineError):
    """The model's chat template refuses the messages."""


class EngineTimeoutError(EngineError, TimeoutError):
    """An answer did not come in the time its caller gave it."""


class EngineDownError(EngineError):
    """A model fails whatever it is asked: it is no one request's fault."""


class PausedError(UNOError, RuntimeError):
    """A refresh came to a limit that its caller set; the same call again goes on from there."""

    exit_code = 11
