"""Clusters that do not depend on how many logs there are, nor on a setting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from lab.benchmarks.planted import planted
from langchain_uno.errors import InputError
from langchain_uno.learning.cluster import (
    choose_rule_weight,
    cluster_logs,
    default_min_size,
)
from langchain_uno.learning.reach import centroids
from langchain_uno.learning.separation import split_foretold

REAL = Path(__file__).parents[4] / "shared" / "data" / "real_feedback_dialogs.minilm.npz"


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def real() -> dict[str, np.ndarray]:
    if not REAL.is_file():
        pytest.skip("the vectors of the real dialogs are not at hand")
    with np.load(REAL) as data:
        return {name: data[name] for name in data.files}


class TestRealDialogs:
    def test_the_cut_ward_is_scikit_learns_ward(self, real: dict[str, np.ndarray]) -> None:
        joint = unit(np.hstack([unit(real["query"]), unit(real["suggestion"])]))
        ward = AgglomerativeClustering(n_clusters=None, distance_threshold=4.0, linkage="ward")
        labels = cluster_logs(real["query"], real["suggestion"], "ward")
        assert adjusted_rand_score(ward.fit_predict(joint.astype(np.float64)), labels) == 1.0
        assert adjusted_rand_score(real["dataset"], labels) >= 0.9

    def test_the_cut_stable_finds_the_data_sets(self, real: dict[str, np.ndarray]) -> None:
        labels = cluster_logs(real["query"], real["suggestion"])
        assert adjusted_rand_score(real["dataset"], labels) >= 0.95

    @pytest.mark.parametrize("seed", range(6))
    def test_the_cut_stable_on_random_halves(self, real: dict[str, np.ndarray], seed: int) -> None:
        half = np.random.default_rng(seed).permutation(200)[:100]
        labels = cluster_logs(real["query"][half], real["suggestion"][half])
        assert adjusted_rand_score(real["dataset"][half], labels) >= 0.85

    @pytest.mark.parametrize("seed", range(3))
    def test_a_held_out_fifth_is_routed_home(self, real: dict[str, np.ndarray], seed: int) -> None:
        order = np.random.default_rng(seed).permutation(200)
        seen, new = order[:160], order[160:]
        labels = cluster_logs(real["query"][seen], real["suggestion"][seen])
        centres = centroids(real["query"][seen], labels)
        names = np.array(
            [
                max(set(m := real["dataset"][seen][labels == k].tolist()), key=m.count)
                for k in range(len(centres))
            ]
        )
        distance = ((real["query"][new][:, None] - centres[None]) ** 2).sum(axis=2)
        assert (names[distance.argmin(axis=1)] == real["dataset"][new]).mean() >= 0.97


@pytest.mark.parametrize(("n", "k"), [(50, 3), (120, 4), (300, 10), (800, 3), (800, 30)])
def test_the_number_of_clusters_is_found_at_any_size(n: int, k: int) -> None:
    query, rules, truth = planted(n, k, seed=1)
    labels = cluster_logs(query, rules)
    assert abs(labels.max() + 1 - k) <= max(1, 0.1 * k)
    assert adjusted_rand_score(truth, labels) >= 0.9


def test_one_cloud_is_one_cluster() -> None:
    rng = np.random.default_rng(0)
    for n in (60, 400, 1200):
        query = unit(rng.normal(size=(n, 24)) * np.linspace(2, 0.5, 24) + 3)
        assert cluster_logs(query, np.zeros((n, 4))).max() == 0


def test_scale_and_order_do_not_matter() -> None:
    query, rules, truth = planted(240, 6, seed=2)
    labels = cluster_logs(query, rules)
    order = np.random.default_rng(5).permutation(240)
    again = cluster_logs(7.0 * query[order], 0.1 * rules[order])
    assert adjusted_rand_score(labels[order], again) >= 0.98
    assert adjusted_rand_score(truth, labels) >= 0.95


def test_same_input_gives_the_same_labels() -> None:
    query, rules, _ = planted(200, 5, seed=3)
    assert (cluster_logs(query, rules) == cluster_logs(query, rules)).all()


def test_no_cluster_is_below_the_minimum_size() -> None:
    query, rules, _ = planted(300, 12, seed=4)
    for size in (5, 20, 60):
        counts = np.bincount(cluster_logs(query, rules, min_size=size))
        assert counts.min() >= size
        assert (np.diff(counts) <= 0).all()


def test_logs_without_rules_are_no_cluster_of_their_own() -> None:
    query, rules, truth = planted(240, 4, seed=6)
    silent = np.random.default_rng(0).random(240) < 0.4
    rules[silent] = 0
    assert adjusted_rand_score(truth, cluster_logs(query, rules)) >= 0.95
    paper = cluster_logs(query, rules, "ward", threshold=6.0)
    assert adjusted_rand_score(truth, paper) < 0.9


def test_rules_that_say_nothing_about_the_query_are_weighed_down() -> None:
    query, rules, truth = planted(300, 6, seed=7)
    shuffled = rules[np.random.default_rng(1).permutation(300)]
    assert choose_rule_weight(query, shuffled) <= 0.25
    assert adjusted_rand_score(truth, cluster_logs(query, shuffled)) >= 0.95
    equal_halves = cluster_logs(query, shuffled, "ward", threshold=6.0)
    assert adjusted_rand_score(truth, equal_halves) < 0.8


def test_rules_help_where_queries_are_blurred() -> None:
    rng = np.random.default_rng(3)
    query, _, truth = planted(300, 6, seed=8)
    query = unit(query + 0.1 * rng.normal(size=query.shape))
    rules = unit(np.eye(6)[truth] + 0.25 * rng.normal(size=(300, 6)))
    chosen = adjusted_rand_score(truth, cluster_logs(query, rules))
    without = adjusted_rand_score(truth, cluster_logs(query, np.zeros_like(rules)))
    assert choose_rule_weight(query, rules) >= 0.25
    assert chosen >= 0.95 > without + 0.1


def one_cloud(n: int, wishes: int, tell: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Requests of one cloud whose people name ``wishes`` kinds of rules, by a direction of it."""
    rng = np.random.default_rng([n, wishes])
    query = rng.normal(size=(n, 48))
    truth = np.arange(n) % wishes
    query[:, 0] += tell * (2 * (truth % 2) - 1)
    rules = unit(np.eye(48)[truth] + 0.05 * rng.normal(size=(n, 48)))
    rules[rng.random(n) < 0.25] = 0
    return unit(query), rules, truth


@pytest.mark.filterwarnings("error")
def test_clusters_of_one_log_are_asked_for_and_nothing_warns() -> None:
    query, rules, truth = one_cloud(30, 2, tell=3.0)
    assert adjusted_rand_score(truth, cluster_logs(query, rules, min_size=1)) == 1.0


class TestWhatRequestsForetell:
    def test_people_who_want_other_things_are_split(self) -> None:
        query, rules, truth = one_cloud(160, 2, tell=3.0)
        found = split_foretold(query, rules, np.zeros(160, dtype=np.int64), 8)
        assert adjusted_rand_score(truth, found) >= 0.85

    @pytest.mark.parametrize("tell", [0.0, 1.0])
    def test_wishes_that_the_request_does_not_tell_stay_together(self, tell: float) -> None:
        query, rules, _ = one_cloud(160, 2, tell)
        assert not split_foretold(query, rules, np.zeros(160, dtype=np.int64), 8).any()

    def test_requests_of_two_kinds_with_one_wish_stay_together(self) -> None:
        query, rules, _ = one_cloud(160, 2, tell=3.0)
        one = np.broadcast_to(rules[rules.any(axis=1)][0], rules.shape)
        assert not split_foretold(query, one, np.zeros(160, dtype=np.int64), 8).any()

    def test_no_part_is_below_the_minimum_size(self) -> None:
        query, rules, _ = one_cloud(160, 2, tell=3.0)
        for size in (8, 40, 85):
            found = split_foretold(query, rules, np.zeros(160, dtype=np.int64), size)
            assert np.bincount(found).min() >= size
        assert not found.any()

    def test_few_logs_are_not_looked_at(self) -> None:
        for n in (2, 5, 8):
            query, rules, _ = one_cloud(n, 2, tell=3.0)
            assert not split_foretold(query, rules, np.zeros(n, dtype=np.int64), 4).any()

    @pytest.mark.parametrize("noise", [0.0, 1e-6])
    def test_a_request_that_comes_again_foretells_no_other(self, noise: float) -> None:
        rng = np.random.default_rng(3)
        query = np.repeat(unit(rng.normal(size=(40, 48))), 5, axis=0)
        query += noise * rng.normal(size=query.shape)
        rules = np.eye(48)[np.repeat(rng.permutation(40) % 2, 5)]
        assert not split_foretold(query, rules, np.zeros(200, dtype=np.int64), 8).any()

    @pytest.mark.parametrize("rows", [0, 1_000])
    def test_one_log_that_comes_again_and_again_hides_no_split(self, rows: int) -> None:
        query, rules, truth = one_cloud(160, 2, tell=3.0)
        first = np.flatnonzero(rules.any(axis=1))[0]
        again = np.concatenate([np.arange(160), np.full(rows, first)])
        found = split_foretold(query[again], rules[again], np.zeros(len(again), dtype=np.int64), 8)
        assert adjusted_rand_score(truth, found[:160]) >= 0.85

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
    @pytest.mark.filterwarnings("error")
    def test_no_kind_or_scale_of_numbers_matters(self, kind: type, scale: float) -> None:
        query, rules, truth = one_cloud(160, 2, tell=3.0)
        q, r = ((half * scale).astype(kind) for half in (query, rules))
        q.flags.writeable = r.flags.writeable = False
        found = split_foretold(q, r, np.zeros(160, dtype=np.int64), 8)
        assert adjusted_rand_score(truth, found) >= 0.85

    def test_a_cluster_larger_than_its_sample(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("langchain_uno.learning.separation.COMPARED", 60)
        monkeypatch.setattr("langchain_uno.learning.separation.BLOCK", 100)
        query, rules, truth = one_cloud(1_000, 2, tell=3.0)
        found = split_foretold(query, rules, np.zeros(1_000, dtype=np.int64), 8)
        assert adjusted_rand_score(truth, found) >= 0.8


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 800 logs are clustered by a sample of as many."""
    for name, value in (("MAX_EXACT", 800), ("SAMPLE", 800), ("ODD", 400), ("WEIGHT_SAMPLE", 400)):
        monkeypatch.setattr(f"langchain_uno.learning.cluster.{name}", value)


@pytest.mark.usefixtures("small_sample")
def test_more_logs_than_are_clustered_at_once() -> None:
    query, rules, truth = planted(3000, 8, seed=1)
    labels = cluster_logs(query, rules)
    assert adjusted_rand_score(truth, labels) >= 0.98
    assert labels.max() + 1 == 8


@pytest.mark.usefixtures("small_sample")
def test_kinds_too_rare_for_the_sample_are_found() -> None:
    """Forty logs of 8,000 have four in the sample, which is no cluster there."""
    query, rules, truth = planted(8000, 12, seed=3, rare=4)
    labels = cluster_logs(query, rules)
    assert adjusted_rand_score(truth, labels) >= 0.98
    found = 0
    for kind in range(8, 12):
        largest = labels == np.bincount(labels[truth == kind]).argmax()
        found += (truth[largest] == kind).mean() >= 0.9 and largest[truth == kind].mean() >= 0.9
    assert found >= 3


@pytest.mark.usefixtures("small_sample")
def test_the_papers_threshold_means_the_same_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    query, rules, _ = planted(2400, 4, seed=4)
    rules[:] = query
    sampled = cluster_logs(query, rules, "ward", threshold=16.0)
    monkeypatch.setattr("langchain_uno.learning.cluster.MAX_EXACT", 3000)
    exact = cluster_logs(query, rules, "ward", threshold=16.0)
    assert 2 <= exact.max() + 1 <= 8
    assert adjusted_rand_score(exact, sampled) >= 0.9


def test_repeated_and_constant_vectors() -> None:
    same = np.ones((30, 5))
    assert (cluster_logs(same, np.zeros((30, 3))) == 0).all()
    three = np.repeat(np.eye(3), 20, axis=0)
    assert cluster_logs(three, np.zeros((60, 3))).max() == 2


@pytest.mark.parametrize("cut", ["stable", "ward"])
def test_hardly_any_logs(cut: str) -> None:
    for n in (0, 1, 2, 3):
        labels = cluster_logs(np.eye(4)[:n], np.zeros((n, 2)), cut)
        assert labels.shape == (n,) and labels.dtype == np.int64


def test_default_min_size_grows_slowly() -> None:
    assert [default_min_size(n) for n in (10, 50, 80, 1000, 10_000)] == [4, 5, 8, 8, 25]


def test_centroids_are_means_of_queries() -> None:
    query = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    assert centroids(query, [1, 1, 0]).tolist() == [[3.0, 3.0], [0.5, 0.5]]


def test_values_that_are_not_finite_are_named() -> None:
    with pytest.raises(InputError, match="not finite"):
        cluster_logs(np.full((3, 2), np.nan), np.zeros((3, 2)))
