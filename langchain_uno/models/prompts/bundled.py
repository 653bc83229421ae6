"""The bundled model's prompt set: the roles of real models in as few tokens as possible.

A one-word system message names the role; the data follows. The bundled model was trained on exactly
these forms, English only. Judgements are written as evidence: one line per rule and per fact, then
the score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from langchain_uno.models.roles import PromptSet, RoleError
from langchain_uno.records import Message

_NUMBERED = re.compile(r"\d+\.\s+(.*\S)")
_SCORE = re.compile(r"^score (10|[1-9])$", re.MULTILINE)


class BundledPromptSet(PromptSet):
    """Implements :class:`langchain_uno.models.roles.PromptSet` for the bundled model."""

    fingerprint = "bundled-v1"
    lacks = frozenset({"distil_edit", "distil_thumbs", "cover_list"})
    """The model learnt to read words, and to compare two rules."""

    def supports(self, language: str) -> bool:
        """English only."""
        return language == "en"

    def worded(self, role: str, language: str, **data: Any) -> list[Message]:
        """Show each role what it needs; the facts stand in the query, not in the old answer."""
        query = query_text(data.get("conversation", ()))
        remarks = _numbered([_flat(turn) for turn in data.get("remarks", ())])
        rules = _numbered(data.get("rules", ()))
        shown = {
            "distil": lambda: remarks,
            "predict": lambda: query,
            "revise_feedback": lambda: f"{query}\nFeedback:\n{remarks}",
            "revise": lambda: f"{query}\nRules:\n{rules}",
            "judge": lambda: f"{query}\nRules:\n{rules}\nAnswer:\n{data['answer'].strip()}",
            "cover": lambda: f"{_flat(data['suggestion'])}\n{_flat(data['known'])}",
            "critique": lambda: f"{query}\nAnswer:\n{data['draft'].strip()}",
        }
        name = role.removesuffix("_feedback")
        return [Message(role="system", content=name), Message(role="user", content=shown[role]())]

    def parse_rules(self, text: str) -> list[str]:
        """Parse a JSON list of strings."""
        try:
            rules = json.loads(text.strip())
        except (ValueError, RecursionError) as error:
            raise RoleError(f"not a JSON list of rules: {text[:80]!r}") from error
        if not isinstance(rules, list) or not all(isinstance(r, str) for r in rules):
            raise RoleError(f"not a JSON list of strings: {text[:80]!r}")
        return [r.strip() for r in rules if r.strip()]

    def rules_schema(self, max_rules: int | None = None) -> dict[str, Any]:
        """JSON schema of the list."""
        schema: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
        return schema if max_rules is None else {**schema, "maxItems": max_rules}

    def parse_judgement(self, text: str) -> float:
        """The score stands alone on the last line: ``score 7``."""
        match = _SCORE.search(text.strip())
        if not match:
            raise RoleError(f"no score in the judgement: {text[-80:]!r}")
        return float(match.group(1))

    def critique_completion(self, rules: Sequence[str]) -> str:
        """The rules numbered, or ``none``."""
        return _numbered(rules) if rules else "none"

    def parse_critique(self, text: str) -> list[str]:
        """The numbered lines; none of them means that nothing should change."""
        found = (_NUMBERED.match(line.strip()) for line in text.splitlines())
        return [m.group(1) for m in found if m]


def query_text(messages: Sequence[Message]) -> str:
    """Return the user turns, one a line; system and assistant turns are left out."""
    return "\n".join(m.content.strip() for m in messages if m.role == "user" and m.content.strip())


def _numbered(items: Sequence[str]) -> str:
    return "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))


def _flat(text: str) -> str:
    return " ".join(text.split())
