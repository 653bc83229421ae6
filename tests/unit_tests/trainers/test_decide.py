"""Outcomes, intervals and the choice of an epoch: figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from langchain_uno.recipe import VerifySettings
from langchain_uno.trainers import decide

SETTINGS = VerifySettings()
BASE = "the cat sat on the mat and looked at the dog"


@pytest.mark.parametrize(
    ("answer", "base", "score", "base_score", "expected"),
    [
        (BASE + " today", BASE, 8.0, 5.0, 1.0),
        (BASE + " today", BASE, 5.0, 8.0, 0.0),
        (BASE + " today", BASE, 5.0, 5.0, 0.5),
        (BASE + " ", BASE, 9.0, 5.0, 0.5),  # the same answer, whatever the judge says
        (BASE + " today", BASE, None, 5.0, None),
        (BASE + " today", BASE, 5.0, None, None),
        ("the", BASE, 10.0, 1.0, 0.0),  # shorter than a tenth
        ("", BASE, 10.0, 10.0, 0.0),
        ("something else entirely, with other words", BASE, 10.0, 1.0, 0.0),  # content lost
        ("something else entirely, with other words", BASE, 5.0, 5.0, 0.0),  # loses its tie
        ("any answer", "", 5.0, 1.0, 1.0),  # no content to lose
    ],
)
def test_outcome(
    answer: str, base: str, score: float | None, base_score: float | None, expected: float | None
) -> None:
    assert decide.outcome(answer, base, score, base_score, "en", SETTINGS) == expected


def test_bleu_splits_chinese_into_characters() -> None:
    base, answer = "会议改到星期三下午三点", "会议改到星期三下午四点。"
    assert decide.bleu4(answer, base, "zh") > 0.5
    assert decide.bleu4(answer, base, "en") < 0.05
    assert decide.bleu4(base, base, "zh") == pytest.approx(1.0)
    assert decide.bleu4(BASE, BASE, "en") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rate", "n", "expected"),
    [
        (0.5, 10, (0.2366, 0.7634)),
        (1.0, 10, (0.7225, 1.0)),
        (0.0, 10, (0.0, 0.2775)),
        (1.0, 3, (0.4385, 1.0)),
        (1.0, 4, (0.5101, 1.0)),
        (0.3, 0, (0.0, 1.0)),
    ],
)
def test_wilson(rate: float, n: int, expected: tuple[float, float]) -> None:
    assert decide.wilson(rate, n, 0.95) == pytest.approx(expected, abs=1e-4)


def test_queries_of_one_user_count_less() -> None:
    outcomes = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert decide.effective_n(outcomes, list("abcdef")) == 6
    assert decide.effective_n(outcomes, list("aaabbb")) == pytest.approx(2.0)  # one vote a user
    assert decide.effective_n([1.0, 0.0] * 3, list("aabbcc")) == 6  # users don't differ
    assert decide.effective_n([1.0] * 6, ["a"] * 6) == 1
    assert decide.effective_n([1.0, None, 1.0], list("abc")) == 2
    assert decide.effective_n([], []) == 0


@pytest.mark.parametrize(
    ("n", "at_most", "expected"),
    [
        (8, None, [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, 3, [4, 5, 7]),
        (9, 3, [4, 6, 8]),
        (3, 3, [0, 1, 2]),
        (36, 3, [18, 26, 35]),
        (5, 1, [4]),
        (1, 3, [0]),
    ],
)
def test_epochs_tried_lie_in_the_later_half(
    n: int, at_most: int | None, expected: list[int]
) -> None:
    assert decide.spread_epochs(n, at_most) == expected


def test_the_best_epoch_wins_and_scores_break_ties() -> None:
    outcomes: list[list[decide.Outcome]] = [[1.0, 0.0, 0.0], [1.0, 1.0, 0.5], [1.0, 1.0, 0.5]]
    scores: list[list[float | None]] = [[9.0] * 3, [7.0, 7.0, 8.0], [7.0, 7.0, 7.0]]
    choice = decide.choose_epoch(outcomes, scores, list("abc"), 0.95)
    assert choice.epoch == 1
    assert choice.point == pytest.approx(2.5 / 3)
    assert choice.n == 3


def test_choosing_among_noise_flatters_the_point_but_not_the_cross_fit() -> None:
    rng = np.random.default_rng(0)
    points, fitted = [], []
    for _ in range(300):
        coins = rng.integers(0, 2, size=(8, 10)).astype(float).tolist()
        choice = decide.choose_epoch(coins, coins, list(range(10)), 0.95)
        points.append(choice.point)
        fitted.append(choice.rate)
    assert np.mean(points) > 0.68  # the best of 8 coins looks good
    assert np.mean(fitted) == pytest.approx(0.5, abs=0.04)


def test_false_ships_of_a_worthless_module_stay_rare() -> None:
    rng = np.random.default_rng(1)
    by_point = by_interval = 0
    for _ in range(400):
        coins = rng.integers(0, 2, size=(3, 10)).astype(float).tolist()
        choice = decide.choose_epoch(coins, coins, list(range(10)), 0.95)
        by_point += choice.point >= SETTINGS.win_rate
        by_interval += choice.point >= SETTINGS.win_rate and choice.interval[0] > 0.5
    assert by_point / 400 > 0.5  # the paper's rule on ten queries
    assert by_interval / 400 < 0.05


def test_no_user_selects_for_himself() -> None:
    users = ["a", "a", "b", "b"]
    outcomes: list[list[decide.Outcome]] = [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    scores: list[list[float | None]] = [[5.0] * 4, [5.0] * 4]
    assert decide.cross_fitted(outcomes, scores, users) == [0.0, 0.0, 0.0, 0.0]


def test_an_answer_that_ran_on_lost_its_comparison() -> None:
    base, good = "About the lamp: it is broken.", "1. About the lamp: it is broken. Call us."
    ran_on = good + " it was was was" * 20
    settings = VerifySettings(max_length_ratio=3.0)
    assert decide.outcome(good, base, 9.0, 5.0, "en", settings) == 1.0
    assert decide.outcome(ran_on, base, 9.0, 5.0, "en", settings) == 0.0
    assert decide.lost_content(ran_on, base, "en", settings)
    assert decide.outcome(ran_on, base, 9.0, 5.0, "en", VerifySettings()) == 1.0, "the paper's rule"
