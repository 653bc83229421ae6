"""Feedback through the handler: in any order, by several people, and refused when senseless."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableLambda

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.erasure import forget
from langchain_uno.errors import ForgottenError, InputError
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Feedback, utc_now
from tests.unit_tests.callbacks.parts import logs, model


def test_feedback_before_its_run(home: Path, handler: UNOFeedbackHandler) -> None:
    run_id = uuid4()
    handler.feedback(run_id, comment="early")
    assert logs(home) == []
    model("x").invoke("q", {"callbacks": [handler], "run_id": run_id})
    assert [f.comment for f in logs(home)[0].feedback] == ["early"]


def test_ids_may_be_uuids_and_numbers_and_corrections_have_no_thoughts(
    home: Path, handler: UNOFeedbackHandler
) -> None:
    run, person = uuid4(), uuid4()
    RunnableLambda(lambda text: model("x").invoke(text)).invoke(
        "q", {"callbacks": [handler], "run_id": run}
    )
    handler.feedback(run.hex, correction="<think>Six.</think>Quay 6.", user_id=person)
    handler.feedback(run, score=1, user_id=17)
    found = [(f.user_id, f.correction, f.score) for f in logs(home)[0].feedback]
    assert found == [(str(person), "Quay 6.", None), ("17", None, 1.0)]
    assert forget(handler.home, user_id=17)["feedback"] == 1


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


@pytest.mark.parametrize("who", ["ada", "bob"])
def test_what_is_said_after_an_erasure_is_recorded_under_the_same_id(
    home: Path, handler: UNOFeedbackHandler, who: str
) -> None:
    """An app names a vote by its message, and the page's thumbs have ids of answer and person."""
    asked = {"callbacks": [handler], "metadata": {"user_id": "cleo"}}
    run = model("x").invoke("q", asked).id or ""
    handler.feedback(run, score=0, user_id="ada", feedback_id="vote-7")
    [old] = logs(home)[0].feedback
    assert forget(handler.home, user_id="ada")["feedback"] == 1
    assert logs(home)[0].feedback == []
    with Journal(handler.home.journal) as journal:  # what waited, and an old export without times
        assert not journal.append_feedback(old)
        anew = old.model_copy(update={"user_id": None, "created_at": utc_now()})
        assert not journal.append_feedback(anew, replace=False)
    handler.feedback(run, score=1, user_id=who, feedback_id="vote-7")
    handler.feedback(run, score=0.5, user_id=who, feedback_id="vote-7")
    assert [(f.user_id, f.score) for f in logs(home)[0].feedback] == [(who, 0.5)]


def test_forgotten_words_that_a_client_sends_again_stay_away(
    home: Path, handler: UNOFeedbackHandler
) -> None:
    """An app sends a call again that it took for lost: with the id that tells it is the same."""
    asked = {"callbacks": [handler], "metadata": {"user_id": "cleo"}}
    run = model("x").invoke("q", asked).id or ""
    said: dict[str, Any] = {"comment": "Ada wants bullets.", "feedback_id": "vote-7"}
    handler.feedback(run, **said, user_id="ada")
    forget(handler.home, user_id="ada")
    for who in ("ada", None):
        with pytest.raises(ForgottenError):
            handler.feedback(run, **said, user_id=who)
    assert logs(home)[0].feedback == []
    for who, more in (("ada", {"comment": "Use bullets."}), ("bob", {"feedback_id": "vote-8"})):
        handler.feedback(run, **{**said, **more}, user_id=who)
    assert {f.user_id for f in logs(home)[0].feedback} == {"ada", "bob"}


def test_an_id_that_several_people_use_names_feedback_of_each(
    home: Path, handler: UNOFeedbackHandler
) -> None:
    """An app may name feedback by the message alone, in threads of many people."""
    run = model("x").invoke("q", {"callbacks": [handler]}).id or ""
    said = {"feedback_id": f"{run}-rating", "comment": "mine"}
    ids = [handler.feedback(run, user_id=who, **said).feedback_id for who in ("a", "b", "c", "b ")]
    assert ids[1] == ids[3] and len(set(ids)) == 3
    handler.feedback(run, user_id="b", score=0, feedback_id=said["feedback_id"])
    found = {(f.user_id, f.comment, f.score) for f in logs(home)[0].feedback}
    assert found == {("a", "mine", None), ("b", None, 0.0), ("c", "mine", None)}
    assert forget(handler.home, user_id="b")["feedback"] == 1
    assert {f.user_id for f in logs(home)[0].feedback} == {"a", "c"}
    # Whoever had an id of their own keeps it when the first person is forgotten.
    assert forget(handler.home, user_id="a")["feedback"] == 1
    handler.feedback(run, user_id="c", score=1, feedback_id=said["feedback_id"])
    assert [(f.user_id, f.score) for f in logs(home)[0].feedback] == [("c", 1.0)]
    long = "x" * 160
    for n in (1, 2):
        for who in ("c", "d"):
            handler.feedback(run, user_id=who, score=0, feedback_id=f"{long}{n}")
    assert len(logs(home)[0].feedback) == 5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "says nothing"),
        ({"comment": ""}, "says nothing"),
        ({"key": "  ", "comment": " \n"}, "says nothing"),
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


def test_a_key_of_blanks_is_none(handler: UNOFeedbackHandler) -> None:
    said = [handler.feedback(uuid4(), key, score=1, comment=" ") for key in ("  ", " like ", None)]
    assert [one.key for one in said] == ["score", "like", "score"]


def test_a_message_names_its_answer_and_other_things_name_none(
    home: Path, handler: UNOFeedbackHandler
) -> None:
    assert handler.feedback(AIMessage("hello", id="run-7"), score=1).run_id == "run-7"
    with pytest.raises(InputError, match="dict names no answer"):
        handler.feedback({"id": "run-7"}, score=1)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        handler.feedback(AIMessage("hello"), score=1)  # without an id


def test_a_run_id_used_again_is_kept_apart_and_said(
    handler: UNOFeedbackHandler, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = uuid4()
    for text in ("One.", "Two."):
        model(text).invoke("Which?", config={"callbacks": [handler], "run_id": run})
        handler.feedback(run, comment=f"On {text}")
    assert {log.answer: log.feedback_turns for log in logs(home)} == {
        "One.": ["On One."],
        "Two.": ["On Two."],
    }
    assert handler.stats()["recorded"] == 2 and handler.stats()["renamed"] == 1
    assert "was used before" in caplog.text


def test_two_open_runs_with_one_id_are_dropped_and_counted(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    run, result = uuid4(), LLMResult(generations=[[ChatGeneration(message=AIMessage("A"))]])
    for text in ("One?", "Two?"):
        handler.on_chat_model_start({}, [[HumanMessage(text)]], run_id=run)
    for _ in range(2):
        handler.on_llm_end(result, run_id=run)
    assert logs(home) == [] and handler.stats()["dropped"] == 2


def test_a_vote_with_an_older_clock_changes_nothing_and_is_said(
    handler: UNOFeedbackHandler, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = model("A").invoke("Which?", config={"callbacks": [handler]})
    ahead = Feedback(
        feedback_id="thumb",
        run_id=answer.id or "",
        key="score",
        score=1.0,
        created_at=utc_now() + timedelta(hours=1),
    )
    with Journal(handler.home.journal) as other_host:
        other_host.append_feedback(ahead)
    stands = handler.feedback(answer.id, score=0, feedback_id="thumb")
    assert (stands.score, stands.created_at) == (1.0, ahead.created_at)
    assert [f.score for f in logs(home)[0].feedback] == [1.0]
    assert handler.stats()["outdated"] == 1 and handler.stats()["feedback"] == 0
    assert "was not changed" in caplog.text


def test_a_feedback_id_of_another_answer_is_refused(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    one, two = (model(t).invoke("Which?", config={"callbacks": [handler]}) for t in ("A", "B"))
    handler.feedback(one.id, score=1, feedback_id="thumb")
    with pytest.raises(InputError, match="on another answer"):
        handler.feedback(two.id, score=0, feedback_id="thumb")
    assert {log.answer: log.score for log in logs(home)} == {"A": 1.0, "B": None}


def test_feedback_on_a_forgotten_answer_is_refused_in_words(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    answer = model("A").invoke("Which?", config={"callbacks": [handler]})
    forget(handler.home, run_ids=[answer.id])
    with pytest.raises(ForgottenError, match="was forgotten"):
        handler.feedback(answer.id, score=0)
    assert handler.stats()["feedback"] == 0


def test_two_handlers_on_one_home_record_an_answer_once(
    handler: UNOFeedbackHandler, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One on the model and one among the config's callbacks."""
    with UNOFeedbackHandler(home=home) as other:
        chat = FakeListChatModel(responses=["One."], callbacks=[handler])
        answer = chat.invoke("Which?", {"callbacks": [other]})
        other.feedback(answer, comment="Shorter.")
    assert [(log.answer, log.feedback_turns) for log in logs(home)] == [("One.", ["Shorter."])]
    assert "used before" not in caplog.text


def test_an_answer_from_langchains_cache_is_an_answer_of_its_own(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """LangChain gives it with the message id of the run that filled the cache."""
    chat = FakeListChatModel(responses=["One."], cache=InMemoryCache())
    runs = {"ada": uuid4(), "bob": uuid4()}
    for user, run in runs.items():
        chat.invoke(
            "Which?", {"callbacks": [handler], "run_id": run, "metadata": {"user_id": user}}
        )
    for user, run in runs.items():
        handler.feedback(run, comment=f"I am {user}.")
    assert {log.user_id: log.feedback_turns for log in logs(home)} == {
        "ada": ["I am ada."],
        "bob": ["I am bob."],
    }


def test_feedback_on_a_further_candidate_is_none_on_the_first(
    handler: UNOFeedbackHandler, home: Path
) -> None:
    """Of several answers to one request (``n=2``) LangChain gives the first, which is kept."""
    result = LLMResult(generations=[[ChatGeneration(message=AIMessage(a)) for a in ("A", "B")]])
    run = uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("Which?")]], run_id=run)
    handler.on_llm_end(result, run_id=run)
    handler.feedback(f"lc_run--{run}-0", comment="Of the first.")
    with pytest.raises(InputError, match="further answers"):
        handler.feedback(f"lc_run--{run}-1", comment="Of the second.")
    assert [log.feedback_turns for log in logs(home)] == [["Of the first."]]
