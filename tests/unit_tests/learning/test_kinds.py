"""Two kinds of request in one cluster: found where words tell them, and nowhere else."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from langchain_uno.learning.aggregate import ClusterRules, aggregate_rules
from langchain_uno.learning.conditions import Condition, Vocabulary
from langchain_uno.learning.kinds import find_kinds, more_telling
from langchain_uno.records import Rule, RuleSet

GOODS, TRIPS = ("kettle", "lamp", "phone"), ("train", "bus", "flight")
FRAMES = ("please help me with my {}", "the {} was not what we ordered", "refund the {} today")
WANTED = {GOODS: ("add a warning", "name the source"), TRIPS: ("use bullets", "say thanks")}
BOTH = "be brief"


def week(n: int, seed: int = 0, *, mention: float = 0.75) -> list[tuple[str, set[str]]]:
    """Requests of both kinds, and what their users name of their kind's wishes and the common."""
    rng = Random(seed)
    logs = []
    for i in range(n):
        kind = (GOODS, TRIPS)[i % 2]
        query = rng.choice(FRAMES).format(rng.choice(kind))
        wishes = (*WANTED[kind], BOTH)
        named = {w for w in wishes if rng.random() < mention} or {rng.choice(wishes)}
        logs.append((query, named))
    return logs


def as_columns(logs: list[tuple[str, set[str]]]) -> tuple[list[str], NDArray[np.bool_]]:
    rules = sorted({rule for _, named in logs for rule in named})
    return rules, np.array([[rule in named for rule in rules] for _, named in logs])


def test_kinds_are_found_with_their_words_and_rules() -> None:
    logs = week(48)
    rules, mentions = as_columns(logs)
    kinds = find_kinds(Vocabulary([query for query, _ in logs]), mentions)
    found = {frozenset(kind.words): {rules[j] for j in kind.rules} for kind in kinds}
    assert found == {frozenset(words): set(wanted) for words, wanted in WANTED.items()}
    assert all(kind.p_value <= 0.03 for kind in kinds)
    asked = ["where is my lamp", "the bus was late", "hello"]
    held = {frozenset(kind.words): kind.holds(asked).tolist() for kind in kinds}
    assert held == {
        frozenset(GOODS): [True, False, False],
        frozenset(TRIPS): [False, True, False],
    }


def test_two_groups_of_people_are_not_two_kinds_of_request() -> None:
    """Who wants what has nothing to do with what is asked for: no words tell, but by chance."""
    found = 0
    for seed in range(12):
        logs = week(48, seed)
        queries = [query for query, _ in logs]
        Random(f"shuffled-{seed}").shuffle(queries)
        found += bool(find_kinds(Vocabulary(queries), as_columns(logs)[1]))
    assert found <= 2  # three or more of 12 at 3 %: in 5 of 1,000 such sets of seeds


def test_one_rule_under_a_condition_is_no_kind() -> None:
    """Kinds have each a rule that the other has not; else it is a condition of one rule."""
    rng = Random(1)
    logs = []
    for i in range(40):
        query = rng.choice(FRAMES).format(rng.choice((GOODS, TRIPS)[i % 2]))
        logs.append((query, {BOTH, "say thanks"} if i % 2 else {BOTH}))
    _, mentions = as_columns(logs)
    assert find_kinds(Vocabulary([query for query, _ in logs]), mentions) == []


@pytest.mark.parametrize("n", [1, 3, 9])
def test_few_logs_have_no_kinds(n: int) -> None:
    logs = week(n)
    mentions = as_columns(logs)[1].reshape(n, -1)
    assert find_kinds(Vocabulary([query for query, _ in logs]), mentions) == []


def test_logs_that_all_say_the_same_have_no_kinds() -> None:
    queries = [query for query, _ in week(30)]
    assert find_kinds(Vocabulary(queries), np.ones((30, 4), dtype=np.bool_)) == []


def test_a_kind_without_words_of_its_own_binds_nothing() -> None:
    """One kind is of three things, the other of hundreds: only the first has words that tell."""
    rng = Random(3)
    logs = week(48)
    for i in range(1, 48, 2):
        logs[i] = (rng.choice(FRAMES).format("abcdefgh"[i % 8] * (3 + i)), logs[i][1])
    mentions = as_columns(logs)[1]
    kinds = find_kinds(Vocabulary([query for query, _ in logs]), mentions)
    assert all(kind.words for kind in kinds)
    assert [set(kind.words) for kind in kinds] == [set(GOODS)]


def test_a_rule_of_a_kind_takes_all_words_of_the_kind_unless_others_tell_more() -> None:
    logs = week(48)
    queries = [query for query, _ in logs]
    rules, mentions = as_columns(logs)
    kinds = find_kinds(Vocabulary(queries), mentions)
    [trips] = [kind for kind in kinds if set(kind.words) == set(TRIPS)]
    thanks = mentions[:, rules.index("say thanks")]

    def found(words: tuple[str, ...]) -> Condition:
        return Condition(words=words, inside=1.0, outside=0.0, p_value=0.01)

    for condition in (None, found(("bus",)), found(("lamp",))):
        assert more_telling(trips, condition, queries, thanks).words == trips.words
    urgent = [q + " urgently" if named else q for q, named in zip(queries, thanks, strict=True)]
    assert more_telling(trips, found(("urgently",)), urgent, thanks).words == ("urgently",)


def aggregate(
    logs: list[tuple[str, set[str]]], times: list[float] | None = None, *, kinds: bool = True
) -> ClusterRules:
    sets = [
        RuleSet(run_id=str(i), with_feedback=[Rule(text=t, source="feedback") for t in named])
        for i, (_, named) in enumerate(logs)
    ]
    queries = [query for query, _ in logs]
    return aggregate_rules(sets, queries, min_support=0.25, times=times, kinds=kinds)


def wanted(rules: ClusterRules, query: str) -> set[str]:
    return {rule.text for rule in rules.wanted_for(query)}


def test_requests_of_a_kind_get_its_wishes_and_the_common_ones() -> None:
    rules = aggregate(week(48))
    for kind, own in WANTED.items():
        for thing in kind:
            assert wanted(rules, f"what about the {thing}") == {*own, BOTH}
    idle = rules.idle_for("my bus is late", [BOTH])
    assert set(idle) == set(WANTED[GOODS])
    single = aggregate(week(48), kinds=False)
    met = [wanted(single, f"my {thing}") == {*WANTED[TRIPS], BOTH} for thing in TRIPS]
    assert not all(met), "the test tests nothing"


def test_a_season_of_one_kind_is_no_change_of_wishes() -> None:
    """First goods are asked about, then trips: nobody wants anything else than before."""
    logs = sorted(week(60), key=lambda log: not any(word in log[0] for word in GOODS))
    mixed = [*logs[:24], *logs[30:36], *logs[24:30], *logs[36:]]
    rules = aggregate(mixed, [3600.0 * i for i in range(len(mixed))])
    assert rules.gone == ()
    assert wanted(rules, "my lamp is broken") == {*WANTED[GOODS], BOTH}
