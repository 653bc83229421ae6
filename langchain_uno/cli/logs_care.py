"""The part of ``python -m langchain_uno.logs`` that takes care of a log: forget, retain, repair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from langchain_uno.cli.progress import Bars, clean_exit, err, out, print_json
from langchain_uno.errors import InputError
from langchain_uno.home import ENV_HOME, Home

__all__ = ["register"]

_HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="The home folder.", envvar=ENV_HOME, show_default=False),
]
_Namespace = Annotated[str, typer.Option(help="Tenant inside the home.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether I mean it.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the log's command line."""
    for command in (forget, retain, repair):
        app.command()(command)


def forget(
    home: _HomeOption = None,
    namespace: _Namespace = "default",
    user: Annotated[
        str | None, typer.Option(help="Forget all of this user.", show_default=False)
    ] = None,
    thread: Annotated[
        str | None, typer.Option(help="Forget all of this conversation.", show_default=False)
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(help="Forget this run (repeatable): run id, root run id or message id."),
    ] = None,
    yes: _Yes = False,
    as_json: _Json = False,
) -> None:
    """Forget a user, a conversation or runs, everywhere in the home, for good.

    Takes the records, the feedback, later turns that quote them, their vectors and what refreshes
    had made of them; releases that learnt from them are revoked and emptied, and the nearest sound
    one (or the base model) answers. Keyed hashes stay behind, so that importing an old export
    brings nothing back. Prints a receipt with counts and nobody's ids. Files that were exported
    lie outside the home: delete them yourself. A killed call is finished by any next one.

    Exit codes: 0 done (also when nothing was found), 2 nothing named, 3 no such home, 7 the journal
    or Chroma can't be used, 8 a refresh or drain is running, 130 stopped.
    """
    with clean_exit("Stopped. The same call again finishes it."):
        place = Home.locate(home, namespace).require()
        if not yes and not as_json:
            typer.confirm("This can't be undone. Forget it?", abort=True, err=True)
        from langchain_uno.erasure import STEPS
        from langchain_uno.erasure import forget as forget_

        with Bars(off=as_json) as bars:
            bars.start("forget", len(STEPS))
            receipt = forget_(
                place,
                user_id=user,
                thread_id=thread,
                run_ids=run or (),
                on_step=lambda step: bars.advance("forget"),
            )
        _show(receipt, as_json)


def retain(
    home: _HomeOption = None,
    namespace: _Namespace = "default",
    days: Annotated[
        float | None,
        typer.Option(help="Keep so many days. [default: logs.retention_days of settings.toml]"),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Forget what is older than the namespace keeps (refreshes do this by themselves).

    Releases that learnt from it stay.

    Exit codes: 0 done, 2 no number of days is set, 3 no such home, 7 the journal or Chroma can't be
    used, 8 a refresh or drain is running, 130 stopped.
    """
    with clean_exit("Stopped. The same call again finishes it."):
        from langchain_uno.erasure import STEPS, forget_older
        from langchain_uno.settings import load_settings

        place = Home.locate(home, namespace).require()
        kept = days if days is not None else load_settings(place).logs.retention_days
        if kept is None:
            raise InputError(
                f"How long are logs kept? Give --days, or set logs.retention_days in "
                f"{str(place.settings)!r}."
            )
        with Bars(off=as_json) as bars:
            bars.start("retain", len(STEPS))
            receipt = forget_older(place, days=kept, on_step=lambda step: bars.advance("retain"))
        _show(receipt, as_json)


def repair(
    home: _HomeOption = None, namespace: _Namespace = "default", as_json: _Json = False
) -> None:
    """Look a home over and mend what can be mended.

    Finishes interrupted erasures, checks the journal record by record, compares the index with it
    and throws a damaged one away (the next drain or refresh fills it again from the journal).

    Exit codes: 0 sound or mended, 3 no such home, 7 the journal itself is damaged (the message says
    where), 8 a refresh or drain is running.
    """
    with clean_exit("Stopped. The same call again goes on."):
        from langchain_uno.care import repair as repair_

        place = Home.locate(home, namespace).require()
        with Bars(off=as_json) as bars:
            found = repair_(place, bars)
        _show(found, as_json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), str(value))
    out.print(table)
    err.print("Done.")
