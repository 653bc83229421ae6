"""The handler's options, and the handler in trouble: full journals, strange messages, threads."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.errors import HomeError, InputError, StoreError
from langchain_uno.home import Home
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import FILE_NAME, Journal
from tests.unit_tests.callbacks.parts import logs, model


def call_weather(city: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "weather", "args": {"city": city}, "id": "c1"}])


def test_personal_data_never_reaches_the_disk(home: Path) -> None:
    with UNOFeedbackHandler(home=home) as handler:
        answer = model("Dear ann@mail.example").invoke(
            "Write to ann@mail.example about 4111 1111 1111 1111",
            {"callbacks": [handler]},
        )
        handler.feedback(answer.id or "", comment="cc ann@mail.example, host 10.1.2.3")
    data = b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
    for secret in (b"ann@mail", b"4111", b"10.1.2.3"):
        assert secret not in data
    with Journal(Home.locate(home).journal, readonly=True) as journal:
        assert journal.redacted() == {"email": 3, "credit_card": 1, "ip": 1}


def test_names_and_ids_are_redacted_too_and_before_texts_are_cut(home: Path) -> None:
    mail = "ann@mail.example"
    call = {"name": f"write_{mail}", "args": {}, "id": f"call {mail}"}
    answer = AIMessage(
        "x", tool_calls=[call], response_metadata={"model_name": mail, "finish_reason": mail}
    )
    prompt = [HumanMessage("q"), answer, ToolMessage("Sent to " + mail, tool_call_id=call["id"])]
    metadata = {"langgraph_node": mail, "lc_source": mail}
    with UNOFeedbackHandler(home=home, max_chars=12) as handler:
        model(answer).invoke(prompt, {"callbacks": [handler], "metadata": metadata})
    [one] = logs(home)
    assert b"ann@" not in b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
    assert one.messages[2].tool_call_id == one.messages[1].tool_calls[0]["id"]


def test_an_error_is_redacted_before_it_is_cut(home: Path) -> None:
    """A provider's error quotes the prompt; an address stands where the text is cut."""
    run, error = uuid4(), ValueError("x" * 493 + " ann@mail.example")
    with UNOFeedbackHandler(home=home) as handler:
        handler.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run)
        handler.on_llm_error(error, run_id=run)
    [one] = logs(home)
    assert one.error == "ValueError: " + "x" * 493 + " [REDAC"
    with Journal(Home.locate(home).journal, readonly=True) as journal:
        assert journal.redacted() == {"email": 1}


def test_options(home: Path, tmp_path: Path) -> None:
    with UNOFeedbackHandler(
        home=home,
        namespace="tenant-b",
        user_id="u",
        tags={"app": "1"},
        redactor=False,
        max_chars=10,
    ) as handler:
        model("0123456789abc").invoke("mail a@b.org", {"callbacks": [handler]})
    with Journal(Home.locate(home, "tenant-b").journal, readonly=True) as journal:
        [one] = read(journal, join(journal))
    assert one.messages[0].content == "mail a@b.o [...]" and one.answer == "0123456789 [...]"
    assert (one.user_id, one.tags, one.namespace) == ("u", {"app": "1"}, "tenant-b")
    with UNOFeedbackHandler(home=tmp_path / "b", record_content=False) as handler:
        model(call_weather("Rome")).invoke("secret question", {"callbacks": [handler]})
    data = (tmp_path / "b" / "journal" / FILE_NAME).read_bytes()
    assert b"secret" not in data and b"Rome" not in data
    with UNOFeedbackHandler(home=tmp_path / "c", sample_rate=0.5) as handler:
        for n in range(64):
            ident = UUID(int=(uuid4().int >> 32 << 32) | (n * 2**26))
            model("x").invoke("q", {"callbacks": [handler], "run_id": ident})
        assert handler.stats()["recorded"] == 32


@pytest.mark.parametrize("wrong", [{"sample_rate": 2}, {"max_chars": 0}])
def test_wrong_options_are_refused(home: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        UNOFeedbackHandler(home=home, **wrong)


def test_no_home_and_a_home_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LANGCHAIN_UNO_HOME", raising=False)
    with pytest.raises(InputError, match="No home was given"):
        UNOFeedbackHandler()
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="can't be written"):
        UNOFeedbackHandler(home=tmp_path / "file" / "home")


def test_a_journal_in_trouble_never_reaches_the_app(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = UNOFeedbackHandler(home=home, max_waiting=3)
    handler.raise_error = True  # LangChain would pass on whatever we raised
    other = sqlite3.connect(home / "journal" / FILE_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.WARNING, "langchain_uno"):
        for n in range(5):
            assert model("x").invoke(f"private {n}", {"callbacks": [handler]}).content == "x"
    assert handler.stats()["waiting"] == 3 and handler.stats()["dropped"] == 2
    with pytest.raises(StoreError, match="locked"):
        handler.feedback(uuid4(), score=1)
    assert "locked" in caplog.text and "private" not in caplog.text
    other.execute("ROLLBACK")
    other.close()
    handler.flush()
    assert [one.messages[0].content for one in logs(home)] == [f"private {n}" for n in (2, 3, 4)]
    handler.close()
    handler.close()
    assert model("x").invoke("late", {"callbacks": [handler]}).content == "x"
    assert handler.stats()["dropped"] == 3 and len(logs(home)) == 3


def test_strange_messages_are_stored_as_text(home: Path, handler: UNOFeedbackHandler) -> None:
    handler.raise_error = True
    strange = AIMessage(
        [
            {"type": "reasoning", "reasoning": "hidden"},
            {"type": "text", "text": "Seen\ud800."},
            {"type": "image", "url": "data:..."},
        ]
    )
    model(strange).invoke(
        [HumanMessage("\ud800\x00" + "x" * 100_000), AIMessage([]), HumanMessage([{"x": 1}])],
        {"callbacks": [handler], "metadata": {"thread_id": 7, "user_id": object()}},
    )
    [one] = logs(home)
    assert one.answer == "Seen\ufffd." and one.messages[0].content.startswith("\ufffd\x00x")
    assert one.thread_id == "7" and handler.stats()["errors"] == 0


def test_arguments_that_are_not_json_are_stored(home: Path, handler: UNOFeedbackHandler) -> None:
    handler.raise_error = True
    args = {"nan": float("nan"), "set": {1}, "deep": [{"a": (1, None, True)}], "o": object}
    call = AIMessage("", tool_calls=[{"name": "f", "args": args, "id": None}])
    model(call).invoke("q", {"callbacks": [handler]})
    [one] = logs(home)
    assert one.tool_calls[0]["args"]["deep"] == [{"a": [1, None, True]}]
    assert json.dumps(one.tool_calls, allow_nan=False)


def test_many_threads_one_handler(home: Path, handler: UNOFeedbackHandler) -> None:
    def work(thread: int) -> None:
        for n in range(25):
            run = model("x").invoke(f"{thread}-{n}", {"callbacks": [handler]}).id or ""
            handler.feedback(run, score=1)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = logs(home)
    assert len(found) == 200 and all(one.score == 1.0 for one in found)
    assert handler.stats()["recorded"] == 200


def test_nothing_piles_up_in_memory(handler: UNOFeedbackHandler) -> None:
    chain = ChatPromptTemplate.from_template("{x}") | model(*["a"] * 50)
    for n in range(50):
        chain.invoke({"x": n}, {"callbacks": [handler]})
    assert not handler._open and not handler._roots


async def test_nothing_is_lost_where_an_event_loop_forbids_blocking_calls(tmp_path: Path) -> None:
    """As in ``langgraph dev``: what blocks the loop raises, so a thread writes the journal."""
    from blockbuster import blockbuster_ctx

    with UNOFeedbackHandler(home=tmp_path / "home") as handler, blockbuster_ctx():
        answer = await model("An answer.").ainvoke("A question.", {"callbacks": [handler]})
        await handler.afeedback(answer.id, score=0, comment="Shorter.")
    [kept] = logs(tmp_path / "home")
    assert kept.answer == "An answer."
    assert [f.comment for f in kept.feedback] == ["Shorter."]
    assert handler.stats()["errors"] == 0


# SQLite files that a browser of databases, a backup or a virus scanner holds open for writing.
async def test_a_locked_journal_never_stalls_an_event_loop(home: Path) -> None:
    handler = UNOFeedbackHandler(home=home)
    model = FakeListChatModel(responses=["yes"])
    config: Any = {"callbacks": [handler]}
    await model.ainvoke("hi", config=config)
    stalls: list[float] = []

    async def beat() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            stalls.append(time.perf_counter() - began)

    beating = asyncio.create_task(beat())
    worst: list[float] = []
    path = home / "journal" / "journal.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for _ in range(5):
            stalls.clear()
            await asyncio.gather(*[model.ainvoke("hi", config=config) for _ in range(8)])
            await asyncio.sleep(0.01)  # a stall is known when the next beat is over
            worst.append(max(stalls))
        other.execute("ROLLBACK")
    beating.cancel()
    # One wait of a thread's patience alone is 0.25; a loaded machine stalls some rounds, not all.
    assert min(worst) < 0.2
    assert handler.stats()["waiting"] == 40
    await model.ainvoke("hi", config=config)
    stats = handler.stats()
    assert (stats["recorded"], stats["waiting"], stats["dropped"]) == (42, 0, 0)
    handler.close()
