"""The aggregate node of a refresh: what recurs in each cluster, by whom it is wanted.

Whose word counts is settled here: one vote a person, several people behind a rule, and no wish that
a few people have everywhere (``recipe.cluster``). A home of a few people is theirs: none of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from langchain_uno.graphs.refresh_context import ClusterData, RefreshContext
from langchain_uno.learning.aggregate import ClusterRules, aggregate_rules
from langchain_uno.learning.conditions import common_words
from langchain_uno.learning.personal import Mention, personal_wishes
from langchain_uno.learning.wordings import group_wordings, plain
from langchain_uno.records import Rule, RuleSet

__all__ = ["aggregate_node", "told_elsewhere"]


def aggregate_node(ctx: RefreshContext) -> None:
    """Complete each training log's rules by those that recur in its cluster."""
    ctx.once("aggregate", "aggregated.jsonl", lambda: _aggregate(ctx))


def _aggregate(ctx: RefreshContext) -> str:
    clusters = ctx.clusters()
    ctx.progress.start("aggregate", len(clusters), "rules that recur")
    same = {c.id: _wordings(ctx, c) for c in clusters}
    settings = ctx.recipe.cluster
    shared = _people(ctx, clusters) >= 2 * settings.min_users
    dropped = _drop_personal(ctx, clusters, same) if shared else 0
    if not shared:
        ctx.work.write_json("personal.json", [])
        ctx.work.write_records("wishes.jsonl", ctx.rules.values())
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
        ctx.progress.advance("aggregate")
    ctx.work.write_records("aggregated.jsonl", clusters)
    note = f"{sum(len(c.rules) for c in clusters)} recurring rules"
    return f"{note}, {dropped} personal wishes left out" if dropped else note


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
    texts = [[rule.text for rule in ctx.rules[i].with_feedback] for i in cluster.train]
    return group_wordings(texts, ctx.embedder, ctx.reranker)


def _people(ctx: RefreshContext, clusters: list[ClusterData]) -> int:
    voting = [i for c in clusters for i in c.train if ctx.rules[i].with_feedback]
    return len({_person(ctx, run_id) for run_id in voting})


def _person(ctx: RefreshContext, run_id: str) -> str:
    """Who gave a log's feedback; nobody known is a person of their own."""
    user = ctx.logs[run_id].user_id
    return f"user:{user}" if user is not None else f"log:{run_id}"


def _drop_personal(
    ctx: RefreshContext, clusters: list[ClusterData], same: dict[str, dict[str, str]]
) -> int:
    """Write the logs' rules without personal wishes; return how many of those there were.

    Who has which is told by the training logs; what such a person then asks for in a log that is
    held out is no standard to verify by either.
    """
    heads = [[head] for of in same.values() for head in dict.fromkeys(of.values())]
    across = group_wordings(heads, ctx.embedder, ctx.reranker)
    rule_of = {
        plain(text): across.get(head, head) for of in same.values() for text, head in of.items()
    }
    regions: dict[str, int] = ctx.work.read_json("regions.json")
    mentions = [
        Mention(
            _person(ctx, run_id), rule_of[plain(rule.text)], regions[run_id], run_id in ctx.given
        )
        for cluster in clusters
        for run_id in cluster.train
        for rule in ctx.rules[run_id].with_feedback
        if plain(rule.text) in rule_of
    ]
    settings = ctx.recipe.cluster
    personal = personal_wishes(
        mentions, min_regions=settings.personal_from, max_share=settings.aggregate_support
    )
    theirs = {person for person, _ in personal}
    ctx.work.write_json("personal.json", [i for i in ctx.logs if _person(ctx, i) in theirs])
    dropped, kept = 0, []
    for run_id, rules in ctx.rules.items():
        person = _person(ctx, run_id)
        others: list[Rule] = [
            rule
            for rule in rules.with_feedback
            if (person, rule_of.get(plain(rule.text), "")) not in personal
        ]
        dropped += len(rules.with_feedback) - len(others)
        kept.append(rules.model_copy(update={"with_feedback": others}))
    ctx.work.write_records("wishes.jsonl", kept)
    return dropped
