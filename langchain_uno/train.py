"""A refresh of a home, from Python: loads recipe and models, then runs the stages.

    result = refresh_home("./home", model="Qwen/Qwen3-8B")
    print(result.release)

``python -m langchain_uno.train`` is the command ``langchain-uno train``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_uno.errors import ConfigError, InputError
from langchain_uno.home import Home, load_settings
from langchain_uno.recipe import Recipe, load_recipe, merged

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

if TYPE_CHECKING:
    from langchain_uno.learning.work import RefreshProgress, RefreshResult

__all__ = ["effective_recipe", "refresh_home"]


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
    until: str | None = None,
    promote: bool = True,
    max_minutes: float | None = None,
    min_free_gb: float | None = None,
    progress: RefreshProgress | None = None,
) -> RefreshResult:
    """Do what the command does, from Python.

    Args:
        home: whose log to learn from; by default ``LANGCHAIN_UNO_HOME``.
        namespace: the tenant.
        model: the base model, a folder or a hub name; None: the bundled model.
        recipe: a recipe's name or a TOML file; None: "default", or "bundled" for the bundled model.
        sets: overrides of the recipe, ``"lora.rank=8"``.
        seed: of the whole refresh.
        embeddings: a HuggingFace embedding model; None: the base model's token embeddings.
        reranker: a yes/no reranker for the gap; None: the base model.
        teacher: distils, revises and judges; None: the base model.
        max_steps: caps the steps of every training.
        until: the stage to stop after; None: all are run.
        promote: whether the release answers users at once.
        max_minutes: after which to stop, loading included, at the next end of a piece of work.
        min_free_gb: stop, likewise, when fewer GB are free on the home's disk.
        progress: hears how it comes on.

    Returns:
        What the refresh did.

    Raises:
        PausedError: a limit was reached; the same call again goes on from there.
        UNOError: see :func:`langchain_uno.graphs.refresh.run_refresh`; nothing is half-written.
    """
    from langchain_uno import __version__
    from langchain_uno.erasure import keep_promises
    from langchain_uno.learning.work import FORMAT, WorkFolder, digest_of
    from langchain_uno.logs.journal import require_log
    from langchain_uno.models.loading import (
        is_bundled,
        is_url,
        load_embedder,
        load_engine,
        load_prompt_set,
    )

    began = time.monotonic()
    # What is cheap to check comes first, so that a typo costs no minutes.
    place = Home.locate(home, namespace)
    require_log(place)
    if is_url(model):
        raise InputError(
            f"--model {model!r} is a server: training needs the weights, so name their folder or "
            "hub name. The server can serve the adapters afterwards."
        )
    chosen = recipe or ("bundled" if is_bundled(model) else "default")
    settings = effective_recipe(place, chosen, sets, seed)
    prompts = load_prompt_set(settings.prompt_set)
    place.ensure()
    keep_promises(place)  # before anything is learnt

    of_models = [_stamp(one) for one in (model, embeddings, reranker, teacher)]
    of_code = (__version__, FORMAT, prompts.fingerprint)
    key = digest_of(*of_code, settings.model_dump_json(), max_steps, *of_models)
    now = {"key": key, "log": _log_mark(place)}
    if until is None and (known := _nothing_new(place, now)) is not None:
        return known

    if progress is not None:
        progress.start("load", None, model or "the bundled model")
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
        guide.keep_answers(place.work / "answers.sqlite3")
        # A real chat model is asked in the real set's words, whatever the base model needs.
        guide_prompts = load_prompt_set("real")
    if progress is not None:
        progress.finish("load", f"recipe {settings.name}")

    from langchain_uno.graphs.refresh import run_refresh

    left = None if max_minutes is None else max_minutes - (time.monotonic() - began) / 60
    try:
        result = run_refresh(
            place,
            engine,
            embedder,
            judge,
            guide,
            prompts=prompts,
            teacher_prompts=guide_prompts,
            recipe=settings,
            progress=progress,
            max_steps=max_steps,
            until=until,
            promote=promote,
            max_minutes=left,
            min_free_gb=min_free_gb,
        )
    finally:
        if guide is not None:
            guide.close()
    if embeddings is None and not is_bundled(model):
        result.notes.append(_OWN_EMBEDDINGS)
    if until is None and not result.newer and not result.left_out:
        WorkFolder(place.work).write_json(_LAST, {**now, "refresh": result.refresh_id})
    return result


_LAST = "last.json"
"""In ``work/``: with which settings, models and log the last refresh ended."""


def _log_mark(home: Home) -> str:
    """Return what stands for the log and the decisions of people as they are."""
    from langchain_uno.learning.decisions import read_decisions
    from langchain_uno.learning.work import digest_of
    from langchain_uno.logs.figures import log_mark
    from langchain_uno.logs.journal import Journal

    with Journal(home.journal, readonly=True) as journal:
        return digest_of(log_mark(journal), *(d.id for d in read_decisions(home)))


def _stamp(model: str | None) -> str:
    """Return what is another one when a model's files changed: cheap, without reading them."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from langchain_uno.learning.work import digest_of
    from langchain_uno.models.loading import is_url

    if model is None or is_url(model):
        return str(model)
    try:
        if Path(model).is_dir():
            files = sorted(f for f in Path(model).rglob("*") if f.is_file())
            stats = [(str(f), f.stat()) for f in files]
            return digest_of(model, *((name, s.st_mtime_ns, s.st_size) for name, s in stats))
        return f"{model} {try_to_load_from_cache(model, 'config.json')}"  # names the commit
    except (HFValidationError, OSError):  # loading says what is wrong with it, if anything is
        return model


def _nothing_new(home: Home, now: dict[str, str]) -> RefreshResult | None:
    """Return the result of the last refresh if it was of just this, without loading a model.

    None where anything is new, where other hosts may have seen something, or where the refresh has
    to look again: its release is gone.
    """
    from langchain_uno.learning.work import RESULT, WorkFolder
    from langchain_uno.logs.store import index_is_embedded
    from langchain_uno.releases.load import revocation_file

    work = WorkFolder(home.work)
    last = work.read_json(_LAST) if work.has(_LAST) and index_is_embedded(home) else None
    if not isinstance(last, dict):
        return None
    folder = WorkFolder(home.work / str(last.get("refresh")))
    if {**now, "refresh": last.get("refresh")} != last or not folder.has(RESULT):
        return None
    release = str(folder.read_json(RESULT)["release"])
    is_there = (home.releases / release / "manifest.json").is_file()
    if not is_there and not revocation_file(home, release).exists():
        return None
    from langchain_uno.graphs.refresh import stored_result

    return stored_result(home, folder)


_OWN_EMBEDDINGS = (
    "Requests were told apart by the base model's token embeddings, which natural requests of "
    "different kinds hardly differ in. A sentence embedder does it far better (--embeddings NAME, "
    "in a home that has no release yet)."
)


def effective_recipe(
    home: Home | None, name: str, sets: Sequence[str] = (), seed: int | None = None
) -> Recipe:
    """Load a recipe, then the home's overrides on top, then those of the command.

    Args:
        home: whose ``settings.toml`` is read; None: no home's.
        name: a recipe's name or a TOML file.
        sets: overrides, ``"lora.rank=8"``.
        seed: another seed; None: as it is.

    Raises:
        ConfigError: the recipe or the home's settings are not valid; the message says which.
        InputError: one of ``sets`` is not KEY=VALUE.
    """
    load_recipe(name)  # its own faults are not the home's
    overrides: dict[str, Any] = {}
    if home is not None:
        overrides = load_settings(home).recipe
        try:
            load_recipe(name, overrides)
        except ConfigError as error:
            raise ConfigError(f"{str(home.settings)!r}, [recipe]: {error}") from error
    for one in sets:
        overrides = merged(overrides, _assignment(one))
    return load_recipe(name, overrides if seed is None else {**overrides, "seed": seed})


def _assignment(text: str) -> dict[str, Any]:
    """Read ``lora.rank=8`` as TOML; a value that is none is a bare word, a string."""
    key, equals, value = text.partition("=")
    for written in (value, json.dumps(value)):
        try:
            if equals:
                return tomllib.loads(f"{key} = {written}")
        except tomllib.TOMLDecodeError:
            continue
    raise InputError(f"--set {text!r} is not KEY=VALUE, as in lora.rank=8.")


if __name__ == "__main__":
    from langchain_uno.cli import main

    main("train")
