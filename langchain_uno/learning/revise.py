"""Write better answers to logged queries (paper, stage 2).

Candidates come from two inputs: the raw feedback *without* the old answer (a fresh start), and
rules, feedback and the old answer (a careful edit). They are sampled, so that the judge has a
choice; seeds depend on recipe, log and number alone, so that a refresh can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_uno.models.judge import stable_seed
from langchain_uno.models.protocols import Engine, GenerateRequest, OnDone, Sampling
from langchain_uno.models.roles import PromptSet
from langchain_uno.recipe import Recipe
from langchain_uno.records import Interaction, Message, RuleSet

__all__ = ["Candidate", "count_candidates", "revise", "wanted_rules"]


@dataclass(frozen=True)
class Candidate:
    """One revised answer and where it came from."""

    text: str
    origin: Literal["feedback", "rules"]


def wanted_rules(rules: RuleSet) -> list[str]:
    """Return the rules an answer should follow: the aggregated list, else the log's own."""
    return [rule.text for rule in (rules.wanted or rules.with_feedback)]


def count_candidates(interaction: Interaction, rules: RuleSet, recipe: Recipe) -> int:
    """Return how many candidates :func:`revise` will ask for."""
    return len(_prompts(interaction, rules, None, recipe))


def revise(
    interactions: Sequence[Interaction],
    rule_sets: Sequence[RuleSet],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
) -> list[list[Candidate]]:
    """Return the usable candidates of every log, in the order given (possibly none).

    Empty candidates are dropped, those cut off at the length limit (an answer without its end must
    not be imitated), those equal to the logged answer and repetitions.

    Args:
        interactions: logs; those in a language the prompt set lacks get no candidates.
        rule_sets: one a log; ``wanted`` is used where it is set, and a log without rules gets no
            candidates.
        engine: the writer (the base model, or a teacher).
        prompts: words the two inputs.
        recipe: ``pairs`` (numbers, temperature, top-p, length) and ``seed``.
        on_done: hears of every candidate (:func:`count_candidates` a log).

    Raises:
        EngineError: the model can't answer at all.
    """
    requests: list[GenerateRequest] = []
    owners: list[tuple[int, Literal["feedback", "rules"]]] = []
    for i, (log, rules) in enumerate(zip(interactions, rule_sets, strict=True)):
        for k, (origin, messages) in enumerate(_prompts(log, rules, prompts, recipe)):
            sampling = Sampling(
                temperature=recipe.pairs.temperature,
                top_p=recipe.pairs.top_p,
                max_tokens=recipe.pairs.max_answer_tokens,
                seed=stable_seed(recipe.seed, log.run_id, str(k)),
            )
            requests.append(GenerateRequest(messages=messages, sampling=sampling))
            owners.append((i, origin))
    out: list[list[Candidate]] = [[] for _ in interactions]
    for (i, origin), made in zip(
        owners, engine.generate(requests, on_done) if requests else [], strict=True
    ):
        text = made.text.strip()
        known = {c.text for c in out[i]} | {interactions[i].answer.strip()}
        if text and made.finish_reason == "stop" and text not in known:
            out[i].append(Candidate(text, origin))
    return out


def _prompts(
    log: Interaction, rule_set: RuleSet, prompts: PromptSet | None, recipe: Recipe
) -> list[tuple[Literal["feedback", "rules"], list[Message]]]:
    """List the inputs of a log's candidates (with empty messages when only counting)."""
    rules, words = wanted_rules(rule_set), log.feedback_turns
    if not rules or (prompts is not None and not prompts.supports(log.language)):
        return []
    made: list[tuple[Literal["feedback", "rules"], list[Message]]] = []
    if words and recipe.pairs.candidates_from_feedback:
        fresh = prompts.revise_feedback_prompt(log.messages, words, log.language) if prompts else []
        made += [("feedback", fresh)] * recipe.pairs.candidates_from_feedback
    if recipe.pairs.candidates_from_rules:
        edit = (
            prompts.revise_rules_prompt(log.messages, log.answer, rules, words, log.language)
            if prompts
            else []
        )
        made += [("rules", edit)] * recipe.pairs.candidates_from_rules
    return made
