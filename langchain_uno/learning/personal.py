"""Wishes that a few people have whatever they ask about: theirs, and no cluster's.

What people ask about is told by regions: clusters by query alone, since who wants the same thing
everywhere may make a cluster of it by rules.

Who wants every answer to do the same, in one cluster after another, and is nearly alone with it,
says something about himself (or is planting a rule). Where many people want it everywhere, it is
what the users of this service want. Nothing here depends on how much anybody writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Mention", "personal_wishes"]


@dataclass(frozen=True)
class Mention:
    """One person named one rule in one region of queries."""

    person: str
    rule: str
    region: int
    of_module: bool = False
    """Asked of a module's answer: what else the person wants may have been there already."""


def personal_wishes(
    mentions: Iterable[Mention], *, min_regions: int, max_share: float
) -> set[tuple[str, str]]:
    """Return the (person, rule) of wishes that are personal.

    A rule is one for a person who names it in at least ``min_regions`` regions, unless
    ``max_share`` or more of all people who name any rule name it somewhere. People who only ever
    spoke to modules are not counted among all: they had no need to ask for what those knew.

    Args:
        mentions: repetitions count once; equal wishes must have equal rule texts.
        min_regions: 0: nothing is personal.
        max_share: of people, in [0, 1].
    """
    where: dict[tuple[str, str], set[int]] = defaultdict(set)
    who: dict[str, set[str]] = defaultdict(set)
    everybody: set[str] = set()
    of_base: set[str] = set()
    for one in mentions:
        where[one.person, one.rule].add(one.region)
        who[one.rule].add(one.person)
        everybody.add(one.person)
        if not one.of_module:
            of_base.add(one.person)
    if not min_regions:
        return set()
    people = of_base or everybody
    return {
        (person, rule)
        for (person, rule), regions in where.items()
        if len(regions) >= min_regions and len(who[rule]) < max_share * len(people)
    }
