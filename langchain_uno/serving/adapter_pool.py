"""Which adapters of the releases in use are loaded: all that fit, and on demand beyond that.

    pool = AdapterPool(engine, most=16)
    pool.know({"r1-c0-expert": folder, ...})     # a release arrives: the first 16 are warmed
    with pool.hold("r1-c0-expert") as name: ...  # loaded as ``name``, and not freed, meanwhile
    pool.forget([...])                           # the release has gone

Beyond ``most``, the adapter that was used longest ago makes room, never one that is held. The
engine's name of an adapter is its own, unless a copy of the home is served beside it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from langchain_uno.errors import AdapterTakenError, EngineError
from langchain_uno.models.protocols import Engine


class AdapterPool:
    """Thread-safe; one for each :class:`~langchain_uno.serving.hot_swap.Serving`.

    Args:
        engine: loads and unloads.
        most: how many adapters are loaded at a time, at least 1; None: all that are known.
    """

    def __init__(self, engine: Engine, most: int | None = None) -> None:
        self._engine = engine
        self._most = most
        self._paths: dict[str, Path] = {}
        self._names: dict[str, str] = {}
        """The engine's names of loaded adapters, where they are not their own."""
        self._loaded: OrderedDict[str, int] = OrderedDict()
        """Name -> how many hold it; longest unused first."""
        self._busy: set[str] = set()
        """Being loaded or freed right now, outside the lock."""
        self._changed = threading.Condition()

    def know(self, adapters: Mapping[str, Path]) -> None:
        """Take a release's adapters in, and load them until the pool is full.

        Every one is loaded once here when they all fit; otherwise those that did not fit are
        checked by the engine when they are first asked for.

        Raises:
            ReleaseError: one of them is refused; those loaded by this call are freed again.
        """
        fresh = [name for name in adapters if name not in self._paths]
        with self._changed:
            self._paths.update(adapters)
            room = len(fresh) if self._most is None else self._most - len(self._loaded)
        try:
            for name in fresh[: max(0, room)]:
                with self.hold(name):
                    pass
        except BaseException:
            self.forget(fresh)
            raise

    def forget(self, names: Iterable[str]) -> None:
        """Free adapters whose release has gone; requests under way with them finish first."""
        for name in names:
            with self._changed:
                self._changed.wait_for(lambda name=name: name not in self._busy)  # type: ignore[misc]
                known = self._paths.pop(name, None)
                loaded = self._loaded.pop(name, None)
            if known is not None and loaded is not None:
                self._unload(name)
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def hold(self, name: str | None) -> Iterator[str | None]:
        """Have an adapter loaded while the block runs; waits while every place is held.

        Yields:
            What the engine calls it.

        Raises:
            EngineError: no release in use has such an adapter.
        """
        if name is None:
            yield None
            return
        self._take(name)
        try:
            yield self._names.get(name, name)
        finally:
            with self._changed:
                if name in self._loaded:
                    self._loaded[name] -= 1
                self._changed.notify_all()

    def at_hand(self, name: str | None) -> bool:
        """Whether :meth:`hold` would not wait, so that an event loop may call it directly."""
        return name is None or (name in self._loaded and name not in self._busy)

    def loaded(self) -> list[str]:
        """The names of the loaded adapters."""
        with self._changed:
            return sorted(self._loaded)

    # -- inside ----------------------------------------------------------------------------------

    def _take(self, name: str) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: name not in self._busy)
                path = self._paths.get(name)
                if path is None:
                    raise EngineError(f"The adapter {name!r} is served no more: ask again.")
                if name in self._loaded:
                    self._loaded[name] += 1
                    self._loaded.move_to_end(name)
                    return
                full = self._most is not None and len(self._loaded) >= self._most
                gone = [n for n, held in self._loaded.items() if not held][:1] if full else []
                if full and not gone:
                    self._changed.wait()
                    continue
                for old in gone:
                    del self._loaded[old]
                self._loaded[name] = 1  # its place is taken before it is there
                self._busy |= {name, *gone}
            try:
                for old in gone:
                    self._unload(old)
                self._load(name, path)
            except BaseException:
                with self._changed:
                    self._loaded.pop(name, None)
                raise
            finally:
                with self._changed:
                    self._busy -= {name, *gone}
                    self._changed.notify_all()
            return

    def _load(self, name: str, path: Path) -> None:
        try:
            self._engine.load_adapter(name, path)
        except AdapterTakenError:  # the home is a copy of another one that is served here as well
            alias = f"{name}-{blake2b(str(path).encode(), digest_size=6).hexdigest()}"
            self._engine.load_adapter(alias, path)
            self._names[name] = alias

    def _unload(self, name: str) -> None:
        with suppress(EngineError):  # the engine was closed: everything is freed already
            self._engine.unload_adapter(self._names.pop(name, name))
