"""The bundled model learns: an expert's behaviour on held-out requests, and each route whole.

Truth is the world's program, never the judge. Sizes are small, so the bars are far below what
``make demo`` reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.demo.answers import Query, check_answer, render_answer
from langchain_uno.demo.drawing import make_query, make_world
from langchain_uno.demo.evaluate import evaluate
from langchain_uno.demo.language import load_language
from langchain_uno.demo.service import plan_visits, run_service
from langchain_uno.demo.worlds import World
from langchain_uno.graphs.refresh import run_refresh
from langchain_uno.home import Home
from langchain_uno.models.loading import load_embedder, load_engine, load_prompt_set
from langchain_uno.models.protocols import BASE, GenerateRequest, Sampling
from langchain_uno.recipe import Recipe, load_recipe
from langchain_uno.records import Message, PreferencePair
from langchain_uno.releases.load import read_current
from langchain_uno.trainers import expert
from langchain_uno.trainers.common import TrainSettings
from langchain_uno.trainers.expert import train_expert

WANTED = ["bullets", "warning"]


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    one = load_engine(None)
    yield one
    one.close()


def pair(query: Query, i: int, *, swap: bool) -> PreferencePair:
    """A better answer of the kind that users of these requests want, and a plain one."""
    language = load_language()
    better, plain = render_answer(language, query, WANTED), render_answer(language, query, [])
    return PreferencePair(
        run_id=str(i),
        messages=[Message(role="user", content=query.text)],
        chosen=plain if swap else better,
        rejected=better if swap else plain,
    )


@pytest.mark.parametrize("preferences", ["true", pytest.param("shuffled", marks=pytest.mark.slow)])
def test_an_expert_moves_held_out_behaviour_and_only_by_a_real_preference(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preferences: str
) -> None:
    language = load_language()
    rng = Random("expert")
    family = language.families["travel"]
    train = [make_query(language, family, rng, unseen=True) for _ in range(24)]
    test = [make_query(language, family, rng, unseen=True) for _ in range(24)]
    assert not {q.text for q in train} & {q.text for q in test}
    pairs = [pair(q, i, swap=preferences == "shuffled" and i % 2 == 1) for i, q in enumerate(train)]
    # Fewer and larger steps than the recipe's: what is easy to learn takes no 64 of them.
    short = {"epochs": 3, "min_steps": 0, "learning_rate": 1.5e-3}
    settings = TrainSettings.of(load_recipe("bundled"), "expert").model_copy(update=short)
    if preferences == "shuffled":  # imitation has no other side to cancel it: preference alone
        monkeypatch.setattr(expert, "LOSS_WEIGHTS", (1.0, 0.0))
    with engine.exclusive() as (model, tokenizer):
        epochs = train_expert(model, tokenizer, pairs, tmp_path, settings, seed=0)
    engine.load_adapter("expert", epochs[-1])
    try:
        before, facts_before = share_met(engine, test, BASE)
        after, facts_after = share_met(engine, test, "expert")
    finally:
        engine.unload_adapter("expert")
    assert before == 0.0
    if preferences == "true":
        assert after >= 0.9
        assert facts_after >= facts_before - 0.1
    else:
        assert after <= 0.1


def share_met(engine: Any, queries: list[Query], adapter: str | None) -> tuple[float, float]:
    """Share of wanted rules met in greedy answers, and share of answers with all facts right."""
    language = load_language()
    requests = [
        GenerateRequest(
            [Message(role="user", content=q.text)], adapter, sampling=Sampling(max_tokens=240)
        )
        for q in queries
    ]
    checks = [
        check_answer(language, q, g.text)
        for q, g in zip(queries, engine.generate(requests), strict=True)
    ]
    met = float(np.mean([r in c.met for c in checks for r in WANTED]))
    return met, float(np.mean([c.faithful for c in checks]))


@pytest.mark.slow
@pytest.mark.parametrize("route", ["expert", "critic"])
def test_each_route_works_from_feedback_to_better_answers(
    route: str, engine: Any, tmp_path: Path
) -> None:
    world = make_world(3, noise=0.2, families=2)
    home = a_week(world, Home(tmp_path).ensure(), 84)
    # The gap decides the route; its threshold is set so that it must fall on one side.
    recipe: Recipe = load_recipe(
        "bundled", {"gap": {"threshold": 1.01 if route == "expert" else 0.0}}
    )
    result = run_refresh(
        home,
        engine,
        load_embedder(None, engine),
        prompts=load_prompt_set(recipe.prompt_set),
        recipe=recipe,
    )
    release = read_current(home)
    assert release is not None
    assert release.id == result.release
    assert route in {c.route for c in result.clusters}
    if route != "expert":
        assert "expert" not in {c.route for c in result.clusters}

    report = evaluate(world, home, per_family=16)
    assert report["release"] == release.id
    assert route in report["systems"]["uno"]["routes"]
    assert report["differences"]["uno-base"]["score"]["low"] > 20.0
    chat = UNOChatModel(home=str(home.root))
    routes = {row["id"] for row in report["clusters"] if row["route"] == route}
    asked = next(v.query.text for v in plan_visits(world, 30))
    said = chat.invoke(asked)
    assert said.response_metadata["release"] == release.id
    assert (said.response_metadata["cluster"] in routes) == (
        said.response_metadata["route"] == route
    )


def a_week(world: World, home: Home, visits: int) -> Home:
    """Let people ask and react, through the public handler."""
    handler = UNOFeedbackHandler(home=str(home.root))
    try:
        model = UNOChatModel(home=str(home.root), mode="base")
        run_service(world, plan_visits(world, visits), model, handler)
        handler.flush()
    finally:
        handler.close()
    return home
