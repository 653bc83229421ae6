"""Feedback finds its answer, whenever and however it came."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import assistant, log, user

from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Feedback, Interaction

ROOT = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


def joined(folder: Path, *records: Interaction | Feedback) -> dict[int, list[str | float | None]]:
    """Append, reopen, join: number of the interaction -> comments or scores."""
    with Journal(folder) as journal:
        for record in records:
            if isinstance(record, Feedback):
                journal.append_feedback(record)
            else:
                journal.append_interaction(record)
    with Journal(folder, readonly=True) as journal:
        found = join(journal)
        return {
            int(i.run_id[-12:]): [f.comment or f.score for f in i.feedback]
            for i in read(journal, found)
            if i.feedback
        }


def follow(n: int, first: Interaction, text: str, **fields: object) -> Interaction:
    """An interaction whose prompt is the first one's conversation and a new turn."""
    prompt = [*first.messages, assistant(first.answer), user(text)]
    return log(n, **{"messages": prompt, "answer": f"Revised {n}.", **fields})


def test_feedback_by_run_id_and_by_message_id(tmp_path: Path) -> None:
    one = log(1)
    assert joined(
        tmp_path,
        one,
        Feedback(run_id=one.run_id, score=1.0),
        Feedback(run_id=f"lc_run--{one.run_id}-0", comment="shorter", key="comment"),
    ) == {1: [1.0, "shorter"]}


def test_feedback_may_come_before_its_run(tmp_path: Path) -> None:
    early = Feedback(run_id=log(1).run_id, comment="late answer")
    assert joined(tmp_path, early) == {}
    with Journal(tmp_path, readonly=True) as journal:
        assert len(journal.waiting()) == 1 and not join(journal).feedback
    assert joined(tmp_path, log(1)) == {1: ["late answer"]}


def test_feedback_on_a_trace_means_its_last_answer_with_text(tmp_path: Path) -> None:
    call = {"name": "f", "args": {}, "id": "1"}
    assert joined(
        tmp_path,
        log(1, root_run_id=ROOT),
        log(2, root_run_id=ROOT),
        log(3, root_run_id=ROOT).model_copy(update={"answer": "", "tool_calls": [call]}),
        log(4, root_run_id=OTHER),
        Feedback(run_id=ROOT, comment="good"),
    ) == {2: ["good"]}


def test_a_follow_up_is_found_by_the_conversation_alone(tmp_path: Path) -> None:
    first = log(1, user_id="u")
    assert joined(tmp_path, first, log(2), follow(3, first, "In bullets.", user_id="u")) == {
        1: ["In bullets."]
    }


def test_follow_ups_are_joined_when_the_journal_was_closed_between(tmp_path: Path) -> None:
    first = log(1)
    assert joined(tmp_path, first) == {}
    assert joined(tmp_path, follow(2, first, "In bullets.")) == {1: ["In bullets."]}


def test_a_follow_up_in_a_thread_that_sends_no_history(tmp_path: Path) -> None:
    assert joined(
        tmp_path,
        log(1, thread_id="t"),
        log(2, thread_id="other"),
        log(3, "No, shorter.", thread_id="t"),
    ) == {1: ["No, shorter."]}


def test_an_export_with_the_newest_row_first(tmp_path: Path) -> None:
    """LangSmith's list_runs and Langfuse's exports begin with the latest run."""
    talk = [log(1, thread_id="t"), log(2, "No, shorter.", thread_id="t"), log(3, "Thanks.")]
    first = log(4)
    records = [follow(5, first, "In bullets."), first, *reversed(talk)]
    assert joined(tmp_path, *records) == {1: ["No, shorter."], 4: ["In bullets."]}


@pytest.mark.parametrize(
    ("text", "own"),
    [
        # prompts of Open WebUI and of LibreChat for titles, of a guard, of a translator
        ("Generate a title:\nUser: {question}\nAssistant: {answer}", True),
        ("Is this safe?\n\n{answer}", False),
        ("Translate: {answer}", False),
    ],
)
def test_a_turn_with_the_whole_answer_in_it_is_no_remark(
    tmp_path: Path, text: str, own: bool
) -> None:
    first = log(1, thread_id="t")
    quoting = text.format(question=first.messages[0].content, answer=first.answer)
    records = [first, log(2, quoting, thread_id="t"), log(3, "Shorter.", thread_id="t")]
    assert joined(tmp_path, *records) == ({1: ["Shorter."]} if own else {2: ["Shorter."]})
    with Journal(tmp_path, readonly=True) as journal:
        assert join(journal).own == ({log(2).run_id} if own else set())


def test_a_short_answer_may_stand_in_a_remark_by_chance(tmp_path: Path) -> None:
    first = log(1, "When?", "At 6", thread_id="t")
    assert joined(tmp_path, first, log(2, "At 6 pm? Name the day.", thread_id="t")) == {
        1: ["At 6 pm? Name the day."]
    }


def test_the_answer_from_which_the_conversation_goes_on_was_shown(tmp_path: Path) -> None:
    """A Langfuse trace of an answer and a guard, and the next request with the history."""
    first = log(1, root_run_id=ROOT)
    guard = log(2, "Is this safe?", "It is safe.", root_run_id=ROOT)
    records = [first, guard, follow(3, first, "In bullets."), Feedback(run_id=ROOT, score=1.0)]
    assert joined(tmp_path, *records) == {1: ["In bullets.", 1.0]}


def test_the_same_question_again_is_no_follow_up(tmp_path: Path) -> None:
    assert joined(tmp_path, log(1, "Why?", thread_id="t"), log(2, "Why?", thread_id="t")) == {}


def test_steps_of_one_trace_do_not_follow_each_other(tmp_path: Path) -> None:
    assert (
        joined(
            tmp_path,
            log(1, "Classify: a", thread_id="t", root_run_id=ROOT),
            log(2, "Answer: a", thread_id="t", root_run_id=ROOT),
        )
        == {}
    )


def test_an_agents_steps_hear_the_turn_once(tmp_path: Path) -> None:
    first = log(1, thread_id="t", root_run_id=ROOT)
    step = follow(2, first, "Now with sources.", thread_id="t", root_run_id=OTHER)
    step = step.model_copy(
        update={"answer": "", "tool_calls": [{"name": "f", "args": {}, "id": "1"}]}
    )
    last = follow(3, first, "Now with sources.", thread_id="t", root_run_id=OTHER)
    assert joined(tmp_path, first, step, last) == {1: ["Now with sources."]}


def test_other_users_and_threads_do_not_mix(tmp_path: Path) -> None:
    mine, yours = log(1, "Same?", "Same.", user_id="a"), log(2, "Same?", "Same.", user_id="b")
    assert joined(tmp_path, mine, yours, follow(3, mine, "Not for me.", user_id="a")) == {
        1: ["Not for me."]
    }


def test_equal_conversations_share_out_their_follow_ups(tmp_path: Path) -> None:
    one, two = log(1, "Same?", "Same."), log(2, "Same?", "Same.")
    found = joined(tmp_path, one, two, follow(3, one, "X"), follow(4, two, "Y"))
    assert sorted(found) == [1, 2]


def test_a_follow_up_told_explicitly_is_not_counted_twice(tmp_path: Path) -> None:
    first = log(1)
    told = Feedback(run_id=first.run_id, key="follow_up", comment="In bullets.")
    assert joined(tmp_path, first, told, follow(2, first, "In bullets.")) == {1: ["In bullets."]}


def test_the_apps_own_calls_are_neither_conversation_nor_follow_up(tmp_path: Path) -> None:
    first = log(1, thread_id="t", root_run_id=ROOT)
    title = log(2, "Write a title for this talk.", thread_id="t", tags={"own_call": "nostream"})
    records = [first, title, log(3, "Shorter.", thread_id="t", root_run_id=OTHER)]
    assert joined(tmp_path, *records, Feedback(run_id=ROOT, score=1.0)) == {1: ["Shorter.", 1.0]}
    with Journal(tmp_path, readonly=True) as journal:
        assert join(journal).own == {title.run_id}


def test_feedback_on_an_own_call_itself_stays_there(tmp_path: Path) -> None:
    title = log(1, tags={"own_call": "nostream"})
    assert joined(tmp_path, title, Feedback(run_id=title.run_id, score=0.0)) == {1: [0.0]}


def test_names_find_their_run_before_and_after_and_an_import_brings_them(tmp_path: Path) -> None:
    one = log(1).model_copy(update={"message_ids": ["resp_1", "chatcmpl-1"]})
    early, late = Feedback(run_id="resp_1", score=1.0), Feedback(run_id="chatcmpl-1", score=0.0)
    assert joined(tmp_path, early, one, late) == {1: [1.0, 0.0]}
    with Journal(tmp_path, readonly=True) as journal:
        assert {f.run_id for f in journal.feedback()} == {one.run_id}
        assert journal.run_named("resp_1") == one.run_id
        assert journal.run_named("resp_2") == "resp_2"


def test_a_root_stands_for_the_run_that_it_is_said_to(tmp_path: Path) -> None:
    two = [log(n, root_run_id=ROOT) for n in (1, 2)]
    early = Feedback(run_id=ROOT, comment="Early.", created_at=two[0].created_at)
    assert joined(tmp_path, early, *two) == {2: ["Early."]}
    with Journal(tmp_path) as journal:
        journal.append_names([(ROOT, two[0].run_id)])
    assert joined(tmp_path, Feedback(run_id=ROOT, comment="Late.")) == {1: ["Early.", "Late."]}


def test_thoughts_in_imported_answers_are_left_out(tmp_path: Path) -> None:
    first = log(1, answer="<think>so</think>Quay 6.")
    later = log(2).model_copy(
        update={"messages": [*first.messages, assistant("Quay 6."), user("When?")]}
    )
    assert joined(tmp_path, first, later) == {1: ["When?"]}
    with Journal(tmp_path, readonly=True) as journal:
        assert next(journal.interactions([first.run_id])).answer == "Quay 6."


def test_a_question_that_is_edited_is_no_remark(tmp_path: Path) -> None:
    """Open WebUI, LibreChat, LangGraph's forks: the thread goes on from a new beginning."""
    one = log(1, thread_id="t")
    two = follow(2, one, "And to Spain?", thread_id="t")
    anew = log(3, "How long does it take to Italy?", thread_id="t")
    four = follow(4, anew, "Shorter, please.", thread_id="t")
    assert joined(tmp_path, one, two, anew, four) == {
        1: ["And to Spain?"],
        3: ["Shorter, please."],
    }
