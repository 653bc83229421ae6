"""The program that checks answers: it must accept what rules ask for, and notice every flaw."""

from __future__ import annotations

import pytest

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
