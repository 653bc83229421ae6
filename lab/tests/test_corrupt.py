"""Flawed answers are flawed, and the true judge agrees with the program that checks answers."""

from __future__ import annotations

from random import Random

from lab.bundled.corrupt import corrupt, judge_evidence, true_score
from lab.bundled.curriculum import Curriculum
from langchain_uno.demo.answers import check_answer, render_answer
from langchain_uno.demo.language import load_language

LANGUAGE = load_language()


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
        assert curriculum.prompts.parse_judgement(evidence) == score


def test_corruption_is_real_nearly_always() -> None:
    curriculum, rng = Curriculum(seed=13), Random(0)
    flawed = 0
    for _ in range(300):
        query = curriculum.query()
        text = render_answer(LANGUAGE, query, curriculum.rules(2))
        flawed += not check_answer(LANGUAGE, query, corrupt(LANGUAGE, query, text, rng)).faithful
    assert flawed >= 290
