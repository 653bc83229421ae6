"""What the command lines share: errors without tracebacks, Ctrl-C, progress bars.

Results go to standard output, everything else to standard error, so that ``--json`` can be piped.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from langchain_uno.errors import UNOError

__all__ = ["INTERRUPTED", "Bars", "clean_exit", "err", "out", "print_json"]

INTERRUPTED = 130
out = Console()
err = Console(stderr=True)


@contextmanager
def clean_exit(interrupted: str = "Stopped.") -> Iterator[None]:
    """Run a command's body: our errors become one line and an exit code, Ctrl-C becomes 130.

    Args:
        interrupted: what to say after Ctrl-C: what state things are in and how to go on.
    """
    try:
        yield
    except UNOError as error:
        err.print(f"[bold red]Error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        # An interrupt that passed through exec or eval of a string (dataclasses, named tuples: any
        # import) leaves CPython a mark, for which it would end by SIGINT instead of with our code.
        # The next such call wipes the mark (run_eval_code_obj in CPython's pythonrun.c).
        eval("None")  # noqa: S307 - a constant
        err.print(f"\n{_plain(interrupted)}", highlight=False, soft_wrap=True)
        atexit.register(_leave)
        raise typer.Exit(INTERRUPTED) from error


def _leave() -> None:
    """End the process without winding Python up; what was finished is on disk already.

    Threads stopped half-way in native code (a release being loaded, a forward pass) are unwound
    there when Python ends, and C++ aborts ("terminate called without an active exception").
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # whoever read may be gone; nothing but the exit code is left to say
        os._exit(INTERRUPTED)


def print_json(data: Any) -> None:
    """Print one JSON object to standard output, in one piece and without colours."""
    typer.echo(json.dumps(data, ensure_ascii=False, sort_keys=True))


def _plain(text: str) -> str:
    """Escape rich's markup: a message may quote what a user typed."""
    return text.replace("[", r"\[")


class Bars:
    """One progress bar a stage, on standard error; quiet when that is no terminal or ``off``."""

    def __init__(self, off: bool = False) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            disable=off,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        """Show a bar for ``stage``; starting it again resets it."""
        text = f"{stage:<10} {_plain(note)}"
        if stage in self._tasks:
            self._progress.reset(self._tasks[stage], total=total, description=text)
        else:
            self._tasks[stage] = self._progress.add_task(text, total=total)

    def advance(self, stage: str, n: int = 1) -> None:
        """Move a bar on."""
        if stage in self._tasks:
            self._progress.advance(self._tasks[stage], n)

    def finish(self, stage: str, note: str = "") -> None:
        """Fill a bar and say what came of it."""
        if stage not in self._tasks:
            self.start(stage, 1)
        task = self._tasks[stage]
        total = next(t.total for t in self._progress.tasks if t.id == task) or 1
        text = f"{stage:<10} {_plain(note)}"
        self._progress.update(task, total=total, completed=total, description=text)
