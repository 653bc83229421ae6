"""Old releases lose their weights and reports, so that a home does not grow for ever.

What stays: the newest releases, what answers or takes part in a canary, what waits for a person,
what the next refresh goes on from, and the parents of all these, so that a rollback finds them. Of
the others the manifest stays while the log has answers of theirs, because the next refreshes read
from it which rules these answers were made by. Then it goes as well. So it is with what is revoked.
"""

from __future__ import annotations

import shutil

from langchain_uno.home import Home, is_safe
from langchain_uno.logs.figures import traffic_since
from langchain_uno.logs.journal import Journal
from langchain_uno.releases.canary import running, undecided
from langchain_uno.releases.checks import MANIFEST_FILE
from langchain_uno.releases.history import note, waiting
from langchain_uno.releases.load import find_manifest, list_releases, revocation_file
from langchain_uno.releases.taint import empty_release
from langchain_uno.releases.traffic import Traffic, read_traffic, write_atomic

PRUNED = "pruned"
"""What the reason of such a release begins with, where others say that they were revoked."""


def prune(home: Home, keep: int, *, by: str = "", dry_run: bool = False) -> list[str]:
    """Take the weights and the report of each release that is too old; return their ids.

    Call it under the refresh's lock. It may be killed: the next call finishes it. A release that
    somebody chooses meanwhile stays. Linked folders are left alone.

    Args:
        home: the namespace.
        keep: how many sound releases stay at least, the newest.
        by: who does it; the name of the process's user by default.
        dry_run: only tell which they are.

    Raises:
        ReleaseError: ``traffic.json`` or ``canary.json`` is damaged; nothing is changed.
        StoreError: the journal can't be read; nothing is changed.
        HomeError, OSError: the home can't be written.
    """
    names = list_releases(home)
    sound = [name for name in names if not revocation_file(home, name).exists()]
    stay = {*_used(home), *sound[-keep:]}
    # A killed pruning may have left a mark beside a folder without a manifest.
    marked = {mark.stem for mark in home.releases.glob("*.revoked") if is_safe(mark.stem)}
    names = sorted(name for name in {*names, *marked} if not (home.releases / name).is_symlink())
    with Journal(home.journal, readonly=True) as journal:
        answering = {release for release, _, _ in traffic_since(journal, 0.0)}
    pruned = []
    for name in (one for one in names if one not in stay):
        manifest = find_manifest(home, name)
        ends = name not in answering and sum(one > name for one in sound) >= keep
        if manifest is not None and not ends and _bare(home, name):
            continue  # it was pruned before
        pruned.append(name)
        if dry_run:
            continue
        mark = revocation_file(home, name)
        if not mark.exists():
            write_atomic(mark, f"{PRUNED}: only the newest releases keep their weights\n".encode())
            if name in _used(home):  # somebody chose it just then; from here on nobody can
                mark.unlink()
                pruned.pop()
                continue
        note(home, "prune", name, f"keep {keep}", by)
        bare = manifest and manifest.model_copy(update={"files": {}, "adapters": []})
        folder = home.releases / name
        if folder.is_dir():
            empty_release(folder, bare)
        if _report(home, name):
            shutil.rmtree(home.reports / name)
        if ends or manifest is None:
            if folder.is_dir():
                shutil.rmtree(folder)
            mark.unlink()
    return pruned


def _bare(home: Home, name: str) -> bool:
    """Return whether nothing but the manifest is left of a release."""
    left = {path.name for path in (home.releases / name).iterdir()}
    return left == {MANIFEST_FILE} and not _report(home, name)


def _report(home: Home, name: str) -> bool:
    folder = home.reports / name
    return folder.is_dir() and not folder.is_symlink()


def _used(home: Home) -> set[str]:
    """Return what answers, waits or is gone on from, and the parents of these."""
    traffic = read_traffic(home) or Traffic()
    plan = running(home) or undecided(home)
    used = {*(share.release for share in traffic.shares), traffic.stands_in_for, waiting(home)}
    used |= {plan.release, plan.current} if plan else set()
    manifests = [find_manifest(home, name) for name in used if name]
    used |= {one.parent for one in manifests if one}
    return {name for name in used if name}
