"""Trying a home's model: what is asked and said lands in the log as an app's would."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.erasure import forget
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Feedback, Interaction
from langchain_uno.web.console import console_app
from tests.unit_tests.console.parts import OPERATORS, PAYLOADS, enter, forgets, post, words


@pytest.fixture
def app(home: Home, tiny_model_path: Path) -> Any:
    model = UNOChatModel(home=home.root, model=str(tiny_model_path), max_tokens=12)
    return console_app(home.root, tokens=OPERATORS, model=model)


def logged(home: Home) -> tuple[list[Interaction], list[Feedback]]:
    with Journal(home.journal, readonly=True) as journal:
        return list(journal.interactions([r.run_id for r in journal.rows()])), journal.feedback()


def test_answers_and_what_is_said_of_them_are_journalled(app: Any, home: Home) -> None:
    client = enter(app, "review")
    assert "not loaded" in words(client.get("/health").text)
    assert post(client, "/try/ask", text="How do I\r\nreset it?").status_code == 303
    assert "not loaded" not in words(client.get("/health").text)
    ((one,), said) = logged(home)
    assert (one.messages[-1].content, one.user_id, said) == ("How do I\nreset it?", "reviewer", [])
    assert one.thread_id
    page = client.get("/try").text
    assert "How do I\nreset it?" in page and "Base model alone" in page
    (run,) = set(re.findall(r'name="run" value="([^"]+)"', page))

    post(client, "/try/rate", run=run, score="up")
    post(client, "/try/rate", run=run, score="down")  # a change of mind
    post(client, "/try/rate", run=run, comment=" Shorter. ", correction=one.answer)
    post(client, "/try/rate", run=run, comment="Shorter.", correction="So.")
    said = logged(home)[1]
    assert {(f.key, f.score, f.comment, f.correction) for f in said} == {
        ("score", 0.0, None, None),
        ("comment", None, "Shorter.", None),
        ("correction", None, None, "So."),
    }
    assert len(said) == 3
    assert {(f.run_id, f.user_id, f.source) for f in said} == {(one.run_id, "reviewer", "app")}
    shown = client.get("/try").text
    assert "Saved: thumb down, comment, edit." in words(shown)
    assert re.findall(r'aria-pressed="(\w+)"', shown) == ["false", "true"]

    post(client, "/try/ask", text="And then?")
    logs = logged(home)[0]
    assert [m.role for m in logs[1].messages] == ["user", "assistant", "user"]
    assert logs[0].thread_id == logs[1].thread_id
    post(client, "/try/new")
    assert "And then?" not in client.get("/try").text
    assert post(client, "/try/rate", run=run, score="up").status_code == 422


def test_a_conversation_is_its_browsers_own_and_goes_with_an_erasure(app: Any, home: Home) -> None:
    client, other = enter(app), enter(app)
    post(client, "/try/ask", text="a secret wish")
    assert "a secret wish" in client.get("/try").text
    assert "a secret wish" not in other.get("/try").text
    (run,) = set(re.findall(r'name="run" value="([^"]+)"', client.get("/try").text))
    assert post(other, "/try/rate", run=run, score="up").status_code == 422
    forgets(other, "user", "releaseer", "releaseer")
    assert "a secret wish" not in client.get("/try").text
    assert logged(home) == ([], [])


@pytest.mark.parametrize("text", ["", "  \r\n ", "x" * 20_001])
def test_what_can_not_be_asked_is_told(app: Any, home: Home, text: str) -> None:
    found = post(enter(app), "/try/ask", text=text)
    assert (found.status_code, "1 to 20,000 characters" in found.text) == (422, True)
    assert logged(home) == ([], [])


def test_questions_comments_and_edits_stay_text(app: Any, home: Home) -> None:
    client = enter(app)
    post(client, "/try/ask", text=PAYLOADS[0])
    (run,) = set(re.findall(r'name="run" value="([^"]+)"', client.get("/try").text))
    for text in PAYLOADS:
        post(client, "/try/rate", run=run, comment=text, correction=text)
        page = client.get("/try").text
        assert len(re.findall("<(?:script|img|iframe|meta http|base|form) ", page)) == page.count(
            "<script src"
        ) + page.count("<form ")
        assert page.count("<svg") == 2 and "onerror=alert(1)>" not in page.replace("&gt;", "")
    assert "<script>alert" not in page


def test_a_model_that_is_not_there_is_told(home: Home) -> None:
    app = console_app(home.root, tokens=OPERATORS, model="/nowhere/model")
    found = post(enter(app), "/try/ask", text="Hello?")
    assert found.status_code == 503 and "/nowhere/model" in found.text
    assert found.headers["hx-retarget"] == "#told"


def test_the_apps_own_model_answers_and_the_console_alone_journals(
    home: Home, tiny_model_path: Path
) -> None:
    with UNOFeedbackHandler(home=home.root) as handler:
        model = UNOChatModel(
            home=home.root,
            model=str(tiny_model_path),
            max_tokens=12,
            callbacks=[handler],
            metadata={"user_id": "the service"},
        )
        app = console_app(home.root, tokens=OPERATORS, model=model)
        assert post(enter(app), "/try/ask", text="Hello?").status_code == 303
        assert model.callbacks and model.metadata
    assert [one.user_id for one in logged(home)[0]] == ["releaseer"]


def run_of(client: Any) -> str:
    (run,) = set(re.findall(r'name="run" value="([^"]+)"', client.get("/try").text))
    return str(run)


def test_what_was_said_of_an_answer_is_taken_back(app: Any, home: Home) -> None:
    client = enter(app)
    post(client, "/try/ask", text="Hello?")
    ((one,), run) = (logged(home)[0], run_of(client))
    post(client, "/try/rate", run=run, comment="", correction=one.answer)
    assert logged(home)[1] == []
    post(client, "/try/rate", run=run, score="down")
    post(client, "/try/rate", run=run, comment="Shorter.", correction="So.")
    post(client, "/try/rate", run=run, score="down")  # a double click
    shown = client.get("/try").text
    assert "Saved: thumb down, comment, edit." in words(shown)
    assert 'value="up"' in shown and 'value="back"' in shown and 'value="down"' not in shown
    post(client, "/try/rate", run=run, score="back")
    shown = client.get("/try").text
    assert "Saved: comment, edit." in words(shown) and 'aria-pressed="true"' not in shown
    post(client, "/try/rate", run=run, comment=" ", correction=one.answer)
    assert "Saved" not in words(client.get("/try").text)
    said = logged(home)[1]
    assert {f.key for f in said} == {"score", "comment", "correction"} and len(said) == 3
    assert {(f.score, f.comment, f.correction) for f in said} == {(None, None, None)}


def test_an_erasure_elsewhere_ends_the_conversations_in_memory(app: Any, home: Home) -> None:
    client = enter(app)
    post(client, "/try/ask", text="a secret wish")
    forget(home, user_id="releaseer")
    assert "a secret wish" not in client.get("/try").text
    post(client, "/try/ask", text="And then?")
    ((one,), _) = logged(home)
    assert [m.content for m in one.messages] == ["And then?"]


def test_readers_take_nobodys_conversation_away(app: Any) -> None:
    client = enter(app)
    post(client, "/try/ask", text="Still there?")
    for _ in range(101):
        enter(app, "read").get("/try")
    assert "Still there?" in client.get("/try").text


def test_questions_at_once_are_one_conversation(app: Any, home: Home) -> None:
    client = enter(app)
    asked = [threading.Thread(target=post, args=(client, "/try/ask"), kwargs={"text": t})
             for t in ("one", "two")]  # fmt: skip
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    logs = logged(home)[0]
    assert [len(one.messages) for one in logs] == [1, 3]
    assert len({one.thread_id for one in logs}) == 1


def test_a_part_of_the_page_is_replaced_and_a_refusal_is_a_notice(app: Any) -> None:
    client = enter(app)
    post(client, "/try/ask", text="Hello?")
    page = client.get("/try").text
    swapped = re.findall(r'hx-post="/try/rate" hx-target="([^"]+)" hx-select="([^"]+)"', page)
    assert swapped == [("#thumbs-1", "#thumbs-1"), ("#turn-1", "#turn-1")]
    for place in ("thumbs-1", "turn-1", "saved-1", "told"):
        assert page.count(f' id="{place}"') == 1
    client.cookies.clear()
    found = client.post("/try/ask", data={"text": "long words"}, headers={"HX-Request": "true"})
    assert (found.status_code, found.headers["hx-retarget"]) == (401, "#told")
    assert 'id="told"' not in found.text and "in another tab" in words(found.text)
