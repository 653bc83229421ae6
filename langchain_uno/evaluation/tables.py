"""From the cells of a study to tables and a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_uno.evaluation.intervals import auc, by_user
from langchain_uno.evaluation.study import SYSTEMS

__all__ = ["draw", "gap_against_experts", "markdown", "pooled", "shipped"]

Result = Mapping[str, Any]


def pooled(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Return each system's figures over all requests of the cells, with intervals by user.

    ``score``, ``facts`` and the paired differences to base and UNO are in points.
    """
    users = [f"{r['cell']['seed']}/{user}" for r in results for user in r["users"]]
    columns: dict[str, dict[str, list[float]]] = {}
    for name in SYSTEMS:
        rows = [row for r in results for row in r["answers"][name]]
        columns[name] = {
            "score": [row["score"] for row in rows],
            "facts": [100.0 * row["facts"] for row in rows],
            "unwanted": [100.0 * row["unwanted"] for row in rows],
            "tokens_in": [row["tokens_in"] for row in rows],
            "tokens_out": [row["tokens_out"] for row in rows],
            "seconds": [row["seconds"] for row in rows],
        }
    out: dict[str, dict[str, Any]] = {}
    for name, mine in columns.items():
        row: dict[str, Any] = {key: by_user(mine[key], users) for key in ("score", "facts")}
        for key in ("unwanted", "tokens_in", "tokens_out", "seconds"):
            row[key] = sum(mine[key]) / len(mine[key])
        for rival in ("base", "uno"):
            for key in ("score", "facts"):
                theirs = columns[rival][key]
                gained = [a - b for a, b in zip(mine[key], theirs, strict=True)]
                row[f"{key}-{rival}"] = by_user(gained, users)
        out[name] = row
    return out


def shipped(results: Sequence[Result], *, margin: float = 0.0) -> dict[str, dict[str, int]]:
    """Return how many modules each way of choosing ships, and how many are below base for certain.

    A shipped module is below base when the 95 % interval (by user) of its score, or of its facts,
    against base on its own cluster's requests lies below ``-margin``.
    """
    out: dict[str, dict[str, int]] = {}
    for name in ("uno", "single", "paper's rule", "no gap", "no verifier"):
        count = dict.fromkeys(("shipped", "base", "below", "score below", "facts below"), 0)
        for r in results:
            for cluster, route in r["routes"][name].items():
                mine = [i for i, c in enumerate(r["clusters"]) if c == cluster]
                if route == "base" or not mine:
                    count["base"] += route == "base"
                    continue
                count["shipped"] += 1
                users = [r["users"][i] for i in mine]
                below = False
                for key, scale in (("score", 1.0), ("facts", 100.0)):
                    new = [scale * r["answers"][name][i][key] for i in mine]
                    old = [scale * r["answers"]["base"][i][key] for i in mine]
                    gain = by_user([a - b for a, b in zip(new, old, strict=True)], users)
                    count[f"{key} below"] += gain["high"] < -margin
                    below = below or gain["high"] < -margin
                count["below"] += below
        out[name] = count
    return out


def gap_against_experts(results: Sequence[Result], *, lost: float = 5.0) -> dict[str, Any]:
    """Return how well the gap, known before training, predicts that an expert fails.

    An expert fails when it meets fewer rules than the cluster's critic by more than ``lost``
    points, or loses more than ``lost`` points of facts against base.
    """
    gaps, failed, seconds, spared = [], [], 0.0, 0.0
    for r in results:
        for cluster in r["per_cluster"]:
            mine = [i for i, c in enumerate(r["clusters"]) if c == cluster["id"]]
            trial = cluster["trials"].get("expert")
            if not mine or trial is None or trial["win_rate"] is None:
                continue

            def mean(name: str, key: str, r: Result = r, mine: list[int] = mine) -> float:
                scale = 100.0 if key == "facts" else 1.0
                return float(scale * sum(r["answers"][name][i][key] for i in mine) / len(mine))

            behind = mean("critic everywhere", "score") - mean("expert everywhere", "score")
            facts = mean("base", "facts") - mean("expert everywhere", "facts")
            gaps.append(cluster["gap"])
            failed.append(behind > lost or facts > lost)
            seconds += trial["seconds"]
            spared += trial["seconds"] * (cluster["gap"] >= 0.45)
    return {
        "clusters": len(gaps),
        "failed": sum(failed),
        "auc": auc(gaps, failed) if gaps else None,
        "expert_seconds": seconds,
        "spared_seconds": spared,
    }


def markdown(results: Sequence[Result]) -> str:
    """Return the tables as Markdown."""
    seeds = sorted({r["cell"]["seed"] for r in results})
    lines = [
        f"{len(results)} cells, seeds {seeds}, {sum(len(r['users']) for r in results)} requests."
    ]
    by_noise: dict[float, list[Result]] = defaultdict(list)
    for r in results:
        by_noise[r["cell"]["noise"]].append(r)
    for noise, mine in sorted(by_noise.items()):
        lines += [
            "",
            f"Noise {noise:.0%} ({len(mine)} cells):",
            "",
            "| system | rules met | facts kept | to base: facts | to UNO: rules | unwanted "
            "| tokens in + out | ms |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, row in pooled(mine).items():
            lines.append(
                f"| {name} | {_range(row['score'])} | {_range(row['facts'])} "
                f"| {_range(row['facts-base'])} | {_range(row['score-uno'])} "
                f"| {row['unwanted']:.1f} "
                f"| {row['tokens_in']:.0f} + {row['tokens_out']:.0f} | {1e3 * row['seconds']:.0f} |"
            )
    lines += ["", "| choice | shipped | left to base | below base | by rules | by facts |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    for name, n in shipped(results).items():
        lines.append(
            f"| {name} | {n['shipped']} | {n['base']} | {n['below']} "
            f"| {n['score below']} | {n['facts below']} |"
        )
    gap = gap_against_experts(results)
    told = _range(gap["auc"], 2) if gap["auc"] else "not to be told (all alike)"
    lines += [
        "",
        f"Gap against expert failure: AUC {told} over {gap['clusters']} clusters, "
        f"{gap['failed']} failed; checking first spares {gap['spared_seconds']:.0f} of "
        f"{gap['expert_seconds']:.0f} seconds of expert training and verification.",
    ]
    return "\n".join(lines) + "\n"


def draw(results: Sequence[Result], file: Path) -> None:
    """Draw rules met against tokens per answer, one point a system, one panel a noise level."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    levels = sorted({r["cell"]["noise"] for r in results})
    figure, axes = plt.subplots(1, len(levels), figsize=(5 * len(levels), 4.5), squeeze=False)
    for axis, noise in zip(axes[0], levels, strict=True):
        figures = pooled([r for r in results if r["cell"]["noise"] == noise])
        for name, row in figures.items():
            tokens, score = row["tokens_in"] + row["tokens_out"], row["score"]
            spread = [[score["mean"] - score["low"]], [score["high"] - score["mean"]]]
            axis.errorbar([tokens], [score["mean"]], yerr=spread, fmt="o", capsize=3)
            axis.annotate(name, (tokens, score["mean"]), (4, 4), textcoords="offset points", size=8)
        axis.set(xlabel="tokens an answer, in and out", title=f"noise {noise:.0%}")
    axes[0][0].set_ylabel("hidden rules met, points")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _range(found: Mapping[str, float], digits: int = 1) -> str:
    mean, low, high = (f"{found[k]:.{digits}f}" for k in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
