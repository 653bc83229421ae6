"""Two clusters of the release that today's clustering joins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from langchain_uno.home import Home
from langchain_uno.learning import cluster as cluster_room
from langchain_uno.learning import evolve
from langchain_uno.models.protocols import Engine, FloatArray
from langchain_uno.records import Cluster
from tests.unit_tests.graphs.refresh_parts import PASSING, clusters_of, make_home, more, refresh
from tests.unit_tests.graphs.test_refresh_evolve import current, travel, weights


@pytest.fixture(autouse=True)
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clustering find one cluster."""

    def one(queries: FloatArray, *_: Any, **__: Any) -> NDArray[np.int64]:
        return np.zeros(len(queries), dtype=np.int64)

    monkeypatch.setattr(cluster_room, "cluster_logs", one)


def test_modules_that_were_taught_different_rules_both_go_on(home: Home, engine: Engine) -> None:
    first = current(home)
    assert sorted(c.rules for c in first.manifest.clusters) == [["dance"], ["sing"]]
    make_home(home.root, more(3))
    result = refresh(home, engine, PASSING)
    second = current(home)
    assert weights(second) == weights(first)
    assert {c.id: c.rules for c in second.manifest.clusters} == {
        c.id: c.rules for c in first.manifest.clusters
    }
    # What is new lies with the requests that ask alike.
    assert {c.id for c in clusters_of(home, result) if {"run-100", "run-102"} & {*c.run_ids}} == {
        travel(first)
    }


@pytest.mark.parametrize("taught", [["sing"], ["sing", "hum"], []])
def test_a_module_that_was_taught_nothing_else_keeps_nothing_apart(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch, taught: list[str]
) -> None:
    sings = travel(current(home))
    real = evolve.taught_rules

    def told(cluster: Cluster) -> list[str]:
        return real(cluster) if cluster.id == sings else taught

    monkeypatch.setattr(evolve, "taught_rules", told)
    make_home(home.root, more(3))
    assert len(clusters_of(home, refresh(home, engine, PASSING))) == 1


def test_a_refresh_that_goes_on_from_nothing_keeps_nothing_apart(
    home: Home, engine: Engine
) -> None:
    make_home(home.root, more(3))
    result = refresh(home, engine, PASSING.model_copy(update={"keep": False}))
    assert len(clusters_of(home, result)) == 1


@pytest.mark.parametrize("first", [{"a", "b"}, set[str]()])
def test_modules_that_were_taught_apart_stay_apart_beside_one_that_fits_both(
    first: set[str],
) -> None:
    """In whichever order a release names them."""
    queries = np.eye(6, dtype=np.float32)
    modules = [(first, [4, 5]), ({"a"}, [0, 1]), ({"b"}, [2, 3])]
    labels = [evolve.part(np.zeros(6, int), queries, m) for m in (modules, modules[::-1])]
    assert all(len({*one[:2]}) == len({*one[2:4]}) == 1 != len({*one[:4]}) for one in labels)
    assert [max(one) for one in labels] == [1, 1]


def test_answers_that_the_people_of_two_modules_spoke_about_keep_nothing_apart() -> None:
    queries = np.eye(6, dtype=np.float32)
    both = [0, 1, 2, 3]
    one = evolve.part(np.zeros(6, int), queries, [({"a"}, both), ({"b"}, both)])
    assert one.tolist() == [0] * 6  # not a cluster without logs
    two = evolve.part(np.zeros(6, int), queries, [({"a"}, [*both, 4]), ({"b"}, [*both, 5])])
    assert (two[4], two[5]) == (0, 1)
