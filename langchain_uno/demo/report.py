"""The evaluation's figures as tables and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["draw_report", "print_report"]


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print one table of systems and one of clusters."""
    table = Table(
        "system",
        "hidden rules met",
        "all met",
        "facts kept",
        "judge's win rate",
        "tokens in/out",
        title=f"{report['n']} held-out requests (world {report['world_seed']})",
    )
    for name, row in report["systems"].items():
        win = row["judge_win_rate"]
        table.add_row(
            name,
            _with_interval(row["score"]),
            f"{row['all_met']:.0f}",
            _with_interval(row["facts"]),
            "-" if win is None else f"{100 * win:.0f} %",
            f"{row['tokens_in']:.0f} / {row['tokens_out']:.0f}",
        )
    console.print(table)
    if not report["clusters"]:
        console.print("No release yet: every system is the base model.")
        return
    table = Table("cluster", "mostly", "logs", "gap", "route", "win rate", "base -> uno", "facts")
    for row in report["clusters"]:
        base, uno = row["score"].get("base"), row["score"].get("uno")
        facts = row["facts"]
        table.add_row(
            row["id"],
            row["family"] or "-",
            str(row["size"]),
            f"{row['gap']:.2f}",
            row["route"],
            "-" if row["win_rate"] is None else f"{100 * row['win_rate']:.0f} %",
            "-" if base is None or uno is None else f"{base:.0f} -> {uno:.0f}",
            "-" if base is None or uno is None else f"{facts['base']:.0f} -> {facts['uno']:.0f}",
        )
    console.print(table)


def draw_report(report: dict[str, Any], path: Path) -> Path:
    """Draw hidden rules met and facts kept per system, and per cluster, to a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    systems = list(report["systems"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), width_ratios=(1, 1.8))
    for offset, key, label, colour in (
        (-0.2, "score", "hidden rules met", "#2a6f97"),
        (0.2, "facts", "facts kept", "#a9d6e5"),
    ):
        rows = [report["systems"][s][key] for s in systems]
        means = [r["mean"] for r in rows]
        errors = [
            [m - r["low"] for m, r in zip(means, rows, strict=True)],
            [r["high"] - m for m, r in zip(means, rows, strict=True)],
        ]
        places = [i + offset for i in range(len(systems))]
        left.bar(places, means, 0.38, yerr=errors, label=label, color=colour, capsize=3)
    left.set_xticks(range(len(systems)), systems)
    left.set_ylim(0, 108)
    left.set_ylabel("points (95 % intervals)")
    left.legend(loc="lower right")
    left.set_title("all held-out requests")
    clusters = [c for c in report["clusters"] if c["n"]]
    for k, system in enumerate(systems):
        places = [i + (k - (len(systems) - 1) / 2) * 0.26 for i in range(len(clusters))]
        right.bar(places, [c["score"][system] for c in clusters], 0.24, label=system)
    names = [f"{c['family']}\n{c['route']}\ngap {c['gap']:.2f}" for c in clusters]
    right.set_xticks(range(len(clusters)), names, fontsize=8)
    right.set_ylim(0, 108)
    right.legend(loc="lower right")
    right.set_title("hidden rules met, per cluster")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _with_interval(row: dict[str, float]) -> str:
    return f"{row['mean']:.1f} ({row['low']:.0f} to {row['high']:.0f})"
