"""Remind a critic of the rules that hold for a request, between its critique and the revision.

A critic learns its cluster's recurring rules by heart, but not sharply on which requests each
holds: words of the request say that (:mod:`langchain_uno.learning.conditions`), and a program reads
words better than a small adapter. So the rules that hold and that the critic forgot are added to
what it suggests, and those that do not hold are taken out; what else it suggests stays. Not in the
paper (``recipe.remind``); the whole path is what the verifier judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from langchain_uno.learning.conditions import rules_for
from langchain_uno.learning.wordings import plain

__all__ = ["Remembered", "remind"]


class Remembered(Protocol):
    """What a release (or a refresh) knows of a cluster's rules."""

    @property
    def rules(self) -> Sequence[str]:
        """The recurring rules, most supported first."""

    @property
    def conditions(self) -> Sequence[Sequence[str]]:
        """For each the words of which a request must have one; none: always."""

    @property
    def rivals(self) -> Sequence[tuple[str, str]]:
        """Rules that hardly anyone wants together."""


def remind(suggestions: Sequence[str], query: str, known: Remembered) -> list[str]:
    """Return a critic's suggestions, less the rules that do not hold and with those that do.

    Args:
        suggestions: what the critic wrote, in its order; possibly nothing.
        query: the request's text (``records.routing_text``).
        known: its cluster.
    """
    held = rules_for(query, known.rules, known.conditions)
    idle = {plain(rule) for rule in known.rules if rule not in held}
    out = [text for text in dict.fromkeys(suggestions) if plain(text) not in idle]
    taken = {plain(text) for text in out}
    apart = {(plain(a), plain(b)) for pair in known.rivals for a, b in (pair, pair[::-1])}
    for rule in held:
        text = plain(rule)
        if text not in taken and not any((text, other) in apart for other in taken):
            out.append(rule)
            taken.add(text)
    return out
