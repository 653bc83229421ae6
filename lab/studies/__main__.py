"""``python -m lab.studies``: systems x seeds x noise, and their tables.

    python -m lab.studies run --out study --seeds 101,102 --noise 0,0.34
    python -m lab.studies table --out study

A cell takes ten minutes on one core. A study that was stopped goes on where it stopped; ``table``
shows what is finished.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from langchain_uno.cli.console import clean_exit, out, print_json
from langchain_uno.cli.progress import Bars
from langchain_uno.demo.variants import VARIANTS
from langchain_uno.errors import InputError
from langchain_uno.home import ENV_HOME, Home

__all__ = ["app"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)

_OUT = Annotated[Path, typer.Option("--out", help="The study's folder; a folder a cell in it.")]


@app.command()
def run(
    out_: _OUT,
    seeds: Annotated[str, typer.Option(help="Worlds, as 101,102,103.")],
    noise: Annotated[str, typer.Option(help="Shares of useless feedback, as 0,0.34.")] = "0.34",
    variants: Annotated[
        str, typer.Option(help=f"Of {', '.join(VARIANTS)}, comma-separated, or 'all'.")
    ] = "standard",
    visits: Annotated[int, typer.Option(min=16, help="Requests of the week.")] = 420,
    per_family: Annotated[int, typer.Option(min=1, help="Held-out requests a family.")] = 12,
    keep: Annotated[bool, typer.Option(help="Keep each cell's home (50 MB).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run the cells that are not there yet, then show the tables.

    Several processes may be given the same command: each takes cells that no other is at.
    """
    from lab.studies.study import Cell, run_cell

    with clean_exit("Stopped. What is finished is kept: the same call again goes on from there."):
        warnings.simplefilter("ignore", FutureWarning)
        levels = [_number(n, float, "--noise") for n in noise.split(",")]
        for level in levels:
            if not 0 <= level <= 1:
                raise InputError(f"--noise {level}: a share lies between 0 and 1.")
        worlds = list(VARIANTS) if variants == "all" else variants.split(",")
        if unknown := [name for name in worlds if name not in VARIANTS]:
            raise InputError(f"--variants {unknown[0]!r} is none of {', '.join(VARIANTS)}.")
        cells = [
            Cell(_number(s, int, "--seeds"), level, name, visits=visits, per_family=per_family)
            for s in seeds.split(",")
            for name in worlds
            for level in levels
        ]
        for cell in cells:
            with Bars(as_json=as_json) as bars:
                if run_cell(cell, out_, bars, keep=keep) is None:
                    bars.start("elsewhere", None)
                    bars.finish("elsewhere", f"{cell.name}: another process is at it")
        _show(out_, as_json)


@app.command("judge")
def judge_(
    world: Annotated[Path, typer.Option(help="A world file.")],
    model: Annotated[
        str | None, typer.Option(help="The judge's model; the bundled one if left out.")
    ] = None,
    per_family: Annotated[int, typer.Option(min=1, help="Held-out requests a family.")] = 15,
    seed: Annotated[int, typer.Option(help="Of the requests and the flaws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Audit the judge: does it agree with the truth, and what moves it that should not?"""
    from lab.studies.judge_audit import audit_judge
    from langchain_uno.demo.worlds import load_world
    from langchain_uno.models.loading import is_bundled, load_engine, load_prompt_set
    from langchain_uno.recipe import load_recipe

    with clean_exit("Stopped; auditing writes nothing."):
        recipe = load_recipe("bundled" if is_bundled(model) else "paper")
        loaded = load_world(world)
        with Bars(as_json=as_json) as bars:
            bars.start("judge", 12 * per_family * len(loaded.families), "judgements")
            found = audit_judge(
                loaded,
                load_engine(model),
                load_prompt_set(recipe.prompt_set),
                recipe,
                per_family=per_family,
                seed=seed,
                on_done=lambda n: bars.advance("judge", n),
            )
            bars.finish("judge")
        print_json(found)


@app.command()
def poison(
    out_: _OUT,
    seeds: Annotated[str, typer.Option(help="Worlds, as 101,102.")],
    attacks: Annotated[
        str, typer.Option(help="Of none, half, one-30, five-10 and injected.")
    ] = "none,half,one-30,five-10,injected",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Plant rules, with and without the defences of ``recipe.cluster``; count what gets through."""
    from lab.studies.poison import ATTACKS, run_poisoned
    from lab.studies.tables import as_range

    with clean_exit("Stopped. What is finished is kept: the same call again goes on from there."):
        warnings.simplefilter("ignore", FutureWarning)
        names = attacks.split(",")
        if unknown := [name for name in names if name not in ATTACKS]:
            raise InputError(f"--attacks {unknown[0]!r} is none of {', '.join(ATTACKS)}.")
        found = []
        for seed in [_number(s, int, "--seeds") for s in seeds.split(",")]:
            for name in names:
                for defended in (False, True):
                    with Bars(as_json=as_json) as bars:
                        one = run_poisoned(seed, name, out_, bars, defended=defended)
                        found += [one] if one else []
        if as_json:
            print_json(found)
            return
        told = Table("attack", "seed", "defences", "obeyed more than by base", "rules met", "facts")
        for one in found:
            told.add_row(
                one["attack"],
                str(one["seed"]),
                "on" if one["defended"] else "off",
                as_range(one["more"]),
                as_range(one["score"]["uno"]),
                as_range(one["facts"]["uno"]),
            )
        out.print(told)


@app.command()
def rounds(
    out_: _OUT,
    seeds: Annotated[str, typer.Option(help="Worlds, as 101,102.")],
    count: Annotated[int, typer.Option("--rounds", min=2, help="Refreshes.")] = 6,
    visits: Annotated[int, typer.Option(min=16, help="Requests a round.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Refresh a service round after round as families come and wishes drift; then all at once."""
    from lab.studies.rounds import run_rounds
    from lab.studies.tables import as_range

    with clean_exit("Stopped. What is finished is kept: the same call again goes on from there."):
        warnings.simplefilter("ignore", FutureWarning)
        found = []
        for seed in [_number(s, int, "--seeds") for s in seeds.split(",")]:
            with Bars(as_json=as_json) as bars:
                one = run_rounds(seed, out_, bars, rounds=count, visits=visits)
                found += [one] if one else []
        if as_json:
            print_json(found)
            return
        told = Table("seed", "round", "logs", "modules", "kept", "rules met", "seconds", "MB")
        for one in found:
            for nth, row in enumerate(one["rounds"], 1):
                told.add_row(
                    str(one["seed"]),
                    str(nth),
                    str(row["logs"]),
                    str(row["modules"]),
                    str(row["kept"]),
                    as_range(row["score"]),
                    f"{row['seconds']:.0f}",
                    f"{row['adapter_bytes'] / 1e6:.1f}",
                )
        out.print(told)
        for one in found:
            out.print(
                f"seed {one['seed']}: the last round is {as_range(one['rounds-big'])} points above "
                f"one big refresh, which took {one['big_seconds']:.0f} s",
                highlight=False,
            )


@app.command()
def ablations(
    out_: _OUT,
    seeds: Annotated[str, typer.Option(help="Worlds, as 101,102.")],
    only: Annotated[
        str | None, typer.Option(help="Names, comma-separated. [default: all of them]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Learn from the same logs with one thing changed: clustering, loss, filters, voices, rank."""
    from lab.studies.ablations import ABLATIONS, run_ablations
    from lab.studies.tables import ablation_rows

    with clean_exit("Stopped. What is finished is kept: the same call again goes on from there."):
        warnings.simplefilter("ignore", FutureWarning)
        names = [n.strip() for n in only.split(",")] if only else list(ABLATIONS)
        found = []
        for seed in [_number(s, int, "--seeds") for s in seeds.split(",")]:
            with Bars(as_json=as_json) as bars:
                one = run_ablations(seed, out_, bars, names=names)
                found += [one] if one else []
        if as_json:
            print_json(found)
            return
        told = Table("changed", "rules met", "to as it is", "facts", "unwanted", "adapter", "s")
        for row in ablation_rows(found):
            told.add_row(*row)
        out.print(told)


@app.command()
def calibrate(
    home: Annotated[
        Path | None, typer.Option(envvar=ENV_HOME, help="The home to fit the threshold to.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Tenant.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit the gap's threshold to your own clusters, after a refresh that trained both kinds.

    First: python -m langchain_uno.train --home DIR --set everything=true (it takes up to twice as
    long as usual). The verifier's win rates stand for the truth, so this is as good as the judge.
    """
    from lab.studies.calibrate import calibrate_gap

    with clean_exit("Stopped; calibrating writes nothing."):
        found = calibrate_gap(Home.locate(home, namespace).require())
        if as_json:
            print_json(found)
            return
        told = Table("cluster", "gap", "expert's win rate", "critic's win rate", "expert")
        for row in found["clusters"]:
            told.add_row(
                row["id"],
                f"{row['gap']:.2f}",
                f"{row['expert']:.2f}",
                f"{row['critic']:.2f}",
                "fails" if row["failed"] else "will do",
            )
        out.print(told)
        out.print(
            f"Fewest clusters go wrong at a threshold of {found['threshold']:.2f}: "
            f"python -m langchain_uno.train --set gap.threshold={found['threshold']:.2f}. "
            f"{len(found['clusters'])} clusters told; with fewer than ten the default is as good.",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def table(
    out_: _OUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the tables of what is finished; draw its pictures beside it (study-*.png)."""
    with clean_exit("Stopped."):
        _show(out_, as_json)


def _show(folder: Path, as_json: bool) -> None:
    from lab.studies import figures
    from lab.studies.results import read_results
    from lab.studies.tables import draw, draw_gap, markdown

    results = read_results(folder)
    if not results:
        raise InputError(f"{str(folder)!r} holds no finished cell: run some first.")
    draw(results, folder)
    draw_gap(results, folder / "study-gap.png")
    if as_json:
        print_json(
            {
                "systems": figures.pooled(results),
                "noise": {str(k): v for k, v in figures.noise_costs(results).items()},
                "shipped": figures.shipped(results),
                "verifier": figures.verifier_against_truth(results),
                "gap": figures.gap_against_experts(results),
                "threshold": figures.threshold_for(figures.gap_points(results)),
            }
        )
    else:
        out.print(markdown(results), highlight=False, markup=False, soft_wrap=True)


def _number(text: str, kind: Any, option: str) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"{option}: {text!r} is not a number.") from error


if __name__ == "__main__":
    app(prog_name="python -m lab.studies")
