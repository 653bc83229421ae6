"""``langchain-uno demo``: the whole loop on this machine, in minutes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from langchain_uno.cli.console import JsonOption, QuietOption, clean_exit, out, print_json, say
from langchain_uno.cli.progress import Bars, duration
from langchain_uno.home import Home

__all__ = ["demo"]


def demo(
    home: Annotated[Path, typer.Option(help="Where everything goes; empty at first.")] = Path(
        ".demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the world: who wants what.")] = 1,
    visits: Annotated[int, typer.Option(help="Requests of the simulated week.", min=16)] = 420,
    per_family: Annotated[int, typer.Option(help="Held-out requests a family.", min=1)] = 30,
    noise: Annotated[float, typer.Option(help="Share of useless feedback.", min=0, max=1)] = 0.34,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show the whole loop on this machine, in minutes.

    A simulated service runs through the feedback handler, a refresh learns from its log, and
    held-out requests of other users are answered by base, UNO-Single and UNO and checked by a
    program. Everything is real but small: the model, its LoRA training, the store, the graph. The
    figures show that the loop works; they say nothing about a real model's gains.

        langchain-uno demo --home .demo --seed 2

    Exit codes: 0 done, 2 bad argument, or the folder holds a demo with other settings, 3 the folder
    can't be written, 130 stopped: the same call goes on from there.
    """
    with (
        clean_exit("Stopped. What is finished is kept: the same call again goes on from there."),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # transformers' own, not ours to mend
        from langchain_uno.demo.run import run_demo

        place = Home.locate(home)
        with Bars(quiet, as_json=as_json) as bars:
            report = run_demo(
                place, seed=seed, visits=visits, per_family=per_family, noise=noise, progress=bars
            )
        if as_json:
            print_json(report)
        else:
            _show(report, place)


def _show(report: dict[str, Any], home: Home) -> None:
    from langchain_uno.demo.report import print_report

    print_report(report, out)
    seconds = report["seconds"]
    table = Table("stage", "time", title="time")
    for stage in ("service", "refresh", *(s for s in seconds if ":" in s), "evaluate"):
        table.add_row(stage, duration(seconds.get(stage, 0.0)))
    table.add_row("all", duration(sum(v for s, v in seconds.items() if ":" not in s)))
    out.print(table)
    example = report["example"]
    if example:
        out.print(Panel(Text(example["query"]), title="one held-out request"))
        say(f"Its users want: {example['users_want']}")
        out.print(Panel(Text(example["before"]), title="before (base)"))
        out.print(Panel(Text(example["after"]), title=f"after ({example['route']})"))
    sizes = report["sizes"]
    say(
        f"{sizes['n_adapters']} adapters, {sizes['adapters'] / 1e6:.1f} MB; base model "
        f"{sizes['base'] / 1e6:.1f} MB. Log, index and releases lie in {home.path}; picture: "
        f"{home.path / 'demo.png'}"
    )
    say("The figures show that the loop works; they say nothing about a real model's gains.")
    say("Try next:")
    for line in (
        f"langchain-uno logs stats --home {home.path}",
        f"langchain-uno evaluate world {home.path / 'world.json'} --home {home.path} --seed 5",
        f"langchain-uno demo --home {home.path}-2 --seed 2",
    ):
        say(f"  {line}")
