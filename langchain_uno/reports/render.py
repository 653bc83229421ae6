"""A report as pages: HTML and Markdown that need nothing from outside, and the map of clusters.

What users, models and people wrote stays text. HTML escapes it. Markdown shows it as code, in which
nothing is markup. Marks that would turn the direction of the text around them are replaced.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

from langchain_uno.reports.store import MapPoint, Report

if TYPE_CHECKING:
    from jinja2 import Environment, Template

MAX_BYTES = 3_500_000
"""Of the clusters' part of a page: those that don't fit are counted. The rest has bounds."""
COLOURS = (
    "#2b7bba", "#c9602a", "#358a4c", "#9c57b3", "#a07b1f", "#cc4f78", "#328c8c", "#7a7f87",
)  # fmt: skip
"""At least 3 to 1 against a white and a nearly black page."""
LABELS = 24
"""Clusters whose names stand on the map, the largest."""

_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_MARKUP = re.compile(r"([\\`*_\[\]<>&|#~!])")


def shown(value: Any) -> Any:
    """Return a text with marks for what turns, breaks or controls it; what is markup stays.

    Joiners, soft hyphens, direction marks and the tags of emoji belong to people's texts.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(
        "\ufffd"
        if unicodedata.bidirectional(c) in _TURNING
        or (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t")
        else c
        for c in value.replace("\r\n", "\n")
    )


def counted(n: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 answer``, ``2 answers``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Write a time in at most six columns."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.0f} h"


def render_html(report: Report) -> str:
    """Return a report's page: one file without scripts that asks no other file for anything."""
    return _page("report.html.jinja", report)


def render_markdown(report: Report) -> str:
    """Return a report in Markdown."""
    return _page("report.md.jinja", report)


def cluster_map(points: Sequence[MapPoint]) -> str:
    """Return the map of clusters as an SVG image to stand in a page of HTML.

    Points of clusters that a module answers are filled, the others are rings. Colours tell
    neighbours apart and come back after eight clusters.

    Args:
        points: a sample of logs, in any scale.
    """
    if not points:
        return ""
    width, height, edge = 640.0, 400.0, 26.0
    xs, ys = [p.x for p in points], [p.y for p in points]
    wide, high = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    members: dict[str, list[tuple[float, float]]] = {}
    drawn = []
    by_size = Counter(sorted(p.cluster for p in points)).most_common()  # of equals by name
    colour = {name: COLOURS[i % len(COLOURS)] for i, (name, _) in enumerate(by_size)}
    for p in points:
        x = edge + (p.x - min(xs)) / wide * (width - 2 * edge)
        y = height - edge - (p.y - min(ys)) / high * (height - 2 * edge)
        members.setdefault(p.cluster, []).append((x, y))
        filled = "none" if p.route == "base" else colour[p.cluster]
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{filled}" '
            f'stroke="{colour[p.cluster]}" stroke-width="1.4"/>'
        )
    labels: list[str] = []
    taken: list[tuple[float, float]] = []
    for name in list(colour)[:LABELS]:
        at = members[name]
        x, y = (sum(one[k] for one in at) / len(at) for k in (0, 1))
        while any(abs(x - a) < 26 and abs(y - b) < 18 for a, b in taken):
            y += 6  # a name goes below those that stand where it would
        taken.append((x, y))
        labels.append(f'<text x="{x:.1f}" y="{y:.1f}">{escape(shown(name))}</text>')
    told = f"Map of {len(points)} logs in {len(members)} clusters"
    return (
        f'<svg class="map" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{told}">'
        f"{''.join(drawn)}{''.join(labels)}</svg>"
    )


def _page(name: str, report: Report) -> str:
    one: Any = _template(name.replace("report", "cluster", 1)).module
    blocks: list[str] = []
    size = 0
    for cluster in report.clusters:
        block = str(one.told(cluster, report))
        size += len(block.encode("utf-8", "replace"))
        if size > MAX_BYTES:
            break
        blocks.append(block)
    kept = report.clusters[: len(blocks)]
    return _template(name).render(
        report=report,
        clusters=kept,
        not_shown=report.not_shown + len(report.clusters) - len(kept),
        blocks=blocks,
        map=cluster_map(report.points),
    )


@lru_cache
def _template(name: str) -> Template:
    return _environment(html=".html" in name).get_template(name)


def environment(package: str, *, html: bool = True, **filters: Any) -> Environment:
    """Return the environment of a package's templates, in which what others wrote stays text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(package),
        autoescape=html,  # noqa: S701 - Markdown shows what others wrote as code instead
        auto_reload=False,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters |= filters
    return made


@lru_cache
def _environment(*, html: bool) -> Environment:
    filters = {
        "code": _code,
        "fence": _fence,
        "plain": lambda text: _MARKUP.sub(r"\\\1", " ".join(str(text).split())),
        "percent": lambda share: f"{100 * share:.0f} %",
        "many": counted,
        "people": lambda n: counted(n, "person", "people"),
        "day": lambda at: f"{at.day} {at:%B %Y, %H:%M}",
        "words": lambda name: name.replace("_", " "),
        "size": lambda n: f"{n / 1e6:.1f} MB",
        "time": duration,
    }
    return environment("langchain_uno.reports", html=html, **filters)


def _code(text: str) -> str:
    """Return a text as a code span of Markdown, on one line."""
    line = " ".join(shown(text).split())
    if not line:
        return "(empty)"
    ticks = "`" * (_longest(line) + 1)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def _fence(text: str) -> str:
    """Return a text as a fenced block of Markdown."""
    ticks = "`" * max(3, _longest(text) + 1)
    return f"{ticks}text\n{shown(text)}\n{ticks}"


def _longest(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
