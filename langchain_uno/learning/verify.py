"""Stage "verify": what a cluster's module is asked, by which standard, and how it did.

``train`` calls it after each training; the comparison itself is ``trainers/verifier.py``, and the
look elsewhere ``trainers/elsewhere.py``. No log that taught a module is asked here. The base model
answers once a cluster, and what both sides said is kept for the report.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from langchain_uno.learning.acts import was_content
from langchain_uno.learning.cluster import asker_of, sent_to
from langchain_uno.learning.controls import believed
from langchain_uno.learning.distil import unique_rules
from langchain_uno.learning.evolve import unverified
from langchain_uno.learning.rules import lone_thumbs, wanted_rules
from langchain_uno.learning.work import ClusterData, Work
from langchain_uno.models.teacher import calls_of
from langchain_uno.records import ModuleKind, VerifierReport
from langchain_uno.trainers.elsewhere import base_answers, look_elsewhere
from langchain_uno.trainers.verifier import (
    BaseSide,
    Compared,
    Exam,
    HeldOut,
    Rated,
    Said,
    compare_modules,
    evened,
)

_BAR = "train"


def held_out(work: Work, cluster: ClusterData) -> list[HeldOut]:
    """Return a cluster's verification queries, each with its standard.

    - A log with rules: the rules that its own user named, and those that the module which answered
      it was taught.
    - A log with an edit and no rule: the edit.
    - Another log: the rules of the cluster, unless its user was content with the answer as it was;
      such a log is no witness for other people's wishes.
    - Requests that nobody reacted to: the rules of the cluster. They fill up to
      ``recipe.verify.max_queries``.

    The rules of a cluster are those that recur among its training logs. Where thumbs teach, they
    are those drawn from thumbs (:mod:`langchain_uno.learning.thumbs`), and requests of liked
    answers are judged by them too; if none was drawn, the standard is the answers that people rated
    (:func:`evened`), and nothing else is asked. Where the judge is not believed, only edits are a
    standard.
    """
    if cluster.by_thumbs and not cluster.rules:
        return _rated_items(work, cluster)
    given = work.folder.read_json("given.json")
    items: list[HeldOut] = []
    for log_id in cluster.verify:
        log, own = work.logs[log_id], work.taught[log_id]
        rules, edit = wanted_rules(own), None
        if not believed(work, "judge", log.language):
            rules, edit = [], log.correction
        elif rules:
            rules = unique_rules([*rules, *given.get(log_id, ())])
        elif log.correction:
            edit = log.correction
        elif cluster.by_thumbs or not was_content(log):
            rules = cluster.rules
        if rules or edit:
            voice = work.voices[log_id]
            items.append(HeldOut(log_id, log.messages, rules, log.language, voice, edit))
    for run_id in cluster.unlabelled if cluster.rules else ():
        if len(items) >= work.recipe.verify.max_queries:
            break
        log = work.unheard[run_id]
        if not believed(work, "judge", log.language):
            continue
        who = asker_of(log)
        items.append(HeldOut(run_id, log.messages, cluster.rules, log.language, who))
    return items


def none_held_out(work: Work, cluster: ClusterData) -> str:
    """Say why a cluster has no verification query: review took the rules, or no log is held out."""
    asked, left = work.distilled, work.taught
    drawn = work.folder.has(f"drawn/{cluster.id}.json") and not cluster.by_thumbs
    if drawn or any(asked[i].with_feedback and not left[i].with_feedback for i in cluster.verify):
        return "no held-out log to verify on: their rules were excluded in review"
    rated = cluster.by_thumbs and not cluster.rules
    return f"no held-out {'thumbs up and down' if rated else 'words or edits'} to verify on"


def _rated_items(work: Work, cluster: ClusterData) -> list[HeldOut]:
    """Return the held-out rated answers, with the lengths that liked answers of training have."""
    lengths = [len(one.answer) for one in lone_thumbs(work, cluster.train) if one.liked]
    span = (min(lengths), max(lengths))
    return evened(
        [
            HeldOut(
                one.run_id,
                one.messages,
                [],
                work.logs[one.run_id].language,
                one.voice,
                rated=Rated(one.answer, one.liked, span),
            )
            for one in lone_thumbs(work, cluster.verify)
        ],
        work.recipe.verify.max_queries,
        work.recipe.seed,
    )


def exam_of(work: Work, keep: Callable[[list[Compared]], None] | None = None) -> Exam:
    """Return who answers and who judges in this refresh.

    Args:
        work: the refresh.
        keep: is given what base and module said.
    """
    asked = (work.engine, work.teacher, work.prompts, work.recipe)
    return Exam(*asked, work.counter(_BAR), keep, work.teacher_prompts)


def verify_module(
    work: Work, cluster: ClusterData, kind: ModuleKind, epochs: list[Path], *, kinds: int, name: str
) -> VerifierReport:
    """Compare a module with the base on held-out queries.

    Args:
        work: the refresh.
        cluster: whose held-out queries are asked.
        kind: of the module.
        epochs: its adapter folders; of a critic the last is verified.
        kinds: how many kinds of module are tried in this cluster.
        name: the answers of both sides are kept under it, for the report.
    """
    items = held_out(work, cluster)
    work.trying(cluster, f"{kind}, verifying on {len(items)} queries")
    exam = exam_of(
        work, partial(work.folder.write_records, f"clusters/{cluster.id}/{name}-compared.jsonl")
    )
    base = base_side(work, cluster, items, exam)
    if kind == "expert":
        return exam.verify_expert(base, epochs, kinds=kinds)
    return exam.verify_critic(base, epochs[-1], kinds=kinds)


def base_side(work: Work, cluster: ClusterData, items: list[HeldOut], exam: Exam) -> BaseSide:
    """Return the base's answers and scores, asked once for all kinds of module."""
    name = f"clusters/{cluster.id}/base-side.json"
    if not work.folder.has(name):
        _, before = calls_of(work.teacher)
        side = exam.answer_as_base(items)
        if calls_of(work.teacher)[1] > before:
            return side  # judged in part: it is judged again the next time
        stored = {"ids": [i.id for i in side.items], "said": [s.model_dump() for s in side.said]}
        work.folder.write_json(name, stored)
    kept = work.folder.read_json(name)
    by_id = {item.id: item for item in items}
    said = [Said.model_validate(one) for one in kept["said"]]
    return BaseSide([by_id[i] for i in kept["ids"]], said)


def not_behind(
    work: Work, cluster: ClusterData, report: VerifierReport, expert: Path, critic: Path
) -> VerifierReport:
    """Return an expert's report, passed only if it doesn't fall behind the critic."""
    work.trying(cluster, "expert, against the critic that taught it")
    exam = exam_of(work)
    side = base_side(work, cluster, held_out(work, cluster), exam)
    why = exam.falls_behind(side, expert, critic)
    return report.model_copy(update={"passed": not why, "reason": why or report.reason})


def against_present(
    work: Work, cluster: ClusterData, kind: ModuleKind, name: str
) -> VerifierReport:
    """Compare a module with the one that users have, on what both said to the held-out queries."""

    def said_by(module: str) -> dict[str, Compared]:
        file = f"clusters/{cluster.id}/{module}-compared.jsonl"
        there = work.folder.has(file)  # not where the present one could not be verified
        return {c.id: c for c in work.folder.read_records(file, Compared)} if there else {}

    new, old = said_by(name), said_by("incumbent")
    if not new.keys() & old.keys():
        return unverified(kind, "both answered none of the same queries")
    return compare_modules(held_out(work, cluster), new, old, kind, work.recipe)


def look_outside(
    work: Work, cluster: ClusterData, report: VerifierReport, adapter: Path
) -> VerifierReport:
    """Return a module's report, passed only if it is no worse than the base elsewhere."""
    work.trying(cluster, f"{report.kind}, asked elsewhere")
    exam, name = exam_of(work), "general.json"
    if not work.folder.has(name):  # once a refresh
        work.folder.write_json(name, base_answers(exam))
    # Requests that nobody reacted to lie where serving sends them, so none of them is a stray.
    # Rated answers are no standard for other answers.
    others = [c for c in work.clusters() if c.id != cluster.id]
    sent = sent_to(work) if report.kind == "expert" else {}
    items = [item for c in others for item in held_out(work, c) if item.rated is None]
    strays = [item for item in items if sent.get(item.id) == cluster.id]
    return look_elsewhere(exam, report, adapter, work.folder.read_json(name), strays)
