"""``langchain-uno logs``: what users asked, were answered, and said about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from langchain_uno.cli.console import (
    EmbeddingsOption,
    JsonOption,
    ModelOption,
    QuietOption,
    at_home,
    err,
    harmless,
    listed,
    out,
    print_json,
    say,
    say_facts,
    visible,
)
from langchain_uno.cli.progress import Bars
from langchain_uno.errors import EmptyLogError, InputError
from langchain_uno.home import Home, load_settings
from langchain_uno.records import last_asked
from langchain_uno.reports.render import counted

if TYPE_CHECKING:
    from langchain_uno.logs.exchange import ImportResult
    from langchain_uno.logs.store import LogStore

app = typer.Typer(no_args_is_help=True, help="What users asked, were answered, and said.")

_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")]
_SHOWN = 20
"""Bad rows that are named one by one."""
_LISTED = 200
"""Characters of a request in a list."""


@app.command("import")
@at_home("Stopped. What was read is kept: the same call again reads the rest.", must_exist=False)
def import_(
    place: Home,
    file: Annotated[
        str, typer.Argument(help="JSON lines, a JSON array, CSV or Parquet; '-' reads JSON or CSV.")
    ],
    format: Annotated[
        str | None, typer.Option(help="The rows' format. [default: told by each row's shape]")
    ] = None,
    redact: Annotated[
        bool, typer.Option(help="Take personal data and secrets out before storing.")
    ] = True,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read a file of dialogs into the home's journal.

    Reads what `export` wrote, chats as {"messages": [{"role", "content"}, ...]} with optional
    feedback, and the exports and logs of docs/guides/import.md: ChatGPT, Open WebUI, LibreChat,
    LangSmith, Langfuse, LiteLLM, ShareGPT, WildChat, OASST, preference pairs and others. Files may
    be gzipped, UTF-8 or UTF-16. A dialog with several answers becomes several records, and each
    later user turn is feedback of the answer before it.

    Importing a file again changes nothing. Bad rows are reported, the others go in. What was
    passed over (ties, rows without an answer) is counted by reason.

        langchain-uno logs import chats.jsonl --home ./home

    Exit codes: 0 all rows are in, 2 no such file or format, or some rows were bad, 3 the home can't
    be written, 7 the journal can't be written, 130 stopped (the same call finishes it).
    """
    from langchain_uno.logs.exchange import import_file
    from langchain_uno.logs.redaction import no_redaction

    with Bars(quiet, as_json=as_json) as bars:
        bars.start("import", None)
        result = import_file(
            file,
            place,
            format=format,
            redactor=None if redact else no_redaction(),
            on_row=lambda n: bars.advance("import", n),
        )
        bars.finish("import", counted(result.rows, "row"))
    for number, reason in result.bad[:_SHOWN]:
        err.print(f"line {number}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if result.bad_rows > _SHOWN:
        err.print(f"... and {result.bad_rows - _SHOWN} more bad rows")
    if as_json:
        print_json({**vars(result), "bad": [{"line": n, "reason": r} for n, r in result.bad]})
    else:
        say(
            f"{counted(result.rows, 'row')}: {counted(result.interactions, 'new interaction')}, "
            f"{counted(result.feedback, 'new piece', 'new pieces')} of feedback, {result.known} "
            f"already there ({listed(result.languages) or 'no text'})."
        )
        if passed := {k: n for k, n in result.passed_over.items() if k != "bad_time"}:
            say(f"Passed over: {listed(passed)}.")
        if bad := result.passed_over["bad_time"]:
            say(f"{counted(bad, 'time')} can't be read: what has such a time is in without it.")
    _tell_what_is_missing(result)
    if result.bad_rows:
        raise InputError(
            f"{result.bad_rows} of {counted(result.rows, 'row')} could not be read; "
            f"{counted(result.rows - result.bad_rows, 'other is', 'others are')} in."
        )


def _tell_what_is_missing(result: ImportResult) -> None:
    if not result.rows:
        err.print("The file has no rows: nothing was imported.")
    if result.unread:
        names = f"{', '.join(map(visible, result.unread))}. The import guide names those it knows."
        err.print(f"Columns that no reader knows: {names}", markup=False, highlight=False)
    if result.stars:
        err.print(
            f"{counted(result.stars, 'rating is', 'ratings are')} of a scale that goes above 1: "
            "kept as values, which teach nothing. Give a `score` from 0 to 1 in their place, as "
            "the import guide says."
        )
    if result.waiting:
        err.print(
            f"{counted(result.waiting, 'piece')} of feedback waiting for answers that this home "
            "does not have. Import the file that has the answers."
        )
    if result.without_user:
        err.print(
            f"{counted(result.without_user, 'answer names', 'answers name')} no user in this home: "
            "such feedback counts as one person's, or one a conversation where nobody is named."
        )


@app.command()
@at_home()
def export(
    place: Home,
    file: Annotated[
        str | None, typer.Argument(help="Where the lines go. [default: standard output]")
    ] = None,
    usable: Annotated[
        bool, typer.Option("--usable", help="Leave out logs that the filters flag.")
    ] = False,
) -> None:
    """Write every interaction as JSON lines.

    Each has run_id, messages (the prompt and, last, the answer), feedback and what else is known;
    `import` reads it back without any loss.

        langchain-uno logs export log.jsonl --home ./home

        langchain-uno logs export --home ./home > log.jsonl

    Exit codes: 0 done, 2 the file is there already or can't be written, 3 no such home, 6 the log
    is empty, 7 the journal can't be read.
    """
    from langchain_uno.logs.exchange import export_lines

    lines = export_lines(place, usable_only=usable)
    file = None if file == "-" else file  # as "import" reads it
    if (first := next(lines, None)) is None:
        all_of_it = ", or the filters flag all of it" if usable else ""
        raise EmptyLogError(f"Nothing to export: the log is empty{all_of_it}.")
    try:
        with open(file, "x", encoding="utf-8") if file else nullcontext(sys.stdout) as target:
            try:
                target.writelines(f"{line}\n" for line in chain([first], lines))
                target.flush()
            except BaseException:
                if file:  # no half of an export looks like a whole one
                    Path(file).unlink()
                raise
    except BrokenPipeError:  # "export | head": the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = repr(file) if file else "Standard output"
        raise InputError(f"{where} can't be written ({error.strerror or error}).") from error


@app.command()
@at_home()
def stats(place: Home, as_json: JsonOption = False) -> None:
    """Count what the log holds, and what of it can be learnt from.

    "verdicts" counts the logs by what the filters say of them (ok, duplicate, machine_turn,
    ...); "feedback" what people gave, with what waits; "follow_ups" later turns, which count as
    feedback besides; "pending" how many the Chroma store does not have yet; "waiting_feedback"
    feedback whose run has not arrived; "without_user" the logs that name no user.

    Exit codes: 0 done (an empty log is all zeros), 3 no such home, 7 the journal can't be read.
    """
    from langchain_uno.logs.stats import stats as count

    found = count(place)
    if as_json:
        print_json(found)
        return
    if not found["interactions"]:
        err.print("The log is empty.")
    say_facts(found.items())


@app.command()
@at_home("Stopped. What is in stays in: the same call again goes on from there.")
def drain(
    place: Home,
    model: ModelOption = None,
    embeddings: EmbeddingsOption = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Delete the index and make it anew.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring the Chroma store up to the journal.

    A refresh that learns something does this by itself; `search` finds what is in the store.

    Exit codes: 0 done, 3 no such home, 4 no such model, 5 the store holds another model's vectors,
    7 the store can't be used, 8 another process uses it, 130 stopped (the same call goes on).
    """
    from langchain_uno.logs.store import LogStore

    with LogStore.open(place, _embedder(model, embeddings), rebuild=rebuild) as store:
        with Bars(quiet, as_json=as_json) as bars:
            bars.start("drain", store.pending())
            n = store.drain(lambda done: bars.advance("drain", done))
            bars.finish("drain")
        total = store.count()
    if as_json:
        print_json({"drained": n, "total": total})
    else:
        say(f"{counted(n, 'record')} written; the store has {total:,}.")


@app.command()
@at_home()
def search(
    place: Home,
    text: Annotated[str, typer.Argument(help="A request, as a user would write it.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many to show.")] = 5,
    model: ModelOption = None,
    embeddings: EmbeddingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find past feedback on requests like this one.

    Searches the Chroma index by meaning, so it loads the model that embeds. Records that are not in
    the index yet are not found: `drain` brings them in.

        langchain-uno logs search "a letter to my landlord" --home ./home

    Exit codes: 0 done (also when nothing is near), 2 no text, 3 no such home, 4 no such model, 5
    the index holds another model's vectors, 7 the store can't be used, 8 another process uses it.
    """
    if not text.strip():
        raise InputError("Say what to look for: the text is empty.")
    from langchain_uno.logs.store import LogStore

    with LogStore.open(place, _embedder(model, embeddings)) as store:
        waiting, found = store.pending(), _nearest_feedback(store, text, k)
    if waiting:
        wait = counted(waiting, "record is", "records are")
        err.print(f"{wait} not in the index yet: langchain-uno logs drain.")
    if as_json:
        print_json({"found": found, "pending": waiting})
        return
    if not found:
        err.print("Nothing found: no record of the index has feedback.")
    for one in found:
        _print_one(f"{one['distance']:.2f}", one["request"], one["feedback"], one["run_id"])


def _print_one(mark: str, request: str, feedback: list[dict[str, Any]], run_id: str) -> None:
    """Print what was asked, what was said about the answer, and the run's id."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row(mark, Text(visible(request)))
    for said in feedback:
        table.add_row("", Text(visible(_said(said)), style="bold"))
    table.add_row("", Text(f"run {visible(run_id)}", style="dim"))
    out.print(table)


def _nearest_feedback(store: LogStore, text: str, k: int) -> list[dict[str, Any]]:
    """Return the ``k`` nearest records that have feedback: request, feedback, run and distance."""
    chosen = dict(store.nearest(text, k))
    return [
        {
            "run_id": log.run_id,
            "distance": round(chosen[log.run_id], 4),
            "request": last_asked(log.messages),
            "feedback": [f.model_dump(mode="json", exclude_none=True) for f in log.feedback],
        }
        for log in sorted(store.interactions(list(chosen)), key=lambda log: chosen[log.run_id])
    ]


@app.command()
@at_home()
def show(
    place: Home,
    run: Annotated[
        str | None,
        typer.Argument(
            help="Run id, root run id or message id. [default: the last ten are listed]"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one interaction and what was said about it; without an id, list the last ones.

        langchain-uno logs show --home ./home

    Exit codes: 0 done, 2 no such run, 3 no such home, 7 the journal can't be read.
    """
    from langchain_uno.logs.exchange import find, last

    if run is None:
        _list(last(place), as_json)
        return
    found = find(place, run)
    if as_json:
        print_json(found)
        return
    for message in found["messages"]:
        out.print(Text(f"{message['role']}: ", style="bold") + Text(harmless(message["content"])))
    told = ((k, str(v)) for k, v in found.items() if v and k not in ("messages", "feedback"))
    say_facts([*told, *(("feedback", _said(one)) for one in found["feedback"])])


def _list(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the last interactions and how to see one whole."""
    if as_json:
        print_json({"last": rows})
        return
    if not rows:
        err.print("The log is empty.")
        return
    for row in rows:
        asked = [m["content"] for m in row["messages"] if m["role"] == "user"]
        when = str(row["created_at"])[:16].replace("T", " ")
        _print_one(when, asked[-1][:_LISTED] if asked else "", row["feedback"], row["run_id"])
    say("One of them with all its words: langchain-uno logs show RUN.")


@app.command()
@at_home("Stopped. The same call again finishes it.")
def forget(
    place: Home,
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would go; change nothing.")
    ] = False,
    yes: _Yes = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Forget a user, a conversation or runs, for good.

    On a terminal it first says what would go and which releases would be revoked, and asks. Without
    a terminal it needs --yes. With --json it never asks.

    It deletes the records, the feedback, what quotes them, their vectors and what refreshes made of
    them. Releases that learnt from them are revoked, and the nearest sound one (or the base model)
    answers. The next `train` trains the modules anew that learnt from them, and keeps the others.
    Keyed hashes stay behind, so that importing an old export brings nothing back. It prints a
    receipt with counts and nobody's ids. Where nothing is found nothing is changed.

    Exported files lie outside the home: delete them yourself. Every host has a log of its own: call
    it on each. The next call finishes a killed one.

        langchain-uno logs forget --user u-17 --home ./home

        langchain-uno logs forget --user u-17 --home ./home --dry-run --json

    Exit codes: 0 done (also when nothing was found), 1 the answer was no, 2 nothing named, or --yes
    is missing without a terminal, 3 no such home, 7 the journal or Chroma can't be used, 8 a
    refresh or drain is running, 130 stopped.
    """
    from langchain_uno.erasure import forget as forget_
    from langchain_uno.erasure import forget_preview

    asked: dict[str, Any] = {"user_id": user, "thread_id": thread, "run_ids": run or ()}
    if dry_run or not (yes or as_json):
        found = forget_preview(place, **asked)
        if dry_run and as_json:
            print_json(found)
            return
        _tell_what_goes(place, found)
        if dry_run:
            return
        if not sys.stdin.isatty():
            raise InputError("There is no terminal to ask on: give --yes to go on unasked.")
        typer.confirm("This can't be undone. Forget it?", abort=True, err=True)
    found = _erase("forget", partial(forget_, place, **asked), quiet, as_json)
    if not found["found"] and not as_json:
        say("Nothing of it is in this log: nothing was changed.")


def _tell_what_goes(home: Home, found: dict[str, Any]) -> None:
    from langchain_uno.releases.summary import said_of, shares_of, state_of

    said = counted(found["feedback"], "piece of feedback", "pieces of feedback")
    say(f"This deletes {counted(found['interactions'], 'answer')} and {said}.")
    shares = shares_of(home)
    for release in found["releases"]:
        state = state_of(home, release, shares.get(release, 0.0))
        say(f"This revokes release {release} ({state}).")
    if found["releases"]:
        say(f"Then this answers: {said_of(found['answers'])}.")


@app.command()
@at_home("Stopped. The same call again finishes it.")
def retain(
    place: Home,
    days: Annotated[
        float | None,
        typer.Option(help="Keep so many days. [default: logs.retention_days of settings.toml]"),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Forget what is older than the namespace keeps.

    Refreshes do this by themselves. Releases that learnt from deleted logs stay, until a person
    whose logs these were asks to be forgotten.

    Exit codes: 0 done, 2 no number of days is set, 3 no such home, 7 the journal or Chroma can't be
    used, 8 a refresh or drain is running, 130 stopped.
    """
    from langchain_uno.erasure import forget_older

    kept = days if days is not None else load_settings(place).logs.retention_days
    if kept is None:
        raise InputError(
            f"How long are logs kept? Give --days, or set logs.retention_days in "
            f"{str(place.settings)!r}."
        )
    _erase("retain", partial(forget_older, place, days=kept), quiet, as_json)


def _erase(
    name: str, work: Callable[..., dict[str, Any]], quiet: bool, as_json: bool
) -> dict[str, Any]:
    """Do an erasure, show its progress, print its receipt and return it."""
    from langchain_uno.erasure import STEPS
    from langchain_uno.releases.summary import said_of

    with Bars(quiet, as_json=as_json) as bars:
        bars.start(name, len(STEPS))
        receipt = work(on_step=lambda step: bars.advance(name))
        bars.finish(name)
    if as_json:
        print_json(receipt)
    else:
        told = ((k, str(v)) for k, v in receipt.items() if k not in ("releases", "answers"))
        say_facts(told)
        for release in receipt["releases"]:
            say(f"Release {release} is revoked.")
        if receipt["releases"]:
            say(f"This answers now: {said_of(receipt['answers'])}.")
        err.print("Done.")
    return receipt


def _said(feedback: dict[str, Any]) -> str:
    """Write one piece of feedback in a line: its key, its score or value, its words."""
    parts = (("{}", "key"), (" {}", "score"), (" (value {})", "value"))
    told = "".join(form.format(feedback[k]) for form, k in parts if feedback.get(k) is not None)
    words = feedback.get("comment") or feedback.get("correction")
    return f"{told}: {words}" if words else told


def _embedder(model: str | None, embeddings: str | None) -> Any:
    from langchain_uno.models.loading import load_embedder, load_engine

    engine = None if embeddings is not None else load_engine(model)
    return load_embedder(embeddings, engine)
