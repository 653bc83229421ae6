"""``langchain-uno recipe``: every setting of a refresh, with when a user changes it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from langchain_uno.cli.console import (
    HomeOption,
    JsonOption,
    NamespaceOption,
    clean_exit,
    print_json,
)
from langchain_uno.home import Home
from langchain_uno.recipe import Recipe


def recipe(
    name: Annotated[
        str, typer.Argument(help="'default', 'paper', 'bundled' or a TOML file.")
    ] = "default",
    home: HomeOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one value. Repeatable."),
    ] = None,
    namespace: NamespaceOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Print a recipe: every setting, what it is and when to change it.

    With a home, its settings.toml is applied, as `train` does. What is printed is a recipe file:
    save it, change it, and give it to `train --recipe FILE`.

        langchain-uno recipe paper

        langchain-uno recipe default --set lora.rank=14 > mine.toml

    Exit codes: 0 done, 2 no such recipe, or a setting that is not there (the message says what
    replaces one of an earlier version).
    """
    with clean_exit():
        from langchain_uno.train import effective_recipe

        place = None if home is None else Home.locate(home, namespace)
        found = effective_recipe(place, name, set_ or [])
        if as_json:
            print_json(found.model_dump(mode="json"))
        else:
            typer.echo(as_toml(found), nl=False)


def settings_of(recipe: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield every setting: its dotted name, its value, and when a user changes it."""
    for name, field in type(recipe).model_fields.items():
        value = getattr(recipe, name)
        if isinstance(value, BaseModel):
            yield from settings_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value, _plain(field.description)


def as_toml(recipe: Recipe) -> str:
    """Write a recipe as a TOML file that explains itself; ``load_recipe`` reads it back."""
    lines, section = ["# A recipe: langchain-uno train --recipe FILE"], ""
    for name, value, when in settings_of(recipe):
        head, _, key = name.rpartition(".")
        if head != section:
            about = _plain(type(getattr(recipe, head)).__doc__)
            lines += ["", f"[{head}]", *_comment(about)]
            section = head
        lines += ["", *_comment(when), f"{key} = {toml_value(value)}"]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """Write a setting's value as TOML; None, which TOML lacks, is "none"."""
    return json.dumps("none" if value is None else value, ensure_ascii=False)


def _plain(docstring: str | None) -> str:
    return " ".join((docstring or "").split()).replace("``", "`")


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 78, initial_indent="# ", subsequent_indent="# ")
