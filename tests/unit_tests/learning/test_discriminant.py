"""Directions that tell clusters apart: found where they are hidden, left alone where not."""

from __future__ import annotations

import numpy as np
import pytest

from langchain_uno.learning.reach import assign, centroids, discriminant, unseen_threshold
from langchain_uno.models.protocols import FloatArray
from langchain_uno.serving.router import Router


def hidden(n: int, *, seed: int, clusters: int = 4, d: int = 24) -> tuple[FloatArray, FloatArray]:
    """Clusters that differ a little in a few directions, and much in others, all alike."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % clusters
    x = rng.normal(size=(n, d)) * np.where(np.arange(d) < 8, 0.3, 3.0)
    x[:, :clusters] += 1.5 * np.eye(clusters)[labels]
    return x.astype(np.float32), labels


def right(
    x: FloatArray, y: FloatArray, train: tuple[FloatArray, FloatArray], mapped: bool
) -> float:
    centres = centroids(*train)
    found = assign(x, centres, np.inf, discriminant(*train) if mapped else None)
    return float(np.mean(found == y))


def test_what_is_hidden_is_found() -> None:
    train, test = hidden(160, seed=1), hidden(400, seed=2)
    plain, mapped = (right(*test, train, m) for m in (False, True))
    assert plain < 0.7
    assert mapped > 0.95


def test_what_is_plain_stays() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(80) % 4
    x = rng.normal(size=(80, 16)) * 0.2 + np.eye(16)[labels]
    new = rng.normal(size=(200, 16)) * 0.2 + np.eye(16)[np.arange(200) % 4]
    assert right(new, np.arange(200) % 4, (x, labels), True) > 0.97


def test_too_little_to_tell() -> None:
    x, labels = hidden(31, seed=1)
    assert discriminant(x, labels) is None  # seven logs a cluster
    assert discriminant(x, np.zeros(31, dtype=int)) is None
    assert discriminant(np.zeros((0, 4)), []) is None
    same = np.repeat(np.eye(4), 10, axis=0)
    assert discriminant(same, np.repeat(np.arange(4), 10)) is None


def test_router_and_assignment_agree_with_a_projection() -> None:
    x, labels = hidden(160, seed=4)
    centres, projection = centroids(x, labels), discriminant(x, labels)
    assert projection is not None and projection.shape == (24, 3)
    limit = unseen_threshold(x, labels, 0.9)
    rng = np.random.default_rng(5)
    new = np.concatenate([hidden(200, seed=6)[0], rng.normal(size=(50, 24)) * 4]).astype(np.float32)
    router = Router(centres, list("0123"), limit, projection=projection)
    choices = router.route_batch(new)
    routed = [-1 if c.cluster_id is None else int(c.cluster_id) for c in choices]
    assert routed == assign(new, centres, limit, projection).tolist()
    assert {-1, 0, 1, 2, 3} == set(routed)
    one = router.route(new[0])
    assert one == choices[0]
    assert one.top_k[0][0] == one.cluster_id
    exact = np.linalg.norm(centres[int(one.top_k[0][0])] - new[0])
    assert one.distance == pytest.approx(float(exact), rel=1e-5)
