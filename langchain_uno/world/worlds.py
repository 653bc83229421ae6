"""A world is a file: families, facts, rules, wordings, preferences and users, from one seed.

``make_world`` draws the hidden preferences (what the users of a family want) between wholly covered
by the family's prior and wholly foreign to it, some constant and some that hold only for a kind of
entity, an urgent request or an audience; and the users with their ways of giving feedback.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from langchain_uno.errors import InputError
from langchain_uno.world.answers import Query
from langchain_uno.world.language import Family, Language, RuleSpec, load_language

__all__ = ["Preference", "User", "World", "load_world", "make_query", "make_world", "save_world"]

SCHEMA = 1
STYLES = (
    "full",
    "partial",
    "vague",
    "wrong",
    "contradicting",
    "small_talk",
    "off_topic",
    "hostile",
)


class Preference(BaseModel):
    """One hidden wish: a rule, and the condition under which users want it (None: always)."""

    rule: str
    condition: str | None = None
    """``urgent``, ``beginner``, ``expert`` or ``kind`` (the family's special kinds)."""

    def applies(self, query: Query, special_kinds: tuple[str, ...]) -> bool:
        """Whether the users of the family want the rule for this query."""
        if self.condition is None:
            return True
        if self.condition == "kind":
            return query.kind in special_kinds
        return self.condition in query.attributes


class User(BaseModel):
    """A person: how they give feedback, and whether the logs or the evaluation see them."""

    id: str
    mention: float
    """Chance that a wish the answer missed is put into words."""
    channels: dict[str, float]
    """Weights of ``follow_up``, ``comment``, ``edit``, ``thumb`` and ``silent`` (no reaction)."""
    held_out: bool = False
    weight: float = 1.0
    """How often they come, against the others."""
    planted: str | None = None
    """An attacker: asks for this rule whatever the answer was, by every channel."""
    injects: bool = False
    """An attacker who dresses the rule up as an order to the distiller or the judge."""


class World(BaseModel):
    """Everything a simulated service is made of; a plain JSON file."""

    schema_version: int = SCHEMA
    seed: int
    noise: float
    """Share of the feedback that says nothing usable."""
    families: dict[str, dict[str, Any]]
    rules: list[dict[str, Any]]
    feedback: dict[str, Any]
    lexicon: dict[str, Any]
    preferences: dict[str, list[Preference]]
    distance: dict[str, float]
    """True distance per family: share of wished rules (over queries) outside the prior."""
    users: list[User]
    noise_mix: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> Self:
        """Every preference names a family and a rule of the file, and so does every prior."""
        rules = {rule.get("id") for rule in self.rules}
        for name, family in self.families.items():
            if name not in self.preferences:
                raise ValueError(f"family {name!r} has no preferences")
            missing = set(family.get("prior", ())) - rules
            if missing:
                raise ValueError(f"family {name!r} names unknown rules {sorted(missing)}")
        for name, wishes in self.preferences.items():
            missing = {wish.rule for wish in wishes} - rules
            if name not in self.families or missing:
                unknown = f"rules {sorted(missing)}" if missing else "family"
                raise ValueError(f"the preferences of {name!r} name an unknown {unknown}")
        try:
            self.language()
        except TypeError as error:
            raise ValueError(f"a family or rule of the file is incomplete: {error}") from error
        return self

    def language(self) -> Language:
        """Return the words of this world (those in the file, not those of the package)."""

        def tuples(entry: dict[str, Any]) -> dict[str, Any]:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}

        return Language(
            {n: Family(**{**tuples(e), "name": n}) for n, e in self.families.items()},
            {e["id"]: RuleSpec(**tuples(e)) for e in self.rules},
            self.feedback,
            self.lexicon,
        )

    def wishes(self, language: Language, query: Query) -> list[str]:
        """Return the rule ids that users want for this query."""
        special = language.families[query.family].special_kinds
        return [p.rule for p in self.preferences[query.family] if p.applies(query, special)]


def make_world(
    seed: int,
    *,
    noise: float = 0.34,
    users: int = 60,
    families: int = 8,
    attackers: int = 0,
    attack_share: float = 0.0,
    injects: bool = False,
) -> World:
    """Draw a world. The same arguments give the same world, byte for byte.

    Args:
        seed: of everything.
        noise: share of feedback that says nothing usable, in [0, 1].
        users: number of people; a third of them are held out for evaluation.
        families: how many of the task families take part (at most 8).
        attackers: people who plant one rule that nobody wants, the same for all of them.
        attack_share: share of all requests that are one attacker's.
        injects: they write orders to the distiller and the judge, not plain wishes.

    Raises:
        InputError: an argument is out of range.
    """
    language = load_language()
    if not 0 <= noise <= 1:
        raise InputError(f"noise must lie in [0, 1], not {noise}.")
    if not 1 <= families <= len(language.families):
        raise InputError(f"families must lie in [1, {len(language.families)}], not {families}.")
    if users < 3:
        raise InputError(f"A world needs at least 3 users (users), not {users}.")
    rng = Random(f"world-{seed}")
    names = list(language.families)[:families]
    targets = [(0.0, 1 / 3, 2 / 3, 1.0)[i % 4] for i in range(len(names))]
    rng.shuffle(targets)
    preferences, distance = {}, {}
    for name, target in zip(names, targets, strict=True):
        preferences[name] = _draw_preferences(language, language.families[name], target, rng)
        outside = [
            _share(p) * (p.rule not in language.families[name].prior) for p in preferences[name]
        ]
        distance[name] = sum(outside) / sum(_share(p) for p in preferences[name])
    people = [
        User(
            id=f"user-{seed}-{i:03d}",
            mention=rng.choice((1.0, 0.9, 0.75, 0.6, 0.5)),
            channels={"follow_up": 5, "comment": 3, "edit": 1, "thumb": 1, "silent": 5},
            held_out=i % 3 == 2,
        )
        for i in range(users)
    ]
    if attackers:
        people += [
            user.model_copy(update={"injects": injects})
            for user in _attackers(language, preferences, people, seed, attackers, attack_share)
        ]
    content = _content(language, names)
    return World(
        seed=seed, noise=noise, preferences=preferences, distance=distance, users=people, **content
    )


def _attackers(
    language: Language,
    preferences: dict[str, list[Preference]],
    people: list[User],
    seed: int,
    count: int,
    share: float,
) -> list[User]:
    if not 0 < share * count < 1:
        raise InputError(f"{count} attackers with {share} of the requests each leave nobody else.")
    rng = Random(f"attack-{seed}")
    wanted = {p.rule for wishes in preferences.values() for p in wishes}
    priors = {rule for family in language.families.values() for rule in family.prior}
    free = [r for r in language.rules.values() if r.id not in wanted and r.place != "layout"]
    pool = [r for r in free if r.id not in priors] or free
    rule = rng.choice(pool).id
    honest = sum(1 for user in people if not user.held_out)
    weight = share * honest / (1 - share * count)
    return [
        User(
            id=f"user-{seed}-x{i:02d}",
            mention=1.0,
            channels={"follow_up": 5, "comment": 4, "edit": 1},
            weight=weight,
            planted=rule,
        )
        for i in range(count)
    ]


def _content(language: Language, names: list[str]) -> dict[str, Any]:
    from dataclasses import asdict

    plain = json.loads(
        json.dumps(
            {
                "families": {n: asdict(language.families[n]) for n in names},
                "rules": [asdict(r) for r in language.rules.values()],
                "feedback": language.feedback,
                "lexicon": language.lexicon,
            }
        )
    )
    return dict(plain)


def _share(preference: Preference) -> float:
    return 1.0 if preference.condition is None else 0.4


def _draw_preferences(
    language: Language, family: Family, target: float, rng: Random
) -> list[Preference]:
    """Three wishes of which about ``target`` lie outside the prior; at most one layout.

    In two thirds of the families the last wish holds only under a condition.
    """
    n_foreign = round(3 * target)
    covered = rng.sample(family.prior, 3 - n_foreign)
    has_layout = any(language.rules[r].place == "layout" for r in covered)
    prior_layout = any(language.rules[r].place == "layout" for r in family.prior)
    pool = [r.id for r in language.rules.values() if r.id not in family.prior]
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
    conditions = [None, None, condition]
    return [Preference(rule=r, condition=c) for r, c in zip(chosen, conditions, strict=True)]


def make_query(
    language: Language, family: Family, rng: Random, *, unseen: bool, n_facts: int | None = None
) -> Query:
    """Draw a request of a family from the seen or the unseen half of frames, facts and names."""
    frames = family.unseen_frames if unseen else family.frames
    templates = family.unseen_facts if unseen else family.facts
    count = n_facts or rng.choice((2, 2, 3, 3, 4))
    facts = tuple(
        language.fill(t, rng, unseen=unseen)
        for t in rng.sample(templates, min(count, len(templates)))
    )
    kind, entity = rng.choice(family.kinds), language.name(rng, unseen=unseen)
    text = rng.choice(frames).format(kind=kind, entity=entity, facts="; ".join(facts))
    attributes: list[str] = []
    for group, share in (("urgency", 0.4), ("audience", 0.8)):
        if rng.random() < share:
            value = rng.choice(sorted(language.feedback["attributes"][group]))
            attributes.append(value)
            words = language.feedback["attributes"][group][value]
            phrase = rng.choice(words["unseen_phrases" if unseen else "phrases"])
            text = f"{phrase} {text}" if rng.random() < 0.5 else f"{text} {phrase}"
    return Query(family.name, kind, entity, facts, tuple(attributes), text)


def save_world(world: World, path: str | os.PathLike[str]) -> None:
    """Write a world as JSON, atomically."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(world.model_dump_json(indent=1), encoding="utf-8")
    os.replace(temporary, target)


def load_world(path: str | os.PathLike[str]) -> World:
    """Read a world file.

    Raises:
        InputError: the file is missing or is not a world.
    """
    try:
        return World.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"The world file {str(path)!r} can't be read ({error.strerror}): make one with "
            "python -m langchain_uno.world make --seed 1 --out world.json."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not a world file: it is not UTF-8.") from error
    except ValidationError as error:
        raise InputError(
            f"{str(path)!r} is not a world file: {error.errors()[0]['msg']}."
        ) from error
