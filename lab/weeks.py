"""``python -m lab.weeks``: how clusters go on from refresh to refresh, on real text, no model.

Weeks of the help desk (:mod:`lab.real_model.desk`) with a real embedder's vectors: six kinds of
request, rules as a perfect teacher would distil them, a fifth of the wishes unnamed. A week's logs
come in parts, and all that came are clustered after each. A cluster of :data:`MODULE` logs or more
counts as a module that was taught what its most frequent kind wants. Printed are, after each part,
the share of logs that lie with a module of their kind and the adjusted Rand index; and how often a
kind's share falls by more than a fifth. Once with neither, once with
:func:`langchain_uno.learning.evolve.part`, and once as the product does it, with
:func:`langchain_uno.learning.separation.split_foretold` too.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from random import Random
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import typer
from sklearn.metrics import adjusted_rand_score

from lab.real_model import desk
from lab.real_model.run import STUDY
from langchain_uno.learning import cluster
from langchain_uno.learning.evolve import part
from langchain_uno.models.loading import load_embedder

MODULE = 12
"""Logs of a cluster that counts as a module."""
EACH = 36
"""Requests of a kind in a week."""
FALL = 0.2


def draw_week(seed: int) -> list[tuple[str, str, str]]:
    """Return the week's logs with feedback: request, kind, rules in lines."""
    rng, out = Random(f"h{seed}"), []
    for visit in desk.plan_week(seed, STUDY, EACH):
        kind, rules = visit.request.kind, []
        if visit.act == "silent":
            continue
        if visit.act in ("words", "follow_up", "edit"):
            missing = [w for w in desk.wishes_of(visit.request) if rng.random() < 0.9]
            rules = [w.rule for w in missing if visit.act == "edit" or rng.random() < 0.8]
        elif visit.act == "noise" and rng.random() < 0.15:
            others = [w for name, w in desk.WISHES.items() if name not in desk.KINDS[kind].wishes]
            rules = [rng.choice(others).rule]
        out.append((visit.request.text, kind, "\n".join(rules)))
    return out


def _no_split(queries: Any, rules: Any, labels: Any, *_: Any) -> Any:
    return labels


def refreshes(
    queries: Any, rules: Any, kinds: Any, parts: int, seed: int, *, apart: bool, foretold: bool
) -> dict[str, Any]:
    """Cluster a week's logs again and again, and return what became of each kind."""
    order = np.random.default_rng(seed).permutation(len(queries))
    modules: list[tuple[set[str], list[int]]] = []  # rows of the whole week
    right, index, falls, cells = [], [], 0, 0
    before: dict[str, float] = {}
    for nth in range(1, parts + 1):
        rows = np.sort(order[: round(len(queries) * nth / parts)])
        with nullcontext() if foretold else patch.object(cluster, "split_foretold", _no_split):
            labels = cluster.cluster_logs(queries[rows], rules[rows], seed=1)
        if apart:
            place = {row: i for i, row in enumerate(rows)}
            known = [(taught, [place[row] for row in own]) for taught, own in modules]
            labels = part(labels, queries[rows], known)
        now = kinds[rows]
        most = {n: Counter(now[labels == n]).most_common(1)[0][0] for n in set(labels.tolist())}
        large = {n for n in most if (labels == n).sum() >= MODULE}
        modules = [(set(desk.KINDS[most[n]].wishes), rows[labels == n].tolist()) for n in large]
        met = np.array(
            [n in large and most[n] == kind for n, kind in zip(labels, now, strict=True)]
        )
        share = {kind: float(met[now == kind].mean()) for kind in set(now)}
        cells += len(before.keys() & share.keys())
        falls += sum(share[kind] < before[kind] - FALL for kind in before.keys() & share.keys())
        before = share
        right.append(float(met.mean()))
        index.append(adjusted_rand_score(now, labels))
    return {"right": right, "index": index, "falls": falls, "cells": cells}


def main(
    embeddings: Annotated[str, typer.Option(help="Folder of an embedding model.")],
    first: Annotated[int, typer.Option(help="First seed.")] = 301,
    weeks: Annotated[int, typer.Option(help="Weeks.")] = 30,
    parts: Annotated[int, typer.Option(help="Refreshes of a week.")] = 6,
) -> None:
    """Print a line for each way."""
    embedder = load_embedder(embeddings, None)
    drawn = []
    for seed in range(first, first + weeks):
        texts, kinds, wishes = zip(*draw_week(seed), strict=True)
        said = np.array([bool(wish) for wish in wishes])[:, None]
        rules = np.where(said, embedder.embed(list(wishes)), 0)
        drawn.append((embedder.embed(list(texts)), rules, np.array(kinds)))
    ways = {"as clustered": (False, False), "kept apart": (True, False), "foretold": (True, True)}
    for way, (apart, foretold) in ways.items():
        found = [
            refreshes(*week, parts, n, apart=apart, foretold=foretold)
            for n, week in enumerate(drawn)
        ]
        told = {
            what: np.mean([one[what] for one in found], axis=0).round(3).tolist()
            for what in ("right", "index")
        }
        fell, cells = (sum(one[what] for one in found) for what in ("falls", "cells"))
        print(f"{way}: {told}; {fell} of {cells} falls", flush=True)


if __name__ == "__main__":
    typer.run(main)
