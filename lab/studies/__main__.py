"""``python -m lab.studies``: studies of the bundled model, a world at a time, and their tables.

    python -m lab.studies systems --seeds 5101,5102
    python -m lab.studies poison --seeds 5101,5102
    python -m lab.studies rounds --seeds 5101
    python -m lab.studies thumbs --seeds 5101
    python -m lab.studies table

A study that was stopped goes on where it stopped; several processes may be given the same command.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.studies.results import Result
from langchain_uno.cli.console import clean_exit
from langchain_uno.cli.progress import Bars
from langchain_uno.errors import InputError

__all__ = ["app"]

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__
)

Seeds = Annotated[str, typer.Option(help="Worlds, as 5101,5102.")]
Out = Annotated[Path, typer.Option("--out", help="Where results lie, a JSON file each.")]
Scratch = Annotated[Path, typer.Option(help="Where homes lie meanwhile.")]
RESULTS, STUDIES = Path("lab/results"), Path(".studies")
STOPPED = "Stopped. What is finished is kept: the same call again goes on from there."


@app.command()
def systems(
    seeds: Seeds,
    out: Out = RESULTS,
    scratch: Scratch = STUDIES,
    noise: Annotated[str, typer.Option(help="Shares of useless feedback.")] = "0.34",
    edits: Annotated[bool, typer.Option(help="People edit instead of saying a word.")] = False,
    visits: Annotated[int, typer.Option(min=16, help="Requests of the week.")] = 420,
    per_family: Annotated[int, typer.Option(min=1, help="Test requests a family.")] = 15,
) -> None:
    """Compare base, retrieval, rules in the prompt, one kind everywhere, and UNO."""
    from lab.studies.systems import run_systems

    levels = [_number(n, float, "--noise") for n in noise.split(",")]
    with clean_exit(STOPPED):
        for seed in _each(seeds):
            for level in levels:
                sizes: dict[str, Any] = {"visits": visits, "per_family": per_family}
                _one(
                    lambda bars, s=seed, n=level, kw=sizes: run_systems(
                        s, out, scratch, bars, noise=n, edits=edits, **kw
                    )
                )


@app.command()
def poison(
    seeds: Seeds,
    out: Out = RESULTS,
    scratch: Scratch = STUDIES,
    attacks: Annotated[str | None, typer.Option(help="Some of them. [default: all]")] = None,
    visits: Annotated[int, typer.Option(min=16, help="Requests of the week.")] = 420,
) -> None:
    """Plant rules by words, orders, edits and likes; count what gets through."""
    from lab.studies.poison import ATTACKS, run_poisoned

    with clean_exit(STOPPED):
        names = attacks.split(",") if attacks else list(ATTACKS)
        if unknown := [name for name in names if name not in ATTACKS]:
            raise InputError(f"--attacks {unknown[0]!r} is none of {', '.join(ATTACKS)}.")
        for seed in _each(seeds):
            for name in names:
                _one(
                    lambda bars, s=seed, a=name: run_poisoned(
                        s, a, out, scratch, bars, visits=visits
                    )
                )


@app.command()
def rounds(
    seeds: Seeds,
    out: Out = RESULTS,
    scratch: Scratch = STUDIES,
    count: Annotated[int, typer.Option("--rounds", min=2, help="Refreshes.")] = 10,
    visits: Annotated[int, typer.Option(min=16, help="Requests a round.")] = 50,
) -> None:
    """Refresh a service round after round as families come; then all at once."""
    from lab.studies.rounds import run_rounds

    with clean_exit(STOPPED):
        for seed in _each(seeds):
            _one(
                lambda bars, s=seed: run_rounds(s, out, scratch, bars, rounds=count, visits=visits)
            )


@app.command()
def thumbs(seeds: Seeds, out: Out = RESULTS, scratch: Scratch = STUDIES) -> None:
    """Compare thumbs alone with words, on answers that meet the wishes half of the time."""
    from lab.studies.thumbs import run_thumbs

    with clean_exit(STOPPED):
        for seed in _each(seeds):
            _one(lambda bars, s=seed: run_thumbs(s, out, scratch, bars))


@app.command()
def table(
    out: Out = RESULTS,
    write: Annotated[bool, typer.Option(help="Write them into the pages that show them.")] = False,
) -> None:
    """Print the tables of what is finished, or write them into the pages."""
    from lab.studies.tables import PAGES, markdown, rewritten

    with clean_exit():
        if not write:
            print(markdown(out))
            return
        for page, tables in PAGES.items():
            text = page.read_text(encoding="utf-8")
            page.write_text(rewritten(text, tables(out)), encoding="utf-8")


def _one(run: Callable[[Any], Result | None]) -> None:
    with Bars() as bars, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers' own
        if run(bars) is None:
            bars.finish("busy", "another process is at it")


def _each(seeds: str) -> Iterator[int]:
    return iter([_number(seed, int, "--seeds") for seed in seeds.split(",")])


def _number(text: str, kind: Callable[[str], Any], option: str) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r} is no number.") from error


if __name__ == "__main__":
    app()
