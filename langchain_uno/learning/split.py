"""Hold part of a cluster's logs back for verification, before anything is learnt from the rest.

Held-out *people* show whether a module serves people that did not teach it, so whole voices go to
one side where enough of them are left; else whole queries do. No query text is on both sides.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from langchain_uno.records import Interaction

DECIDING = 8
"""Held-out people that can decide on a module: with two kinds tried seven wins of eight pass."""

FEWEST = 6
"""The fewest held-out people that can decide where two kinds are tried: all of them have to win."""


@dataclass(frozen=True)
class Split:
    """Ids of one cluster's logs, in the order they came; nothing is on both sides.

    On neither side are held-out voices' logs whose query text is also in training.
    """

    train: list[str]
    verify: list[str]


def split_logs(
    logs: Sequence[Interaction],
    voices: Mapping[str, str],
    held_out: float,
    seed: int,
    *,
    teachers: Collection[str] = frozenset(),
    deciding: int = DECIDING,
) -> Split:
    """Split one cluster's logs into training and verification.

    About ``held_out`` of the logs are held back, and ``deciding`` voices where these are at most a
    third of all, or ``FEWEST`` where these are at most half. At least one voice is held back where
    there are two; no log where all ask the same thing. These voices are the ones with the fewest
    logs: ten logs of ten people say more than ten of one. What is missing to the share is drawn by
    chance. At least half of the voices stay in training, which would else be left to the few who
    write most. Voices that ask the same are held back together where they are few enough.

    Args:
        logs: the members of one cluster.
        voices: whose vote each log is, by id.
        held_out: share to hold back, in (0, 1).
        seed: of the shuffle; the same logs in any order and the same seed give the same split.
        teachers: ids that a module which may be kept was trained on; whoever gave them stays in
            training. The held-out side may come out small, or empty.
        deciding: voices that are worth holding back beyond the share.
    """
    split = _divide(logs, held_out, seed, lambda g: voices[g.run_id], teachers, deciding)
    held = len({voices[one] for one in split.verify})
    lost = len(logs) - len(split.train) - len(split.verify)
    if held and (held >= min(deciding, FEWEST) or not lost):
        return split
    other = _divide(logs, held_out, seed, query_key, teachers, deciding)
    return split if held and held >= len({voices[one] for one in other.verify}) else other


def people_for(held: int, share: float) -> int:
    """Return about how many people it takes that so many are held out, at this share of logs."""
    most = 2 if held <= FEWEST else 3 if held <= DECIDING else math.inf
    return math.ceil(held * max(2, min(most, 1 / share)))


def query_key(log: Interaction) -> str:
    """Return what two logs have in common that ask the same: case and spaces do not matter."""
    return " ".join(log.query.split()).casefold()


def _divide(
    logs: Sequence[Interaction],
    held_out: float,
    seed: int,
    key: Callable[[Interaction], str],
    teachers: Collection[str],
    deciding: int,
) -> Split:
    groups: dict[str, list[Interaction]] = {}
    for log in sorted(logs, key=lambda g: g.run_id):
        groups.setdefault(key(log), []).append(log)
    pinned = {key(log) for log in logs if log.run_id in teachers}
    names = sorted(set(groups) - pinned)
    random.Random(seed).shuffle(names)
    # A group -> all that ask the same as it, also through others.
    together = {name: {name} for name in groups}
    first: dict[str, str] = {}
    for log in logs:
        one, other = together[first.setdefault(query_key(log), key(log))], together[key(log)]
        if one is not other:
            small, large = sorted((one, other), key=len)
            large |= small
            together |= dict.fromkeys(small, large)
    names.sort(key=lambda name: len(together[name]))
    wanted = max(1, round(held_out * len(logs)))
    people = min(deciding, max(len(groups) // 3, min(FEWEST, len(groups) // 2)))
    light = sorted(names, key=lambda name: len(groups[name]))[:people]
    names = [*light, *(name for name in names if name not in set(light))]
    taken: set[str] = set()
    count = 0
    lots = {id(together[name]): together[name] for name in names}
    for lot in [*lots.values(), *({name} for name in names)]:
        more = sum(len(groups[one]) for one in lot)
        if count >= wanted and len(taken) >= people:
            break
        # Half of the logs stay in training, and half of the groups.
        half = 2 * (len(taken) + len(lot)) <= len(groups) and 2 * (count + more) <= len(logs)
        if half and not lot & pinned and not lot & taken:
            taken |= lot
            count += more
    known = {query_key(log) for log in logs if key(log) not in taken}
    train = [log.run_id for log in logs if key(log) not in taken]
    held = [log for log in logs if key(log) in taken]
    return Split(train, [log.run_id for log in held if query_key(log) not in known])
