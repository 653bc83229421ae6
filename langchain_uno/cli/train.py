"""The refresh at the command line: from the log of a home to a release.

    python -m langchain_uno.train --home DIR                          # the bundled model
    python -m langchain_uno.train --home DIR --model Qwen/Qwen3-8B    # a real one, paper settings
    python -m langchain_uno.train refresh --home DIR                  # the same as the first

Standard output carries the summary (one JSON object with ``--json``); bars and messages go to
standard error.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from langchain_uno.cli.progress import Bars, clean_exit, err, out, print_json
from langchain_uno.errors import InputError
from langchain_uno.home import ENV_HOME, Home
from langchain_uno.recipe import Recipe, load_recipe
from langchain_uno.settings import load_settings

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

if TYPE_CHECKING:
    from langchain_uno.graphs.refresh_context import RefreshProgress, RefreshResult
    from langchain_uno.models.protocols import Embedder, Engine, Reranker
    from langchain_uno.models.roles import PromptSet

__all__ = ["app", "main", "refresh_home"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

_STOPPED = "Stopped. What is finished is kept: the same call again goes on from there."
_MARKS = {
    "expert": "[green]expert[/]",
    "memory": "[blue]memory[/]",
    "critic": "[cyan]critic[/]",
    "base": "[dim]base[/]",
}


class _Command(str, Enum):
    refresh = "refresh"


@dataclass(frozen=True)
class _Parts:
    """What the models of a refresh were loaded to."""

    engine: Engine
    embedder: Embedder
    reranker: Reranker | None
    teacher: Engine | None
    prompts: PromptSet
    teacher_prompts: PromptSet


@app.command()
def train(
    command: Annotated[
        _Command, typer.Argument(help="'refresh' is all there is; it may be left out.")
    ] = _Command.refresh,
    home: Annotated[
        Path | None,
        typer.Option(help="The home whose log to learn from.", envvar=ENV_HOME, show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Base model: a folder or a hub name. [default: the bundled model]"),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="'paper', 'bundled' or a TOML file. [default: paper; bundled for the bundled "
            "model]"
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override one value of the recipe, for example --set expert.rank=8. Repeatable.",
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            help="HuggingFace embedding model for clustering. [default: the base model's token "
            "embeddings]"
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            help="Yes/no reranker for the cognitive gap, for example Qwen/Qwen3-Reranker-0.6B. "
            "[default: the base model]"
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Chat model that distils, revises and judges, as init_chat_model names it (for "
            "example openai:gpt-4.1-mini). [default: the base model]"
        ),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Tenant inside the home.")] = "default",
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Cap on the steps of every training: a quick try.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole refresh.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Learn from the log of a home: distil, cluster, train, verify, release.

    Similar logs form a cluster. Where users want about what the model would guess, an *expert* is
    trained; where they want something else, or an expert fails its check, a *critic*; what passes
    no check on held-out queries is not shipped, and the base model answers as before. The new
    release is current at once.

    A refresh that was stopped goes on where it stopped when the same call is made again.

    Exit codes: 0 done, 2 bad argument or recipe, 3 home missing or read-only, 4 no such model,
    5 home of another model, 6 nothing to learn from, 8 another refresh is running, 130 stopped.
    """
    with clean_exit(_STOPPED):
        # The libraries' own deprecations are nobody's business at the command line.
        warnings.simplefilter("ignore", FutureWarning)
        place = Home.locate(home, namespace)
        with Bars(off=as_json) as bars:
            result = refresh_home(
                home,
                namespace=namespace,
                model=model,
                recipe=recipe,
                sets=set_ or [],
                seed=seed,
                embeddings=embeddings,
                reranker=reranker,
                teacher=teacher,
                max_steps=max_steps,
                progress=bars,
            )
        if as_json:
            print_json(result.model_dump(mode="json"))
        else:
            _show(result, place)


def refresh_home(
    home: str | os.PathLike[str] | None = None,
    *,
    namespace: str = "default",
    model: str | None = None,
    recipe: str | None = None,
    sets: Sequence[str] = (),
    seed: int | None = None,
    embeddings: str | None = None,
    reranker: str | None = None,
    teacher: str | None = None,
    max_steps: int | None = None,
    progress: RefreshProgress | None = None,
) -> RefreshResult:
    """Do what the command does, from Python.

    Args:
        home: whose log to learn from; by default ``LANGCHAIN_UNO_HOME``.
        namespace: the tenant.
        model: the base model, a folder or a hub name; None: the bundled model.
        recipe: ``"paper"``, ``"bundled"`` or a TOML file.
        sets: overrides of the recipe, ``"expert.rank=8"``.
        seed: of the whole refresh.
        embeddings: a HuggingFace embedding model; None: the base model's token embeddings.
        reranker: a yes/no reranker for the gap; None: the base model.
        teacher: distils, revises and judges; None: the base model.
        max_steps: caps the steps of every training.
        progress: hears how it comes on.

    Raises:
        UNOError: see :func:`langchain_uno.graphs.refresh.run_refresh`; nothing is half-written.
    """
    from langchain_uno.erasure import keep_promises
    from langchain_uno.graphs.refresh import check_log, run_refresh

    place = Home.locate(home, namespace)
    check_log(place)
    place.ensure()
    keep_promises(place)  # before anything is learnt
    parts, settings = _load(place, model, recipe, sets, seed, embeddings, reranker, teacher)
    return run_refresh(
        place,
        parts.engine,
        parts.embedder,
        parts.reranker,
        parts.teacher,
        prompts=parts.prompts,
        teacher_prompts=parts.teacher_prompts,
        recipe=settings,
        progress=progress,
        max_steps=max_steps,
    )


def _recipe(home: Home, name: str, sets: Sequence[str], seed: int | None) -> Recipe:
    """Load a recipe with the home's and the command line's overrides, the latter on top."""
    overrides = load_settings(home).recipe
    for one in sets:
        overrides = _merge(overrides, _assignment(one))
    if seed is not None:
        overrides = {**overrides, "seed": seed}
    return load_recipe(name, overrides)


def _assignment(text: str) -> dict[str, Any]:
    """Read ``expert.rank=8`` as TOML; a value that is none is a bare word, a string."""
    key, equals, value = text.partition("=")
    for written in (value, json.dumps(value)):
        try:
            if equals:
                return tomllib.loads(f"{key} = {written}")
        except tomllib.TOMLDecodeError:
            continue
    raise InputError(f"--set {text!r} is not KEY=VALUE, as in expert.rank=8.")


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        known = merged.get(key)
        both = isinstance(value, dict) and isinstance(known, dict)
        merged[key] = _merge(known or {}, value) if both else value
    return merged


def _load(
    home: Home,
    model: str | None,
    recipe: str | None,
    sets: Sequence[str],
    seed: int | None,
    embeddings: str | None,
    reranker: str | None,
    teacher: str | None,
) -> tuple[_Parts, Recipe]:
    """Load recipe and models: what is cheap to check first, so that a typo costs no minutes."""
    from langchain_uno.models.loading import (
        is_bundled,
        is_url,
        load_embedder,
        load_engine,
        load_prompt_set,
    )

    if is_url(model):
        raise InputError(
            f"--model {model!r} is a server: training needs the weights, so name their folder or "
            "hub name. The server can serve the adapters afterwards."
        )
    default = "bundled" if is_bundled(model) else "paper"
    settings = _recipe(home, recipe or default, sets, seed)
    prompts = load_prompt_set(settings.prompt_set)
    with err.status("Loading the base model"):
        engine = load_engine(model)
        embedder = load_embedder(embeddings, engine)
    judge = None
    if reranker is not None:
        from langchain_uno.models.rerankers import CausalReranker

        judge = CausalReranker(reranker)
    guide, guide_prompts = None, prompts
    if teacher is not None:
        from langchain_uno.models.teacher import load_teacher

        guide = load_teacher(teacher, engine)
        # A real chat model is asked in the real set's words, whatever the base model needs.
        guide_prompts = load_prompt_set("real")
    return _Parts(engine, embedder, judge, guide, prompts, guide_prompts), settings


def _show(result: RefreshResult, home: Home) -> None:
    """Print the summary: clusters, stages, and where things lie."""
    if result.unchanged:
        out.print(f"Nothing new since release [bold]{result.release}[/]: it stands.")
        return
    table = Table(title=f"{len(result.clusters)} clusters")
    for name, justify in (
        ("cluster", "left"),
        ("logs", "right"),
        ("held out", "right"),
        ("gap", "right"),
        ("route", "left"),
        ("pairs", "right"),
        ("win rate", "right"),
        ("seconds", "right"),
        ("note", "left"),
    ):
        table.add_column(name, justify="left" if justify == "left" else "right")
    for c in result.clusters:
        rate = "-"
        if c.win_rate is not None and c.interval is not None:
            rate = f"{c.win_rate:.2f} ({c.interval[0]:.2f}-{c.interval[1]:.2f})"
        table.add_row(
            c.id,
            str(c.size),
            str(c.verify),
            f"{c.gap:.2f}",
            _MARKS[c.route],
            str(c.pairs or "-"),
            rate,
            f"{c.seconds:.0f}",
            c.note,
        )
    out.print(table)
    stages = Table(title="stages")
    for stage in result.seconds:
        stages.add_column(stage, justify="right")
    stages.add_row(*(f"{s:.1f} s" for s in result.seconds.values()))
    out.print(stages)
    dropped = ", ".join(f"{n} {reason}" for reason, n in sorted(result.dropped.items()))
    out.print(
        f"{result.usable} of {result.interactions} interactions learnt from"
        + (f" (left out: {dropped})." if dropped else "."),
        highlight=False,
    )
    if result.resumed:
        out.print(f"Taken over from an earlier call: {', '.join(result.resumed)}.")
    out.print(
        f"Release [bold]{result.release}[/] is current; it lies in "
        f"{home.releases / str(result.release)}",
        soft_wrap=True,
        highlight=False,
    )


def main() -> None:
    """Run the command line."""
    app(prog_name="python -m langchain_uno.train")


if __name__ == "__main__":
    main()
