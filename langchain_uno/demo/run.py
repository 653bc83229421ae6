"""The demo: from feedback to better answers, on this machine.

A week of a simulated service runs through the feedback handler; a refresh learns from it; held-out
requests of test people are answered by the base and by UNO and checked by a program. Nothing is
mocked: real Chroma, a real (small) model, LoRA training with TRL, adapters served by PEFT through a
LangGraph graph. Stopped at any time, the same call goes on from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langchain_uno.demo.answers import check_answer
from langchain_uno.demo.asking import held_out
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.service import React, Visit, plan_visits, run_service
from langchain_uno.demo.worlds import World
from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.releases.traffic import write_atomic

if TYPE_CHECKING:
    from langchain_uno.learning.work import RefreshResult

VISITS = 380
"""Requests of the week: about six minutes on two quiet cores, all in all."""
PER_FAMILY = 15
"""Test requests a family."""

Mode = Literal["uno", "single", "base"]


class Notebook:
    """What the demo has done so far, in ``demo.json`` beside the home's folders.

    Args:
        path: the file.
        settings: what must be the same for a call to go on where another one stopped.

    Raises:
        InputError: the file is damaged, or of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.data: dict[str, Any] = {"settings": settings, "seconds": {}, "visits": 0}
        if path.is_file():
            self.data = self._read(settings)

    def _read(self, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
            theirs = known["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{str(self.path)!r} is damaged ({error}): choose another --home, or delete it."
            ) from error
        if theirs != settings:
            raise InputError(
                f"{str(self.path.parent)!r} holds a demo with other settings ({theirs}): "
                "choose another --home, or delete it."
            )
        return dict(known)

    def save(self) -> None:
        """Write the notebook, atomically."""
        write_atomic(self.path, json.dumps(self.data).encode())

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to ``stage``, also when it is interrupted."""
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = self.data["seconds"]
            seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - started
            self.save()


def run_demo(
    home: Home,
    *,
    seed: int,
    progress: Any,
    visits: int = VISITS,
    per_family: int = PER_FAMILY,
    noise: float = 0.34,
) -> dict[str, Any]:
    """Run (or finish) the demo in ``home`` and return its report as plain data.

    Args:
        home: where everything goes; empty at first.
        seed: of the world: who wants what.
        progress: is told of every stage (``start``, ``advance``, ``finish``).
        visits: requests of the week.
        per_family: test requests a family.
        noise: share of feedback that says nothing usable.

    Returns:
        The report of :func:`langchain_uno.demo.evaluate.evaluate`, with ``refresh`` (what the
        refresh did), ``examples`` (requests before and after), ``sizes`` and ``seconds``.

    Raises:
        InputError: the home holds a demo of other settings, or something else.
        UNOError: a stage failed.
    """
    from langchain_uno.demo.evaluate import evaluate
    from langchain_uno.demo.report import draw_report

    settings = {"seed": seed, "visits": visits, "per_family": per_family, "noise": noise}
    own = home.path / "demo.json"
    if home.path.is_dir() and any(home.path.iterdir()) and not own.is_file():
        raise InputError(
            f"{str(home.path)!r} is not empty, and no demo made it: choose another --home, so that "
            "the demo does not mix with logs of yours."
        )
    notes = Notebook(own, settings)
    home.ensure()
    notes.save()
    world = make_world(seed, noise=noise)
    run_week(home, world, plan_visits(world, visits), notes, progress, "base")
    if "refresh" not in notes.data:
        with notes.timed("refresh"):
            notes.data["refresh"] = learn(home, {"seed": seed}, progress).model_dump(mode="json")
    if "report" not in notes.data:
        progress.start("evaluate", 2 * per_family * len(world.families), "test requests")
        with notes.timed("evaluate"):
            done = partial(progress.advance, "evaluate")
            report = evaluate(world, home, per_family=per_family, on_done=done)
            report["examples"] = _examples(home, world, report["clusters"])
            report["sizes"] = _sizes(home)
            notes.data["report"] = report
        progress.finish("evaluate")
    told = {key: notes.data[key] for key in ("refresh", "seconds")}
    report = {**notes.data["report"], **told, "log": logged(home)}
    draw_report(report, home.path / "demo.png")
    return report


def run_week(
    home: Home,
    world: World,
    planned: Sequence[Visit],
    notes: Notebook,
    progress: Any,
    mode: Mode,
    reaction: React | None = None,
) -> None:
    """Let people ask and react, through the handler; goes on after the last whole batch.

    Args:
        home: whose model answers, and where their feedback goes.
        world: theirs.
        planned: the visits, from the first on; those that ``notes`` counts have been.
        notes: counts the visits.
        progress: is told of them.
        mode: of the chat model; "base" for a service that has not learnt yet.
        reaction: what they do with an answer; by default what honest people do.
    """
    from langchain_uno import UNOChatModel, UNOFeedbackHandler

    visits = len(planned)
    progress.start("service", visits, "requests and feedback")
    progress.advance("service", notes.data["visits"])
    if notes.data["visits"] < visits:
        model = UNOChatModel(home=str(home.root), mode=mode)
        handler = UNOFeedbackHandler(home=str(home.root))
        try:
            while notes.data["visits"] < visits:
                group = planned[notes.data["visits"] : notes.data["visits"] + 32]
                with notes.timed("service"):
                    run_service(world, group, model, handler, reaction=reaction)
                    handler.flush()
                    notes.data["visits"] += len(group)
                progress.advance("service", len(group))
        finally:
            handler.close()
    progress.finish("service")


def learn(home: Home, settings: dict[str, Any], progress: Any) -> RefreshResult:
    """Refresh a home of the bundled model with its recipe, changed by ``settings``."""
    from langchain_uno.graphs.refresh import run_refresh
    from langchain_uno.models.loading import load_embedder, load_prompt_set, shared_engine
    from langchain_uno.recipe import load_recipe

    engine = shared_engine(None)
    recipe = load_recipe("bundled", settings)
    return run_refresh(
        home,
        engine,
        load_embedder(None, engine),
        prompts=load_prompt_set(recipe.prompt_set),
        recipe=recipe,
        progress=progress,
    )


def logged(home: Home) -> dict[str, Any]:
    """Return what the report says of a home's log, as ``langchain-uno logs stats`` counts it."""
    from langchain_uno.logs.stats import stats

    found = stats(home)
    return {name: found[name] for name in ("interactions", "feedback", "follow_ups", "verdicts")}


def _examples(
    home: Home, world: World, clusters: Sequence[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return a test request before and after for an expert and for a critic, if there is one.

    It is the first request that reaches the largest such cluster, of requests that are not counted
    in the figures.
    """
    language, asked = world.language(), held_out(world, 3, seed=1)
    found: dict[str, dict[str, Any]] = {}
    for route in ("expert", "critic"):
        mine = [c for c in clusters if c["route"] == route and c["n"]]
        largest = max(mine, key=lambda c: int(c["n"]), default={"family": None, "id": None})
        for one in asked:
            if one.query.family != largest["family"]:
                continue
            before, after = (_walk(home, one.query.text, mode) for mode in ("base", "uno"))
            if after["cluster"] != largest["id"]:
                continue
            met = [
                check_answer(language, one.query, said["answer"]).met for said in (before, after)
            ]
            wishes = [
                {"text": language.rules[r].text, "before": r in met[0], "after": r in met[1]}
                for r in one.wishes
            ]
            found[route] = {
                "query": one.query.text,
                "family": one.query.family,
                "before": before["answer"],
                "suggestions": after["suggestions"],
                "after": after["answer"],
                "wishes": wishes,
            }
            break
    return found


def _walk(home: Home, text: str, mode: Mode) -> dict[str, Any]:
    """Send one request through the serving graph; return its end, and what a critic suggested."""
    from langchain_uno import UNOChatModel
    from langchain_uno.graphs.respond import RespondContext

    graph = UNOChatModel(home=str(home.root), mode=mode).served.graph
    state: dict[str, Any] = {}
    suggestions: list[str] = []
    for kind, event in graph.stream(
        {"messages": [{"role": "user", "content": text}]},
        context=RespondContext(mode=mode),
        stream_mode=["custom", "values"],
    ):
        if kind == "values":
            state = event
        elif event.get("type") == "progress":
            suggestions = event.get("suggestions", suggestions)
    return {**state, "suggestions": suggestions}


def _sizes(home: Home) -> dict[str, int]:
    """Bytes of the base model and of the current release's adapters."""
    from langchain_uno.models.loading import model_folder
    from langchain_uno.releases.load import read_current

    base = model_folder(None) / "model.safetensors"
    release = read_current(home)
    adapters = [a.n_bytes for a in release.manifest.adapters] if release else []
    return {"base": base.stat().st_size, "adapters": sum(adapters), "n_adapters": len(adapters)}
