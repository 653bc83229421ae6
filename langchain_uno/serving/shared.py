"""One engine and one set of releases a process, however many chat models lean on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_uno.errors import ModelMismatchError
from langchain_uno.forks import ForkLock
from langchain_uno.home import Home, load_settings
from langchain_uno.models.protocols import Embedder, Engine, known_as
from langchain_uno.serving.hot_swap import Serving


@dataclass(frozen=True)
class Served:
    """What answers for one model, home, namespace and embedder."""

    engine: Engine
    serving: Serving
    graph: Any
    """The compiled graph that answers over ``serving``."""
    embedder: Any = None
    """As it was given."""
    process: int = field(default_factory=os.getpid)

    @property
    def alive(self) -> bool:
        """Whether it can answer: in the process that made it, by an engine that is open."""
        return self.process == os.getpid() and not getattr(self.engine, "closed", False)


_served: dict[tuple[Any, ...], Served] = {}
_lock = ForkLock()


def serve(
    graph_of: Callable[[Serving], Any],
    *,
    model: str | None = None,
    home: str | os.PathLike[str] | None = None,
    namespace: str = "default",
    embedder: Any = None,
    engine: Engine | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Served:
    """Return engine, serving and graph: the same ones for the same engine, home and namespace.

    Args:
        graph_of: builds the graph that answers.
        model: name or path of the base model, for an engine of its own.
        home: where releases arrive; None: the base model alone answers.
        namespace: the tenant.
        embedder: what routes; None: the model's own.
        engine: answers in place of ``model``.
        settings: of the engine that ``model`` is loaded into.

    Raises:
        ModelNotFoundError: no such model or embedder.
        NameError_: the namespace is not a safe name.
        ModelMismatchError: the home is served with another embedder already.
    """
    from langchain_uno.models.loading import shared_engine

    place = Home.locate(home, namespace) if home is not None else None
    used = engine if engine is not None else shared_engine(model, **dict(settings or {}))
    key = (id(used), place)
    with _lock:
        for old in [k for k, s in _served.items() if not s.alive]:
            del _served[old]
        found = _served.get(key)
        if found is None:
            serving = Serving(
                used,
                place,
                _embedder(embedder, used) if place else None,
                max_adapters=load_settings(place).serving.max_adapters if place else None,
            )
            found = _served[key] = Served(used, serving, graph_of(serving), embedder)
        elif place is not None and embedder is not found.embedder and embedder != found.embedder:
            _agree(found.serving, place, _embedder(embedder, used))
        return found


def _agree(serving: Serving, place: Home, embedder: Embedder | None) -> None:
    """Check that a further chat model on a home routes by the same embedder."""
    known = serving.embedder
    if embedder is None:  # a server's model: it takes the one that is there
        return
    if known is None:
        serving.use_embedder(embedder)
    elif known.fingerprint != embedder.fingerprint:
        here, there = known_as(embedder).beside(known_as(known))
        raise ModelMismatchError(
            f"The home {str(place.path)!r} is served in this process with another embedder, "
            f"{there!r}, and this is {here!r}: give all chat models of a home the embedder that "
            "its releases were made with."
        )


def stop_serving(home: str | os.PathLike[str]) -> None:
    """Free the adapters of a home, of all its namespaces: for who is about to delete it.

    A chat model that leans on it loads its release again at its next request.
    """
    root = Home.locate(home).root
    with _lock:
        keys = [k for k, s in _served.items() if s.serving.home and s.serving.home.root == root]
        found = [_served.pop(key) for key in keys]
    for one in found:
        one.serving.close()


def _embedder(given: Any, engine: Engine) -> Embedder | None:
    """The embedder asked for; None when none was and the engine has none of its own (a server)."""
    from langchain_core.embeddings import Embeddings

    from langchain_uno.models.embedders import LangChainEmbedder
    from langchain_uno.models.loading import load_embedder
    from langchain_uno.models.local import LocalEngine

    if given is None and not isinstance(engine, LocalEngine):
        return None
    if given is None or isinstance(given, str):
        return load_embedder(given, engine)
    if isinstance(given, Embeddings):
        return LangChainEmbedder(given)
    embedder: Embedder = given
    return embedder
