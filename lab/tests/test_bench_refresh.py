"""The comparison with the authors' flow books every second to what it was spent on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.benchmarks import bench_refresh
from lab.benchmarks.bench_refresh import GAP, Clock, Desk, Figures, Toy, recipe_of
from langchain_uno.recipe import load_recipe


class Lent:
    """An engine that lends its model."""

    @contextmanager
    def exclusive(self) -> Iterator[tuple[str, str]]:
        yield "model", "tokenizer"


def test_the_clock_books_a_training_to_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(1, 100))
    monkeypatch.setattr(bench_refresh, "cpu", lambda: float(next(times)))
    figures = Figures(tmp_path / "ours.json")
    clock, engine = Clock(figures, time.time()), Lent()
    clock.watch(engine)

    clock.start("train", 2, "experts and critics")
    with engine.exclusive():
        clock.start("train", 20, "cluster 1 of 2: expert, training steps")
    clock.start("train", None, "cluster 1 of 2: expert, verifying on 11 queries")
    with engine.exclusive():
        clock.start("train", 20, "cluster 1 of 2: critic, training steps")
    clock.start("train", None, "cluster 1 of 2: critic, verifying on 9 queries")
    clock.start("train", 2, "clusters are done")
    clock.finish("train")

    spent = figures.data["cpu s by stage"]
    assert spent["expert, training"] == spent["critic, training"] == 1.0
    assert spent["expert, verifying"] == spent["critic, verifying"] == 1.0
    assert sum(spent.values()) == 9.0
    assert Figures(tmp_path / "ours.json").data == figures.data


def test_a_stopped_flow_counts_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_refresh, "cpu", lambda: 5.0)
    for _ in range(2):
        clock = Clock(Figures(tmp_path / "paper.json"), time.time() - 7)
        clock.start("distil", None)
    known = Figures(tmp_path / "paper.json").data
    assert known["calls"] == 2
    assert known["wall s"] == pytest.approx(14, abs=1)
    assert known["cpu s by stage"] == {"imports and loading": 10.0}


@pytest.mark.parametrize("case", [Toy(1, 20), Desk(1, 20, "model", "embedder")])
def test_the_authors_recipe_is_the_same_in_both_machineries(case: Toy | Desk) -> None:
    paper, authors = recipe_of(case, "paper"), recipe_of(case, "authors")
    assert authors.gap.threshold > 1
    late = {"gap": authors.gap.model_copy(update={"threshold": GAP})}
    assert authors.model_copy(update=late) == paper
    theirs = load_recipe("paper")
    for part in ("lora", "verify", "cluster", "pairs", "rules"):
        assert getattr(paper, part) == getattr(theirs, part)
    assert recipe_of(case, "ours") != paper
