"""Where decisions hold when clusters change, and which of several counts."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_uno.learning.decisions import Decision, Rulings, instead
from langchain_uno.learning.work import ClusterData
from langchain_uno.records import Message, PreferencePair, digest_of

RUNS = [f"run-{n}" for n in range(10)]


def cluster(name: str, runs: list[str]) -> ClusterData:
    return ClusterData(id=name, run_ids=runs, train=runs, verify=[])


def on_rule(what: Any, *, text: str | None = None, **more: Any) -> Decision:
    more = {"wordings": {"sing": RUNS}, "anchor": RUNS, "cluster": "c0", **more}
    return Decision(by="ann", what=what, kind="rule", row="rule-1", text=text, **more)


def taught(decisions: list[Decision], clusters: list[ClusterData]) -> dict[str, str | None]:
    find = Rulings(decisions, clusters).on_rules({"sing": "sing", "sing~2": "sing"})
    return {c.id: instead("sing~2", find(c.id, "sing~2")) for c in clusters}


def test_a_decision_follows_the_logs_of_its_cluster() -> None:
    renamed = [cluster("c0", ["other"]), cluster("c7", RUNS)]
    assert taught([on_rule("exclude")], renamed) == {"c0": "sing~2", "c7": None}
    split = [cluster("c1", RUNS[:6]), cluster("c2", RUNS[6:9]), cluster("c3", RUNS[9:])]
    assert taught([on_rule("exclude")], split) == {"c1": None, "c2": None, "c3": "sing~2"}
    # A rule of one's own has one place.
    own = Rulings([on_rule("add", text="hum", wordings={})], split).own
    assert {name: list(rules) for name, rules in own.items()} == {"c1": ["hum"], "c2": [], "c3": []}


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        ([on_rule("exclude", anchor=[])], {"c0": None, "c1": None}),
        ([on_rule("exclude", anchor=[]), on_rule("restore")], {"c0": "sing~2", "c1": None}),
        ([on_rule("restore"), on_rule("exclude", anchor=[])], {"c0": None, "c1": None}),
        ([on_rule("edit", text="hum")], {"c0": "hum", "c1": "sing~2"}),
        ([on_rule("edit", text="hum"), on_rule("restore")], {"c0": "sing~2", "c1": "sing~2"}),
        ([on_rule("exclude", anchor=["gone"])], {"c0": "sing~2", "c1": "sing~2"}),
    ],
)
def test_the_latest_decision_counts(
    decisions: list[Decision], expected: dict[str, str | None]
) -> None:
    clusters = [cluster("c0", RUNS), cluster("c1", ["other"])]
    assert taught(decisions, clusters) == expected


def test_decisions_on_pairs_and_logs_hold_for_everybody_who_spoke_of_the_answer() -> None:
    second = f"{RUNS[0]}#said-by-1"
    base = {"by": "ann", "row": "x", "log": RUNS[0]}
    off = Decision(what="exclude", kind="log", **base)
    pair = PreferencePair(
        run_id=second, messages=[Message(role="user", content="q")], chosen="b", rejected="a"
    )
    on_pair = Decision(what="exclude", kind="pair", chosen=digest_of("b"), **base)
    rulings = Rulings([off, on_pair], [cluster("c0", [*RUNS, second])])
    assert rulings.is_out(second) and rulings.is_out(RUNS[0]) and not rulings.is_out(RUNS[1])
    assert rulings.on_pair(pair) == on_pair
    assert rulings.on_pair(pair.model_copy(update={"chosen": "c"})) is None
    assert rulings.touched == {off.id: {RUNS[0], second}, on_pair.id: {RUNS[0], second}}
    back = Decision(what="restore", kind="log", **base)
    assert not Rulings([off, back], [cluster("c0", RUNS)]).is_out(RUNS[0])
