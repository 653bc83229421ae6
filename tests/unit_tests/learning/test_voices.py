"""Whose word counts: who said it, else who asked, else nobody who is known."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from langchain_uno.records import (
    ANONYMOUS,
    Feedback,
    Interaction,
    by_speaker,
    run_of,
    voice_of,
    voices_of,
)
from tests.unit_tests.learning.toy_language import log

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def said(comment: str, user_id: str | None = None, minute: int = 0) -> Feedback:
    return Feedback(
        run_id="r",
        comment=comment,
        user_id=user_id,
        created_at=START + timedelta(minutes=minute),
    )


def asked(*feedback: Feedback, run_id: str = "r", **more: Any) -> Interaction:
    return log(run_id, "how do I cook rice?", "boil it", extra=list(feedback), **more)


@pytest.mark.parametrize(
    ("feedback", "asker", "thread", "voice"),
    [
        (said("shorter", "critic"), "asker", "t", "user:critic"),
        (said("shorter"), "asker", "t", "user:asker"),
        (said("shorter", "critic"), None, None, "user:critic"),
        (said("shorter"), None, "t", "thread:t"),
        (said("shorter"), None, None, ANONYMOUS),
    ],
)
def test_who_said_it_else_who_asked_else_the_thread(
    feedback: Feedback, asker: str | None, thread: str | None, voice: str
) -> None:
    one = asked(feedback, user_id=asker, thread_id=thread)
    assert voice_of(one, threads=True) == voice
    assert voices_of([one]) == {"r": voice}


def test_where_nobody_is_named_every_thread_is_a_voice() -> None:
    logs = [
        asked(said("a"), run_id="1", thread_id="t"),
        asked(said("b"), run_id="2", thread_id="t"),
        asked(said("c"), run_id="3", thread_id="u"),
        asked(said("d"), run_id="4"),
        asked(said("e"), run_id="5"),
    ]
    assert list(voices_of(logs).values()) == [
        "thread:t",
        "thread:t",
        "thread:u",
        ANONYMOUS,
        ANONYMOUS,
    ]


@pytest.mark.parametrize("named", [asked(said("x", "ann"), run_id="n"), asked(run_id="n")])
def test_beside_one_named_person_all_others_are_one_voice(named: Interaction) -> None:
    if not named.feedback:
        named.user_id = "ann"
    logs = [
        named,
        asked(said("a"), run_id="1", thread_id="t"),
        asked(said("b"), run_id="2", thread_id="u"),
    ]
    assert voices_of(logs) == {"n": "user:ann", "1": ANONYMOUS, "2": ANONYMOUS}


def test_no_name_and_no_thread_can_be_mistaken_for_another() -> None:
    logs = [
        asked(said("a", "anonymous"), run_id="1"),
        asked(said("b", "thread:t"), run_id="2"),
        asked(said("c"), run_id="3", thread_id="t"),
    ]
    assert len(set(voices_of(logs).values())) == 3


def test_a_log_is_told_apart_by_who_spoke() -> None:
    one = asked(
        said("the asker, later", minute=3),
        said("a stranger", "stranger", minute=1),
        said("the asker", "asker", minute=2),
        said("another one", "other", minute=4),
        user_id="asker",
    )
    parts = by_speaker(one)
    assert [p.feedback_turns for p in parts] == [
        ["a stranger"],
        ["the asker", "the asker, later"],
        ["another one"],
    ]
    assert [voice_of(p) for p in parts] == ["user:stranger", "user:asker", "user:other"]
    assert parts[0].run_id == "r"
    assert len({p.run_id for p in parts}) == 3
    assert {run_of(p.run_id) for p in parts} == {"r"}
    assert all(p.messages == one.messages and p.answer == one.answer for p in parts)


def test_a_log_of_one_speaker_stays_as_it_is() -> None:
    for one in (
        asked(said("a", "asker"), said("b"), user_id="asker"),
        asked(said("a"), said("b")),
        asked(),
    ):
        assert by_speaker(one) == [one]


def test_a_stranger_alone_is_the_same_as_a_stranger_first() -> None:
    alone = asked(said("a", "stranger"), user_id="asker")
    first = asked(said("a", "stranger"), said("b", "asker", minute=1), user_id="asker")
    [before], [after, _] = by_speaker(alone), by_speaker(first)
    same = {"feedback": {0: {"feedback_id"}}, "created_at": True}
    assert before.model_dump(exclude=same) == after.model_dump(exclude=same)
    assert before.run_id == "r" and before.user_id == "stranger"


def test_run_ids_of_apps_come_back_whole() -> None:
    assert run_of("any#id") == "any#id"
    assert run_of("") == ""


def test_a_run_id_that_looks_like_a_part_is_told_from_it() -> None:
    both = [said("please sing", "ann"), said("please dance", "bob", 1)]
    one = log("r", "question", "answer", user_id="ann").model_copy(update={"feedback": both})
    part = by_speaker(one)[1].run_id
    foreign = log(part, "another question", "answer", "please hum", user_id="eve")
    found = [*by_speaker(one), *by_speaker(foreign), *by_speaker(log(part, "quiet", "answer"))]
    assert [run_of(log_id.run_id) for log_id in found] == ["r", "r", part, part]
    assert len({log_id.run_id for log_id in found[:3]}) == 3
