"""Intervals by hand, choices by table, rivals that retrieve what they should, honest tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.studies.choices import CHOICES, compose
from lab.studies.figures import (
    gap_against_experts,
    noise_costs,
    on_front,
    pooled,
    shipped,
    threshold_for,
    verifier_against_truth,
)
from lab.studies.rivals import Past, by_bm25, by_embeddings, from_memory
from lab.studies.study import SYSTEMS
from lab.studies.tables import draw, draw_gap, markdown
from langchain_uno.demo.asking import Answered, as_columns
from langchain_uno.demo.intervals import auc, by_user
from langchain_uno.graphs.refresh_trials import Trial
from langchain_uno.learning.aggregate import ClusterRules, RecurringRule
from langchain_uno.learning.conditions import Condition
from langchain_uno.records import VerifierReport


def test_intervals_resample_users_not_requests() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=20)  # one a user, ten requests each: 20 cases, not 200
    values = np.repeat(effects, 10)
    users = [f"u{i // 10}" for i in range(200)]
    grouped, alone = by_user(values, users), by_user(values, list(range(200)))
    assert grouped["mean"] == alone["mean"] == pytest.approx(float(values.mean()))
    width = grouped["high"] - grouped["low"]
    assert width == pytest.approx(2 * 1.96 * effects.std() / np.sqrt(20), rel=0.15)
    assert width > 2 * (alone["high"] - alone["low"])


def test_auc_of_the_separable_the_random_and_the_one_sided() -> None:
    found = auc([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert found is not None and found["mean"] == 1.0
    rng = np.random.default_rng(1)
    noise = auc(rng.random(200), rng.random(200) < 0.5)
    assert noise is not None and noise["low"] < 0.5 < noise["high"]
    assert auc([1.0, 2.0], [True, True]) is None


def trial(passed: bool, rate: float = 0.9) -> Trial:
    report = VerifierReport(
        kind="expert", n=10, win_rate=rate, interval=(0.1, 1.0), passed=passed, reason=""
    )
    return Trial(report=report, adapter="x")


@pytest.mark.parametrize(
    ("low", "expert", "critic", "routes"),
    [
        # uno, single, paper's rule, no gap, no verifier
        (True, trial(True), trial(True), "expert expert expert expert expert"),
        (False, trial(True), trial(True), "critic base critic expert critic"),
        (True, trial(False, 0.6), trial(True), "critic base expert critic expert"),
        (True, trial(False, 0.4), trial(False), "base base critic base expert"),
        (False, trial(False), trial(False), "base base critic base critic"),
        (True, Trial(), trial(True), "critic base critic critic critic"),
        (False, Trial(), Trial(), "base base base base base"),
    ],
)
def test_choices(low: bool, expert: Trial, critic: Trial, routes: str) -> None:
    trials: Any = {"expert": expert, "critic": critic}
    found = {name: choose(low, trials, 0.53) for name, choose in CHOICES.items()}
    order = ["uno", "single", "paper's rule", "no gap", "no verifier"]
    wanted = dict(zip(order, routes.split(), strict=True))
    assert found == {**wanted, "no memory": wanted["uno"]}


@pytest.mark.parametrize(
    ("low", "expert", "memory", "critic", "routes"),
    [
        # uno, no memory, single, no gap, no verifier
        (True, trial(True), trial(True), trial(True), "expert expert expert expert expert"),
        (False, trial(True), trial(True), trial(True), "memory critic base expert memory"),
        (False, trial(True), trial(False), trial(True), "critic critic base expert memory"),
        (True, trial(False), trial(True), trial(False), "memory base base memory expert"),
        (True, trial(False), Trial(), trial(False), "base base base base expert"),
        # An expert that the memory beats on the same queries gives way to it.
        (True, trial(True, 0.8), trial(True), trial(True), "memory expert expert memory expert"),
        (True, trial(True, 0.8), trial(False), trial(True), "expert expert expert expert expert"),
    ],
)
def test_a_memory_comes_between(
    low: bool, expert: Trial, memory: Trial, critic: Trial, routes: str
) -> None:
    bare = memory.model_copy(update={"adapter": None})  # there is none
    trials: Any = {"expert": expert, "memory": bare, "critic": critic}
    order = ["uno", "no memory", "single", "no gap", "no verifier"]
    assert [CHOICES[name](low, trials, 0.53) for name in order] == routes.split()


def answered(score: float, cluster: str | None, *, facts: bool = True, text: str = "") -> Answered:
    return Answered(
        score=score,
        all_met=score == 100,
        unwanted=False,
        facts=facts,
        tokens_in=10,
        tokens_out=5,
        seconds=0.1,
        text=text,
        cluster=cluster,
    )


def test_compose_takes_each_request_from_its_cluster_s_route() -> None:
    clusters = ["c0", "c1", "c2", None]
    base, expert, memory, critic = (
        [answered(0, c, text=f"{kind} {i}") for i, c in enumerate(clusters)]
        for kind in ("base", "expert", "memory", "critic")
    )
    modules: Any = {"expert": expert, "memory": memory, "critic": critic}
    out = compose({"c0": "expert", "c1": "critic", "c2": "base"}, base, modules)
    assert [a.text for a in out] == ["expert 0", "critic 1", "base 2", "base 3"]
    assert [a.route for a in out] == ["expert", "critic", "base", "base"]
    out = compose({"c1": "memory"}, base, modules)
    assert [a.text for a in out] == ["base 0", "memory 1", "base 2", "base 3"]


class Letters:
    """Counts of letters: near texts share letters."""

    fingerprint = "letters"

    def embed(self, texts: Any, on_done: Any = None) -> Any:
        rows = np.array([[t.count(c) for c in "abcdefghij"] for t in texts], np.float32)
        return rows / np.maximum(1e-9, np.linalg.norm(rows, axis=1, keepdims=True))


def test_rivals_retrieve_the_nearest_and_say_nothing_twice() -> None:
    queries = ["aaa ab", "aab", "bbb", "ccc", "ddd", "eee"]
    rules = [["be brief"], ["be brief", "use bullets"], ["warn"], ["thank"], [], ["sign"]]
    past = Past(queries, Letters().embed(queries), rules)
    near = by_embeddings(past, Letters(), nearest=2)
    assert near(["aaa"]) == [["be brief", "use bullets"]]
    words = by_bm25(past, nearest=1)
    assert words(["where is ccc?"]) == [["thank"]]
    one = RecurringRule(text="warn", mentions=3, users=3, support=0.5)
    urgent = Condition(words=("urgent",), inside=1.0, outside=0.0, p_value=0.01)
    two = one.model_copy(update={"text": "be brief", "condition": urgent})
    known = ClusterRules(recurring=(one, two))
    assert from_memory([known, None])(["x", "y"]) == [["warn", "be brief"], []]
    held = [[rule.text for rule in known.wanted_for(q)] for q in ("x", "it is urgent")]
    assert held == [["warn"], ["warn", "be brief"]]


def result(seed: int, *, good: float, gap: float, noise: float = 0.34) -> dict[str, Any]:
    """A cell of two clusters by four users: experts fail in c1, where they lose the facts."""
    clusters = ["c0", "c1"] * 8

    def rows(score: float, lost: str | None = None) -> dict[str, list[float]]:
        return as_columns([answered(score, c, facts=c != lost) for c in clusters])

    answers = {name: rows(good) for name in SYSTEMS}
    answers["base"] = rows(0)
    for name in ("expert everywhere", "no verifier"):
        answers[name] = rows(good, lost="c1")
    route = {"c0": "expert", "c1": "critic"}
    routes = {name: dict(route) for name in CHOICES}
    routes["single"] = {"c0": "expert", "c1": "base"}
    trials = {"expert": {"passed": True, "win_rate": 0.9, "seconds": 30.0, "judged": 20}}
    return {
        "cell": {"seed": seed, "noise": noise, "variant": "standard"},
        "users": [f"user-{i % 4}" for i in range(16)],
        "clusters": clusters,
        "answers": answers,
        "routes": routes,
        "per_cluster": [
            {"id": "c0", "gap": 0.1, "trials": trials},
            {"id": "c1", "gap": gap, "trials": trials},
        ],
    }


def test_tables_count_what_is_below_base() -> None:
    results = [result(1, good=90, gap=0.8), result(2, good=80, gap=0.9)]
    figures = pooled(results)
    assert figures["uno"]["score"]["mean"] == 85.0
    assert figures["uno"]["score-base"]["low"] > 0
    assert figures["expert everywhere"]["facts-base"]["mean"] == -50.0
    assert figures["uno"]["right"]["mean"] == 0.0  # some wish unmet in each answer
    perfect = pooled([result(1, good=100, gap=0.8)])
    assert perfect["uno"]["right"]["mean"] == 100.0
    assert perfect["expert everywhere"]["right-uno"]["mean"] == -50.0  # the facts of c1
    older = result(3, good=70, gap=0.8)
    del older["answers"]["memory, conditions"]
    assert "memory, conditions" not in pooled([*results, older])
    assert "memory, conditions" in pooled(results)
    count = shipped(results)
    assert count["uno"] == {
        "shipped": 4, "score below": 0, "facts below": 0, "below": 0, "base": 0, "by chance": 1
    }  # fmt: skip
    assert count["single"]["base"] == 2
    assert count["no verifier"]["below"] == count["no verifier"]["facts below"] == 2
    gap = gap_against_experts([result(1, good=100, gap=0.8), result(2, good=100, gap=0.9)])
    assert (gap["clusters"], gap["failed"]) == (4, 2)
    assert gap["auc"]["mean"] == 1.0
    assert (gap["expert_seconds"], gap["spared_seconds"]) == (120.0, 60.0)
    page = markdown(results)
    assert "**standard**, worlds 1 and 2, noise 34%:" in page
    assert "| no verifier | 4 | 0 | 2 | 0 | 2 | 1 |" in page


def test_noise_is_paired_with_the_same_world_without() -> None:
    results = [
        result(1, good=90, gap=0.8, noise=0.0),
        result(1, good=86, gap=0.8),
        result(2, good=10, gap=0.8),  # has no clean twin: does not count
    ]
    [(noise, cost)] = noise_costs(results).items()
    assert (noise, cost["worlds"]) == (0.34, 1)
    assert cost["uno"]["mean"] == 4.0
    assert "| uno | 4.0 (4.0 to 4.0) |" in markdown(results)
    assert noise_costs(results[1:]) == {}


def test_the_verifier_is_held_against_the_truth() -> None:
    one = result(1, good=90, gap=0.8)
    shared = dict(one["per_cluster"][0]["trials"]["expert"])
    low = {**shared, "passed": False, "win_rate": 0.6}
    one["per_cluster"][0]["trials"] = {"expert": low, "critic": {**shared, "passed": False}}
    found = verifier_against_truth([one])
    # Both modules of c0 are better and were refused; the expert of c1 loses facts and was shipped.
    assert found["interval"] == {
        "right": 0, "false ships": 1, "false refusals": 2, "judgements": 60
    }  # fmt: skip
    # By the point both of c0 ship, the critic unseen.
    assert found["paper's rule"] == {
        "right": 2, "false ships": 1, "false refusals": 0, "judgements": 40
    }  # fmt: skip
    # A memory is counted by itself: the paper has none.
    one["per_cluster"][0]["trials"]["memory"] = shared
    again = verifier_against_truth([one])
    assert again.pop("memories") == {
        "right": 1, "false ships": 0, "false refusals": 0, "judgements": 20
    }  # fmt: skip
    assert again == {name: found[name] for name in again}
    # A critic that does what nobody wants there is no better than base: rightly refused.
    one["answers"]["critic everywhere"]["unwanted"] = [1, 0, 0, 0] * 4
    again = verifier_against_truth([one])
    assert again["interval"] == {**found["interval"], "right": 1, "false refusals": 1}


def test_a_threshold_is_moved_as_little_as_needed() -> None:
    apart = [(0.1, 0.0, False), (0.6, 0.0, False), (0.8, 9.0, True)]
    assert threshold_for(apart) == pytest.approx(0.7)
    assert threshold_for([(0.1, 0.0, False), (0.8, 9.0, True)]) == 0.45
    assert threshold_for([]) == 0.45
    assert threshold_for([(0.2, 9.0, True), (0.3, 9.0, True)]) == 0.0


def test_pictures(tmp_path: Path) -> None:
    results = [result(1, good=90, gap=0.8), result(1, good=90, gap=0.8, noise=0.0)]
    files = draw(results, tmp_path)
    draw_gap(results, tmp_path / "gap.png")
    assert [f.name for f in files] == ["study-standard.png"]
    assert all(f.stat().st_size > 10_000 for f in (*files, tmp_path / "gap.png"))


def test_the_embedded_judge_is_not_talked_into_a_ten() -> None:
    from lab.studies.judge_audit import audit_judge
    from langchain_uno.demo.drawing import make_world
    from langchain_uno.models.loading import load_prompt_set, shared_engine
    from langchain_uno.recipe import load_recipe

    found = audit_judge(
        make_world(77),
        shared_engine(None),
        load_prompt_set("bundled"),
        load_recipe("bundled"),
        per_family=1,
    )
    assert found["requests"] == 8 and found["unreadable"] < 0.1
    assert found["auc"]["plain"]["mean"] > 0.95 and found["auc"]["flawed"]["mean"] > 0.85
    for name, added in found["added"].items():
        assert added["overtakes"] == 0, name
        assert added["change"]["plain"]["high"] < 0.5, name


def test_the_front_is_who_nobody_beats_at_both() -> None:
    def row(right: float, tokens: float) -> dict[str, Any]:
        return {"right": {"mean": right}, "tokens_in": tokens, "tokens_out": 0.0}

    rows = {"a": row(0, 10), "b": row(50, 20), "c": row(50, 21), "d": row(40, 30), "e": row(90, 99)}
    assert on_front({**rows, "f": row(90, 99)}) == {"a", "b", "e", "f"}


def test_a_variant_that_is_no_more_comes_last() -> None:
    old = result(1, good=90, gap=0.8)
    old["cell"] = {**old["cell"], "variant": "ancient"}
    page = markdown([old, result(1, good=90, gap=0.8)])
    assert page.index("**standard**, world 1") < page.index("**ancient**, world 1")
