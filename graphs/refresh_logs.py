"""The first nodes of a refresh: drain the journal, filter the logs, distil them into rules."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from langchain_uno.errors import EmptyLogError
from langchain_uno.graphs.refresh_context import RefreshContext, refresh_id
from langchain_uno.graphs.refresh_known import known_rules, note_rules
from langchain_uno.learning.distil import DistilStats, distil
from langchain_uno.learning.pairs import edited_pairs, liked_pairs
from langchain_uno.logs.filters import acted_on, verdicts
from langchain_uno.logs.join import feedback_digest
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import LogStore
from langchain_uno.records import Interaction, RuleSet, Verdict

__all__ = ["distil_node", "drain_node", "filter_node"]

_CHUNK = 64
"""Logs distilled between two saves; on a large real model some minutes' work."""


def drain_node(ctx: RefreshContext) -> None:
    """Move the journal into Chroma, and take a snapshot of the logs and their embeddings.

    The store's lease is held no longer than that: apps and other commands go on meanwhile.

    Raises:
        EmptyLogError: there are no interactions, or nobody said or did anything about one.
    """
    with ctx.timed("drain"):
        ctx.progress.start("drain", None, "the journal into Chroma")
        with LogStore.open(ctx.home, ctx.embedder, settings=ctx.recipe.filter) as store:
            drained = store.drain(ctx.counter("drain"))
            every = store.interactions()
            # An answer that nobody reacted to teaches nothing; a service has many of those.
            heard = [log for log in every if log.feedback]
            if not every:
                raise EmptyLogError(
                    f"The log of {str(ctx.home.path)!r} is empty: attach "
                    "UNOFeedbackHandler(home=...) to a chat model, or import one "
                    "(python -m langchain_uno.logs import FILE --home DIR)."
                )
            if not heard:
                raise EmptyLogError(
                    f"None of the {len(every)} interactions in {str(ctx.home.path)!r} has "
                    "feedback: record it with UNOFeedbackHandler.feedback(run_id, ...)."
                )
            ctx.id = refresh_id(ctx, heard)
            if not ctx.work.has("snapshot.json"):
                ctx.work.write_records("heard.jsonl", heard)
                ctx.work.write_array("heard.npy", store.embeddings([log.run_id for log in heard]))
                unheard = _unheard(ctx, every)
                ctx.work.write_records("unheard.jsonl", unheard)
                ids = [log.run_id for log in unheard]
                ctx.work.write_array("unheard.npy", store.embeddings(ids))
                ctx.work.write_json("snapshot.json", {"interactions": len(every)})
    ctx.work.write_json("seconds-drain.json", ctx.seconds["drain"])
    ctx.progress.finish("drain", f"{drained} new, {len(every)} in all, {len(heard)} with feedback")


def _unheard(ctx: RefreshContext, every: Sequence[Interaction]) -> list[Interaction]:
    """Return the latest requests without any reaction; verification may ask them again.

    First turns only: what somebody says later in a conversation may itself be a reaction.
    """
    settings = ctx.recipe.filter
    lenient = settings.model_copy(update={"ignore": [*settings.ignore, "no_feedback"]})
    fresh = [
        log
        for log in every
        if not log.feedback and sum(m.role == "user" for m in log.messages) == 1
    ]
    judged = verdicts(fresh, lenient, ctx.supports)
    usable = [log for log, one in zip(fresh, judged, strict=True) if one.usable]
    usable.sort(key=lambda log: (log.created_at, log.run_id))
    return usable[len(usable) - min(len(usable), ctx.recipe.verify.unlabelled) :]


def filter_node(ctx: RefreshContext) -> None:
    """Keep the logs that may be learnt from, and count the others by reason.

    Raises:
        EmptyLogError: none may; the message says why.
    """
    ctx.once("filter", "filter.json", lambda: _filter(ctx))


def _filter(ctx: RefreshContext) -> str:
    heard = ctx.work.read_records("heard.jsonl", Interaction)
    ctx.progress.start("filter", len(heard))
    kept: list[int] = []
    reasons: Counter[str] = Counter()
    judged = verdicts(heard, ctx.recipe.filter, ctx.supports)
    for i, one in enumerate(judged):
        if one.usable:
            kept.append(i)
        else:
            reasons[one.reason] += 1
    ctx.progress.advance("filter", len(heard))
    kept, odd = _unsurprising(ctx, heard, kept)
    reasons.update(one.reason for one in odd.values())
    if not kept:
        raise EmptyLogError(_why_none(ctx, heard, reasons))
    ctx.work.write_records("logs.jsonl", [heard[i] for i in kept])
    ctx.work.write_array("queries.npy", ctx.work.read_array("heard.npy")[kept])
    ctx.work.write_json(
        "by-model.json", {heard[i].run_id: one.model_dump(mode="json") for i, one in odd.items()}
    )
    ctx.work.write_json("filter.json", {"usable": len(kept), "dropped": dict(reasons)})
    return f"{len(kept)} usable, {len(heard) - len(kept)} left out"


def _unsurprising(
    ctx: RefreshContext, heard: Sequence[Interaction], kept: Sequence[int]
) -> tuple[list[int], dict[int, Verdict]]:
    """Leave out answers that the base model finds too surprising, where the recipe minds."""
    most = ctx.recipe.filter.max_perplexity
    if most is None or "high_perplexity" in ctx.recipe.filter.ignore:
        return list(kept), {}
    from langchain_uno.models.perplexity import perplexities

    ctx.progress.start("filter", len(kept), "perplexity of the answers")
    found = perplexities(
        [(heard[i].messages, heard[i].answer) for i in kept], ctx.engine, ctx.counter("filter")
    )
    odd = {
        i: Verdict(usable=False, reason="high_perplexity", detail=f"{value:.1f}, at most {most:g}")
        for i, value in zip(kept, found, strict=True)
        if value > most
    }
    return [i for i in kept if i not in odd], odd


def _why_none(ctx: RefreshContext, heard: Sequence[Interaction], reasons: Counter[str]) -> str:
    foreign = {log.language for log in heard if not ctx.supports(log.language)}
    if foreign and all(log.language in foreign for log in heard):
        return (
            f"All {len(heard)} interactions with feedback are in {', '.join(sorted(foreign))}, for "
            f"which the prompt set {ctx.prompts.fingerprint!r} has no prompts: refresh with a real "
            "model (--model NAME; its prompts cover en and zh)."
        )
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    return (
        f"None of the {len(heard)} interactions with feedback can be learnt from ({counts}): see "
        "python -m langchain_uno.logs stats, and [filter] in the recipe."
    )


def distil_node(ctx: RefreshContext) -> None:
    """Write rules with and without feedback for every usable log, saving as it goes.

    Raises:
        EmptyLogError: no rule came of any feedback, and no user edited or re-chose an answer.
    """
    ctx.once("distil", "distil.json", lambda: _distil(ctx))


def _distil(ctx: RefreshContext) -> str:
    logs = list(ctx.logs.values())
    ctx.progress.start("distil", 2 * len(logs), "rules with and without feedback")
    known = known_rules(ctx, logs)
    stats = DistilStats(logs=len(known), rules=sum(len(r.with_feedback) for r in known.values()))
    ctx.progress.advance("distil", 2 * len(known))
    new, found = [log for log in logs if log.run_id not in known], dict(known)
    for start in range(0, len(new), _CHUNK):
        some = new[start : start + _CHUNK]
        name = f"distil/{start:07d}-{_content(some)}"
        if not ctx.work.has(f"{name}.json"):
            one = DistilStats()
            made = distil(
                some,
                ctx.teacher,
                ctx.teacher_prompts,
                ctx.recipe,
                ctx.counter("distil"),
                predictor=ctx.engine,
                predictor_prompts=ctx.prompts,
                stats=one,
            )
            ctx.work.write_records(f"{name}.jsonl", made)
            ctx.work.write_json(f"{name}.json", vars(one))
        else:
            ctx.progress.advance("distil", 2 * len(some))
        found |= {r.run_id: r for r in ctx.work.read_records(f"{name}.jsonl", RuleSet)}
        stats.add(DistilStats(**ctx.work.read_json(f"{name}.json")))
    if not stats.rules and not edited_pairs(logs) and not liked_pairs(logs):
        raise EmptyLogError(
            f"None of the {len(logs)} usable interactions has usable feedback: in {stats.empty} "
            f"the words ask for nothing, {stats.without_words} have no words, for "
            f"{stats.unparsable} the model wrote no readable rules. There is nothing to learn yet."
        )
    out = [found[log.run_id] for log in logs]
    note_rules(ctx, logs)
    ctx.work.write_records("rules.jsonl", out)
    _note_verdicts(ctx, logs, out)
    ctx.work.write_json("distil.json", vars(stats))
    return f"{stats.rules} rules from {stats.logs} logs, {stats.unparsable} unparsable"


def _note_verdicts(
    ctx: RefreshContext, logs: Sequence[Interaction], rules: Sequence[RuleSet]
) -> None:
    """Keep in the journal what the models found: answers too odd, words that ask for nothing."""
    found = {
        run_id: Verdict.model_validate(one)
        for run_id, one in ctx.work.read_json("by-model.json").items()
    }
    for log, mine in zip(logs, rules, strict=True):
        said_only = log.feedback_turns and log.score is None and not (log.correction or "").strip()
        if said_only and not mine.with_feedback and not acted_on(log):
            found[log.run_id] = Verdict(
                usable=False, reason="nothing_asked", detail="no rule came of the words"
            )
    heard = {log.run_id: log for log in ctx.work.read_records("heard.jsonl", Interaction)}
    with Journal(ctx.home.journal) as journal:
        journal.set_model_verdicts(
            {r: (feedback_digest(heard[r].feedback), one) for r, one in found.items()}
        )


def _content(logs: Sequence[Interaction]) -> str:
    ids = "\0".join(log.run_id for log in logs)
    return hashlib.sha256(ids.encode("utf-8", "surrogatepass")).hexdigest()[:12]
