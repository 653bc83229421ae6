"""A critic is reminded of the rules that hold for the request, and of no other."""

from __future__ import annotations

import pytest

from langchain_uno.learning.remind import remind
from langchain_uno.records import Cluster

KNOWN = Cluster(
    id="c0",
    size=9,
    rules=["End with a summary.", "Give the deadline first.", "Use bullets.", "Write prose."],
    conditions=[[], ["urgent", "right now"], [], []],
    rivals=[("Write prose.", "Use bullets.")],
)


@pytest.mark.parametrize(
    ("suggestions", "query", "wanted"),
    [
        # What the critic forgot is added; of two rivals the more supported.
        ([], "Plan a trip.", ["End with a summary.", "Use bullets."]),
        # What it says comes first and is not said twice, however it is spelt.
        (["use bullets"], "Plan a trip.", ["use bullets", "End with a summary."]),
        # A condition that holds adds its rule; one that does not takes it out.
        (
            ["Use bullets.", "Name a price."],
            "I need it right now.",
            ["Use bullets.", "Name a price.", "End with a summary.", "Give the deadline first."],
        ),
        (
            ["Give the deadline first."],
            "Nowhere near urgently.",
            ["End with a summary.", "Use bullets."],
        ),
        # The rarer rival stays when the critic asks for it.
        (["Write prose."], "Plan a trip.", ["Write prose.", "End with a summary."]),
    ],
)
def test_rules_that_hold(suggestions: list[str], query: str, wanted: list[str]) -> None:
    assert remind(suggestions, query, KNOWN) == wanted


def test_a_cluster_without_rules_changes_nothing() -> None:
    assert remind(["Be brief.", "Be brief."], "Hello", Cluster(id="c", size=1)) == ["Be brief."]


def test_releases_from_before_conditions_were_stored() -> None:
    old = KNOWN.model_copy(update={"conditions": [], "rivals": []})
    assert remind([], "Plan a trip.", old) == KNOWN.rules
