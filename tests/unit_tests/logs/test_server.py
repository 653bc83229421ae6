"""The log store on a real Chroma server: many hosts, one store, and a server that dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chroma_server import ChromaServer
from toys import WordEmbedder, log

from langchain_uno.errors import ConfigError, ModelMismatchError, NameError_, StoreError
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.server import ENV_TOKEN, server_address
from langchain_uno.logs.store import ENV_CHROMA, LogStore
from langchain_uno.records import Feedback


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    running = ChromaServer(tmp_path_factory.mktemp("chroma-server"))
    yield running
    running.kill()


@pytest.fixture
def tenant(request: pytest.FixtureRequest) -> str:
    """Of each test's own."""
    return "t-" + str(abs(hash(request.node.name)))[:12]


def home_on(server: ChromaServer, folder: Path, tenant: str, namespace: str = "default") -> Home:
    home = Home.locate(folder, namespace).ensure()
    home.settings.write_text(f'[logs]\nchroma = "{server.url}"\nchroma_tenant = "{tenant}"\n')
    return home


def capture(home: Home, numbers: range, **fields: object) -> None:
    with Journal(home.journal) as journal:
        for n in numbers:
            journal.append_interaction(log(n, f"question {n % 5} red", **fields))


def drained(home: Home, **how: object) -> list[str]:
    with LogStore.open(home, WordEmbedder(), **how) as store:  # type: ignore[arg-type]
        store.drain()
        return [one.run_id for one in store.interactions()]


def test_server_and_folder_hold_the_same(
    server: ChromaServer, tmp_path: Path, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_on(server, tmp_path / "home", tenant)
    capture(home, range(1300), user_id="u")  # more than a page
    with Journal(home.journal) as journal:
        journal.append_feedback(Feedback(run_id=log(3).run_id, comment="shorter"))
    found = {}
    for where in (server.url, "embedded", server.url):
        monkeypatch.setenv(ENV_CHROMA, where)
        with LogStore.open(home, WordEmbedder()) as store:
            store.drain()
            logs = store.interactions()
            ids = [one.run_id for one in logs]
            found[where] = (
                logs,
                store.embeddings(ids),
                store.near(WordEmbedder().embed(["question 3 red"]), 5)[0],
            )
    there, here = found.values()
    assert there[0] == here[0]
    assert len(there[0]) == 1300
    np.testing.assert_allclose(there[1], here[1], atol=1e-6)
    for _, _, near in (there, here):  # a fifth of the records ask exactly this
        assert near[0][1] < 1e-3
    assert not (home.chroma / "chroma.sqlite3").exists() or here[0]


def test_two_hosts_fill_one_store_and_neither_writes_twice(
    server: ChromaServer, tmp_path: Path, tenant: str
) -> None:
    one, two = (home_on(server, tmp_path / name, tenant) for name in ("one", "two"))
    capture(one, range(30))
    capture(two, range(100, 140))
    threads = [threading.Thread(target=drained, args=(home,)) for home in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for home in (one, two):
        embedder = WordEmbedder()
        with LogStore.open(home, embedder) as store:
            assert store.drain() == 0
            assert len(store.interactions()) == store.count() == 70
        assert embedder.texts == []
    with pytest.raises(ModelMismatchError, match="were made by embedder"):
        LogStore.open(two, WordEmbedder(name="other"))


def test_a_rebuild_by_one_host_is_noticed_by_the_other(
    server: ChromaServer, tmp_path: Path, tenant: str
) -> None:
    one, two = (home_on(server, tmp_path / name, tenant) for name in ("one", "two"))
    capture(one, range(30))
    capture(two, range(100, 140))
    drained(one)
    assert len(drained(two)) == 70
    assert len(drained(one, rebuild=True)) == 30
    said: list[str] = []
    assert len(drained(two, say=said.append)) == 70  # filled in again, from the vector cache
    assert "lacks records" in said[0]
    assert said[1] == "The index was rebuilt from the journal: 40 records."


def test_namespaces_are_databases_of_their_own(
    server: ChromaServer, tmp_path: Path, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = home_on(server, tmp_path / "home", tenant, "a")
    b = home_on(server, tmp_path / "home", tenant, "b")
    capture(a, range(5))
    capture(b, range(7))
    assert len(drained(a)) == 5
    assert len(drained(b)) == 7
    assert len(drained(a)) == 5
    monkeypatch.setenv(ENV_CHROMA, server.url)
    with pytest.raises(NameError_):
        LogStore.open(Home(tmp_path, "../b"), WordEmbedder())


def drain_until_it_dies(home: Home, server: ChromaServer) -> None:
    with LogStore.open(home, WordEmbedder()) as store:
        while True:  # killed when the first batch is in
            store.drain(lambda n: server.kill())


def test_killed_and_started_again_nothing_is_lost(tmp_path: Path, tenant: str) -> None:
    server = ChromaServer(tmp_path / "server")
    home = home_on(server, tmp_path / "home", tenant)
    stop = threading.Event()
    written = 0

    def keep_capturing() -> None:
        nonlocal written
        with Journal(home.journal) as journal:
            while not stop.is_set():
                assert journal.append_interaction(log(written, f"question {written % 7}"))
                written += 1
                time.sleep(0.005)

    worker = threading.Thread(target=keep_capturing)
    worker.start()
    try:
        for _ in range(2):
            with pytest.raises(StoreError, match="check that the Chroma server is up") as caught:
                drain_until_it_dies(home, server)
            assert "question" not in str(caught.value)
            server.start()
    finally:
        stop.set()
        worker.join()
    assert len(drained(home)) == written > 100
    server.kill()
    with pytest.raises(StoreError, match="nothing is lost"):
        LogStore.open(home, WordEmbedder())


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("ftp://host", "give 'embedded', or a server"),
        ("localhost:8000", "give 'embedded', or a server"),
        ("http://u:p@host", "must not carry credentials"),
        ("http://host:8000/x", "must end after the port"),
        ("http://host:99999", "is not one"),
        ("http://", "give 'embedded', or a server"),
    ],
)
def test_wrong_urls_are_refused_with_a_sentence(
    home: Home, url: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_CHROMA, url)
    with pytest.raises(ConfigError, match=complaint) as caught:
        LogStore.open(home, WordEmbedder())
    assert ":p@" not in str(caught.value)


def test_addresses_and_the_environment(
    server: ChromaServer, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server_address("https://chroma.example.org") == ("chroma.example.org", 443, True)
    assert server_address("http://10.0.0.7") == ("10.0.0.7", 8000, False)
    home.ensure()
    capture(home, range(2))
    monkeypatch.setenv(ENV_CHROMA, server.url)
    monkeypatch.setenv(ENV_TOKEN, "s3cret-token")  # a server without authentication ignores it
    assert len(drained(home)) == 2
    assert not (home.chroma / "chroma.sqlite3").exists()
    everything = b"".join(p.read_bytes() for p in home.path.rglob("*") if p.is_file())
    assert b"s3cret-token" not in everything


def test_a_server_that_makes_no_tenants_says_why(
    server: ChromaServer, tmp_path: Path, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chromadb.api.fastapi import FastAPI
    from chromadb.errors import AuthorizationError

    def refuse(self: FastAPI, name: str) -> None:
        raise AuthorizationError("you may not create tenants")

    monkeypatch.setattr(FastAPI, "create_tenant", refuse)
    home = home_on(server, tmp_path / "home", tenant)
    with pytest.raises(StoreError, match="you may not create tenants"):
        drained(home)
