"""A tainted release keeps its place in the lineage, and only what the forgotten did not teach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app
from langchain_uno.erasure import forget_preview
from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Interaction, Message
from langchain_uno.releases.load import load_release
from langchain_uno.releases.manifest import Manifest, lineage_key, opaque_id, parse_manifest
from langchain_uno.releases.publish import publish
from langchain_uno.releases.taint import taint
from tests.unit_tests.releases.samples import draft, write_adapter

WORDS = {
    "rules": ["Mention petronella.", "Greet."],
    "note": "petronella",
}


def telling() -> Manifest:
    made = draft()
    first, *others = made.clusters
    others = [c.model_copy(update={"rules": ["Be brief."]}) for c in others]
    review = {"in_force": {"c0": ["a"], "c1": ["b"]}, "own": {"c0": {"Mention petronella.": "ann"}}}
    clusters = [first.model_copy(update=WORDS), *others]
    return made.model_copy(update={"clusters": clusters, "figures": {"review": review}})


def test_no_word_of_a_tainted_cluster_stays(home: Home, tmp_path: Path) -> None:
    adapters = {c: write_adapter(tmp_path / c) for c in ("c0", "c1")}
    release = publish(home, telling(), adapters, np.eye(3, 5, dtype=np.float32))
    path = home.releases / release / "manifest.json"
    before = parse_manifest(path.read_bytes())
    assert b"petronella" in path.read_bytes()
    assert taint(home, [opaque_id(lineage_key(home), "run-1")]) == [release]
    assert b"petronella" not in path.read_bytes()
    after = parse_manifest(path.read_bytes())
    assert after.lineage == before.lineage
    assert [(c.id, c.run_ids) for c in after.clusters] == [
        (c.id, c.run_ids) for c in before.clusters
    ]
    assert [(c.route, c.rules) for c in after.clusters] == [
        ("base", []), ("critic", ["Be brief."]), ("base", ["Be brief."])
    ]  # fmt: skip
    assert after.figures == {"review": {"in_force": {"c1": ["b"]}, "own": {}}}

    with pytest.raises(ReleaseError, match="tainted"):
        load_release(home, release)
    left = load_release(home, release, remains=True)
    assert list(left.adapters) == [f"{release}-c1-critic"]
    files = {p.name for p in (home.releases / release).rglob("*") if p.is_file()}
    assert files == {"manifest.json", "adapter_config.json", "adapter_model.safetensors"}
    # Somebody else of the other cluster is forgotten: nothing is left.
    assert taint(home, [opaque_id(lineage_key(home), "run-3")]) == [release]
    assert load_release(home, release, remains=True).adapters == {}
    assert [p.name for p in (home.releases / release).rglob("*")] == ["manifest.json"]


@pytest.mark.parametrize("sound", [True, False])
def test_whoever_forgets_is_told_what_is_revoked_and_what_answers(
    home: Home, tmp_path: Path, sound: bool
) -> None:
    asked = [Message(role="user", content="Hello?")]
    log = Interaction(run_id="run-1", messages=asked, answer="Yes.", user_id="ann")
    with Journal(home.journal) as journal:
        journal.append_interaction(log)
    first, *taught = (
        publish(
            home,
            draft(run_ids),
            {c: write_adapter(tmp_path / f"{n}-{c}") for c in ("c0", "c1")},
            np.eye(3, 5, dtype=np.float32),
        )
        for n, run_ids in enumerate([("run-9",) if sound else ("run-1",), ("run-1",), ("run-1",)])
    )
    gone, heir = (taught, first) if sound else ([first, *taught], "the base model")
    seen = forget_preview(home, user_id="ann")
    assert sorted(seen["releases"]) == sorted(gone)
    assert seen["answers"] == ({first: 1.0} if sound else {})
    words = ["logs", "forget", "--user", "ann", "--home", str(home.root), "--dry-run"]
    told = CliRunner().invoke(app, words).output
    assert f"This revokes release {taught[1]} (answers)." in told
    assert f"Then this answers: {heir}." in told
    told = CliRunner().invoke(app, [*words[:-1], "--yes"]).output
    assert all(f"Release {release} is revoked." in told for release in gone)
    assert f"This answers now: {heir}." in told
