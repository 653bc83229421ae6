"""Draining beside the app: opted in, quiet, and out of the way."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import store_lock
from langchain_uno.models.embedders import LangChainEmbedder

EMBEDDINGS = DeterministicFakeEmbedding(size=8)


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def ask(handler: UNOFeedbackHandler, n: int = 1) -> None:
    model = FakeListChatModel(responses=["fine"])
    for i in range(n):
        model.invoke(f"question {i}", config={"callbacks": [handler]})


def indexed(home: Path) -> int:
    with Journal(Home.locate(home).journal, readonly=True) as journal:
        return len(journal.indexed())


def test_what_is_captured_arrives_in_chroma_by_itself(home: Path) -> None:
    with UNOFeedbackHandler(home=home, drain_every=0.05, embedder=EMBEDDINGS) as handler:
        ask(handler, 3)
        until(lambda: handler.stats()["drained"] == 3)
        ask(handler, 2)
        until(lambda: handler.stats()["drained"] == 5)
    assert indexed(home) == 5


def test_it_waits_for_the_lock_and_goes_on(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = store_lock(Home.locate(home))
    lock.__enter__()
    with UNOFeedbackHandler(
        home=home, drain_every=0.05, embedder=LangChainEmbedder(EMBEDDINGS)
    ) as handler:
        ask(handler, 2)
        time.sleep(0.3)
        assert handler.stats()["drained"] == 0
        lock.__exit__(None, None, None)
        until(lambda: handler.stats()["drained"] == 2)
    assert caplog.records == []  # a refresh at work is no trouble


def test_a_store_out_of_reach_is_said_once_and_tried_again(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Home.locate(home).ensure().settings.write_text('[logs]\nchroma = "http://127.0.0.1:9"\n')
    with UNOFeedbackHandler(home=home, drain_every=0.02, embedder=EMBEDDINGS) as handler:
        ask(handler, 2)
        drain = handler._drain
        assert drain is not None
        until(lambda: drain.failures >= 3)
        ask(handler)
        assert handler.stats()["recorded"] == 3
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "not drained now" in caplog.text
    assert indexed(home) == 0


def test_closing_stops_it_soon_and_twice_is_fine(home: Path) -> None:
    handler = UNOFeedbackHandler(home=home, drain_every=600, embedder=EMBEDDINGS)
    start = time.monotonic()
    handler.close()
    handler.close()
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"drain_every": 0}, "above 0"),
        ({"drain_every": 5, "embedder": object()}, "neither a LangChain Embeddings"),
        ({"embedder": EMBEDDINGS}, "give drain_every"),
    ],
)
def test_bad_settings(home: Path, given: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        UNOFeedbackHandler(home=home, **given)  # type: ignore[arg-type]


def test_nobody_who_did_not_ask_pays_for_it(home: Path) -> None:
    code = (
        "import sys; from langchain_uno import UNOFeedbackHandler as H; h = H(home=sys.argv[1]);"
        "print(sorted({'chromadb', 'torch'} & set(sys.modules)), h.stats()); h.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("[]")
    assert "drained" not in done.stdout
