"""``langchain-uno status``: one look at a home: what answers, how often, what waits."""

from __future__ import annotations

from typing import Any

from langchain_uno.cli.canary import canary_line
from langchain_uno.cli.console import JsonOption, at_home, print_json, say_facts
from langchain_uno.home import Home
from langchain_uno.learning.work import refresh_line
from langchain_uno.logs.journal import Journal
from langchain_uno.releases.summary import said_of, summary_of


@at_home()
def status(place: Home, as_json: JsonOption = False) -> None:
    """Show what answers, how many requests reach a cluster, and what waits.

    Requests are those of the last seven days that a handler captured. "Reach a cluster" is the
    share of them that a release's cluster took; the others went to the base model.

        langchain-uno status --home ./home

    Exit codes: 0 done, 2 bad argument, 3 no such home, 7 the journal can't be read, 9 traffic.json
    is damaged.
    """
    with Journal(place.journal, readonly=True) as journal:
        found = {**summary_of(place, journal), "canary": canary_line(place)}
    found["refresh"] = refresh_line(place)
    if as_json:
        print_json(found)
        return
    for release in found.pop("without_a_module"):
        share = found["answers"].pop(release)
        found["answers"][f"the base model, as {release} has no module"] = share
    say_facts((name, _said(name, value)) for name, value in found.items())


def _said(name: str, value: Any) -> Any:
    if name == "answers":
        return said_of(value)
    if name == "held":
        if not value:
            return "no"
        what = " (changes of routes)" if value["when"] == "routes" else ""
        return f"by {value['by']} since {value['at']}{what} {value['why']}"
    if name == "rolled_back" and value:
        from_, why = value["from"] or "the base model", value["why"] and f" ({value['why']})"
        return f"from {from_} by {value['by']} at {value['at']}{why}, until {value['until']}"
    if name == "waits_for_approval":
        return f"{value}: `langchain-uno releases promote {value}` approves it" if value else None
    if name == "reach_a_cluster" and value is not None:
        return f"{100 * value:.0f} %"
    return value
