"""``langchain-uno``: the subcommands under one name.

Nothing here, nor at the head of a subcommand's file, imports torch: ``--help`` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from langchain_uno import __version__
from langchain_uno.cli.demo import demo
from langchain_uno.cli.evaluate import app as evaluate
from langchain_uno.cli.logs import app as logs
from langchain_uno.cli.recipe import recipe
from langchain_uno.cli.releases import app as releases
from langchain_uno.cli.review import app as review
from langchain_uno.cli.status import status
from langchain_uno.cli.train import train
from langchain_uno.cli.web_console import console

app = typer.Typer(
    name="langchain-uno",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"langchain-uno {__version__}")
        raise typer.Exit


@app.callback()
def langchain_uno(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Learn from what users said about a model's answers: logs in, verified LoRA modules out.

    A home is a folder that holds one service's log, its index and its releases. Every command takes
    --home DIR; where LANGCHAIN_UNO_HOME is set it may be left out.

        langchain-uno logs import chats.jsonl --home ./home

        langchain-uno train --home ./home --model Qwen/Qwen3-8B

    Exit codes: 0 done, 2 bad input or settings, 3 the home can't be used, 4 no such model, 5 the
    home belongs to another model, 6 nothing to learn from, 7 the store failed, 8 the store is in
    use, 9 a release was refused, 10 the model failed, 11 a limit was reached, 130 stopped by
    Ctrl-C: after these two the same command goes on.
    """


app.command()(train)
app.add_typer(logs, name="logs")
app.add_typer(releases, name="releases")
app.add_typer(review, name="review")
app.command()(status)
app.command()(console)
app.add_typer(evaluate, name="evaluate")
app.command()(demo)
app.command()(recipe)
