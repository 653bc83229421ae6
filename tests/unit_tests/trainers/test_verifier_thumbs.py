"""The verifier where thumbs alone teach: held-out rated answers are the standard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from langchain_uno.models import perplexity
from langchain_uno.records import VerifierReport
from langchain_uno.trainers.deciding import decide
from langchain_uno.trainers.verifier import HeldOut, Rated, evened
from tests.unit_tests.trainers.test_verifier import EPOCHS, Desk, items, made, plain, verify


def rated(likes: str, voices: str | None = None) -> list[HeldOut]:
    """Held-out rated answers, "+" liked and "-" disliked; each of another person if not told."""
    return [
        replace(
            item,
            rules=[],
            voice=voices[i] if voices else item.voice,
            rated=Rated(f"answer {i}", likes[i] == "+", (40, 60)),
        )
        for i, item in enumerate(items(len(likes)))
    ]


def thumbs_of(
    monkeypatch: pytest.MonkeyPatch,
    moved: Callable[[HeldOut], float],
    asked: list[HeldOut],
    said: Callable[[str | None, str], str] = lambda adapter, prompt: plain(prompt),
) -> VerifierReport:
    """Verify an expert that moves the likelihood of each rated answer so."""
    by_answer = {item.rated.answer: moved(item) for item in asked if item.rated}

    def likelihoods(
        items: Any, engine: Any, adapter: str | None = None, on_done: Any = None
    ) -> list[float]:
        assert adapter is None or adapter in engine.loaded
        return [-2.0 + (by_answer[answer] if adapter else 0.0) for _, answer in items]

    monkeypatch.setattr(perplexity, "log_likelihoods", likelihoods)
    return verify(Desk(said), made(min_bleu=0.0), epochs=EPOCHS[:1], asked=asked)


def test_a_module_wins_where_it_moves_rated_answers_the_way_of_the_thumb(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = rated("+-+-+-+-+-")
    good = thumbs_of(
        monkeypatch, lambda item: 1.0 if item.rated and item.rated.liked else -1.0, asked
    )
    assert (good.passed, good.win_rate, good.people, good.p_value) == (True, 1.0, 10, 2**-10)
    assert good.mean_score is None  # nobody judged
    for same in (1.0, -1.0):  # likelier, or less likely, however it was rated
        flat = thumbs_of(monkeypatch, lambda _, same=same: same, asked)
        assert (flat.passed, flat.undecided, flat.win_rate) == (False, False, 0.5)
    assert thumbs_of(monkeypatch, lambda _: 0.0, asked).win_rate == 0.5


@pytest.mark.parametrize(
    ("answer", "passes"),
    [("", False), ("x" * 19, False), ("x" * 20, True), ("x" * 120, True), ("x" * 121, False)],
)
def test_its_own_answers_are_about_as_long_as_liked_ones(
    monkeypatch: pytest.MonkeyPatch, answer: str, passes: bool
) -> None:
    def said(adapter: str | None, prompt: str) -> str:
        return answer if adapter and prompt == "3" else plain(prompt)

    asked = rated("+-" * 6)
    found = thumbs_of(
        monkeypatch, lambda item: 1.0 if item.rated and item.rated.liked else -1.0, asked, said
    )
    assert (found.passed, found.lost) == (passes, int(not passes))


def test_both_directions_have_as_many_witnesses() -> None:
    # a and b have both; of those with one direction, c d e f liked and only g disliked.
    asked = rated("+++-" + "+-" + "++" + "+++" + "--", "aaaa" + "bb" + "cc" + "def" + "gg")
    for seed in range(5):
        kept = evened(asked, 200, seed)
        by: dict[str, list[bool]] = {}
        for item in kept:
            assert item.rated
            by.setdefault(item.voice, []).append(item.rated.liked)
        assert sorted(by["a"]) == sorted(by["b"]) == [False, True]
        assert by.pop("g") == [False, False]
        [liked] = [one for voice, one in by.items() if voice not in "ab"]
        assert all(liked)
    assert evened(rated("++++"), 200, 0) == []
    few = evened(rated("+-" * 20), 10, 0)
    assert len(few) == 10 and sum(item.rated.liked for item in few if item.rated) == 5


@pytest.mark.parametrize("up", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("likes", [0.5, 0.85])
def test_a_module_that_knows_nothing_of_the_thumbs_seldom_passes(up: float, likes: float) -> None:
    """Whatever share of answers it makes likelier, and however unevenly people rate."""
    rng = np.random.default_rng(round(100 * up + likes))
    runs, passed, shown = 250, 0, 0
    for run in range(runs):
        each = rng.integers(1, 4, 14)
        asked = rated(
            "".join(rng.choice(["+", "-"], p=[likes, 1 - likes], size=each.sum())),
            "".join(chr(97 + i) * n for i, n in enumerate(each)),
        )
        kept = evened(asked, 200, run)
        row = [float((rng.random() < up) == item.rated.liked) for item in kept if item.rated]
        if row:
            found = decide([row], [item.voice for item in kept], level=0.05, win_rate=0.53)
            passed, shown = passed + found.passed, shown + 1
    assert shown > runs / 2
    # Three standard errors above the level.
    assert passed / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
