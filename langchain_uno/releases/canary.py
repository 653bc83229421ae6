"""A part of the people tries a release, and their feedback decides whether it takes over.

    start(home, release, share=0.2)      # a fifth of the people is answered by it from here on
    look(home)                           # what both sides say so far
    watch(home)                          # the same, and promotes, rolls back or ends the canary

Everybody counts once: with the score of the first answer that they rated since the canary began, on
the side that answered them. Words, edits and follow-up turns are no votes: what they say about the
answer is a model's guess. Who is nobody's voice (``records.voice_of``) has no vote.
``sequential.py`` tests both directions. A request of the candidate's side that reached no cluster
is a request of that side: the answer's ``canary`` says that the canary chose who answers, and its
``release`` says which side it was.

``traffic.json`` says whether a canary runs; ``canary.json`` says which, by whom, and how the last
one ended. Whoever promotes, rolls back, retires or revokes meanwhile ends it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from itertools import tee
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_uno.errors import InputError, ReleaseError
from langchain_uno.home import Home, locked
from langchain_uno.logs.filters import is_evaluator
from langchain_uno.logs.join import FOLLOW_UP, rated
from langchain_uno.logs.journal import Journal
from langchain_uno.records import ANONYMOUS, Feedback, any_named, by_speaker, utc_now, voice_of
from langchain_uno.releases.history import present_user, read_history
from langchain_uno.releases.load import load_release, models_of, read_manifest
from langchain_uno.releases.manifest import Manifest
from langchain_uno.releases.publish import direct, make_current
from langchain_uno.releases.sequential import LEVEL, Compared, block_for, compare
from langchain_uno.releases.traffic import Share, Traffic, answering, read_traffic, write_atomic

Verdict = Literal["promoted", "rolled back", "undecided", "running", "stopped", "overtaken"]
"""How a canary ended, or that it runs. Undecided: its budget of people or days is spent; what was
current stays, and a person decides. Overtaken: a person changed what answers."""

_FILE = "canary.json"
_LEAST, _MOST = 0.05, 0.5
"""Of the traffic. With less, a block of votes is so long that two people could decide; with more,
the candidate would be what answers most."""
_MOST_PEOPLE, _MOST_DAYS = 1_000_000, 3650
_DECIDING = {"promote", "rollback", "retire", "publish"}
"""What somebody does, as the history calls it, who has decided after a canary."""
_SAID = {"like": 1.0, "dislike": 0.0}
"""What these keys say where they come without a score."""


class Plan(BaseModel):
    """What ``canary.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    id: str
    release: str
    """The candidate."""
    current: str | None
    """What it is compared with; None: the base model."""
    share: float
    block: tuple[int, int]
    """Votes of both sides in a block of the test; a share that is raised later does not change it.
    """
    people: int = Field(le=_MOST_PEOPLE)
    """The budget: whose votes are counted, both sides together."""
    days: float = Field(le=_MOST_DAYS)
    started: datetime
    by: str
    why: str = ""
    ended: Verdict | None = None


class Side(BaseModel):
    """What one side's people said."""

    release: str | None
    people: int = Field(ge=0)
    score: float | None
    """Their mean; of thumbs the share of those up. None: nobody voted."""


class Canary(BaseModel):
    """A canary and what people say so far."""

    plan: Plan
    candidate: Side
    current: Side
    test: Compared
    verdict: Verdict
    """What has become of it, or what :func:`watch` is about to do."""

    @property
    def told(self) -> str:
        """The figures in a sentence."""
        sides = " and ".join(
            f"{side.release or 'the base model'} {side.score:.2f} of {side.people} people"
            if side.score is not None
            else f"{side.release or 'the base model'} no votes"
            for side in (self.candidate, self.current)
        )
        test = self.test
        more = f"; about {test.needed} more people like these would decide" if test.needed else ""
        return (
            f"{sides}; evidence that it is better {test.better:.2g}, worse {test.worse:.2g} "
            f"({1.0 / LEVEL:g} decides){more}"
        )


def start(
    home: Home,
    release: str,
    *,
    share: float = 0.2,
    people: int = 200,
    days: float = 14.0,
    by: str = "",
    why: str = "",
) -> Plan:
    """Let a release answer a part of the people; or, if it does already, a larger part.

    Args:
        home: the namespace.
        release: the candidate.
        share: of the people that it answers, from 0.05 to 0.5. It may be raised while the canary
            runs: people join the candidate's side, nobody leaves it.
        people: after so many people's votes, a million at most, the canary ends undecided. Of one
            that runs, this and ``days`` stay as they are.
        days: after so many days, 3650 at most, it ends undecided.
        by: who starts it; the name of the process's user by default.
        why: for the history.

    Returns:
        What runs.

    Raises:
        InputError: a share, a number of people or of days that can't be used.
        ReleaseError: the release is unknown, not sound, revoked, current already, made for another
            model than what is current; another canary runs; or somebody changed meanwhile what
            answers. Nothing changes.
    """
    within = 2 <= people <= _MOST_PEOPLE and 0 < days <= _MOST_DAYS
    if not _LEAST <= share <= _MOST or not within:
        raise InputError(
            f"A canary takes a share from {_LEAST} to {_MOST}, 2 to {_MOST_PEOPLE:,} people and a "
            f"part of a day to {_MOST_DAYS} days, not share={share!r}, people={people!r}, "
            f"days={days!r}."
        )
    with _alone(home):
        traffic = read_traffic(home) or Traffic()
        current = traffic.current or Share(release=None)
        if current.release == release:
            raise ReleaseError(f"Release {release!r} is current: name another one to try.")
        under_way = running(home)
        if under_way is not None and (under_way.release != release or share < under_way.share):
            raise ReleaseError(
                f"A canary of {under_way.release!r} is running with a share of {under_way.share}: "
                "end it first, or give the same release a larger share."
            )
        served = None if current.release is None else read_manifest(home, current.release)
        fits: Any = models_of(served) if served else {}
        found = load_release(home, release, **fits)
        if under_way is not None:
            plan = under_way.model_copy(update={"share": share})
        else:
            plan = Plan(
                id=secrets.token_hex(8),
                release=found.id,
                current=current.release,
                share=share,
                block=block_for(share),
                people=people,
                days=days,
                started=utc_now(),
                by=by or present_user(),
                why=why,
            )
        _write(home, plan)
        shares = (
            current.model_copy(update={"share": 1.0 - share}),
            Share(release=found.id, share=share, manifest_sha256=found.manifest_sha256),
        )
        begun = Traffic(shares=shares, canary=plan.id, stands_in_for=traffic.stands_in_for)
        direct(home, begun, f"canary with {100 * share:g} %", found.id, why, by, traffic)
    return plan


def running(home: Home) -> Plan | None:
    """Return the canary that runs; None: there is none.

    Raises:
        ReleaseError: ``canary.json`` or ``traffic.json`` is damaged.
    """
    plan, traffic = _last(home), read_traffic(home)
    return plan if plan and traffic and traffic.canary == plan.id else None


def undecided(home: Home) -> Plan | None:
    """Return the canary that ended undecided, while nobody has decided; None: there is none.

    Raises:
        ReleaseError: ``canary.json`` or ``traffic.json`` is damaged.
    """
    plan, answers = _last(home), answering(home)
    if plan is None or plan.ended != "undecided" or answers != plan.current:
        return None
    done = [entry.get("what") for entry in read_history(home)]
    after = done[::-1].index("end canary") if "end canary" in done else 0
    return None if _DECIDING & set(done[len(done) - after :]) else plan


def look(home: Home, read: Callable[[str], Manifest] | None = None) -> Canary:
    """Return the figures of the canary that runs, or of the last one.

    Args:
        home: the namespace.
        read: reads the manifest of a release; None: from its file.

    Raises:
        ReleaseError: there never was one, or a file is damaged.
        StoreError: the journal can't be read.
    """
    plan = _last(home)
    if plan is None:
        raise ReleaseError(
            "There is no canary: `langchain-uno releases canary RELEASE` starts one."
        )
    recipe = (read(plan.release) if read else read_manifest(home, plan.release)).recipe
    votes = _votes(home, plan, threads=recipe.get("rules", {}).get("voices") == "threads")
    sides = [[score for candidate, score in votes if candidate is side] for side in (True, False)]
    test = compare(votes, plan.block)
    verdict: Verdict = plan.ended or "overtaken"
    if running(home) is not None:
        late = utc_now() > plan.started + timedelta(days=plan.days)
        spent = late or len(votes) >= plan.people
        found: dict[str | None, Verdict] = {"better": "promoted", "worse": "rolled back"}
        verdict = found.get(test.decided, "undecided" if spent else "running")
    of = [
        Side(release=name, people=len(side), score=sum(side) / len(side) if side else None)
        for name, side in zip((plan.release, plan.current), sides, strict=True)
    ]
    return Canary(plan=plan, candidate=of[0], current=of[1], test=test, verdict=verdict)


def watch(home: Home) -> Canary:
    """Look, and do what the figures say: promote, roll back, or end the canary at its budget.

    Returns:
        What was seen; its ``verdict`` is what was done.

    Raises:
        ReleaseError: there never was a canary, a file is damaged, or the candidate is not sound
            any more; nothing changes.
        StoreError: the journal can't be read.
    """
    with _alone(home):
        found = look(home)
        plan, by = found.plan, f"the canary of {found.plan.by or 'somebody'}"
        traffic = read_traffic(home)
        if found.verdict == "running" or running(home) is None:
            return found
        # First, so that a kill in between does not make it look like a person's doing.
        _write(home, plan.model_copy(update={"ended": found.verdict}))
        if found.verdict == "promoted":
            why = f"canary: {found.told}"
            try:
                make_current(home, plan.release, why=why, by=by, seen=traffic)
            except ReleaseError:
                _write(home, plan)
                if running(home) is not None:
                    raise
                return look(home)  # a person changed what answers while the release was checked
        elif found.verdict == "rolled back":
            _back(home, "rollback", plan.current, f"canary: {found.told}", by)
        else:
            why = f"undecided at the end of its budget, a person decides: {found.told}"
            _back(home, "end canary", plan.release, why, by)
    return found


def stop(home: Home, by: str = "", why: str = "") -> bool:
    """End the canary that runs: what was current answers everything.

    One that ended undecided is left at that. False: there was neither.

    Raises:
        ReleaseError: a file is damaged.
    """
    with _alone(home):
        plan = running(home) or undecided(home)
        if plan is None:
            return False
        _back(home, "end canary", plan.release, why, by)
        _write(home, plan.model_copy(update={"ended": "stopped"}))
    return True


def _back(home: Home, what: str, release: str | None, why: str, by: str) -> None:
    """Give all traffic to what is current."""
    traffic = read_traffic(home) or Traffic()
    kept = [s.model_copy(update={"share": 1.0}) for s in traffic.shares if s is traffic.current]
    shares = tuple(share for share in kept if share.release is not None)
    ended = Traffic(shares=shares, stands_in_for=traffic.stands_in_for)
    direct(home, ended, what, release, why, by)


def _votes(home: Home, plan: Plan, *, threads: bool) -> list[tuple[bool, float]]:
    """Return whether each vote is of the candidate's side and its score, in order of arrival.

    As many as the budget allows: what came later is not read.
    """
    first: dict[str, tuple[bool, float]] = {}
    with Journal(home.journal, readonly=True) as journal:
        found = rated(journal, plan.id, plan.started.timestamp())
        logs, ahead = tee(log for log in found if _score(log.feedback) is not None)
        threads = threads or not any_named(ahead)
        del ahead  # so that what was read is not held
        for log in (one for many in logs for one in by_speaker(many)):
            score, voice = _score(log.feedback), voice_of(log, threads=threads)
            if score is not None and voice != ANONYMOUS:
                first.setdefault(voice, (log.release == plan.release, score))
            if len(first) == plan.people:
                break
    return list(first.values())


def _score(said: list[Feedback]) -> float | None:
    """Return the last score that was given on purpose; None: there is none."""
    given = [
        (one.created_at, _SAID.get(one.key, 0.5) if one.score is None else one.score)
        for one in said
        if one.key != FOLLOW_UP
        and (one.score is not None or one.key in _SAID)
        and not is_evaluator(one.source)
    ]
    return max(given)[1] if given else None


def _last(home: Home) -> Plan | None:
    path = home.path / _FILE
    try:
        return Plan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ReleaseError(
            f"{str(path)!r} can't be read as a canary: delete it, and choose by `langchain-uno "
            "releases promote` or `rollback` what answers."
        ) from error


def _write(home: Home, plan: Plan) -> None:
    write_atomic(home.path / _FILE, (plan.model_dump_json(indent=2) + "\n").encode())


def _alone(home: Home) -> AbstractContextManager[None]:
    """Let one process at a time decide about a canary."""
    busy = f"Another process decides about the canary of {str(home.path)!r}: try again."
    return locked(home.require(), "canary", 60, busy)
