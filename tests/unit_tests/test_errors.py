"""Every row of docs/errors.md, tried: no row without a trial, no trial without a row."""

from __future__ import annotations

import asyncio
import json
import pickle
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import langchain_core.exceptions
import pydantic
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage

from langchain_uno import UNOChatModel, UNOFeedbackHandler, errors
from langchain_uno.erasure import forget
from langchain_uno.errors import ReleaseError
from langchain_uno.home import ENV_HOME, Home
from langchain_uno.middleware import UNOMiddleware
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.openai_compatible import OpenAIEngine
from langchain_uno.releases.traffic import read_traffic
from langchain_uno.serving.shared import stop_serving
from langchain_uno.train import refresh_home
from langchain_uno.web import bodies, feedback

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
SECRET = "s" * 40


def rows(table: int) -> list[list[str]]:
    """The cells of the first table (Python) or the second (HTTP), without its head."""
    found = re.findall(r"(?:^\|.*\n)+", DOCS.read_text("utf-8"), re.MULTILINE)[table - 1]
    lines = found.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def engine(tiny_model_path: Path) -> Iterator[LocalEngine]:
    made = load_engine(str(tiny_model_path))
    assert isinstance(made, LocalEngine)
    yield made
    made.close()


class Trials:
    """One function a row; its name is of no account, its place in ``all`` is."""

    def __init__(self, engine: LocalEngine, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.engine, self.folder, self.patch = engine, folder, patch

    def chat(self, **settings: Any) -> UNOChatModel:
        return UNOChatModel(engine=self.engine, **{"max_tokens": 4, **settings})

    def other_embedder(self) -> None:
        self.chat(home=self.folder).invoke("Hi")
        try:
            self.chat(home=self.folder, embedder=DeterministicFakeEmbedding(size=8)).invoke("Hi")
        finally:
            stop_serving(self.folder)

    def closed(self) -> None:
        lent = load_engine(self.engine.model_name)
        lent.close()
        UNOChatModel(engine=lent).invoke("Hi")

    def strict_template(self) -> None:
        template = "{{ raise_exception('no') }}"
        self.patch.setattr(self.engine.tokenizer, "chat_template", template)
        self.chat().invoke([AIMessage("Hi")])

    def server_tokens(self) -> None:
        self.patch.setattr(OpenAIEngine, "_find_model", lambda *_: {"id": "served"})
        UNOChatModel(model="http://127.0.0.1:9/v1").get_num_tokens("Hi")

    def unwritable(self) -> None:
        (self.folder / "file").write_text("")
        UNOFeedbackHandler(home=self.folder / "file" / "home")

    def bad_settings(self) -> None:
        (self.folder / "settings.toml").write_text("[logs]\nretention = 1\n")
        UNOFeedbackHandler(home=self.folder)

    def damaged_journal(self) -> None:
        (self.folder / "journal").mkdir()
        (self.folder / "journal" / "journal.sqlite3").write_bytes(b"no database" * 1000)
        UNOFeedbackHandler(home=self.folder)

    def said(self, **what: Any) -> None:
        with UNOFeedbackHandler(home=self.folder) as handler:
            handler.feedback("run", **what)

    def forgotten(self) -> None:
        with UNOFeedbackHandler(home=self.folder) as handler:
            handler.feedback(forgotten_answer(handler), score=1)

    def locked(self) -> None:
        with UNOFeedbackHandler(home=self.folder) as handler:
            path = self.folder / "journal" / "journal.sqlite3"
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                handler.feedback("run", score=1)

    def empty_log(self) -> None:
        Home.locate(self.folder).ensure()
        refresh_home(self.folder)

    def no_recipe(self) -> None:
        UNOFeedbackHandler(home=self.folder).close()
        refresh_home(self.folder, recipe="nobody's")

    def bad_rate(self) -> None:
        with UNOFeedbackHandler(home=self.folder) as handler:
            feedback.feedback_router(handler, secret=SECRET, rate="often")

    def all(self) -> dict[tuple[str, str], Callable[[], object]]:
        chat, missing = self.chat, Home.locate(self.folder / "missing")
        tool = {"name": "look", "description": "d", "parameters": {"type": "object"}}
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        tokens = feedback.FeedbackTokens
        wrong: dict[str, Any] = {"temprature": 1}
        made = "UNOChatModel(...)"
        invoke = "UNOChatModel.invoke"
        handler = "UNOFeedbackHandler(...)"
        return {
            (made, "an unknown keyword"): lambda: UNOChatModel(**wrong),
            (made, "a home that is no path"): lambda: UNOChatModel(home="a\0b"),
            (made, "a value of the wrong type or range"): lambda: UNOChatModel(temperature=-1),
            ("UNOChatModel.from_langchain", "the object holds no local model"): lambda: (
                UNOChatModel.from_langchain(FakeListChatModel(responses=["x"]))
            ),
            (invoke, "no such model"): lambda: UNOChatModel(model="/no/such/folder").invoke("Hi"),
            (invoke, "a namespace that is no safe name"): lambda: chat(
                home=self.folder, namespace="../x"
            ).invoke("Hi"),
            (invoke, "the home is served with another embedder"): self.other_embedder,
            (invoke, "a setting of one call with a near miss of a name"): lambda: chat().invoke(
                "Hi", **wrong
            ),
            (invoke, "an image, audio, a video or a file"): lambda: chat().invoke(
                [HumanMessage([image])]
            ),
            (invoke, "`tool_choice` names none of the tools"): lambda: chat().invoke(
                "Hi", tools=[tool], tool_choice="other"
            ),
            (invoke, "a form that can't be enforced"): lambda: chat().invoke(
                "Hi", json_schema={"type": "nothing"}
            ),
            (invoke, "no answer within `timeout`"): lambda: chat(timeout=1e-9).invoke("Hi"),
            (invoke, "the engine that was given is closed"): self.closed,
            (invoke, "the chat template refuses the messages"): self.strict_template,
            (invoke, "the conversation leaves no room for an answer"): lambda: chat().invoke(
                "word " * 20_000
            ),
            ("UNOChatModel.with_structured_output", "an unknown method, or no schema"): lambda: (
                chat().with_structured_output(None)
            ),
            ("UNOChatModel.get_num_tokens", "a server whose tokenizer is not named"): (
                self.server_tokens
            ),
            ("pickle.dumps(UNOChatModel)", "the model was made around an engine"): lambda: (
                pickle.dumps(chat())
            ),
            (handler, "no home, or an argument out of range"): UNOFeedbackHandler,
            (handler, "the home can't be written"): self.unwritable,
            (handler, "`settings.toml` is wrong"): self.bad_settings,
            (handler, "the journal can't be opened"): self.damaged_journal,
            (
                "UNOFeedbackHandler.feedback",
                "nothing usable is said, or a value out of range",
            ): lambda: self.said(score=7),
            ("UNOFeedbackHandler.feedback", "the answer was forgotten"): self.forgotten,
            ("UNOFeedbackHandler.feedback", "the journal stays locked"): self.locked,
            ("UNOMiddleware(...)", "no home"): UNOMiddleware,
            ("forget", "nobody is named"): lambda: forget(Home.locate(self.folder).ensure()),
            ("forget", "there is no such home"): lambda: forget(missing, user_id="ada"),
            ("refresh_home", "there is no such home"): lambda: refresh_home(missing.root),
            ("refresh_home", "nothing was ever captured"): self.empty_log,
            ("refresh_home", "no such recipe"): self.no_recipe,
            ("FeedbackTokens(...)", "no secret, or one that is too short"): lambda: tokens("short"),
            ("FeedbackTokens.sign", "no run id"): lambda: tokens(SECRET).sign(None),
            ("FeedbackTokens.verify", "a forged, expired or foreign token"): lambda: tokens(
                SECRET
            ).verify("forged"),
            ("feedback_router(...)", "a rate that can't be read"): self.bad_rate,
        }


def forgotten_answer(handler: UNOFeedbackHandler) -> str:
    model = FakeListChatModel(responses=["fine"])
    answer = str(model.invoke("Hi", config={"callbacks": [handler]}).id)
    forget(handler.home, run_ids=[answer])
    return answer


def kind_of(name: str) -> type[BaseException]:
    places: tuple[Any, ...] = (errors, feedback, pydantic, langchain_core.exceptions)
    return next(
        getattr(place, last) for place in places if hasattr(place, last := name.split(".")[-1])
    )


@pytest.mark.parametrize("row", rows(1), ids=lambda row: f"{row[0]} {row[1]}")
def test_the_error_is_the_one_that_the_docs_say(
    row: list[str], engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENV_HOME, raising=False)
    monkeypatch.delenv(feedback.ENV_SECRET, raising=False)
    where, when, error = row
    trials = Trials(engine, tmp_path, monkeypatch).all()
    assert {(w.strip("`"), t) for w, t, _ in rows(1)} == set(trials)
    with pytest.raises(kind_of(error.strip("`"))) as raised:
        trials[where.strip("`"), when]()
    assert type(raised.value).__name__ == error.strip("`").split(".")[-1]


def test_the_http_errors_are_those_that_the_docs_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented = {(int(status), error.strip("`")) for status, error, _ in rows(2)}
    monkeypatch.setattr(bodies, "BODY_S", 0.05)
    handler = UNOFeedbackHandler(home=tmp_path)
    router = feedback.feedback_router(handler, secret=SECRET, rate="4/minute")
    app = FastAPI()
    app.include_router(router)
    client = TestClient(app)
    run = str(uuid.uuid4())
    seen = set()

    def send(body: Any, token: str | None = None, kind: str = "application/json") -> None:
        headers = {"content-type": kind}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        done = client.post("/feedback", content=content, headers=headers)
        if done.status_code != 200:
            seen.add((done.status_code, done.json()["error"]))

    def fresh(**how: Any) -> str:
        return router.tokens.sign(run, **how)

    send(b"[1]")
    send({"score": 1})
    send({"score": 1}, "forged")
    send({"score": 1, "run_id": "other"}, fresh())
    send({"key": "like"}, fresh(keys=["thumb"]))
    send(b"x" * 70_000, fresh())
    send(b"score=1", fresh(), "text/csv")
    send({"score": "good"}, fresh())
    eager = fresh(user_id="eve")
    for _ in range(5):
        send({"score": 1}, eager)
    send({"score": 1}, router.tokens.sign(forgotten_answer(handler)))
    path = tmp_path / "journal" / "journal.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        send({"score": 1}, fresh(user_id="bob"))

    async def slow(*_: Any) -> Any:
        raise asyncio.TimeoutError

    monkeypatch.setattr(bodies.asyncio, "wait_for", slow)
    send({"score": 1}, fresh())
    assert seen == documented
    handler.close()


def test_a_home_that_is_not_there_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        UNOChatModel(home=tmp_path / "typo")
    (said,) = [r.getMessage() for r in caplog.records if "no home" in r.getMessage()]
    assert repr(str(tmp_path / "typo")) in said and "langchain-uno train" in said
    caplog.clear()
    UNOChatModel(home=tmp_path)
    assert not caplog.records


def test_our_own_words_come_without_pydantics(tmp_path: Path) -> None:
    (tmp_path / "traffic.json").write_text(
        '{"schema_version": 3, "shares": [{"release": "r-1", "share": 0.4}]}'
    )
    with pytest.raises(ReleaseError, match="is not usable: a share has the sha256"):
        read_traffic(Home(tmp_path))
