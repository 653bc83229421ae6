"""A world: families with their preferences, and users.

What the users of a family want is hidden in it: preferences, some constant and some that hold only
for a kind of entity, an urgent request or an audience; and the users with their ways of giving
feedback. :mod:`langchain_uno.demo.drawing` draws worlds.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel

from langchain_uno.demo.answers import Query
from langchain_uno.demo.language import Language, load_language


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
    """Everything a simulated service is made of."""

    seed: int
    noise: float
    """Share of the feedback that says nothing usable."""
    preferences: dict[str, list[Preference]]
    distance: dict[str, float]
    """True distance per family: share of wished rules (over queries) outside the prior."""
    users: list[User]

    @property
    def families(self) -> list[str]:
        """The names of the families that take part."""
        return list(self.preferences)

    def language(self) -> Language:
        """Return the words of this world."""
        whole = load_language()
        return replace(whole, families={name: whole.families[name] for name in self.families})

    def wishes(self, language: Language, query: Query) -> list[str]:
        """Return the ids of the rules that the users of a family want for this query."""
        special = language.families[query.family].special_kinds
        return [p.rule for p in self.preferences[query.family] if p.applies(query, special)]
