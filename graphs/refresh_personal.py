"""Whose word counts, before anything is clustered: wishes that a few people have everywhere go.

They are told by regions, clusters of the queries alone, over all logs. Left in, they would be half
of what is clustered: who asks for one thing wherever he is can make a cluster of it, and cut the
others' clusters in pieces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from langchain_uno.graphs.refresh_context import RefreshContext
from langchain_uno.learning.cluster import cluster_logs
from langchain_uno.learning.personal import Mention, personal_wishes
from langchain_uno.learning.wordings import group_wordings, plain

__all__ = ["drop_personal", "is_shared", "person_of", "regions_of", "rules_across"]

Regions = Mapping[str, int]


def is_shared(ctx: RefreshContext, run_ids: Iterable[str]) -> bool:
    """Whether enough people name rules in these logs for a rule to need several of them.

    A home of a few people is theirs.
    """
    voting = {person_of(ctx, run_id) for run_id in run_ids if ctx.rules[run_id].with_feedback}
    return len(voting) >= 2 * ctx.recipe.cluster.min_users


def drop_personal(ctx: RefreshContext, regions: Regions, rule_of: Mapping[str, str]) -> int:
    """Write the logs' rules without personal wishes; return how many of those there were.

    Also written is whose edits teach nothing: those of people with such a wish, which is in them.

    Args:
        ctx: of this refresh.
        regions: which logs ask alike (:func:`regions_of`).
        rule_of: what each text stands for (:func:`rules_across`).
    """
    shared = is_shared(ctx, ctx.logs)
    personal = personal_wishes(
        [
            Mention(person_of(ctx, run_id), rule_of[plain(rule.text)], region, run_id in ctx.given)
            for run_id, region in regions.items()
            for rule in ctx.rules[run_id].with_feedback
            if plain(rule.text) in rule_of
        ],
        min_regions=ctx.recipe.cluster.personal_from if shared else 0,
        max_share=ctx.recipe.cluster.aggregate_support,
    )
    theirs = {person for person, _ in personal}
    ctx.work.write_json("personal.json", [i for i in ctx.logs if person_of(ctx, i) in theirs])
    dropped, kept = 0, []
    for run_id, rules in ctx.rules.items():
        person = person_of(ctx, run_id)
        others = [
            rule
            for rule in rules.with_feedback
            if (person, rule_of.get(plain(rule.text), "")) not in personal
        ]
        dropped += len(rules.with_feedback) - len(others)
        kept.append(rules.model_copy(update={"with_feedback": others}))
    ctx.work.write_records("wishes.jsonl", kept)
    return dropped


def person_of(ctx: RefreshContext, run_id: str) -> str:
    """Who gave a log's feedback; nobody known is a person of their own."""
    user = ctx.logs[run_id].user_id
    return f"user:{user}" if user is not None else f"log:{run_id}"


def regions_of(ctx: RefreshContext) -> dict[str, int]:
    """Return which logs ask alike, whatever their users want, by run id."""
    settings = ctx.recipe.cluster
    labels = cluster_logs(
        ctx.queries,
        np.zeros((len(ctx.queries), 1), dtype=np.float32),
        "stable" if settings.mode == "one" else settings.mode,
        threshold=settings.threshold,
        rule_weight=0.0,
        min_size=settings.min_size,
        seed=ctx.recipe.seed,
    )
    return dict(zip(ctx.logs, labels.tolist(), strict=True))


def rules_across(ctx: RefreshContext, regions: Regions) -> dict[str, str]:
    """Return the rule that each text, in its plain form, stands for in all regions."""
    texts: dict[int, list[list[str]]] = defaultdict(list)
    for run_id, region in regions.items():
        texts[region].append([rule.text for rule in ctx.rules[run_id].with_feedback])
    # What is named in one breath is two wishes, which only a region's own logs tell.
    same = [group_wordings(said, ctx.embedder, ctx.reranker) for said in texts.values()]
    heads = [[head] for of in same for head in dict.fromkeys(of.values())]
    across = group_wordings(heads, ctx.embedder, ctx.reranker)
    return {plain(text): across.get(head, head) for of in same for text, head in of.items()}
