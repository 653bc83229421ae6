"""The program that checks answers: it must accept what rules ask for, and notice every flaw."""

from __future__ import annotations

from random import Random

import pytest

from lab.bundled.corrupt import corrupt, judge_evidence, true_score
from lab.bundled.curriculum import Curriculum
from langchain_uno.demo.answers import Query, check_answer, render_answer
from langchain_uno.demo.language import load_language

LANGUAGE = load_language()
QUERY = Query(
    family="product",
    kind="kettle",
    entity="Tamiro",
    facts=("the battery lasts 12 hours", "the price is 4 euros"),
    attributes=(),
    text="A customer asks about the kettle Tamiro.",
)


def test_every_rule_renders_and_checks() -> None:
    for rule in LANGUAGE.rules:
        check = check_answer(LANGUAGE, QUERY, render_answer(LANGUAGE, QUERY, [rule]))
        assert check.met == {rule}
        assert check.faithful


def test_plain_answer_meets_no_rule() -> None:
    check = check_answer(LANGUAGE, QUERY, render_answer(LANGUAGE, QUERY, []))
    assert not check.met
    assert check.faithful


@pytest.mark.parametrize(
    ("flaw", "facts", "entity"),
    [
        ("About the kettle Tamiro: The battery lasts 13 hours. The price is 4 euros.", 1, True),
        ("About the kettle Tamira: The battery lasts 12 hours. The price is 4 euros.", 2, False),
        ("About the lamp Tamiro: The battery lasts 12 hours. The price is 4 euros.", 2, False),
        ("About the kettle Tamiro: The battery lasts 12 hours. The price is 45 euros.", 1, True),
        ("About the kettle Tamiro: The price is 4 euros.", 1, True),
        ("", 0, False),
    ],
)
def test_flaws_are_noticed(flaw: str, facts: int, entity: bool) -> None:
    check = check_answer(LANGUAGE, QUERY, flaw)
    assert check.facts_right == facts
    assert check.entity_right is entity
    assert not check.faithful


def test_random_answers_round_trip() -> None:
    curriculum = Curriculum(seed=11)
    for _ in range(500):
        query, rules = curriculum.query(), curriculum.rules(5)
        check = check_answer(LANGUAGE, query, render_answer(LANGUAGE, query, rules))
        assert check.faithful and check.met == set(rules), (query, rules, check)


def test_judge_evidence_agrees_with_the_checker() -> None:
    curriculum = Curriculum(seed=12)
    for _ in range(300):
        query, asked = curriculum.query(), curriculum.rules(3)
        text = corrupt(LANGUAGE, query, render_answer(LANGUAGE, query, asked), curriculum.rng)
        score = true_score(LANGUAGE, query, asked, text)
        clean = check_answer(LANGUAGE, query, text)
        assert (score == 10) == (clean.faithful and clean.met == set(asked))
        evidence = judge_evidence(LANGUAGE, query, asked, text)
        assert evidence.endswith(f"score {score}")
        assert curriculum.prompts.parse_judgement(evidence).score == score


def test_corruption_is_real_nearly_always() -> None:
    curriculum, rng = Curriculum(seed=13), Random(0)
    flawed = 0
    for _ in range(300):
        query = curriculum.query()
        text = render_answer(LANGUAGE, query, curriculum.rules(2))
        flawed += not check_answer(LANGUAGE, query, corrupt(LANGUAGE, query, text, rng)).faithful
    assert flawed >= 290
