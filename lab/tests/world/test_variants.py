"""Variants of the world: each is what it says, and a world file like any other."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.service import held_out_queries, plan_visits
from langchain_uno.demo.variants import VARIANTS
from langchain_uno.demo.worlds import World, load_world, save_world


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_a_world_that_can_be_kept(variant: str, tmp_path: Path) -> None:
    world = make_world(7, variant=variant)
    save_world(world, tmp_path / "w.json")
    assert load_world(tmp_path / "w.json") == world
    assert world.variant == variant
    language = world.language()
    for user, query in held_out_queries(world, 20):
        wishes = world.wishes(language, query, user)
        layouts = [r for r in wishes if language.rules[r].place == "layout"]
        assert len(layouts) <= 1
        assert len(wishes) == len(set(wishes)) <= VARIANTS[variant].wishes
        # Only where people are content with the plain answer do they wish for nothing.
        assert wishes or not world.preferences[query.family]


def wished(world: World, **at: Any) -> dict[str, set[str]]:
    """Per family, what is wished by anybody, for any of many requests."""
    language, out = world.language(), defaultdict(set)
    for user, query in held_out_queries(world, 60):
        out[query.family] |= set(world.wishes(language, query, user, **at))
    return out


def test_variants_are_what_they_say() -> None:
    standard = make_world(7)
    conditional = make_world(7, variant="conditional")
    assert all(
        [p.condition is None for p in w] == [True, False, False]
        for w in conditional.preferences.values()
    )
    edits = make_world(7, variant="edits")
    assert edits.preferences == standard.preferences
    assert not {"comment", "follow_up"} & {v.channel for v in plan_visits(edits, 200)}

    contrary = make_world(7, variant="contrary")
    rival = [w for w in contrary.preferences.values() if {p.group for p in w} >= {0, 1}]
    assert len(rival) == 4
    groups = Counter(u.group for u in contrary.users if u.held_out)
    assert min(groups.values()) >= 6

    drift = make_world(7, variant="drift")
    before, after = wished(drift, when=0.2), wished(drift)
    assert sum(before[f] != after[f] for f in drift.families) == 4
    times = [v.when for v in plan_visits(drift, 100)]
    assert times == sorted(times) and times[0] == 0.0 and times[-1] < 1.0

    long = make_world(7, variant="long")
    assert all(len(w) == 6 for w in long.preferences.values())
    quiet = make_world(7, variant="quiet")
    assert sum(not w for w in quiet.preferences.values()) == 2

    twins = make_world(7, variant="twins")
    for name in list(twins.families)[::2]:
        one, other = twins.families[name], twins.families[f"{name}-2"]
        assert one["unseen_frames"] == other["unseen_frames"]
        assert not set(one["kinds"]) & set(other["kinds"])
        assert set(one["special_kinds"]) <= set(one["kinds"])
