"""Neighbours that want the same are one cluster; those that don't, or can't tell, stay apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pytest

from langchain_uno.errors import InputError
from langchain_uno.learning.alike import merge_alike

Said = Collection[str] | None
N = 12
HERE, NEAR, FAR = (0.0, 0.0), (1.0, 0.0), (9.0, 0.0)


def join(
    *parts: tuple[tuple[float, float], Sequence[Said]], people: Sequence[str] | None = None
) -> list[int]:
    """Join clusters, each given by its place and what its logs' users said."""
    centres = np.array([place for place, said in parts for _ in said])
    queries = centres + np.random.default_rng(0).normal(scale=0.02, size=centres.shape)
    labels = np.array([i for i, (_, said) in enumerate(parts) for _ in said])
    wishes = [one for _, said in parts for one in said]
    who = people or [f"user-{i}" for i in range(len(wishes))]
    found = merge_alike(queries, labels, wishes, who)
    starts = np.cumsum([0, *(len(said) for _, said in parts[:-1])])
    for i, start in enumerate(starts):
        assert len(set(found[start : start + len(parts[i][1])])) == 1, "a cluster came apart"
    return [int(found[start]) for start in starts]


def some(rule: str, other: str = "", share: float = 0.75) -> list[Said]:
    """Three quarters name one rule, half of them the other one too."""
    return [
        {r for r, named in ((rule, i < share * N), (other, i % 2 == 0)) if r and named}
        or {other or rule}
        for i in range(N)
    ]


def test_neighbours_that_want_the_same_are_one_and_the_largest_comes_first() -> None:
    one = some("be brief", "add a title")
    a, b, c = join((HERE, one), (NEAR, one), (FAR, some("use bullets", "no jargon")))
    assert (a, b, c) == (0, 0, 1)


def test_neighbours_that_want_different_things_stay_apart() -> None:
    assert len(set(join((HERE, some("be brief")), (NEAR, some("use bullets"))))) == 2
    # One shared wish does not make two kinds of request one.
    pair = some("be brief", "add a title"), some("use bullets", "add a title")
    assert len(set(join((HERE, pair[0]), (NEAR, pair[1])))) == 2


def test_alike_clusters_are_joined_only_with_the_nearest() -> None:
    """What lies between may want something else; far families may want the same by chance."""
    one, other = some("be brief"), some("use bullets")
    close = (1.0, 0.1)
    assert len(set(join((HERE, one), (NEAR, other), (close, other), (FAR, one)))) == 3


def test_where_nothing_is_joined_clusters_keep_their_numbers() -> None:
    wishes = [*some("be brief"), *some("use bullets")]
    queries = np.repeat([HERE, NEAR], N, axis=0)
    for labels in (np.repeat([0, 1], N), np.repeat([1, 0], N)):
        found = merge_alike(queries, labels, wishes, [f"user-{i}" for i in range(2 * N)])
        assert found.tolist() == labels.tolist()


def test_a_chain_of_parts_becomes_one() -> None:
    one = some("be brief", "add a title")
    places = [(float(i), 0.0) for i in range(4)]
    assert set(join(*((place, one) for place in places))) == {0}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([None] * N, some("be brief")),  # silent: nobody knows
        ([None] * (N - 2) + [{"be brief"}] * 2, some("be brief")),  # two people are too few
        ([[]] * N, [[]] * N),  # content with the answers: no wish in common
        ([{f"a{i}"} for i in range(N)], [{f"b{i}"} for i in range(N)]),  # everybody his own
        ([[]] * N, some("be brief")),  # content here, not there
    ],
)
def test_where_nothing_is_wanted_in_common_nothing_is_joined(
    first: list[Said], second: list[Said]
) -> None:
    assert len(set(join((HERE, first), (NEAR, second)))) == 2


def test_a_person_has_one_vote_however_much_he_writes() -> None:
    """Five people want different things; one who floods both clusters does not make them alike."""
    flood: list[Said] = [{"planted"}] * 20
    sides = [{"be brief"}] * 5 + flood, [{"use bullets"}] * 5 + flood
    who = [f"a{i}" for i in range(5)] + ["m"] * 20 + [f"b{i}" for i in range(5)] + ["m"] * 20
    assert len(set(join((HERE, sides[0]), (NEAR, sides[1]), people=who))) == 2


def test_two_of_three_shared_wishes_are_not_all_of_them() -> None:
    """As in a simulated world that once lost a family to its neighbour."""

    def named(**counts: int) -> list[Said]:
        return [{rule for rule, n in counts.items() if (i * 7) % 18 < n} for i in range(18)]

    course = named(apology=13, numbered=6, question=5)
    email = named(apology=13, numbered=10, contact=4, question=1)
    assert len(set(join((HERE, course), (NEAR, email)))) == 2


def test_what_no_request_tells_apart_is_one_whatever_is_wanted() -> None:
    """Rules part logs that are asked alike: spoken from silent, before a change from after it."""
    for said in ([None] * N, some("use bullets")):
        assert join((HERE, some("be brief")), ((0.0, 0.001), said)) == [0, 0]
    # The same words over and over leave no spread to tell anything by.
    labels, wishes = np.repeat([0, 1], N), [*some("be brief"), *some("use bullets")]
    people = [f"user-{i}" for i in range(2 * N)]
    for place, clusters in ((HERE, 1), (NEAR, 2)):
        same = np.array([HERE] * N + [place] * N)
        assert len(set(merge_alike(same, labels, wishes, people))) == clusters


def served(first: Sequence[str | None], second: Sequence[str | None], said: Sequence[Said]) -> int:
    """Join two clusters of which it is known whose module answered; return how many remain."""
    centres = np.repeat([HERE, NEAR], [len(first), len(second)], axis=0)
    queries = centres + np.random.default_rng(0).normal(scale=0.02, size=centres.shape)
    labels = np.repeat([0, 1], [len(first), len(second)])
    people = [f"user-{i}" for i in range(len(labels))]
    return len(set(merge_alike(queries, labels, said, people, [*first, *second]).tolist()))


def test_what_one_module_serves_well_is_one_though_hardly_anybody_speaks() -> None:
    said: list[Said] = [{"be brief"}, None] * 2 + [None] * (2 * N - 4)
    assert served(["c0"] * N, ["c0"] * N, said) == 1
    assert served(["c0"] * N, ["c1"] * N, said) == 2
    assert served(["c0"] * N, [None] * N, said) == 2  # the base's, or nobody is content
    half: list[str | None] = ["c0"] * (N // 2) + [None] * (N // 2)
    assert served(["c0"] * N, half, said) == 2  # half of them is not most of them
    spoken = [*some("be brief"), *[None] * N]
    assert served(half, ["c0"] * N, spoken) == 1  # that will do where enough people speak
    assert served(["c0"] * 2 + [None] * (N - 2), ["c0"] * N, spoken) == 2  # two are too few
    # Where enough people speak, it is for them to say.
    other = [*some("be brief"), *some("use bullets")]
    assert served(["c0"] * N, ["c0"] * N, other) == 2


def test_what_two_modules_serve_well_stays_two() -> None:
    alike = [*some("be brief"), *some("be brief")]
    assert served([None] * N, [None] * N, alike) == 1
    assert served(["c0"] * N, ["c1"] * N, alike) == 2


def test_lengths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        merge_alike(np.zeros((2, 2)), np.zeros(2, dtype=np.int64), [None], ["a", "b"])


def test_no_logs_and_one_cluster_are_fine() -> None:
    assert merge_alike(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), [], []).tolist() == []
    assert join((HERE, some("be brief"))) == [0]
