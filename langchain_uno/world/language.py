"""The words of the simulated service: families, rules, feedback, and names that never repeat.

Content lies in ``content/*.json``. Whatever appears in held-out data only is kept apart here, by
construction: lists named ``unseen_*`` are drawn only with ``unseen=True``, and a made-up name
belongs to the seen or the unseen half by the parity of a hash of its letters.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from random import Random
from typing import Any, Literal

__all__ = ["Family", "Language", "Place", "RuleSpec", "cap", "is_unseen_name", "load_language"]

Place = Literal["layout", "opener", "closer"]


@dataclass(frozen=True)
class RuleSpec:
    """A rule about answers that a program can render and check."""

    id: str
    place: Place
    form: str
    """The line it adds (openers, closers) or how a fact is laid out (layouts)."""
    text: str
    """The canonical wording, an affirmative instruction."""
    wordings: tuple[str, ...]
    unseen_wordings: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """A kind of task with its own vocabulary and the rules a model would guess for it."""

    name: str
    about: str
    prior: tuple[str, ...]
    kinds: tuple[str, ...]
    special_kinds: tuple[str, ...]
    """The kinds that a preference may single out."""
    frames: tuple[str, ...]
    unseen_frames: tuple[str, ...]
    facts: tuple[str, ...]
    unseen_facts: tuple[str, ...]


@dataclass(frozen=True)
class Language:
    """Everything that can be said in the world."""

    families: dict[str, Family]
    rules: dict[str, RuleSpec]
    feedback: dict[str, Any]
    lexicon: dict[str, Any]

    def name(self, rng: Random, *, unseen: bool) -> str:
        """Return a made-up name of the asked half, such as ``Brailon``."""
        lex = self.lexicon
        while True:
            word = "".join(
                rng.choice(lex["onsets"]) + rng.choice(lex["vowels"]) + rng.choice(lex["codas"])
                for _ in range(rng.choice((2, 2, 3)))
            )
            if 4 <= len(word) <= 10 and is_unseen_name(word) == unseen:
                return cap(word)

    def fill(self, template: str, rng: Random, *, unseen: bool) -> str:
        """Fill the slots ``{n} {name} {place} {color}`` of a template, each occurrence anew."""
        out = template
        while "{n}" in out:
            out = out.replace("{n}", str(rng.randint(2, 99)), 1)
        for slot in ("{name}", "{place}"):
            while slot in out:
                out = out.replace(slot, self.name(rng, unseen=unseen), 1)
        while "{color}" in out:
            out = out.replace("{color}", rng.choice(self.lexicon["colors"]), 1)
        return out


def cap(text: str) -> str:
    """Return ``text`` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def is_unseen_name(word: str) -> bool:
    """Whether a made-up name belongs to the held-out half (parity of its hash)."""
    return hashlib.sha256(word.lower().encode()).digest()[0] % 2 == 1


@lru_cache(maxsize=1)
def load_language() -> Language:
    """Read the bundled content once."""
    folder = resources.files("langchain_uno") / "world" / "content"

    def read(name: str) -> Any:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))

    def tuples(entry: dict[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}

    families = {n: Family(name=n, **tuples(e)) for n, e in read("families").items()}
    rules = {e["id"]: RuleSpec(**tuples(e)) for e in read("rules")}
    return Language(families, rules, read("feedback"), read("lexicon"))
