"""``langchain-uno releases canary``, ``watch``, ``end-canary``: some of the people try one."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from langchain_uno.cli.console import (
    ByOption,
    JsonOption,
    ReleaseArgument,
    WhyOption,
    at_home,
    print_json,
    say,
)
from langchain_uno.home import Home
from langchain_uno.releases.canary import look, running, start, stop, undecided
from langchain_uno.releases.canary import watch as watch_once

_CODES = {"promoted": 0, "rolled back": 11, "undecided": 12, "running": 13}
_ENDED_BY_A_PERSON = 14


@at_home()
def canary(
    place: Home,
    release: ReleaseArgument,
    share: Annotated[float, typer.Option(help="Share of people it answers, 0.05 to 0.5.")] = 0.2,
    people: Annotated[
        int, typer.Option(help="It ends undecided after so many people's votes.", min=2)
    ] = 200,
    days: Annotated[float, typer.Option(help="It ends undecided after so many days.")] = 14.0,
    by: ByOption = "",
    why: WhyOption = "",
) -> None:
    """Let a part of the people try a release; their feedback decides whether it takes over.

    A person, else a thread, stays on one side. The same command with a larger share lets more
    people join. `releases watch` looks at the votes, and promotes or rolls back.

        langchain-uno releases canary r20260308-120000-77ab02 --share 0.2 --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, 5 the release is of another base model or
    embedder than what answers, 8 another process decides about a canary, 9 the release is refused,
    or another canary runs (nothing changes).
    """
    plan = start(place, release, share=share, people=people, days=days, by=by, why=why)
    say(
        f"Release {plan.release} answers {100 * plan.share:g} % of the people, "
        f"{plan.current or 'the base model'} the others, until {plan.people} people have voted "
        f"or {plan.days:g} days are over. `langchain-uno releases watch` decides."
    )


@at_home("Stopped watching: the canary runs on.")
def watch(
    place: Home,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=1.0)] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Watch the canary until it is decided: promote, roll back, or end it at its budget.

    The test holds however often it looks. Ctrl-C ends the watching and leaves the canary as it is.

        langchain-uno releases watch --every 60 --home ./home

    Exit codes: 0 promoted, 2 bad argument, 3 no such home, 7 the journal can't be read, 8
    another process decides, 9 there is no canary, or its release is refused, 11 rolled back, 12
    undecided at the end of its budget (a person decides), 13 still running (--once), 14 a person
    ended it, 130 stopped by Ctrl-C.
    """
    told = ""
    while True:
        found = watch_once(place)
        if found.told != told and not as_json:
            say(f"{found.verdict}: {found.told}.")
        told = found.told
        if once or found.verdict != "running":
            break
        time.sleep(every)
    if as_json:
        print_json(found.model_dump(mode="json"))
    raise typer.Exit(_CODES.get(found.verdict, _ENDED_BY_A_PERSON))


@at_home()
def end_canary(place: Home, by: ByOption = "", why: WhyOption = "") -> None:
    """End the canary: the current release answers everybody. Or dismiss one that ended undecided.

        langchain-uno releases end-canary --home ./home --why "wrong release"

    Exit codes: 0 done, 2 bad argument, 3 no such home, 8 another process decides, 9 a file is
    damaged.
    """
    say("The canary has ended." if stop(place, by, why) else "No canary is running.")


def canary_line(home: Home) -> str | None:
    """Return what runs, or what waits for a person since it ended; None: neither.

    Raises:
        ReleaseError: a file is damaged.
    """
    if plan := running(home):
        return f"{plan.release} answers {100 * plan.share:g} %: {look(home).told}"
    if plan := undecided(home):
        return (
            f"{plan.release} ended undecided: `langchain-uno releases promote` it, or leave it by "
            "`langchain-uno releases end-canary`"
        )
    return None
