"""Old releases lose their weights; what somebody may need stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app
from langchain_uno.errors import ReleaseError, StoreBusyError
from langchain_uno.home import Home, refresh_lock
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Interaction, Message
from langchain_uno.releases import canary
from langchain_uno.releases.history import read_history
from langchain_uno.releases.load import (
    Release,
    list_releases,
    load_release,
    read_current,
    read_manifest,
)
from langchain_uno.releases.prune import prune
from langchain_uno.releases.publish import make_current, publish, revoke, rollback
from langchain_uno.releases.summary import state_of
from tests.unit_tests.releases.samples import draft, write_adapter

Make = Callable[..., str]


@pytest.fixture
def make(home: Home, tmp_path: Path) -> Make:
    """Publish one good release after another, a minute apart, in a home with a log."""
    Journal(home.journal).close()
    count = iter(range(60))

    def one(*, promote: bool = True) -> str:
        n = next(count)
        made = draft().model_copy(update={"id": f"r20260301-12{n:02d}00-abcdef"})
        adapters = {c: write_adapter(tmp_path / f"a{n}-{c}") for c in ("c0", "c1")}
        return publish(home, made, adapters, np.eye(3, 5, dtype=np.float32), promote=promote)

    return one


def answered(home: Home, release: str) -> None:
    """Let the log have an answer of a release."""
    asked = [Message(role="user", content="what is the time")]
    one = Interaction(run_id=f"by-{release}", messages=asked, answer="noon", release=release)
    with Journal(home.journal) as journal:
        journal.append_interaction(one)


def weights(home: Home) -> set[str]:
    return {p.parent.parent.parent.name for p in home.releases.rglob("*/adapter_model.safetensors")}


def test_the_newest_stay_and_what_answers_with_its_parent(home: Home, make: Make) -> None:
    names = [make() for _ in range(6)]
    make_current(home, names[2])
    report = home.reports / names[0]
    report.mkdir(parents=True)
    (report / "report.json").write_text("{}")
    assert prune(home, 2, dry_run=True) == [names[0], names[3]]
    assert weights(home) == {*names} and report.exists()

    assert prune(home, 2, by="ann") == [names[0], names[3]]
    assert weights(home) == {names[1], names[2], names[4], names[5]}
    assert not report.exists()
    assert prune(home, 2) == []
    assert rollback(home) and read_current(home).id == names[1]  # type: ignore[union-attr]
    pruned = [(e["release"], e["by"]) for e in read_history(home) if e["what"] == "prune"]
    assert pruned == [(names[0], "ann"), (names[3], "ann")]


def test_a_manifest_stays_while_the_log_has_answers_of_it(home: Home, make: Make) -> None:
    first, second, third = make(), make(), make()
    answered(home, first)
    make()
    assert prune(home, 1) == [first, second]
    assert list_releases(home)[:2] == [first, third]
    assert read_manifest(home, first).clusters[0].id == "c0"
    assert state_of(home, first, 0.0) == "pruned"
    assert not (home.releases / f"{second}.revoked").exists()
    with pytest.raises(ReleaseError, match="pruned: only the newest"):
        make_current(home, first)
    # Who is looking for an ancestor passes it.
    for name in (third, list_releases(home)[-1]):
        revoke(home, name, "a test")
    assert read_current(home) is None


def test_a_canary_s_two_and_what_waits_stay(home: Home, make: Make) -> None:
    first = make()
    second, third = make(promote=False), make(promote=False)
    canary.start(home, second)
    last = make(promote=False)
    assert prune(home, 1) == [third]
    assert weights(home) == {first, second, last}


def test_a_revoked_release_keeps_no_weights(home: Home, make: Make) -> None:
    first, second = make(), make()
    revoke(home, second, "a test")
    assert prune(home, 5) == [second]
    assert weights(home) == {first}
    assert state_of(home, second, 0.0) == "revoked"
    with pytest.raises(ReleaseError, match="revoked"):
        load_release(home, second)


def test_a_killed_pruning_is_finished(
    home: Home, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    make()
    make()

    def killed(folder: Path, left: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("langchain_uno.releases.prune.empty_release", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(home, 1)
    assert first in weights(home)
    assert prune(home, 1) == [first]
    assert first not in weights(home)


def test_a_pruning_is_finished_wherever_it_was_killed(
    home: Home, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make(), make()
    answered(home, first)
    make()
    make()
    report = home.reports / first
    report.mkdir(parents=True)
    (report / "report.json").write_text("words of users")
    unlink, rmtree = Path.unlink, shutil.rmtree

    def once(path: Path, *args: Any, **more: Any) -> None:
        unlink(path, *args, **more)
        if path.name == "adapter_model.safetensors":
            raise KeyboardInterrupt

    def never(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    def emptied(folder: Path, *args: Any, **more: Any) -> None:
        rmtree(folder, *args, **more)
        if folder.name == second:
            raise KeyboardInterrupt

    for place, how in ((Path, "unlink"), (shutil, "rmtree")):
        with monkeypatch.context() as patch:
            patch.setattr(place, how, once if how == "unlink" else never)
            with pytest.raises(KeyboardInterrupt):
                prune(home, 1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", emptied)
        with pytest.raises(KeyboardInterrupt):
            prune(home, 1)
    assert [p.name for p in (home.releases / first).iterdir()] == ["manifest.json"]
    assert not report.exists()
    assert (home.releases / f"{second}.revoked").exists()
    assert prune(home, 1) == [second]
    assert not (home.releases / f"{second}.revoked").exists()
    assert prune(home, 1) == []


def test_what_an_operator_chooses_meanwhile_stays(
    home: Home, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [make() for _ in range(5)]
    journal = Journal

    def meanwhile(*args: Any, **more: Any) -> Journal:
        make_current(home, names[1])
        return journal(*args, **more)

    monkeypatch.setattr("langchain_uno.releases.prune.Journal", meanwhile)
    assert prune(home, 1) == [names[2]]
    assert read_current(home).id == names[1]  # type: ignore[union-attr]
    assert weights(home) == {names[0], names[1], names[3], names[4]}
    assert [p.name for p in home.releases.glob("*.revoked")] == []


def test_what_is_pruned_while_it_is_chosen_is_refused(
    home: Home, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = make(), make()

    def loaded(*args: Any, **more: Any) -> Release:
        found = load_release(*args, **more)
        (home.releases / f"{first}.revoked").write_text("pruned")
        return found

    monkeypatch.setattr("langchain_uno.releases.publish.load_release", loaded)
    with pytest.raises(ReleaseError, match="revoked or pruned just then"):
        make_current(home, first)
    assert read_current(home).id == last  # type: ignore[union-attr]
    assert read_history(home)[-1]["what"] == "publish"


def test_nothing_is_pruned_through_a_link(home: Home, make: Make, tmp_path: Path) -> None:
    first, second, _, _ = (make() for _ in range(4))
    elsewhere = (home.releases / first).rename(tmp_path / first)
    (home.releases / first).symlink_to(elsewhere)
    (home.releases / f"{first}.revoked").write_text("a test")
    before = sorted(elsewhere.rglob("*"))
    assert prune(home, 1) == [second]
    assert sorted(elsewhere.rglob("*")) == before
    assert first not in list_releases(home)


def test_the_command(home: Home, make: Make) -> None:
    names = [make() for _ in range(3)]
    where = ["releases", "prune", "--home", str(home.root)]
    told = CliRunner().invoke(app, [*where, "--keep", "1", "--dry-run", "--json"])
    assert json.loads(told.stdout) == {"keep": 1, "dry_run": True, "pruned": [names[0]]}
    assert weights(home) == {*names}
    assert "the newest 10 and what is in use are kept" in CliRunner().invoke(app, where).stdout
    (home.path / "settings.toml").write_text("[releases]\nkeep = 1\n")
    with refresh_lock(home, "a test"):
        busy = CliRunner().invoke(app, where)
        assert busy.exit_code == StoreBusyError.exit_code
    assert f"{names[0]} is pruned." in CliRunner().invoke(app, where).stdout
    assert weights(home) == {*names[1:]}
    assert CliRunner().invoke(app, [*where, "--keep", "0"]).exit_code == 2
