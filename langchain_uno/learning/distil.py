"""Distil logs into rules (paper, stage 1).

From query, answer and feedback the model writes *rules with feedback*: short affirmative
instructions that concern the query only, none when the feedback says nothing usable. From the query
alone it writes *rules without feedback*: what it would have guessed. Only logs with words are asked
about, and the guess only where there is a rule to hold against it; nobody reads the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_uno.models.protocols import Engine, GenerateRequest, OnDone, Sampling
from langchain_uno.models.roles import PromptSet, RoleError
from langchain_uno.recipe import Recipe
from langchain_uno.records import Interaction, Message, Rule, RuleSet

__all__ = ["DistilStats", "distil", "unique_rules"]

_SPACE = re.compile(r"\s+")


@dataclass
class DistilStats:
    """What distilling a batch of logs came to; counts of logs."""

    logs: int = 0
    without_words: int = 0
    """Nobody said anything about the answer in words: nothing to distil."""
    unsupported: int = 0
    """The prompt set has no prompts for the log's language."""
    unparsable: int = 0
    """The model's text was not a list of rules; the log counts as one without rules."""
    empty: int = 0
    """The feedback says nothing usable (thanks, small talk, a new question)."""
    rules: int = 0
    """Rules with feedback, over all logs."""
    unparsable_guesses: int = 0
    """As ``unparsable``, for the rules without feedback."""

    def add(self, other: DistilStats) -> None:
        """Add another batch's counts to these."""
        for name in vars(other):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def distil(
    interactions: Sequence[Interaction],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
    *,
    predictor: Engine | None = None,
    predictor_prompts: PromptSet | None = None,
    stats: DistilStats | None = None,
) -> list[RuleSet]:
    """Return one rule set a log, in the order given; logs without words get empty ones.

    Args:
        interactions: usable logs.
        engine: writes the rules with feedback (the base model, or a teacher).
        prompts: words both roles for ``engine``.
        recipe: ``max_rule_tokens``, ``gap.max_guessed_rules``.
        on_done: hears of every log twice: when its feedback was read, and when its guess was made
            or found unneeded (``2 * len(interactions)`` in all).
        predictor: guesses the rules without feedback; the *base* model, whatever the teacher is,
            because the gap is the base model's. Default: ``engine``.
        predictor_prompts: the prompt set of ``predictor``. Default: ``prompts``.
        stats: counted up in place when given.

    Raises:
        EngineError: a model can't answer at all.
    """
    counts = DistilStats(logs=len(interactions))
    asked: list[Interaction] = []
    for log in interactions:
        if not log.feedback_turns:
            counts.without_words += 1
        elif not prompts.supports(log.language):
            counts.unsupported += 1
        else:
            asked.append(log)
    if on_done is not None and len(interactions) > len(asked):
        on_done(2 * (len(interactions) - len(asked)))
    with_feedback = _ask(
        engine,
        prompts,
        [prompts.distil_prompt(i.messages, i.answer, i.feedback_turns, i.language) for i in asked],
        recipe,
        None,
        on_done,
    )
    found: dict[str, list[Rule]] = {}
    for log, rules in zip(asked, with_feedback, strict=True):
        if rules is None:
            counts.unparsable += 1
        elif not rules:
            counts.empty += 1
        else:
            counts.rules += len(rules)
            found[log.run_id] = [Rule(text=r, source="feedback") for r in rules]
    guesser = predictor_prompts or prompts
    guessed = [i for i in asked if i.run_id in found and guesser.supports(i.language)]
    guesses = _ask(
        predictor or engine,
        guesser,
        [guesser.predict_prompt(i.messages, i.language) for i in guessed],
        recipe,
        recipe.gap.max_guessed_rules,
        on_done,
    )
    if on_done is not None and len(asked) > len(guessed):
        on_done(len(asked) - len(guessed))
    prior: dict[str, list[Rule]] = {}
    for log, rules in zip(guessed, guesses, strict=True):
        counts.unparsable_guesses += rules is None
        kept = (rules or [])[: recipe.gap.max_guessed_rules]
        prior[log.run_id] = [Rule(text=r, source="prior") for r in kept]
    if stats is not None:
        stats.add(counts)
    return [
        RuleSet(
            run_id=log.run_id,
            with_feedback=found.get(log.run_id, []),
            without_feedback=prior.get(log.run_id, []),
        )
        for log in interactions
    ]


def unique_rules(texts: Sequence[str]) -> list[str]:
    """Return the rules trimmed, in order, without empty ones and without repetitions.

    Two rules are the same when they differ only in case, spaces or the final full stop.
    """
    seen: dict[str, str] = {}
    for text in texts:
        trimmed = _SPACE.sub(" ", text).strip()
        key = trimmed.casefold().rstrip(".。 ")
        if key:
            seen.setdefault(key, trimmed)
    return list(seen.values())


def _ask(
    engine: Engine,
    prompts: PromptSet,
    asked: Sequence[Sequence[Message]],
    recipe: Recipe,
    max_rules: int | None,
    on_done: OnDone | None,
) -> list[list[str] | None]:
    """Ask for one list of rules a prompt, greedily; equal prompts once. None: unparsable."""
    keys: list[tuple[object, ...]] = [tuple((m.role, m.content) for m in p) for p in asked]
    unique: dict[tuple[object, ...], int] = {}
    for i, key in enumerate(keys):
        unique.setdefault(key, i)
    requests = [
        GenerateRequest(
            messages=asked[i],
            sampling=Sampling(max_tokens=recipe.max_rule_tokens),
            json_schema=prompts.rules_schema(max_rules),
        )
        for i in unique.values()
    ]
    generations = engine.generate(requests, on_done) if requests else []
    if on_done is not None and len(asked) > len(requests):
        on_done(len(asked) - len(requests))
    read: dict[object, list[str] | None] = {}
    for key, generation in zip(unique, generations, strict=True):
        try:
            read[key] = unique_rules(prompts.parse_rules(generation.text))
        except RoleError:
            read[key] = None
    return [read[key] for key in keys]
