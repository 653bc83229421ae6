"""What the console read of releases and figures, kept while it is true or a few seconds old."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from langchain_uno.errors import ReleaseError, UNOError
from langchain_uno.home import Home, safe_name
from langchain_uno.releases.load import list_releases, read_manifest
from langchain_uno.releases.manifest import Manifest
from langchain_uno.releases.summary import row_of, state_of
from langchain_uno.reports import Report, report_paths
from langchain_uno.reports.store import find_report

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_FRESH_S = 5.0
_MOST = 8
"""Of what was read, in memory: a manifest of 10,000 clusters takes some 20 MB."""


@dataclass
class _Glance:
    """A figure that may take long to count: the last one, and the one that is being counted."""

    last: Future[Any] | None = None
    coming: Future[Any] | None = None
    due: float = float("-inf")
    """When the last one is old."""


class Shelf:
    """Reads releases of one namespace; each state of a file is parsed once, whoever asks."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._read: dict[Hashable, Any] = {}
        """Manifests and reports by the state of their files; what was asked for last stays."""
        self._rows: dict[Hashable, dict[str, Any]] = {}
        self._reading = threading.Lock()
        self._glances: dict[str, _Glance] = {}
        self._counting = ThreadPoolExecutor(4, thread_name_prefix="uno-console-counts")

    def newest(self) -> str | None:
        """Return the id of the newest release."""
        found = list_releases(self._home)
        return found[-1] if found else None

    def manifest(self, release: str) -> Manifest:
        """Return what a release says of itself, without the ids of its logs.

        Raises:
            ReleaseError: there is no such release, or it can't be read.
        """
        return self._once(
            self._state(release), lambda: _lighter(read_manifest(self._home, release))
        )

    def row(self, release: str, share: float) -> dict[str, Any]:
        """Return what a list says of a release, a broken one too."""
        try:
            key = self._state(release)
            if key not in self._rows:
                self._rows[key] = row_of(self._home, release, self.manifest(release), 0.0)
        except ReleaseError:
            return row_of(self._home, release, None, share)
        state = state_of(self._home, release, share, self._rows[key]["routes"])
        return {**self._rows[key], "share": share, "state": state}

    def report(self, release: str) -> Report | None:
        """Return the report of the refresh that made a release; None: none can be read."""
        try:
            found = report_paths(self._home, release).json.stat()
        except OSError:
            return None
        key = ("report", release, found.st_mtime_ns, found.st_size)
        return self._once(key, lambda: find_report(self._home, release, _log.warning))

    def forget(self) -> None:
        """Drop all that was read: some of it may have been forgotten."""
        with self._reading:
            self._read.clear()
            self._rows.clear()
            self._glances.clear()

    def _once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        with self._reading:
            found: _T = self._read.pop(key) if key in self._read else make()
            self._read[key] = found
            while len(self._read) > _MOST:
                del self._read[next(iter(self._read))]
            return found

    def glance(self, name: str, make: Callable[[], _T], wait_s: float | None = 0.3) -> _T | None:
        """Return what ``make`` returns, or returned lately, within ``wait_s`` (None: however long).

        It goes on in the background where it takes longer, and not again before ten times as long
        is over. None: it never came to an end yet.
        """

        def count() -> _T:
            start = time.monotonic()
            value = make()
            end = time.monotonic()
            found.due = end + max(_FRESH_S, 10 * (end - start))
            return value

        with self._reading:
            found = self._glances[name] = self._glances.pop(name, _Glance())
            while len(self._glances) > _MOST:
                del self._glances[next(iter(self._glances))]
            if found.coming is not None and found.coming.done():
                found.last, found.coming = found.coming, None
            if found.coming is None and time.monotonic() > found.due:
                found.coming = self._counting.submit(count)
            last, coming = found.last, found.coming
        if coming is not None and wait([coming], timeout=wait_s).done:
            last = coming
        value: _T | None = last.result() if last is not None else None
        return value

    def warm(self) -> None:
        """Read every release once, so that the first page is as quick as the next."""
        try:
            for release in list_releases(self._home)[::-1]:
                self.row(release, 0.0)
        except UNOError as error:
            _log.warning("The releases can't be read yet: %s", error)

    def _state(self, release: str) -> Hashable:
        path = self._home.releases / safe_name(release, "release") / "manifest.json"
        try:
            found = path.stat()
        except OSError as error:
            raise ReleaseError(
                f"Release {release!r} can't be read ({error.strerror or error})."
            ) from error
        return release, found.st_mtime_ns, found.st_size


def _lighter(manifest: Manifest) -> Manifest:
    clusters = [c.model_copy(update={"run_ids": [], "trained_on": []}) for c in manifest.clusters]
    return manifest.model_copy(update={"clusters": clusters, "lineage": [], "files": {}})
