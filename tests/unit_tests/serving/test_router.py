"""Nearest centroid, refusal beyond the threshold, and a threshold from the logs themselves."""

from __future__ import annotations

import time

import numpy as np
import pytest

from langchain_uno.errors import InputError
from langchain_uno.releases.space import Space
from langchain_uno.serving.router import RouteChoice, Router


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_in_a_space_angles_from_its_centre_decide() -> None:
    # The second direction is damped away, the third is halved.
    damped = np.array([[0, 0], [1, 0], [0, np.sqrt(0.5)]], np.float32)
    router = Router(
        [[2.0, 1.0, 0.0], [1.0, 1.0, 4.0]], ["a", "b"], 0.5,
        space=Space(np.array([1.0, 1.0, 0.0], np.float32), damped),
    )  # fmt: skip
    choice = router.route([4.0, 99.0, 2.0])  # seen as (3, 0, 1)
    cosine = 3 / 10**0.5
    assert choice.cluster_id == "a" and choice.distance == pytest.approx(1 - cosine, abs=1e-6)
    assert choice.top_k[1] == ("b", pytest.approx(1 - 1 / 10**0.5, abs=1e-6))
    assert router.route([-4.0, 0.0, -1.0]).cluster_id is None
    assert router.route([1.0, 7.0, 0.0]).cluster_id is None, "the centre is like no cluster"
    assert router.route_batch([[4.0, 99.0, 2.0]]) == [choice]


def test_the_nearest_centroid_answers() -> None:
    router = Router([[0.0, 0.0], [3.0, 0.0], [0.0, 5.0]], ["a", "b", "c"])
    choice = router.route([2.0, 0.0])
    assert choice == RouteChoice("b", 1.0, [("b", 1.0), ("a", 2.0), ("c", pytest.approx(29**0.5))])


def test_beyond_the_threshold_nobody_answers_but_neighbours_are_named() -> None:
    router = Router([[0.0, 0.0], [3.0, 0.0]], ["a", "b"], threshold=1.0)
    assert router.route([1.0, 0.0]).cluster_id == "a"
    far = router.route([-1.5, 0.0])
    assert far.cluster_id is None and far.distance == 1.5
    assert [name for name, _ in far.top_k] == ["a", "b"]


def test_batches_agree_with_single_vectors_and_with_brute_force() -> None:
    rng = np.random.default_rng(0)
    centres, queries = unit(rng.normal(size=(700, 48))), unit(rng.normal(size=(600, 48)))
    router = Router(centres, [f"c{i}" for i in range(700)], threshold=1.1)
    batch = router.route_batch(queries)
    assert [router.route(q) for q in queries[:50]] == batch[:50]
    distance = np.linalg.norm(
        queries[:, None].astype(np.float32) - centres[None].astype(np.float32), axis=2
    )
    best = np.argsort(distance, axis=1, kind="stable")[:, :3]
    assert [[n for n, _ in c.top_k] for c in batch] == [[f"c{i}" for i in row] for row in best]
    assert np.allclose([c.distance for c in batch], distance.min(axis=1), atol=1e-6)


def test_a_query_on_its_centroid_is_at_distance_zero() -> None:
    centres = 100 + np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    choice = Router(centres, [str(i) for i in range(50)], threshold=1e-6).route(centres[7])
    assert choice.cluster_id == "7" and choice.distance == 0.0


def test_the_router_keeps_its_own_copy() -> None:
    centres = np.eye(2, dtype=np.float32)
    router = Router(centres, ["a", "b"])
    centres[:] = 9
    assert router.route([1.0, 0.0]).distance == 0.0


def test_no_clusters_at_all() -> None:
    router = Router(np.zeros((0, 4)), [])
    assert router.route(np.ones(4)) == RouteChoice(None, float("inf"), [])
    assert router.route_batch(np.ones((2, 4))) == [router.route(np.ones(4))] * 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Router(np.eye(2), ["a", "b"], threshold=float("nan")), "nan"),
        (lambda: Router(np.eye(2), ["a", "b"]).route(np.ones(3)), "3 numbers"),
        (lambda: Router(np.eye(2), ["a", "b"]).route([np.inf, 0.0]), "finite"),
    ],
)
def test_unusable_input_is_named(make: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()  # type: ignore[operator]


def test_ten_thousand_clusters_take_about_a_millisecond() -> None:
    rng = np.random.default_rng(0)
    router = Router(unit(rng.normal(size=(10_000, 384))), [str(i) for i in range(10_000)], 1.3)
    queries = unit(rng.normal(size=(200, 384))).astype(np.float32)
    took = []
    for query in queries:
        start = time.thread_time()
        router.route(query)
        took.append(time.thread_time() - start)
    # The thread's own time, with room for a slow or busy machine: 0.6 ms where it was measured.
    assert np.median(took) <= 0.005
