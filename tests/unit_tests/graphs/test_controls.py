"""Control questions: who says yes to everything, or scores all alike, is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.errors import EngineError
from langchain_uno.learning.controls import ANSWERS, judge_figure, passes, reranker_figure
from langchain_uno.models.loading import load_prompt_set, shared_engine
from langchain_uno.models.protocols import Engine
from langchain_uno.models.rerankers import EngineReranker
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Feedback
from tests.unit_tests.graphs.refresh_parts import (
    RECIPE,
    TRIED,
    UNTRAINED,
    changed,
    clusters_of,
    logs,
    make_home,
    pairs_of,
    refresh,
)
from tests.unit_tests.learning.toy_language import ToyEngine, ToyPrompts, ToyReranker, plain

BUNDLED = load_recipe("bundled")


class _Fixed(ToyReranker):
    """Answers every question alike, but for those in ``known``."""

    fingerprint = "fixed"

    def __init__(self, otherwise: float, known: dict[tuple[str, str], float] | None = None):
        super().__init__()
        self.otherwise, self.known = otherwise, known or {}

    def _covers(self, a: str, b: str) -> float:
        return self.known.get((a, b), self.otherwise)


def _judge(answer: Any) -> ToyEngine:
    engine = ToyEngine(answer)
    engine.can_judge = False
    return engine


def test_a_reranker_that_answers_all_alike_fails() -> None:
    for answer, right in ((0.0, (0, 6)), (0.17, (0, 6)), (0.83, (6, 0)), (1.0, (6, 0))):
        for language in ("en", "zh"):
            assert reranker_figure(_Fixed(answer), language) == right
            assert not passes(right)


def test_a_reranker_that_knows_the_paraphrases_passes_in_that_language() -> None:
    asked = _Fixed(0.0)
    reranker_figure(asked, "zh")
    alike, apart = asked.asked[:6], asked.asked[6:]
    assert len(apart) == 6
    assert not set(alike) & set(apart)
    knows = _Fixed(0.1, dict.fromkeys(alike, 0.9))
    assert reranker_figure(knows, "zh") == (6, 6)
    assert reranker_figure(knows, "en") == (0, 6)
    assert passes(reranker_figure(_Fixed(0.1, dict.fromkeys(alike[1:], 0.9)), "zh"))
    assert not passes(reranker_figure(_Fixed(0.1, dict.fromkeys(alike[2:], 0.9)), "zh"))


def test_a_judge_that_reads_the_rules_passes_and_others_fail() -> None:
    def scored(judged: Any) -> tuple[int, int]:
        return judge_figure(_judge(judged), ToyPrompts(), RECIPE, "zh")

    assert scored(plain) == (6, 6)
    assert scored(lambda what, request: "same 7") == (0, 0)
    assert scored(lambda what, request: "no score at all") == (0, 0)
    assert scored(lambda what, request: f"longest {1 + len(what['answer']) / 100}")[1] < 5
    # Who sees that something was added, but not which rule asked for it, likes both answers alike.
    many = dict.fromkeys(ANSWERS["zh"].values(), 9)
    assert scored(lambda what, request: f"formatted {many.get(what['answer'], 2)}") == (6, 0)


def test_the_bundled_model_passes_in_its_own_roles() -> None:
    engine, prompts = shared_engine(None), load_prompt_set("bundled")
    assert passes(reranker_figure(EngineReranker(engine, prompts), "en"))
    assert passes(judge_figure(engine, prompts, BUNDLED, "en"))


# --- in a refresh


def _flat(what: dict[str, Any], request: Any) -> str:
    return "same 7" if what["role"] == "judge" else plain(what, request)


def test_a_judge_that_can_t_judge_ends_the_refresh_before_it_costs(
    tmp_path: Path, engine: Engine
) -> None:
    home, teacher = make_home(tmp_path, logs()), _judge(_flat)
    with pytest.raises(EngineError, match=r"'toy' can't judge.* 0 of 12 \(en\).*--teacher"):
        refresh(home, engine, teacher=teacher)
    assert set(teacher.roles()) == {"judge"}, "nothing was distilled"
    assert len(teacher.asked) == 18
    result = refresh(home, engine, teacher=teacher, until="rules")
    assert any("can't judge" in note for note in result.notes)
    assert teacher.roles().count("judge") == 36, "asked anew: it may have been a bad minute"
    with pytest.raises(EngineError, match="can't judge"):
        refresh(home, engine, teacher=teacher)
    better = ToyEngine()
    better.fingerprint = "another"
    assert refresh(home, engine, UNTRAINED, teacher=better).release


def test_edits_teach_where_nobody_can_judge(tmp_path: Path, engine: Engine) -> None:
    some = logs()
    for one in some[::2]:
        edit = Feedback(run_id=one.run_id, correction=f"{one.answer} [sing]", user_id=one.user_id)
        one.feedback.append(edit)
    home = make_home(tmp_path, some)
    recipe = changed(TRIED, rules={"min_users": 1})
    result = refresh(home, engine, recipe, teacher=_judge(_flat), until="pairs")
    pairs = [p for c in clusters_of(home, result) for p in pairs_of(home, result)]
    assert pairs
    assert {p.origin for p in pairs} == {"edited"}


def test_a_useless_reranker_measures_no_gap_and_experts_are_tried_first(
    tmp_path: Path, engine: Engine
) -> None:
    guessed = [
        one.model_copy(
            update={"messages": [m.model_copy(update={"content": f"{m.content} (guess: sing)"})
                                 for m in one.messages]}
        )
        for one in logs()
    ]  # fmt: skip
    recipe = changed(RECIPE, gap={"unknown": 1.0})
    home, yes = make_home(tmp_path, guessed), _Fixed(1.0)
    result = refresh(home, engine, recipe, reranker=yes, until="gap")
    assert {c.gap for c in clusters_of(home, result)} == {None}
    assert result.stages["gap"]["unknown"] == len(clusters_of(home, result)) == 2
    assert result.stages["gap"]["low"] == 2, "experts are tried first, then critics"
    assert len(yes.asked) == 12, "only the control questions"
    assert not yes.asked_of_lists
    assert any("6 of 12 (en)" in note and "--reranker" in note for note in result.notes)
    figures = json.loads((home.work / "scorers.json").read_text())
    assert figures["judge"] == {"en": [6, 6]}
    assert figures["reranker"] == {"en": [6, 0]}


def test_the_release_says_who_judged(tmp_path: Path, engine: Engine) -> None:
    from langchain_uno.releases.load import read_manifest

    home = make_home(tmp_path, logs())
    result = refresh(home, engine, UNTRAINED)
    assert result.release
    assert read_manifest(home, result.release).figures["scorers"]["judge"] == {"en": [6, 6]}
    assert not any("the model itself" in note for note in result.notes)
    own = ToyEngine()
    own.fingerprint = engine.fingerprint
    other = make_home(tmp_path / "own", logs())
    told = refresh(other, engine, UNTRAINED, teacher=own).notes
    assert any("the judge is the model itself" in note.lower() for note in told)
