"""Stage "train": make and verify a module for every cluster, and say what may ship.

    low gap   -> expert -> verified? -> else critic -> verified? -> else base
    high gap  ----------------------->      critic -> verified? -> else base
                                            critic -> expert taught by it, if no worse
    thumbs    -> expert -> verified? -> else base

A verified critic answers in three generations. With ``critic.distil`` its answers to the training
requests teach an expert (context distillation, arXiv 2209.15189), which answers in its place if it
passes like any module and is no worse than the critic. A critic that is worse elsewhere teaches an
expert too: what it says to its own requests is verified.

Lone thumbs teach a cluster in which fewer than ``min_users`` people said what they want, in words
(that a judge can verify) or by acts. Where enough people said it, thumbs teach nothing: words also
ask for what the base model never does, and the expert would imitate liked answers that other people
want changed.

A module of the current release that is still good stays (:mod:`langchain_uno.learning.evolve`). It
is replaced only by one that is proven better on the same queries, by the test that compares modules
with the base. Where so few people are held out that nothing could be decided, nothing is trained. A
module that passes does not ship if so many were tried in this refresh that it may be chance
(:func:`langchain_uno.trainers.deciding.may_ship`), or if it is worse elsewhere
(:mod:`langchain_uno.trainers.elsewhere`; not by the paper's rule).

Every training and every verification is kept as soon as it is done, and nothing is deleted before
what it was needed for is written. A training keeps its state every minute, so a refresh that was
stopped repeats a minute of training, or one verification.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, Field

from langchain_uno.errors import EngineError, InputError
from langchain_uno.learning.cluster import smallest_cluster
from langchain_uno.learning.evolve import Incumbent, Verify, incumbent, unverified
from langchain_uno.learning.filter import was_taken_back
from langchain_uno.learning.pairs import balanced, weighted
from langchain_uno.learning.rules import lone_thumbs, wanted_rules
from langchain_uno.learning.size import bound_size
from langchain_uno.learning.split import people_for
from langchain_uno.learning.troubles import is_of_one, kind_of
from langchain_uno.learning.verify import (
    against_present,
    exam_of,
    held_out,
    look_outside,
    none_held_out,
    not_behind,
    verify_module,
)
from langchain_uno.learning.work import RESULT, ClusterData, ClusterResult, Work
from langchain_uno.models.judge import stable_seed
from langchain_uno.models.teacher import calls_of, check_answered
from langchain_uno.records import ModuleKind, PreferencePair, Route, VerifierReport
from langchain_uno.trainers.deciding import cluster_p_value, least_people, may_ship
from langchain_uno.trainers.elsewhere import SOFTER, softened
from langchain_uno.trainers.verifier import HeldOut

if TYPE_CHECKING:
    from langchain_uno.trainers.critic import CriticExample

_BAR = "train"
_TAUGHT = "taught by a critic, and no worse"
_TAUGHT_ALONE = "taught by a critic that is worse elsewhere"


class Trial(BaseModel):
    """How one module was made and verified."""

    report: VerifierReport | None = None
    note: str = ""
    adapter: str | None = None
    """Its folder, relative to the work folder; None: it failed, or was not made. A critic that is
    worse elsewhere alone has one: it may teach."""
    softened: bool = False
    """Whether it is a part of what was trained (:data:`SOFTER`)."""

    @property
    def passed(self) -> bool:
        """Whether it may ship, as far as its own cluster goes."""
        return self.report is not None and self.report.passed


class Decision(BaseModel):
    """What a cluster's queries are answered by, and why."""

    route: Route = "base"
    adapter: str | None = None
    """Folder of the chosen adapter, relative to the work folder."""
    report: VerifierReport | None = None
    """Of what answers, or of the last try where the base does."""
    reports: list[VerifierReport] = Field(default_factory=list)
    """Of all that was tried."""
    notes: list[str] = Field(default_factory=list)
    seconds: float = 0.0
    kept: Incumbent | None = None
    """The module of the current release, when that is the choice."""
    instead: Incumbent | None = None
    """The one that stays if what is new may not ship after all; None: there is none."""
    failed: bool = False
    """Whether an error kept something from being tried: the same call again tries it again."""
    taught_by: Trial | None = None
    """The critic that taught the expert, which ships if the expert may not; None: nobody did."""

    def keep(self, present: Incumbent, why: str) -> Decision:
        """Settle for the module that users have; return this decision."""
        self.route, self.adapter = present.kind, present.adapter
        self.kept, self.report = present, present.report
        self.reports.append(present.report)
        self.notes.append(f"{why}, made in {present.made_in}")
        return self

    @property
    def shipped(self) -> VerifierReport | None:
        """The report of what is to ship; None: the base answers."""
        return self.report if self.route != "base" else None


def train_stage(work: Work) -> dict[str, Any]:
    """Make and verify a module for every cluster that is large enough."""
    clusters = work.clusters()
    todo = [c for c in clusters if not work.folder.has(_tried(c))]
    told = work.spread(work, todo) if work.spread and todo else []
    work.progress.start(_BAR, len(clusters), "experts and critics")
    for n, cluster in enumerate(clusters, 1):
        try_cluster(work, cluster)
        work.progress.start(_BAR, len(clusters), "clusters are done")
        work.progress.advance(_BAR, n)
    decided = [_read(work, _tried(c)) for c in clusters]
    if failed := [c for c, one in zip(clusters, decided, strict=True) if one.failed]:
        _check_teacher(work, failed)
    allowed = _allowed(work, decided)
    for decision, may in zip(decided, allowed, strict=True):
        if decision.taught_by is not None and not (may or decision.kept or decision.instead):
            decision.route, decision.adapter = "critic", decision.taught_by.adapter
            decision.report = decision.taught_by.report
            decision.notes.remove(_TAUGHT)
            decision.notes.append("the expert that it taught is not proven among so many clusters")
    # A critic's p-value in place of a larger one takes the others nothing.
    allowed = _allowed(work, decided)
    for decision, may in zip(decided, allowed, strict=True):
        if decision.route != "base" and not decision.kept and not may:
            decision.notes.append(
                f"{decision.route}: passes alone, but not among the {len(clusters)} clusters tried"
            )
            decision.route, decision.adapter = "base", None
            if decision.instead is not None:
                decision.keep(decision.instead, "kept")
    bound_size(work, clusters, decided)
    for cluster, decision in zip(clusters, decided, strict=True):
        work.folder.write_json(
            f"clusters/{cluster.id}/decision.json", decision.model_dump(mode="json")
        )
    results = [_summary(work, c, read_decision(work, c.id)) for c in clusters]
    count: Counter[str] = Counter(r.route for r in results)
    return {
        "routes": dict(count),
        "clusters": [r.model_dump(mode="json") for r in results],
        "note": ", ".join(f"{count[route]} {route}" for route in ("expert", "critic", "base")),
        "notes": told,
    }


def try_cluster(work: Work, cluster: ClusterData) -> None:
    """Make and verify a cluster's module, unless that is done, and write what came of it."""
    if not work.folder.has(_tried(cluster)):
        work.check_limits()
        start = time.perf_counter()
        decision = _decide_or_fail(work, cluster)
        decision.seconds = round(time.perf_counter() - start, 3)
        work.folder.write_json(_tried(cluster), decision.model_dump(mode="json"))
    _tidy(work, cluster)


def _check_teacher(work: Work, failed: Sequence[ClusterData]) -> None:
    """End a refresh whose clusters failed because its teacher hardly answers anything."""
    try:
        check_answered(work.teacher)
    except EngineError:
        for cluster in failed:
            work.folder.remove(_tried(cluster))
        raise


def retry_failed(work: Work) -> None:
    """Try again what a refresh that is over failed on; it goes on where a cluster does not fail.

    Args:
        work: the refresh, after stage "filter".

    Raises:
        EngineError: a model can't answer at all.
        PausedError: a limit was reached.
    """
    if not work.folder.has(RESULT) or was_taken_back(work):
        return
    mended = False
    for cluster in work.clusters():
        if not read_decision(work, cluster.id).failed:
            continue
        if work.folder.has(_tried(cluster)) and _read(work, _tried(cluster)).failed:
            work.folder.remove(_tried(cluster))
        try_cluster(work, cluster)
        mended |= not _read(work, _tried(cluster)).failed
    if mended:
        # Last what says that the refresh is over: a kill in between leaves this to be done again.
        for name in ("train.json", "release.json", "release-id.json", RESULT):
            work.folder.remove(name)


def _tried(cluster: ClusterData) -> str:
    return f"clusters/{cluster.id}/tried.json"


def _allowed(work: Work, decided: Sequence[Decision]) -> list[bool]:
    # What users have already is not shipped anew.
    tested = [None if d.kept else cluster_p_value(d.reports, d.shipped) for d in decided]
    return may_ship(tested, work.recipe.verify.level)


def read_decision(work: Work, cluster_id: str) -> Decision:
    """Return what the train stage settled for a cluster."""
    return _read(work, f"clusters/{cluster_id}/decision.json")


def _read(work: Work, name: str) -> Decision:
    return Decision.model_validate(work.folder.read_json(name))


def trains_expert(work: Work, cluster: ClusterData) -> bool | None:
    """Whether an expert is to be trained for a cluster, so that it needs pairs.

    None: it may be. What its users have could not be verified; stage "train" tries that again.
    """
    rated = cluster.by_thumbs and not cluster.rules
    if rated or not work.is_low(cluster) or _too_few(work, cluster):
        return False
    try:
        present = _incumbent(work, cluster)
    except Exception as error:
        if not is_of_one(error):
            raise
        return None
    return present is None or not present.stays


def _decide_or_fail(work: Work, cluster: ClusterData) -> Decision:
    """Decide; where that fails for this cluster, what its users have stays, and others go on.

    So does what could not be verified.
    """
    try:
        return _decide(work, cluster)
    except Exception as error:
        if not is_of_one(error):
            raise
        told = f"failed ({kind_of(error)}), and is tried again by the next refresh"
        failed, why = Decision(notes=[told], failed=True), "it could not be verified"
        present = _incumbent(work, cluster, lambda kind, _: unverified(kind, why))
        return failed if present is None or not present.stands else failed.keep(present, "kept")


def _decide(work: Work, cluster: ClusterData) -> Decision:
    """Try what the gap says, then what is left, and settle for the base model."""
    present = _incumbent(work, cluster)
    if present is not None and present.stays:
        return Decision().keep(present, "kept")
    decision = Decision(notes=_thumbs_told(work, cluster))
    if few := _too_few(work, cluster):
        decision.notes.append(few)
        if present is not None and present.stands:
            return decision.keep(present, "kept")
        return decision
    if present is not None and present.stale:
        decision.notes.append(f"trained anew: {present.stale}")
    kinds, trial = _kinds(work, cluster), Trial()
    for kind in kinds:
        trial = _try_module(work, cluster, kind, kinds=len(kinds))
        if trial.report is not None:
            decision.report = trial.report
            decision.reports.append(trial.report)
        if not trial.passed or trial.softened:
            decision.notes.append(f"{kind}: {trial.note}")
        if trial.passed:
            break
    taught = None
    if trial.adapter and trial.report is not None and trial.report.kind == "critic":
        # Only where the critic won for its own requests, so it adds no chance of a useless module.
        taught = _distilled(work, cluster, trial, decision, kinds=len(kinds))
    new = taught or (trial if trial.passed else None)
    if new is not None:
        assert new.report is not None
        decision.route, decision.adapter = new.report.kind, new.adapter
        decision.report = new.report
    if present is None or not present.stands:
        return decision
    decision.instead = present
    if new is None:
        proven = present.report.passed
        why = "kept: nothing new passed" if proven else "kept, undecided as what is new is"
        return decision.keep(present, why)
    assert new.report is not None
    own = "distilled" if taught else new.report.kind
    better = against_present(work, cluster, new.report.kind, own)
    # Of a present module that is undecided today it is enough not to lose.
    loses = better.n > 0 and better.win_rate < 0.5
    if loses or (present.report.passed and not better.passed):
        return decision.keep(present, f"kept: what is new, compared with it: {better.reason}")
    if better.n:
        decision.notes.append(
            f"wins {better.win_rate:.2f} of the comparisons with what it replaces"
        )
    return decision


def _kinds(work: Work, cluster: ClusterData) -> tuple[ModuleKind, ...]:
    """Return the kinds of module that are tried, in their order."""
    if cluster.by_thumbs:
        return ("expert",)
    return ("expert", "critic") if work.is_low(cluster) else ("critic",)


def _too_few(work: Work, cluster: ClusterData) -> str:
    """Say why no module is tried: there are too few logs, or too few people to decide on any."""
    smallest, level = smallest_cluster(work), work.recipe.verify.level
    if len(cluster.run_ids) < smallest:
        return f"fewer than {smallest} logs"
    if not held_out(work, cluster):
        return none_held_out(work, cluster)
    least = 0 if level is None else least_people(level / len(_kinds(work, cluster)))
    people = len({item.voice for item in held_out(work, cluster)})
    if people >= least:
        return ""
    every = people_for(least, work.recipe.verify.held_out)
    told = f"people held out: {people}, needed to decide: {least} (about {every} people in all)"
    return f"nothing was trained: {told}"


def _distilled(
    work: Work, cluster: ClusterData, critic: Trial, decision: Decision, *, kinds: int
) -> Trial | None:
    """Return an expert that a critic taught; None: it failed, or falls behind one that may ship."""
    if not work.recipe.critic.distil:
        return None
    try:
        trial = _try_module(work, cluster, "expert", kinds=kinds, critic=critic)
    except Exception as error:
        if not is_of_one(error):
            raise
        decision.failed = True
        trial = Trial(note=f"failed ({kind_of(error)}), and is tried again by the next refresh")
    if trial.report is not None:
        decision.report = trial.report
        decision.reports.append(trial.report)
    if not trial.passed:
        decision.notes.append(f"expert taught by the critic: {trial.note}")
        return None
    decision.notes.append(_TAUGHT if critic.passed else _TAUGHT_ALONE)
    if trial.softened:
        decision.notes.append(f"expert: {trial.note}")
    decision.taught_by = critic if critic.passed else None
    return trial


def _thumbs_told(work: Work, cluster: ClusterData) -> list[str]:
    """Say how many people gave thumbs, where nothing else teaches; and how many it would take."""
    ups, downs = cluster.thumbs
    if not ups + downs or (cluster.people + cluster.acting and not cluster.by_thumbs):
        return []
    told = f"people who gave a thumb up: {ups}, down: {downs}"
    least = work.recipe.rules.min_users
    return [told if min(ups, downs) >= least else f"{told}: it takes {least} of each to learn"]


def _incumbent(work: Work, cluster: ClusterData, instead: Verify | None = None) -> Incumbent | None:
    """Return the module that users have, verified or as ``instead`` says.

    A report of ``instead``, or of judgements that did not all come, is this call's alone.
    """
    name = f"clusters/{cluster.id}/incumbent.json"
    known, (_, before) = work.folder.has(name), calls_of(work.teacher)
    verify = instead or partial(verify_module, work, cluster, kinds=1, name="incumbent")
    found = incumbent(work, cluster, verify if held_out(work, cluster) else None)
    if not known and (instead is not None or calls_of(work.teacher)[1] > before):
        work.folder.remove(name)
    return found


def _try_module(
    work: Work,
    cluster: ClusterData,
    kind: ModuleKind,
    *,
    kinds: int = 1,
    critic: Trial | None = None,
) -> Trial:
    """Train and verify one module, or read what an earlier call found.

    Args:
        work: the refresh.
        cluster: whose training logs teach it, whose held-out queries test it.
        kind: an expert or a critic.
        kinds: how many kinds are tried for this cluster.
        critic: teaches the expert, which must not fall behind it where it may ship.
    """
    own = "distilled" if critic else kind
    name = f"clusters/{cluster.id}/{own}.json"

    def verified(adapters: list[Path]) -> tuple[VerifierReport, Path]:
        """Say what is known of the best of these adapters, and which one that is."""
        report = verify_module(work, cluster, kind, adapters, kinds=kinds, name=own)
        best = adapters[(report.epoch or 0) - 1]
        if critic is not None and critic.passed and report.passed:
            report = not_behind(work, cluster, report, best, work.folder.path(str(critic.adapter)))
        if report.passed and work.recipe.verify.level is not None:
            report = look_outside(work, cluster, report, best)
        return report, best

    if not work.folder.has(name):
        _, before = calls_of(work.teacher)
        try:
            work.check_limits()
            epochs = _trained(work, cluster, kind, critic)
            work.check_limits()
        except InputError as error:
            # All examples too long, say: this cluster's module can't be trained, others can.
            trial = Trial(note=str(error))
        else:
            report, chosen = verified(epochs)
            teacher = None
            if report.elsewhere is not None and report.elsewhere.harm:
                # It is asked only where the whole one passed, so it adds no chance.
                teacher = chosen if kind == "critic" else None
                half, chosen = verified([softened(chosen)])
                told = f"with {SOFTER} of its change: {half.reason} (with all: {report.reason})"
                report = half.model_copy(update={"epoch": report.epoch, "reason": told})
                if not report.passed:
                    work.folder.remove(str(chosen.relative_to(work.folder.root)))
            kept = chosen if report.passed else teacher
            trial = Trial(report=report, note=report.reason)
            trial.adapter = str(kept.relative_to(work.folder.root)) if kept else None
            trial.softened = chosen not in epochs
        if calls_of(work.teacher)[1] > before:
            return trial  # judged in part: a later call judges it again
        work.folder.write_json(name, trial.model_dump(mode="json"))
    return Trial.model_validate(work.folder.read_json(name))


def _trained(
    work: Work, cluster: ClusterData, kind: ModuleKind, critic: Trial | None = None
) -> list[Path]:
    """Return the epochs of a module, trained on the engine's own model while it answers nobody."""
    from langchain_uno.trainers.common import TrainSettings
    from langchain_uno.trainers.critic import train_critic
    from langchain_uno.trainers.expert import train_expert

    own = "distilled" if critic else kind
    done = f"clusters/{cluster.id}/{own}-trained.json"
    if not work.folder.has(done):
        expert = kind == "expert"
        examples: Any
        if critic is not None:
            examples = _taught_pairs(work, cluster, critic)
        else:
            examples = work.pairs(cluster) if expert else _critic_examples(work, cluster)
            if not examples and cluster.by_thumbs:  # no pair comes of them: answers, liked or not
                examples = weighted(lone_thumbs(work, cluster.train))
        if not examples:
            raise InputError("no preference pairs" if expert else "no rules to teach")
        with cast(Any, work.engine).exclusive() as (model, tokenizer):
            found = (train_expert if expert else train_critic)(
                model,
                tokenizer,
                examples,
                work.folder.path(f"clusters/{cluster.id}/{own}"),
                TrainSettings.of(work.recipe, "expert" if expert else "critic", work.max_steps),
                stable_seed(work.recipe.seed, own, cluster.id),
                _steps(work, cluster, own),
                base_name=work.engine.model_name,
            )
        made = [found] if isinstance(found, Path) else found
        work.folder.write_json(done, [str(e.relative_to(work.folder.root)) for e in made])
    return [work.folder.path(name) for name in work.folder.read_json(done)]


def _tidy(work: Work, cluster: ClusterData) -> None:
    """Remove the epochs that were not chosen: megabytes that nobody asks for again."""
    for kind in ("expert", "critic", "distilled"):
        done = f"clusters/{cluster.id}/{kind}-trained.json"
        if not work.folder.has(done) or not work.folder.has(f"clusters/{cluster.id}/{kind}.json"):
            continue
        trial = Trial.model_validate(work.folder.read_json(f"clusters/{cluster.id}/{kind}.json"))
        for epoch in work.folder.read_json(done):
            if epoch != trial.adapter:
                work.folder.remove(epoch)


def _critic_examples(work: Work, cluster: ClusterData) -> list[CriticExample]:
    """Return what a critic learns: for each training log with rules, draft -> wanted rules."""
    from langchain_uno.trainers.critic import CriticExample

    chosen = [
        work.logs[i]
        for i in cluster.train
        if work.taught[i].with_feedback and work.logs[i].answer.strip()
    ]
    weights = balanced([work.voices[log.run_id] for log in chosen])
    return [
        CriticExample(
            prompt=work.prompts.critique_prompt(log.messages, log.answer, log.language),
            completion=work.prompts.critique_completion(wanted_rules(work.taught[log.run_id])),
            weight=weight,
        )
        for log, weight in zip(chosen, weights, strict=True)
    ]


def _taught_pairs(work: Work, cluster: ClusterData, critic: Trial) -> list[PreferencePair]:
    """Return what the critic makes of each training request: its answer above the base's draft."""
    name = f"clusters/{cluster.id}/distilled-pairs.jsonl"
    if not work.folder.has(name):
        logs = [work.logs[i] for i in cluster.train]
        items = [
            HeldOut(log.run_id, log.messages, [], log.language, work.voices[log.run_id])
            for log in logs
        ]
        work.trying(cluster, f"critic, answering {len(items)} requests")
        adapter = work.folder.path(str(critic.adapter))
        done = exam_of(work).by_critic(items, [None] * len(items), adapter)
        changed = [
            PreferencePair(
                run_id=log.run_id,
                messages=log.messages,
                chosen=one.text.strip(),
                rejected=one.draft.strip(),
                origin="revised",
                voice=work.voices[log.run_id],
            )
            for log, one in zip(logs, done, strict=True)
            if one.revised and one.finish_reason == "stop"
        ]
        work.folder.write_records(name, weighted(changed))
    return work.folder.read_records(name, PreferencePair)


def _steps(work: Work, cluster: ClusterData, kind: str) -> Callable[[int, int], None]:
    """Return a trainer's progress callback, which drives the stage's bar.

    Limits are checked when a state was kept, so that a training which is stopped loses nothing.
    """
    seen = 0
    out = work.folder.path(f"clusters/{cluster.id}/{kind}")
    states = sorted(out.glob("state-*"))

    def on_step(done: int, total: int) -> None:
        nonlocal seen, states
        before, states = states, sorted(out.glob("state-*"))
        if states and states != before:
            work.check_limits()
        if seen == 0:
            told = "expert taught by the critic" if kind == "distilled" else kind
            work.trying(cluster, f"{told}, training steps", total)
        work.progress.advance(_BAR, done - seen)
        seen = done

    return on_step


def _summary(work: Work, cluster: ClusterData, decision: Decision) -> ClusterResult:
    report = decision.report
    shipped = decision.route != "base" and not decision.kept
    told: dict[str, Any] = cluster.model_dump(include={"id", "people", "gap", "rules"})
    if report is not None and report.n:
        told |= report.model_dump(include={"win_rate", "interval", "p_value", "needed"})
        told |= {"judged": report.n, "epoch": report.epoch if shipped else None}
    return ClusterResult(
        **told,
        size=len(cluster.run_ids),
        train=len(cluster.train),
        verify=len(cluster.verify),
        unlabelled=len(cluster.unlabelled),
        route=decision.route,
        pairs=len(work.pairs(cluster)),
        seconds=decision.seconds,
        failed=decision.failed,
        note="; ".join(decision.notes),
    )
