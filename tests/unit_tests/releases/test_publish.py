"""Publishing, switching and rolling back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_uno.errors import HomeError, ReleaseError, ReleaseMismatchError
from langchain_uno.home import Home
from langchain_uno.models.protocols import Known
from langchain_uno.releases import load as load_module
from langchain_uno.releases.checks import check_names
from langchain_uno.releases.load import list_releases, load_release, read_current
from langchain_uno.releases.manifest import lineage_key, opaque_id, parse_manifest
from langchain_uno.releases.publish import make_current, publish, revoke, rollback
from langchain_uno.releases.space import Space
from langchain_uno.releases.traffic import read_traffic
from tests.unit_tests.releases.samples import draft, write_adapter


def test_nothing_released_means_base(home: Home) -> None:
    assert read_current(home) is None
    assert list_releases(home) == []


def test_a_release_comes_back_as_it_was_published(home: Home, make: Callable[[], str]) -> None:
    first = make()
    release = read_current(
        home,
        base_fingerprint="base-1",
        embedder_fingerprint="embedder-1",
        prompt_set_fingerprint="prompts-1",
        linear_shapes={"model.layers.0.self_attn.q_proj": (4, 8)},
    )
    assert release is not None
    assert release.id == first
    assert release.manifest.parent is None
    assert release.centroids.dtype == np.float32
    assert np.array_equal(release.centroids, np.eye(3, 5))
    assert release.space is None
    assert set(release.adapters) == {f"{first}-c0-expert", f"{first}-c1-critic"}
    assert release.cluster("c2").adapter is None
    with pytest.raises(ReleaseError, match="no cluster 'c9'"):
        release.cluster("c9")
    found = sorted(p.name for p in release.adapters[f"{first}-c0-expert"].iterdir())
    assert found == ["adapter_config.json", "adapter_model.safetensors"]


def test_the_space_is_kept_with_the_centroids(home: Home, tmp_path: Path) -> None:
    adapters = {"c0": write_adapter(tmp_path / "a"), "c1": write_adapter(tmp_path / "b")}
    directions = np.arange(10, dtype=np.float32).reshape(5, 2) / 20
    space = Space(np.arange(5, dtype=np.float32), directions)
    publish(home, draft(), adapters, np.eye(3, 5, dtype=np.float32), space=space)
    release = read_current(home)
    assert release is not None and release.space is not None
    assert np.array_equal(release.space.centre, space.centre)
    assert np.array_equal(release.space.damped, directions)


def test_a_memory_needs_no_adapter_and_may_have_none(home: Home, tmp_path: Path) -> None:
    adapters = {"c0": write_adapter(tmp_path / "a")}
    told = draft()
    told.clusters[1] = told.clusters[1].model_copy(update={"route": "memory", "rules": ["sing"]})
    centres = np.eye(3, 5, dtype=np.float32)
    made = publish(home, told, adapters, centres)
    release = load_release(home, made)
    assert set(release.adapters) == {f"{made}-c0-expert"}
    assert (release.cluster("c1").route, release.cluster("c1").adapter) == ("memory", None)
    named = release.manifest.model_copy(deep=True)
    named.clusters[1] = named.clusters[1].model_copy(update={"adapter": f"{made}-c1-memory"})
    with pytest.raises(ReleaseError, match="goes to the memory and names adapter"):
        check_names(named, made)


def test_a_manifest_of_schema_1_is_read_as_ever(home: Home, make: Callable[[], str]) -> None:
    raw = json.loads((load_release(home, make()).path / "manifest.json").read_bytes())
    raw["schema_version"] = 1
    for cluster in raw["clusters"]:
        for later in ("trained_on", "made_in"):
            del cluster[later]
    old = parse_manifest(json.dumps(raw).encode())
    assert old.schema_version == 6
    assert old.clusters[0].trained_on == []


def test_lineage_is_opaque_but_can_be_followed(home: Home, make: Callable[[], str]) -> None:
    release_id = make()
    release = load_release(home, release_id)
    raw = (release.path / "manifest.json").read_text()
    assert "run-1" not in raw
    key = lineage_key(home)
    assert opaque_id(key, "run-1") in release.cluster("c0").run_ids
    assert len(release.manifest.lineage) == 4
    assert opaque_id(b"another home's key", "run-1") not in release.manifest.lineage
    assert (home.path / "lineage.key").stat().st_mode & 0o077 == 0


def test_rollback_goes_to_the_parent_and_forwards_again(
    home: Home, make: Callable[[], str]
) -> None:
    first, second = make(), make()
    assert load_release(home, second).manifest.parent == first
    assert getattr(rollback(home), "id", None) == first
    current = read_current(home)
    assert current is not None
    assert current.id == first
    assert make_current(home, second).id == second
    assert getattr(rollback(home, to=first), "id", None) == first
    assert rollback(home) is None  # before the first release the base model answered
    assert read_current(home) is None
    make_current(home, first)
    rollback(home, "base")
    assert read_current(home) is None
    with pytest.raises(ReleaseError, match="nothing to roll back"):
        rollback(home)


def test_a_revoked_release_is_never_served_again(home: Home, make: Callable[[], str]) -> None:
    first, second, third = make(), make(), make()
    revoke(home, second, "erasure 7")
    assert getattr(rollback(home, to=first), "id", None) == first  # nothing else is touched
    make_current(home, third)
    with pytest.raises(ReleaseError, match=r"revoked \(erasure 7\)"):
        rollback(home)
    revoke(home, third, "erasure 8")
    current = read_current(home)
    assert current is not None
    assert current.id == first  # the nearest sound ancestor
    revoke(home, first, "erasure 9")
    assert read_current(home) is None


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("base_fingerprint", "base model"),
        ("embedder_fingerprint", "embedder"),
        ("prompt_set_fingerprint", "prompt set"),
    ],
)
def test_a_foreign_release_is_refused(
    home: Home, make: Callable[[], str], field: str, what: str
) -> None:
    release_id = make()
    expected: dict[str, Any] = {field: "another"}
    with pytest.raises(ReleaseMismatchError, match=f"made for {what}") as caught:
        load_release(home, release_id, **expected)
    assert caught.value.exit_code == 5


def test_a_refusal_names_the_models(home: Home, make: Callable[[], str]) -> None:
    release = make()
    other = Known.of("base-2", "larger-model")
    with pytest.raises(ReleaseMismatchError, match="base model 'tiny-model' and .* 'larger-model'"):
        load_release(home, release, base_fingerprint=other)
    alike = Known.of("base-2", "tiny-model")  # another model of the same name
    told = r"base model 'tiny-model \(base-1\)' and this is 'tiny-model \(base-2\)'"
    with pytest.raises(ReleaseMismatchError, match=told):
        load_release(home, release, base_fingerprint=alike)
    unnamed = Known.of("embedder-2", "e5")  # the release is of before embedders had names
    with pytest.raises(ReleaseMismatchError, match="embedder 'embedder-1' and this is 'e5'"):
        load_release(home, release, embedder_fingerprint=unnamed)


@pytest.mark.parametrize("field", ["base_fingerprint", "embedder_fingerprint"])
def test_no_release_of_other_models_than_what_answers_takes_over(
    home: Home, make: Callable[[], str], tmp_path: Path, field: str
) -> None:
    first = make()
    adapters = {c: write_adapter(tmp_path / c) for c in ("c0", "c1")}
    other = draft().model_copy(update={field: "other", "figures": {"embedder": "e5"}})
    second = publish(home, other, adapters, np.eye(3, 5, dtype=np.float32))
    before = home.traffic.read_bytes()
    for change in (partial(rollback, home), partial(rollback, home, first)):
        with pytest.raises(ReleaseMismatchError, match="of what answers.*--to base.*this again"):
            change()
    with pytest.raises(ReleaseMismatchError, match="it was made for"):
        make_current(home, first)
    assert home.traffic.read_bytes() == before
    rollback(home, "base")
    make_current(home, first)
    with pytest.raises(ReleaseMismatchError, match="it was made for"):
        make_current(home, second)


def test_a_bad_adapter_is_not_published(
    home: Home, make: Callable[[], str], tmp_path: Path
) -> None:
    first = make()
    good, foreign = write_adapter(tmp_path / "g"), write_adapter(tmp_path / "f", base="other")
    with pytest.raises(ReleaseError, match="made for base model 'other'"):
        publish(home, draft(), {"c0": good, "c1": foreign}, np.eye(3, dtype=np.float32))
    (good / "adapter_model.safetensors").unlink()
    with pytest.raises(ReleaseError, match=r"no adapter_model\.safetensors"):
        publish(home, draft(), {"c0": good, "c1": good}, np.eye(3, dtype=np.float32))
    current = read_current(home)
    assert current is not None
    assert current.id == first
    assert list_releases(home) == [first]


def test_an_id_is_used_once(home: Home, make: Callable[[], str], tmp_path: Path) -> None:
    release_id = make()
    again = draft().model_copy(update={"id": release_id})
    adapters = {c: write_adapter(tmp_path / c) for c in ("c0", "c1")}
    with pytest.raises(ReleaseError, match="never replaced"):
        publish(home, again, adapters, np.eye(3, dtype=np.float32))


_KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {tests!r})
from langchain_uno.home import Home
from langchain_uno.releases import publish as module
from tests.unit_tests.releases.samples import draft, write_adapter
def dying(*a, **k):
    os.kill(os.getpid(), signal.SIGKILL)
module.{target} = dying
tmp = Path({tmp!r})
adapters = {{c: write_adapter(tmp / c) for c in ("c0", "c1")}}
module.publish(Home.locate({home!r}), draft(), adapters, np.eye(3, dtype=np.float32))
"""


@pytest.mark.parametrize("target", ["os.rename", "write_traffic"])
def test_a_kill_amid_publishing_leaves_the_old_release_current(
    home: Home, make: Callable[[], str], tmp_path: Path, target: str
) -> None:
    first = make()
    root = str(Path(__file__).parents[3])
    code = _KILLED.format(tests=root, target=target, tmp=str(tmp_path / "k"), home=str(home.root))
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    hidden = list(home.releases.glob(".new-*"))
    assert len(hidden) == (1 if target == "os.rename" else 0)
    current = read_current(home)
    assert current is not None
    assert current.id == first
    second = make()  # sweeps what was left and goes on
    assert list(home.releases.glob(".new-*")) == []
    traffic = read_traffic(home)
    assert traffic is not None
    assert traffic.current is not None
    assert traffic.current.release == second


def test_a_namespace_sees_its_own_releases_only(home: Home, make: Callable[[], str]) -> None:
    release_id = make()
    other = Home.locate(home.root, namespace="other").ensure()
    assert read_current(other) is None
    with pytest.raises(ReleaseError, match="There is no release"):
        load_release(other, release_id)
    with pytest.raises(ReleaseError, match="not usable"):
        load_release(other, f"../../../releases/{release_id}")


def test_a_home_that_cannot_be_written(
    home: Home, make: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(HomeError, match="No space left"):
        make()
    assert list(home.releases.iterdir()) == []
    assert load_module.read_current(home) is None
