"""Tampered, incomplete and malicious releases: each is refused with its reason."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home
from langchain_uno.releases.load import load_release, read_current
from langchain_uno.releases.traffic import read_traffic

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def open_up(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def forge(folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Rewrite the manifest with right hashes: a forger who knows the format."""
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    for name in data["files"]:
        if (folder / name).is_file():
            data["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    if change is not None:
        change(data)
    path.write_text(json.dumps(data))


def weights(folder: Path) -> Path:
    return next(folder.glob("adapters/*-c0-expert")) / "adapter_model.safetensors"


def put_weights(folder: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    save_file(tensors, weights(folder))
    forge(folder)


def put_centroids(folder: Path, **tensors: np.ndarray[Any, Any]) -> None:
    save_file(tensors, folder / "centroids.safetensors")
    forge(folder)


def put_raw(folder: Path, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    forge(folder)


def edit_config(folder: Path, **values: Any) -> None:
    path = weights(folder).with_name("adapter_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    forge(folder)


def a(rank: int = 2, fill: float = 1.0, width: int = 8) -> np.ndarray[Any, Any]:
    return np.full((rank, width), fill, np.float32)


def b(rank: int = 2) -> np.ndarray[Any, Any]:
    return np.zeros((4, rank), np.float32)


def tensors(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {f"{MODULE}.lora_A.weight": one, f"{MODULE}.lora_B.weight": two}


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))


def set_(*path: str | int, to: Any) -> Callable[[Path], None]:
    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = to

    return lambda folder: forge(folder, change)


def rename_adapter(folder: Path, name: str) -> None:
    """Give the adapter an evil name everywhere, consistently."""
    old = weights(folder).parent.name
    raw = (folder / "manifest.json").read_text().replace(old, name)
    (folder / "manifest.json").write_text(raw)


def link_out(folder: Path) -> None:
    path = weights(folder)
    outside = folder.parent / "outside.safetensors"
    path.rename(outside)
    path.symlink_to(outside)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "no manifest.json"),
    "manifest cut": (lambda f: (f / "manifest.json").write_text("{"), "not valid JSON"),
    "manifest deep": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "not valid JSON"),
    "manifest list": (lambda f: (f / "manifest.json").write_text("[]"), "not a JSON object"),
    "future schema": (set_("schema_version", to=99), "schema 99"),
    "no schema": (set_("schema_version", to=None), "no usable schema_version"),
    "unknown field": (set_("evil", to=1), "bad value at 'evil'"),
    "wrong type": (set_("threshold", to="far"), "bad value at 'threshold'"),
    "other id": (set_("id", to="another"), "belongs to release 'another'"),
    "bad parent": (set_("parent", to="../x"), "parent release '../x'"),
    "bad cluster": (set_("clusters", 0, "id", to="../c"), "cluster '../c'"),
    "same cluster": (set_("clusters", 1, "id", to="c0"), "same id"),
    "base with adapter": (set_("clusters", 2, "adapter", to="x"), "goes to the base"),
    "other adapter": (set_("clusters", 0, "adapter", to="x"), "names adapter 'x'"),
    "route changed": (set_("clusters", 0, "route", to="critic"), "names adapter"),
    "adapter dropped": (set_("adapters", to=[]), "list of adapters"),
    "adapter path": (lambda f: rename_adapter(f, "../../../x"), "names adapter"),
    "flipped weights": (lambda f: flip(weights(f)), "sha256"),
    "flipped centroids": (lambda f: flip(f / "centroids.safetensors"), "sha256"),
    "no centroids": (lambda f: (f / "centroids.safetensors").unlink(), "no 'centroids"),
    "no weights": (lambda f: weights(f).unlink(), "contains no 'adapters/"),
    "pickle beside": (lambda f: (f / "adapter_model.bin").write_bytes(b""), "never pickles"),
    "pickle listed": (set_("files", "adapters/x.pt", to="0" * 64), "never pickles"),
    "code beside": (lambda f: (f / "modeling.py").write_text(""), "no place in a release"),
    "path listed": (set_("files", "../../etc/passwd", to="0" * 64), "no place in a release"),
    "link": (link_out, "link or a special file"),
    "fifo": (lambda f: os.mkfifo(f / "pipe"), "link or a special file"),
    "centroid rows": (lambda f: put_centroids(f, centroids=a(2)), "not F32 of"),
    "centroid NaN": (lambda f: put_centroids(f, centroids=a(3, np.nan)), "not all finite"),
    "centre alone": (lambda f: put_centroids(f, centroids=a(3), centre=a(1)), "holds"),
    "centre rows": (lambda f: put_centroids(f, centroids=a(3), centre=a(2), damped=a(8)), "centre"),
    "damped rows": (
        lambda f: put_centroids(f, centroids=a(3), centre=a(1), damped=a(2)),
        "damped directions",
    ),
    "damped NaN": (
        lambda f: put_centroids(f, centroids=a(3), centre=a(1), damped=a(8, np.nan)),
        "damped directions are not all finite",
    ),
    "centroid name": (lambda f: put_centroids(f, x=a(3)), "holds"),
    "not safetensors": (
        lambda f: put_raw(f, weights(f), b"\x80\x04pickle"),
        "not a sound safetensors",
    ),
    "other base": (lambda f: edit_config(f, base_model_name_or_path="x"), "base model 'x'"),
    "not lora": (lambda f: edit_config(f, peft_type="IA3"), "not a LoRA"),
    "imports": (lambda f: edit_config(f, auto_mapping={"parent_library": "os"}), "auto_mapping"),
    "rank": (lambda f: edit_config(f, r=3), "rank 3"),
    "config cut": (
        lambda f: put_raw(f, weights(f).with_name("adapter_config.json"), b"{"),
        "not valid JSON",
    ),
    "empty weights": (lambda f: put_weights(f, {}), "holds no weights"),
    "weights NaN": (lambda f: put_weights(f, tensors(a(2, np.inf), b())), "not finite"),
    "odd tensor": (
        lambda f: put_weights(f, {**tensors(a(), b()), "lm_head.weight": a()}),
        "no LoRA matrix",
    ),
    "no B": (lambda f: put_weights(f, {f"{MODULE}.lora_A.weight": a()}), "shapes A"),
    "rank of A": (lambda f: put_weights(f, tensors(a(3), b())), "shapes A"),
    "shape": (lambda f: put_weights(f, tensors(a(width=16), b())), "base model has"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_releases_are_refused_with_their_reason(
    home: Home, make: Callable[[], str], case: str
) -> None:
    bad, good = make(), make()
    folder = home.releases / bad
    shapes = {MODULE.removeprefix("base_model.model."): (4, 8)}
    load_release(home, bad, linear_shapes=shapes)  # sound before
    open_up(folder)
    damage, reason = BAD[case]
    damage(folder)
    with pytest.raises(ReleaseError, match=reason) as caught:
        load_release(home, bad, linear_shapes=shapes)
    assert bad in str(caught.value)
    current = read_current(home, linear_shapes=shapes)
    assert current is not None
    assert current.id == good


def test_a_manifest_edited_in_place_is_noticed(home: Home, make: Callable[[], str]) -> None:
    folder = home.releases / make()
    open_up(folder)
    forge(folder, lambda data: data.update(threshold=99.0))
    load_release(home, folder.name)  # consistent in itself
    with pytest.raises(ReleaseError, match=r"not the one that traffic\.json names"):
        read_current(home)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema_version": 4}',
        '{"schema_version": 1, "shares": [{"release": "../x", "manifest_sha256": "%s"}]}'
        % ("0" * 64),
        '{"schema_version": 1, "shares": [{"release": "x", "share": 0.5, "manifest_sha256": "%s"}]}'
        % ("0" * 64),
    ],
)
def test_a_bad_traffic_file_is_refused(home: Home, make: Callable[[], str], text: str) -> None:
    make()
    home.traffic.write_text(text)
    with pytest.raises(ReleaseError, match=r"traffic.json.* is not usable"):
        read_traffic(home)
