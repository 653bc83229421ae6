"""Seventy-odd planted releases, traffic files and adapter names, under a service that goes on."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from langchain_uno import UNOChatModel
from langchain_uno.errors import NameError_, ReleaseError
from langchain_uno.home import Home
from langchain_uno.models.embedders import TokenEmbedder
from langchain_uno.models.local import LocalEngine
from langchain_uno.releases.publish import revoke
from tests.unit_tests.releases.test_load import BAD, edit_config, open_up, set_
from tests.unit_tests.serving.tiny_release import QUERIES, publish_tiny

# What only the engine or the serving side can see: released well-formed, refused all the same.
FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "DoRA": (lambda f: edit_config(f, use_dora=True), "use_dora"),
    "saved modules": (lambda f: edit_config(f, modules_to_save=["lm_head"]), "modules_to_save"),
    "replicated layers": (
        lambda f: edit_config(f, layer_replication=[[0, 2]]),
        "layer_replication",
    ),
    "bias": (lambda f: edit_config(f, bias="all"), "bias"),
    "LoRA bias": (lambda f: edit_config(f, lora_bias=True), "lora_bias"),
    "parameters": (lambda f: edit_config(f, target_parameters=["x"]), "target_parameters"),
    "tokens": (lambda f: edit_config(f, trainable_token_indices=[1]), "trainable_token"),
    "base model": (set_("base_fingerprint", to="another"), r"(another)' and this is '"),
    "embedder": (set_("embedder_fingerprint", to="another"), "embedder 'another'"),
    "prompts": (set_("prompt_set_fingerprint", to="another"), "prompt set 'another'"),
}
NAMES = [
    "../x", "/tmp/x", "a/../../x", "..", ".", "", "A", "a b", "x" * 81, "a\x00b", "-a", "a.b", "ｘ",
    "a\n",
]  # fmt: skip
PLANTED = {
    **{k: v for k, v in BAD.items() if k not in ("shape", "centroid rows", "rank", "rank of A")},
    **FOREIGN,
}


class Bomb:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def two(adapter_paths: dict[str, Path]) -> dict[str, Path]:
    return {c: adapter_paths[c] for c in ("c0", "c1")}


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        opened.append(repr(args)[:200])
        raise AssertionError("a pickle was opened")

    for owner, name in ((torch, "load"), (pickle, "load"), (pickle, "Unpickler")):
        monkeypatch.setattr(owner, name, refuse)
    return opened


def _point_to(home: Home, release: str, sha: str | None = None, **changes: Any) -> None:
    """Write traffic.json as somebody would who can write the home."""
    manifest = home.releases / release / "manifest.json"
    if sha is None:
        raw = manifest.read_bytes() if manifest.is_file() else b""
        sha = hashlib.sha256(raw).hexdigest()
    share = {"release": release, "share": 1.0, "manifest_sha256": sha, **changes}
    temp = home.traffic.with_suffix(".new")
    temp.write_text(json.dumps({"schema_version": 1, "shares": [share]}))
    os.replace(temp, home.traffic)


def test_everything_planted_is_refused_and_the_service_goes_on(
    engine: LocalEngine,
    embedder: TokenEmbedder,
    two: dict[str, Path],
    tmp_path: Path,
    no_pickle: list[str],
) -> None:
    home, staging = Home(tmp_path / "home"), Home(tmp_path / "staging")
    good = publish_tiny(home, engine, embedder, two)
    model = UNOChatModel(home=home.path, engine=engine, max_tokens=3)
    assert model.invoke(QUERIES["c0"]).response_metadata["release"] == good
    serving = model.served.serving
    failed: list[BaseException] = []
    answered = 0
    stop = threading.Event()

    def ask() -> None:
        nonlocal answered
        while not stop.is_set():
            try:
                told = model.invoke(QUERIES["c0"]).response_metadata
                assert told["release"] == good and told["adapter"] == f"{good}-c0-expert"
                answered += 1
            except BaseException as error:  # noqa: BLE001 - checked below
                failed.append(error)
                return

    user = threading.Thread(target=ask)
    user.start()
    refused: dict[str, str] = {}

    def noticed(case: str, reason: str) -> None:
        # Either this request looks at the new release, or the user's does and this one goes on.
        until = time.monotonic() + 60
        while serving.refusal is None and time.monotonic() < until:
            assert model.invoke(QUERIES["c0"]).response_metadata["release"] == good
        said = str(serving.refusal)
        assert reason in said.replace("\\", ""), (case, said)
        refused[case] = said

    mark = tmp_path / "opened"
    for case, (damage, reason) in PLANTED.items():
        serving.refusal = None
        name = publish_tiny(staging, engine, embedder, two)
        folder = staging.releases / name
        open_up(folder)
        damage(folder)
        for bait in [*folder.glob("*.bin"), *folder.glob("adapters/*/*.bin")]:
            bait.write_bytes(pickle.dumps(Bomb(mark)))
        shutil.move(folder, home.releases / name)
        _point_to(home, name)
        noticed(case, reason.replace("\\", ""))

    # traffic files
    spare = publish_tiny(staging, engine, embedder, two)
    shutil.copytree(staging.releases / spare, home.releases / spare)
    other = publish_tiny(Home.locate(home.path, "other"), engine, embedder, two)
    (home.releases / "linked").symlink_to(staging.releases / spare)
    revoked = publish_tiny(staging, engine, embedder, two)
    shutil.copytree(staging.releases / revoked, home.releases / revoked)
    revoke(home, revoked, "a test")
    for case, plant, reason in (
        ("other manifest", lambda: _point_to(home, spare, "0" * 64), "by its sha256"),
        ("half a share", lambda: _point_to(home, spare, share=0.5), "do not sum to 1"),
        ("path", lambda: _point_to(home, "../x", "0" * 64), "'../x'"),
        ("nothing there", lambda: _point_to(home, "r0", "0" * 64), "no release 'r0'"),
        ("another tenant's", lambda: _point_to(home, other, "0" * 64), "no release"),
        ("a link", lambda: _point_to(home, "linked"), "no release 'linked'"),
        ("revoked", lambda: _point_to(home, revoked), "revoked (a test)"),
        ("not JSON", lambda: home.traffic.write_text("{"), "not usable"),
    ):
        serving.refusal = None
        plant()
        noticed(case, reason)

    # adapter names, at the engine's own door
    for name in NAMES:
        with pytest.raises(NameError_, match="not usable"):
            engine.load_adapter(name, two["c0"])
        refused[f"name {name!r}"] = "not usable"
    with pytest.raises(ReleaseError, match="taken"):
        engine.load_adapter(f"{good}-c0-expert", two["c1"])

    stop.set()
    user.join(60)
    assert not failed, failed
    assert answered > 10
    assert len(refused) >= 60
    assert not no_pickle and not mark.exists()
    assert set(engine.adapters()) == {f"{good}-c0-expert", f"{good}-c1-critic"}
    last = publish_tiny(home, engine, embedder, two)
    assert model.invoke(QUERIES["c0"]).response_metadata["release"] == last
