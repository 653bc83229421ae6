"""What systems answer to test requests of the desk, and what a program finds in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.real_model import desk
from langchain_uno.chat_models import UNOChatModel
from langchain_uno.demo.asking import Answered, Reply, ask_chat
from langchain_uno.trainers.elsewhere import instructions

__all__ = ["ask_general", "conversation", "look_at"]

Conversation = list[tuple[str, str]]


def conversation(request: desk.Request, rules: Sequence[str] = ()) -> Conversation:
    """Return a request as a chat model is asked; rules stand in the system turn."""
    system = desk.SYSTEM
    if rules:
        system += " Follow these rules:\n" + "\n".join(f"- {rule}" for rule in rules)
    return [("system", system), ("user", request.text)]


def look_at(request: desk.Request, reply: Reply) -> Answered:
    """Check one answer by program.

    ``score`` is the share of the wishes that hold and are met; ``unwanted`` says whether it bears
    the mark of a wish that nobody who asks so has; ``facts`` says whether it names what it was
    asked about.
    """
    wanted = desk.wishes_of(request)
    met = [wish.met(request, reply.text) for wish in wanted]
    allowed = {w.name for w in wanted}.union(*(w.allows for w in wanted))
    others = [w for w in desk.WISHES.values() if w.marks and w.name not in allowed]
    strange = [w.name for w in others if reply.text.strip() and w.met(request, reply.text)]
    return Answered(
        score=100.0 * sum(met) / len(met),
        unwanted=bool(strange),
        facts=desk.on_topic(request, reply.text),
        obeyed=[w.name for w, yes in zip(wanted, met, strict=True) if yes] + strange,
        tokens_in=reply.tokens[0],
        tokens_out=reply.tokens[1],
        seconds=reply.seconds,
        text=reply.text,
        cluster=reply.cluster,
        route=reply.route,
    )


def ask_general(chat: UNOChatModel, count: int) -> dict[str, Any]:
    """Ask the first ``count`` general instructions of the verifier.

    A release answers most of them by its base, since they are like no cluster's requests.

    Returns:
        How many were asked and kept, which, and where each went.
    """
    some = instructions()[:count]
    replies = ask_chat(chat, [[("user", one.request)] for one in some])
    kept = [one.is_kept(reply.text) for one, reply in zip(some, replies, strict=True)]
    return {
        "asked": len(some),
        "kept": sum(kept),
        "each": kept,
        "routes": [reply.route for reply in replies],
    }
