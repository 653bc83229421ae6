"""``langchain-uno review``: read what is to be taught, and decide about it before it is trained."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from langchain_uno.cli.console import (
    ByOption,
    JsonOption,
    WhyOption,
    at_home,
    out,
    print_json,
    say,
    visible,
)
from langchain_uno.errors import HomeError, InputError
from langchain_uno.home import Home
from langchain_uno.learning.decisions import Decision, Kind
from langchain_uno.learning.review import ReviewPage, ReviewRow, decide, review_table
from langchain_uno.learning.work import refresh_line
from langchain_uno.reports.render import counted

app = typer.Typer(
    no_args_is_help=True,
    help="Read what is to be taught, and decide about it before it is trained.",
)

_Ids = Annotated[list[str], typer.Argument(help="Rows' ids, as `review list` prints them.")]
_KindOption = Annotated[
    Kind | None, typer.Option("--kind", metavar="KIND", help="Rows of one kind: rule, pair or log.")
]
_ClusterOption = Annotated[str | None, typer.Option("--cluster", help="Rows of one cluster.")]
_Everywhere = Annotated[
    bool, typer.Option("--everywhere", help="Rules: in all clusters, not in their own alone.")
]
_COLUMNS = (
    "id", "kind", "cluster", "about", "state", "reason", "people", "source", "score",
    "rejected_score", "text", "run", "request", "rejected", "said", "chosen",
    "decided", "decided_by", "decided_at", "decided_why", "decision", "why",
)  # fmt: skip
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How a cell begins that a spreadsheet may run, or that was marked so that it does not."""


@app.command("list")
@at_home()
def list_(
    place: Home,
    kind: _KindOption = None,
    cluster: _ClusterOption = None,
    offset: Annotated[int, typer.Option(min=0, help="Rows to leave out at the start.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show what the refresh under way teaches, else what the last one did.

    Rules come first, then pairs, then logs.

        langchain-uno train --home ./home --until pairs

        langchain-uno review list --home ./home --kind rule

    Exit codes: 0 done, 2 bad argument, 3 no such home, 7 the refresh's folder can't be read.
    """
    page = review_table(place, kind=kind, cluster=cluster, offset=offset, limit=limit)
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    for row in page.rows:
        who = [counted(row.people, "person", "people")] if row.people else []
        standing = ", ".join(filter(None, [row.cluster, row.state, row.reason, *who]))
        out.print(Text(f"{row.id} ({standing})", "bold"))
        shown = Text(visible(_in_short(row)))
        if row.run:
            shown.append(f"\nrun {visible(row.run)}", "dim")
        out.print(Padding(shown, (0, 0, 0, 2)))
    if line := refresh_line(place):
        say(f"{line[:1].upper()}{line[1:]}.")
    _say_page(page, offset)


@app.command("export")
@at_home()
def export(
    place: Home,
    file: Annotated[Path, typer.Argument(help="A name that ends in .csv or .jsonl.")],
    kind: _KindOption = None,
    cluster: _ClusterOption = None,
) -> None:
    """Write the table to a file for a spreadsheet (.csv), or a row a line (.jsonl).

    Put `exclude`, `restore` or `edit` into the column "decision" of a row, and the reason into
    "why". An edit takes the cell "text" of a rule, and "chosen" of a pair, as it is then. Other
    columns and rows without a decision are not read. `review import` takes the file back.

        langchain-uno review export review.csv --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, or the file can't be written, 7 the
    refresh's folder can't be read.
    """
    as_csv = _is_csv(file)
    page = review_table(place, kind=kind, cluster=cluster, limit=None)
    rows = [_flat(row) for row in page.rows]
    try:
        with file.open("w", encoding="utf-8-sig" if as_csv else "utf-8", newline="") as target:
            if as_csv:
                writer = csv.DictWriter(target, _COLUMNS)
                writer.writeheader()
                writer.writerows({k: _escaped(v) for k, v in row.items()} for row in rows)
            else:
                target.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        why = error.strerror or error
        raise HomeError(f"{str(file)!r} can't be written ({why}).") from error
    say(f"{counted(len(rows), 'row is', 'rows are')} in {file}.")
    _say_page(page, 0)


@app.command("import")
@at_home(must_exist=False)
def import_(
    place: Home,
    file: Annotated[Path, typer.Argument(help="What `review export` wrote, with decisions.")],
    by: ByOption = "",
    why: WhyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take the decisions from a file: all of them, or none if one is wrong.

    The next `train` applies them.

        langchain-uno review import review.csv --home ./home --by ann

    Exit codes: 0 done, 2 the file or a row is wrong (nothing was decided), 3 no such home, or it
    can't be written, 7 the refresh's folder can't be read.
    """
    wanted = [
        {
            "id": row.get("id"),
            "decision": str(row["decision"]).strip().casefold(),
            "text": row.get("chosen" if row.get("kind") == "pair" else "text"),
            "why": row.get("why"),
            "cluster": row.get("cluster"),
            "place": f"row {number}",
        }
        for number, row in _read(file)
        if str(row.get("decision") or "").strip()
    ]
    _decide(place, wanted, by, why, as_json)


@app.command("add")
@at_home()
def add(
    place: Home,
    cluster: Annotated[str, typer.Argument(help="The cluster, as `review list` names it.")],
    text: Annotated[str, typer.Argument(help="The rule: one instruction.")],
    by: ByOption = "",
    why: WhyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Add a rule of your own to a cluster. It is taught like one that many people ask for.

    `review exclude` with its row's id takes it away again.

        langchain-uno review add c0 "Name the price with tax." --home ./home --by ann

    Exit codes: 0 done, 2 bad argument, 3 no such home, or it can't be written, 7 the refresh's
    folder can't be read.
    """
    _decide(place, [{"decision": "add", "cluster": cluster, "text": text}], by, why, as_json)


@app.command("exclude")
@at_home()
def exclude(
    place: Home,
    ids: _Ids,
    everywhere: _Everywhere = False,
    by: ByOption = "",
    why: WhyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take rules, pairs or logs out of what is taught.

        langchain-uno review exclude rule-0123456789abcdef --home ./home --why "off topic"

    Exit codes: 0 done, 2 there is no such row (nothing was decided), 3 no such home, or it can't be
    written, 7 the refresh's folder can't be read.
    """
    _decide(place, _each(ids, "exclude", everywhere), by, why, as_json)


@app.command("restore")
@at_home()
def restore(
    place: Home,
    ids: _Ids,
    everywhere: _Everywhere = False,
    by: ByOption = "",
    why: WhyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take back what was excluded or edited.

        langchain-uno review restore rule-0123456789abcdef --home ./home

    Exit codes: 0 done, 2 there is no such row (nothing was decided), 3 no such home, or it can't be
    written, 7 the refresh's folder can't be read.
    """
    _decide(place, _each(ids, "restore", everywhere), by, why, as_json)


def _each(ids: list[str], what: str, everywhere: bool) -> list[dict[str, Any]]:
    return [{"id": one, "decision": what, "everywhere": everywhere, "place": one} for one in ids]


def _decide(home: Home, wanted: list[dict[str, Any]], by: str, why: str, as_json: bool) -> None:
    made = decide(home, wanted, by, why)
    if as_json:
        print_json({"decisions": [one.model_dump(mode="json") for one in made]})
        return
    for one in made:
        say(_told(one))
    if not made:
        say("No row has a new decision: nothing was decided.")
    else:
        say("`langchain-uno train` applies it.")


def _told(one: Decision) -> str:
    """Say what a decision does."""
    done = {"exclude": "excluded", "restore": "restored", "edit": "edited"}.get(one.what)
    where = f"in {one.cluster}" if one.anchor or one.kind != "rule" else "everywhere"
    if done is None:
        return f"{'added' if one.what == 'add' else 'removed'} {where}: {one.text}"
    what = next(iter(one.wordings), one.row)
    return f"{done} {one.kind} {where}: {what}{f' -> {one.text}' if one.text else ''}"


def _in_short(row: ReviewRow) -> str:
    told = row.text or ""
    if row.kind == "pair":
        told = f"{row.request} -> {row.chosen}"
    elif row.kind == "log":
        parts = {"": row.said, "edit: ": row.chosen, "rules: ": row.text}
        acts = [what + _cut(text, 120) for what, text in parts.items() if text]
        return f"{_cut(row.request or '', 120)} -> {'; '.join(acts)}"
    if row.edited:
        told += f" [taught instead: {row.edited}]"
    return _cut(told, 200)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _say_page(page: ReviewPage, offset: int) -> None:
    if page.refresh is None:
        say("There is nothing to review: `langchain-uno train --until pairs` makes the table.")
        return
    if len(page.rows) < page.total:
        shown = f"Rows {offset + 1} to {offset + len(page.rows)}" if page.rows else "No row"
        say(f"{shown} of {page.total}.")
    if page.pending:
        waits = counted(page.pending, "decision waits", "decisions wait")
        say(f"{waits} for the next `langchain-uno train`.")


def _flat(row: ReviewRow) -> dict[str, Any]:
    """Return a row as the file has it, with an edit in the place of what it edits."""
    told: dict[str, Any] = row.model_dump(mode="json", include=set(_COLUMNS))
    told["score"], told["rejected_score"] = row.scores or (None, None)
    if row.edited:
        told["chosen" if row.kind == "pair" else "text"] = row.edited
    last = row.decision.model_dump(mode="json") if row.decision else {}
    told |= {"decided": last.get("what")}
    told |= {f"decided_{key}": last.get(key) for key in ("by", "at", "why")}
    return {name: told.get(name) for name in _COLUMNS} | {"decision": "", "why": ""}


def _escaped(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _unescaped(value: str) -> str:
    return value[1:] if value.startswith("'") and _FORMULA.match(value) else value


def _is_csv(file: Path) -> bool:
    if file.suffix.casefold() not in (".csv", ".jsonl"):
        raise InputError(f"{str(file)!r} ends neither in .csv nor in .jsonl: name it so.")
    return file.suffix.casefold() == ".csv"


def _read(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the rows of a file, each with its number there (a spreadsheet's, or the line).

    Raises:
        InputError: it can't be read; says why.
    """
    as_csv = _is_csv(file)
    try:
        text = file.read_bytes().decode("utf-8-sig")
        if not as_csv:
            lines = enumerate(text.split("\n"), 1)
            rows = [(n, json.loads(line)) for n, line in lines if line.strip()]
            if not all(isinstance(row, dict) for _, row in rows):
                raise ValueError("a line is no JSON object")
            return rows
        header = text.split("\n", 1)[0]
        # Spreadsheets write what separates lists where they run.
        cut = max(",;\t", key=header.count)
        csv.field_size_limit(1 << 30)
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=cut)
        if len(set(table.fieldnames or ())) < len(table.fieldnames or ()):
            raise ValueError("two columns have one name")
        found = list(table)
    except UnicodeDecodeError as error:
        raise InputError(f"{str(file)!r} is not UTF-8: save it as CSV in UTF-8.") from error
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise InputError(f"{str(file)!r} can't be read ({error}).") from error
    if not {"id", "decision"} <= set(found[0] if found else ()):
        raise InputError(f"{str(file)!r} has no rows with the columns 'id' and 'decision'.")
    cells = [{k: _unescaped(v) if isinstance(v, str) else v for k, v in r.items()} for r in found]
    return list(enumerate(cells, 2))
