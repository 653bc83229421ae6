"""The tables of docs/benchmarks.md and lab/results/README.md, from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.studies.results import Result, read_results
from lab.studies.systems import SYSTEMS
from langchain_uno.demo.evaluate import by_person

__all__ = ["END", "PAGES", "START", "as_range", "headline", "markdown", "rewritten"]

START, END = "<!-- tables: `python -m lab.studies table` -->", "<!-- end of tables -->"
Rows = list[list[str]]


def rewritten(page: str, tables: str) -> str:
    """Return a page with other tables between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    start, end = page.index(START) + len(START), page.index(END)
    return f"{page[:start]}\n\n{tables}\n\n{page[end:]}"


def headline(top: Path) -> str:
    """Return the tables of docs/benchmarks.md: a third of useless feedback, plants, rounds."""
    results = read_results(top, "systems")
    mine = [one for one in results if not one["edits"] and one["noise"] == 0.34]
    parts = [f"Systems, {_told(mine)}:\n\n{_table(systems_rows(mine))}"] if mine else []
    if poison := read_results(top, "poison"):
        parts.append(f"Planted wishes:\n\n{_table(poison_rows(poison))}")
    if rounds := read_results(top, "rounds"):
        parts.append(f"Round after round:\n\n{_table(rounds_rows(rounds))}")
    if real := read_results(top, "real"):
        parts.append(real_tables(real))
    return "\n\n".join(parts) or "(none yet)"


def markdown(top: Path) -> str:
    """Return the tables of all results as Markdown."""
    parts = []
    cells: dict[tuple[bool, float], list[Result]] = {}
    for one in read_results(top, "systems"):
        cells.setdefault((one["edits"], one["noise"]), []).append(one)
    for (edits, _), mine in sorted(cells.items()):
        how = "People who edit instead of saying what they want" if edits else "Systems"
        parts.append(f"{how}, {_told(mine)}:\n\n{_table(systems_rows(mine))}")
    poison = read_results(top, "poison")
    if poison:
        parts.append(f"Planted wishes:\n\n{_table(poison_rows(poison))}")
    rounds = read_results(top, "rounds")
    if rounds:
        parts.append(f"Round after round:\n\n{_table(rounds_rows(rounds))}")
    if real := read_results(top, "real"):
        parts.append(real_tables(real))
    return "\n\n".join(parts)


def real_tables(results: Sequence[Result]) -> str:
    """Return a table a real language model and size of run: how the desk's wishes were met."""
    parts = []
    for model, size in sorted({(one["model"], one["size"]) for one in results}):
        mine = [one for one in results if (one["model"], one["size"]) == (model, size)]
        seeds = ", ".join(str(one["seed"]) for one in mine)
        kinds = len(set(mine[0]["kinds"]))
        asked = sum(len(one["users"]) for one in mine)
        told = f"{kinds} kinds of request, seeds {seeds} ({asked} requests)"
        parts.append(
            f"A real language model (--size {size}), {model}, {told}. The teacher is a program, "
            "no model:\n\n"
            f"{_table(real_rows(mine))}"
        )
    return "\n\n".join(parts)


def real_rows(results: Sequence[Result]) -> Rows:
    """Return a row a system, pooled over the seeds that asked it, with intervals by person."""
    head = "system, requests, wishes met, on topic, others' wishes obeyed, general kept"
    rows = [[*head.split(", "), "tokens in + out", "s"]]
    for name in dict.fromkeys(name for r in results for name in r["answers"]):
        mine = [r for r in results if name in r["answers"]]
        users = [f"{r['seed']}/{user}" for r in mine for user in r["users"]]
        columns = {
            key: [v for r in mine for v in r["answers"][name][key]]
            for key in ("score", "facts", "unwanted", "tokens_in", "tokens_out", "seconds")
        }
        shown = [as_range(by_person(columns[key], users)) for key in ("score", "facts", "unwanted")]
        means = {key: sum(values) / len(values) for key, values in columns.items()}
        tokens = f"{means['tokens_in']:.0f} + {means['tokens_out']:.0f}"
        kept = [r["general"][name] for r in results if name in r["general"]]
        general = f"{sum(k['kept'] for k in kept)} of {sum(k['asked'] for k in kept)}"
        told = [general if kept else "", tokens, f"{means['seconds']:.1f}"]
        rows.append([name, str(len(users)), *shown, *told])
    return rows


def systems_rows(results: Sequence[Result]) -> Rows:
    """Return a row a system, pooled over the worlds that asked it, with intervals by person."""
    rows = [["system", "wishes met", "facts kept", "unwanted wishes", "tokens in + out"]]
    for name in SYSTEMS:
        mine = [r for r in results if name in r["answers"]]
        if not mine:
            continue
        users = [f"{r['seed']}/{user}" for r in mine for user in r["users"]]
        columns = {
            key: [v for r in mine for v in r["answers"][name][key]]
            for key in ("score", "facts", "unwanted", "tokens_in", "tokens_out")
        }
        shown = [as_range(by_person(columns[key], users)) for key in ("score", "facts")]
        means = {key: sum(values) / len(values) for key, values in columns.items()}
        tokens = f"{means['tokens_in']:.0f} + {means['tokens_out']:.0f}"
        rows.append([name, *shown, f"{means['unwanted']:.1f}", tokens])
    return rows


def poison_rows(results: Sequence[Result]) -> Rows:
    """Return a row an attack and world."""
    rows = [["attack", "world", "obeyed more than by the base, %", "honest wishes met", "facts"]]
    for one in sorted(results, key=lambda r: (r["attack"], r["seed"])):
        shown = [as_range(one[key]["uno"]) for key in ("score", "facts")]
        rows.append([one["attack"], str(one["seed"]), as_range(one["more"]), *shown])
    return rows


def rounds_rows(results: Sequence[Result]) -> Rows:
    """Return a row a round, and one for the big refresh that sees all logs at once.

    *Size* is all modules' bytes in percent of the base model's. *Below its best*: how far a family
    has fallen, on the same requests, from the best that it had after any round so far.
    """
    head = "world, round, logs, modules, of these kept, wishes met, facts, below its best, size"
    rows = [[*head.split(", "), "processor s"]]
    for one in results:
        world = str(one["seed"])
        best: dict[str, float] = {}
        for nth, row in enumerate(one["rounds"], 1):
            now = row["by_family"]
            best = {name: max(score, best.get(name, 0.0)) for name, score in now.items()}
            fallen = max(now, key=lambda name: best[name] - now[name])
            down = best[fallen] - now[fallen]
            counts = [str(row[key]) for key in ("logs", "modules", "kept")]
            shown = [as_range(row[key]) for key in ("score", "facts")]
            size = f"{100 * row['adapter_bytes'] / one['base_bytes']:.0f} %"
            told = f"{fallen} {down:.1f}" if down else "none"
            cpu = f"{row['cpu_seconds']:.0f}"
            rows.append([world, str(nth), *counts, *shown, told, size, cpu])
        for name, label in (("rounds", "end, other requests"), ("big", "one big refresh")):
            shown = [as_range(one["end"][name][key]) for key in ("score", "facts")]
            cpu = f"{one['big_cpu_seconds']:.0f}" if name == "big" else ""
            rows.append([world, label, "", "", "", *shown, "", "", cpu])
        ahead = as_range(one["rounds-big"])
        rows.append([world, "end less big refresh", "", "", "", ahead, "", "", "", ""])
    return rows


def as_range(found: Mapping[str, float], digits: int = 1) -> str:
    """Return ``mean (low to high)``."""
    mean, low, high = (f"{found[k]:.{digits}f}" for k in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _told(results: Sequence[Result]) -> str:
    seeds = ", ".join(str(r["seed"]) for r in results)
    asked = sum(len(r["users"]) for r in results)
    noise = results[0]["noise"]
    return f"worlds {seeds} ({asked} requests), {noise:.0%} of the feedback useless"


def _table(rows: Rows) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


PAGES = {Path("docs/benchmarks.md"): headline, Path("lab/results/README.md"): markdown}
"""Page -> what stands between its marks."""
