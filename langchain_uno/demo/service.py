"""A week of the simulated service: people ask, the model answers, people say what they think.

Everything goes through the public API: a LangChain chat model, ``UNOFeedbackHandler`` as a
callback, real follow-up turns in the same thread. A program checks whether an answer met a wish.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from langchain_uno.demo.answers import Query, check_answer, render_answer
from langchain_uno.demo.drawing import make_query
from langchain_uno.demo.language import Language
from langchain_uno.demo.speech import NOISE_KINDS, noise_line, say_wishes
from langchain_uno.demo.worlds import User, World

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import RunnableConfig

    from langchain_uno.callbacks import UNOFeedbackHandler

SOURCE = "simulated-user"
_TOGETHER = 32


@dataclass(frozen=True)
class Visit:
    """One request of one user, and what the user will do with the answer."""

    run_id: uuid.UUID
    thread_id: str
    user: User
    query: Query
    noisy: bool
    channel: str


React = Callable[[World, Language, Visit, str, "UNOFeedbackHandler"], "str | None"]
"""Gives feedback on an answer; returns the follow-up turn if that is how the user reacts."""


def plan_visits(world: World, count: int) -> list[Visit]:
    """Draw the requests of a week: people who are not held out, families in turn."""
    language = world.language()
    rng = Random(f"service-{world.seed}")
    people = [u for u in world.users if not u.held_out]
    families = list(language.families.values())
    visits = []
    for i in range(count):
        user = rng.choice(people)
        visits.append(
            Visit(
                run_id=uuid.UUID(int=rng.getrandbits(128), version=4),
                thread_id=f"thread-{world.seed}-{i:05d}",
                user=user,
                query=make_query(
                    language, families[i % len(families)], rng, unseen=True, part="logs"
                ),
                noisy=rng.random() < world.noise,
                channel=rng.choices(list(user.channels), list(user.channels.values()))[0],
            )
        )
    rng.shuffle(visits)
    return visits


def held_out_queries(world: World, per_family: int, *, seed: int = 0) -> list[tuple[User, Query]]:
    """Requests of test people: no frame, no fact and no name of them is in any log."""
    language = world.language()
    rng = Random(f"held-out-{world.seed}-{seed}")
    people = [u for u in world.users if u.held_out]
    return [
        (rng.choice(people), make_query(language, family, rng, unseen=True, part="tests"))
        for family in language.families.values()
        for _ in range(per_family)
    ]


def run_service(
    world: World,
    visits: Sequence[Visit],
    model: BaseChatModel,
    handler: UNOFeedbackHandler,
    *,
    reaction: React | None = None,
) -> None:
    """Let the visits happen, 32 at a time; feedback lands in the handler's home.

    ``reaction`` is what people do with an answer; :func:`react` if None.
    """
    from langchain_core.exceptions import ContextOverflowError

    language, reaction = world.language(), reaction or react
    for start in range(0, len(visits), _TOGETHER):
        group = visits[start : start + _TOGETHER]
        configs = [_config(v, handler, v.run_id) for v in group]
        answers = model.batch([[("user", v.query.text)] for v in group], configs)
        follow: list[tuple[Visit, list[tuple[str, str]]]] = []
        for visit, answer in zip(group, answers, strict=True):
            text = str(answer.content)
            said = reaction(world, language, visit, text, handler)
            if said:
                turns = [("user", visit.query.text), ("assistant", text), ("user", said)]
                follow.append((visit, turns))
        if follow:
            replies = model.batch(
                [turns for _, turns in follow],
                [_config(v, handler, uuid.UUID(int=v.run_id.int ^ 1)) for v, _ in follow],
                return_exceptions=True,
            )
            failed: list[BaseException] = [r for r in replies if isinstance(r, BaseException)]
            for error in failed:
                # An answer may have run on for so long that nothing more fits behind it.
                if not isinstance(error, ContextOverflowError):
                    raise error


def _config(visit: Visit, handler: UNOFeedbackHandler, run_id: uuid.UUID) -> RunnableConfig:
    return {
        "run_id": run_id,
        "callbacks": [handler],
        "metadata": {"thread_id": visit.thread_id, "user_id": visit.user.id},
    }


def react(
    world: World, language: Language, visit: Visit, answer: str, handler: UNOFeedbackHandler
) -> str | None:
    """Give feedback on an answer, honestly: see :data:`React`.

    What a user does depends on the visit alone and feedback ids are fixed, so that a visit that
    happens again after a crash leaves the same records.
    """
    rng = Random(f"reaction-{visit.run_id}")
    wishes = world.wishes(language, visit.query)
    met = check_answer(language, visit.query, answer).met
    missing = [r for r in wishes if r not in met]
    if visit.channel == "silent":
        return None
    if visit.noisy:
        return _noise(language, visit, missing, handler, rng)
    if not missing:
        send(handler, visit, 0, key="like", score=1.0)
        return None
    if visit.channel == "thumb":
        send(handler, visit, 0, key="dislike", score=0.0)
        return None
    if visit.channel == "edit":
        edited = render_answer(language, visit.query, wishes)
        send(handler, visit, 0, key="correction", correction=edited)
        return None
    named = [r for r in missing if rng.random() < visit.user.mention] or [rng.choice(missing)]
    rng.shuffle(named)
    unseen = rng.random() < 0.5
    turns = say_wishes(
        language, named, rng, unseen_frames=unseen, unseen_wordings=rng.random() < 0.5
    )
    if visit.channel == "follow_up":
        return " ".join(turns)
    for i, turn in enumerate(turns):
        send(handler, visit, i, key="comment", comment=turn, score=0.0)
    return None


def _noise(
    language: Language, visit: Visit, missing: list[str], handler: UNOFeedbackHandler, rng: Random
) -> str | None:
    """Say something that teaches nothing, or (one time in eight) ask for a random rule."""
    kind = rng.choice((*NOISE_KINDS, "contradicting"))
    if kind == "contradicting":
        rule = rng.choice([r for r in language.rules if r not in missing])
        said = say_wishes(language, [rule], rng, unseen_frames=True, unseen_wordings=False)[0]
    else:
        said = noise_line(language, rng, unseen=True, kind=kind)
    if visit.channel == "follow_up":
        return said
    if visit.channel == "thumb":
        send(handler, visit, 0, key="score", score=float(rng.random() < 0.5))
        return None
    send(handler, visit, 0, key="comment", comment=said)
    return None


def send(handler: UNOFeedbackHandler, visit: Visit, nth: int, **feedback: Any) -> None:
    """Send the nth feedback of a visit; its id is fixed."""
    handler.feedback(
        str(visit.run_id),
        user_id=visit.user.id,
        source=SOURCE,
        feedback_id=f"{visit.run_id.hex}-{nth}",
        **feedback,
    )
