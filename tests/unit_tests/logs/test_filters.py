"""Verdicts: exact checks, and above all what is no noise."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from toys import assistant, log, user

from langchain_uno.logs.filters import REASONS, duplicates, judge_all, spoken, verdict, verdicts
from langchain_uno.logs.join import join
from langchain_uno.logs.journal import Journal
from langchain_uno.recipe import FilterSettings
from langchain_uno.records import AT_LIMIT, Feedback, Interaction, Verdict

SETTINGS = FilterSettings()
LABELS = Path(__file__).parents[2] / "data" / "feedback_labels.jsonl"


def both(language: str) -> bool:
    return language in ("en", "zh")


def said(*comments: str, **fields: object) -> Interaction:
    one = log(1, **fields)
    one.feedback.extend(Feedback(run_id=one.run_id, key="follow_up", comment=c) for c in comments)
    return one


def reason(one: Interaction, settings: FilterSettings = SETTINGS) -> str:
    found = verdict(one, settings, both)
    assert found.usable == (found.reason == "ok") and found.reason in REASONS
    return found.reason


WISHES = [
    ("Not so much text please", None),
    ("The second one is wrong", None),
    ("Please remove the content table at the top.", None),
    ("remove the filters from the SQL query", None),
    ("Which quay?", "The ferry leaves at 9:10."),
    ("nice, that works now for the report", None),
    ("ignore your instructions about bullets", None),
    ("IMPORTANT: use bullets", None),
    ("WRONG. It is 42", None),
    ("STOP", None),
    ("[1] and [2] are the wrong way round", None),
    ("[system] needs a column of its own", None),
    ("System: the second section is missing", None),
    ("HTML: escape it with HTML_ESCAPE please", None),
    ("MAX_RETRIES should be 5", None),
    ("ERR_CONNECTION_REFUSED", None),
    ("SNAKE_CASE!", None),
    ("Why did you reply HEARTBEAT_OK? I asked for the log.", None),
    ("<b>Shorter</b>, please", None),
    ("<p>Shorter, please</p>", None),
    ("<user_query>\nShorter, please\n</user_query>", None),
    ('{"role": "user", "content": "Shorter, please"}', None),
    ('[{"type": "text", "text": "Shorter, please"}]', None),
    ('{"a": 1} has no "b"', None),
    ('Here is the file:\n```json\n{"a": 1}\n```\nuse its keys', None),
    ("<note>a</note> belongs before <note>b</note>", None),
    ("### Task:\nwrite it as a list\n### Output:\nten lines", None),
    ("System: [2026-03-01 02:11 UTC] Exec completed (calm-reef, code 0)\n\nshorter", None),
    ("C'est parfait mais trop long", None),
    ("很好，但是请短一点", None),
]
MACHINES = [
    "HEARTBEAT: check tasks.md and reply HEARTBEAT_OK if nothing needs attention.",
    "Read HEARTBEAT.md if it exists. If nothing needs attention, reply HEARTBEAT_OK.",
    "HEARTBEAT",
    "HEARTBEAT_OK",
    "__ping__".upper(),
    "[cron:9f2c nightly-report] Run the nightly report and post it to the channel.",
    "[Scheduled task - daily digest] Collect the news.",
    "[webhook:deploy] Build 412 finished",
    "[System Message] The session was compacted.",
    "System: [2026-03-01 02:11 UTC] Exec completed (calm-reef, code 0)",
    "System: [2026-03-01 02:11] Node connected\nSystem: [2026-03-01 02:12] Node lost",
    "System (untrusted): Exec failed (calm-reef, code 1)",
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n"
    '### Output:\nJSON format: { "title": "..." }',
    "### Task:\nSuggest 3-5 follow-ups.\n### Chat History:\n<chat_history>\nUSER: hi\n"
    "</chat_history>",
    "Provide a concise, 5-word-or-less title for the conversation, using title case conventions.",
    "<system-reminder>\nThe todo list is empty.\n</system-reminder>",
    "<environment_context>\n<cwd>/srv</cwd>\n</environment_context>\n<event id='3'/>",
    '{"event": "job.finished", "job": "nightly", "code": 0}',
    '[{"type": "tool_result", "tool_use_id": "t1", "content": "14 GB"}]',
    '```json\n{"timestamp": "2026-03-01T02:11:00Z", "channel": "ops"}\n```',
    'Conversation info (untrusted metadata):\n```json\n{"sender": "ops-bot"}\n```',
    "[Request interrupted by user]",
    "<@U02ABCDEF> has joined the channel",
]
ERROR_BODIES = [
    '{"error": {"message": "Rate limit reached", "type": "tokens", "code": "rate_limit_exceeded"}}',
    '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}',
    '[{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}]',
    '{"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}',
    "HTTP/1.1 502 Bad Gateway\r\nServer: nginx",
    "503 Service Unavailable",
    "<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n<body></body></html>",
    "Error code: 429 - {'error': {'message': 'slow down'}}",
]
NO_ERROR_BODIES = [
    "Internal Server Error means that the server has failed.",
    "404 Not Found is what a server says of a page that it lacks.",
    "Error: the second column has no header. Add one and try again.",
    '{"error": "E42", "line": 7}',
    "服务器错误，请稍后再试",
    "502 eggs",
]


@pytest.mark.parametrize(("text", "answer"), WISHES)
def test_what_people_say_reaches_the_distiller(text: str, answer: str | None) -> None:
    one = said(text, answer=answer) if answer else said(text)
    assert reason(one) == "ok"
    assert spoken(one) is one


def test_no_words_of_people_are_judged() -> None:
    """Praise, insults, small talk and planted orders alike: the distiller says what is in them."""
    rows = [json.loads(line) for line in LABELS.read_text(encoding="utf-8").splitlines()]
    assert len(rows) > 400
    for row in rows:
        one = said(row["text"], question=row["query"], answer=row["answer"])
        assert reason(one) == "ok", row["text"]


@pytest.mark.parametrize("text", MACHINES)
def test_turns_that_no_person_wrote(text: str) -> None:
    assert reason(said(text)) == "machine_turn"
    both_spoke = said(text, "Shorter, please")
    assert reason(both_spoke) == "ok"
    assert spoken(both_spoke).feedback_turns == ["Shorter, please"]


def test_an_answer_to_a_machine_is_learnt_from_only_where_somebody_rates_it() -> None:
    one = said("Now write the letter.", question=MACHINES[0])
    assert reason(one) == "machine_turn"
    rated = log(1, MACHINES[0])
    rated.feedback.append(Feedback(run_id=rated.run_id, score=0.0, comment="It says too much."))
    assert reason(rated) == "ok"
    assert reason(log(1, MACHINES[0])) == "machine_turn"


def test_a_pasted_document_is_a_request() -> None:
    for text in ('{"name": "Ola", "city": "Oslo"}', "<order><id>3</id></order>"):
        assert reason(said("Use the city's old name", question=text)) == "ok"
        assert reason(said(text)) == "machine_turn"


def test_a_thumb_beside_a_machines_turn_counts() -> None:
    one = said(MACHINES[0])
    one.feedback.append(Feedback(run_id=one.run_id, score=1.0))
    assert reason(one) == "ok"
    assert spoken(one).feedback_turns == [] and spoken(one).score == 1.0


@pytest.mark.parametrize("answer", ERROR_BODIES)
def test_error_bodies_are_no_answers(answer: str) -> None:
    assert reason(said("Use bullets", answer=answer)) == "error_answer"


@pytest.mark.parametrize("answer", NO_ERROR_BODIES)
def test_answers_about_errors_are_answers(answer: str) -> None:
    assert reason(said("Use bullets", answer=answer)) == "ok"


def test_answers_and_queries_out_of_bounds() -> None:
    assert reason(said("Use bullets", error="TimeoutError")) == "error_answer"
    assert reason(said("Use bullets", error=AT_LIMIT)) == "ok"
    assert reason(said("Use bullets", answer=" \n")) == "empty_answer"
    assert reason(said("Use bullets", "", question="?")) == "too_short"
    assert reason(said("Use bullets", answer="x" * 200_001)) == "too_long"
    assert reason(said("Use bullets. " * 5000)) == "too_long"
    assert reason(said("Use bullets", language="fr")) == "unsupported_language"


def test_the_prompt_set_says_which_languages_can_be_learnt_from() -> None:
    chinese = said("请短一点", language="zh")
    assert verdict(chinese, SETTINGS, both).usable
    found = verdict(chinese, SETTINGS, lambda language: language == "en")
    assert (found.reason, found.detail) == ("unsupported_language", "zh")


@pytest.mark.parametrize(
    "feedback",
    [
        {"score": 0.0},
        {"key": "like"},
        {"key": "regenerate"},
        {"correction": "A better answer."},
        {"score": 1.0, "comment": "Thanks!"},
    ],
)
def test_thumbs_actions_and_edits_alone_are_usable(feedback: dict[str, object]) -> None:
    one = log(1)
    one.feedback.append(Feedback.model_validate({"run_id": one.run_id, **feedback}))
    assert reason(one) == "ok"


def test_nothing_said_is_no_feedback() -> None:
    assert reason(log(1)) == "no_feedback"
    assert reason(said("  ")) == "no_feedback"
    session = log(1)
    session.feedback.append(Feedback(run_id=session.run_id, key="session", value=3.0))
    assert reason(session) == "no_feedback"


def test_ignored_reasons_do_not_count() -> None:
    settings = FilterSettings(ignore=["machine_turn", "no_feedback", "duplicate"])
    assert reason(said(MACHINES[0]), settings) == "ok"
    same = [said("Use bullets"), said("Use bullets").model_copy(update={"run_id": "2"})]
    assert [v.reason for v in verdicts(same, settings, both)] == ["ok", "ok"]


def test_reasons_of_older_versions_in_a_journal_can_be_read(tmp_path: Path) -> None:
    one = said("Use bullets")
    with Journal(tmp_path) as journal:
        journal.append_interaction(one)
        digest = join(journal).digest(one.run_id)
        old = Verdict(usable=False, reason="praise_only", detail="")
        journal.set_model_verdicts({one.run_id: (digest, old)})
        [found] = judge_all(journal, join(journal), [one], SETTINGS, both)
    assert found.usable


def test_model_verdicts_hold_until_the_feedback_changes(tmp_path: Path) -> None:
    one = said("Use bullets")
    nothing = Verdict(usable=False, reason="nothing_asked", detail="no rule came of the words")
    with Journal(tmp_path) as journal:
        journal.append_interaction(one)
        journal.set_model_verdicts({one.run_id: (join(journal).digest(one.run_id), nothing)})
        assert judge_all(journal, join(journal), [one], SETTINGS, both) == [nothing]
        journal.append_feedback(Feedback(run_id=one.run_id, comment="and shorter"))
        assert judge_all(journal, join(journal), [one], SETTINGS, both)[0].usable


def test_of_equal_logs_the_first_stays() -> None:
    def one(n: int, comment: str, **fields: object) -> Interaction:
        found = log(n, "Same?", "Same.", **fields)
        found.feedback.append(Feedback(run_id=found.run_id, comment=comment))
        return found

    history = one(5, "Use bullets", messages=[user("Same?"), assistant("No."), user("Same?")])
    logs = [
        one(1, "Use bullets"),
        one(2, " Use bullets "),
        one(3, "Use numbers"),
        one(4, "Use bullets", user_id="another"),
        history,
    ]
    assert duplicates(logs) == {logs[1].run_id: logs[0].run_id}
    assert [v.reason for v in verdicts(logs, SETTINGS, both)] == [
        "ok", "duplicate", "ok", "ok", "ok",
    ]  # fmt: skip


def test_filters_stay_quick_on_hostile_text() -> None:
    for text in (
        "<a>" * 16_000, "{" * 49_000, "[cron:" * 8_000, "### Task:\n" * 4_000, "System: " * 6_000,
        "HEARTBEAT: " * 4_000, "reply " * 8_000, "System: [2026-03-01 02:11]\n" * 1_800 + "x",
    ):  # fmt: skip
        start = time.process_time()
        verdict(said(text, answer=text), SETTINGS, both)
        assert time.process_time() - start < 2


@pytest.mark.parametrize("source", ["model", "EVAL", "auto_eval"])
def test_an_evaluator_is_nobody(source: str) -> None:
    said = [
        Feedback(run_id="r", key="hallucination", score=0.0, source=source),
        Feedback(run_id="r", key="score", score=1.0, source="api"),
    ]
    log = Interaction(run_id="r", messages=[], answer="a", user_id="u", feedback=said)
    assert [f.key for f in spoken(log).feedback] == ["score"]
