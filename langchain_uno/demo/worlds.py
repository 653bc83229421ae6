"""A world is a file: families, facts, rules, wordings, preferences and users.

What the users of a family want is hidden in it: preferences, some constant and some that hold only
for a kind of entity, an urgent request or an audience; and the users with their ways of giving
feedback. :mod:`langchain_uno.demo.drawing` draws worlds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from langchain_uno.demo.answers import Query
from langchain_uno.demo.language import Family, Language, RuleSpec
from langchain_uno.errors import InputError
from langchain_uno.releases.traffic import write_atomic

__all__ = ["Preference", "User", "World", "load_world", "save_world"]

SCHEMA = 1


class Preference(BaseModel):
    """One hidden wish: a rule, and the condition under which users want it (None: always)."""

    rule: str
    condition: str | None = None
    """``urgent``, ``beginner``, ``expert`` or ``kind`` (the family's special kinds)."""

    def applies(self, query: Query, special_kinds: tuple[str, ...]) -> bool:
        """Whether the rule is wanted for this query."""
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


class World(BaseModel):
    """Everything a simulated service is made of; a plain JSON file."""

    schema_version: int = SCHEMA
    seed: int
    noise: float
    """Share of the feedback that says nothing usable."""
    families: dict[str, Family]
    rules: list[RuleSpec]
    feedback: dict[str, Any]
    lexicon: dict[str, Any]
    preferences: dict[str, list[Preference]]
    distance: dict[str, float]
    """True distance per family: share of wished rules (over queries) outside the prior."""
    users: list[User]

    @model_validator(mode="after")
    def _known(self) -> World:
        """Every preference names a family and a rule of the file, and so does every prior."""
        rules = {rule.id for rule in self.rules}
        for name, family in self.families.items():
            if name not in self.preferences:
                raise ValueError(f"family {name!r} has no preferences")
            missing = set(family.prior) - rules
            if missing:
                raise ValueError(f"family {name!r} names unknown rules {sorted(missing)}")
        for name, wishes in self.preferences.items():
            missing = {wish.rule for wish in wishes} - rules
            if name not in self.families or missing:
                unknown = f"rules {sorted(missing)}" if missing else "family"
                raise ValueError(f"the preferences of {name!r} name an unknown {unknown}")
        return self

    def language(self) -> Language:
        """Return the words of this world (those in the file, not those of the package)."""
        rules = {rule.id: rule for rule in self.rules}
        return Language(self.families, rules, self.feedback, self.lexicon)

    def wishes(self, language: Language, query: Query) -> list[str]:
        """Return the ids of the rules that the users of a family want for this query."""
        special = language.families[query.family].special_kinds
        return [p.rule for p in self.preferences[query.family] if p.applies(query, special)]


def save_world(world: World, path: str | os.PathLike[str]) -> None:
    """Write a world as JSON, atomically."""
    write_atomic(Path(path), world.model_dump_json(indent=1).encode())


def load_world(path: str | os.PathLike[str]) -> World:
    """Read a world file.

    Raises:
        InputError: the file is missing or is not a world.
    """
    try:
        return World.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"The world file {str(path)!r} can't be read ({error.strerror}): the demo writes one, "
            "world.json in its home."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not a world file: it is not UTF-8.") from error
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise InputError(f"{str(path)!r} is not a world file: {what}.") from error
