"""What goes on when one thing fails: a log that breaks a stage, a cluster that can't be trained.

A refresh leaves out what fails by itself, says which and why, and goes on with the rest. What fails
for everything ends it: the disk, the journal, a model that answers nobody.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from langchain_uno.errors import EngineDownError, EngineError, UNOError
from langchain_uno.home import why_unwritable

T = TypeVar("T")
R = TypeVar("R")
_NAMED = 3
"""Logs that a note names; their reasons are all counted."""


def is_of_one(error: Exception) -> bool:
    """Return whether an error may be one item's own, so that others can go on."""
    if isinstance(error, UNOError):
        return isinstance(error, EngineError) and not isinstance(error, EngineDownError)
    return why_unwritable(error) is None


def kind_of(error: Exception) -> str:
    """Return an error's kind and place; its own words may quote a user."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def without_breakers(
    items: Sequence[T], make: Callable[[Sequence[T]], R]
) -> tuple[R, list[tuple[T, str]]]:
    """Return what ``make`` gives of the items, less those that make it fail.

    Args:
        items: what is worked on together.
        make: called with all of them; where it fails with ever smaller parts, until those that fail
            alone are known; then with the rest, which may be none.

    Returns:
        What was made, and the items left out, each with :func:`kind_of` its error.

    Raises:
        EngineError: the rest fails together, though none of it fails alone.
        Exception: what ``make`` raised, where that is no one item's own.
    """
    try:
        return make(items), []
    except Exception as error:
        if not is_of_one(error):
            raise
        broken = _breakers(items, make)
    gone = {id(item) for item, _ in broken}
    rest = [item for item in items if id(item) not in gone]
    try:
        return make(rest), broken
    except Exception as error:
        if not is_of_one(error):
            raise
        raise EngineError(
            f"A model failed on {len(rest)} logs together, though on none of them alone "
            f"({kind_of(error)}): call again; the refresh goes on from there."
        ) from error


def _breakers(items: Sequence[T], make: Callable[[Sequence[T]], object]) -> list[tuple[T, str]]:
    half = len(items) // 2
    parts = [items[:half], items[half:]] if half else [items]
    found: list[tuple[T, str]] = []
    for part in parts:
        try:
            make(part)
        except Exception as error:
            if not is_of_one(error):
                raise
            alone = len(part) == 1
            found += [(part[0], kind_of(error))] if alone else _breakers(part, make)
    return found


def left_out_notes(stage: str, left_out: Mapping[str, str]) -> list[str]:
    """Return what a person should read about logs that a stage left out.

    Args:
        stage: its name.
        left_out: the reason by log id.
    """
    if not left_out:
        return []
    some = ", ".join(sorted(left_out)[:_NAMED])
    more = " and others" if len(left_out) > _NAMED else ""
    then = "next refresh that learns something new" if stage == "pairs" else "next refresh"
    return [
        f"Stage {stage!r} left out {len(left_out)} logs that it failed on ({_reasons(left_out)}): "
        f"{some}{more}. They are tried again by the {then}."
    ]


def stage_failed(stage: str, left_out: Mapping[str, str], known: int = 0) -> EngineError:
    """Return the error of a stage that failed on every log, or on most.

    Args:
        stage: its name.
        left_out: the reason by log id.
        known: how many it did not fail on.
    """
    lost = len(left_out)
    some = f"{lost} of the {lost + known}" if known else f"all {lost}"
    return EngineError(
        f"Stage {stage!r} failed on {some} logs that it asked a model about "
        f"({_reasons(left_out)}). Check that the model or its server answers, then call again; "
        "the refresh goes on from there."
    )


def _reasons(left_out: Mapping[str, str]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in Counter(left_out.values()).most_common())
