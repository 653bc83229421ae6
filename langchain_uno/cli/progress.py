"""How a command shows that it is at work: bars for people, lines for files.

On a terminal every stage under way has one bar, and a finished one leaves a line. Elsewhere (CI,
systemd, a file) there is a line when a stage begins, one when it ends, and between them at most one
every 30 seconds. Progress goes to standard error. ``--quiet`` switches it off; so does ``--json``
where both streams end in one pipe or file, whose reader expects JSON and nothing else.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from langchain_uno.cli.console import err
from langchain_uno.reports.render import duration

EVERY_S = 30.0
"""Seconds between two lines about stages under way, where there is no terminal."""
_NAME = 8
"""Columns for a stage's name; the longest is as long."""


class Bars:
    """Shows how the stages of a command come on. Used in a ``with`` block; threads may call it.

    Args:
        off: shows nothing (``--quiet``).
        as_json: the command prints JSON: shows nothing where that would be spoilt.
        console: where to; standard error by default.
        terminal: bars or lines; by default as the console's stream says.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        off: bool = False,
        *,
        as_json: bool = False,
        console: Console | None = None,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        nowhere = Console(file=io.StringIO())
        self._console = nowhere if off or (as_json and _one_stream()) else console or err
        # Asked of the stream itself: FORCE_COLOR makes rich take a file for a terminal.
        self._terminal = self._console.file.isatty() if terminal is None else terminal
        self._clock = clock
        self._lock = threading.RLock()
        self._stages: dict[str, Task] = {}
        """A stage's field ``first`` says when it began, whatever part of it is under way."""
        self._last_line = clock()
        self._bars = Progress(
            TextColumn(
                "{task.fields[stage]}", markup=False, table_column=Column(width=_NAME, no_wrap=True)
            ),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=self._console,
            expand=True,
            transient=True,
            disable=not self._terminal,
            get_time=clock,
        )

    def __enter__(self) -> Bars:
        """Begin to show."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bars away; the lines of finished stages stay."""
        self._bars.stop()

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        """Show that ``stage`` begins, or a part of a stage that has begun.

        Args:
            stage: its name, short.
            total: how many steps it has; None: unknown.
            note: what it is about.
        """
        with self._lock:
            now, known = self._clock(), self._forget(stage)
            first = known.fields["first"] if known else now
            self._bars.add_task(" ".join(note.split()), total=total, stage=stage, first=first)
            self._stages[stage] = self._bars.tasks[-1]
            if self._terminal:
                return
            amount = f", {total:,} to do" if total else ""
            if known is None:
                self._line(f"{stage}: begins{amount}", note)
            elif now - self._last_line >= EVERY_S:
                self._line(f"{stage}: goes on{amount}", note)

    def advance(self, stage: str, n: int = 1) -> None:
        """Count ``n`` more steps of ``stage``; a stage that has not begun is ignored."""
        with self._lock:
            state = self._stages.get(stage)
            if state is None:
                return
            self._bars.advance(state.id, n)
            if not self._terminal and self._clock() - self._last_line >= EVERY_S:
                self._line(f"{stage}: {_state_of(state, self._clock())}", state.description)

    def finish(self, stage: str, note: str = "") -> None:
        """Show that ``stage`` is done, now or before this call.

        Args:
            stage: its name; one that has not begun here took no time.
            note: what came of it.
        """
        with self._lock:
            state = self._forget(stage)
            took = duration(self._clock() - state.fields["first"]) if state else ""
            if not self._terminal:
                if state:
                    self._line(f"{stage}: done in {took}", note)
                else:
                    self._line(f"{stage}: {note or 'done'}")
                return
            row = Table.grid(padding=(0, 1))
            row.add_column(width=_NAME, no_wrap=True)
            row.add_column(width=6, justify="right", no_wrap=True)
            row.add_column(overflow="fold")
            row.add_row(stage, took, Text(note))
            self._console.print(row)

    def _forget(self, stage: str) -> Task | None:
        state = self._stages.pop(stage, None)
        if state is not None:
            self._bars.remove_task(state.id)
        return state

    def _line(self, text: str, note: str = "") -> None:
        self._last_line = self._clock()
        self._console.print(
            f"{text}. {note}" if note else text, markup=False, highlight=False, soft_wrap=True
        )


def _state_of(state: Task, now: float) -> str:
    """Say how far a stage is, how fast, and how long it still takes."""
    done, total = int(state.completed), state.total
    rate = done / max(now - (state.start_time or 0.0), 1e-9)
    speed = f"{rate:.1f} a second" if rate >= 1 else f"{rate * 60:.1f} a minute"
    if total is None:
        return f"{done:,} done, {speed}"
    text = f"{done:,} of {int(total):,}, {speed}"
    left = total - done
    return f"{text}, about {duration(left / rate)} left" if left > 0 and rate > 0 else text


def _one_stream() -> bool:
    """Whether standard output and error end in one pipe or file."""
    places: list[Any] = []
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream.isatty():
                return False
            state = os.fstat(stream.fileno())
        except (OSError, ValueError, AttributeError):  # no file at all: a test's, a notebook's
            return False
        places.append((state.st_dev, state.st_ino))
    return bool(places[0] == places[1])
