"""From the cells of a study to tables and pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.studies.figures import (
    Result,
    gap_against_experts,
    gap_points,
    noise_costs,
    on_front,
    pooled,
    shipped,
    threshold_for,
    verifier_against_truth,
)
from langchain_uno.demo.intervals import by_user
from langchain_uno.demo.variants import VARIANTS

__all__ = ["ablation_rows", "as_range", "draw", "draw_gap", "markdown"]

_ORDER = {name: place for place, name in enumerate(VARIANTS)}
_NAMES = {"uno": "UNO", "single": "UNO-Single"}
_COLUMNS = (
    "system", "rules met", "facts to base", "unwanted", "right", "right to UNO",
    "tokens in + out", "ms",
)  # fmt: skip


def markdown(results: Sequence[Result]) -> str:
    """Return the tables as Markdown: one a variant and noise level, then what all cells say."""
    groups: dict[tuple[int, str, float], list[Result]] = defaultdict(list)
    for r in results:
        name = r["cell"]["variant"]
        # A study of older code may hold a variant that is no more: it comes last.
        groups[_ORDER.get(name, len(_ORDER)), name, r["cell"]["noise"]].append(r)
    pages = [_systems(groups[key]) for key in sorted(groups)]
    pages += [part(results) for part in (_noise, _ships, _verifier, _gap)]
    return "\n\n".join(page.strip() for page in pages)


def _systems(results: Sequence[Result]) -> str:
    """Return the table of cells of one variant and noise level; the front is in bold."""
    figures = pooled(results)
    front = on_front(figures)
    lines = [_title(results), "", f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for system, row in figures.items():
        name = _NAMES.get(system, system)
        cells = [
            f"**{name}**" if system in front else name,
            as_range(row["score"]),
            "" if system == "base" else as_range(row["facts-base"]),
            f"{row['unwanted']:.1f}",
            f"{row['right']['mean']:.1f}",
            "" if system == "uno" else as_range(row["right-uno"]),
            f"{row['tokens_in']:.0f} + {row['tokens_out']:.0f}",
            f"{1e3 * row['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _title(results: Sequence[Result]) -> str:
    cell = results[0]["cell"]
    seeds = [str(r["cell"]["seed"]) for r in results]
    worlds = f"world {seeds[0]}" if len(seeds) == 1 else f"worlds {_and(seeds)}"
    of: dict[str, list[str]] = defaultdict(list)
    for r in results:
        for note in (r.get("note"), r.get("assumed")):
            if note:
                of[note].append(str(r["cell"]["seed"]))
    notes = "; ".join(
        note if len(where) == len(seeds) else f"{_and(where)}: {note}" for note, where in of.items()
    )
    told = f" ({notes})" if notes else ""
    return f"**{cell['variant']}**, {worlds}, noise {cell['noise']:.0%}{told}:"


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _noise(results: Sequence[Result]) -> str:
    costs = noise_costs(results)
    if not costs:
        return "No world was run both with and without noise."
    systems = [name for name in next(iter(costs.values())) if name not in ("worlds", "base")]
    levels = " | ".join(f"{noise:.0%} ({c['worlds']} worlds)" for noise, c in costs.items())
    lines = ["Points lost to noise, against none:", "", f"| system | {levels} |"]
    lines.append("|---" * (1 + len(costs)) + "|")
    for name in systems:
        lines.append(f"| {name} | {' | '.join(as_range(c[name]) for c in costs.values())} |")
    return "\n".join(lines)


def _ships(results: Sequence[Result]) -> str:
    lines = ["| choice | shipped | to base | below base | by rules | by facts | chance allows |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, n in shipped(results).items():
        lines.append(
            f"| {name} | {n['shipped']} | {n['base']} | {n['below']} "
            f"| {n['score below']} | {n['facts below']} | {n['by chance']} |"
        )
    return "\n".join(lines)


def _verifier(results: Sequence[Result]) -> str:
    lines = ["| verifier | right | false ships | false refusals | judgements |"]
    lines.append("|---|---|---|---|---|")
    for name, n in verifier_against_truth(results).items():
        lines.append(
            f"| {name} | {n['right']} | {n['false ships']} | {n['false refusals']} "
            f"| {n['judgements']} |"
        )
    return "\n".join(lines)


def _gap(results: Sequence[Result]) -> str:
    gap = gap_against_experts(results)
    told = as_range(gap["auc"], 2) if gap["auc"] else "not to be told (all alike)"
    return (
        f"Gap against expert failure: AUC {told} over {gap['clusters']} clusters, "
        f"{gap['failed']} failed; checking first spares {gap['spared_seconds']:.0f} of "
        f"{gap['expert_seconds']:.0f} seconds of expert training and verification; fewest wrong "
        f"at a threshold of {threshold_for(gap_points(results)):.2f}.\n"
    )


def draw(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw a picture a variant: rules met against tokens and against time, a column a noise level.

    Every system is a point with its 95 % interval. Returns the files, ``study-VARIANT.png``.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    files = []
    for variant in dict.fromkeys(r["cell"]["variant"] for r in results):
        mine = [r for r in results if r["cell"]["variant"] == variant]
        levels = sorted({r["cell"]["noise"] for r in mine})
        figure, axes = plt.subplots(2, len(levels), figsize=(5 * len(levels), 8), squeeze=False)
        for column, noise in enumerate(levels):
            figures = pooled([r for r in mine if r["cell"]["noise"] == noise])
            for row, (label, cost) in enumerate(_COSTS.items()):
                axis = axes[row][column]
                for name, found in figures.items():
                    score = found["score"]
                    spread = [[score["mean"] - score["low"]], [score["high"] - score["mean"]]]
                    place = (sum(scale * found[key] for key, scale in cost), score["mean"])
                    axis.errorbar(*([v] for v in place), yerr=spread, fmt="o", capsize=3)
                    axis.annotate(name, place, (4, 4), textcoords="offset points", size=7)
                axis.set(xlabel=label, ylabel="hidden rules met, points")
            axes[0][column].set_title(f"{variant}, noise {noise:.0%}")
        figure.tight_layout()
        files.append(folder / f"study-{variant}.png")
        figure.savefig(files[-1], dpi=100)
        plt.close(figure)
    return files


_COSTS = {
    "tokens an answer, in and out": (("tokens_in", 1.0), ("tokens_out", 1.0)),
    "ms an answer": (("seconds", 1e3),),
}


def draw_gap(results: Sequence[Result], file: Path) -> None:
    """Draw how far each cluster's expert is behind its critic, over the gap (calibration plot)."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    points = gap_points(results)
    figure, axis = plt.subplots(figsize=(6, 4.5))
    for failed, colour in ((False, "tab:blue"), (True, "tab:red")):
        mine = [(gap, behind) for gap, behind, f in points if f == failed]
        label = "expert failed" if failed else "expert did not fail"
        axis.scatter([g for g, _ in mine], [b for _, b in mine], c=colour, label=label)
    axis.axvline(0.45, linestyle="--", color="grey", label="default threshold")
    axis.set(xlabel="cognitive gap", ylabel="right answers of 100: critic's above the expert's")
    axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    plt.close(figure)


def ablation_rows(results: Sequence[Result]) -> list[list[str]]:
    """Return a row a changed thing over the worlds that have it: score, paired difference, cost."""
    names = dict.fromkeys(name for r in results for name in r["systems"])
    rows = []
    for name in names:
        mine = [r for r in results if name in r["systems"] and "as it is" in r["systems"]]
        systems = [r["systems"][name] for r in mine]
        if not mine:
            continue
        users = [f"{r['seed']}/{u}" for r, s in zip(mine, systems, strict=True) for u in s["users"]]
        scores = [score for s in systems for score in s["scores"]]
        plain = [score for r in mine for score in r["systems"]["as it is"]["scores"]]
        gained = by_user([a - b for a, b in zip(scores, plain, strict=True)], users)

        def mean(key: str, systems: Sequence[Result] = systems) -> float:
            return float(sum(s[key] for s in systems) / len(systems))

        facts = sum(s["facts"]["mean"] for s in systems) / len(systems)
        rows.append(
            [
                name,
                as_range(by_user(scores, users)),
                as_range(gained),
                f"{facts:.1f}",
                f"{mean('unwanted'):.1f}",
                f"{100 * mean('adapter_share'):.1f} %",
                f"{mean('seconds'):.0f}",
            ]
        )
    return rows


def as_range(found: Mapping[str, float], digits: int = 1) -> str:
    """Return ``mean (low to high)``."""
    mean, low, high = (f"{found[k]:.{digits}f}" for k in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
