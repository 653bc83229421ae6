"""What the commands share: their two streams, their common options, how they end.

Results go to standard output, everything else to standard error, so that ``--json`` can be piped.
"""

from __future__ import annotations

import atexit
import json
import os
import shlex
import sys
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from langchain_uno.errors import ReleaseError, UNOError
from langchain_uno.home import ENV_HOME, Home, is_safe

INTERRUPTED = 130
out = Console()
err = Console(stderr=True)
COUNTED = "Logs: held-out too. People: in training, asking in words."
"""What a table of clusters counts."""

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="The home folder.", envvar=ENV_HOME, show_default=False),
]
ByOption = Annotated[
    str, typer.Option("--by", help="Who does it. [default: the user of the system]")
]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, kept in the history.")]
ReleaseArgument = Annotated[
    str, typer.Argument(help="The release's id, as `releases list` prints it.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(help="Base model: a folder or a hub name. [default: the bundled toy model]"),
]
EmbeddingsOption = Annotated[
    str | None,
    typer.Option(
        help="HuggingFace embedding model that clusters and routes, the same for all commands. "
        "[default: the base model's token embeddings]"
    ),
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        help="Chat model that distils, revises and judges, as init_chat_model names it "
        "(openai:gpt-4.1-mini). [default: the base model]"
    ),
]
NamespaceOption = Annotated[str, typer.Option(help="Tenant inside the home.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@contextmanager
def clean_exit(interrupted: str = "Stopped.") -> Iterator[None]:
    """Run a command's body: this package's errors become one line and an exit code, Ctrl-C 130.

    Args:
        interrupted: what to say after Ctrl-C: what state things are in and how to go on;
            ``{call}`` stands for the arguments of the call.
    """
    try:
        yield
    except UNOError as error:
        err.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        # An interrupt that passed through exec or eval of a string (dataclasses, named tuples: any
        # import) leaves CPython a mark, for which it would end by SIGINT instead of with our code.
        # The next such call wipes the mark (run_eval_code_obj in CPython's pythonrun.c), and making
        # a named tuple is one.
        namedtuple("Wiped", ())
        given = sys.argv[1:]
        call = f" ({shlex.join(given)})" if given else ""
        said = interrupted.replace("{call}", call)
        err.print(f"\n{escape(said)}", highlight=False, soft_wrap=True)
        atexit.register(_leave)
        raise typer.Exit(INTERRUPTED) from error


def at_home(
    interrupted: str = "Stopped.", *, must_exist: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options --home and --namespace, and its first parameter their home.

    Args:
        interrupted: as for :func:`clean_exit`, in which the command runs.
        must_exist: refuse a home that is not there.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(*, home: Path | None, namespace: str, **given: Any) -> None:
            with clean_exit(interrupted):
                place = Home.locate(home, namespace)
                command(place.require() if must_exist else place, **given)

        hints = get_type_hints(command, include_extras=True)
        _, *own = signature(command).parameters.values()
        kind = Parameter.KEYWORD_ONLY
        options = [
            Parameter("home", kind, default=None, annotation=HomeOption),
            Parameter("namespace", kind, default="default", annotation=NamespaceOption),
            *(p.replace(kind=kind, annotation=hints[p.name]) for p in own),
        ]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {p.name: p.annotation for p in options}
        run.__signature__ = Signature(options)  # type: ignore[attr-defined]
        return run

    return decorate


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


def chosen_release(home: Home, release: str | None) -> str:
    """Return the release that was named, else the current one.

    Raises:
        ReleaseError: there is no such release; or none is named, and none is current.
    """
    from langchain_uno.releases.load import read_manifest
    from langchain_uno.releases.traffic import answering

    if release is None:
        release = answering(home)
        if release is None:
            raise ReleaseError(
                "No release is current, the base model answers: name one of `releases list`."
            )
    if not is_safe(release):
        raise ReleaseError(f"{release!r} is no release's id: name one of `releases list`.")
    read_manifest(home, release)
    return release


def print_json(data: Any) -> None:
    """Print one JSON object to standard output, in one piece and without colours."""
    typer.echo(json.dumps(data, ensure_ascii=False, sort_keys=True))


def visible(text: str) -> str:
    """Return a text on one line, with marks for what would steer a terminal: users wrote it."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def harmless(text: str) -> str:
    """Return users' words with their lines, with marks for what would steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def listed(counts: Mapping[str, int]) -> str:
    """Return counts as words: ``3 ok, 1 too short``."""
    return ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items())


def say_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Print names and values as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts:
        if isinstance(value, dict):
            value = ", ".join(f"{key.replace('_', ' ')} {n}" for key, n in value.items())
        shown = "-" if value in (None, "") else str(value)
        table.add_row(name.replace("_", " "), Text(harmless(shown)))
    out.print(table)


def say(text: str) -> None:
    """Print a sentence of a result: words as they are, broken only where the reader's end is."""
    text = "\n".join(visible(line) if line.strip() else "" for line in text.split("\n"))
    out.print(text, markup=False, highlight=False, soft_wrap=True)
