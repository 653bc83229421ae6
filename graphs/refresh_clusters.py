"""The middle nodes of a refresh: cluster, gap, and pairs where an expert is to come.

Each cluster is split into training and verification logs as soon as it is known. From there on
verification logs are not looked at before the verifier does: recurring rules, the gap and pairs
come from training logs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from langchain_uno.graphs.refresh_context import ClusterData, RefreshContext
from langchain_uno.graphs.refresh_evolve import is_kept
from langchain_uno.graphs.refresh_given import given_rules
from langchain_uno.graphs.refresh_parents import Parent, match_parents
from langchain_uno.graphs.refresh_personal import (
    drop_personal,
    is_shared,
    person_of,
    regions_of,
    rules_across,
)
from langchain_uno.learning.alike import merge_alike
from langchain_uno.learning.cluster import centroids, cluster_logs
from langchain_uno.learning.discriminant import discriminant
from langchain_uno.learning.gap import cluster_gap, cognitive_gap, count_questions
from langchain_uno.models.judge import stable_seed
from langchain_uno.learning.pairs import build_pairs, count_work, was_content, was_disliked
from langchain_uno.learning.reach import assign, unseen_threshold
from langchain_uno.learning.split import split_logs
from langchain_uno.learning.wordings import plain
from langchain_uno.models.protocols import FloatArray
from langchain_uno.records import Interaction, RuleSet

__all__ = ["cluster_node", "gap_node", "pairs_node", "routing_projection"]


def cluster_node(ctx: RefreshContext) -> None:
    """Group the logs by query and rules, and hold some of each group back for verification."""
    ctx.once("cluster", "clusters.jsonl", lambda: _cluster(ctx))


def _cluster(ctx: RefreshContext) -> str:
    logs = list(ctx.logs.values())
    ctx.progress.start("cluster", len(logs), "embedding rules")
    ctx.work.write_json("given.json", given_rules(ctx))
    regions, rule_of = _wordings(ctx)
    dropped = drop_personal(ctx, regions, rule_of)
    rules = ctx.embedder.embed([_wishes(ctx, log.run_id) for log in logs], ctx.counter("cluster"))
    aside = _aside(ctx)
    labels = _labels(ctx, rules, aside, rule_of)
    groups = [[logs[i] for i in np.flatnonzero(labels == n)] for n in range(int(labels.max()) + 1)]
    parents = match_parents(ctx, [{log.run_id for log in members} for members in groups])
    clusters = []
    for members, parent in zip(groups, parents, strict=True):
        clusters.append(_split(ctx, members, parent, aside))
    _add_unlabelled(ctx, clusters, labels)
    _assert_disjoint(ctx, clusters)
    ctx.work.write_records("clusters.jsonl", clusters)
    note = f"{len(clusters)} clusters of {len(logs)} logs"
    return f"{note}, {dropped} personal wishes left out" if dropped else note


def _aside(ctx: RefreshContext) -> set[str]:
    """Return the logs of people with personal wishes who want nothing else there.

    They are neither taught nor verified on, and divide nothing into clusters. Where everybody is
    such a person, there is nobody to be protected.
    """
    personal: list[str] = ctx.work.read_json("personal.json")
    aside = {run_id for run_id in personal if not ctx.wishes[run_id].with_feedback}
    return aside if len(aside) < len(ctx.logs) else set()


def _wordings(ctx: RefreshContext) -> tuple[dict[str, int], dict[str, str]]:
    """Return the regions of the logs, and what each rule's text stands for; empty if not needed."""
    personal = ctx.recipe.cluster.personal_from and is_shared(ctx, ctx.logs)
    if not personal and not _merges(ctx):
        return {}, {}
    regions = regions_of(ctx)
    return regions, rules_across(ctx, regions)


def _merges(ctx: RefreshContext) -> bool:
    return ctx.recipe.cluster.merge_alike and ctx.recipe.cluster.mode == "stable"


def _labels(
    ctx: RefreshContext, rules: FloatArray, aside: set[str], rule_of: Mapping[str, str]
) -> NDArray[np.int64]:
    """Return each log's cluster; those set aside go where serving would send their requests."""
    settings = ctx.recipe.cluster
    inside = np.array([run_id not in aside for run_id in ctx.logs], dtype=np.bool_)
    queries = ctx.queries[inside]
    found = cluster_logs(
        queries,
        rules[inside],
        settings.mode,
        threshold=settings.threshold,
        rule_weight=settings.rule_weight,
        min_size=settings.min_size,
        seed=ctx.recipe.seed,
    )
    if _merges(ctx):
        there = [run_id for run_id in ctx.logs if run_id not in aside]
        named = [_named(ctx, run_id, rule_of) for run_id in there]
        people = [person_of(ctx, run_id) for run_id in there]
        served = [_served(ctx, run_id) for run_id in there]
        found = merge_alike(queries, found, named, people, served)
    labels = np.empty(len(inside), dtype=np.int64)
    labels[inside] = found
    if aside:
        projection = routing_projection(ctx, queries, found)
        labels[~inside] = assign(
            ctx.queries[~inside], centroids(queries, found), np.inf, projection
        )
    return labels


def _wishes(ctx: RefreshContext, run_id: str) -> str:
    """What a log's user wants, for clustering; nothing where a module answered.

    What is asked of a module is what it lacks. Taken for all that is wanted, it would part the logs
    of one kind of request by the releases that answered them (lab/experiments.md).
    """
    if run_id in ctx.given:
        return ""
    return "\n".join(rule.text for rule in ctx.wishes[run_id].with_feedback)


def _named(ctx: RefreshContext, run_id: str, rule_of: Mapping[str, str]) -> set[str] | None:
    """Return the rules that a log's user named; none if content, None if the log does not say."""
    if run_id in ctx.given:
        return None
    named = {rule_of.get(plain(r.text), r.text) for r in ctx.wishes[run_id].with_feedback}
    return named if named or was_content(ctx.logs[run_id]) else None


def _served(ctx: RefreshContext, run_id: str) -> str | None:
    """Return the cluster whose module answered, where the user took the answer as it was."""
    log = ctx.logs[run_id]
    if run_id not in ctx.given or ctx.wishes[run_id].with_feedback or was_disliked(log):
        return None
    return log.cluster


def _split(
    ctx: RefreshContext, everybody: list[Interaction], parent: Parent, aside: set[str]
) -> ClusterData:
    """Split a cluster; who taught a module that may be kept is not held out from it.

    Where that leaves too few to verify on, the module is not kept. Logs set aside are left out.
    """
    members = [log for log in everybody if log.run_id not in aside]
    left_out = [log.run_id for log in everybody if log.run_id in aside]
    share, seed = ctx.recipe.verify.held_out, stable_seed(ctx.recipe.seed, "split", parent.name)
    run_ids = [log.run_id for log in everybody]
    module, split = None, None
    telling = _telling(ctx, members)
    if parent.module:
        split = split_logs(members, share, seed, parent.trained_on, telling)
        if len(split.verify) >= 0.5 * share * len(members):
            module = parent.module
    if split is None or module is None:
        split = split_logs(members, share, seed, telling=telling)
    split = replace(split, left_out=split.left_out + left_out)
    found = ClusterData.of(parent.name, run_ids, split)
    return found.model_copy(update={"parent": module, "edited": bool(telling)})


def _telling(ctx: RefreshContext, members: list[Interaction]) -> set[str]:
    """Return the edited logs, where more people edited than said a word.

    Then edits are all that a module can be verified on.
    """
    said = {log.run_id for log in members if ctx.wishes[log.run_id].with_feedback}
    edited = {log.run_id for log in members if log.correction} - said
    speakers, editors = ({person_of(ctx, run_id) for run_id in logs} for logs in (said, edited))
    return edited if len(editors) > len(speakers) else set()


def _add_unlabelled(
    ctx: RefreshContext, clusters: Sequence[ClusterData], labels: NDArray[np.int64]
) -> None:
    """Give each cluster the requests near it that nobody reacted to; serving would send them there.

    Those of people whom it does not train on are held out like their users; nothing is learnt from
    them. Those of people whom it trains on may be practised on (``recipe.pairs.practice``).
    """
    if not ctx.unheard:
        return
    threshold = unseen_threshold(ctx.queries, labels, ctx.recipe.cluster.unseen_quantile)
    vectors = ctx.work.read_array("unheard.npy")
    projection = routing_projection(ctx, ctx.queries, labels)
    near = assign(vectors, centroids(ctx.queries, labels), threshold, projection)
    known = [{ctx.logs[i].query for i in c.run_ids} for c in clusters]
    users = [{ctx.logs[i].user_id for i in c.train} - {None} for c in clusters]
    for log, label in zip(ctx.unheard.values(), near, strict=True):
        if label < 0 or log.query in known[label]:
            continue
        known[label].add(log.query)
        cluster = clusters[label]
        mine = cluster.practice if log.user_id in users[label] else cluster.unlabelled
        mine.append(log.run_id)
    for cluster in clusters:
        most = ctx.recipe.pairs.practice
        cluster.practice = cluster.practice[-most:] if most else []


def routing_projection(
    ctx: RefreshContext, queries: FloatArray, labels: NDArray[np.int64]
) -> FloatArray | None:
    """Return the map after which a query goes to the nearest centroid; None: none."""
    if ctx.recipe.cluster.routing == "centroid":
        return None
    return discriminant(queries, labels)


def _assert_disjoint(ctx: RefreshContext, clusters: Sequence[ClusterData]) -> None:
    """No query text of a cluster, and no user where it is split by user, stands on both sides."""
    for cluster in clusters:
        train = [ctx.logs[i] for i in cluster.train] + [ctx.unheard[i] for i in cluster.practice]
        verify = [ctx.logs[i] for i in cluster.verify]
        verify += [ctx.unheard[i] for i in cluster.unlabelled]
        both = {log.query for log in train} & {log.query for log in verify}
        assert not both, f"cluster {cluster.id}: {len(both)} queries in training and verification"
        if cluster.split_by == "user":
            shared = {log.user_id for log in train} & {log.user_id for log in verify} - {None}
            assert not shared, f"cluster {cluster.id}: {len(shared)} users on both sides"


def gap_node(ctx: RefreshContext) -> None:
    """Measure each cluster's cognitive gap on its training logs."""
    ctx.once("gap", "gaps.jsonl", lambda: _gap(ctx))


def _gap(ctx: RefreshContext) -> str:
    clusters = ctx.clusters()
    sets: list[RuleSet] = []
    owners: list[int] = []
    for i, cluster in enumerate(clusters):
        # What is asked of a module is what it lacks; the gap is the base's.
        plain = [j for j in cluster.train if j not in ctx.given and ctx.wishes[j].with_feedback]
        measured_on = plain or cluster.train
        sets += [ctx.wishes[j] for j in measured_on]
        owners += [i] * len(measured_on)
    ctx.progress.start("gap", count_questions(sets), "is the wish covered by the guess?")
    # All clusters in one call: equal questions are asked once, and batches are full.
    measured = cognitive_gap(
        sets, ctx.reranker, ctx.counter("gap"), over_rules=ctx.recipe.gap.over_rules
    )
    for i, group in groupby(zip(owners, measured, strict=True), key=lambda pair: pair[0]):
        clusters[i].gap, clusters[i].n_gap_logs = cluster_gap([rules for _, rules in group])
    for cluster in clusters:
        cluster.gap = cluster.gap or 0.0  # no training log at all
    ctx.work.write_records("gaps.jsonl", clusters)
    low = sum(ctx.is_low(c) for c in clusters)
    return f"{low} low, {len(clusters) - low} high"


def pairs_node(ctx: RefreshContext) -> None:
    """Make preference pairs for the clusters that will train an expert, one cluster at a time."""
    ctx.once("pairs", "pairs.json", lambda: _pairs(ctx))


def _pairs(ctx: RefreshContext) -> str:
    work = []
    for cluster in ctx.clusters():
        wanted = ctx.is_low(cluster) and not is_kept(ctx, cluster)
        wanted = wanted or ctx.recipe.everything
        if not wanted or len(cluster.run_ids) < ctx.smallest_cluster():
            continue
        logs, rules = ctx.training(cluster)
        work.append((cluster, logs, rules, count_work(logs, rules, ctx.recipe)))
    ctx.progress.start("pairs", sum(n for *_, n in work), "revising and judging")
    counts = {}
    for cluster, logs, rules, n in work:
        name = f"clusters/{cluster.id}/pairs.jsonl"
        if not ctx.work.has(name):
            made = build_pairs(
                logs,
                rules,
                ctx.teacher,
                ctx.teacher,
                ctx.teacher_prompts,
                ctx.recipe,
                ctx.counter("pairs"),
            )
            ctx.work.write_records(name, made)
        else:
            ctx.progress.advance("pairs", n)
        counts[cluster.id] = len(ctx.pairs(cluster))
    ctx.work.write_json("pairs.json", counts)
    return f"{sum(counts.values())} pairs in {len(counts)} clusters"
