"""How far clusters reach: other wordings arrive, other topics do not."""

from __future__ import annotations

import numpy as np
import pytest

from langchain_uno.learning.reach import Reach, everyday_requests, find_reach
from langchain_uno.models.protocols import FloatArray
from langchain_uno.serving.router import Router

D = 64


def topics(count: int, each: int, *, seed: int, wording: int = 0) -> tuple[FloatArray, FloatArray]:
    """Topics that differ a little in their own directions, and much in how people word things.

    ``wording`` moves all requests of a draw far into one direction that says nothing of the topic.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), each)
    x = 0.05 * rng.normal(size=(len(labels), D))
    x[:, 40:48] += 1.6 * rng.normal(size=(len(labels), 8))  # names, length, urgency
    x[np.arange(len(labels)), labels] += 1.0
    x[:, 50 + wording] += 0.5
    return x.astype(np.float32), labels


def routed(reach: Reach, x: FloatArray) -> list[int]:
    router = Router(
        reach.centroids, [str(i) for i in range(len(reach.centroids))], reach.limit,
        space=reach.space,
    )  # fmt: skip
    return [-1 if c.cluster_id is None else int(c.cluster_id) for c in router.route_batch(x)]


def test_other_wordings_arrive_and_other_topics_do_not() -> None:
    reach = find_reach(*topics(8, 40, seed=1), 0.995)
    new, truth = topics(8, 30, seed=2, wording=3)
    found = np.array(routed(reach, new))
    assert np.mean(found == truth) >= 0.9
    assert np.mean((found != truth) & (found >= 0)) <= 0.02
    foreign = topics(12, 30, seed=3)[0][8 * 30 :]
    assert np.mean(np.array(routed(reach, foreign)) == -1) >= 0.95
    plain = np.array(routed(Reach(reach.centroids), new))
    assert np.mean(plain == truth) < 0.8, "the task is too easy to show anything"


def test_topics_mixed_up_by_the_clustering_still_reach_their_clusters() -> None:
    x, labels = topics(6, 40, seed=10)
    rng = np.random.default_rng(11)
    mixed = np.where(rng.random(len(labels)) < 1 / 7, rng.integers(0, 6, len(labels)), labels)
    two = np.where((labels == 0) & (np.arange(len(labels)) % 2 == 0), 6, labels)
    new, truth = topics(6, 30, seed=12)
    assert np.mean(np.array(routed(find_reach(x, mixed, 0.995), new)) == truth) >= 0.8
    split = np.array(routed(find_reach(x, two, 0.995), new))
    assert np.mean((split == truth) | ((split == 6) & (truth == 0))) >= 0.8


def test_coverage_is_of_wordings_that_were_left_out() -> None:
    x, labels = topics(5, 40, seed=4)
    assert find_reach(x, labels, 0.995).coverage == pytest.approx(1.0, abs=0.05)
    strewn = np.random.default_rng(5).normal(size=(200, D))  # clusters that mean nothing
    coverage = find_reach(strewn, labels, 0.995).coverage
    assert coverage is not None and coverage < 0.4


def test_with_few_clusters_everyday_requests_stand_for_other_topics() -> None:
    x, labels = topics(2, 40, seed=6)
    everyday = topics(30, 2, seed=7)[0][6:]
    for count in (1, 2):
        mine = labels < count
        reach = find_reach(x[mine], labels[mine], 0.995, everyday)
        new, truth = topics(2, 30, seed=8, wording=2)
        found = np.array(routed(reach, new[truth < count]))
        assert np.mean(found == truth[truth < count]) >= 0.9
        assert np.mean(np.array(routed(reach, topics(38, 20, seed=9)[0][640:])) == -1) >= 0.9


def test_none_is_unseen_where_none_shall_be() -> None:
    x, labels = topics(3, 10, seed=1)
    reach = find_reach(x, labels, 0.0)
    assert (reach.space, reach.limit) == (None, None)
    assert -1 not in routed(reach, 100 * topics(9, 4, seed=2)[0])


def test_logs_that_do_not_differ_and_clusters_of_one_log() -> None:
    same = np.repeat(np.eye(4, 8), 5, axis=0)
    reach = find_reach(same, np.repeat(np.arange(4), 5), 0.995)
    assert routed(reach, np.eye(4, 8).astype(np.float32)) == [0, 1, 2, 3]
    assert find_reach(np.eye(3, 8), [0, 1, 2], 0.995).coverage is None


@pytest.mark.filterwarnings("error")
def test_one_log_makes_a_router_without_a_warning() -> None:
    x, others = np.eye(1, D, dtype=np.float32), np.eye(D, dtype=np.float32)[1:]
    reach = find_reach(x, [0], 0.995, others)
    assert routed(reach, np.concatenate([x, -x])) == [0, -1]


def test_one_request_over_and_over_in_every_cluster_makes_a_router() -> None:
    same = np.ones((30, 8), dtype=np.float32)
    reach = find_reach(same, np.repeat(np.arange(3), 10), 0.995)
    assert reach.limit is not None and reach.limit > 0
    assert len(routed(reach, same[:1])) == 1  # a router can be made of it


def test_everyday_requests_differ() -> None:
    texts = everyday_requests()
    assert len(texts) == len(set(texts)) >= 40 and all(t.strip() for t in texts)
