"""``python -m langchain_uno.demo make|show|exam``: worlds as files, and the final test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from langchain_uno.cli.console import clean_exit, out, print_json
from langchain_uno.cli.progress import Bars
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.variants import VARIANTS
from langchain_uno.demo.worlds import Preference, load_world, save_world

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="The simulated service: make a world, look into it, test the bundled model on it.",
)


@app.command()
def make(
    target: Annotated[Path, typer.Option("--out", help="Where to write the world (JSON).")],
    seed: Annotated[int, typer.Option(help="Decides preferences and users.")] = 1,
    noise: Annotated[
        float, typer.Option(help="Share of feedback that says nothing usable.")
    ] = 0.34,
    users: Annotated[int, typer.Option(help="People; a third are held out for evaluation.")] = 60,
    families: Annotated[int, typer.Option(help="Task families, 1 to 8.")] = 8,
    attackers: Annotated[
        int, typer.Option(min=0, help="People who plant one rule that nobody wants.")
    ] = 0,
    attack_share: Annotated[
        float, typer.Option(help="Share of all requests that are one attacker's.")
    ] = 0.1,
    variant: Annotated[
        str, typer.Option(help=f"What real logs have: {', '.join(VARIANTS)}.")
    ] = "standard",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Write a world: families, frames, facts, rules, wordings, hidden preferences and users."""
    with clean_exit("Stopped; nothing was written."):
        world = make_world(
            seed,
            noise=noise,
            users=users,
            families=families,
            attackers=attackers,
            attack_share=attack_share,
            variant=variant,
        )
        save_world(world, target)
        summary = {"out": str(target), "seed": seed, "distance": world.distance}
        if as_json:
            print_json(summary)
        else:
            out.print(
                f"Wrote world {seed} to {target}. Try: python -m langchain_uno.demo show {target}"
            )


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A world file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show what the users of each family want, and how far that is from the model's guess."""
    with clean_exit():
        world = load_world(path)
        rows = {
            name: {
                "prior": world.families[name]["prior"],
                "wishes": [p.model_dump() for p in wishes],
                "distance": world.distance[name],
            }
            for name, wishes in world.preferences.items()
        }
        if as_json:
            print_json(rows)
            return
        table = Table("family", "the model would guess", "users want", "distance")
        for name, row in rows.items():
            wants = [p.rule + _when(p) for p in world.preferences[name]]
            table.add_row(name, ", ".join(row["prior"]), ", ".join(wants), f"{row['distance']:.2f}")
        out.print(table)


def _when(wish: Preference) -> str:
    limits = [f"if {wish.condition}"] if wish.condition else []
    if wish.group is not None:
        limits.append(f"group {wish.group}")
    if wish.since or wish.until < 1:
        limits.append(f"{wish.since:.0%} to {wish.until:.0%} of the week")
    return f" ({', '.join(limits)})" if limits else ""


@app.command()
def exam(
    seed: Annotated[int, typer.Option(help="Of the test set.")] = 7,
    cases: Annotated[int, typer.Option(help="Cases a role.")] = 300,
    model: Annotated[
        str | None, typer.Option(help="Folder; the bundled model if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Grade the bundled model on every role, on the unseen half of the world."""
    from lab.bundled.exam import Exam
    from langchain_uno.models.loading import load_engine

    with clean_exit():
        engine = load_engine(model)
        test = Exam(engine, seed=seed, cases=cases)
        figures: dict[str, dict[str, float]] = {}
        with Bars(as_json=as_json) as bars:
            bars.start("exam", len(test.sections))
            for section, grade in test.sections.items():
                for figure in grade():
                    figures[f"{section}: {figure.name}"] = {
                        "share": round(figure.share, 4),
                        "n": figure.n,
                    }
                bars.advance("exam")
        if as_json:
            print_json(figures)
            return
        table = Table("figure", "share", "n")
        for name, f in figures.items():
            table.add_row(name, f"{100 * f['share']:.1f} %", str(int(f["n"])))
        out.print(table)


if __name__ == "__main__":
    app()
