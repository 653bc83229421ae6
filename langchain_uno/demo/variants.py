"""What real logs have and the standard world lacks, each as a named variant of it.

A variant is settled before systems are compared on it, and the seeds of a report are drawn after:
a world is not tuned until the right system wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from langchain_uno.demo.language import Language
from langchain_uno.demo.worlds import Preference

__all__ = ["VARIANTS", "Variant"]

Wishes = list[Preference]
_MIXED = {"follow_up": 5.0, "comment": 3.0, "edit": 1.0, "thumb": 1.0, "silent": 5.0}


def _as_they_are(wishes: Wishes, nth: int, language: Language, rng: Random) -> Wishes:
    return wishes


def _same(content: dict[str, Any]) -> dict[str, Any]:
    return content


@dataclass(frozen=True)
class Variant:
    """How a world differs from the standard one, and why anybody should care."""

    about: str
    why: str
    """The reason, with its source."""
    wishes: int = 3
    """Wishes a family."""
    channels: dict[str, float] = field(default_factory=lambda: dict(_MIXED))
    """Weights of the ways in which people react (``User.channels``)."""
    preferences: Callable[[Wishes, int, Language, Random], Wishes] = _as_they_are
    """Changes what the users of the n-th family want."""
    content: Callable[[dict[str, Any]], dict[str, Any]] = _same
    """Changes the families."""


def _conditional(wishes: Wishes, nth: int, language: Language, rng: Random) -> Wishes:
    """All but the first hold only under a condition of their own."""
    conditions = rng.sample(("urgent", "beginner", "expert", "kind"), len(wishes) - 1)
    changed = [
        w.model_copy(update={"condition": c}) for w, c in zip(wishes[1:], conditions, strict=True)
    ]
    return [wishes[0].model_copy(update={"condition": None}), *changed]


def _contrary(wishes: Wishes, nth: int, language: Language, rng: Random) -> Wishes:
    """In every second family two groups of people want two layouts, which exclude each other.

    Drawn wishes have their layout, if any, first; the others are wanted by all.
    """
    if nth % 2:
        return wishes
    layouts = rng.sample([r.id for r in language.rules.values() if r.place == "layout"], 2)
    return [*(Preference(rule=r, group=g) for g, r in enumerate(layouts)), *wishes[1:]]


def _drifting(wishes: Wishes, nth: int, language: Language, rng: Random) -> Wishes:
    """In every second family one wish gives way to another in the middle of the week."""
    if nth % 2:
        return wishes
    taken = {w.rule for w in wishes}
    free = [r.id for r in language.rules.values() if r.place != "layout" and r.id not in taken]
    old, *kept = wishes
    return [
        old.model_copy(update={"until": 0.5}),
        Preference(rule=rng.choice(free), since=0.5),
        *kept,
    ]


def _content_users(wishes: Wishes, nth: int, language: Language, rng: Random) -> Wishes:
    """In every fourth family people want the answer as it is."""
    return [] if nth % 4 == 1 else wishes


def _twins(content: dict[str, Any]) -> dict[str, Any]:
    """Half of the families, each cut in two that differ in the kinds of thing they are asked of."""
    families = {}
    names = list(content["families"])
    for name in names[: max(1, len(names) // 2)]:
        family = content["families"][name]
        half = len(family["kinds"]) // 2
        for twin, kinds in ((name, family["kinds"][:half]), (f"{name}-2", family["kinds"][half:])):
            special = [k for k in family["special_kinds"] if k in kinds] or kinds[:1]
            families[twin] = {**family, "name": twin, "kinds": kinds, "special_kinds": special}
    return {**content, "families": families}


VARIANTS = {
    "standard": Variant(
        about="Three wishes a family, two thirds of the families with one that has a condition.",
        why="The middle of the road, on which the others are built.",
    ),
    "conditional": Variant(
        about="Two of three wishes hold only if the request is urgent, for a beginner, for an "
        "expert, or about certain things.",
        why="What people want depends on what they are doing: PRELUDE/CIPHER learns preferences by "
        "context for that reason (Gao et al. 2024, arXiv 2404.15269).",
        preferences=_conditional,
    ),
    "edits": Variant(
        about="Nobody puts a wish into words: people edit the answer, press a thumb, or say "
        "nothing.",
        why="In writing assistants edits are the feedback that comes by itself "
        "(Gao et al. 2024, arXiv 2404.15269).",
        channels={"edit": 6.0, "thumb": 2.0, "silent": 6.0},
    ),
    "contrary": Variant(
        about="In half of the families two groups of people (60 and 40 %) want layouts that "
        "exclude each other.",
        why="People disagree, and a single reward hides it (Kirk et al. 2024, PRISM, "
        "arXiv 2404.16019). No system here is told who asks, so all can serve one group at best.",
        preferences=_contrary,
    ),
    "drift": Variant(
        about="In half of the families one wish gives way to another in the middle of the week; "
        "tested is what holds at its end.",
        why="Concepts drift, and what was learnt from old data then harms (Gama et al. 2014, "
        "A Survey on Concept Drift Adaptation, doi 10.1145/2523813).",
        preferences=_drifting,
    ),
    "long": Variant(
        about="Six wishes a family.",
        why="Models keep fewer of the instructions the more there are (Jiang et al. 2024, "
        "FollowBench, arXiv 2310.20410). The bundled model was trained on three.",
        wishes=6,
    ),
    "quiet": Variant(
        about="In a quarter of the families people want the answer as the base gives it, and never "
        "complain; an answer there scores 100 if it obeys no rule at all, else 0.",
        why="Logs hold complaints, not contentment: who learns from them alone changes what nobody "
        "asked to change.",
        preferences=_content_users,
    ),
    "twins": Variant(
        about="Four families, each cut in two that differ in one word of the request (the kind of "
        "thing) and in what people want.",
        why="Intents of real services lie close together (Casanueva et al. 2020, BANKING77, "
        "arXiv 2003.04807); clusters by query alone must mix them.",
        content=_twins,
    ),
}
"""Name -> variant."""
