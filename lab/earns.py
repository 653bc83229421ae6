"""What earns its place: the cut of the clusters, unlabelled queries.

    python -m lab.earns REAL.jsonl REAL.npz --out lab/results/earns.md

REAL.jsonl holds real dialogs, one JSON object a line: ``id``, ``dataset``, ``messages`` (query,
answer, numbered suggestions, revised answer). REAL.npz holds sentence vectors of the same dialogs
in the same order: ``query`` and ``suggestion``, (n, d). The data set's name is the reference label.
The bundled world is asked beside: the families of three worlds that nothing was set on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import binom
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_rand_score

from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.service import Visit, held_out_queries, plan_visits
from langchain_uno.demo.worlds import World
from langchain_uno.learning.cluster import cluster_logs
from langchain_uno.learning.reach import centroids
from langchain_uno.models.loading import load_embedder, shared_engine

Ints = NDArray[np.int64]
Rows = list[list[str]]
CUTS: dict[str, Literal["stable", "ward"]] = {"stable": "stable", "paper": "ward"}
NUMBER = re.compile(r"^\s*\d+[.)、]\s*", re.MULTILINE)


def main(
    dialogs: Annotated[Path, typer.Argument(help="The dialogs (JSON lines).")],
    vectors: Annotated[Path, typer.Argument(help="Their vectors (npz).")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("earns.md"),
    seeds: Annotated[str, typer.Option(help="Worlds.")] = "9301,9302,9303",
) -> None:
    """Write the tables of one page, below what stands above its first table: the verdicts."""
    rows = [json.loads(line) for line in dialogs.read_text(encoding="utf-8").splitlines()]
    found = np.load(vectors)
    real = _Real(
        found["query"],
        found["suggestion"],
        np.array([row["dataset"] for row in rows]),
        [_suggestions(row["messages"][2]["content"]) for row in rows],
    )
    worlds = [int(seed) for seed in seeds.split(",")]
    embedder = load_embedder(None, shared_engine(None))
    weak = _Real(
        embedder.embed([row["messages"][0]["content"][:4000] for row in rows]),
        embedder.embed([row["messages"][2]["content"][:4000] for row in rows]),
        real.truth,
        real.wishes,
    )
    parts = [
        ("Clusters of real dialogs: adjusted Rand index to the data set", clustering(real)),
        ("The same with token embeddings of the bundled model", clustering(weak)),
        ("Unlabelled queries on real dialogs", unlabelled(real)),
        ("Bundled worlds: a held-out request finds its family (1 at best)", families(worlds)),
        ("Bundled worlds: people and queries that verify a cluster", verifiers(worlds)),
    ]
    text = "\n\n".join(f"## {title}\n\n{_table(rows)}" for title, rows in parts)
    known = out.read_text(encoding="utf-8") if out.is_file() else "# What earns its place\n\n"
    out.write_text(f"{known.split('## ')[0]}{text}\n", encoding="utf-8")
    print(text)


class _Real:
    def __init__(self, query: Any, rules: Any, truth: Any, wishes: Rows) -> None:
        self.query, self.rules, self.truth, self.wishes = query, rules, truth, wishes

    def part(self, share: float, seed: int) -> _Real:
        """Return a random part, drawn anew for each seed; the whole in another order for 1."""
        n = len(self.query)
        rows = np.random.default_rng(seed).permutation(n)[: round(share * n)]
        wishes = [self.wishes[i] for i in rows]
        return _Real(self.query[rows], self.rules[rows], self.truth[rows], wishes)


def clustering(real: _Real) -> Rows:
    """Compare the two cuts on the whole, on halves and on thirds."""
    rows = [["logs", "stable: clusters", "ARI", "paper: clusters", "ARI"]]
    for share in (1.0, 1 / 2, 1 / 3):
        told: list[list[float]] = []
        for seed in range(10):
            one = real.part(share, seed)
            told.append([])
            for cut in CUTS.values():
                labels = cluster_logs(one.query, one.rules, cut, seed=seed)
                told[-1] += [labels.max() + 1, adjusted_rand_score(one.truth, labels)]
        mean = np.mean(told, axis=0)
        cells = [f"{v:.1f}" if i % 2 == 0 else f"{v:.3f}" for i, v in enumerate(mean)]
        rows.append([str(len(one.query)), *cells])
    return rows


KINDS = ["IdeaBench", "JuDGE", "LimitGen-Syn", "WritingPrompts"]


def unlabelled(real: _Real) -> Rows:
    """Count what an unlabelled request could be judged by: wishes that recur in its cluster.

    Half of the dialogs are taken as unlabelled. A wish recurs where suggestions of three dialogs of
    a cluster say nearly the same (character n-grams, cosine at least 0.5).
    """
    rows = [["cosine", "suggestions that recur, %", "unlabelled with a standard, %",
             "of its own suggestions in it, %"]]  # fmt: skip
    for least in (0.4, 0.5, 0.6):
        told = []
        for seed in range(10):
            one = real.part(1.0, seed)
            half = len(one.query) // 2
            labels = cluster_logs(one.query[:half], one.rules[:half], "stable", seed=seed)
            to = _nearest(one.query[half:], centroids(one.query[:half], labels))
            owner = np.array([i for i, named in enumerate(one.wishes) for _ in named])
            texts = [w for named in one.wishes for w in named]
            x = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit_transform(texts)
            near = (x @ x.T).toarray() >= least
            cluster = np.concatenate([labels, to])[owner]
            taught = owner < half
            recurs = np.array(
                [
                    taught[i]
                    and len(set(owner[near[i] & taught & (cluster == cluster[i])].tolist())) >= 3
                    for i in range(len(texts))
                ]
            )
            with_standard = {int(c) for c in cluster[recurs]}
            covered = [
                bool((near[i] & recurs & (cluster == cluster[i])).any())
                for i in np.flatnonzero(~taught)
            ]
            told.append(
                [
                    100 * recurs[taught].mean(),
                    100 * np.mean([int(c) in with_standard for c in to]),
                    100 * np.mean(covered),
                ]
            )
        rows.append([f"{least}", *(f"{v:.1f}" for v in np.mean(told, axis=0))])
    return rows


def families(seeds: Sequence[int]) -> Rows:
    """Score what a held-out request finds: its family's share there times the cluster's share."""
    embedder = load_embedder(None, shared_engine(None))
    rows = [["world", "logs", "clusters", "score"]]
    for seed in seeds:
        world = make_world(seed)
        asked = [query for _, query in held_out_queries(world, 30)]
        new, truth = embedder.embed([q.text for q in asked]), [q.family for q in asked]
        for count in (140, 420):
            visits = plan_visits(world, count)
            logs = [(v, s) for v in visits if (s := _said(world, v)) is not False]
            queries = embedder.embed([v.query.text for v, _ in logs])
            rules = embedder.embed(["\n".join(s or ()) for _, s in logs])
            labels = cluster_logs(queries, rules)
            kinds = np.array([v.query.family for v, _ in logs])
            to = _nearest(new, centroids(queries, labels))
            told = [seed, len(logs), labels.max() + 1]
            rows.append([*map(str, told), f"{_found_again(kinds, labels, truth, to):.3f}"])
    return rows


def verifiers(seeds: Sequence[int]) -> Rows:
    """Count who verifies a family: held-out people who said something, and silent ones beside.

    A quarter of the people is held out; a silent request counts where its asker does not teach.
    Power is that of a one-sided exact sign test at 2.5 % when a module wins with 80 % of the
    people: every person counts once.
    """
    rows = [["world", "labelled: people", "queries", "power, %", "with unlabelled: people",
             "queries", "power, %"]]  # fmt: skip
    for seed in seeds:
        world = make_world(seed)
        visits = [(v, _said(world, v)) for v in plan_visits(world, 420)]
        told = []
        for family in world.families:
            mine = [(v, s) for v, s in visits if v.query.family == family]
            people = sorted({v.user.id for v, s in mine if s})
            Random(f"earns-{seed}").shuffle(people)
            held = set(people[: round(0.25 * len(people))])
            said = [v.user.id for v, s in mine if s and v.user.id in held]
            silent = [
                v.user.id
                for v, s in mine
                if v.channel == "silent" and (v.user.id in held or v.user.id not in people)
            ]
            told.append([])
            for some in (said, said + silent):
                n = len(set(some))
                told[-1] += [n, len(some), 100 * _power(n)]
        rows.append([str(seed), *(f"{v:.1f}" for v in np.mean(told, axis=0))])
    return rows


def _power(n: int) -> float:
    wins = next((k for k in range(n + 1) if binom.sf(k - 1, n, 0.5) <= 0.025), n + 1)
    return float(binom.sf(wins - 1, n, 0.8))


def _said(world: World, visit: Visit) -> list[str] | Literal[False] | None:
    """Return the wishes that a visit's feedback names; None: none; False: no usable log."""
    rng = Random(f"families-{visit.run_id}")
    wishes = world.wishes(world.language(), visit.query)
    if visit.channel == "silent":
        return False
    if visit.noisy:  # one in eight names a wish that it does not mean; half of the rest is seen
        if rng.random() < 1 / 8:
            return [rng.choice(sorted(world.language().rules))]
        return False if rng.random() < 0.5 else None
    if not wishes:
        return []
    if visit.channel in ("thumb", "edit"):
        return None
    return [w for w in wishes if rng.random() < visit.user.mention] or [rng.choice(wishes)]


def _nearest(vectors: NDArray[Any], centres: NDArray[Any]) -> Ints:
    """Return the row of the nearest centroid of each vector."""
    return np.asarray(cdist(vectors, centres).argmin(axis=1))


def _found_again(kinds: Any, labels: Ints, truth: Sequence[str], routes: Ints) -> float:
    total = 0.0
    for family, route in zip(truth, routes, strict=True):
        mine, there = kinds == family, labels == route
        total += float((mine & there).sum()) ** 2 / float(mine.sum() * there.sum())
    return total / len(truth)


def _suggestions(text: str) -> list[str]:
    parts = [part.strip() for part in NUMBER.split(text)]
    return [part for part in parts if part]


def _table(rows: Rows) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---:|" * len(rows[0]), *lines[1:]])


if __name__ == "__main__":
    typer.run(main)
