"""The log at the command line.

    python -m langchain_uno.logs import chats.jsonl --home DIR
    python -m langchain_uno.logs stats --home DIR --json
    python -m langchain_uno.logs export --home DIR > log.jsonl
    python -m langchain_uno.logs drain --home DIR                # journal -> Chroma: needs a model
    python -m langchain_uno.logs forget --user u-17 --home DIR

Results go to standard output, bars and messages to standard error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from langchain_uno.cli.logs_care import register
from langchain_uno.cli.progress import Bars, clean_exit, err, out, print_json
from langchain_uno.errors import EmptyLogError, InputError
from langchain_uno.home import ENV_HOME, Home

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="What a service's users asked, were answered, and said about it: in, out, and counted.",
)

_HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="The home folder.", envvar=ENV_HOME, show_default=False),
]
_Namespace = Annotated[str, typer.Option(help="Tenant inside the home.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_SHOWN = 20


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="A JSONL file; '-' reads standard input.")],
    home: _HomeOption = None,
    namespace: _Namespace = "default",
    redact: Annotated[
        bool,
        typer.Option(help="Take personal data and secrets out before storing."),
    ] = True,
    as_json: _Json = False,
) -> None:
    """Read a file of dialogs into the home's journal.

    One JSON object a line: {"messages": [{"role", "content"}, ...]} with optional id, thread_id,
    user_id, lang, created_at, model and feedback (a list of {"score", "comment", "correction",
    ...}; "turn" counts the answers from 0, the last by default); or what `export` wrote; or
    MemoryBench rows. A dialog with several answers becomes several records, and each later user
    turn is feedback of the answer before it. Other plain fields are kept as tags.

    Importing a file again changes nothing. Bad rows are reported by line, the others go in.

    Exit codes: 0 all rows are in, 2 no such file, or some rows were bad, 3 the home can't be
    written, 7 the journal can't be written, 130 stopped (the same call finishes it).
    """
    with clean_exit("Stopped. What was read is kept: the same call again reads the rest."):
        from langchain_uno.logs.exchange import import_file
        from langchain_uno.logs.redaction import no_redaction

        place = Home.locate(home, namespace)
        total = _lines(file)
        with Bars(off=as_json) as bars:
            bars.start("import", total)
            result = import_file(
                file,
                place,
                redactor=None if redact else no_redaction(),
                on_row=lambda n: bars.advance("import", n),
            )
        for number, reason in result.bad[:_SHOWN]:
            err.print(f"line {number}: {reason}", markup=False, highlight=False, soft_wrap=True)
        if len(result.bad) > _SHOWN:
            err.print(f"... and {len(result.bad) - _SHOWN} more bad rows")
        if as_json:
            print_json({**vars(result), "bad": [{"line": n, "reason": r} for n, r in result.bad]})
        else:
            languages = ", ".join(f"{n} {name}" for name, n in sorted(result.languages.items()))
            out.print(
                f"{result.rows} rows: {result.interactions} new interactions, {result.feedback} "
                f"new feedbacks, {result.known} already there ({languages or 'no text'}).",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        if not result.rows:
            err.print("The file has no rows: nothing was imported.")
        if result.bad:
            n_good = result.rows - len(result.bad)
            raise InputError(
                f"{len(result.bad)} of {result.rows} rows could not be read; the other {n_good} "
                "are in."
            )


@app.command()
def export(
    home: _HomeOption = None,
    namespace: _Namespace = "default",
    usable: Annotated[
        bool, typer.Option("--usable", help="Leave out what the filters flag.")
    ] = False,
) -> None:
    """Write every interaction to standard output, one JSON object a line.

    Each has run_id, messages (the prompt and, last, the answer), feedback and what else is known;
    `import` reads it back without any loss.

    Exit codes: 0 done, 3 no such home, 6 the log is empty, 7 the journal can't be read.
    """
    with clean_exit():
        from langchain_uno.logs.exchange import export_lines

        n = 0
        try:
            for line in export_lines(Home.locate(home, namespace), usable_only=usable):
                sys.stdout.write(line + "\n")
                n += 1
            sys.stdout.flush()
        except BrokenPipeError:  # "export | head": the reader has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if not n:
            raise EmptyLogError(
                "Nothing to export: the log is empty, or the filters flag all of it."
                if usable
                else "Nothing to export: the log is empty."
            )


@app.command()
def stats(
    home: _HomeOption = None, namespace: _Namespace = "default", as_json: _Json = False
) -> None:
    """Count what the log holds: languages, kinds of feedback, and which logs can be learnt from.

    "verdicts" counts the logs by what the filters say of them (ok, praise_only, prompt_injection,
    ...); "pending" how many the Chroma store does not have yet; "waiting_feedback" feedback whose
    run has not arrived.

    Exit codes: 0 done (an empty log is all zeros), 3 no such home, 7 the journal can't be read.
    """
    with clean_exit():
        from langchain_uno.logs.exchange import stats as count

        found = count(Home.locate(home, namespace))
        for name in ("first", "last"):
            found[name] = found[name].isoformat() if found[name] else None
        if as_json:
            print_json(found)
            return
        if not found["interactions"]:
            err.print("The log is empty.")
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in found.items():
            shown: Any = value
            if isinstance(value, dict):
                shown = ", ".join(f"{k} {n}" for k, n in value.items()) or "-"
            table.add_row(name.replace("_", " "), Text(str(shown if shown is not None else "-")))
        out.print(table)


@app.command()
def drain(
    home: _HomeOption = None,
    namespace: _Namespace = "default",
    model: Annotated[
        str | None,
        typer.Option(help="Base model that embeds. [default: the bundled model]"),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            help="HuggingFace embedding model instead. [default: the base model's layers]"
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Throw the index away and make it anew.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Bring the Chroma store up to the journal (a refresh does this by itself).

    Exit codes: 0 done, 3 no such home, 4 no such model, 5 the store holds another model's vectors,
    7 the store can't be used, 8 another process uses it, 130 stopped (the same call goes on).
    """
    with clean_exit("Stopped. What is in stays in: the same call again goes on from there."):
        place = Home.locate(home, namespace).require()
        from langchain_uno.logs.store import LogStore

        with LogStore.open(place, _embedder(model, embeddings), rebuild=rebuild) as store:
            with Bars(off=as_json) as bars:
                bars.start("drain", store.pending())
                n = store.drain(lambda done: bars.advance("drain", done))
            total = store.count()
        if as_json:
            print_json({"drained": n, "total": total})
        else:
            out.print(f"{n} records written; the store has {total}.", highlight=False)


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="Run id, root run id or message id.")],
    home: _HomeOption = None,
    namespace: _Namespace = "default",
    as_json: _Json = False,
) -> None:
    """Show one interaction: the conversation, what was said about it, and what becomes of it.

    Exit codes: 0 done, 2 no such run, 3 no such home, 7 the journal can't be read.
    """
    with clean_exit():
        from langchain_uno.logs.exchange import find

        found = find(Home.locate(home, namespace), run)
        if as_json:
            print_json(found)
            return
        for message in found["messages"]:
            out.print(Text(f"{message['role']}: ", style="bold") + Text(message["content"]))
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in found.items():
            if name not in ("messages", "feedback") and value not in (None, {}, []):
                table.add_row(name.replace("_", " "), Text(str(value)))
        for one in found["feedback"]:
            said = one.get("comment") or one.get("correction") or one.get("value") or ""
            table.add_row(f"feedback: {one['key']}", Text(f"{one.get('score', '')} {said}".strip()))
        out.print(table)


register(app)


def _embedder(model: str | None, embeddings: str | None) -> Any:
    from langchain_uno.models.loading import is_embedder_alone, load_embedder, load_engine

    engine = None if is_embedder_alone(embeddings) else load_engine(model)
    return load_embedder(embeddings, engine)


def _lines(file: str) -> int | None:
    if file == "-":
        return None
    try:
        with open(file, "rb") as source:
            return sum(block.count(b"\n") for block in iter(lambda: source.read(1 << 20), b""))
    except OSError:
        return None  # the import itself says what is wrong


def main() -> None:
    """Run the command line."""
    app(prog_name="python -m langchain_uno.logs")


if __name__ == "__main__":
    main()
