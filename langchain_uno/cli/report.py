"""``langchain-uno report``: where the page lies that tells people what a refresh did."""

from __future__ import annotations

from typing import Annotated

import typer

from langchain_uno.cli.console import JsonOption, at_home, chosen_release, print_json, say
from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home

__all__ = ["report"]


@at_home()
def report(
    place: Home,
    release: Annotated[
        str | None,
        typer.Argument(help="The release's id. [default: the current one]", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print where the report of the refresh lies that made a release.

    It is one HTML file that needs no network: what changed, from whose feedback, on what evidence,
    with answers before and after. The same in Markdown and as data lies beside it.

        langchain-uno report --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, or the report can't be read, 9 no such
    release, or it has no report.
    """
    name = chosen_release(place, release)
    from langchain_uno.reports.store import read_report, report_paths

    found = read_report(place, name)
    if found is None:
        raise ReleaseError(
            f"Release {name!r} has no report: it was made by an older version, or the report "
            "quoted a log that was forgotten, or was older than the home keeps logs. "
            "`langchain-uno releases show` tells what the release itself knows."
        )
    paths = report_paths(place, name)
    if as_json:
        print_json({"release": name, **{k: str(v) for k, v in paths._asdict().items()}})
    else:
        say(str(paths.html))
