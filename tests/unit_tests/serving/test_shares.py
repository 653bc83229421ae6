"""Several releases at once: who is answered by which, as the chat model's users see it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.graphs.respond import RespondContext, build_respond_graph
from langchain_uno.home import Home
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.models.embedders import TokenEmbedder
from langchain_uno.models.local import LocalEngine
from langchain_uno.releases import canary
from langchain_uno.releases.publish import make_current, rollback
from langchain_uno.serving.hot_swap import Serving
from langchain_uno.serving.shared import stop_serving
from tests.unit_tests.serving.tiny_release import QUERIES, publish_tiny

ASK = QUERIES["c0"]
PEOPLE = [f"user-{n}" for n in range(30)]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    yield Home(tmp_path / "home")
    stop_serving(tmp_path / "home")


@pytest.fixture
def publish(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home, adapter_paths: dict[str, Path]
) -> Callable[[], str]:
    two = {c: adapter_paths[c] for c in ("c0", "c1")}
    return lambda: publish_tiny(home, engine, embedder, two)


@pytest.fixture
def trial(home: Home, publish: Callable[[], str]) -> canary.Plan:
    """The second release is tried by half of the people."""
    first, second = publish(), publish()
    make_current(home, first)
    return canary.start(home, second, share=0.5)


@pytest.fixture
def chat(engine: LocalEngine, home: Home, trial: canary.Plan) -> UNOChatModel:
    return UNOChatModel(home=home.root, engine=engine, max_tokens=2)


def about(who: str) -> Any:
    return {"metadata": {"user_id": who}}


def told(message: Any) -> tuple[Any, Any]:
    return message.response_metadata["release"], message.response_metadata.get("canary")


def test_a_person_is_on_one_side_however_the_model_is_called(
    chat: UNOChatModel, trial: canary.Plan
) -> None:
    sides = {who: told(chat.invoke(ASK, about(who))) for who in PEOPLE}
    assert set(sides.values()) == {(trial.release, trial.id), (trial.current, trial.id)}

    def node(state: MessagesState) -> Any:
        return {"messages": [chat.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("model", node)
    agent = graph.add_edge(START, "model").add_edge("model", END).compile()
    for who in PEOPLE[:6]:
        expected = sides[who]
        last = list(chat.stream(ASK, about(who)))[-1]
        assert told(last) == expected
        assert told(asyncio.run(chat.ainvoke(ASK, about(who)))) == expected

        async def pieces(who: str = who) -> list[Any]:
            return [piece async for piece in chat.astream(ASK, about(who))]

        assert told(asyncio.run(pieces())[-1]) == expected
        configurable: Any = {"configurable": {"user_id": who}}
        asked: Any = {"messages": [HumanMessage(ASK)]}
        assert told(agent.invoke(asked, configurable)["messages"][-1]) == expected
        # Streaming an agent's messages streams the model inside, to which nothing is told.
        streamed = list(agent.stream(asked, configurable, stream_mode="messages"))
        assert told(streamed[-1][0]) == expected


def test_a_thread_stands_for_nobody_in_particular(chat: UNOChatModel, trial: canary.Plan) -> None:
    for thread in ("t1", "t2", "t3"):
        config: Any = {"metadata": {"thread_id": thread}}
        assert len({told(chat.invoke(ASK, config)) for _ in range(4)}) == 1
    drawn = {told(chat.invoke(ASK))[0] for _ in range(40)}
    assert drawn == {trial.release, trial.current}, "each request by itself"


def test_the_cache_keeps_the_sides_apart(chat: UNOChatModel) -> None:
    before = {who: told(chat.invoke(ASK, about(who))) for who in PEOPLE}
    cache = InMemoryCache()
    cached = chat.model_copy(update={"cache": cache})
    for _ in range(2):
        assert {who: told(cached.invoke(ASK, about(who))) for who in PEOPLE} == before
    assert len(cache._cache) == 2, "one answer a side, however many people"


def test_the_journal_says_which_side_answered(
    home: Home, chat: UNOChatModel, trial: canary.Plan
) -> None:
    texts = (ASK, "zzz 123 !!!")
    with UNOFeedbackHandler(home=home.root) as handler:
        for who in PEOPLE:
            for text in texts:
                chat.invoke(text, {**about(who), "callbacks": [handler]})
        one: Any = UNOChatModel(home=home.root, engine=chat.engine, mode="base", max_tokens=2)
        one.invoke(ASK, {**about("user-0"), "callbacks": [handler]})
    with Journal(home.journal, readonly=True) as journal:
        logs = list(read(journal, join(journal)))
    assert logs.pop().canary is None, "the base alone was asked for"
    assert {log.canary for log in logs} == {trial.id}
    assert {log.cluster for log in logs} == {"c0", None}, "some reach no cluster"
    sides = {who: {log.release for log in logs if log.user_id == who} for who in PEOPLE}
    assert all(len(releases) == 1 for releases in sides.values())
    assert set.union(*sides.values()) == {trial.release, trial.current}


def test_the_bases_share(engine: LocalEngine, home: Home, publish: Callable[[], str]) -> None:
    first = publish()
    rollback(home, "base")
    plan = canary.start(home, first, share=0.5)
    chat = UNOChatModel(home=home.root, engine=engine, max_tokens=2)
    sides = {told(chat.invoke(ASK, about(who))) for who in PEOPLE}
    assert sides == {(first, plan.id), (None, plan.id)}
    canary.stop(home)
    assert {told(chat.invoke(ASK, about(who))) for who in PEOPLE} == {(None, None)}


def test_a_candidate_that_cannot_be_served_leaves_the_current_one_to_answer(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home, trial: canary.Plan
) -> None:
    weights = next((home.releases / trial.release).rglob("adapter_model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    serving = Serving(engine, home, embedder, swap_wait=60, grace=0)
    for who in PEOPLE:
        with serving.draw(who) as (snapshot, name):
            assert (snapshot.release, name) == (trial.current, None)
    assert trial.release in str(serving.refusal)


def test_a_canary_that_ends_frees_its_adapters(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home, trial: canary.Plan
) -> None:
    serving = Serving(engine, home, embedder, swap_wait=60, grace=0)
    serving.current()
    both = {f"{r}-{m}" for r in (trial.release, trial.current) for m in ("c0-expert", "c1-critic")}
    assert set(engine.adapters()) == both
    canary.stop(home)
    _until(lambda: serving.current() and len(engine.adapters()) == 2)
    assert all(name.startswith(str(trial.current)) for name in engine.adapters())


def test_a_canary_that_starts_grows_and_ends_under_load_fails_nobody(
    engine: LocalEngine, embedder: TokenEmbedder, home: Home, publish: Callable[[], str]
) -> None:
    serving = Serving(engine, home, embedder, swap_wait=60, grace=0)
    first, second = publish(), publish()
    make_current(home, first)
    graph = build_respond_graph(serving)
    failures: list[BaseException] = []
    seen: list[tuple[str, str | None, str | None]] = []
    stop = threading.Event()

    def ask(people: list[str]) -> None:
        while not stop.is_set():
            for who in people:
                try:
                    out = graph.invoke(
                        {"messages": [{"role": "user", "content": ASK}]},
                        context=RespondContext(max_tokens=2, stream=False, sticky=who),
                    )
                    assert out["adapter"] == f"{out['release']}-c0-expert"
                    seen.append((who, out["release"], out["canary"]))
                except BaseException as error:  # noqa: BLE001 (checked below)
                    failures.append(error)
                    return

    threads = [threading.Thread(target=ask, args=(PEOPLE[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()

    def reached(*wanted: tuple[str | None, str | None]) -> None:
        start = len(seen)
        _until(lambda: failures or set(wanted) <= {one[1:] for one in seen[start:]})

    try:
        for end in (canary.stop, lambda home: make_current(home, second)):
            plan = canary.start(home, second, share=0.4)
            reached((second, plan.id), (first, plan.id))
            canary.start(home, second, share=0.5)
            reached((second, plan.id), (first, plan.id))
            end(home)
            reached((second if end is not canary.stop else first, None))
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures
    for name in {one[2] for one in seen} - {None}:
        for who in PEOPLE:
            path = [release for w, release, c in seen if (w, c) == (who, name)]
            moves = [a for a, b in pairwise(path) if a != b]
            assert moves in ([], [first]), "the only way is from the current side to the other"


def _until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    import time

    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
