"""Prompt sets: versioned words for the roles of :class:`langchain_uno.models.roles.PromptSet`.

``real`` (English and Chinese, for instruction-tuned models) is the product; ``bundled`` is the
short form that the shipped small model was trained on.
"""

from __future__ import annotations

from functools import lru_cache

from langchain_uno.errors import ConfigError
from langchain_uno.models.roles import PromptSet

__all__ = ["PROMPT_SETS", "get_prompt_set", "worded_alike"]

PROMPT_SETS = ("real", "bundled")

_PRESENT = {"embedded-v1": "bundled-v1"}
"""Fingerprints of former versions of a set that word critiques and revisions as it does now."""


@lru_cache(maxsize=len(PROMPT_SETS))
def get_prompt_set(name: str) -> PromptSet:
    """Return the prompt set called ``name``: ``"real"`` or ``"bundled"``.

    Raises:
        ConfigError: there is no such set.
    """
    if name == "real":
        from langchain_uno.models.prompts.real import RealPromptSet

        return RealPromptSet()
    if name == "bundled":
        from langchain_uno.models.prompts.bundled import BundledPromptSet

        return BundledPromptSet()
    raise ConfigError(f"There is no prompt set {name!r}: give one of {', '.join(PROMPT_SETS)}.")


def worded_alike(one: str, other: str) -> bool:
    """Return whether two fingerprints serve alike: their critiques and revisions have one wording.

    A release is served by the prompt set it was made with, or by one that serves alike.
    """
    return _PRESENT.get(one, one) == _PRESENT.get(other, other)
