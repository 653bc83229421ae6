"""The test behind a canary: right values, its bound, and how few people can't decide."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from langchain_uno.releases.sequential import LEVEL, block_for, compare

Votes = list[tuple[bool, float]]


def votes(blocks: int, block: tuple[int, int], candidate: float, current: float) -> Votes:
    """Blocks in which every person of a side gives the same score."""
    one = [(True, candidate)] * block[0] + [(False, current)] * block[1]
    return one * blocks


@pytest.mark.parametrize(
    ("share", "block"),
    [(0.05, (1, 19)), (0.1, (1, 9)), (0.2, (1, 4)), (0.3, (1, 2)), (0.5, (1, 1))],
)
def test_a_block_has_the_ratio_of_the_shares(share: float, block: tuple[int, int]) -> None:
    assert block_for(share) == block


def test_the_evidence_of_a_few_votes_by_hand() -> None:
    # First block: both means are estimated at one half, so that nothing is staked.
    assert compare(votes(1, (1, 1), 1.0, 0.0), (1, 1)).better == 1.0
    # Second: a = 2/3, b = 1/3, c = 1/2; likelihoods 2/3 / 1/2 for the one up and for the one down.
    assert compare(votes(2, (1, 1), 1.0, 0.0), (1, 1)).better == pytest.approx((4 / 3) ** 2)
    # Third: a = 3/4, b = 1/4, c = 1/2.
    third = compare(votes(3, (1, 1), 1.0, 0.0), (1, 1))
    assert third.better == pytest.approx((4 / 3) ** 2 * 1.5**2)
    assert third.worse == 1.0
    # One candidate to four: a = 2/3, b = 1/6, c = (2/3 + 4/6) / 5 = 4/15.
    found = compare(votes(2, (1, 4), 1.0, 0.0), (1, 4)).better
    assert found == pytest.approx((2 / 3) / (4 / 15) * ((5 / 6) / (11 / 15)) ** 4)
    # A vote of one half is the mean of one up and one down.
    half = compare([*votes(1, (1, 1), 1.0, 0.0), (True, 0.5), (False, 0.0)], (1, 1)).better
    down = compare([*votes(1, (1, 1), 1.0, 0.0), (True, 0.0), (False, 0.0)], (1, 1)).better
    up = compare([*votes(1, (1, 1), 1.0, 0.0), (True, 1.0), (False, 0.0)], (1, 1)).better
    assert half == pytest.approx((up + down) / 2)


def test_both_directions_are_the_same_test() -> None:
    rng = random.Random(5)
    given = [(rng.random() < 0.4, float(rng.random() < 0.6)) for _ in range(60)]
    turned = [(side, 1.0 - score) for side, score in given]
    one, other = compare(given, (1, 2)), compare(turned, (1, 2))
    assert one.better == pytest.approx(other.worse)
    assert one.worse == pytest.approx(other.better)


@pytest.mark.parametrize("block", [(1, 1), (1, 4)])
@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.9, 0.9), (0.2, 0.2), (0.4, 0.6), (0.0, 0.3)])
def test_no_block_is_expected_to_gain_where_the_candidate_is_not_better(
    block: tuple[int, int], p: float, q: float
) -> None:
    """The proof's step, by all outcomes of two blocks: the second one's stake follows the first."""
    size = sum(block)
    mean = 0.0
    for first in itertools.product((0.0, 1.0), repeat=size):
        for second in itertools.product((0.0, 1.0), repeat=size):
            chance, given = 1.0, []
            for scores in (first, second):
                for n, score in enumerate(scores):
                    of_candidate = n < block[0]
                    up = p if of_candidate else q
                    chance *= up if score else 1.0 - up
                    given.append((of_candidate, score))
            mean += chance * compare(given, block).better
    assert mean <= 1.0 + 1e-9
    if p == q == 0.5:
        assert mean > 0.9, "it stakes something"


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.35, 0.5])
def test_two_people_of_a_side_never_decide(share: float) -> None:
    block = block_for(share)
    for candidate, current in ((1.0, 0.0), (0.0, 1.0)):
        few = compare(votes(2, block, candidate, current), block)
        assert few.decided is None
        assert max(few.better, few.worse) < 1 / LEVEL
        many = compare(votes(30, block, candidate, current), block)
        assert many.decided == ("better" if candidate > current else "worse")
        assert many.votes > 2 * sum(block)


def test_it_stops_at_the_first_decision() -> None:
    given = [*votes(20, (1, 1), 1.0, 0.0), *votes(200, (1, 1), 0.0, 1.0)]
    found = compare(given, (1, 1))
    assert (found.decided, found.needed) == ("better", None)
    assert found.votes < 40


def test_what_is_missing_is_told() -> None:
    found = compare(votes(3, (1, 1), 1.0, 0.0), (1, 1))
    assert found.needed == math.ceil(6 * (math.log(20) / math.log(4)) - 6)
    assert compare([], (1, 1)).needed is None
    assert compare([(True, 1.0)] * 50, (1, 1)).better == 1.0, "a side without votes has no say"


def test_wrong_decisions_stay_within_the_level() -> None:
    rng = random.Random(11)
    wrong = {"better": 0, "worse": 0}
    for _ in range(400):
        given = [(rng.random() < 0.3, float(rng.random() < 0.7)) for _ in range(200)]
        if (found := compare(given, block_for(0.3)).decided) is not None:
            wrong[found] += 1
    assert max(wrong.values()) <= 400 * LEVEL
