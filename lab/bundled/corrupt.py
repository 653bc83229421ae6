"""Flawed answers, and the true judgement of any answer as written evidence.

The judge is blind to wrong facts until it writes, per rule and per fact, what stands in the answer
before its yes or no; negatives obey *other* rules, and entities are checked like facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from random import Random

from langchain_uno.demo.answers import Query, Reading, read_answer
from langchain_uno.demo.language import Language, cap

__all__ = ["corrupt", "flawed_clause", "judge_evidence", "true_score"]


def corrupt(language: Language, query: Query, text: str, rng: Random) -> str:
    """Return ``text`` with one or two flaws: a changed, garbled, dropped, swapped or added fact."""
    out = text
    for _ in range(rng.choice((1, 1, 1, 2))):
        kind = rng.choice(("slot", "slot", "garble", "garble", "drop", "entity", "entity", "add"))
        fact = rng.choice(query.facts)
        if kind == "entity":
            header = f"the {query.kind} {query.entity}:"
            flawed = rng.choice(
                (
                    f"the {query.kind} {_garbled(query.entity, rng)}:",
                    f"the {query.kind} {_garbled(query.entity, rng)}:",
                    f"the {query.kind} {language.name(rng, unseen=False)}:",
                    f"the {rng.choice(language.families[query.family].kinds)} {query.entity}:",
                )
            )
            out = out.replace(header, flawed)
        elif kind == "add":
            out = _replaced(out, fact, f"{fact}. The {_other_clause(language, rng)[4:]}")
        elif kind == "drop":
            out = _dropped(out, fact)
        else:
            flawed = flawed_clause(language, fact, rng, garble=kind == "garble")
            out = _replaced(out, fact, flawed)
    return out


def flawed_clause(language: Language, clause: str, rng: Random, *, garble: bool) -> str:
    """Return ``clause`` with one word (not the first) garbled by a letter or two, or swapped."""
    words = clause.split(" ")
    i = rng.randrange(1, len(words))
    words[i] = _garbled(words[i], rng) if garble else _swapped(language, words[i], rng)
    return " ".join(words)


def judge_evidence(language: Language, query: Query, asked: Sequence[str], text: str) -> str:
    """Return the evidence lines and score that a perfect judge writes about ``text``."""
    reading = read_answer(language, query, text)
    versions, added = _versions(query, reading)
    found = dict(reading.lines)
    if reading.layout:
        found[reading.layout] = reading.items[0]
    lines = []
    for i, rule in enumerate(asked, 1):
        quote = " ".join(found[rule].split()[:3]) if rule in found else "none"
        lines.append(f"{i}. {quote} -> {'yes' if rule in found else 'no'}")
    name = f"{query.kind} {query.entity}"
    lines.append(f"{name} | {reading.name or 'none'} -> {_yes(reading.name == name)}")
    for fact, version in zip(query.facts, versions, strict=True):
        lines.append(f"{fact} | {version or 'none'} -> {_yes(version == fact)}")
    added += [line for rule, line in found.items() if rule not in asked]
    lines.append(f"added | {' '.join(added[0].split()[:3]) if added else 'none'}")
    lines.append(f"score {true_score(language, query, asked, text)}")
    return "\n".join(lines)


def true_score(language: Language, query: Query, asked: Sequence[str], text: str) -> int:
    """Return 10, less 3 per wrong fact or entity, 2 per unmet rule, 1 if anything was added."""
    reading = read_answer(language, query, text)
    versions, added = _versions(query, reading)
    met = {rule for rule, _ in reading.lines} | ({reading.layout} if reading.layout else set())
    wrong = sum(v != f for v, f in zip(versions, query.facts, strict=True))
    wrong += reading.name != f"{query.kind} {query.entity}"
    unmet = sum(rule not in met for rule in asked)
    surplus = bool(added) or bool(met - set(asked))
    return max(1, 10 - 3 * wrong - 2 * unmet - surplus)


def _versions(query: Query, reading: Reading) -> tuple[list[str | None], list[str]]:
    """Match each fact with the clause of the answer that states it; the rest was added."""
    rest = [c for c in reading.clauses if c not in query.facts]
    versions: list[str | None] = []
    for fact in query.facts:
        if fact in reading.clauses:
            versions.append(fact)
            continue
        ratio, best = max(
            ((SequenceMatcher(None, fact, c).ratio(), c) for c in rest), default=(0.0, "")
        )
        if ratio >= 0.6:
            rest.remove(best)
        versions.append(best if ratio >= 0.6 else None)
    return versions, rest


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _garbled(word: str, rng: Random) -> str:
    """Change a letter or two, as a model's copying slips do; never returns the same word."""
    letters = list(word)
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.randrange(len(letters))
        slip = rng.choice(("change", "drop", "double", "swap"))
        if slip == "drop" and len(letters) > 2:
            letters.pop(i)
        elif slip == "double":
            letters.insert(i, letters[i])
        elif slip == "swap" and i + 1 < len(letters):
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
        else:
            pool = "0123456789" if letters[i].isdigit() else "abdefgiklmnoprstuvw"
            letters[i] = rng.choice(pool)
    out = "".join(letters)
    return out if out != word and out.strip() else word + rng.choice("aeiou")


def _swapped(language: Language, word: str, rng: Random) -> str:
    for _ in range(20):
        if word.isdigit():
            other = str(rng.randint(2, 99))
        elif word in language.lexicon["colors"]:
            other = rng.choice(language.lexicon["colors"])
        elif word[:1].isupper():
            other = language.name(rng, unseen=False)
        else:
            other = rng.choice(language.lexicon["nouns"] + language.lexicon["verbs"])
        if other != word:
            return other
    return word + "a"


def _other_clause(language: Language, rng: Random) -> str:
    family = rng.choice(list(language.families.values()))
    return language.fill(rng.choice(family.facts), rng, unseen=False)


def _replaced(text: str, fact: str, new: str) -> str:
    return text.replace(cap(fact), cap(new)).replace(fact, new)


def _dropped(text: str, fact: str) -> str:
    kept = []
    for line in text.split("\n"):
        if (
            line.endswith(f"{cap(fact)}.")
            and not line.startswith("About")
            and len(line) < len(fact) + 12
        ):
            continue
        line = (
            line.replace(f" {cap(fact)}.", "").replace(f" {fact};", "").replace(f"; {fact}.", ".")
        )
        kept.append(line)
    return "\n".join(kept)
