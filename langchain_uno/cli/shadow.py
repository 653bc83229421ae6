"""``langchain-uno releases shadow``: a release answers recent requests unseen, and is judged.

The release and what is current answer the same requests of the journal through the graph that
serves. The verifier's judge scores both answers by the rules of the clusters that they reached, and
its test decides (``trainers/verifier.py``, ``trainers/deciding.py``). Nothing is written but one
``traffic.json`` a side, in a temporary folder.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_uno.cli.console import (
    EmbeddingsOption,
    JsonOption,
    ModelOption,
    ReleaseArgument,
    TeacherOption,
    at_home,
    print_json,
    say,
)
from langchain_uno.errors import EmptyLogError, ReleaseError
from langchain_uno.home import Home
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal, require_log
from langchain_uno.models.protocols import known_as
from langchain_uno.records import Interaction, voices_of
from langchain_uno.releases.load import load_release, read_manifest
from langchain_uno.releases.traffic import Share, Traffic, read_traffic, write_traffic

if TYPE_CHECKING:
    from langchain_uno.models.protocols import Engine
    from langchain_uno.models.roles import PromptSet
    from langchain_uno.recipe import Recipe

_TOGETHER = 8
"""Requests under way at a time."""


@at_home("Stopped; a shadow writes nothing, so nothing is half-done.")
def shadow(
    place: Home,
    release: ReleaseArgument,
    model: ModelOption = None,
    embeddings: EmbeddingsOption = None,
    teacher: TeacherOption = None,
    requests: Annotated[int, typer.Option(min=1, help="The latest requests, at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Let a release answer recent requests, shown to nobody, and compare it with the current one.

    A judge compares, and not the users: try in a canary what it finds better.

        langchain-uno releases shadow r20260308-120000-77ab02 --requests 100 --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, 4 no such model, 5 the release is another
    model's, 6 no request was captured, 7 the journal can't be read, 9 the release is refused, 10 a
    model failed, 130 stopped (nothing is half-done).
    """
    require_log(place)
    from langchain_uno.models.loading import is_bundled, load_prompt_set, shared_engine
    from langchain_uno.models.teacher import load_teacher
    from langchain_uno.train import effective_recipe

    recipe = effective_recipe(place, "bundled" if is_bundled(model) else "default")
    engine = shared_engine(model)
    judge = load_teacher(teacher) if teacher else engine
    prompts = load_prompt_set("real" if teacher else recipe.prompt_set)
    found = answer_unseen(
        place, release, engine, judge, prompts, recipe, embeddings=embeddings, most=requests
    )
    if as_json:
        print_json(found)
        return
    low, high = found["interval"]
    say(
        f"By the judge {release} wins {found['win_rate']:.2f} ({low:.2f}-{high:.2f}) against "
        f"{found['current'] or 'the base model'}: {found['requests']} requests of "
        f"{found['people']} people."
    )
    for name in ("reach_a_cluster", "tokens_an_answer"):
        ours, theirs = found[name]
        say(f"{name.replace('_', ' ')}: {ours:g} and {theirs:g}.")


def answer_unseen(
    home: Home,
    release: str,
    engine: Engine,
    judge: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    *,
    embeddings: Any = None,
    most: int = 100,
) -> dict[str, Any]:
    """Answer the latest requests by a release and by what is current; return how they compare.

    Args:
        home: the namespace.
        release: the candidate.
        engine: answers.
        judge: judges; the engine itself, or a teacher.
        prompts: word the judge's prompt.
        recipe: ``verify``, ``min_kept``, token limits, seed.
        embeddings: what routes; None: the model's own.
        most: how many requests.

    Raises:
        EmptyLogError: no request was captured.
        ReleaseError: the release is refused, or is current already.
        ModelMismatchError: it is another model's or embedder's.
        EngineError: a model can't answer.
    """
    from langchain_uno.models.judge import JudgeItem, judge_averaged
    from langchain_uno.trainers.deciding import decide
    from langchain_uno.trainers.verifier import HeldOut, outcome_of

    current = (read_traffic(home) or Traffic()).current or Share(release=None)
    if current.release == release:
        raise ReleaseError(f"Release {release!r} is current: there is nothing to compare it with.")
    checked = load_release(home, release, base_fingerprint=known_as(engine))
    candidate = Share(release=release, manifest_sha256=checked.manifest_sha256)
    logs = _latest(home, most)
    sides = [_answers(home, one, engine, embeddings, logs) for one in (candidate, current)]
    before = read_manifest(home, current.release).clusters if current.release else []
    rules = [{c.id: c.rules for c in part} for part in (checked.manifest.clusters, before)]
    voices = voices_of(logs)
    items = []
    for n, log in enumerate(logs):
        known = [
            r for side, of in zip(sides, rules, strict=True) for r in of.get(side[n][1] or "", [])
        ]
        standard = list(dict.fromkeys(known))
        items.append(HeldOut(log.run_id, log.messages, standard, log.language, voices[log.run_id]))
    asked = [
        JudgeItem(item.messages, item.rules, done[0], item.language)
        for side in sides
        for item, done in zip(items, side, strict=True)
    ]
    scores = judge_averaged(asked, judge, prompts, recipe, seed=recipe.seed)
    size, verify = len(items), recipe.verify
    outcomes = [
        outcome_of(item, sides[0][n][0], sides[1][n][0], scores[n], scores[size + n], recipe)
        for n, item in enumerate(items)
    ]
    voters = [item.voice for item in items]
    report = decide([outcomes], voters, level=verify.level, win_rate=verify.win_rate)
    return {
        "release": release,
        "current": current.release,
        "requests": report.n,
        "people": report.people,
        "win_rate": report.win_rate,
        "interval": list(report.interval),
        "p_value": report.p_value,
        "reach_a_cluster": [sum(c is not None for _, c, _ in side) for side in sides],
        "tokens_an_answer": [sum(tokens for *_, tokens in side) / size for side in sides],
    }


def _latest(home: Home, most: int) -> list[Interaction]:
    """Return the latest requests that users made, each once."""
    found: dict[tuple[str | None, str], Interaction] = {}
    with Journal(home.journal, readonly=True) as journal:
        joined = join(journal)
        for log in read(journal, joined, joined.order[::-1]):
            if log.query and "own_call" not in log.tags:
                found.setdefault((log.user_id, log.query), log)
            if len(found) == most:
                break
    if not found:
        raise EmptyLogError(f"No request of a user lies in the log of {str(home.path)!r}.")
    return list(found.values())


def _answers(
    home: Home, share: Share, engine: Engine, embeddings: Any, logs: list[Interaction]
) -> list[tuple[str, str | None, int]]:
    """Let one release, or the base, answer everything: texts, clusters, tokens spent."""
    from langchain_uno.graphs.respond import RespondContext, build_respond_graph
    from langchain_uno.serving.shared import serve, stop_serving

    with TemporaryDirectory() as folder:
        place = Home.locate(folder)
        place.releases.symlink_to(home.releases, target_is_directory=True)
        shares = (share.model_copy(update={"share": 1.0}),) if share.release else ()
        write_traffic(place, Traffic(shares=shares))
        served = serve(build_respond_graph, home=place.root, engine=engine, embedder=embeddings)
        try:
            given = [{"messages": log.messages} for log in logs]
            context = RespondContext(stream=False)
            done = served.graph.batch(given, {"max_concurrency": _TOGETHER}, context=context)
            if refusal := served.serving.refusal:
                raise ReleaseError(refusal)
        finally:
            stop_serving(place.root)
    return [(one["answer"], one["cluster"], sum(one["usage"].values())) for one in done]
