"""Recipes: `paper` is the authors' table, every setting is explained, old ones are refused."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from langchain_uno import recipe as recipe_module
from langchain_uno.cli.command import app
from langchain_uno.cli.recipe import as_toml, settings_of
from langchain_uno.errors import ConfigError
from langchain_uno.home import Home
from langchain_uno.logs.filters import REASONS
from langchain_uno.recipe import RECIPES, Ignorable, Recipe, load_recipe
from langchain_uno.train import effective_recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[2]

# arXiv 2602.06470 and github.com/bebr2/UNO; docs/recipes.md says what was read where.
PAPER: dict[str, Any] = {
    "name": "paper",
    "prompt_set": "real",
    "seed": 42,
    "answer_tokens": 2048,
    "revision_tokens": 8192,
    "role_tokens": 2048,
    "temperature": 1.0,
    "top_p": 0.9,
    "min_kept": 0.0,
    "keep": False,
    "filter.ignore": [],
    "filter.max_perplexity": None,
    "rules.voices": "logs",
    "rules.min_users": 1,
    "rules.support": None,
    "rules.half_life_days": None,
    "cluster.cut": "ward",
    "cluster.threshold": 4.0,
    "cluster.min_size": 1,
    "cluster.unseen": 0.0,
    "gap.threshold": 0.45,
    "gap.over": "list",
    "gap.unknown": 0.0,
    "pairs.candidates": 3,
    "pairs.min_score": 0.0,
    "pairs.retention": True,
    "lora.rank": 64,
    "lora.dropout": 0.05,
    "lora.batch_size": 32,
    "lora.epochs": 8,
    "expert.learning_rate": 5e-4,
    "expert.min_steps": 0,
    "expert.max_length": 12_000,
    "critic.learning_rate": 5e-4,
    "critic.min_steps": 0,
    "critic.max_length": 8_000,
    "critic.distil": False,
    "verify.held_out": 0.2,
    "verify.judgements": 3,
    "verify.win_rate": 0.53,
    "verify.level": None,
    "verify.min_bleu": 0.05,
    "verify.max_queries": 200,
    "verify.unlabelled": 0,
}


def test_paper_is_the_authors_table() -> None:
    assert {key: value for key, value, _ in settings_of(load_recipe("paper"))} == PAPER


def test_fewer_than_45_settings_each_with_a_line() -> None:
    found = list(settings_of(load_recipe("default")))
    assert len(found) < 45
    assert [key for key, _, when in found if len(when) < 10] == []


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_printed_is_a_recipe_file(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["recipe", name], env={"LANGCHAIN_UNO_HOME": ""})
    assert done.exit_code == 0
    for key, _, when in settings_of(load_recipe(name)):
        assert f"\n{key.rpartition('.')[2]} = " in done.stdout
        assert when.split()[0] in done.stdout
    (tmp_path / "mine.toml").write_text(done.stdout)
    assert load_recipe(str(tmp_path / "mine.toml")) == load_recipe(name)


def test_the_page_of_recipes_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make", REPO / "docs" / "make_recipes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.PAGE.read_text(encoding="utf-8")
    assert written == module.render(), "docs/recipes.md is out of date: run `make docs`"


def test_home_and_command_override_in_this_order(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.settings.write_text("[recipe.lora]\nrank = 8\nepochs = 2\n")
    found = effective_recipe(home, "paper", ["lora.rank=4", "cluster.cut=stable"], seed=7)
    assert (found.lora.rank, found.lora.epochs, found.seed) == (4, 2, 7)
    assert found.cluster.cut == "stable"
    done = CliRunner().invoke(app, ["recipe", "paper", "--home", str(tmp_path)])
    assert "rank = 8" in done.stdout


def test_a_prompt_set_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    told = r"no prompt set 'raal': give one of real, bundled"
    done = CliRunner().invoke(app, ["recipe", "--set", "prompt_set=raal"])
    assert done.exit_code == 2 and re.search(told, done.stderr)
    home = Home(tmp_path)
    home.settings.write_text('[recipe]\nprompt_set = "raal"\n')
    with pytest.raises(ConfigError, match=rf"settings.toml', \[recipe\]: There is {told}"):
        effective_recipe(home, "paper")


@pytest.mark.parametrize(
    ("old", "key", "way_out"),
    [
        ({"expert": {"rank": 8}}, "expert.rank", "lora.rank"),
        ({"cluster": {"votes": "users"}}, "cluster.votes", "rules.voices"),
        ({"cluster": {"mode": "paper"}}, "cluster.mode", "cluster.cut"),
        ({"verify": {"decision": "point"}}, "verify.decision", "verify.level"),
        ({"evolve": {"keep": False}}, "evolve.keep", "set keep"),
        ({"revision_min_kept": 1.0}, "revision_min_kept", "min_kept"),
        ({"everything": True}, "everything", "leave it out"),
    ],
)
def test_settings_of_earlier_versions_are_refused_with_the_way_out(
    old: dict[str, Any], key: str, way_out: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_recipe("default", old)
    assert f"{key}: " in str(refused.value)
    assert way_out in str(refused.value).partition(f"{key}: ")[2]
    # In a home's settings: the file is named too, and the command ends with 2.
    home = Home(tmp_path)
    section, _, name = key.rpartition(".")
    table = f"[recipe.{section}]" if section else "[recipe]"
    home.settings.write_text(f"{table}\n{name} = 1\n")
    done = CliRunner().invoke(app, ["recipe", "--home", str(tmp_path)])
    assert done.exit_code == 2
    assert str(home.settings) in done.stderr and f"{key}: " in done.stderr


def test_all_old_settings_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text('name = "old"\n[expert]\nrank = 8\nbf16 = true\nlearning_rate = 1e-3\n')
    with pytest.raises(ConfigError, match=r"expert\.rank: .* expert\.bf16: ") as refused:
        load_recipe(str(file))
    assert "learning_rate" not in str(refused.value)


def test_no_setting_is_both_there_and_gone() -> None:
    gone = tomllib.loads((REPO / "langchain_uno" / "recipes" / "gone.toml").read_text())
    assert (
        gone["settings"].keys() & {key for key, _, _ in settings_of(load_recipe("default"))}
        == set()
    )
    assert gone["recipes"].keys() & set(RECIPES) == set()


def test_a_recipe_of_another_name() -> None:
    with pytest.raises(ConfigError, match="'embedded': the bundled model's recipe"):
        load_recipe("embedded")
    with pytest.raises(ConfigError, match="no recipe 'gone'"):
        load_recipe("gone")
    told = r"'lora.rnak' \(did you mean 'lora.rank'\?\); `langchain-uno recipe` prints all"
    with pytest.raises(ConfigError, match=told):
        load_recipe("default", {"lora": {"rnak": 8}})


def test_a_recipe_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x" * 300, str(tmp_path)):
        assert CliRunner().invoke(app, ["recipe", name]).exit_code == 2

    def refuse(path: Path) -> bytes:
        if path.name == "gone.toml":
            return b"[recipes]"
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match="Permission denied"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_a_file_may_begin_as_some_editors_write_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\n', encoding="utf-8-sig")
    assert load_recipe(str(tmp_path / "mine.toml")).name == "mine"


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    odd = Recipe(name='quotes " and ümlauts\n[lora]')
    (tmp_path / "odd.toml").write_text(as_toml(odd), encoding="utf-8")
    assert load_recipe(str(tmp_path / "odd.toml")) == odd


NO_VALUES: dict[str, tuple[Any, ...]] = {
    "seed": (-1,),
    "answer_tokens": (0,),
    "revision_tokens": (0,),
    "role_tokens": (0,),
    "temperature": (-0.1, math.inf),
    "top_p": (0, 1.1),
    "min_kept": (-0.1, 1.1),
    "filter.ignore": (["too_shrot"], ["nothing_asked"], "duplicate"),
    "filter.max_perplexity": (0, math.nan),
    "rules.min_users": (0,),
    "rules.support": (-0.1, 1.1, math.nan),
    "rules.half_life_days": (0, -1),
    "cluster.threshold": (-1, math.nan),
    "cluster.min_size": (0,),
    "cluster.unseen": (-0.1, 1),
    "gap.threshold": (math.nan,),
    "gap.unknown": (-0.1, 1.1),
    "pairs.candidates": (-1, 0),
    "pairs.min_score": (-1, 11),
    "lora.rank": (0, -1),
    "lora.dropout": (-0.1, 1),
    "lora.batch_size": (0,),
    "lora.epochs": (0,),
    "expert.learning_rate": (0, -1, math.inf),
    "expert.min_steps": (-1,),
    "expert.max_length": (0,),
    "critic.learning_rate": (0, -1, math.inf),
    "critic.min_steps": (-1,),
    "critic.max_length": (0,),
    "verify.held_out": (0, 1, -0.5, math.nan),
    "verify.judgements": (0,),
    "verify.win_rate": (-0.1, 1.1, math.nan),
    "verify.level": (0, 1, math.nan),
    "verify.min_bleu": (-0.1, 1.1),
    "verify.max_queries": (0,),
    "verify.unlabelled": (-1,),
}
"""Numbers and reasons that no setting can have, by setting."""


def test_a_value_that_can_mean_nothing_is_refused_before_anything_is_done() -> None:
    for key, values in NO_VALUES.items():
        head, _, name = key.rpartition(".")
        for value in values:
            with pytest.raises(ConfigError, match=re.escape(key)):
                load_recipe("default", {head: {name: value}} if head else {name: value})


def test_every_number_has_its_bounds() -> None:
    numbers = {
        key
        for key, value, _ in settings_of(load_recipe("default", {"rules": {"half_life_days": 1}}))
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    assert numbers <= NO_VALUES.keys()


def test_reasons_to_ignore_are_those_of_the_filters() -> None:
    found = set(get_args(Ignorable))
    by_model = {"nothing_asked", "refused_by_template"}  # nothing can be learnt from such a log
    assert found == set(REASONS) - by_model - {"ok"}


def test_the_examples_of_the_docstring_load() -> None:
    calls = re.findall(r"^    recipe = (load_recipe\(.*\))", recipe_module.__doc__ or "", re.M)
    loaded = [eval(call, {"load_recipe": load_recipe}) for call in calls]
    assert [(one.name, one.lora.rank) for one in loaded] == [("default", 64), ("paper", 16)]
