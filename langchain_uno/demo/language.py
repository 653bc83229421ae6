"""The words of the simulated service: families, rules, feedback, and names that never repeat.

Content lies in ``content/*.json``. Whatever appears in held-out data only is kept apart here, by
construction: lists named ``unseen_*`` are drawn only with ``unseen=True``, and a made-up name
belongs to the seen or the unseen half by the parity of a hash of its letters. The unseen half is
divided once more, so that no frame, fact, number or name of the logs is met again in the tests:
every third of them is the tests' (:func:`of_part`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from random import Random
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

_T = TypeVar("_T")
Place = Literal["layout", "opener", "closer"]
Part = Literal["logs", "tests"]
"""Of the unseen half: what the logs may hold, or what systems are tested on."""


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

    def name(self, rng: Random, *, unseen: bool, part: Part | None = None) -> str:
        """Return a made-up name of the asked half (and part of it), such as ``Brailon``."""
        lex = self.lexicon
        while True:
            word = "".join(
                rng.choice(lex["onsets"]) + rng.choice(lex["vowels"]) + rng.choice(lex["codas"])
                for _ in range(rng.choice((2, 2, 3)))
            )
            mine = part is None or (_digest(word)[1] % 3 == 2) == (part == "tests")
            if mine and 4 <= len(word) <= 10 and is_unseen_name(word) == unseen:
                return cap(word)

    def fill(self, template: str, rng: Random, *, unseen: bool, part: Part | None = None) -> str:
        """Fill the slots ``{n} {name} {place} {color}`` of a template, each occurrence anew."""
        out = template
        while "{n}" in out:
            out = out.replace("{n}", str(rng.choice(of_part(range(2, 100), part))), 1)
        for slot in ("{name}", "{place}"):
            while slot in out:
                out = out.replace(slot, self.name(rng, unseen=unseen, part=part), 1)
        while "{color}" in out:
            out = out.replace("{color}", rng.choice(of_part(self.lexicon["colors"], part)), 1)
        return out


def cap(text: str) -> str:
    """Return ``text`` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def is_unseen_name(word: str) -> bool:
    """Whether a made-up name belongs to the held-out half (parity of its hash)."""
    return _digest(word)[0] % 2 == 1


def of_part(items: Sequence[_T], part: Part | None) -> Sequence[_T]:
    """Return every third item for the tests, the others for the logs, all of them for None."""
    if part is None:
        return items
    return [item for i, item in enumerate(items) if (i % 3 == 2) == (part == "tests")]


def _digest(word: str) -> bytes:
    return hashlib.sha256(word.lower().encode()).digest()


@lru_cache(maxsize=1)
def load_language() -> Language:
    """Read the package's content once."""
    folder = resources.files("langchain_uno") / "demo" / "content"
    found = {
        name: json.loads((folder / f"{name}.json").read_text("utf-8"))
        for name in ("families", "rules", "feedback", "lexicon")
    }
    found["families"] = {name: {**one, "name": name} for name, one in found["families"].items()}
    found["rules"] = {one["id"]: one for one in found["rules"]}
    return TypeAdapter(Language).validate_python(found)
