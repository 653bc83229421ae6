"""What a conversation's text tells by itself: its language, and which answer a turn follows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID

from langchain_uno.messages import without_thinking
from langchain_uno.records import Message

_RUN = re.compile(
    r"\s*(?:lc_run--|run--|run-)?"
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:-(\d+))?\s*\Z",
    re.IGNORECASE,
)
_HEX = re.compile(r"[0-9a-fA-F]{32}\Z")
MAX_ID = 200
"""Characters that are kept of an id: longer than any provider's."""
_PLACEHOLDERS = re.compile(r"(?:\[[\w.-]{1,40}\]\s*)+\Z")
"""A turn of nothing but marks of pictures and files (:func:`~langchain_uno.messages.text_of`)."""
_LANGUAGES = "en zh de es fr it pt nl pl sv tr vi id ja ko ru uk ar el he hi th"
"""Told apart by py3langid. Its 142 are too many for a line of five words: it then finds Occitan in
Spanish. With these it is right on 98 % of short remarks (tests/data/feedback_lines.jsonl)."""
_LETTERS = re.compile(r"[^\W\d_]")
_HAN = re.compile("[\u4e00-\u9fff\u3400-\u4dbf]")
_KANA = re.compile("[\u3040-\u30ff]")
_WORDS = re.compile("[A-Za-z\u00c0-\u024f]+")
_CODE = re.compile(r"`[^`\n]*`|https?://\S+|\b\w*(?:[a-z][A-Z]|_)\w*\b")
_SAMPLE = 1000
_UNSURE = 0.3
"""Below this, plain ASCII words may be of any language: they count as English."""
_SURE = 0.7
"""Above this, what the user wrote decides alone."""

_FEW = 4
"""Words below which an unsure guess says nothing."""


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
    ``<uuid>``. Anything else is taken as it stands, without surrounding blanks and cut off where it
    is longer than any provider's id.
    """
    text = str(value).replace("\0", "\ufffd")  # at which SQLite's JSON ends a text
    found = _RUN.match(text)
    return found.group(1).lower() if found else text.strip()[:MAX_ID]


def is_further(value: object) -> bool:
    """Whether an ``AIMessage.id`` is that of a further answer to one request (``n > 1``)."""
    found = _RUN.match(str(value))
    return found is not None and int(found.group(2) or 0) > 0


def run_name(value: object) -> str:
    """Return :func:`run_ref`, and of a UUID's 32 digits alone the UUID's text.

    Feedback and names are filed under it. A run or a trace that is imported under the digits keeps
    them, as releases and tombstones know it by its own id; the UUID's text becomes a name of it.
    """
    reference = run_ref(value)
    return str(UUID(reference)) if _HEX.match(reference) else reference


def link(turns_said: Iterable[tuple[str, str]], answer: str) -> Links:
    """Digest a prompt, given as (role, content), and its answer.

    Only user turns and assistant turns with text count: apps resend a history with or without
    system and tool messages, and an answer with or without the thoughts in it.
    """
    parts: list[str] = []
    answered = 0  # how many parts there are up to the last answer
    for role, content in turns_said:
        if role == "user":
            parts += ("\0u", content.strip())
        elif role == "assistant" and (text := without_thinking(content).strip()):
            parts += ("\0a", text)
            answered = len(parts)
    turns = parts[answered + 1 :: 2] if answered else parts[1::2][-1:]
    whole = blake2b(_bytes(parts[:answered]), digest_size=16)
    before = whole.digest() if answered and turns else None
    turn = blake2b(_bytes(turns, b"\n\n"), digest_size=16).digest() if turns else None
    said = without_thinking(answer).strip()
    if not said:
        return Links(before, turn, None)
    whole.update(_bytes([*parts[answered:], "\0a", said]))
    return Links(before, turn, whole.digest())


def _bytes(parts: Sequence[str], between: bytes = b"") -> bytes:
    return between.join([part.encode("utf-8", "replace") for part in parts])


def user_turn(messages: Sequence[Message]) -> str:
    """Return what the user said last: all user turns after the last answer, joined.

    Without an answer in the prompt, the last user message alone (the app keeps the history to
    itself, or the conversation begins here). Pictures and files alone say nothing.
    """
    turns: list[str] = []
    answered = False
    for message in messages:
        if message.role == "user":
            text = message.content.strip()
            turns.append("" if _PLACEHOLDERS.match(text) else text)
        elif message.role == "assistant" and without_thinking(message.content).strip():
            answered, turns = True, []
    return "\n\n".join(t for t in (turns if answered else turns[-1:]) if t)


def detect_language(text: str) -> str | None:
    """Return the language of ``text`` (``en``, ``zh``, ``de``, ...); None: there are no letters."""
    return _detect(text)[0]


def language_of(users: Sequence[str], answer: str) -> str:
    """Return the language of a conversation: of the user's turns, else the answer's, else ``en``.

    The system prompt decides nothing: English ones stand above Chinese conversations. Earlier turns
    and the answer are asked where the latest turn has too few words to tell. Where all of it has,
    plain ASCII words count as English.
    """
    # The latest turn first: a long pasted text in front must not outvote the request.
    found: str | None = None
    said = ""
    for text in (*reversed(users[-3:]), answer):
        said = f"{said}\n{_sample(text, _SAMPLE // 2)}"
        language, sure = _detect(said)
        found = language or found
        if language and sure >= _SURE:
            return language
    too_short = said.isascii() and len(said.split()) < _FEW
    return "en" if too_short else found or "en"


def _detect(text: str) -> tuple[str | None, float]:
    """The language and how sure that is, in [0, 1]."""
    sample = _CODE.sub(" ", _sample(text, _SAMPLE))
    if not _LETTERS.search(sample):
        sample = text[:_SAMPLE]
        if not _LETTERS.search(sample):
            return None, 0.0
    if not sample.isascii():
        # Ideographs weigh more than Latin words: Chinese text is full of Latin names.
        han = len(_HAN.findall(sample))
        if han and han >= len(_WORDS.findall(sample)) and not _KANA.search(sample):
            return "zh", 1.0
    language, sure = _identifier().classify(sample)
    if sure < _UNSURE and sample.isascii():
        return "en", sure
    return str(language), float(sure)


def _sample(text: str, n: int) -> str:
    """The beginning and the end of a text: a request stands before or behind what is pasted."""
    return text if len(text) <= n else f"{text[: n // 2]}\n{text[-(n // 2) :]}"


@lru_cache(maxsize=1)
def _identifier() -> Any:
    # A second and 100 MB: loaded where logs are read, never where they are captured.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LANGUAGES.split())
    return identifier
