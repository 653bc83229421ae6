"""Feedback through the handler: in any order, by several people, and refused when senseless."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.errors import InputError
from tests.unit_tests.callbacks.parts import logs, model


def test_feedback_before_its_run(home: Path, handler: UNOFeedbackHandler) -> None:
    run_id = uuid4()
    handler.feedback(run_id, comment="early")
    assert logs(home) == []
    model("x").invoke("q", {"callbacks": [handler], "run_id": run_id})
    assert [f.comment for f in logs(home)[0].feedback] == ["early"]


def test_several_people_rate_and_one_changes_his_mind(
    home: Path, handler: UNOFeedbackHandler
) -> None:
    answer = model("x").invoke("q", {"callbacks": [handler]})
    run = answer.id or ""
    handler.feedback(run, score=1, user_id="a", feedback_id="f1")
    handler.feedback(run, score=1, user_id="b")
    handler.feedback(run, score=0, user_id="a", feedback_id="f1")
    found = logs(home)[0].feedback
    assert {(f.user_id, f.score) for f in found} == {("a", 0.0), ("b", 1.0)}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "says nothing"),
        ({"comment": ""}, "says nothing"),
        ({"score": 5}, "from 0"),
        ({"score": -1}, "from 0"),
        ({"score": "good"}, "from 0"),
        ({"score": float("nan")}, "from 0"),
        ({"comment": 3}, "must be text"),
        ({"value": [1]}, "scalar"),
        ({"value": float("inf")}, "finite"),
        ({"key": "x" * 300}, "longer than"),
    ],
)
def test_feedback_that_makes_no_sense_is_refused(
    handler: UNOFeedbackHandler, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        handler.feedback(uuid4(), **given)
    with pytest.raises(InputError, match="run_id"):
        handler.feedback("", score=1)
