"""What a system answers to test requests, and what a program finds in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from langchain_uno.demo.answers import Query, check_answer
from langchain_uno.demo.service import held_out_queries
from langchain_uno.demo.worlds import World
from langchain_uno.errors import EngineError, ReleaseError
from langchain_uno.home import Home
from langchain_uno.models.protocols import OnDone

if TYPE_CHECKING:
    from langchain_uno.chat_models import UNOChatModel

_TOGETHER = 64
"""Requests under way at a time."""
_LOADING_S = 120.0
"""Longest that a release may take to be loaded."""


@dataclass(frozen=True)
class Asked:
    """One test request of a test user, and what that user's family wants of it."""

    user: str
    query: Query
    wishes: Sequence[str]
    """Ids of rules."""


@dataclass(frozen=True)
class Reply:
    """What a chat model replied, and what that took."""

    text: str
    tokens: tuple[int, int] = (0, 0)
    """Read and written."""
    seconds: float = 0.0
    """Share of the batch's time."""
    cluster: str | None = None
    route: str | None = None


class Answered(BaseModel):
    """One answer, checked by the world's program."""

    score: float
    """Share of the hidden wishes met, in points."""
    unwanted: bool
    """Obeys a rule that is wanted in this family, but not here."""
    facts: bool
    """Every fact and the entity right, nothing made up."""
    obeyed: list[str] = Field(default_factory=list)
    """Ids of all rules that it obeys, wanted or not."""
    tokens_in: int
    tokens_out: int
    seconds: float
    """Share of the batch's time."""
    text: str
    cluster: str | None = None
    route: str | None = None


def held_out(world: World, per_family: int, *, seed: int = 0) -> list[Asked]:
    """Return requests of test people; other seeds share no request."""
    language = world.language()
    found = held_out_queries(world, per_family, seed=seed)
    return [Asked(user.id, query, world.wishes(language, query)) for user, query in found]


def look_at(world: World, asked: Asked, reply: Reply) -> Answered:
    """Check one answer by program."""
    check = check_answer(world.language(), asked.query, reply.text)
    wanted = {p.rule for p in world.preferences[asked.query.family]}
    met = [rule in check.met for rule in asked.wishes]
    return Answered(
        score=100.0 * sum(met) / len(met),
        unwanted=bool((check.met & wanted) - set(asked.wishes)),
        facts=check.faithful,
        obeyed=sorted(check.met),
        tokens_in=reply.tokens[0],
        tokens_out=reply.tokens[1],
        seconds=reply.seconds,
        text=reply.text,
        cluster=reply.cluster,
        route=reply.route,
    )


def settle(chat: UNOChatModel, home: Home) -> None:
    """Wait until a home's current release is loaded.

    A service goes on with the old release while a new one is loaded; a study of the new one must
    not, or a batch that comes right after a refresh is answered by the release before.

    Raises:
        ReleaseError: it was refused.
        EngineError: it takes too long.
    """
    from langchain_uno.releases.traffic import answering

    serving, wanted = chat.served.serving, answering(home)
    end = time.monotonic() + _LOADING_S
    while serving.current().release != wanted:
        if serving.refusal:
            raise ReleaseError(serving.refusal)
        if time.monotonic() > end:
            raise EngineError(f"Release {wanted!r} is not served: loading it takes too long.")
        time.sleep(0.05)


def ask_model(
    world: World,
    home: Home,
    asked: Sequence[Asked],
    *,
    mode: str = "uno",
    on_done: OnDone | None = None,
) -> list[Answered]:
    """Ask ``UNOChatModel`` over a home's current release; the path that users are served by."""
    from langchain_uno.chat_models import UNOChatModel

    settings: dict[str, Any] = {"mode": mode, "namespace": home.namespace}
    chat = UNOChatModel(home=str(home.root), **settings)
    settle(chat, home)
    replies = ask_chat(chat, [[("user", one.query.text)] for one in asked], on_done)
    return [look_at(world, one, reply) for one, reply in zip(asked, replies, strict=True)]


def ask_chat(
    chat: UNOChatModel, conversations: Sequence[Any], on_done: OnDone | None = None
) -> list[Reply]:
    """Send conversations to a chat model, many at a time; replies in their order."""
    out: list[Reply] = []
    for start in range(0, len(conversations), _TOGETHER):
        group = list(conversations[start : start + _TOGETHER])
        began = time.perf_counter()
        replies = chat.batch(group, {"max_concurrency": _TOGETHER})
        each = (time.perf_counter() - began) / len(group)
        for reply in replies:
            used = reply.usage_metadata or {"input_tokens": 0, "output_tokens": 0}
            told = reply.response_metadata
            tokens = (used["input_tokens"], used["output_tokens"])
            text = str(reply.content)
            out.append(Reply(text, tokens, each, told.get("cluster"), told.get("route")))
        if on_done:
            on_done(len(group))
    return out
