"""Hold part of a cluster's logs back for verification, before anything is learnt from the rest.

Held-out *users* tell whether a module serves people it never heard of, so whole users go to one
side where there are at least two; otherwise whole queries do. No query text stands on both sides.
"""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_uno.records import Interaction

__all__ = ["Split", "split_logs"]

LEAST_TELLING = 5
"""Four wins of four are the fewest that decide at 95 %; one more, for the one that is lost."""

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Split:
    """Run ids of one cluster's logs, in the order they came; the three are disjoint."""

    train: list[str]
    verify: list[str]
    left_out: list[str]
    """Good for neither side: held-out users' logs whose query text also stands in training."""
    by: Literal["user", "query"]


def split_logs(
    logs: Sequence[Interaction],
    held_out: float,
    seed: int,
    teachers: Collection[str] = frozenset(),
    telling: Collection[str] = frozenset(),
) -> Split:
    """Split one cluster's logs into training and verification.

    Logs of nobody known are grouped by thread, else by query. About ``held_out`` of the logs are
    held back: at least one where there are two groups; none where all logs ask the same thing. What
    somebody wrote beyond twice the usual counts for no share: five people who flood a cluster would
    else fill the training side, and drive all others to the held-out one.

    Args:
        logs: the members of one cluster.
        held_out: share to hold back, in (0, 1).
        seed: of the shuffle; the same logs in any order and the same seed give the same split.
        teachers: run ids that a module which may be kept was trained on; whoever gave them stays
            in training. The held-out side may come out small, or empty.
        telling: run ids, the only logs that can be verified on. Then ``LEAST_TELLING`` of them are
            held back, where that leaves at least as many for training.
    """
    by_user = _divide(logs, held_out, seed, _person, teachers, telling)
    if by_user.verify:
        return Split(by_user.train, by_user.verify, by_user.left_out, "user")
    by_query = _divide(logs, held_out, seed, _text, teachers, telling)
    return Split(by_query.train, by_query.verify, by_query.left_out, "query")


def _divide(
    logs: Sequence[Interaction],
    held_out: float,
    seed: int,
    key: Callable[[Interaction], str],
    teachers: Collection[str],
    telling: Collection[str],
) -> Split:
    groups: dict[str, list[Interaction]] = {}
    for log in logs:
        groups.setdefault(key(log), []).append(log)
    pinned = {key(log) for log in logs if log.run_id in teachers}
    names = sorted(set(groups) - pinned)
    random.Random(seed).shuffle(names)
    # Those with few logs first: ten logs of ten people witness more than ten of one.
    names.sort(key=lambda name: len(groups[name]))
    tells = {name: sum(log.run_id in telling for log in groups[name]) for name in groups}
    wanted = min(LEAST_TELLING, sum(tells.values()) // 2)
    if wanted:  # as many as are needed, then people who tell nothing, so that others teach
        first = [name for name in names if tells[name]][:wanted]
        rest = [name for name in names if name not in first]
        names = first + sorted(rest, key=lambda name: tells[name] > 0)
    usual = 2 * statistics.median(len(group) for group in groups.values()) if groups else 0
    target = max(1, round(held_out * sum(min(len(g), usual) for g in groups.values())))
    taken: set[str] = set()
    count = told = 0
    for name in names:
        size = len(groups[name])
        # One heavy user must not swallow the training side: overshoot by half at most.
        most = max(target * 1.5, 1) if told >= wanted else len(logs) / 2
        if len(taken) + 1 < len(groups) and count + size <= most:
            taken.add(name)
            count += size
            told += tells[name]
        if count >= target and told >= wanted:
            break
    if not taken and names and len(groups) > 1 and 2 * len(groups[names[0]]) <= len(logs):
        taken.add(names[0])
    known = {_text(log) for log in logs if key(log) not in taken}
    train = [log.run_id for log in logs if key(log) not in taken]
    held = [log for log in logs if key(log) in taken]
    verify = [log.run_id for log in held if _text(log) not in known]
    left_out = [log.run_id for log in held if _text(log) in known]
    assert not set(train) & set(verify), "a log is on both sides of a split"
    return Split(train, verify, left_out, "query")


def _person(log: Interaction) -> str:
    if log.user_id is not None:
        return f"user:{log.user_id}"
    return f"thread:{log.thread_id}" if log.thread_id is not None else f"query:{_text(log)}"


def _text(log: Interaction) -> str:
    return _SPACE.sub(" ", log.query).strip().casefold()
