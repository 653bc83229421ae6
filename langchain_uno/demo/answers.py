"""Queries that carry their facts, the answers that rules ask for, and the program that checks them.

An answer is: opener lines, a header ``About the KIND ENTITY:`` with the facts, closer lines. The
checker reads any text and says which facts are right, which rules are met and what was added.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from langchain_uno.demo.language import Language, RuleSpec, cap


@dataclass(frozen=True)
class Query:
    """One request: its text, and the truth it carries."""

    family: str
    kind: str
    entity: str
    facts: tuple[str, ...]
    """Clauses such as ``the battery lasts 12 hours``."""
    attributes: tuple[str, ...]
    """Of ``urgent``, ``beginner``, ``expert``."""
    text: str


@dataclass(frozen=True)
class Check:
    """What a program found in an answer."""

    facts_right: int
    facts: int
    entity_right: bool
    met: frozenset[str]
    """Ids of all rules that the answer obeys, asked or not."""
    extra: tuple[str, ...] = field(default=())
    """Lines or clauses that are neither a fact, the header nor any rule's line."""

    @property
    def faithful(self) -> bool:
        """All facts right, the right entity, and nothing made up."""
        return self.facts_right == self.facts and self.entity_right and not self.extra


def _rule_line(rule: RuleSpec, query: Query) -> str:
    """Return the line that an opener or closer adds to the answer of ``query``."""
    return rule.form.format(
        kind=query.kind,
        entity=query.entity,
        first=query.facts[0],
        last=query.facts[-1],
        n=len(query.facts),
    )


def render_answer(language: Language, query: Query, rules: Collection[str]) -> str:
    """Return the answer that states every fact and obeys exactly ``rules`` (ids).

    Of several layouts the first in the catalogue wins.
    """
    chosen = [r for r in language.rules.values() if r.id in rules]
    layout = next((r for r in chosen if r.place == "layout"), None)
    header = f"About the {query.kind} {query.entity}:"
    if layout is None:
        body = header + " " + " ".join(cap(f) + "." for f in query.facts)
    elif layout.id == "one_sentence":
        body = header + " " + "; ".join(query.facts) + "."
    else:
        lines = [layout.form.format(i=i, fact=cap(f)) for i, f in enumerate(query.facts, 1)]
        body = "\n".join([header, *lines])
    openers = [_rule_line(r, query) for r in chosen if r.place == "opener"]
    closers = [_rule_line(r, query) for r in chosen if r.place == "closer"]
    return "\n".join([*openers, body, *closers])


@dataclass(frozen=True)
class Reading:
    """An answer taken apart: rule lines in order, header name, body items and their clauses."""

    lines: tuple[tuple[str, str], ...]
    """(rule id, line) of every opener and closer found."""
    name: str | None
    """What stands between ``About the`` and the colon."""
    items: tuple[str, ...]
    clauses: tuple[str, ...]
    layout: str | None


def read_answer(language: Language, query: Query, text: str) -> Reading:
    """Take any answer to ``query`` apart."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    wanted = {_rule_line(r, query): r.id for r in language.rules.values() if r.place != "layout"}
    known = tuple((wanted[line], line) for line in lines if line in wanted)
    rest = [line for line in lines if line not in wanted]
    names = [m.group(1) for m in map(_HEADER.match, rest) if m]
    items = tuple(item for line in rest if (item := _HEADER.sub("", line)))
    return Reading(known, names[0] if names else None, items, _clauses(items), _layout(items))


def check_answer(language: Language, query: Query, text: str) -> Check:
    """Read an answer: facts, entity, rules met, and anything added."""
    reading = read_answer(language, query, text)
    met = {rule for rule, _ in reading.lines}
    if reading.layout:
        met.add(reading.layout)
    found = {c for c in reading.clauses if c in query.facts}
    extra = tuple(c for c in reading.clauses if c not in query.facts)
    entity_right = reading.name == f"{query.kind} {query.entity}"
    return Check(len(found), len(query.facts), entity_right, frozenset(met), extra)


_HEADER = re.compile(r"\AAbout the ([^:]{1,60}):\s*")
_MARKS: Sequence[tuple[str, re.Pattern[str]]] = (
    ("bullets", re.compile(r"- ")),
    ("numbered", re.compile(r"\d+\. ")),
    ("checklist", re.compile(r"\[ \] ")),
    ("steps", re.compile(r"Step \d+: ")),
)
_MARK = re.compile(rf"\A(?:{'|'.join(mark.pattern for _, mark in _MARKS)})")


def _layout(items: Sequence[str]) -> str | None:
    for name, mark in _MARKS:
        if items and all(mark.match(item) for item in items):
            return name
    if len(items) == 1 and "; " in items[0] and items[0].count(".") == 1:
        return "one_sentence"
    return None


def _clauses(items: Sequence[str]) -> tuple[str, ...]:
    out = []
    for item in items:
        for part in re.split(r"[.;](?:\s+|$)", _MARK.sub("", item)):
            part = part.strip()
            if part:
                out.append(part[:1].lower() + part[1:])
    return tuple(out)
