"""The offline side as a LangGraph graph: from the log to a release.

    filter -> distil -> cluster -> rules -> gap -> pairs -> (review) -> train -> release

Each node is a stage, one file of ``langchain_uno/learning/``, and writes its result to
``work/<refresh-id>/``, atomically. The same call finishes a refresh that was killed: finished
stages, clusters and distilled logs are read, not repeated. One refresh of a home runs at a time.

    result = run_refresh(home, engine, embedder, prompts=prompts, recipe=recipe)
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from langchain_uno.errors import (
    EmptyLogError,
    EngineError,
    HomeError,
    InputError,
    ModelMismatchError,
    ReleaseError,
    UNOError,
)
from langchain_uno.home import ONE_AT_A_TIME, Home, load_settings, refresh_lock, why_unwritable
from langchain_uno.learning.cluster import cluster_stage
from langchain_uno.learning.controls import look_at_scorers, scorer_notes
from langchain_uno.learning.decisions import KINDS, take_up_decisions
from langchain_uno.learning.distil import distil_stage
from langchain_uno.learning.filter import filter_stage, is_unchanged
from langchain_uno.learning.gap import gap_stage
from langchain_uno.learning.pairs import pairs_stage
from langchain_uno.learning.release import release_stage
from langchain_uno.learning.report import make_report
from langchain_uno.learning.review import decide, review_table
from langchain_uno.learning.rules import rules_stage
from langchain_uno.learning.train import retry_failed, train_stage
from langchain_uno.learning.work import (
    CALL,
    RESULT,
    UNTIL,
    RefreshProgress,
    RefreshResult,
    Silent,
    Spread,
    Work,
    WorkFolder,
    sweep_work,
)
from langchain_uno.logs.journal import require_log
from langchain_uno.models.protocols import Embedder, Engine, Known, Reranker, known_as
from langchain_uno.models.roles import PromptSet
from langchain_uno.models.teacher import teacher_notes
from langchain_uno.recipe import Recipe
from langchain_uno.records import STAGES
from langchain_uno.releases.prune import prune
from langchain_uno.reports.render import counted
from langchain_uno.reports.store import report_paths, write_report

_STAGES: dict[str, Callable[[Work], dict[str, Any]]] = {
    "distil": distil_stage,
    "cluster": cluster_stage,
    "rules": rules_stage,
    "gap": gap_stage,
    "pairs": pairs_stage,
    "train": train_stage,
    "release": release_stage,
}


class RefreshState(TypedDict, total=False):
    """What travels between the nodes; everything large lies in the work folder."""

    refresh_id: str
    until: str | None
    """The stage after which to stop."""
    reviewed: str
    """The refresh that a person has reviewed."""


def build_refresh_graph(
    checkpointer: BaseCheckpointSaver[Any] | None = None, *, review: bool = False
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return the compiled graph; invoke it with ``context=Work(...)``.

    :func:`run_refresh` does that, under the home's lock and after checking home and models.

    Args:
        checkpointer: keeps the state between calls; the review needs one.
        review: whether the graph stops before it trains. The interrupt's value says what is to be
            taught: ``{"refresh", "counts", "rows"}``. ``Command(resume={"decisions": [...], "by":
            name, "why": words})`` goes on, with decisions as
            :func:`langchain_uno.learning.review.decide` takes them, or none. Where a decision is
            wrong the graph asks again, and the value has an ``"error"``.
    """
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(RefreshState, context_schema=Work)
    for name in STAGES:
        graph.add_node(name, _node(name))
    graph.add_edge(START, STAGES[0])
    for first, then in pairwise(STAGES):
        ahead = "review" if review and then == "train" else then
        graph.add_conditional_edges(first, _on_to(ahead, after=first), [ahead, END])
    if review:
        graph.add_node("review", _review)
        graph.add_conditional_edges("review", _after_review, [STAGES[1], "train", END])
    graph.add_edge(STAGES[-1], END)
    return graph.compile(checkpointer, name="uno-refresh")


def _node(name: str) -> Any:
    def run(state: RefreshState, runtime: Runtime[Work]) -> RefreshState:
        work = runtime.context
        last = STAGES.index(state.get("until") or STAGES[-1])
        if name == "filter" or not work.id:
            filter_stage(work)  # sets which refresh this is, also in a process that goes on with it
            work.folder.remove(UNTIL)
            if work.call is not None:
                work.folder.write_json(CALL, work.call)
            if last >= STAGES.index("train"):
                retry_failed(work)
        if name != "filter":
            look_at_scorers(work, judged=last >= STAGES.index("pairs"))
            work.once(name, _STAGES[name])
        return {"refresh_id": work.id}

    return run


def _review(state: RefreshState, runtime: Runtime[Work]) -> RefreshState:
    """Ask a person, and let the refresh begin again at "rules" where something was decided."""
    work = runtime.context
    if not work.id:
        filter_stage(work)
    if state.get("reviewed") != work.id:
        counts = {kind: review_table(work.home, kind=kind, limit=0).total for kind in KINDS}
        page = review_table(work.home, limit=_SHOWN)
        asked = {"refresh": work.id, "counts": counts, "rows": page.model_dump(mode="json")["rows"]}
        while True:
            said = interrupt(asked) or {}
            try:
                if not isinstance(said, Mapping):
                    raise InputError("Answer with {'decisions': [...], 'by': name, 'why': words}.")
                if said.get("decisions"):
                    decide(work.home, said["decisions"], said.get("by", ""), said.get("why", ""))
                break
            except InputError as error:
                asked = {**asked, "error": str(error)}
        take_up_decisions(work)
    return {"refresh_id": work.id, "reviewed": work.id}


_SHOWN = 20
"""Rows of the table that an interrupt shows."""


def _after_review(state: RefreshState, runtime: Runtime[Work]) -> str:
    if is_unchanged(runtime.context):
        return END
    # Finished stages are passed over: the refresh goes on at "rules" if something was decided.
    return "train" if runtime.context.folder.has("pairs.json") else STAGES[1]


def _on_to(then: str, *, after: str) -> Any:
    def choose(state: RefreshState, runtime: Runtime[Work]) -> str:
        return END if state.get("until") == after or is_unchanged(runtime.context) else then

    return choose


def run_refresh(
    home: Home,
    engine: Engine,
    embedder: Embedder,
    reranker: Reranker | None = None,
    teacher: Engine | None = None,
    *,
    prompts: PromptSet,
    recipe: Recipe,
    teacher_prompts: PromptSet | None = None,
    progress: RefreshProgress | None = None,
    max_steps: int | None = None,
    until: str | None = None,
    promote: bool = True,
    spread: Spread | None = None,
    max_minutes: float | None = None,
    min_free_gb: float | None = None,
    call: Sequence[str] | None = None,
) -> RefreshResult:
    """Refresh a home: learn from its log and make the release current.

    Args:
        home: the namespace to refresh; it must exist.
        engine: a local engine; its base model is what is trained and verified.
        embedder: of queries and rules; the same for the life of the home.
        reranker: measures the gap by yes or no; the base model by default.
        teacher: distils, revises and judges; the base model by default.
        prompts: the base model's prompt set.
        recipe: all settings.
        teacher_prompts: the teacher's prompt set; ``prompts`` by default.
        progress: is told of every stage.
        max_steps: the most optimiser steps of every training (for quick tries).
        until: the stage after which to stop; None: the last. The next call goes on from there.
        promote: whether the release answers users at once; False leaves that to a person.
        spread: tries the clusters in other processes (:mod:`langchain_uno.learning.workers`).
        max_minutes: minutes after which to stop at the end of a piece of work; None: no limit.
        min_free_gb: stop in the same way when fewer GB are free on the home's disk; None: never.
        call: the options of the command that goes on with this refresh, without secrets and without
            home; None: there is no command.

    Returns:
        What the refresh did; ``unchanged`` is True where nothing was new.

    Raises:
        EmptyLogError: there is nothing to learn from.
        HomeError: there is no such home, or it can't be written (the disk is full, say).
        PausedError: a limit was reached; the same call again goes on from there.
        InputError: there is no such stage.
        ModelMismatchError: the home belongs to another base model or embedder.
        StoreBusyError: another refresh of this home is running.
        EngineError: the engine can't be trained, or a model fails to answer.
    """
    from langchain_uno.models.rerankers import EngineReranker

    if until is not None and until not in STAGES:
        raise InputError(f"There is no stage {until!r}: give one of {', '.join(STAGES)}.")
    if not hasattr(engine, "exclusive"):
        raise EngineError(
            f"The model {engine.model_name!r} can't be trained through its server: name the "
            "weights (a folder or a hub name); the server serves the adapters afterwards."
        )
    work = Work(
        home=home,
        engine=engine,
        embedder=embedder,
        reranker=reranker or EngineReranker(engine, prompts),
        teacher=teacher or engine,
        prompts=prompts,
        teacher_prompts=teacher_prompts or prompts,
        recipe=recipe,
        progress=progress or Silent(),
        max_steps=max_steps,
        promote=promote,
        spread=spread,
        stop_at=None if max_minutes is None else time.monotonic() + 60 * max_minutes,
        min_free_gb=min_free_gb,
        call=call,
    )
    require_log(home)
    check_models(home, known_as(engine), known_as(embedder))
    with refresh_lock(home, ONE_AT_A_TIME):
        try:
            build_refresh_graph().invoke({"until": until}, context=work)
            if until is not None:
                work.folder.write_json(UNTIL, until)
            return _result(work)
        except EmptyLogError:
            if work.id:  # nothing can go on from here: remove what was copied of the log
                shutil.rmtree(work.folder.root, ignore_errors=True)
            raise
        except Exception as error:
            why = None if isinstance(error, HomeError) else why_unwritable(error, home.path)
            if why is None:
                raise
            raise HomeError(
                f"The home {str(home.path)!r} can't be written ({why}). What is finished is kept: "
                "free some space or mend its permissions and call it again; it goes on from there."
            ) from error


def check_models(home: Home, base: Known, embedder: Known | None = None) -> None:
    """Check that a home's current release is of these models.

    Args:
        home: the namespace.
        base: what the base model is known as. Without a fingerprint it is not on this machine, and
            not the bundled one.
        embedder: what the embedder is known as; None: it is not checked.

    Raises:
        ModelMismatchError: the release is of another model.
    """
    from langchain_uno.models.loading import BUNDLED
    from langchain_uno.releases.load import models_of, read_current

    try:
        release = read_current(home)
    except ReleaseError:
        return  # a broken release is no reason against making a sound one
    if release is None or not release.manifest.adapters:
        return  # a release without modules binds the home to no model
    bound = base or release.manifest.base_model == BUNDLED
    ours = (("base model", base if bound else None), ("embedder", embedder))
    for (what, here), there in zip(ours, models_of(release.manifest).values(), strict=True):
        if here is not None and there[0] not in here:
            own, other = here.beside(there)
            raise ModelMismatchError(
                f"The home {str(home.path)!r} belongs to another {what}: its release "
                f"{release.id!r} was made for {other!r}, and this is {own!r}. Name the former "
                "again, or give a new model a home of its own (langchain-uno logs export, then "
                "import)."
            )


_NOT_COUNTED = ("note", "notes", "seconds", "left_out")
"""What a result tells apart from the counts of its stages."""


def _result(work: Work) -> RefreshResult:
    """Return what is stored of a finished refresh, or collect it, store it, report and tidy up."""
    if is_unchanged(work):
        return stored_result(work.home, work.folder)
    counts = {s: work.counts(s) for s in STAGES if work.folder.has(f"{s}.json")}
    filtered, published = counts["filter"], counts.get("release", {})
    release, promoted = published.get("release"), published.get("promoted", True)
    clusters = counts.get("train", {}).pop("clusters", [])
    result = RefreshResult.model_validate(
        {
            **filtered,
            "refresh_id": work.id,
            "release": release,
            "current": release if promoted else _standing(work.home, None)[0],
            "resumed": work.resumed,
            "guarded": counts.get("rules", {}).get("guarded", True),
            "stages": {
                stage: {k: v for k, v in one.items() if k not in _NOT_COUNTED}
                for stage, one in counts.items()
            },
            "clusters": clusters,
            "seconds": work.seconds,
            "left_out": {
                log_id: why
                for one in counts.values()
                for log_id, why in one.get("left_out", {}).items()
            },
            "notes": [
                *(scorer_notes(work) if "distil" in counts else ()),
                *teacher_notes(work.teacher),
                *(note for one in counts.values() for note in one.get("notes", ())),
            ],
        }
    )
    if release is None:
        return result
    try:
        result.report = str(write_report(work.home, make_report(work, result.notes)).html)
    except Exception as error:  # noqa: BLE001 - the release is published, and needs no report
        why = error if isinstance(error, UNOError) else type(error).__name__  # no users' words
        result.notes.append(f"The report of release {release} can't be written: {why}")
    keep = load_settings(work.home).releases.keep
    try:
        if pruned := prune(work.home, keep):
            gone = counted(len(pruned), "release")
            result.notes.append(
                f"The weights of {gone} went: revoked, or older than the newest {keep} "
                "(releases.keep)."
            )
    except (UNOError, OSError) as error:  # the release is published: the next refresh tries again
        result.notes.append(f"Old releases can't be pruned: {error}")
    work.folder.write_json(RESULT, result.model_dump(mode="json"))
    sweep_work(work.home.work, [work.id])
    if work.newer:
        result.newer = work.newer
        result.notes.append(
            f"This finished a refresh that was interrupted. Feedback on {work.newer} logs came "
            "after it began: the same call again learns from it."
        )
    return result


def stored_result(home: Home, folder: WorkFolder) -> RefreshResult:
    """Return what came of a refresh that is over, and what answers today.

    Args:
        home: the namespace.
        folder: of the refresh.

    Raises:
        StoreError: the stored result is damaged.
    """
    known = RefreshResult.model_validate(folder.read_json(RESULT))
    current, said = _standing(home, known.release)
    update = {"unchanged": True, "current": current, "notes": [*known.notes, *said]}
    page = report_paths(home, known.release).html if known.release else None
    update["report"] = str(page) if page is not None and page.exists() else None
    return known.model_copy(update=update)


def _standing(home: Home, release: str | None) -> tuple[str | None, list[str]]:
    """Return what answers now, and what to say where it is not the release of these logs."""
    from langchain_uno.releases.load import read_current, revocation_file

    try:
        current = read_current(home)
    except ReleaseError as error:
        return None, [f"Nothing is new, and the current release can't be served: {error}"]
    if current is not None and current.id == release:
        return release, []
    stands = f"release {current.id!r}" if current else "the base model"
    if release is not None and revocation_file(home, release).exists():
        told = f"which these logs gave, was revoked; {stands} answers."
    else:
        told = (
            f"which these logs gave, is not current; {stands} answers. "
            f"`langchain-uno releases promote {release}` changes that."
        )
    return current.id if current else None, [
        f"Nothing is new. Release {release!r}, {told} It stays so until there is something new to "
        "learn."
    ]
