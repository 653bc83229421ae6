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

from langchain_uno.models.roles import Judgement, PromptSet, RoleError
from langchain_uno.records import Message

_NUMBERED = re.compile(r"\d+\.\s+(.*\S)")
_SCORE = re.compile(r"^score (10|[1-9])$", re.MULTILINE)


class BundledPromptSet(PromptSet):
    """Implements :class:`langchain_uno.models.roles.PromptSet` for the bundled model."""

    fingerprint = "bundled-v1"

    def supports(self, language: str) -> bool:
        """English only."""
        return language == "en"

    def distil_prompt(
        self, messages: Sequence[Message], answer: str, feedback: Sequence[str], language: str
    ) -> list[Message]:
        """Feedback turns -> JSON list of rules; query and answer are left out."""
        return _role("distil", _numbered([_flat(turn) for turn in feedback]))

    def predict_prompt(self, messages: Sequence[Message], language: str) -> list[Message]:
        """Query -> JSON list of the rules the model would guess."""
        return _role("predict", query_text(messages))

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
        if max_rules is not None:
            schema["maxItems"] = max_rules
        return schema

    def revise_feedback_prompt(
        self, messages: Sequence[Message], feedback: Sequence[str], language: str
    ) -> list[Message]:
        """Query + raw feedback -> better answer."""
        turns = _numbered([_flat(turn) for turn in feedback])
        return _role("revise", f"{query_text(messages)}\nFeedback:\n{turns}")

    def revise_rules_prompt(
        self,
        messages: Sequence[Message],
        answer: str,
        rules: Sequence[str],
        feedback: Sequence[str],
        language: str,
    ) -> list[Message]:
        """Query + rules -> better answer; the facts stand in the query, not in the old answer."""
        return _role("revise", f"{query_text(messages)}\nRules:\n{_numbered(rules)}")

    def judge_prompt(
        self, messages: Sequence[Message], rules: Sequence[str], answer: str, language: str
    ) -> list[Message]:
        """Query + rules + answer -> evidence lines and a score."""
        return _role(
            "judge",
            f"{query_text(messages)}\nRules:\n{_numbered(rules)}\nAnswer:\n{answer.strip()}",
        )

    def parse_judgement(self, text: str) -> Judgement:
        """The score stands alone on the last line: ``score 7``."""
        match = _SCORE.search(text.strip())
        if not match:
            raise RoleError(f"no score in the judgement: {text[-80:]!r}")
        return Judgement(float(match.group(1)), text.strip()[: match.start()].strip())

    def cover_prompt(self, suggestion: str, known: str) -> list[Message]:
        """Two rules -> yes when they ask for the same."""
        return _role("cover", f"{_flat(suggestion)}\n{_flat(known)}")

    def critique_prompt(
        self, messages: Sequence[Message], draft: str, language: str
    ) -> list[Message]:
        """Query + draft -> numbered suggestions, or ``none``."""
        return _role("critique", f"{query_text(messages)}\nAnswer:\n{draft.strip()}")

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


def _role(role: str, data: str) -> list[Message]:
    return [Message(role="system", content=role), Message(role="user", content=data)]


def _numbered(items: Sequence[str]) -> str:
    return "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))


def _flat(text: str) -> str:
    return " ".join(text.split())
