"""The aggregate node of a refresh: what recurs in each cluster, by whom it is wanted.

One vote a person, several people behind a rule (``recipe.cluster``); a home of a few people is
theirs: none of that. What a few want everywhere is gone already (``refresh_personal``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from langchain_uno.graphs.refresh_context import ClusterData, RefreshContext
from langchain_uno.graphs.refresh_personal import is_shared
from langchain_uno.learning.aggregate import ClusterRules, aggregate_rules
from langchain_uno.learning.conditions import common_words
from langchain_uno.learning.wordings import group_wordings
from langchain_uno.records import RuleSet

__all__ = ["aggregate_node", "told_elsewhere"]


def aggregate_node(ctx: RefreshContext) -> None:
    """Complete each training log's rules by those that recur in its cluster."""
    ctx.once("aggregate", "aggregated.jsonl", lambda: _aggregate(ctx))


def _aggregate(ctx: RefreshContext) -> str:
    clusters = ctx.clusters()
    ctx.progress.start("aggregate", len(clusters), "rules that recur")
    same = {c.id: _wordings(ctx, c) for c in clusters}
    shared = is_shared(ctx, [run_id for c in clusters for run_id in c.train])
    common = common_words([[ctx.logs[i].query for i in c.train] for c in clusters])

    def look(told: Collection[str]) -> list[ClusterRules]:
        return [_recurring(ctx, c, same[c.id], shared, common, told) for c in clusters]

    rules = look(())
    told = told_elsewhere(rules, common)
    if told:
        rules = look(told)
    for cluster, found in zip(clusters, rules, strict=True):
        queries = [ctx.logs[i].query for i in cluster.train]
        sets = [ctx.wishes[i] for i in cluster.train]
        completed = [found.complete(s, q) for s, q in zip(sets, queries, strict=True)]
        for run_id in cluster.practice:
            wanted = found.wanted_for(ctx.unheard[run_id].query)
            if wanted:
                completed.append(RuleSet(run_id=run_id, with_feedback=wanted, wanted=wanted))
        ctx.work.write_records(f"clusters/{cluster.id}/rules.jsonl", completed)
        ctx.work.write_records(f"clusters/{cluster.id}/recurring.jsonl", [found])
        cluster.rules = [rule.text for rule in found.recurring]
        cluster.conditions = [
            list(rule.condition.words) if rule.condition else [] for rule in found.recurring
        ]
        cluster.rivals = list(found.rivals)
        ctx.progress.advance("aggregate")
    ctx.work.write_records("aggregated.jsonl", clusters)
    gone = sum(len(found.gone) for found in rules)
    past = f", {gone} wanted no longer" if gone else ""
    return f"{sum(len(c.rules) for c in clusters)} recurring rules{past}"


def _recurring(
    ctx: RefreshContext,
    cluster: ClusterData,
    same: dict[str, str],
    shared: bool,
    common: Collection[str],
    told: Collection[str],
) -> ClusterRules:
    logs = [ctx.logs[i] for i in cluster.train]
    settings = ctx.recipe.cluster
    return aggregate_rules(
        [ctx.wishes[i] for i in cluster.train],
        [log.query for log in logs],
        same=same,
        given=[ctx.given.get(i, ()) for i in cluster.train],
        user_ids=[log.user_id for log in logs],
        min_support=settings.aggregate_support,
        min_users=settings.min_users if shared else 1,
        votes=settings.votes,
        own_rules=settings.own_rules == "all" or not shared,
        common=common,
        told=told,
        times=[log.created_at.timestamp() for log in logs],
        seed=ctx.recipe.seed,
    )


def told_elsewhere(rules: Sequence[ClusterRules], common: Collection[str]) -> frozenset[str]:
    """Return the common words that are conditions in two clusters or more."""
    counts: Counter[str] = Counter()
    for found in rules:
        conditions = [rule.condition for rule in found.recurring if rule.condition]
        counts.update({word for one in conditions for word in one.words if word in common})
    return frozenset(word for word, count in counts.items() if count >= 2)


def _wordings(ctx: RefreshContext, cluster: ClusterData) -> dict[str, str]:
    texts = [[rule.text for rule in ctx.wishes[i].with_feedback] for i in cluster.train]
    return group_wordings(texts, ctx.embedder, ctx.reranker)
