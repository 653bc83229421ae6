"""Journal into Chroma: idempotent, locked, rebuilt when broken, never two embedders."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from toys import WordEmbedder, log

from langchain_uno.errors import HomeError, ModelMismatchError, StoreBusyError, StoreError
from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines
from langchain_uno.logs.index import ChromaIndex, check_embedder, seal
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import LogStore
from langchain_uno.logs.vectors import CachedEmbedder
from langchain_uno.models.protocols import Known, known_as
from langchain_uno.records import Feedback, Interaction


def capture(home: Home, *records: Interaction | Feedback) -> None:
    with Journal(home.journal) as journal:
        for record in records:
            if isinstance(record, Feedback):
                journal.append_feedback(record)
            else:
                journal.append_interaction(record)


def test_drain_puts_everything_into_chroma_once(home: Home) -> None:
    capture(home, *(log(n) for n in range(5)), Feedback(run_id=log(3).run_id, comment="shorter"))
    embedder, done = WordEmbedder(), []
    with LogStore.open(home, embedder) as store:
        assert store.pending() == 5
        assert store.drain(done.append) == 5 and sum(done) == 5
        assert store.drain() == 0 and store.pending() == 0
        assert store.count() == 5
        logs = store.interactions()
        vectors = store.embeddings([one.run_id for one in logs])
    assert [one.run_id for one in logs] == [log(n).run_id for n in range(5)]
    assert [f.comment for f in logs[3].feedback] == ["shorter"]
    assert not any(one.verdict for one in logs)
    assert vectors.dtype == np.float32 and vectors.shape == (5, 32)
    np.testing.assert_allclose(
        vectors, WordEmbedder().embed([one.query for one in logs]), atol=1e-6
    )


def test_the_store_says_what_the_journal_says(home: Home) -> None:
    capture(home, *(log(n, thread_id="t", user_id="u", tags={"a": "b"}) for n in range(3)))
    with LogStore.open(home, WordEmbedder()) as store:
        store.drain()
        stored = store.interactions()
        with Journal(home.journal, readonly=True) as journal:
            assert stored == list(read(journal, join(journal)))


def test_late_feedback_updates_the_record_without_embedding_again(home: Home) -> None:
    capture(home, log(1), log(2))
    embedder = WordEmbedder()
    with LogStore.open(home, embedder) as store:
        store.drain()
    capture(home, Feedback(run_id=log(1).run_id, score=0.0))
    with LogStore.open(home, embedder) as store:
        assert store.drain() == 1
        assert [len(one.feedback) for one in store.interactions()] == [1, 0]
    assert len(embedder.texts) == 2


def test_embeddings_keep_the_order_asked_and_name_what_is_missing(home: Home) -> None:
    capture(home, log(1, "red apple"), log(2, "blue car"))
    with LogStore.open(home, WordEmbedder()) as store:
        store.drain()
        both = store.embeddings([log(2).run_id, log(1).run_id, log(2).run_id])
        np.testing.assert_allclose(both[0], both[2])
        assert not np.allclose(both[0], both[1])
        with pytest.raises(StoreError, match="drain the journal first"):
            store.embeddings([log(3).run_id])


def test_requests_near_a_vector_and_past_feedback_near_a_text(home: Home) -> None:
    capture(
        home,
        log(1, "red apple", language="zh"),
        log(2, "blue car"),
        log(3, "blue bicycle"),
        Feedback(run_id=log(3).run_id, comment="shorter"),
    )
    with LogStore.open(home, WordEmbedder()) as store:
        store.drain()
        centroids = WordEmbedder().embed(["blue car", "apple"])
        cars, apples = store.near(centroids, 2)
        assert [run_id for run_id, _ in cars] == [log(2).run_id, log(3).run_id]
        assert cars[0][1] < 1e-4 and cars[1][1] == pytest.approx(1.0, abs=1e-4)
        assert apples[0][0] == log(1).run_id
        assert [r for r, _ in store.near(centroids[:1], 5, {"language": "zh"})[0]] == [
            log(1).run_id
        ]
        [(nearest, distance)] = store.nearest("blue car", 3)
        assert nearest == log(3).run_id and distance == pytest.approx(1.0, abs=1e-4)
        assert store.near(centroids[:0], 3) == []


def test_many_equal_requests_do_not_hide_the_others(home: Home) -> None:
    """Chroma's graph of equal vectors falls apart: a fifth of them, and others are not found."""
    names = [f"word{n} thing{n * 7} place{n * 13}" for n in range(1500)]
    with Journal(home.ensure().journal) as journal:
        journal.append_many(
            (log(n, name if n % 5 else "the same request"), None) for n, name in enumerate(names)
        )
    embedder = WordEmbedder(128)
    with LogStore.open(home, embedder) as store:
        store.drain()
        asked = [n for n in range(1, 1500, 30) if n % 5]
        found = store.near(embedder.embed([names[n] for n in asked]), 1)
        same = store.near(embedder.embed(["the same request"]), 250)[0]
        vectors = store.embeddings([log(n).run_id for n in range(0, 1500, 5)])
    assert [near[0][1] < 1e-4 for near in found] == [True] * len(asked)
    assert len(same) == 250 and all(distance < 1e-4 for _, distance in same)
    np.testing.assert_allclose(vectors, np.repeat(vectors[:1], 300, axis=0), atol=1e-6)


def test_the_store_says_what_waits_and_who_is_nameless(home: Home) -> None:
    capture(
        home,
        *(log(n) for n in (1, 2)),
        log(3, user_id="ann"),
        Feedback(run_id=log(1).run_id, comment="shorter"),
        Feedback(run_id=log(2).run_id, comment="shorter", user_id="bob"),
        Feedback(run_id=log(3).run_id, comment="shorter"),
        Feedback(run_id="resp_123", comment="shorter"),
    )
    with LogStore.open(home, WordEmbedder()) as store:
        assert (len(store.journal.waiting()), store.kept.nameless) == (1, 1)


def test_the_folder_holds_no_text(home: Home) -> None:
    capture(home, log(1, "a very telling question", "a very telling answer"))
    with LogStore.open(home, WordEmbedder()) as store:
        store.drain()
    stored = b"".join(p.read_bytes() for p in home.chroma.rglob("*") if p.is_file())
    assert b"telling" not in stored


def test_an_index_of_the_version_before_is_made_anew_and_that_is_said_once(home: Home) -> None:
    import chromadb

    capture(home, log(1), log(2))
    with LogStore.open(home, WordEmbedder()) as store:
        store.drain()
    ChromaIndex.wipe(home.chroma)
    client = chromadb.PersistentClient(
        path=str(home.chroma), settings=chromadb.config.Settings(anonymized_telemetry=False)
    )
    client.create_collection(
        "interactions",
        embedding_function=None,
        metadata={"schema": 1, "embedder": "words-32", "dimension": 32},
    ).upsert(
        ids=[log(n).run_id for n in (1, 2)],
        embeddings=WordEmbedder().embed(["one", "two"]),
        metadatas=[{"record": log(n).model_dump_json()} for n in (1, 2)],
        documents=["one", "two"],
    )
    client.close()
    seal(home.chroma)
    said: list[str] = []
    for _ in range(2):
        with LogStore.open(home, WordEmbedder(), say=said.append) as store:
            assert store.count() == 2 and store.drain() == 0
    assert len(said) == 2 and "of another version" in said[0]
    assert said[1] == "The index was rebuilt from the journal: 2 records."


def test_another_embedder_is_refused_until_rebuilt(home: Home) -> None:
    capture(home, log(1))
    with LogStore.open(home, WordEmbedder(name="one")) as store:
        store.drain()
    with pytest.raises(ModelMismatchError, match=r"drain --rebuild --home"):
        LogStore.open(home, WordEmbedder(name="two"))
    with LogStore.open(home, WordEmbedder(name="one")) as store:  # the lock was given back
        assert store.count() == 1
    with LogStore.open(home, WordEmbedder(16, name="two"), rebuild=True) as store:
        assert store.drain() == 1
        assert store.embeddings([log(1).run_id]).shape == (1, 16)


@pytest.mark.parametrize(
    "damage",
    ["folder gone", "database gone", "truncated", "garbage", "rotten", "collection gone"],
)
def test_a_broken_index_is_rebuilt_from_the_journal(home: Home, damage: str) -> None:
    capture(home, *(log(n) for n in range(4)), Feedback(run_id=log(1).run_id, comment="shorter"))
    embedder = WordEmbedder()
    with LogStore.open(home, embedder) as store:
        store.drain()
        before = store.interactions()
    database = home.chroma / "chroma.sqlite3"
    if damage == "folder gone":
        os.rename(home.chroma, home.chroma.with_name("elsewhere"))
    elif damage == "database gone":
        database.unlink()
    elif damage == "truncated":
        os.truncate(database, 5000)
    elif damage == "garbage":
        database.write_bytes(b"\0garbage" * 4000)
    elif damage == "rotten":  # a disk that rots changes no time
        database.write_bytes(b"\0garbage" * 4000)
        seal(home.chroma)
    else:
        ChromaIndex.wipe(home.chroma)
        ChromaIndex(home.chroma, Known([""]), 0).close()
    said: list[str] = []
    with LogStore.open(home, embedder, say=said.append) as store:
        assert store.interactions() == before
        assert store.count() == 4
    assert "rebuilt from the journal: 4 records" in said[-1]
    assert ("file is not a database" in " ".join(said)) == (damage == "rotten")
    assert len(embedder.texts) == 4, "vectors come from the cache"


@pytest.mark.parametrize("asked", ["read", "searched"])
def test_an_index_that_could_not_be_read_is_rebuilt_by_the_next_opening(
    home: Home, asked: str
) -> None:
    capture(home, *(log(n) for n in range(4)))
    with LogStore.open(home, WordEmbedder()) as store:
        store.drain()
        if asked == "searched":  # by a filter that says nothing of the index
            with pytest.raises(StoreError, match="could not search"):
                store.near(np.ones((1, 32)), 2, {"$no": 1})
        else:
            store._index._collection.get = None  # type: ignore[attr-defined]
            with pytest.raises(StoreError, match="could not read"):
                store.embeddings([log(1).run_id])
    said: list[str] = []
    with LogStore.open(home, WordEmbedder(), say=said.append) as store:
        assert store.embeddings([log(1).run_id]).shape == (1, 32)
    assert bool(said) == (asked == "read")


def test_the_refusal_of_another_embedder_names_both(home: Home) -> None:
    ours, theirs = WordEmbedder(name="one"), WordEmbedder(name="two")
    ours.model_name, theirs.model_name = "intfloat/e5", "BAAI/bge"  # type: ignore[attr-defined]
    capture(home, *(log(n) for n in range(4)))
    with LogStore.open(home, WordEmbedder(name="one")) as store:  # as before embedders had names
        store.drain()
        store._index._collection.modify(  # type: ignore[attr-defined]
            metadata={"schema": 2, "embedder": "one-32", "dimension": 32}
        )
    LogStore.open(home, ours).close()  # which writes the name
    with pytest.raises(ModelMismatchError, match="embedder 'intfloat/e5', .* is 'BAAI/bge'"):
        LogStore.open(home, theirs)
    with pytest.raises(ModelMismatchError, match="embedder 'intfloat/e5', .* is 'BAAI/bge'"):
        check_embedder(home.chroma, known_as(theirs))


def test_a_damaged_index_is_not_called_another_embedder_s(home: Home) -> None:
    home.chroma.mkdir(parents=True)
    (home.chroma / "chroma.sqlite3").write_bytes(b"\1" * 5000)
    seal(home.chroma)  # a disk that rots changes no time
    check_embedder(home.chroma, known_as(WordEmbedder()))


class Renamed(WordEmbedder):
    """An embedder that an older version called otherwise."""

    former_fingerprints = ("old-32",)


def test_an_index_of_an_older_version_s_name_is_taken_over(home: Home) -> None:
    capture(home, *(log(n) for n in range(4)))
    with LogStore.open(home, WordEmbedder(name="old")) as store:
        store.drain()
    with pytest.raises(ModelMismatchError, match="--rebuild"):
        LogStore.open(home, WordEmbedder(name="other"))
    for _ in range(2):  # the second time under its new name alone
        with LogStore.open(home, Renamed(name="new")) as store:
            assert store.count() == 4
    with pytest.raises(ModelMismatchError):
        LogStore.open(home, WordEmbedder(name="old"))


def test_damaged_vector_files_that_kill_chroma_do_not_kill_us(home: Home) -> None:
    capture(home, *(log(n) for n in range(1200)))  # enough for Chroma to write its index files
    with LogStore.open(home, WordEmbedder()) as store:
        store.drain()
    [header] = home.chroma.rglob("header.bin")
    os.truncate(header, 50)
    said: list[str] = []
    with LogStore.open(home, WordEmbedder(), say=said.append) as store:
        assert store.count() == 1200
        assert store.embeddings([log(7).run_id]).shape == (1, 32)
    assert "damaged" in said[0]


def _hold(path: str, ready: object) -> None:
    with LogStore.open(Home.locate(path), WordEmbedder()) as store:
        store.drain()
        ready.set()  # type: ignore[attr-defined]
        signal.pause()


def test_one_process_at_a_time_and_a_killed_one_frees_the_store(home: Home) -> None:
    capture(home, log(1))
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    child = spawn.Process(target=_hold, args=(str(home.root), ready))
    child.start()
    assert ready.wait(120)
    with pytest.raises(StoreBusyError, match="in use by another process"):
        LogStore.open(home, WordEmbedder(), timeout_s=0.2)
    capture(home, log(2))  # capture goes on
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    with LogStore.open(home, WordEmbedder(), timeout_s=5) as store:
        assert store.count() == 2 and store.drain() == 0, "what was not closed is filled anew"


def test_the_same_process_cannot_open_it_twice_either(home: Home) -> None:
    with LogStore.open(home, WordEmbedder()), pytest.raises(StoreBusyError):
        LogStore.open(home, WordEmbedder(), timeout_s=0.1)


def test_a_forked_child_may_not_use_its_parents_store(home: Home) -> None:
    capture(home, log(1))
    with LogStore.open(home, WordEmbedder()) as store:
        store.drain()
        child = os.fork()
        if child == 0:
            try:
                store.interactions()
            except StoreError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert store.count() == 1


def test_interrupted_drains_go_on(home: Home) -> None:
    class Stops(WordEmbedder):
        def embed(self, texts, on_done=None):  # type: ignore[no-untyped-def]
            if len(self.texts) >= 256:
                raise KeyboardInterrupt
            return super().embed(texts, on_done)

    capture(home, *(log(n) for n in range(500)))
    stopping = Stops()
    with pytest.raises(KeyboardInterrupt), LogStore.open(home, stopping) as store:
        store.drain()
    embedder = WordEmbedder()
    with LogStore.open(home, embedder) as store:
        assert store.drain() == 200, "the first batches were in"
        assert store.count() == 500
    assert len(embedder.texts) == 500 - len(stopping.texts), "finished vectors are not made again"


def test_an_empty_home_opens_and_is_empty(home: Home) -> None:
    with LogStore.open(home, WordEmbedder()) as store:
        assert store.drain() == 0
        assert store.interactions() == [] and store.embeddings([]).shape[0] == 0
        assert store.nearest("x") == []


def test_a_home_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="can't be written"):
        LogStore.open(Home.locate(tmp_path / "file" / "home"), WordEmbedder())


def test_namespaces_share_nothing(tmp_path: Path) -> None:
    ours, theirs = Home.locate(tmp_path), Home.locate(tmp_path, "tenant-b")
    capture(ours, log(1))
    capture(theirs.ensure(), log(2))
    with (
        LogStore.open(ours, WordEmbedder()) as store,
        LogStore.open(theirs, WordEmbedder()) as other,
    ):
        store.drain()
        other.drain()
        assert [one.run_id for one in store.interactions()] == [log(1).run_id]
        assert [one.run_id for one in other.interactions()] == [log(2).run_id]
    assert len(list(export_lines(theirs))) == 1


def test_the_cache_asks_only_for_new_texts_and_survives_damage(tmp_path: Path) -> None:
    path, embedder = tmp_path / "v.sqlite3", WordEmbedder()
    cached = CachedEmbedder(embedder, path)
    first = cached.embed(["a", "b", "a", ""])
    assert embedder.texts == ["a", "b", ""]
    assert first.shape == (4, 32) and not first[3].any()
    np.testing.assert_array_equal(cached.embed(["b", "c"])[0], first[1])
    assert embedder.texts == ["a", "b", "", "c"]
    other = CachedEmbedder(WordEmbedder(8, name="other"), path)
    assert other.embed(["a"]).shape == (1, 8), "another fingerprint, another vector"
    cached.close()
    other.close()
    for stale in tmp_path.glob("v.sqlite3-*"):
        stale.unlink()
    path.write_bytes(b"garbage, no database " * 200)
    again = CachedEmbedder(embedder, path)
    assert again.embed(["a"]).shape == (1, 32)
    again.close()
