"""The demo of ``langchain-uno demo``: from feedback to better answers, on this machine.

A week of a simulated service runs through the feedback handler; a refresh learns from it;
held-out requests of held-out users are answered by base, UNO-Single and UNO and checked by a
program. Nothing is mocked: real Chroma, a real (small) model, LoRA training with TRL, adapters
served by PEFT through a LangGraph graph. Stopped at any time, the same call goes on from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langchain_uno.home import Home
from langchain_uno.releases.traffic import write_atomic

if TYPE_CHECKING:
    from langchain_uno.demo.service import Visit
    from langchain_uno.demo.worlds import World
    from langchain_uno.graphs.refresh_context import RefreshResult

__all__ = ["Notebook", "learn", "run_demo", "run_week"]

Mode = Literal["uno", "single", "base"]


class Notebook:
    """What the demo has done so far, in ``demo.json`` beside the home's folders."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.data: dict[str, Any] = {"settings": settings, "seconds": {}, "visits": 0}
        if path.is_file():
            self.data = self._read(settings)

    def _read(self, settings: dict[str, Any]) -> dict[str, Any]:
        from langchain_uno.errors import InputError

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
    home: Home, *, seed: int, visits: int, per_family: int, noise: float, progress: Any
) -> dict[str, Any]:
    """Run (or finish) the demo in ``home`` and return its report as plain data."""
    from langchain_uno.demo.drawing import make_world
    from langchain_uno.demo.service import plan_visits
    from langchain_uno.demo.worlds import load_world, save_world

    home.ensure()
    settings = {"seed": seed, "visits": visits, "per_family": per_family, "noise": noise}
    notes = Notebook(home.path / "demo.json", settings)
    world_file = home.path / "world.json"
    if not world_file.is_file():
        save_world(make_world(seed, noise=noise), world_file)
    world = load_world(world_file)
    run_week(home, world, plan_visits(world, visits), notes, progress, "base")
    result = _refresh(home, seed, notes, progress)
    if "report" not in notes.data:
        from langchain_uno.demo.evaluate import SYSTEMS, evaluate
        from langchain_uno.demo.report import draw_report

        progress.start(
            "evaluate", per_family * len(world.families) * len(SYSTEMS), "held-out requests"
        )
        with notes.timed("evaluate"):
            report = evaluate(
                world, home, per_family=per_family, on_done=_tick(progress, "evaluate")
            )
            draw_report(report, home.path / "demo.png")
        notes.data["report"] = report
        notes.save()
        progress.finish("evaluate")
    report = dict(notes.data["report"])
    report["seconds"] = notes.data["seconds"]
    report["refresh"] = result
    report["example"] = _example(home, world, report)
    report["sizes"] = _sizes(home)
    return report


def run_week(
    home: Home, world: World, planned: Sequence[Visit], notes: Notebook, progress: Any, mode: Mode
) -> None:
    """Let people ask and react, through the handler; goes on after the last whole batch.

    Args:
        home: whose model answers, and where their feedback goes.
        world: theirs.
        planned: the visits, from the first on; those that ``notes`` counts have been.
        notes: counts the visits.
        progress: hears of them.
        mode: of the chat model; "base" for a service that has not learnt yet.
    """
    from langchain_uno import UNOChatModel, UNOFeedbackHandler
    from langchain_uno.demo.service import run_service

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
                    run_service(world, group, model, handler)
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


def _refresh(home: Home, seed: int, notes: Notebook, progress: Any) -> dict[str, Any]:
    """Learn from the week and release."""
    if "refresh" not in notes.data:
        with notes.timed("refresh"):
            result = learn(home, {"seed": seed}, progress)
        for stage, seconds in result.seconds.items():
            notes.data["seconds"][f"refresh: {stage}"] = seconds
        notes.data["refresh"] = result.model_dump(mode="json")
        notes.save()
    refreshed: dict[str, Any] = notes.data["refresh"]
    return refreshed


def _example(home: Home, world: Any, report: dict[str, Any]) -> dict[str, str] | None:
    """One held-out request, before and after: of the cluster that gained most."""
    from langchain_uno import UNOChatModel
    from langchain_uno.demo.service import held_out_queries

    gains = [
        (c["score"]["uno"] - c["score"]["base"], c["family"]) for c in report["clusters"] if c["n"]
    ]
    if not gains:
        return None
    family = max(gains)[1]
    user, query = next((u, q) for u, q in held_out_queries(world, 1, seed=1) if q.family == family)
    said = {
        mode: UNOChatModel(home=str(home.root), mode=mode).invoke(query.text)
        for mode in ("base", "uno")
    }
    language = world.language()
    wishes = world.wishes(language, query, user)
    return {
        "query": query.text,
        "users_want": ", ".join(language.rules[r].text for r in wishes),
        "before": str(said["base"].content),
        "after": str(said["uno"].content),
        "route": str(said["uno"].response_metadata.get("route")),
    }


def _sizes(home: Home) -> dict[str, int]:
    """Bytes of the base model and of the current release's adapters."""
    from langchain_uno.models.loading import model_folder
    from langchain_uno.releases.load import read_current

    base = model_folder(None) / "model.safetensors"
    release = read_current(home)
    adapters = [a.n_bytes for a in release.manifest.adapters] if release else []
    return {"base": base.stat().st_size, "adapters": sum(adapters), "n_adapters": len(adapters)}


def _tick(progress: Any, stage: str) -> Callable[[int], None]:
    return lambda n: progress.advance(stage, n)
