"""Worlds and requests, drawn from a seed.

The hidden preferences of a family lie between wholly covered by its prior (what a model would
guess) and wholly foreign to it. The same arguments give the same world, byte for byte.
"""

from __future__ import annotations

from random import Random

from langchain_uno.demo.answers import Query
from langchain_uno.demo.language import Family, Language, Part, load_language, of_part
from langchain_uno.demo.worlds import Preference, User, World

BEYOND = frozenset({"count"})
"""Rules that nobody wants, because the bundled model can't follow them: its count of the points is
often wrong, and an expert learns the wrong count with the rule."""
PEOPLE = 60
CHANNELS = {"follow_up": 5.0, "comment": 3.0, "edit": 1.0, "thumb": 1.0, "silent": 5.0}
"""How people react: the weights of ``User.channels``."""


def make_world(seed: int, *, noise: float = 0.34, families: int = 8) -> World:
    """Draw a world. The same arguments give the same world, byte for byte.

    Args:
        seed: of everything.
        noise: share of feedback that says nothing usable, in [0, 1].
        families: how many of the task families take part (at most 8).
    """
    language = load_language()
    rng = Random(f"world-{seed}")
    names = list(language.families)[:families]
    targets = [(0.0, 1 / 3, 2 / 3, 1.0)[i % 4] for i in range(len(names))]
    rng.shuffle(targets)
    preferences = {
        name: _draw_preferences(language, language.families[name], target, rng)
        for name, target in zip(names, targets, strict=True)
    }
    distance = {
        name: _distance(wishes, language.families[name].prior)
        for name, wishes in preferences.items()
    }
    people = [
        User(
            id=f"user-{seed}-{i:03d}",
            mention=rng.choice((1.0, 0.9, 0.75, 0.6, 0.5)),
            channels=dict(CHANNELS),
            held_out=i % 3 == 2,  # for evaluation
        )
        for i in range(PEOPLE)
    ]
    return World(seed=seed, noise=noise, preferences=preferences, distance=distance, users=people)


def _distance(wishes: list[Preference], prior: tuple[str, ...]) -> float:
    """Share of the wishes (over queries) outside the prior."""
    shares = [1.0 if wish.condition is None else 0.4 for wish in wishes]
    foreign = [s * (w.rule not in prior) for s, w in zip(shares, wishes, strict=True)]
    return sum(foreign) / sum(shares)


def _draw_preferences(
    language: Language, family: Family, target: float, rng: Random
) -> list[Preference]:
    """Draw wishes of which about ``target`` lie outside the prior; at most one is a layout.

    In two thirds of the families the last wish holds only under a condition.
    """
    prior = [rule for rule in family.prior if rule not in BEYOND]
    count = 3
    n_foreign = max(round(count * target), count - len(prior))
    covered = rng.sample(prior, count - n_foreign)
    has_layout = any(language.rules[r].place == "layout" for r in covered)
    prior_layout = any(language.rules[r].place == "layout" for r in family.prior)
    known = BEYOND.union(family.prior)
    pool = [rule for rule in language.rules if rule not in known]
    rng.shuffle(pool)
    foreign: list[str] = []
    for rule in pool:
        if len(foreign) == n_foreign:
            break
        if language.rules[rule].place == "layout":
            if has_layout or prior_layout:
                continue
            has_layout = True
        foreign.append(rule)
    chosen = covered + foreign
    rng.shuffle(chosen)
    condition = rng.choice(("urgent", "beginner", "expert", "kind", None, None))
    chosen.sort(key=lambda r: language.rules[r].place == "layout", reverse=True)
    conditions = [*[None] * (count - 1), condition]
    return [Preference(rule=r, condition=c) for r, c in zip(chosen, conditions, strict=True)]


def make_query(
    language: Language, family: Family, rng: Random, *, unseen: bool, part: Part | None = None
) -> Query:
    """Draw a request of a family from the seen or the unseen half of frames, facts and names.

    Requests of the logs and of the tests (``part``) share no frame, no filled-in fact and no name.
    """
    frames = of_part(family.unseen_frames if unseen else family.frames, part)
    templates = family.unseen_facts if unseen else family.facts
    count = rng.choice((2, 2, 3, 3, 4))
    facts = tuple(
        language.fill(t, rng, unseen=unseen, part=part)
        for t in rng.sample(templates, min(count, len(templates)))
    )
    kind, entity = rng.choice(family.kinds), language.name(rng, unseen=unseen, part=part)
    text = rng.choice(frames).format(kind=kind, entity=entity, facts="; ".join(facts))
    attributes: list[str] = []
    for group, share in (("urgency", 0.4), ("audience", 0.8)):
        if rng.random() < share:
            value = rng.choice(sorted(language.feedback["attributes"][group]))
            attributes.append(value)
            words = language.feedback["attributes"][group][value]
            phrase = rng.choice(of_part(words["unseen_phrases" if unseen else "phrases"], part))
            text = f"{phrase} {text}" if rng.random() < 0.5 else f"{text} {phrase}"
    return Query(family.name, kind, entity, facts, tuple(attributes), text)
