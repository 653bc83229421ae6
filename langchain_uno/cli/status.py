"""``langchain-uno status``: one look at a home: what answers, how often, what waits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from langchain_uno.cli.canary import canary_line
from langchain_uno.cli.console import (
    HomeOption,
    JsonOption,
    NamespaceOption,
    clean_exit,
    out,
    print_json,
    visible,
)
from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.releases.history import held, waiting
from langchain_uno.releases.load import list_releases, read_manifest
from langchain_uno.releases.traffic import read_traffic

__all__ = ["status"]

_DAYS = 7


def status(
    home: HomeOption = None, namespace: NamespaceOption = "default", as_json: JsonOption = False
) -> None:
    """Show what answers, how many requests reach a cluster, and what waits.

    Requests are those of the last seven days that a handler captured. "Reach a cluster" is the
    share of them that a release's cluster took; the others went to the base model.

        langchain-uno status --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, 7 the journal can't be read, 9 traffic.json
    is damaged.
    """
    with clean_exit():
        place = Home.locate(home, namespace).require()
        found = _look(place)
        if as_json:
            print_json(found)
            return
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in found.items():
            table.add_row(name.replace("_", " "), Text(visible(_said(name, value))))
        out.print(table)


def _look(home: Home) -> dict[str, Any]:
    traffic = read_traffic(home)
    releases = list_releases(home)
    made = _newest(home, releases)
    with Journal(home.journal, readonly=True) as journal:
        answers, feedback = journal.counts()
        unjoined, _ = journal.unjoined()
        new = journal.feedback_since(made.timestamp() if made else 0.0)
        week = journal.traffic(time.time() - _DAYS * 86400)
    requests = sum(n for _, _, n in week)
    by_uno = sum(n for release, _, n in week if release)
    reached = sum(n for _, cluster, n in week if cluster)
    return {
        "home": str(home.path),
        "answers": {s.release or "the base model": s.share for s in traffic.shares}
        if traffic
        else {},
        "releases": len(releases),
        "last_release": made.isoformat(timespec="seconds") if made else None,
        "held": held(home),
        "waits_for_approval": waiting(home),
        "canary": canary_line(home),
        "logged": answers,
        "feedback": feedback,
        "feedback_since_the_last_release": new,
        "feedback_that_waits_for_its_answer": unjoined,
        "requests_in_7_days": requests,
        "reach_a_cluster": round(reached / by_uno, 4) if by_uno else None,
        "answered_by": _shares(week),
    }


def _newest(home: Home, releases: Sequence[str]) -> datetime | None:
    """Return when the newest release was made that can be read."""
    for release in reversed(releases):
        try:
            return read_manifest(home, release).created
        except ReleaseError:
            continue
    return None


def _shares(week: list[tuple[str | None, bool, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for release, _, n in week:
        found[release or "no release"] = found.get(release or "no release", 0) + n
    return found


def _said(name: str, value: Any) -> str:
    if name == "answers":
        told = [r if share > 0.999 else f"{r} ({100 * share:.0f} %)" for r, share in value.items()]
        return ", ".join(told) or "the base model"
    if name == "held":
        if not value:
            return "no"
        what = " (changes of routes)" if value["when"] == "routes" else ""
        return f"by {value['by']} since {value['at']}{what} {value['why']}"
    if name == "waits_for_approval":
        return f"{value}: `langchain-uno releases promote {value}` approves it" if value else "-"
    if name == "reach_a_cluster" and value is not None:
        return f"{100 * value:.0f} %"
    if isinstance(value, dict):
        return ", ".join(f"{n} {key}" for key, n in value.items()) or "-"
    return "-" if value is None else str(value)
