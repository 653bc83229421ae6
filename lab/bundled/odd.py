"""Random words in the places of meaning, so that nothing but the form can be learnt.

Trained on the seen frames and facts alone, the bundled model answers all seen requests and two
thirds of the unseen ones: it knows the frames and does not read. With any word in any place, what
is left to learn is to find the kind, the name, the facts and the wish, and to copy.
"""

from __future__ import annotations

import re
from functools import lru_cache
from random import Random

from langchain_uno.demo.language import Language, cap

__all__ = ["OddWords", "babble"]


def babble(language: Language, rng: Random) -> str:
    """Return a sentence of random words: new words alone are no request."""
    lex = language.lexicon
    words = [
        rng.choice(
            (
                rng.choice(lex["nouns"]),
                rng.choice(lex["verbs"]),
                language.name(rng, unseen=False),
                str(rng.randint(2, 99)),
            )
        )
        for _ in range(rng.randint(2, 7))
    ]
    return cap(" ".join(words)) + rng.choice((".", "?", "!"))


class OddWords:
    """Draws words, facts, frames and requests that say nothing, from one random stream."""

    def __init__(self, language: Language, rng: Random) -> None:
        """Use ``rng``, shared with the caller."""
        self.language, self.rng = language, rng
        self._bag = _word_bag(language)

    def request(self, kind: str, entity: str, facts: str) -> str:
        """A frame in random words: only kind, name and facts can be read."""
        rng = self.rng
        thing = rng.choice(
            (
                f"the {kind} {entity}",
                f"the {kind} {entity}",
                f"{kind} {entity}",
                f"our {kind} {entity}",
                f"{entity}, {rng.choice(('a', 'the', 'our', 'this', 'my', 'one'))} {kind}",
            )
        )
        before, after = self.words(6, 1), self.words(5)
        parts = [*before, thing, *after]
        lead = (
            ""
            if rng.random() < 0.3
            else rng.choice((". ", ", ", "? ")) + cap(" ".join(self.words(5, 1)))
        )
        tail = "" if rng.random() < 0.5 else " " + cap(" ".join(self.words(6, 1))) + "."
        return f"{cap(' '.join(parts))}{lead}: {facts}.{tail}"

    def words(self, most: int, least: int = 0) -> list[str]:
        """Random words: common ones, those of any text of the world, and odd ones."""
        rng = self.rng
        return [
            rng.choice(self.language.lexicon["common"])
            if rng.random() < 0.45
            else (rng.choice(self._bag) if rng.random() < 0.7 else self.word())
            for _ in range(rng.randint(least, most))
        ]

    def fact(self) -> str:
        """A clause ``the ...``: any family's template with odd words in it, or odd words alone."""
        rng, lex = self.rng, self.language.lexicon
        if rng.random() < 0.3:
            family = rng.choice(list(self.language.families.values()))
            words = self.language.fill(rng.choice(family.facts), rng, unseen=False).split(" ")
            for i in range(1, len(words)):
                if rng.random() < 0.35:
                    words[i] = self.word()
            return " ".join(words)
        if rng.random() < 0.35:
            return "the " + " ".join(self.words(6, 2))
        words = [rng.choice(lex["nouns"]) if rng.random() < 0.4 else self.word()]
        words.append(rng.choice(lex["verbs"]) if rng.random() < 0.5 else self.word())
        if rng.random() < 0.5:
            words += [
                rng.choice(("in", "of", "at", "with", "for", "after", "near", "by")),
                self.word(),
            ]
        if rng.random() < 0.4:
            words += [str(rng.randint(2, 99))]
        words.append(rng.choice((rng.choice(lex["nouns"]), self.word(), self.word())))
        return "the " + " ".join(words)

    def frame(self, wish: str) -> str:
        """A wish among random words, so that no frame is needed to hear it."""
        rng, common = self.rng, self.language.lexicon["common"]

        def words(most: int, least: int = 0) -> list[str]:
            return [
                rng.choice(common) if rng.random() < 0.8 else self.word()
                for _ in range(rng.randint(least, most))
            ]

        lead = " ".join(words(6)) + rng.choice((",", ":", "", "", "", " to", " that you"))
        tail = words(4, 1) if rng.random() < 0.35 else []
        return cap(" ".join([lead.strip(), wish, *tail]).strip()) + rng.choice((".", ".", "!", "?"))

    def word(self) -> str:
        """A word to copy: a made-up name, pieces of English, plain letters, or a number."""
        rng = self.rng
        draw = rng.random()
        if draw < 0.15:
            return rng.choice(self._bag)
        if draw < 0.4:
            name = self.language.name(rng, unseen=False)
            return name if rng.random() < 0.6 else name.lower()
        if draw < 0.75:
            pieces = self.language.lexicon["pieces"]
            word = "".join(rng.choice(pieces) for _ in range(rng.choice((1, 2, 2, 3))))
            return cap(word) if rng.random() < 0.2 else word
        if draw < 0.9:
            return "".join(
                rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 6))
            )
        return str(rng.randint(0, 999))


@lru_cache(maxsize=4)
def _bag_of(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({w for t in texts for w in re.findall(r"[a-z]{2,}", t.lower())}))


def _word_bag(language: Language) -> tuple[str, ...]:
    """Every word of the seen half, except the kinds of things (they name the family)."""
    texts = [f for family in language.families.values() for f in (*family.frames, *family.facts)]
    texts += [w for r in language.rules.values() for w in (r.form, *r.wordings)]
    texts += [line for lines in language.feedback["noise"].values() for line in lines]
    kinds = {w for f in language.families.values() for k in f.kinds for w in k.split()}
    slots = {"kind", "entity", "facts", "fact", "name", "place", "color", "first", "last"}
    return tuple(w for w in _bag_of(tuple(texts)) if w not in kinds | slots)
