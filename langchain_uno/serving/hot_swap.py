"""Releases in, without a pause: what requests are served from, and how it is replaced.

A request takes one :class:`Snapshot` at its start and keeps it to its end. A look at
``traffic.json`` costs one ``stat``; when it changed, the new release is checked, its adapters are
loaded beside the old ones and new requests are switched over. The old release's adapters are freed
once its last request is done. A release that can't be served is refused with its reason, and the
old one serves on, or the base model where the old one was revoked; the release is tried again after
a while, since memory or a disk may have been short.

Where several releases have a share, all of them are loaded, and whoever asks is always answered by
the same one. Where one of them can't be served, the current one answers everything meanwhile.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_uno.errors import ConfigError, EngineError, UNOError
from langchain_uno.home import Home
from langchain_uno.models.protocols import Embedder, Engine, known_as
from langchain_uno.models.roles import PromptSet
from langchain_uno.records import REFLECTIVE, Cluster, Message, Route, routing_text
from langchain_uno.serving.adapter_pool import AdapterPool

if TYPE_CHECKING:
    from langchain_uno.releases.load import Release
    from langchain_uno.releases.traffic import Share, Traffic
    from langchain_uno.serving.router import RouteChoice, Router

_log = logging.getLogger(__name__)

ANSWER_TOKENS = 2048
REVISION_TOKENS = 8192
"""The recipe's defaults: of releases that do not say, and where there is none."""
_FIRST_RETRY_S = 5.0
_LAST_RETRY_S = 600.0
"""Between two tries to adopt a release that can't be served; doubled from the first to the last."""


@dataclass(eq=False)
class Snapshot:
    """One release as it serves: never changed after it was made (but for its count of users)."""

    release: str | None = None
    """None: nothing was released (or the base was chosen); the base answers."""
    router: Router | None = None
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    prompts: PromptSet | None = None
    answer_tokens: int = ANSWER_TOKENS
    """An answer's limit, unless the request has one: answers were verified with it."""
    revision_tokens: int = REVISION_TOKENS
    critique_tokens: int = 512
    min_kept: float = 0.0
    """Of what a draft quotes from the request, its revision keeps at least this share."""
    users: int = 0
    retired: float | None = None
    """When another release took over (monotonic seconds)."""

    def path_of(self, cluster_id: str | None, mode: str) -> tuple[Route, str | None]:
        """Return the route and the adapter of one of this release's clusters.

        Args:
            cluster_id: None, and any that this release does not have, go to the base.
            mode: ``"uno"``; ``"single"``: reflective clusters go to the base; ``"base"``: all do.
        """
        cluster = self.clusters.get(cluster_id or "")
        if cluster is None or mode == "base" or (mode == "single" and cluster.route in REFLECTIVE):
            return "base", None
        return cluster.route, cluster.adapter

    def rules_of(self, cluster_id: str | None) -> list[str]:
        """Return the rules that drafts are revised by where the route is ``"memory"``.

        Only releases of older versions have such clusters.
        """
        cluster = self.clusters.get(cluster_id or "")
        return list(cluster.rules) if cluster is not None and cluster.route == "memory" else []


@dataclass(eq=False)
class Serving:
    """Serves one namespace of one home (or no home at all) on one engine. Thread-safe."""

    engine: Engine
    """Answers."""
    home: Home | None = None
    """Where releases arrive; None: the base always answers."""
    embedder: Embedder | None = None
    """Embeds queries for routing; must be the one that the releases were made with. None: nothing
    can be routed."""
    _: KW_ONLY
    swap_wait: float = 5.0
    """Seconds that the request which notices a new release waits for it at most; others, and it
    afterwards, are served from the old one until the new one is ready."""
    grace: float = 30.0
    """Seconds that a replaced release stays loaded at least, so that a request between two of its
    steps finds it."""
    max_adapters: InitVar[int | None] = None
    """Adapters loaded at a time; the one used longest ago makes room. None: all."""

    def __post_init__(self, max_adapters: int | None) -> None:
        """Begin with the base model alone."""
        self.refusal: str | None = None
        """Why the newest release is not served; None when it is."""
        self.pool = AdapterPool(self.engine, max_adapters)
        """The loaded adapters of the releases in use."""
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._stamp: object = ()
        self._retry_at: float | None = None
        """When a refused release is tried again (monotonic seconds); None: nothing was refused."""
        self._retry_s = _FIRST_RETRY_S
        self._current = Snapshot()
        self._traffic: Traffic | None = None
        """Who gets which of the releases, where there are shares."""
        self._beside: dict[str | None, Snapshot] = {}
        """By release, what has a share of the traffic beside the current one."""
        self._old: list[Snapshot] = []
        """Replaced ones; they are freed under ``_loading``, so that no load comes between."""

    @property
    def release(self) -> str | None:
        """The current release, without a look for a new one."""
        return self._current.release

    def release_for(self, who: str) -> str | None:
        """Return the release that answers somebody (:meth:`draw`), without a look for a new one."""
        return self._pick(who).release

    def use_embedder(self, embedder: Embedder) -> None:
        """Route by this embedder where there was none; the release is checked against it."""
        self.embedder, self._stamp = embedder, ()

    def current(self) -> Snapshot:
        """Return what has most of the traffic, after a look for a new release."""
        if self.home is not None:
            changed = self._traffic_stamp() != self._stamp
            if changed or (self._retry_at is not None and time.monotonic() >= self._retry_at):
                first = self._stamp == ()
                if self._loading.acquire(blocking=first):
                    worker = self._in_background(self._swap)
                    # Nobody waits for a second try.
                    worker.join(None if first else self.swap_wait if changed else 0.0)
        # In the background: a request must not wait for others' last tokens.
        if any(map(self._is_done, self._old)) and self._loading.acquire(blocking=False):
            self._in_background(self._free_old)
        return self._current

    def lease(self) -> AbstractContextManager[Snapshot]:
        """Hold the current snapshot: it is not freed while the block runs."""
        self.current()
        return self._held(lambda: self._current)

    @contextmanager
    def draw(self, who: str) -> Iterator[tuple[Snapshot, str | None]]:
        """Hold what a request is served from while the block runs, by the shares of the traffic.

        Args:
            who: stands for whoever asks; empty: the request is drawn by itself.

        Yields:
            The snapshot, and the canary that chose it, if one is running.
        """
        self.current()
        canary: list[str | None] = []

        def find() -> Snapshot:
            canary.append(self._traffic.canary if self._traffic else None)
            return self._pick(who)

        with self._held(find) as snapshot:
            yield snapshot, canary[0]

    def hold(self, release: str | None) -> AbstractContextManager[Snapshot]:
        """Hold the snapshot that a request started with, by its release id.

        Raises:
            EngineError: it was freed meanwhile.
        """

        def find() -> Snapshot:
            known = [s for s in self._loaded() if s.release == release]
            if not known and release is not None:
                raise EngineError(f"Release {release!r} is served no more: ask again.")
            return known[0] if known else Snapshot()

        return self._held(find)

    @contextmanager
    def _held(self, find: Callable[[], Snapshot]) -> Iterator[Snapshot]:
        with self._lock:
            snapshot = find()
            snapshot.users += 1
        try:
            yield snapshot
        finally:
            with self._lock:
                snapshot.users -= 1

    def route(self, snapshot: Snapshot, messages: list[Message]) -> RouteChoice | None:
        """Return where a conversation belongs; None when there is nothing to choose from.

        Raises:
            ConfigError: there is a release, but no embedder.
        """
        text = routing_text(messages)
        if snapshot.router is None or not text:
            return None
        if self.embedder is None:
            raise ConfigError(
                "Requests can't be routed: a server's hidden states can't be read, so name the "
                "embedder that the home's releases were made with, or serve with mode='base'."
            )
        return snapshot.router.route(self.embedder.embed([text])[0])

    def close(self) -> None:
        """Free the adapters of every release."""
        with self._loading, self._lock:
            snapshots = self._loaded()
            self._current, self._old, self._stamp = Snapshot(), [], ()
            self._traffic, self._beside = None, {}
        for snapshot in snapshots:
            self._free(snapshot)

    # -- replacing -------------------------------------------------------------------------------

    def _traffic_stamp(self) -> object:
        assert self.home is not None
        try:
            found = self.home.traffic.stat()
        except OSError:  # no release yet, or none any more
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _loaded(self) -> list[Snapshot]:
        return [self._current, *self._beside.values(), *self._old]

    def _pick(self, who: str) -> Snapshot:
        if not self._traffic or not self._beside:
            return self._current
        share = self._traffic.chosen(who or secrets.token_hex(16))
        return self._beside.get(share.release, self._current) if share else self._current

    def _swap(self) -> None:
        from langchain_uno.releases.summary import state_of
        from langchain_uno.releases.traffic import Traffic, read_traffic

        assert self.home is not None
        stamp = self._traffic_stamp()
        again = stamp == self._stamp
        if again and self._retry_at is None:
            return
        beside: dict[str | None, Snapshot] = {}
        refused: Exception | None = None
        try:
            traffic = read_traffic(self.home) or Traffic()
            current = self._load(traffic.current)
        except Exception as error:  # noqa: BLE001 (nothing in a release may stop the service)
            serve = [one.release for one in (self._current, *self._beside.values()) if one.release]
            if not any(state_of(self.home, name, 0.0) == "revoked" for name in serve):
                self._refuse(error, stamp, again)
                return
            current, traffic, refused = Snapshot(), Traffic(), error
        try:
            beside = {s.release: self._load(s) for s in traffic.shares if s is not traffic.current}
        except Exception as error:  # noqa: BLE001
            refused, traffic = error, Traffic()
        with self._lock:
            before = self._loaded()[: 1 + len(self._beside)]
            if current.release != self._current.release:
                _log.info("Release %s serves now.", current.release)
            self._current, self._beside, self._traffic = current, beside, traffic
            served = [current, *beside.values()]
            for one in before:
                if one not in served:
                    one.retired = time.monotonic()
                    self._old.append(one)
            for one in served:
                one.retired = None
            self._old = [one for one in self._old if one not in served]
            if refused is None:
                self.refusal = self._retry_at = None
            self._stamp = stamp
        if refused is not None:
            self._refuse(refused, stamp, again)

    def _refuse(self, error: Exception, stamp: object, again: bool) -> None:
        said, self.refusal = self.refusal, str(error)
        if not again or said != self.refusal:
            _log.error(
                "A release is not served, and is tried again later: %s",
                error,
                exc_info=None if isinstance(error, UNOError) else error,
            )
        self._retry_s = min(_LAST_RETRY_S, self._retry_s * 2) if again else _FIRST_RETRY_S
        self._retry_at = time.monotonic() + self._retry_s
        self._stamp = stamp

    def _load(self, share: Share | None) -> Snapshot:
        from langchain_uno.releases.load import load_release

        assert self.home is not None
        name = None if share is None else share.release
        release = None
        if share is not None and name is not None:
            release = load_release(
                self.home,
                name,
                base_fingerprint=known_as(self.engine),
                embedder_fingerprint=known_as(self.embedder) if self.embedder is not None else None,
                manifest_sha256=share.manifest_sha256,
            )
        with self._lock:
            known = next((s for s in self._loaded() if s.release == name), None)
        if known is not None:  # a release that is still loaded; no freeing comes between
            return known
        if release is None:
            return Snapshot()
        snapshot = _snapshot(release)
        self.pool.know(release.adapters)
        return snapshot

    def _in_background(self, job: Callable[[], None]) -> threading.Thread:
        """Run a job that needs ``_loading``, which the caller took for it, and give that back."""

        def run() -> None:
            try:
                job()
            finally:
                self._loading.release()

        worker = threading.Thread(target=run, name="uno-swap", daemon=True)
        worker.start()
        return worker

    def _is_done(self, old: Snapshot) -> bool:
        since = time.monotonic() - (old.retired or 0.0)
        return old.users == 0 and old.retired is not None and since >= self.grace

    def _free_old(self) -> None:
        with self._lock:
            done = [s for s in self._old if self._is_done(s)]
            self._old = [s for s in self._old if s not in done]
        for snapshot in done:
            self._free(snapshot)

    def _free(self, snapshot: Snapshot) -> None:
        self.pool.forget(c.adapter for c in snapshot.clusters.values() if c.adapter is not None)


def _snapshot(release: Release) -> Snapshot:
    from langchain_uno.errors import ReleaseMismatchError
    from langchain_uno.models.loading import load_prompt_set
    from langchain_uno.models.prompts import worded_alike
    from langchain_uno.serving.router import Router

    manifest = release.manifest
    recipe: dict[str, Any] = manifest.recipe
    prompts = load_prompt_set(str(recipe.get("prompt_set", "real")))
    # An expert answers by itself: only a critic and its reviser read the set's words.
    worded = any(cluster.route not in ("base", "expert") for cluster in manifest.clusters)
    if worded and not worded_alike(prompts.fingerprint, manifest.prompt_set_fingerprint):
        raise ReleaseMismatchError(
            f"Release {release.id!r} is refused: it was made with prompt set "
            f"{manifest.prompt_set_fingerprint!r} and this version has {prompts.fingerprint!r}. "
            "Refresh the home with this version."
        )
    router = None
    if manifest.clusters:
        ids = [cluster.id for cluster in manifest.clusters]
        router = Router(release.centroids, ids, manifest.threshold, space=release.space)
    return Snapshot(
        release=release.id,
        router=router,
        clusters={cluster.id: cluster for cluster in manifest.clusters},
        prompts=prompts,
        answer_tokens=int(recipe.get("answer_tokens", ANSWER_TOKENS)),
        revision_tokens=int(recipe.get("revision_tokens", REVISION_TOKENS)),
        critique_tokens=int(recipe.get("role_tokens", 512)),
        min_kept=float(recipe.get("min_kept", 0.0)),
    )
