"""The demo's figures as tables, as examples and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

Report = Mapping[str, Any]
WORDS = {
    "score": "hidden wishes met",
    "facts": "facts kept",
    "note": "",
    "closing": "The figures show that the pipeline works. They say nothing about a real model's "
    "gains.",
}
"""What the two measures are called, what stands under each table and over the picture, and the last
line; a report may bring ``words`` of its own."""
COLOURS = {"base": "#b0bec5", "uno": "#2a6f97"}
OTHER = "#7fb3d5"
ROUTES = {"expert": "#2a6f97", "critic": "#e07a2f", "memory": "#8e6c8a", "base": "#b0bec5"}


def print_demo(report: Report, home: Path, console: Console) -> None:
    """Print what the demo did: the refresh, examples, the figures, the time, where things lie."""
    refresh = report["refresh"]
    log = report["log"]
    verdicts = ", ".join(f"{n} {why.replace('_', ' ')}" for why, n in log["verdicts"].items())
    _say(
        console,
        f"{log['interactions']} interactions with {log['feedback']} pieces of feedback and "
        f"{log['follow_ups']} follow-ups; verdicts: {verdicts}.",
    )
    console.print(_cluster_table(report, {c["id"]: c for c in refresh["clusters"]}))
    for note in refresh.get("notes", ()):
        console.print(Text(str(note)))
    for name, example in report["examples"].items():
        console.print(_panel(example.get("route", name), example))
    _print_systems(report, console)
    seconds = report["seconds"]
    told = ", ".join(f"{stage} {seconds.get(stage, 0.0):.0f} s" for stage in seconds)
    console.print(f"Time: {sum(seconds.values()):.0f} s ({told}).", highlight=False)
    sizes = report["sizes"]
    _say(
        console,
        f"Adapters: {sizes['n_adapters']}, {sizes['adapters'] / 1e6:.1f} MB; base model "
        f"{sizes['base'] / 1e6:.1f} MB. Logs, index and releases lie in {home}; picture: "
        f"{home / 'demo.png'}",
    )
    _say(console, _words(report)["closing"])


def _words(report: Report) -> Mapping[str, str]:
    return {**WORDS, **report.get("words", {})}


def _print_systems(report: Report, console: Console) -> None:
    words = _words(report)
    table = Table(
        "system",
        words["score"],
        words["facts"],
        "unwanted",
        "tokens in + out",
        title=f"{report['n']} test requests by {report['people']} people who are in no log",
        caption=" ".join(["Points of 100 with 95 % intervals by person.", words["note"]]).strip(),
    )
    for name, row in report["systems"].items():
        table.add_row(
            name,
            _range(row["score"]),
            _range(row["facts"]),
            f"{row['unwanted']:.0f}",
            f"{row['tokens_in']:.0f} + {row['tokens_out']:.0f}",
        )
    console.print(table)
    _say(
        console,
        "Unwanted: answers that follow a wish which other requests call for and theirs does not.",
    )
    for name, row in report["differences"].items():
        system = name.removesuffix("-base")
        _say(
            console,
            f"{system} against base: {words['score']} {_range(row['score'], '+')}, "
            f"{words['facts']} {_range(row['facts'], '+')}.",
        )
    if report["coverage"] is not None:
        _say(console, f"{100 * report['coverage']:.0f} % of the requests reached a cluster.")


def _cluster_table(report: Report, refreshed: Mapping[str, Report]) -> Table:
    """One row a cluster: how it came to its route, and what that brought."""
    words = _words(report)
    table = Table(title="clusters", caption=words["note"] or None)
    table.add_column("mostly")
    for name in ("logs", "people", "gap"):
        table.add_column(name, justify="right")
    table.add_column("route")
    for name in ("win rate", words["score"], words["facts"]):
        table.add_column(name, justify="right")
    rows = {row["id"]: row for row in report["clusters"]}
    for key in [*refreshed, *(k for k in rows if k not in refreshed)]:
        how, row = refreshed.get(key, {}), rows.get(key, {})
        rate, gap = how.get("win_rate"), how.get("gap", row.get("gap"))
        table.add_row(
            row.get("family") or key,
            str(how.get("size", "")),
            str(how.get("people", "")),
            _gap(gap),
            str(how.get("route", row.get("route"))),
            "" if rate is None else f"{rate:.2f}",
            _change(row.get("score", {})),
            _change(row.get("facts", {})),
        )
    return table


def _gap(gap: float | None) -> str:
    return "-" if gap is None else f"{gap:.2f}"


def _change(values: Mapping[str, float | None]) -> str:
    base, uno = values.get("base"), values.get("uno")
    return "" if base is None or uno is None else f"{base:.0f} -> {uno:.0f}"


def _panel(route: str, example: Report) -> Panel:
    """One request, before and after; with a critic, what it suggested in between."""
    wishes = "\n".join(
        f"  {wish['text']} {_met(wish['before'])} -> {_met(wish['after'])}"
        for wish in example["wishes"]
    )
    parts = [("request", example["query"])]
    if route == "critic":
        suggested = "\n".join(f"{i}. {s}" for i, s in enumerate(example["suggestions"], 1))
        parts += [("the base drafts", example["before"])]
        parts += [("the critic suggests", suggested or "nothing: the draft stands")]
        parts += [("the base revises", example["after"])]
    else:
        parts += [("before, the base", example["before"])]
        parts += [("after, the expert", example["after"])]
    parts += [("what these people want: before -> after", wishes)]
    shown = [line for head, text in parts for line in (Text(head, style="bold"), Text(text))]
    return Panel(Group(*shown), title=f"{route} at work ({example['family']})", width=78)


def _met(yes: bool) -> str:
    return "yes" if yes else "no"


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def _range(row: Mapping[str, float], sign: str = "") -> str:
    return f"{row['mean']:{sign}.1f} ({row['low']:{sign}.0f} to {row['high']:{sign}.0f})"


def draw_report(report: Report, path: Path) -> Path:
    """Draw wishes met and facts kept by system, and by cluster before and after, to a PNG file."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    systems = list(report["systems"])
    clusters = [c for c in report["clusters"] if c["n"]]
    clusters.sort(key=lambda c: (list(ROUTES).index(c["route"]), c["gap"] or 0.0))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.6), width_ratios=(1, 2), sharey=True, layout="constrained"
    )
    for k, system in enumerate(systems):
        rows = [report["systems"][system][key] for key in ("score", "facts")]
        means = [row["mean"] for row in rows]
        spread = [
            [m - row["low"] for m, row in zip(means, rows, strict=True)],
            [row["high"] - m for m, row in zip(means, rows, strict=True)],
        ]
        width = 0.8 / len(systems)
        places = [i + (k - (len(systems) - 1) / 2) * width for i in range(2)]
        bars = left.bar(
            places,
            means,
            width,
            yerr=spread,
            label=system,
            color=COLOURS.get(system, OTHER),
            capsize=4,
        )
        left.bar_label(bars, [f"{m:.0f}" for m in means], padding=3, fontsize=9)
    words = _words(report)
    left.set_xticks(range(2), [words["score"], words["facts"]])
    left.set(ylim=(0, 118), ylabel="points of 100", title=f"{report['n']} test requests")
    left.legend(loc="upper center", ncols=len(systems), frameon=False)
    for i, cluster in enumerate(clusters):
        before, after = cluster["score"]["base"], cluster["score"]["uno"]
        right.bar(i, after, 0.6, color=ROUTES[cluster["route"]])
        right.plot([i - 0.38, i + 0.38], [before, before], color="black", linewidth=2)
        right.text(i, after + 1.5, f"{after:.0f}", ha="center", fontsize=9)
    names = [f"{c['family']}\n{c['route']}\ngap {_gap(c['gap'])}" for c in clusters]
    right.set_xticks(range(len(clusters)), names, fontsize=9)
    right.set_title(f"{words['score']} with UNO, a cluster each (black line: base)")
    if words["note"]:
        figure.suptitle(words["note"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
