"""Takes personal data out of text before it is stored. What was taken is counted, never kept.

For e-mail, card and IP address LangChain's own detectors (``langchain.agents.middleware.pii``), for
phone numbers and secrets ours (``logs/detectors.py``); any function from text to matches can stand
beside them or in their place::

    redact = Redactor({"email": detect_email, "order": lambda text: [...]})
    redact("mail me at a@b.org")      # ("mail me at [REDACTED_EMAIL]", {"email": 1})
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_uno.errors import ConfigError
from langchain_uno.home import Home, load_settings
from langchain_uno.logs.conversation import clean_text
from langchain_uno.logs.detectors import Match, detect_phone, detect_secret, shape
from langchain_uno.records import Feedback, Interaction

__all__ = ["DEFAULT_KINDS", "Detector", "Match", "Redactor", "no_redaction", "redactor_of"]

DEFAULT_KINDS = ("email", "credit_card", "ip", "phone", "secret")


Detector = Callable[[str], Sequence[Any]]
"""From a text to its matches: mappings with ``start`` and ``end``."""

# Quick looks on a text's shape: see detectors.shape.
_CARD = re.compile(rb"0000[ -]?0000[ -]?0000[ -]?0000")
_IP = re.compile(rb"0\.0{1,3}\.0{1,3}\.0")
_REACH = 320
"""Longest e-mail address (64 before the @, 255 after)."""
_MEMORY = 128
_MEMORY_CHARS = 20_000


class Redactor:
    """Callable: text -> (text without personal data, counts by kind). Thread-safe.

    Args:
        detectors: kind -> detector; None: those of :data:`DEFAULT_KINDS`.
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
        spans.sort(key=lambda span: (span[0], -span[1]))
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


def redactor_of(home: Home, given: Redactor | bool | None = None) -> Redactor:
    """Return the redactor given, or the one that the home's ``[redaction] kinds`` ask for.

    Args:
        home: whose settings are read when nothing else is said.
        given: a redactor; None or True: as the settings say; False: nothing is taken out.

    Raises:
        ConfigError: the settings name an unknown kind.
    """
    if isinstance(given, Redactor):
        return given
    if given is False:
        return no_redaction()
    kinds = load_settings(home).redaction.kinds
    every = _default_detectors()
    if kinds is None:
        return Redactor(every)
    if unknown := sorted(set(kinds) - set(every)):
        raise ConfigError(
            f"{str(home.settings)!r} names unknown kinds of redaction {unknown}: choose among "
            f"{', '.join(every)}, or hand a Redactor of your own to the handler."
        )
    return Redactor({kind: every[kind] for kind in kinds})


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
            detect_credit_card(_ascii(text)) if _CARD.search(shape(text)) else []
        ),
        "ip": lambda text: detect_ip(_ascii(text)) if _IP.search(shape(text)) else [],
        "phone": detect_phone,
        "secret": detect_secret,
    }


def _ascii(text: str) -> str:
    # LangChain's patterns ask for a word boundary, and a Chinese character beside an address is a
    # word character. One "?" for each such character keeps every position.
    return text if text.isascii() else text.encode("ascii", "replace").decode("ascii")


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
