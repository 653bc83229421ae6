"""Damaged index files are noticed before Chroma's native code trusts them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings

from langchain_uno.logs.hnsw_files import hnsw_trouble


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Chroma folder whose vector index was saved to files (it is at every 1,000th record)."""
    folder = tmp_path_factory.mktemp("saved") / "chroma"
    client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
    collection = client.create_collection("logs", embedding_function=None)
    vectors = np.random.default_rng(0).normal(size=(2100, 16)).astype(np.float32)
    for at in range(0, 2100, 300):
        ids = [str(i) for i in range(at, at + 300)]
        collection.add(ids, embeddings=vectors[at : at + 300])
    client.close()
    return folder


def _file(folder: Path, name: str) -> Path:
    [found] = folder.rglob(name)
    return found


def _cut(name: str, by: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = _file(folder, name).read_bytes()
        _file(folder, name).write_bytes(data[:-by])

    return damage


def _overwrite(name: str, at: int, data: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = bytearray(_file(folder, name).read_bytes())
        raw[at : at + len(data)] = data
        _file(folder, name).write_bytes(bytes(raw))

    return damage


def _first_link(folder: Path) -> None:
    """Let the first element that is on an upper level have a neighbour that is nowhere."""
    raw = bytearray(_file(folder, "link_lists.bin").read_bytes())
    at = 0
    while not int.from_bytes(raw[at : at + 4], "little"):
        at += 4
    raw[at + 8 : at + 12] = b"\xff\xff\xff\xff"
    _file(folder, "link_lists.bin").write_bytes(bytes(raw))


def _inflate(folder: Path) -> None:
    """As the save after a damaged one leaves it: a sparse file of 100 GB, which nobody may read."""
    with _file(folder, "link_lists.bin").open("r+b") as file:
        file.truncate(100 << 30)


def test_a_sound_index_has_no_trouble(saved: Path) -> None:
    assert _file(saved, "link_lists.bin").stat().st_size > 0, "there is something to look at"
    assert hnsw_trouble(saved) is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: _file(f, "header.bin").unlink(), "lacks header.bin"),
        (lambda f: _file(f, "link_lists.bin").unlink(), "lacks link_lists.bin"),
        (_cut("header.bin", 40), "header that was cut short"),
        (_cut("data_level0.bin", 1), "vectors that were cut short"),
        (_cut("length.bin", 4), "lengths that were cut short"),
        (_cut("link_lists.bin", 4), "links that were cut short"),
        (lambda f: _file(f, "link_lists.bin").write_bytes(b""), "links that were cut short"),
        (_overwrite("link_lists.bin", 0, b"ring"), "of a size that makes no sense"),
        (_overwrite("link_lists.bin", 0, b"\x44"), "links"),
        (_overwrite("header.bin", 56, b"\xff\xff\xff\xff"), "header that makes no sense"),
        (_overwrite("data_level0.bin", 4, b"\xff\xff\xff\xff"), "not there"),
        # as a save that was killed leaves it: the header counts more than the links have
        (_overwrite("header.bin", 20, (1200 + 1).to_bytes(8, "little")), "vectors"),
        (_first_link, "not there"),
        (_inflate, "more links than"),
    ],
)
def test_damage_is_named(
    saved: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    copy = tmp_path / "chroma"
    shutil.copytree(saved, copy)
    damage(copy)
    assert said in str(hnsw_trouble(copy))


def test_an_unknown_layout_is_left_to_the_probe(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "chroma"
    shutil.copytree(saved, copy)
    _overwrite("header.bin", 0, b"\x09")(copy)
    assert hnsw_trouble(copy) is None
