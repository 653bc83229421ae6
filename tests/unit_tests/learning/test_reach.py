"""Which queries are like the logs: a threshold from the logs themselves, and who is near whom."""

from __future__ import annotations

import numpy as np
import pytest

from langchain_uno.errors import InputError
from langchain_uno.learning.reach import assign, centroids, unseen_threshold
from langchain_uno.serving.router import Router


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def clouds(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    centres = unit(np.random.default_rng(99).normal(size=(5, 64)))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 5
    return unit(centres[labels] + 0.1 * rng.normal(size=(n, 64))), labels


@pytest.mark.parametrize("n", [40, 100, 1000])
def test_new_queries_of_known_kinds_pass_and_foreign_ones_do_not(n: int) -> None:
    seen, labels = clouds(n, 0)
    centres, limit = centroids(seen, labels), unseen_threshold(seen, labels, 0.995)
    new, truth = clouds(2000, 1)
    found = assign(new, centres, limit)
    assert np.mean(found == -1) <= 0.02
    assert np.mean(found == truth) > 0.98
    foreign = unit(np.random.default_rng(5).normal(size=(500, 64)))
    assert np.mean(assign(foreign, centres, limit) == -1) >= 0.98


def test_assignment_is_what_the_router_would_do() -> None:
    seen, labels = clouds(60, 2)
    centres, limit = centroids(seen, labels), unseen_threshold(seen, labels, 0.9)
    new = np.concatenate([clouds(1500, 3)[0], unit(np.random.default_rng(1).normal(size=(50, 64)))])
    choices = Router(centres, list("01234"), limit).route_batch(new)
    routed = [-1 if c.cluster_id is None else int(c.cluster_id) for c in choices]
    assert assign(new, centres, limit).tolist() == routed
    assert -1 in routed and len(set(routed)) == 6


def test_clusters_of_one_log_refuse_nobody() -> None:
    limit = unseen_threshold(np.eye(3), [0, 1, 2])
    assert assign([[-1.0, 0.0, 0.0]], np.eye(3), limit).tolist() != [-1]


@pytest.mark.parametrize(
    ("vectors", "labels", "quantile", "says"),
    [
        (np.eye(2), [0], 0.9, "do not fit"),
        (np.eye(2), [0, 5], 0.9, "0..k-1"),
        (np.eye(2), [0, 1], 0.0, "quantile is 0.0"),
        (np.zeros((0, 2)), [], 0.9, "at least one vector"),
    ],
)
def test_unusable_input_is_named(
    vectors: np.ndarray, labels: list[int], quantile: float, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        unseen_threshold(vectors, labels, quantile)
