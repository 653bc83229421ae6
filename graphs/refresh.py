"""The offline side as a LangGraph graph: from the journal to a release.

    drain -> filter -> distil -> cluster -> aggregate -> gap -> evolve -> pairs -> train -> release

Every node writes what it found to ``work/<refresh-id>/``, atomically. The id is derived from the
logs, the recipe and the models, so a refresh that was killed is finished by calling it again: nodes
(and clusters, and chunks of logs) that are done are read, not repeated. One refresh of a home runs
at a time.

    result = run_refresh(home, engine, embedder, prompts=prompts, recipe=recipe)
"""

from __future__ import annotations

import operator
import shutil
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from langchain_uno.errors import (
    EmptyLogError,
    EngineError,
    ModelMismatchError,
    ReleaseError,
    StoreBusyError,
)
from langchain_uno.graphs.checkpoints import sweep_work
from langchain_uno.graphs.refresh_aggregate import aggregate_node
from langchain_uno.graphs.refresh_clusters import (
    cluster_node,
    gap_node,
    pairs_node,
)
from langchain_uno.graphs.refresh_context import (
    STAGES,
    RefreshContext,
    RefreshProgress,
    RefreshResult,
    Silent,
)
from langchain_uno.graphs.refresh_evolve import evolve_node
from langchain_uno.graphs.refresh_logs import distil_node, drain_node, filter_node
from langchain_uno.graphs.refresh_modules import train_node
from langchain_uno.graphs.refresh_release import release_node
from langchain_uno.home import Home
from langchain_uno.models.protocols import Embedder, Engine, Reranker
from langchain_uno.models.roles import PromptSet
from langchain_uno.recipe import Recipe

__all__ = [
    "RefreshResult",
    "RefreshState",
    "build_refresh_graph",
    "check_home",
    "check_log",
    "run_refresh",
]

_RESULT = "result.json"


class RefreshState(TypedDict, total=False):
    """What travels between the nodes; everything large lies in the work folder."""

    refresh_id: str
    unchanged: bool
    """The release of exactly these logs, recipe and models exists already."""
    stages: Annotated[list[str], operator.add]
    """The nodes that have run."""


_NODES: dict[str, Callable[[RefreshContext], None]] = {
    "drain": drain_node,
    "filter": filter_node,
    "distil": distil_node,
    "cluster": cluster_node,
    "aggregate": aggregate_node,
    "gap": gap_node,
    "evolve": evolve_node,
    "pairs": pairs_node,
    "train": train_node,
    "release": release_node,
}


def build_refresh_graph() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return the compiled graph; invoke it with ``context=RefreshContext(...)``.

    :func:`run_refresh` does that, under the home's lock and after checking home and models.
    """
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(RefreshState, context_schema=RefreshContext)
    for name, body in _NODES.items():
        graph.add_node(name, _node(name, body))
    assert tuple(_NODES) == STAGES
    graph.add_edge(START, STAGES[0])
    graph.add_conditional_edges(
        STAGES[0], lambda state: END if state["unchanged"] else STAGES[1], [STAGES[1], END]
    )
    for first, then in pairwise(STAGES[1:]):
        graph.add_edge(first, then)
    graph.add_edge(STAGES[-1], END)
    return graph.compile(name="uno-refresh")


def _node(name: str, body: Callable[[RefreshContext], None]) -> Any:
    def run(state: RefreshState, runtime: Runtime[RefreshContext]) -> RefreshState:
        ctx = runtime.context
        body(ctx)
        update: RefreshState = {"stages": [name]}
        if name == STAGES[0]:
            update["refresh_id"] = ctx.id
            update["unchanged"] = _finished(ctx) is not None
        return update

    return run


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
) -> RefreshResult:
    """Refresh a home: learn from its logs and make the release current.

    Args:
        home: the namespace to refresh; it must exist.
        engine: a local engine; its base model is what is trained and verified.
        embedder: of queries and rules; the same for the life of the home.
        reranker: yes/no judge of the gap; the base model's own by default.
        teacher: distils, revises and judges; the base model by default.
        prompts: the base model's prompt set.
        recipe: all settings.
        teacher_prompts: the teacher's prompt set; ``prompts`` by default.
        progress: hears how it comes on.
        max_steps: caps the optimiser steps of every training (for quick tries).

    Raises:
        EmptyLogError: there is nothing to learn from.
        HomeError: there is no such home, or it can't be written.
        ModelMismatchError: the home belongs to another base model or embedder.
        StoreBusyError: another refresh of this home is running.
        EngineError: the engine can't be trained, or a model fails to answer.
    """
    from filelock import FileLock, Timeout

    from langchain_uno.models.rerankers import EngineReranker

    if not hasattr(engine, "exclusive"):
        raise EngineError(
            f"The model {engine.model_name!r} can't be trained through its server: name the "
            "weights (a folder or a hub name); the server serves the adapters afterwards."
        )
    ctx = RefreshContext(
        home=home,
        engine=engine,
        embedder=embedder,
        reranker=reranker or EngineReranker(engine, prompts),
        teacher=teacher or engine,
        prompts=prompts,
        teacher_prompts=teacher_prompts or prompts,
        recipe=_capped(recipe, max_steps),
        progress=progress or Silent(),
    )
    check_home(home, engine.fingerprint, embedder.fingerprint)
    home.ensure()
    lock = FileLock(home.work / "refresh.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise StoreBusyError(
            f"Another refresh of {str(home.path)!r} is running: wait for it to end. (If none is, "
            "this goes away by itself; the lock dies with its process.)"
        ) from error
    try:
        build_refresh_graph().invoke({"stages": []}, context=ctx)
        return _result(ctx)
    except EmptyLogError:
        if ctx.id:  # there is nothing to go on from; what was copied of the log goes again
            shutil.rmtree(ctx.work.root, ignore_errors=True)
        raise
    finally:
        lock.release()


def check_log(home: Home) -> None:
    """Check that a home has a log at all.

    Raises:
        HomeError: there is no such home.
        EmptyLogError: nothing was ever captured in it.
    """
    from langchain_uno.logs.journal import FILE_NAME

    home.require()
    if not (home.journal / FILE_NAME).exists():
        raise EmptyLogError(
            f"The log of {str(home.path)!r} is empty: attach UNOFeedbackHandler(home=...) to a "
            "chat model, or import one (python -m langchain_uno.logs import FILE --home DIR)."
        )


def check_home(home: Home, base_fingerprint: str, embedder_fingerprint: str) -> None:
    """Check, before anything is written, that a home has logs and fits the models.

    Raises:
        HomeError: there is no such home.
        EmptyLogError: nothing was ever captured in it.
        ModelMismatchError: its current release was made for another base model or embedder.
    """
    from langchain_uno.releases.load import read_current

    check_log(home)
    try:
        release = read_current(home)
    except ReleaseError:
        return  # a broken release is no reason against making a sound one
    if release is None:
        return
    for what, mine, theirs in (
        ("base model", base_fingerprint, release.manifest.base_fingerprint),
        ("embedder", embedder_fingerprint, release.manifest.embedder_fingerprint),
    ):
        if mine != theirs:
            raise ModelMismatchError(
                f"The home {str(home.path)!r} belongs to another {what}: its release "
                f"{release.id!r} was made for {release.manifest.base_model!r}. Name that model "
                "again, or give a new model a home of its own (python -m langchain_uno.logs "
                "export, then import)."
            )


def _capped(recipe: Recipe, max_steps: int | None) -> Recipe:
    if max_steps is None:
        return recipe
    update = {}
    for kind in ("expert", "critic"):
        settings = getattr(recipe, kind)
        known = settings.max_steps
        cap = max_steps if known is None else min(known, max_steps)
        update[kind] = settings.model_copy(update={"max_steps": cap, "min_steps": 0})
    return recipe.model_copy(update=update)


def _finished(ctx: RefreshContext) -> str | None:
    """Return the release that this very refresh made, if it still lies there."""
    if not ctx.work.has(_RESULT):
        return None
    release: str | None = ctx.work.read_json(_RESULT)["release"]
    there = release is not None and (ctx.home.releases / release / "manifest.json").is_file()
    if not there:
        ctx.work.remove(_RESULT)
        ctx.work.remove("release.json")
    return release if there else None


def _result(ctx: RefreshContext) -> RefreshResult:
    """Return what is stored of a finished refresh, or collect it, store it and tidy up."""
    if ctx.work.has(_RESULT):
        known = RefreshResult.model_validate(ctx.work.read_json(_RESULT))
        return known.model_copy(update={"unchanged": True})
    filtered = ctx.work.read_json("filter.json")
    decided: list[dict[str, Any]] = ctx.work.read_json("train.json")
    result = RefreshResult.model_validate(
        {
            "refresh_id": ctx.id,
            "release": ctx.work.read_json("release.json")["release"],
            "resumed": ctx.resumed,
            "interactions": ctx.work.read_json("snapshot.json")["interactions"],
            "usable": filtered["usable"],
            "dropped": filtered["dropped"],
            "distilled": ctx.work.read_json("distil.json"),
            "clusters": decided,
            "seconds": {stage: ctx.seconds[stage] for stage in STAGES if stage in ctx.seconds},
        }
    )
    ctx.work.write_json(_RESULT, result.model_dump(mode="json"))
    sweep_work(ctx.home.work, [ctx.id])
    return result
