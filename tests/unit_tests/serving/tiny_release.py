"""Publishes real releases over a tiny random model: clusters are single known queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from langchain_uno.home import Home
from langchain_uno.models.loading import load_prompt_set
from langchain_uno.models.protocols import Embedder, Engine
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Cluster, Message, Route, routing_text
from langchain_uno.releases.manifest import Manifest
from langchain_uno.releases.publish import publish

QUERIES = {
    "c0": "please reset the old router in my kitchen",
    "c1": "WHAT ARE 17 * 23 + 99 / 3 AND 8 - 1?",
    "c2": "écrivez une lettre à ma grand-mère",
}
ROUTES: dict[str, Route] = {"c0": "expert", "c1": "critic", "c2": "base"}


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def publish_tiny(
    home: Home,
    engine: Engine,
    embedder: Embedder,
    adapters: Mapping[str, Path],
    *,
    routes: Mapping[str, Route] = ROUTES,
    threshold: float | None = 0.5,
    prompt_set: str = "real",
    answer_tokens: int | None = None,
    **changes: str,
) -> str:
    limits = {} if answer_tokens is None else {"answer_tokens": answer_tokens}
    recipe = load_recipe("paper", {"prompt_set": prompt_set, "role_tokens": 24, **limits})
    draft = Manifest(
        base_model=changes.get("base_model", engine.model_name),
        base_fingerprint=changes.get("base_fingerprint", engine.fingerprint),
        embedder_fingerprint=changes.get("embedder_fingerprint", embedder.fingerprint),
        prompt_set_fingerprint=changes.get(
            "prompt_set_fingerprint", load_prompt_set(prompt_set).fingerprint
        ),
        recipe=recipe.model_dump(mode="json"),
        clusters=[Cluster(id=c, size=1, run_ids=[f"run-{c}"], route=r) for c, r in routes.items()],
        threshold=threshold,
    )
    centroids = embedder.embed([routing_text(user(QUERIES[c])) for c in routes])
    return publish(home, draft, adapters, centroids)
