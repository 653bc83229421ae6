"""A refresh of a home, from Python: loads recipe and models, then runs the stages.

    result = refresh_home("./home", model="Qwen/Qwen3-8B")
    print(result.release)

``python -m langchain_uno.train`` is the command ``langchain-uno train``.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from langchain_uno.errors import ConfigError, InputError
from langchain_uno.home import ONE_AT_A_TIME, Home, load_settings, read_toml, refresh_lock
from langchain_uno.metrics import FILE, refresh_noted
from langchain_uno.recipe import Recipe, load_recipe, merged

if TYPE_CHECKING:
    from langchain_uno.learning.plan import Plan
    from langchain_uno.learning.work import RefreshProgress, RefreshResult
    from langchain_uno.models.protocols import Embedder, Engine
    from langchain_uno.models.roles import PromptSet


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
    generate_url: str | None = None,
    generate_adapters: str | None = None,
    max_steps: int | None = None,
    until: str | None = None,
    promote: bool = True,
    ray: str | None = None,
    max_minutes: float | None = None,
    min_free_gb: float | None = None,
    progress: RefreshProgress | None = None,
) -> RefreshResult:
    """Refresh a home as ``langchain-uno train`` does.

    Args:
        home: whose log to learn from; by default ``LANGCHAIN_UNO_HOME``.
        namespace: the tenant.
        model: the base model, a folder or a hub name; None: the bundled model.
        recipe: a recipe's name or a TOML file; None: "default", or "bundled" for the bundled model.
        sets: overrides of the recipe, ``"lora.rank=8"``.
        seed: overrides the recipe's.
        embeddings: a HuggingFace embedding model; None: the base model's token embeddings.
        reranker: a yes/no reranker for the gap; None: the base model.
        teacher: the model that distils, revises and judges; None: the base model.
        generate_url: an OpenAI-compatible server of the base model, which writes its answers,
            adapters under test included; None: the model in this process does.
        generate_adapters: the folder that the server's filesystem resolver watches; None: it loads
            adapters by its own call.
        max_steps: the most optimiser steps of every training; None: as the recipe has it.
        until: the stage to stop after; None: the last.
        promote: whether the release answers users at once.
        ray: address of the Ray cluster that trains and verifies; "auto": this machine's. None:
            this process trains and verifies.
        max_minutes: minutes, loading included, after which to stop at the end of a piece of work.
        min_free_gb: stop in the same way when fewer GB are free on the home's disk.
        progress: is told of every stage.

    Returns:
        What the refresh did.

    Raises:
        PausedError: a limit was reached; the same call again goes on from there.
        UNOError: see :func:`langchain_uno.graphs.refresh.run_refresh`; nothing is half-written.
    """
    from langchain_uno.erasure import keep_promises
    from langchain_uno.learning.plan import settings_notes
    from langchain_uno.learning.work import Silent, WorkFolder
    from langchain_uno.logs.journal import require_log
    from langchain_uno.models.loading import is_bundled

    began, progress = time.monotonic(), progress or Silent()
    place = Home.locate(home, namespace)
    named = _Named(model, embeddings, reranker, teacher)
    if not (place.path / FILE).exists():  # write no metrics into a folder that is no home
        require_log(place)
    noted: AbstractContextManager[dict[str, Any]]
    noted = refresh_noted(place) if until is None else nullcontext({})
    with noted as told:
        written = _written(generate_url, generate_adapters)
        settings, prompts = _checked(place, named, recipe, sets, seed)
        spread = None
        if ray is not None:
            from langchain_uno.learning.workers import RayWorkers

            spread = RayWorkers(ray, partial(_load_models, named, written, place.work))
        place.ensure()
        with refresh_lock(place, ONE_AT_A_TIME):
            pass  # a second refresh is refused before a model is loaded
        keep_promises(place)  # before anything is learnt
        now = _state(place, named, settings, prompts, max_steps)
        if until is None and (known := _nothing_new(place, now)) is not None:
            told["result"] = known.model_dump()
            return known
        parts = _load(place, named, written, settings, prompts, max_steps, progress)
        _check_server(place, settings, parts["engine"], progress)
        for note in (notes := settings_notes(place, settings, parts["engine"])):
            progress.finish("settings", note)
        guide = parts["teacher"]

        from langchain_uno.graphs.refresh import run_refresh

        given = {
            **named._asdict(),
            **written,
            "recipe": recipe,
            "seed": seed,
            "max_steps": max_steps,
        }
        left = None if max_minutes is None else max_minutes - (time.monotonic() - began) / 60
        more: dict[str, Any] = {
            "until": until,
            "promote": promote,
            "spread": spread,
            "max_minutes": left,
            "min_free_gb": min_free_gb,
            "call": [*_call(sets, given), *([] if promote else ["--no-promote"])],
        }
        try:
            if guide is not None:
                guide.keep_answers(place.work / "answers.sqlite3")
            result = run_refresh(**parts, **more)
        finally:
            parts["engine"].close()
            if guide is not None:
                guide.close()
        result.notes += notes
        if embeddings is None and not is_bundled(model):
            result.notes.append(_OWN_EMBEDDINGS)
        settled = not (result.newer or result.left_out or any(c.failed for c in result.clusters))
        if until is None and settled:
            WorkFolder(place.work).write_json(_LAST, {**now, "refresh": result.refresh_id})
        told["result"] = result.model_dump()
        return result


def plan_home(
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
    generate_url: str | None = None,
    generate_adapters: str | None = None,
    max_steps: int | None = None,
    progress: RefreshProgress | None = None,
) -> Plan:
    """Say what :func:`refresh_home` would do with these arguments, and what it would cost.

    The home is only read. The model is loaded, and measured for a few seconds. The arguments are
    those of :func:`refresh_home`.

    Returns:
        The plan; its ``unchanged`` is True where nothing is new.

    Raises:
        UNOError: as :func:`refresh_home`.
    """
    from langchain_uno.learning.plan import Plan, plan_refresh
    from langchain_uno.learning.work import Silent, Work
    from langchain_uno.models.rerankers import EngineReranker

    place = Home.locate(home, namespace)
    named = _Named(model, embeddings, reranker, teacher)
    written = _written(generate_url, generate_adapters)
    settings, prompts = _checked(place, named, recipe, sets, seed)
    if _nothing_new(place, _state(place, named, settings, prompts, max_steps)) is not None:
        return Plan(unchanged=True)
    parts = _load(place, named, written, settings, prompts, max_steps, progress or Silent())
    parts["teacher"] = parts["teacher"] or parts["engine"]
    parts["reranker"] = parts["reranker"] or EngineReranker(parts["engine"], prompts)
    return plan_refresh(Work(**parts))


class _Named(NamedTuple):
    """The models of a refresh, as they were named; None: the default."""

    model: str | None
    embeddings: str | None
    reranker: str | None
    teacher: str | None


def _written(url: str | None, folder: str | None) -> dict[str, str | None]:
    """Return what writes the base model's answers, checked; the release does not depend on it."""
    from langchain_uno.models.loading import is_url

    if url is not None and not is_url(url):
        raise InputError(f"--generate-url {url!r} is no URL: give http://host:port/v1.")
    at = None if folder is None else os.path.abspath(os.path.expanduser(folder))
    if at and not (url and folder and os.path.isdir(at) and os.access(at, os.W_OK)):
        raise InputError(
            f"--generate-adapters {folder!r} is to be a folder that can be written here, which the "
            "server of --generate-url watches (VLLM_LORA_RESOLVER_CACHE_DIR)."
        )
    return {"generate_url": url, "generate_adapters": at}


def _call(sets: Sequence[str], given: dict[str, Any]) -> list[str]:
    """Return the options of a refresh that decide which refresh it is; URLs left out."""
    words = [(f"--{key.replace('_', '-')}", str(v)) for key, v in given.items() if v is not None]
    words += [("--set", one) for one in sets]
    return [word for key, one in words for word in (key, "URL" if "://" in one else one)]


def _checked(
    place: Home, named: _Named, recipe: str | None, sets: Sequence[str], seed: int | None
) -> tuple[Recipe, PromptSet]:
    """Check what is cheap to check, so that a typo costs no minutes; return recipe and prompts."""
    from langchain_uno.graphs.refresh import check_models
    from langchain_uno.logs.journal import require_log
    from langchain_uno.models.loading import is_bundled, is_url, known_model, load_prompt_set

    require_log(place)
    if is_url(named.model):
        raise InputError(
            f"--model {named.model!r} is a server: training needs the weights, so name their "
            "folder or hub name. The server can write the answers meanwhile (--generate-url), and "
            "serve the adapters afterwards."
        )
    check_models(place, known_model(named.model))
    chosen = recipe or ("bundled" if is_bundled(named.model) else "default")
    settings = effective_recipe(place, chosen, sets, seed)
    return settings, load_prompt_set(settings.prompt_set)


def _state(
    place: Home, named: _Named, settings: Recipe, prompts: PromptSet, max_steps: int | None
) -> dict[str, str]:
    """Return digests of all that the result of a refresh depends on."""
    from langchain_uno import __version__
    from langchain_uno.learning.work import FORMAT
    from langchain_uno.records import digest_of

    of_models = [_stamp(one) for one in named]
    of_code = (__version__, FORMAT, prompts.fingerprint)
    key = digest_of(*of_code, settings.model_dump_json(), max_steps, *of_models)
    return {"key": key, "log": _log_mark(place)}


def _load(
    place: Home,
    named: _Named,
    written: dict[str, str | None],
    settings: Recipe,
    prompts: PromptSet,
    max_steps: int | None,
    progress: RefreshProgress,
) -> dict[str, Any]:
    """Load the models; return the parts of a refresh by their names."""
    from langchain_uno.models.loading import load_prompt_set
    from langchain_uno.models.rerankers import CausalReranker

    progress.start("load", None, named.model or "the bundled model")
    engine, embedder, guide = _load_models(named, written, place.work)
    parts: dict[str, Any] = {
        "home": place,
        "engine": engine,
        "embedder": embedder,
        "reranker": CausalReranker(named.reranker) if named.reranker is not None else None,
        "teacher": guide,
        "prompts": prompts,
        # A real chat model is asked in the real set's words, whatever the base model needs.
        "teacher_prompts": prompts if named.teacher is None else load_prompt_set("real"),
        "recipe": settings,
        "progress": progress,
        "max_steps": max_steps,
    }
    progress.finish("load", f"recipe {settings.name}")
    return parts


def _check_server(place: Home, settings: Recipe, engine: Engine, progress: RefreshProgress) -> None:
    """Check that a server which is to write the answers can, before hours are spent."""
    server = getattr(engine, "server", None)
    if server is None:
        return
    from langchain_uno.trainers.common import TrainSettings, save_untrained

    progress.start("server", None, "control questions")
    folder = place.work / ".untrained"
    try:
        save_untrained(engine, TrainSettings.of(settings, "expert"), folder)
        cast(Any, engine).check_server(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    progress.finish("server", f"answers are written by {server.model_name!r} at {server.url}")


def _load_models(
    named: _Named, written: dict[str, str | None], work: Path
) -> tuple[Engine, Embedder, Engine | None]:
    """Load base model, embedder and teacher; workers of a Ray cluster do that too."""
    from langchain_uno.models.loading import load_embedder, load_engine

    server, at = None, written["generate_adapters"]
    if url := written["generate_url"]:
        server = load_engine(url, adapter_dir=at, work=work, max_concurrency=_AT_ONCE)
    engine = load_engine(named.model, server=server)
    embedder = load_embedder(named.embeddings, engine)
    if named.teacher is None:
        return engine, embedder, None
    from langchain_uno.models.teacher import load_teacher

    return engine, embedder, load_teacher(named.teacher)


_AT_ONCE = 64
"""Requests under way at a server, which batches them."""
_LAST = "last.json"
"""In ``work/``: with which settings, models and log the last refresh ended."""


def _log_mark(home: Home) -> str:
    """Return a digest of the log and of people's decisions."""
    from langchain_uno.learning.decisions import read_decisions
    from langchain_uno.logs.figures import log_mark
    from langchain_uno.logs.journal import Journal
    from langchain_uno.records import digest_of

    with Journal(home.journal, readonly=True) as journal:
        return digest_of(log_mark(journal), *(d.id for d in read_decisions(home)))


def _stamp(model: str | None) -> str:
    """Return a text that changes with a model's files, without reading them."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from langchain_uno.models.loading import is_url
    from langchain_uno.records import digest_of

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
    """Return the result of the last refresh if nothing changed since, without loading a model.

    None where anything is new, where other hosts may have recorded something (a Chroma server), or
    where the release of that refresh is gone.
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
    """Return a recipe with the home's overrides on top, and then those of the command.

    Args:
        home: whose ``settings.toml`` is read; None: no home's.
        name: a recipe's name or a TOML file.
        sets: overrides, ``"lora.rank=8"``.
        seed: another seed; None: as it is.

    Raises:
        ConfigError: the recipe or the home's settings are not valid, or there is no such prompt
            set; the message says which.
        InputError: one of ``sets`` is not KEY=VALUE.
    """
    _sound(name)  # its own faults are not the home's
    overrides: dict[str, Any] = {}
    if home is not None:
        overrides = load_settings(home).recipe
        try:
            _sound(name, overrides)
        except ConfigError as error:
            raise ConfigError(f"{str(home.settings)!r}, [recipe]: {error}") from error
    for one in sets:
        overrides = merged(overrides, _assignment(one))
    return _sound(name, overrides if seed is None else {**overrides, "seed": seed})


def _sound(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    from langchain_uno.models.loading import load_prompt_set

    recipe = load_recipe(name, overrides)
    load_prompt_set(recipe.prompt_set)
    return recipe


def _assignment(text: str) -> dict[str, Any]:
    """Read ``lora.rank=8`` as TOML; a value that is no TOML is taken as a string."""
    key, equals, value = text.partition("=")
    for written in (value, json.dumps(value)):
        with suppress(ConfigError):
            if equals:
                return read_toml(f"{key} = {written}".encode())
    raise InputError(f"--set {text!r} is not KEY=VALUE, as in lora.rank=8.")


if __name__ == "__main__":
    from langchain_uno.cli import main

    main("train")
