"""Rules that hold on some requests only, or at some time: how often they are applied unwanted.

    python -m lab.benchmarks.bench_conditions --worlds 24

The embedded world's wishes are taken as they are, without the model (no slip in distilling), each
family as one cluster, twins together; three quarters of the logs train. Asked are requests of
held-out people.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.service import Visit, held_out_queries, plan_visits
from langchain_uno.demo.worlds import World
from langchain_uno.graphs.refresh_aggregate import told_elsewhere
from langchain_uno.learning.aggregate import ClusterRules, aggregate_rules
from langchain_uno.learning.conditions import common_words
from langchain_uno.records import Rule, RuleSet

WAYS = ("one search", "common words", "common words, told elsewhere", "and drift", "and kinds")


def main(
    worlds: Annotated[int, typer.Option(help="How many.", min=1)] = 24,
    seed: Annotated[int, typer.Option(help="Of the first world.")] = 2101,
    visits: Annotated[int, typer.Option(help="Requests of the week.", min=50)] = 420,
    variants: Annotated[
        str, typer.Option(help="Names, with commas.")
    ] = "standard,conditional,long,drift,twins",
) -> None:
    """Print, for each variant and way to search, what is applied unwanted and what is missed."""
    table = Table("variant", "search", "requests with an unwanted rule", "wishes missed")
    for variant in variants.split(","):
        totals = {way: [0, 0, 0, 0] for way in WAYS}
        for s in range(seed, seed + worlds):
            world = make_world(s, variant=variant)
            clusters = _clusters(world, visits)
            for way in WAYS:
                for i, value in enumerate(_count(world, _aggregate(clusters, way))):
                    totals[way][i] += value
        for way, (unwanted, asked, missed, wished) in totals.items():
            table.add_row(
                variant, way, f"{100 * unwanted / asked:.1f} %", f"{100 * missed / wished:.1f} %"
            )
    Console().print(table)


def _clusters(world: World, visits: int) -> dict[str, list[tuple[Visit, list[str]]]]:
    language = world.language()
    clusters: dict[str, list[tuple[Visit, list[str]]]] = {}
    for visit in plan_visits(world, visits):
        rng = Random(f"conditions-{visit.run_id}")
        wishes = world.wishes(language, visit.query, visit.user, visit.when)
        if visit.channel in ("silent", "thumb") or rng.random() < 0.25 or not wishes:
            continue
        if visit.noisy:
            if rng.random() > 1 / 8:
                continue
            named = [rng.choice(sorted(language.rules))]
        elif visit.channel == "edit":
            named = list(wishes)
        else:
            named = [r for r in wishes if rng.random() < visit.user.mention] or [rng.choice(wishes)]
        clusters.setdefault(_cluster(visit.query.family), []).append((visit, named))
    return clusters


def _cluster(family: str) -> str:
    """Return the cluster of a family: by their embeddings twins are one (bench_families)."""
    return family.removesuffix("-2")


def _aggregate(
    clusters: dict[str, list[tuple[Visit, list[str]]]], way: str
) -> dict[str, ClusterRules]:
    queries = {name: [v.query.text for v, _ in logs] for name, logs in clusters.items()}
    common = common_words(list(queries.values())) if way != WAYS[0] else frozenset()

    def look(told: Sequence[str]) -> dict[str, ClusterRules]:
        return {
            name: aggregate_rules(
                [
                    RuleSet(
                        run_id=str(v.run_id),
                        with_feedback=[Rule(text=r, source="feedback") for r in named],
                    )
                    for v, named in logs
                ],
                queries[name],
                user_ids=[v.user.id for v, _ in logs],
                min_users=3,
                votes="users",
                own_rules=False,
                common=common,
                told=told,
                times=[1e5 * v.when for v, _ in logs] if way in WAYS[3:] else None,
                kinds=way == WAYS[4],
            )
            for name, logs in clusters.items()
        }

    rules = look(())
    told = told_elsewhere(list(rules.values()), common) if way in WAYS[2:] else frozenset()
    return look(sorted(told)) if told else rules


def _count(world: World, rules: dict[str, ClusterRules]) -> tuple[int, int, int, int]:
    language = world.language()
    unwanted = asked = missed = wished = 0
    for user, query in held_out_queries(world, 30):
        wishes = set(world.wishes(language, query, user, 1.0))
        known = rules.get(_cluster(query.family))
        got = {rule.text for rule in known.wanted_for(query.text)} if known else set()
        unwanted += bool(got - wishes)
        missed += len(wishes - got)
        wished += len(wishes)
        asked += 1
    return unwanted, asked, missed, wished


if __name__ == "__main__":
    typer.run(main)
