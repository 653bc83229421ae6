"""``langchain-uno demo``: the whole loop on this machine, in minutes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated

import typer

from langchain_uno.cli.console import JsonOption, QuietOption, clean_exit, out, print_json, say
from langchain_uno.cli.progress import Bars
from langchain_uno.demo.run import PER_FAMILY, VISITS, run_demo
from langchain_uno.home import Home


def demo(
    home: Annotated[Path, typer.Option(help="Where everything goes; empty at first.")] = Path(
        ".demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the world: who wants what.")] = 1,
    visits: Annotated[int, typer.Option(help="Requests of the simulated week.", min=16)] = VISITS,
    per_family: Annotated[int, typer.Option(help="Test requests a family.", min=1)] = PER_FAMILY,
    noise: Annotated[float, typer.Option(help="Share of useless feedback.", min=0, max=1)] = 0.34,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show the whole loop on this machine, in minutes.

    A simulated service runs through the feedback handler, a refresh learns from its log, and
    test requests of other people are answered by the base and by UNO and checked by a program.
    Everything is real but small: the model, its LoRA training, the store, the graph. The figures
    show that the loop works; they say nothing about a real model's gains.

        langchain-uno demo --home .demo --seed 2

    Exit codes: 0 done, 2 bad argument, or the folder holds a demo with other settings, 3 the folder
    can't be written, 130 stopped: the same call goes on from there.
    """
    # The toy model is as fast on one thread, and does not wait for a core that others have.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with (
        clean_exit("Stopped. What is finished is kept: the same call again goes on from there."),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # transformers' own, not ours to mend
        place = Home.locate(home)
        with Bars(quiet, as_json=as_json) as bars:
            report = run_demo(
                place, seed=seed, visits=visits, per_family=per_family, noise=noise, progress=bars
            )
        if as_json:
            print_json(report)
        else:
            from langchain_uno.demo.report import print_demo

            print_demo(report, place.path, out)
            if page := report["refresh"].get("report"):
                say(f"Report of the refresh: {page}")
            say("Try next:")
            say(f"  langchain-uno logs stats --home {place.path}")
            say(f"  langchain-uno demo --home {place.path}-2 --seed {seed + 1}")
