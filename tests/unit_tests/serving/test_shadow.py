"""A release answers recent requests unseen: what is compared, and that nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langchain_uno.cli.shadow import answer_unseen
from langchain_uno.errors import EmptyLogError, ReleaseError
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.models.embedders import TokenEmbedder
from langchain_uno.models.local import LocalEngine
from langchain_uno.recipe import Recipe
from langchain_uno.records import Interaction
from langchain_uno.releases.publish import make_current
from tests.unit_tests.learning.toy_language import ToyEngine, ToyPrompts
from tests.unit_tests.serving.tiny_release import QUERIES, publish_tiny, user

RECIPE = Recipe(name="test")
UNSEEN = "zzz 123 !!!"


@pytest.fixture
def releases(
    engine: LocalEngine, embedder: TokenEmbedder, tmp_path: Path, adapter_paths: dict[str, Path]
) -> tuple[Home, str, str]:
    """A current release in which the base answers, and a candidate with an expert."""
    home = Home.locate(tmp_path / "home").ensure()
    made = []
    for adapters, route in (({}, "base"), ({"c0": adapter_paths["c1"]}, "expert")):
        routes: Any = {"c0": route}
        made.append(publish_tiny(home, engine, embedder, adapters, routes=routes, answer_tokens=8))
    make_current(home, made[0])
    return home, made[0], made[1]


def ask(home: Home, who: str, text: str, **more: Any) -> None:
    with Journal(home.journal) as journal:
        log = Interaction(messages=user(text), answer="what was said", user_id=who, **more)
        journal.append_interaction(log)


def test_the_judge_compares_what_both_would_answer(
    releases: tuple[Home, str, str], engine: LocalEngine
) -> None:
    home, first, second = releases
    ask(home, "long ago", "another request")
    for n in range(6):
        for text in (QUERIES["c0"], UNSEEN, QUERIES["c0"]):
            ask(home, f"user-{n}", text)
    ask(home, "the app", "Write a title.", tags={"own_call": "title"})
    # This base model writes blanks, which are worst without asking the judge.
    judge: Any = ToyEngine(lambda what, _: "fine 9")
    before = home.traffic.read_bytes()
    prompts: Any = ToyPrompts()
    found = answer_unseen(home, second, engine, judge, prompts, RECIPE, most=12)
    # Everybody's request that the expert answers is won, the unseen one is a tie.
    assert (found["requests"], found["people"], found["win_rate"]) == (12, 6, 0.75)
    assert found["interval"][0] < 0.75 < found["interval"][1]
    assert found["p_value"] == pytest.approx(1 / 64)
    assert (found["release"], found["current"]) == (second, first)
    assert found["reach_a_cluster"] == [6, 6]
    assert all(tokens > 8 for tokens in found["tokens_an_answer"])
    assert home.traffic.read_bytes() == before
    assert engine.adapters() == []


def test_what_cannot_be_compared_is_refused(
    releases: tuple[Home, str, str], engine: LocalEngine
) -> None:
    home, first, second = releases
    words: Any = (engine, engine, ToyPrompts(), RECIPE)
    with pytest.raises(EmptyLogError, match="No request"):
        answer_unseen(home, second, *words)
    ask(home, "ann", UNSEEN)
    with pytest.raises(ReleaseError, match="is current"):
        answer_unseen(home, first, *words)
    weights = next((home.releases / second).rglob("adapter_model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ReleaseError, match="refused"):
        answer_unseen(home, second, *words)
