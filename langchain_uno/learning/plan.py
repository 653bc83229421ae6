"""What a refresh would do and cost, without doing it: ``langchain-uno train --dry-run``.

Logs and calls are counted; the number of clusters is that of the home's last refresh, or assumed.
Minutes are scaled from the last refresh of this model, stage by stage, or estimated from a few
seconds of measuring the model on this machine. Nothing is written, and no teacher is asked.
"""

from __future__ import annotations

import math
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from pydantic import BaseModel, Field

from langchain_uno.errors import EmptyLogError, ReleaseError
from langchain_uno.home import Home
from langchain_uno.learning.acts import rated_answers, thumbs_teach
from langchain_uno.learning.distil import distil_keys, edits_to_read, known_rules
from langchain_uno.learning.filter import nothing_heard, why_none
from langchain_uno.learning.split import people_for
from langchain_uno.learning.thumbs import CHECKED, EACH, MOST_RULES
from langchain_uno.learning.work import DISTILLED, RefreshResult, Work, given_up, refresh_folders
from langchain_uno.logs.filters import spoken, verdicts
from langchain_uno.logs.index import check_embedder
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import index_is_embedded
from langchain_uno.models.protocols import Engine, GenerateRequest, Sampling, known_as
from langchain_uno.recipe import Recipe, changed_settings
from langchain_uno.records import STAGES, Interaction, Message, by_speaker, content_of
from langchain_uno.releases.load import list_releases, read_manifest
from langchain_uno.releases.traffic import answering, read_traffic
from langchain_uno.trainers.deciding import least_people

SAMPLE = 16
"""Logs whose prompts are measured for the mean."""
ASSUMED = 20
"""Logs of a cluster, where no refresh has found any yet."""
SHOWN = 4
"""Settings that are named, of those that differ."""


class Calls(BaseModel):
    """What one role is asked, at most."""

    who: str
    """"model", or "teacher" where one is named."""
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Plan(BaseModel):
    """What a refresh would do; costs are upper bounds: modules that are still good stay."""

    unchanged: bool = False
    """Nothing is new: a refresh would do nothing."""
    interactions: int = 0
    heard: int = 0
    """Logs that somebody reacted to, one for each person who did."""
    new: int | None = 0
    """Those that the last refresh did not have; None: its record was cleared, as by an erasure."""
    usable: int = 0
    people: int = 0
    """Who gave the feedback of these."""
    needed: int = 0
    """People without whom no kind of request is trained for; 0: the paper's rule, any number."""
    dropped: dict[str, int] = Field(default_factory=dict)
    to_distil: int = 0
    goes_on: list[str] | None = None
    """The stages that an unfinished refresh has behind it; None: there is no such refresh."""
    notes: list[str] = Field(default_factory=list)
    """What a person should read before the refresh."""
    clusters: int = 0
    calls: dict[str, Calls] = Field(default_factory=dict)
    steps: int = 0
    """Of training."""
    tokens_per_second: float = 0.0
    """That the model writes here."""
    step_seconds: float = 0.0
    minutes: dict[str, float] = Field(default_factory=dict)
    """By stage; without an earlier refresh, of "models" and "training"."""
    as_last: bool = False
    """Whether the minutes are those of the last refresh, for today's logs; else they are reckoned
    from the two figures above, and a teacher's are left out."""


def plan_refresh(work: Work) -> Plan:
    """Return what a refresh with these models and this recipe would do.

    Args:
        work: the refresh; its home is only read, its logs are set.

    Raises:
        EmptyLogError: there is nothing to learn from.
        EngineError: the model can't answer.
        ModelMismatchError: the index holds another embedder's vectors.
        StoreError: the journal can't be read.
    """
    if index_is_embedded(work.home):
        check_embedder(work.home.chroma, known_as(work.embedder))
    with Journal(work.home.journal, readonly=True) as journal:
        every = list(read(journal, join(journal)))
        waiting = journal.waiting()
    heard = [log for log in every if log.feedback]
    if not heard:
        raise EmptyLogError(nothing_heard(str(work.home.path), len(every), waiting))
    if work.recipe.rules.voices != "logs":
        heard = [one for log in heard for one in by_speaker(log)]
    judged = verdicts(heard, work.recipe.filter, work.supports)
    usable = [spoken(log) for log, one in zip(heard, judged, strict=True) if one.usable]
    dropped = Counter(one.reason for one in judged if not one.usable)
    if not usable:
        raise EmptyLogError(why_none(work, [log.language for log in heard], dropped))
    work.logs = {log.run_id: log for log in usable}
    verify = work.recipe.verify
    plan = Plan(
        interactions=len(every),
        heard=len(heard),
        usable=len(usable),
        dropped=dict(dropped),
        people=len(set(work.voices.values())),
    )
    if verify.level is not None:
        plan.needed = people_for(least_people(verify.level), verify.held_out)
    last, known = None, set[str]()
    for folder in refresh_folders(work.home.work):
        snapshot = folder.read_json("snapshot.json") if folder.has("snapshot.json") else {}
        if found := folder.result():
            last = found
            known = set(snapshot["logs"])
        elif snapshot.get("fit") == work.fit:
            plan.goes_on = [s for s in STAGES if folder.has(f"{s}.json")]
    plan.notes = [*settings_notes(work.home, work.recipe, work.engine), *given_up(work)]
    cleared = last is None and list_releases(work.home)
    plan.new = None if cleared else sum(log.run_id not in known for log in heard)
    keys = distil_keys(work, {log.run_id: content_of(log) for log in usable})
    done = known_rules(work.home.work / DISTILLED, set(keys.values()))
    new = [log for log in usable if keys[log.run_id] not in done]
    edits = edits_to_read(new, work.teacher_prompts)
    plan.to_distil = sum(
        bool(log.feedback_turns or edit) for log, edit in zip(new, edits, strict=True)
    )
    _count(work, plan, usable, last)
    _time(work, plan, usable, last)
    return plan


def settings_notes(home: Home, recipe: Recipe, engine: Engine) -> list[str]:
    """Say which settings differ from those of the release that a refresh goes on from, if any do.

    Where the base model answers it is the newest release, of which nothing is taken over. A release
    that can't be read, or that is of another base model, is passed over.
    """
    with suppress(ReleaseError):
        traffic, names = read_traffic(home), list_releases(home)
        answers = (traffic.stands_in_for if traffic else None) or answering(home)
        name = answers or (names[-1] if names else None)
        then = read_manifest(home, str(name)).recipe if _is_of(home, name, engine) else {}
        changed = changed_settings(then, recipe)
        some = list(changed.items())[:SHOWN]
        told = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in some)
        how = " ".join(shlex.join(["--set", f"{key}={old}"]) for key, (old, _) in some)
        if len(changed) > SHOWN:
            told += f" and {len(changed) - SHOWN} more"
            how = f"Its recipe ({then.get('name')!r}) with the same --set"
        stays = "all modules are trained anew"
        if answers and recipe.keep:
            stays = "modules stay where wishes changed little and no test is against them"
        if changed:
            return [
                f"Settings differ from those of release {name}: {told}. Clusters are cut anew; "
                f"{stays}. {how} keeps the former settings once, the home's settings.toml for good."
            ]
    return []


def _is_of(home: Home, name: str | None, engine: Engine) -> bool:
    """Whether a release was made with this base model; one that can't be read was not."""
    with suppress(ReleaseError):
        return bool(name) and read_manifest(home, str(name)).base_fingerprint == engine.fingerprint
    return False


def _count(
    work: Work, plan: Plan, usable: Sequence[Interaction], last: RefreshResult | None
) -> None:
    """Fill in calls, tokens and steps."""
    from langchain_uno.trainers.common import TrainSettings, plan_epochs

    recipe, by = work.recipe, "model" if work.teacher is work.engine else "teacher"
    train = math.ceil(len(usable) * (1 - recipe.verify.held_out))
    spoke = sum(bool(log.feedback_turns) for log in usable) * train // len(usable)
    plan.clusters = len(last.clusters) if last else max(1, len(usable) // ASSUMED)
    each = math.ceil(train / plan.clusters)
    epochs, steps = plan_epochs(each, TrainSettings.of(recipe, "expert", work.max_steps))
    enough = plan.people >= plan.needed
    plan.steps = enough * plan.clusters * steps
    speaking = {work.voices[log.run_id] for log in usable if log.feedback_turns}
    thumbs = rated_answers([log for log in usable if not log.feedback_turns], work.voices)
    # Rules are drawn from lone thumbs where too few people say things.
    drawn = len(speaking) < plan.needed and thumbs_teach(thumbs, recipe)
    rated = len(thumbs) if drawn else 0
    candidates = enough * recipe.pairs.candidates * (2 * spoke + rated)
    answers = enough * (len(usable) - train) * (1 + min(epochs, recipe.lora.epochs))
    judged = candidates + enough * train + answers * recipe.verify.judgements
    judged += min(rated, 2 * CHECKED * EACH * plan.clusters) * MOST_RULES
    asked = plan.to_distil + (plan.clusters if rated else 0)
    words, own = work.teacher_prompts, work.prompts
    prompts: dict[str, Callable[[Interaction], Sequence[Message]]] = {
        "distil": lambda g: words.distil_prompt(g.messages, g.answer, g.feedback_turns, g.language),
        "guess": lambda g: own.predict_prompt(g.messages, g.language),
        "revise": lambda g: words.revise_feedback_prompt(g.messages, g.feedback_turns, g.language),
        "judge": lambda g: words.judge_prompt(g.messages, [], g.answer, g.language),
        "answer": lambda g: g.messages,
    }
    some = [log for log in usable if log.feedback_turns][-SAMPLE:] or list(usable[-SAMPLE:])
    for role, who, calls, most in (
        ("distil", by, asked, recipe.role_tokens),
        ("guess", "model", plan.to_distil, recipe.role_tokens),
        ("revise", by, candidates, recipe.revision_tokens),
        ("judge", by, judged, recipe.role_tokens),
        ("answer", "model", answers, recipe.answer_tokens),
    ):
        tokens = sum(len(cast(Any, work.engine).prompt(prompts[role](g))) for g in some)
        plan.calls[role] = Calls(
            who=who,
            calls=calls,
            input_tokens=calls * tokens // len(some),
            output_tokens=calls * most,
        )


def _time(
    work: Work, plan: Plan, usable: Sequence[Interaction], last: RefreshResult | None
) -> None:
    """Measure the model for a few seconds, and fill in the minutes.

    A step is a forward pass over both answers of each pair, and a backward pass, which costs about
    two forward ones (the base's weights get no gradients).
    """
    import torch

    some = usable[-SAMPLE:]
    requests = [GenerateRequest(log.messages, sampling=Sampling(max_tokens=32)) for log in some]
    start = time.perf_counter()
    written = sum(g.usage.output_tokens for g in work.engine.generate(requests))
    plan.tokens_per_second = round(written / (time.perf_counter() - start), 2)
    with cast(Any, work.engine).exclusive() as (model, tokenizer), torch.no_grad():
        rows = sorted((tokenizer(f"{g.query}\n{g.answer}")["input_ids"] for g in some), key=len)
        typical = rows[len(rows) // 2][: work.recipe.expert.max_length]
        ids = torch.tensor([typical], dtype=torch.long)
        model(input_ids=ids.to(model.device))
        start = time.perf_counter()
        model(input_ids=ids.to(model.device))
        took = time.perf_counter() - start
    plan.step_seconds = round(took * 3 * 2 * work.recipe.lora.batch_size, 4)
    if last is not None and last.usable and _is_of(work.home, last.release, work.engine):
        plan.as_last = True
        then = last.stages.get("distil", {})
        fresh = then.get("logs", 0) - then.get("taken_over", 0)
        for stage, seconds in last.seconds.items():
            # Distilling costs what is new; all else what there is.
            by_new = stage == "distil" and fresh
            share = plan.to_distil / fresh if by_new else len(usable) / last.usable
            plan.minutes[stage] = round(seconds * share / 60, 2)
        return
    own = [one.output_tokens for one in plan.calls.values() if one.who == "model"]
    plan.minutes = {
        "models": round(sum(own) / max(plan.tokens_per_second, 1e-9) / 60, 4),
        "training": round(plan.steps * plan.step_seconds / 60, 4),
    }
