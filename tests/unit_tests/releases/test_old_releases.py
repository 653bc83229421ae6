"""Releases of the version before (manifest schema 3) are read, served and learnt on from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from langchain_uno import UNOChatModel
from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home
from langchain_uno.models.adapters import linear_shapes
from langchain_uno.models.loading import bundled_path, load_embedder, load_engine, load_prompt_set
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.prompts import worded_alike
from langchain_uno.records import Cluster
from langchain_uno.releases.checks import file_sha256
from langchain_uno.releases.load import load_release
from langchain_uno.releases.manifest import Manifest, parse_manifest
from langchain_uno.releases.publish import make_current, publish
from langchain_uno.testing import make_tiny_adapter

WRITTEN = Path(__file__).parents[2] / "data" / "manifest_schema_3.json"
"""As version 0.1 wrote it for the bundled model, which it called "embedded"."""
QUERIES = ["where is the kettle", "WHAT ARE 17 * 23 - 1?", "a poem about boots, please"]


def old_manifest() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(WRITTEN.read_text(encoding="utf-8"))
    return raw


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    made = load_engine()
    assert isinstance(made, LocalEngine)
    yield made
    made.close()


@pytest.fixture
def old_release(home: Home, engine: LocalEngine) -> str:
    """The whole folder, as it lies in a home."""
    raw = old_manifest()
    [entry] = raw["adapters"]
    folder = home.releases / raw["id"]
    adapter = make_tiny_adapter(folder / "adapters" / entry["name"], bundled_path(), rank=2)
    (adapter / "README.md").unlink()
    settings = adapter / "adapter_config.json"
    named = {**json.loads(settings.read_text()), "base_model_name_or_path": "embedded"}
    settings.write_text(json.dumps(named))
    centroids = load_embedder(None, engine).embed(QUERIES)
    save_file({"centroids": np.ascontiguousarray(centroids)}, folder / "centroids.safetensors")
    raw["files"] = {name: file_sha256(folder / name) for name in raw["files"]}
    (folder / "manifest.json").write_text(json.dumps(raw))
    return str(raw["id"])


def test_it_is_read_by_its_present_names() -> None:
    read = parse_manifest(WRITTEN.read_bytes())
    assert read.schema_version == 6
    assert read.base_model == "bundled"
    assert worded_alike(read.prompt_set_fingerprint, load_prompt_set("bundled").fingerprint)
    assert read.recipe["prompt_set"] == "bundled"
    assert (read.recipe["min_kept"], read.recipe["role_tokens"]) == (1.0, 160)
    assert read.recipe["cluster"]["rule_weight"] == "auto"  # kept as it is, never validated


def test_rules_of_some_requests_alone_and_rivals_are_dropped() -> None:
    clusters = {c.id: c for c in parse_manifest(WRITTEN.read_bytes()).clusters}
    assert clusters["c0"].rules == ["Write one sentence."]
    assert clusters["c1"].rules == ["Write one sentence.", "End with a question."]
    assert clusters["c2"].rules == []
    assert clusters["c0"].reports[0].passed


def damaged(change: Callable[[dict[str, Any]], object]) -> bytes:
    raw = old_manifest()
    change(raw)
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw["clusters"][1]["conditions"].pop(), "'c1' has 3 conditions for 4 rules"),
        (lambda raw: raw.update(clusters=["c0"]), "malformed"),
        (lambda raw: raw.update(recipe="paper"), "malformed"),
        (lambda raw: raw["clusters"][1].update(rivals=[3]), "malformed"),
        (
            lambda raw: raw["clusters"][0].update(route="elsewhere"),
            "bad value at 'clusters.0.route",
        ),
    ],
)
def test_a_damaged_one_is_refused(change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(ReleaseError, match=said):
        parse_manifest(damaged(change))


def test_it_is_served(home: Home, engine: LocalEngine, old_release: str) -> None:
    make_current(home, old_release, linear_shapes=linear_shapes(engine.model))
    model = UNOChatModel(home=home.path, engine=engine, max_tokens=8)
    told = [model.invoke(query).response_metadata for query in QUERIES]
    assert [t["route"] for t in told] == ["expert", "memory", "base"]
    assert [t["cluster"] for t in told] == ["c0", "c1", "c2"]
    assert {t["release"] for t in told} == {old_release}


def test_its_adapter_goes_on_in_a_new_release(home: Home, old_release: str) -> None:
    old = load_release(home, old_release)
    draft = Manifest(
        base_model="bundled",
        base_fingerprint=old.manifest.base_fingerprint,
        embedder_fingerprint=old.manifest.embedder_fingerprint,
        prompt_set_fingerprint=load_prompt_set("bundled").fingerprint,
        clusters=[Cluster(id="c0", size=1, run_ids=["run"], route="expert", made_in=old.id)],
    )
    [adapter] = old.adapters.values()
    made = publish(home, draft, {"c0": adapter}, old.centroids[:1])
    assert load_release(home, made).manifest.base_model == "bundled"
