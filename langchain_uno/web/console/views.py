"""How things are shown: templates in which every text is escaped and visible, pages of lists."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment

from langchain_uno.records import Cluster
from langchain_uno.releases.summary import win_rate_of
from langchain_uno.reports import render

PAGE = 50


class Pager:
    """One page of a list: which rows it shows, and whether others come before and after.

    Args:
        number: of the page, from 1; beyond the end it is the last one.
        total: rows in all; None: not counted.
        more: where they are not counted, whether there is a page after this one.
    """

    def __init__(self, number: int, total: int | None, more: bool = False) -> None:
        last = number + more if total is None else max(1, -(-total // PAGE))
        self.number, self.total = min(number, last), total
        self.last = None if total is None else last
        self.start, self.end = (self.number - 1) * PAGE, self.number * PAGE
        self.before = self.number - 1 or None
        self.after = self.number + 1 if self.number < last else None


def fits(cluster: Cluster, query: str) -> bool:
    """Whether a cluster's name, rules or note contain what was searched for."""
    text = "\n".join((cluster.id, *cluster.rules, cluster.note)).casefold()
    return query.casefold() in text


def told(change: dict[str, Any]) -> bool:
    """Whether a change of a cluster is one."""
    changed = any(change[name][0] != change[name][1] for name in ("route", "won", "logs", "bytes"))
    return changed or bool(change["rules_added"] or change["rules_removed"])


def environment() -> Environment:
    """Return the templates' environment."""
    return render.environment(
        "langchain_uno.web.console",
        when=_when,
        percent=lambda share: "unknown" if share is None else f"{100 * share:.0f} %",
        counted=render.counted,
        number=lambda n: f"{n:,}",
        won=win_rate_of,
        link=lambda values: urlencode({k: v for k, v in values.items() if v}),
    )


def _when(value: Any) -> str:
    """Return a time, given as ISO text or as seconds since 1970, in UTC to the minute."""
    if not value:
        return "never"
    if isinstance(value, int | float):
        return f"{datetime.fromtimestamp(value, timezone.utc):%Y-%m-%d %H:%M}"
    try:
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M}"
    except ValueError:
        return str(value)
