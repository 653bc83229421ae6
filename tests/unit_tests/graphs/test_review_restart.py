"""A review by LangGraph's interrupt, kept on disk: the process that asked is killed meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from langchain_uno.erasure import forget
from langchain_uno.graphs.refresh import build_refresh_graph
from langchain_uno.home import Home
from langchain_uno.learning.review import read_decisions
from langchain_uno.learning.work import Silent, Work
from langchain_uno.models.protocols import Engine
from langchain_uno.releases.load import read_current
from tests.unit_tests.graphs.refresh_parts import UNTRAINED, logs, make_home, tiny_engine
from tests.unit_tests.learning.toy_language import (
    ToyEmbedder,
    ToyEngine,
    ToyPrompts,
    ToyReranker,
)

THREAD: Any = {"configurable": {"thread_id": "t"}}


def go_on(home: Home, engine: Engine, given: Any) -> tuple[dict[str, Any], ToyEngine]:
    """Call the graph as docs/guides/review.md shows it, and close the file."""
    teacher = ToyEngine()
    work = Work(
        home=home,
        engine=engine,
        embedder=ToyEmbedder(),
        reranker=ToyReranker(),
        teacher=teacher,  # type: ignore[arg-type]
        prompts=ToyPrompts(),  # type: ignore[arg-type]
        teacher_prompts=ToyPrompts(),  # type: ignore[arg-type]
        recipe=UNTRAINED,
        progress=Silent(),
    )
    path = home.work / "review.sqlite3"
    with closing(sqlite3.connect(path, check_same_thread=False)) as file:
        saver = SqliteSaver(file, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        graph = build_refresh_graph(saver, review=True)
        return graph.invoke(given, THREAD, context=work), teacher


def ask_and_die(home: Home, model: Path, wanted: Path) -> None:
    """Let the graph ask, note which row is about singing, and be killed."""
    stopped, _ = go_on(home, tiny_engine(model), {})
    rows = stopped["__interrupt__"][0].value["rows"]
    wanted.write_text(next(row["id"] for row in rows if row["text"] == "sing"))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_review_survives_the_process_that_asked_for_it(
    engine: Engine, tiny_model_path: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs())
    # Not a fork: Chroma's threads do not live on in a child.
    child = multiprocessing.get_context("spawn").Process(
        target=ask_and_die, args=(home, tiny_model_path, tmp_path / "wanted")
    )
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    wanted = (tmp_path / "wanted").read_text()
    answer = {"decisions": [{"id": wanted, "decision": "exclude"}], "by": "ann"}
    done, teacher = go_on(home, engine, Command(resume=answer))
    assert "__interrupt__" not in done
    assert [one.by for one in read_decisions(home)] == ["ann"]
    assert not [what for what, _ in teacher.asked if what["role"] == "distil"]
    release = read_current(home)
    assert release is not None
    assert {rule for c in release.manifest.clusters for rule in c.rules} == {"dance"}
    # What the question quoted goes with the person, and nothing in the file is a pickle.
    with closing(sqlite3.connect(home.work / "review.sqlite3")) as file:
        kinds = {kind for (kind,) in file.execute("SELECT DISTINCT type FROM checkpoints")}
        kinds |= {kind for (kind,) in file.execute("SELECT DISTINCT type FROM writes")}
    assert kinds <= {"msgpack", "null"}
    forget(home, user_id="user-0")
    assert not (home.work / "review.sqlite3").exists()
