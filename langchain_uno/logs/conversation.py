"""What a conversation's text tells by itself: its language, and which answer a turn follows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from langchain_uno.records import Message

__all__ = ["Links", "clean_text", "detect_language", "language_of", "link", "run_ref", "user_turn"]

_RUN = re.compile(
    r"\s*(?:lc_run--|run--|run-)?"
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:-\d+)?\s*\Z",
    re.IGNORECASE,
)
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", re.compile("[\u4e00-\u9fff\u3400-\u4dbf]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]+")
_SAMPLE = 4000


class Links(NamedTuple):
    """Digests by which the journal finds the answer that a user turn follows."""

    before: bytes | None
    """Of the conversation up to the last answer in the prompt, when a user turn comes after it."""
    turn: bytes | None
    """Of that user turn (without an earlier answer: of the last user message)."""
    after: bytes | None
    """Of the whole conversation with this answer; None when there is no answer text."""


def run_ref(value: object) -> str:
    """Return the run id in ``value``: a UUID, its text, or an ``AIMessage.id``.

    ``lc_run--<uuid>`` and ``lc_run--<uuid>-0`` (LangChain's message ids) name the model run
    ``<uuid>``. Anything else is taken as it stands, without surrounding blanks.
    """
    text = str(value)
    found = _RUN.match(text)
    return found.group(1).lower() if found else text.strip()


def clean_text(text: str) -> str:
    """Return ``text`` as valid UTF-8 text: lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def link(turns_said: Iterable[tuple[str, str]], answer: str) -> Links:
    """Digest a prompt, given as (role, content), and its answer.

    Only user turns and assistant turns with text count: apps resend a history with or without
    system and tool messages.
    """
    parts: list[bytes] = []
    answered = 0  # how many parts there are up to the last answer
    for role, content in turns_said:
        if role == "user":
            parts += (b"\0u", content.strip().encode("utf-8", "replace"))
        elif role == "assistant" and (text := content.strip()):
            parts += (b"\0a", text.encode("utf-8", "replace"))
            answered = len(parts)
    turns = parts[answered + 1 :: 2] if answered else parts[1::2][-1:]
    whole = blake2b(b"".join(parts[:answered]), digest_size=16)
    before = whole.digest() if answered and turns else None
    turn = blake2b(b"\n\n".join(turns), digest_size=16).digest() if turns else None
    said = answer.strip()
    if not said:
        return Links(before, turn, None)
    whole.update(b"".join((*parts[answered:], b"\0a", said.encode("utf-8", "replace"))))
    return Links(before, turn, whole.digest())


def user_turn(messages: Sequence[Message]) -> str:
    """Return what the user said last: all user turns after the last answer, joined.

    Without an answer in the prompt, the last user message alone (the app keeps the history to
    itself, or the conversation begins here).
    """
    turns: list[str] = []
    answered = False
    for message in messages:
        if message.role == "user":
            turns.append(message.content.strip())
        elif message.role == "assistant" and message.content.strip():
            answered, turns = True, []
    return "\n\n".join(t for t in (turns if answered else turns[-1:]) if t)


def detect_language(text: str) -> str | None:
    """Return the language of ``text`` by its script: ``en``, ``zh``, ``ja``, ... or None.

    Latin script counts as ``en``; None means that there are no letters. Ideographs weigh more than
    Latin words, because Chinese text is full of Latin names; kana make it Japanese.
    """
    sample = text[:_SAMPLE]
    if sample.isascii():
        return "en" if _LATIN.search(sample) else None
    counts = {name: len(pattern.findall(sample)) for name, pattern in _SCRIPTS}
    latin = len(_LATIN.findall(sample))
    if counts["ja"] * 8 >= counts["zh"] > 0 or counts["ja"] > counts["zh"]:
        counts["ja"] += counts["zh"]
    best = max(counts, key=lambda name: counts[name])
    if counts[best] and counts[best] >= latin:
        return best
    return "en" if latin else None


def language_of(users: Sequence[str], answer: str) -> str:
    """Return the language of a conversation: of the user's turns, else the answer's, else ``en``.

    The system prompt decides nothing: English ones stand above Chinese conversations.
    """
    if users:
        # The latest turn first: a long pasted text in front must not outvote the request.
        found = detect_language("\n".join(reversed([u[:_SAMPLE] for u in users[-3:]])))
        if found:
            return found
    return detect_language(answer) or "en"
