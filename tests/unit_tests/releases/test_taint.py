"""An emptied release keeps its place in the lineage and no word of anybody's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from langchain_uno.home import Home
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
    return made.model_copy(update={"clusters": [c.model_copy(update=WORDS) for c in made.clusters]})


def test_no_word_of_a_cluster_stays(home: Home, tmp_path: Path) -> None:
    adapters = {c: write_adapter(tmp_path / c) for c in ("c0", "c1")}
    release = publish(home, telling(), adapters, np.eye(3, 5, dtype=np.float32))
    path = home.releases / release / "manifest.json"
    before = parse_manifest(path.read_bytes())
    assert b"petronella" in path.read_bytes()
    assert taint(home, [opaque_id(lineage_key(home), "run-1")]) == [release]
    assert b"petronella" not in path.read_bytes()
    after = parse_manifest(path.read_bytes())
    assert after.lineage == before.lineage
    assert [(c.id, c.route, c.adapter) for c in after.clusters] == [
        (c.id, c.route, c.adapter) for c in before.clusters
    ]
