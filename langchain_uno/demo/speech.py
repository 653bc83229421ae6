"""How users put wishes into words, and the noise they say instead."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from langchain_uno.demo.language import Language, cap

NOISE_KINDS = ("praise", "small_talk", "off_topic", "vague", "wrong", "hostile", "injection")


def wording(language: Language, rule: str, rng: Random, *, unseen: bool) -> str:
    """Return one way to ask for a rule: a clause in the imperative, lower case."""
    spec = language.rules[rule]
    return rng.choice(spec.unseen_wordings if unseen else spec.wordings)


def noise_line(language: Language, rng: Random, *, unseen: bool, kind: str | None = None) -> str:
    """Return a line that asks for nothing usable."""
    table = language.feedback["unseen_noise" if unseen else "noise"]
    lines = table[kind or rng.choice(NOISE_KINDS)]
    return language.fill(rng.choice(lines), rng, unseen=unseen)


def say_wishes(
    language: Language,
    rules: Sequence[str],
    rng: Random,
    *,
    unseen_frames: bool,
    unseen_wordings: bool,
) -> list[str]:
    """Return the turns in which a user asks for ``rules`` (at least one): usually a single turn."""
    table = language.feedback
    frames = table["unseen_frames" if unseen_frames else "frames"]
    joins = table["unseen_joins" if unseen_frames else "joins"]
    words = [wording(language, r, rng, unseen=unseen_wordings) for r in rules]
    sentences: list[str] = []
    while words:
        if len(words) >= 2 and rng.random() < 0.5:
            a, b = words.pop(0), words.pop(0)
            join = rng.choice(joins)
            sentences.append(join.format(a=a, b=b, A=cap(a), B=cap(b)))
        else:
            w = words.pop(0)
            sentences.append(rng.choice(frames).format(w=w, W=cap(w)))
    return sentences if len(sentences) > 1 and rng.random() < 0.3 else [" ".join(sentences)]
