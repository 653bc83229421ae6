"""``langchain-uno releases``: what was learnt, what answers, and going back."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from langchain_uno.cli.canary import canary, canary_line, end_canary, watch
from langchain_uno.cli.console import (
    COUNTED,
    ByOption,
    JsonOption,
    ReleaseArgument,
    WhyOption,
    at_home,
    chosen_release,
    out,
    print_json,
    say,
    visible,
)
from langchain_uno.cli.shadow import shadow
from langchain_uno.home import Home, load_settings, refresh_lock
from langchain_uno.releases.history import HoldWhen, held, hold, let_go, read_history, waiting
from langchain_uno.releases.load import find_manifest, list_releases, read_manifest
from langchain_uno.releases.prune import prune
from langchain_uno.releases.publish import make_current, rollback
from langchain_uno.releases.summary import changes_of, row_of, shares_of, win_rate_of
from langchain_uno.reports.render import counted
from langchain_uno.reports.store import find_report, report_paths

app = typer.Typer(no_args_is_help=True, help="What was learnt, what answers, and going back.")

_HISTORY = 10
"""Lines of the history that `list` shows."""


@app.command("list")
@at_home()
def list_(place: Home, as_json: JsonOption = False) -> None:
    """Show all releases of a home, oldest first, and who changed what answers.

        langchain-uno releases list --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, 9 traffic.json is damaged.
    """
    rows = [_row(place, name, shares_of(place)) for name in list_releases(place)]
    history = read_history(place)
    if as_json:
        more = {"canary": canary_line(place), "waits_for_approval": waiting(place)}
        print_json({"releases": rows, "held": held(place), "history": history, **more})
        return
    if not rows:
        say("There is no release yet: `langchain-uno train` makes one.")
    else:
        table = Table(box=None, pad_edge=False)
        table.add_column("release", no_wrap=True)
        for name in ("modules", "coverage", "MB", "state"):
            table.add_column(name)
        for row in rows:
            table.add_row(
                row["id"],
                _modules(row["routes"]),
                "-" if row["coverage"] is None else f"{100 * row['coverage']:.0f} %",
                f"{row['bytes'] / 1e6:.1f}",
                Text(row["state"], style="green" if row["share"] else "dim"),
            )
        out.print(table)
    for entry in history[-_HISTORY:]:
        say(_told(entry))
    if line := canary_line(place):
        say(f"Canary: {line}")
    _say_held(place)


@app.command()
@at_home()
def show(
    place: Home,
    release: Annotated[
        str | None,
        typer.Argument(help="The release's id. [default: the current one]", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a release's clusters: who answers, on what evidence, by which rules.

    It also prints the path of the refresh's report: one HTML file that needs no network, with what
    was learnt from how many people, and answers before and after. The same lies beside it in
    Markdown and as data.

        langchain-uno releases show r20260301-120000-4f1c9a --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, 9 no such release.
    """
    release = chosen_release(place, release)
    manifest = read_manifest(place, release)
    row = _row(place, release, shares_of(place))
    page = report_paths(place, release).html
    row["report"] = str(page) if page.exists() else None
    if as_json:
        shown = {"id", "route", "size", "people", "gap", "rules", "note", "made_in"}
        clusters = [
            {
                **c.model_dump(mode="json", include=shown),
                "report": c.reports[-1].model_dump(mode="json") if c.reports else None,
            }
            for c in manifest.clusters
        ]
        print_json({**row, "clusters": clusters, "figures": manifest.figures})
        return
    own: dict[str, dict[str, str]] = manifest.figures.get("review", {}).get("own", {})
    say(f"Release {release}: {row['state']}, made {row['created'][:16].replace('T', ' ')}.")
    say(f"Base model {manifest.base_model}; parent {manifest.parent or 'none'}.")
    say(f"Report: {row['report'] or 'none'}")
    columns = ("cluster", "route", "logs", "people", "gap", "win rate")
    table = Table(*columns, pad_edge=False)
    for cluster in manifest.clusters:
        gap = "-" if cluster.gap is None else f"{cluster.gap:.2f}"
        size, people = str(cluster.size), str(cluster.people)
        table.add_row(cluster.id, cluster.route, size, people, gap, win_rate_of(cluster))
    out.print(table)
    say(COUNTED)
    for cluster in manifest.clusters:
        if cluster.rules:
            say(f"{cluster.id} wants: {' '.join(map(visible, cluster.rules))}")
        for rule, by in own.get(cluster.id, {}).items():
            say(f"{cluster.id} has a rule of {visible(by)}'s own: {visible(rule)}")
        if cluster.note:
            say(f"{cluster.id}: {cluster.note}")


@app.command()
@at_home()
def diff(
    place: Home,
    old: Annotated[
        str, typer.Argument(help="A release's id, 'current', or 'base' for the model alone.")
    ],
    new: Annotated[str, typer.Argument(help="The release to compare it with, named alike.")],
    as_json: JsonOption = False,
) -> None:
    """Show what changed from one release to another: routes, rules, win rates, logs, sizes.

    A cluster of the one that goes on in the other has the same name in both. A typical request of
    each comes from the reports.

        langchain-uno releases diff r20260301-120000-4f1c9a r20260308-120000-77ab02 --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, 9 no such release.
    """
    names = (None if name == "current" else name for name in (old, new))
    old, new = (n if n == "base" else chosen_release(place, n) for n in names)
    changes = changes_of(*(None if n == "base" else read_manifest(place, n) for n in (old, new)))
    if as_json:
        print_json({"old": old, "new": new, "clusters": changes})
        return
    table = Table("cluster", "route", "win rate", "logs", "bytes", pad_edge=False)
    for one in changes:
        cells = (_arrow(one[key]) for key in ("route", "won", "logs", "bytes"))
        table.add_row(one["cluster"], *cells)
    out.print(table)
    reports = [r for n in (old, new) if n != "base" and (r := find_report(place, n, say))]
    asked = {c.id: c.request for report in reports for c in report.clusters}
    for one in changes:
        if request := asked.get(one["cluster"]):
            say(f"{one['cluster']} is asked: {visible(request)[:200]}")
        for sign, rules in (("+", one["rules_added"]), ("-", one["rules_removed"])):
            for rule in rules:
                say(f"{one['cluster']} {sign} {visible(rule)}")


@app.command()
@at_home()
def promote(place: Home, release: ReleaseArgument, why: WhyOption = "", by: ByOption = "") -> None:
    """Check a release and let it answer all requests.

    For a release that waits this is the approval. Running services take it with their next request.

        langchain-uno releases promote r20260301-120000-4f1c9a --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, 5 it is of another base model or embedder
    than what answers, 9 the release is refused (nothing changes).
    """
    found = make_current(place, release, why=why, by=by)
    bare = " It has no module: the base model answers everything." if not found.adapters else ""
    say(f"Release {found.id} answers.{bare}")


@app.command("rollback")
@at_home()
def rollback_(
    place: Home,
    to: Annotated[
        str | None,
        typer.Option(help="A release's id, or 'base' for the model alone. [default: the parent]"),
    ] = None,
    why: WhyOption = "",
    by: ByOption = "",
) -> None:
    """Go back to what answered when this release was made, until there is something new to learn.

    For the first release that is the base model. `train` without new logs, decisions or settings
    changes nothing; with them it makes a release, which answers at once or waits (`releases hold`).

        langchain-uno releases rollback --home ./home --why "complaints about refunds"

    Exit codes: 0 done, 2 bad argument, 3 no such home, 5 it is of another base model or embedder
    than what answers, 9 nothing to go back to, or it is refused (nothing changes).
    """
    found = rollback(place, to, why, by)
    who = f"Release {found.id}" if found else "The base model"
    say(f"{who} answers until `train` has something new to learn; `releases hold` keeps it.")


@app.command("hold")
@at_home()
def hold_(
    place: Home,
    off: Annotated[bool, typer.Option("--off", help="End the hold.")] = False,
    when: Annotated[
        HoldWhen,
        typer.Option(
            metavar="WHEN",
            help="'always', or 'routes': only releases that change the route of a cluster.",
        ),
    ] = "always",
    why: WhyOption = "",
    by: ByOption = "",
) -> None:
    """Let refreshes publish releases, which wait for a person to promote them, until `hold --off`.

        langchain-uno releases hold --home ./home --why "audit this week"

        langchain-uno releases hold --home ./home --when routes --by ann

    `status` says what waits, and `releases promote` approves it.

    Exit codes: 0 done, 2 bad argument, 3 no such home, or it can't be written.
    """
    if off:
        say("Refreshes promote again." if let_go(place, why, by) else "Nothing was held.")
        return
    hold(place, why, by, when)
    _say_held(place)


@app.command("prune")
@at_home()
def prune_(
    place: Home,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Releases that stay. [default: releases.keep of settings.toml]"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell which would go; change nothing.")
    ] = False,
    by: ByOption = "",
    as_json: JsonOption = False,
) -> None:
    """Delete the weights and reports of old releases.

    Refreshes do this by themselves. The newest releases stay. So does any release that answers,
    takes part in a canary or waits for approval, and its parent. Nobody can roll back to a pruned
    release; its manifest stays while the log has answers of it.

        langchain-uno releases prune --keep 5 --dry-run --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, or it can't be written, 7 the journal can't
    be read, 8 a refresh is running, 9 traffic.json is damaged.
    """
    kept = keep or load_settings(place).releases.keep
    with refresh_lock(place, "which may need what is pruned"):
        gone = prune(place, kept, by=by, dry_run=dry_run)
    if as_json:
        print_json({"keep": kept, "dry_run": dry_run, "pruned": gone})
        return
    for release in gone:
        say(f"{release} {'would be' if dry_run else 'is'} pruned.")
    if not gone:
        say(f"Nothing to prune: the newest {kept} and what is in use are kept.")


app.command()(canary)
app.command()(watch)
app.command("end-canary")(end_canary)
app.command()(shadow)


def _say_held(home: Home) -> None:
    if found := held(home):
        why = f": {found['why']}" if found.get("why") else ""
        what = "promote nothing"
        if found["when"] == "routes":
            what = "promote no release that changes a cluster's route"
        say(
            f"Held by {found['by']} since {found['at']}{why}. Refreshes publish, and {what}; "
            "`langchain-uno releases hold --off` ends that."
        )
    if release := waiting(home):
        say(f"Release {release} waits: `langchain-uno releases promote {release}` approves it.")


def _row(home: Home, release: str, shares: dict[str, float]) -> dict[str, Any]:
    """Return what a list says of a release, a broken one too."""
    return row_of(home, release, find_manifest(home, release), shares.get(release, 0.0))


def _modules(routes: dict[str, int]) -> str:
    named = [counted(n, route) for route, n in routes.items() if route != "base"]
    return ", ".join(named) or "none"


def _arrow(both: list[Any]) -> str:
    return " -> ".join(dict.fromkeys("none" if one is None else str(one) for one in both))


def _told(entry: dict[str, Any]) -> str:
    at = str(entry.get("at", ""))[:16].replace("T", " ")
    why = f" ({entry['why']})" if entry.get("why") else ""
    return f"{at}  {entry.get('what')} {entry.get('release') or ''} by {entry.get('by')}{why}"
