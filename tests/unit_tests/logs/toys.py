"""Small real things for the log tests: an embedder of hashed words, and quick records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from hashlib import blake2b

import numpy as np

from langchain_uno.models.protocols import FloatArray, OnDone
from langchain_uno.records import Interaction, Message

START = datetime(2026, 1, 5, 9, 0, tzinfo=timezone.utc)


class WordEmbedder:
    """Counts hashed words, L2-normalised: a real, if simple, embedder; keeps what it embedded."""

    def __init__(self, dimension: int = 32, name: str = "words") -> None:
        self.dimension = dimension
        self.fingerprint = f"{name}-{dimension}"
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str], on_done: OnDone | None = None) -> FloatArray:
        out = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(out, texts, strict=True):
            self.texts.append(text)
            for word in text.lower().split():
                row[blake2b(word.encode(), digest_size=2).digest()[0] % self.dimension] += 1.0
            norm = float(np.linalg.norm(row))
            row /= norm or 1.0
        if on_done:
            on_done(len(texts))
        return out


def user(text: str) -> Message:
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def log(n: int, question: str = "", answer: str = "", **fields: object) -> Interaction:
    """Interaction number ``n``: fixed run id, a minute apart."""
    return Interaction.model_validate(
        {
            "run_id": f"00000000-0000-4000-8000-{n:012d}",
            "messages": [user(question or f"Question number {n}?")],
            "answer": answer or f"Answer number {n}.",
            "created_at": START + timedelta(minutes=n),
            **fields,
        }
    )
