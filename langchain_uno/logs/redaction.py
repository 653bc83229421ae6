"""Takes personal data out of text before it is stored. What was taken is counted, never kept.

The detectors are LangChain's own (``langchain.agents.middleware.pii``); any function from text to
matches can stand beside them or in their place::

    redact = Redactor({"email": detect_email, "order": lambda text: [...]})
    redact("mail me at a@b.org")      # ("mail me at [REDACTED_EMAIL]", {"email": 1})
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from langchain_uno.logs.conversation import clean_text
from langchain_uno.records import Feedback, Interaction

__all__ = ["DEFAULT_KINDS", "Detector", "Match", "Redactor", "no_redaction"]

DEFAULT_KINDS = ("email", "credit_card", "ip")


class Match(TypedDict):
    """One finding, in the form of LangChain's ``PIIMatch``."""

    type: str
    value: str
    start: int
    end: int


Detector = Callable[[str], Sequence[Any]]
"""From a text to its matches: mappings with ``start`` and ``end``."""

# Quick looks on a text whose digits are all 0: literal prefixes make them ten times as fast as the
# detectors, which then run on the few texts that may hold something.
_SHAPE = bytes(
    48 if 48 <= b <= 57 else 32 if chr(b).isspace() else b if b in b".-" else 120
    for b in range(256)
)
_CARD = re.compile(rb"0000[ -]?0000[ -]?0000[ -]?0000")
_IP = re.compile(rb"0\.0{1,3}\.0{1,3}\.0")
_REACH = 320
"""Longest e-mail address (64 before the @, 255 after)."""
_MEMORY = 128
_MEMORY_CHARS = 20_000


class Redactor:
    """Callable: text -> (text without personal data, counts by kind). Thread-safe.

    Args:
        detectors: kind -> detector; None: e-mail, payment card and IP address.
    """

    def __init__(self, detectors: Mapping[str, Detector] | None = None) -> None:
        self._detectors: dict[str, Detector] = (
            dict(detectors) if detectors is not None else _default_detectors()
        )
        for kind in self._detectors:
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", kind):
                raise ValueError(f"A kind of redaction is a short lower-case word, not {kind!r}.")
        # A conversation is redacted again at each of its turns: remember the last texts' results.
        self._seen: dict[str, tuple[str, dict[str, int]]] = {}

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        """Return the redacted text and how much was taken out, by kind."""
        found = self._seen.get(text)
        if found is None:
            found = self._redact(text)
            if len(text) <= _MEMORY_CHARS:
                if len(self._seen) >= _MEMORY:
                    self._seen = {}
                self._seen[text] = found
        return found

    def _redact(self, text: str) -> tuple[str, dict[str, int]]:
        if not text or not self._detectors:
            return text, {}
        spans: list[tuple[int, int, str]] = []
        for kind, detect in self._detectors.items():
            spans += [(int(m["start"]), int(m["end"]), kind) for m in detect(text)]
        if not spans:
            return text, {}
        spans.sort()
        out: list[str] = []
        counts: dict[str, int] = {}
        position = 0
        for start, end, kind in spans:
            if start < position or end <= start:
                continue  # inside an earlier finding
            out += [text[position:start], f"[REDACTED_{kind.upper()}]"]
            counts[kind] = counts.get(kind, 0) + 1
            position = end
        return "".join(out) + text[position:], counts

    def interaction(self, interaction: Interaction) -> tuple[Interaction, dict[str, int]]:
        """Return the interaction with every text redacted, and the counts."""
        counts: dict[str, int] = {}

        def take(text: str) -> str:
            clean, found = self(text)
            for kind, n in found.items():
                counts[kind] = counts.get(kind, 0) + n
            return clean

        messages = [
            m.model_copy(
                update={
                    "content": take(m.content),
                    "tool_calls": _walk(m.tool_calls, take) if m.tool_calls else m.tool_calls,
                }
            )
            for m in interaction.messages
        ]
        clean = interaction.model_copy(
            update={
                "messages": messages,
                "answer": take(interaction.answer),
                "tool_calls": _walk(interaction.tool_calls, take),
                "error": take(interaction.error) if interaction.error else interaction.error,
                "feedback": [self._feedback(f, take) for f in interaction.feedback],
            }
        )
        return clean, counts

    def feedback(self, feedback: Feedback) -> tuple[Feedback, dict[str, int]]:
        """Return the feedback with its words redacted, and the counts."""
        counts: dict[str, int] = {}

        def take(text: str) -> str:
            clean, found = self(text)
            for kind, n in found.items():
                counts[kind] = counts.get(kind, 0) + n
            return clean

        return self._feedback(feedback, take), counts

    @staticmethod
    def _feedback(feedback: Feedback, take: Callable[[str], str]) -> Feedback:
        update = {
            name: take(value)
            for name in ("value", "comment", "correction")
            if isinstance(value := getattr(feedback, name), str)
        }
        return feedback.model_copy(update=update) if update else feedback


def no_redaction() -> Redactor:
    """Return a redactor that lets everything through."""
    return Redactor({})


def _walk(value: Any, take: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return take(clean_text(value))
    if isinstance(value, list | tuple):
        return [_walk(item, take) for item in value]
    if isinstance(value, dict):
        return {clean_text(str(key)): _walk(item, take) for key, item in value.items()}
    return value


def _default_detectors() -> dict[str, Detector]:
    from langchain.agents.middleware.pii import detect_credit_card, detect_email, detect_ip

    return {
        "email": lambda text: _near_at_signs(text, detect_email),
        "credit_card": lambda text: (
            detect_credit_card(_ascii(text)) if _CARD.search(_shape(text)) else []
        ),
        "ip": lambda text: detect_ip(_ascii(text)) if _IP.search(_shape(text)) else [],
    }


def _ascii(text: str) -> str:
    # LangChain's patterns ask for a word boundary, and a Chinese character beside an address is a
    # word character. One "?" for each such character keeps every position.
    return text if text.isascii() else text.encode("ascii", "replace").decode("ascii")


def _shape(text: str) -> bytes:
    return text.encode("ascii", "replace").translate(_SHAPE)


def _near_at_signs(text: str, detect: Detector) -> list[Match]:
    """Run ``detect`` around the @ signs only: its pattern is quadratic on long runs of words."""
    at = text.find("@")
    if at < 0:
        return []
    plain = _ascii(text)
    found: list[Match] = []
    while at >= 0:
        start = max(0, at - _REACH)
        end = min(len(plain), at + _REACH)
        following = plain.find("@", at + 1)
        while 0 <= following < end:
            end = min(len(plain), following + _REACH)
            following = plain.find("@", following + 1)
        for match in detect(plain[start:end]):
            a, b = start + match["start"], start + match["end"]
            found.append(Match(type="email", value="", start=a, end=b))
        at = following
    return found
