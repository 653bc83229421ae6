"""A recipe: every setting of a refresh, in one typed file.

    recipe = load_recipe("default")                       # ours, for real models
    recipe = load_recipe("paper", {"lora": {"rank": 16}})  # the authors' settings, one changed

``recipes/default.toml`` is what a refresh of a real model takes, ``recipes/paper.toml`` holds the
authors' settings exactly, ``recipes/bundled.toml`` those of the bundled toy model. A home's
``settings.toml`` and the command line override single values. Unknown keys are refused; for those
of earlier versions ``recipes/gone.toml`` says what to do instead. A field's docstring says when a
user changes it.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from langchain_uno.errors import ConfigError, bad_value, nearest
from langchain_uno.home import read_toml

RECIPES = ("default", "paper", "bundled")
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
Above = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Ignorable = Literal[
    "error_answer", "empty_answer", "unsupported_language", "too_short", "too_long",
    "machine_turn", "no_feedback", "duplicate", "high_perplexity",
]  # fmt: skip
"""The reasons of ``logs/filters.py`` that a recipe may ignore."""


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _none(cls, data: Any) -> Any:
        """Read ``"none"`` as None, which TOML cannot write."""
        if not isinstance(data, dict):
            return data
        return {key: None if value == "none" else value for key, value in data.items()}


class FilterSettings(_Section):
    """Which logs may be learnt from at all."""

    ignore: list[Ignorable] = Field(default_factory=list)
    """Reasons for which no log is left out. Change it to learn from such logs: ``["duplicate"]``,
    say."""
    max_perplexity: Above | None = None
    """Set it to leave out answers that surprise the base model more than this perplexity."""


class RuleSettings(_Section):
    """What is taught of what users asked for."""

    voices: Literal["people", "threads", "logs"] = "people"
    """Whose votes count. "people": every person has one vote; beside named people all others
    together have one. "threads": every thread without a user has one too. "logs": every log has one
    (paper)."""
    min_users: Count = 3
    """Raise it where many accounts may belong to one person. A wish that recurs needs so many
    people; lone thumbs need so many up and so many down."""
    support: Share | None = 0.25
    """Lower it where users seldom say all they want. A wish that this share of a cluster's voices
    names is added to the logs that name others. None: a log teaches its own rules alone."""
    half_life_days: Above | None = None
    """Set it where wishes change with time: a log so many days old counts half."""


class ClusterSettings(_Section):
    """Stage 4: logs that ask alike."""

    cut: Literal["stable", "ward"] = "stable"
    """"ward" cuts the tree at ``threshold`` (paper); "stable" where halves of the data agree."""
    threshold: float = Field(default=4.0, ge=0)
    """The Ward distance of the cut "ward"."""
    min_size: Count | None = None
    """The fewest logs of a cluster. Raise it to get fewer modules. None: it grows slowly with the
    number of logs."""
    unseen: float = Field(default=0.995, ge=0, lt=1)
    """The share of requests on other topics that must go to the base. Lower it to let clusters
    answer more requests in other words, and more on other topics. 0: every request goes to the
    nearest cluster."""


class GapSettings(_Section):
    """Stage 5: the cognitive gap."""

    threshold: float = 0.45
    """The gap from which on it is high. Raise it to train experts for more clusters, lower it to
    train critics for more."""
    over: Literal["list", "pairs"] = "list"
    """Take "pairs" with a reranker that compares two rules better than a rule and a list."""
    unknown: Share = 1.0
    """The gap of a cluster in which nothing was guessed. 1 is high; the authors take 0."""


class PairSettings(_Section):
    """Stages 2 and 3: revised answers and preference pairs."""

    candidates: Count = 3
    """Revisions written of each of the two kinds. Raise it for better pairs at a higher price."""
    min_score: float = Field(default=6.0, ge=0, le=10)
    """The lowest score, from 1 to 10, of a revision that is imitated. Raise it with a lenient
    judge. 0: the best is imitated whatever its score."""
    retention: bool = False
    """Whether a log without rules is paired with itself, which holds the expert to the answers that
    it has (paper). Lone thumbs teach nothing then."""


class LoraSettings(_Section):
    """What experts and critics share. Alpha is twice the rank, as the authors have it."""

    rank: Count = 64
    """Lower it for smaller adapters: 14 on all linear layers of Qwen3-8B is 0.5 % of the model."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Lower it for models of a few million parameters."""
    batch_size: Count = 32
    """Examples an optimiser step; lower it where clusters have few."""
    epochs: Count = 8
    """Lower it to train faster. The verifier chooses an expert's epoch, the loss a critic's."""


class ExpertSettings(_Section):
    """Stage 6: DPO and SFT."""

    learning_rate: Above = 5e-4
    """Tune it for a new model family first."""
    min_steps: Whole = 0
    """Raise it for small clusters: epochs are added until so many steps are reached."""
    max_length: Count = 12_000
    """The longest pair or rated answer with its prompt, in tokens; longer ones are left out. Lower
    it to the memory at hand."""


class CriticSettings(ExpertSettings):
    """Stage 8: SFT."""

    max_length: Count = 8000
    """The longest example, in tokens; longer ones are left out. Lower it to the memory at hand."""
    distil: bool = True
    """Whether a critic that won for its own requests teaches an expert, which answers in its place
    if it is no worse, in one generation instead of three. False (paper) saves that training."""


class VerifySettings(_Section):
    """Stage 7: what may ship."""

    held_out: Part = 0.2
    """The share of a cluster's logs that is held out. Raise it in small homes, where verification
    lacks people."""
    judgements: Count = 3
    """Judgements of an answer, averaged; the first is greedy. Lower it with a steady judge, to save
    its calls."""
    win_rate: Share = 0.53
    """The lowest win rate against the base, ties counting half, with which a module ships."""
    level: Part | None = 0.05
    """The chance that a refresh in which no module helps releases one, and the share of released
    modules that may be no better than the base (docs/guides/evaluation.md). None: ``win_rate``
    alone decides (paper)."""
    min_bleu: Share = 0.0
    """Above 0, an answer with no more BLEU-4 against the base's, or below a tenth of its length,
    never wins. The authors take 0.05. It forbids "shorter"."""
    max_queries: Count = 200
    """The most held-out requests of a cluster. Lower it to save calls of the judge."""
    unlabelled: Whole = 2000
    """How many of the latest requests that nobody reacted to may be asked again; 0: none."""


class Recipe(_Section):
    """All settings of a refresh."""

    name: str
    """Give a recipe of your own one: every release stores it."""
    prompt_set: str = "real"
    """``"real"`` for instruction-tuned models, ``"bundled"`` for the bundled one."""
    seed: Whole = 0
    """Change it to draw splits, samples and initial weights anew."""
    answer_tokens: Count = 2048
    """The most tokens of an answer. Raise it for long answers: one cut at the limit is never
    imitated."""
    revision_tokens: Count = 8192
    """The most tokens of a revision. Raise it for models that think before they revise."""
    role_tokens: Count = 512
    """The most tokens of rules, a judgement or a critique. Raise it where they are cut: a cut one
    is not used."""
    temperature: float = Field(default=1.0, ge=0)
    """Of revision candidates, and of judgements after the first. Lower it for small models."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Of the same as ``temperature``. Lower it for small models."""
    min_kept: Share = 0.0
    """Raise it where answers must repeat what the request says (numbers, names). A new answer then
    keeps at least this share of the words that the old one quotes from the request, and experts
    change the base a little less. 0: not checked."""
    keep: bool = True
    """Whether a module that is still good stays. False: every refresh makes all anew (paper)."""
    filter: FilterSettings = Field(default_factory=FilterSettings)
    rules: RuleSettings = Field(default_factory=RuleSettings)
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    gap: GapSettings = Field(default_factory=GapSettings)
    pairs: PairSettings = Field(default_factory=PairSettings)
    lora: LoraSettings = Field(default_factory=LoraSettings)
    expert: ExpertSettings = Field(default_factory=ExpertSettings)
    critic: CriticSettings = Field(default_factory=CriticSettings)
    verify: VerifySettings = Field(default_factory=VerifySettings)


def load_recipe(name_or_path: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Load one of :data:`RECIPES` or a TOML file; ``overrides`` is a nested dict on top.

    Raises:
        ConfigError: no such recipe, or not readable; not TOML; an unknown key or a bad value.
    """
    try:
        known = name_or_path in RECIPES
        text = _shipped(name_or_path) if known else Path(name_or_path).read_bytes()
    except OSError as error:
        gone = read_toml(_shipped("gone"))["recipes"].get(name_or_path)
        raise ConfigError(
            f"There is no recipe {name_or_path!r}: "
            + (f"{gone}; else " if gone else "")
            + f"give {', '.join(map(repr, RECIPES))} or a TOML file's path ({error.strerror})."
        ) from error
    try:
        data = merged(read_toml(text, f"The recipe {name_or_path!r}"), overrides or {})
        _refuse_gone(name_or_path, data)
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"has a bad value at {bad_value(error)}"
        if first["type"] == "extra_forbidden":
            near = nearest(where, _flat(Recipe(name="").model_dump()), cutoff=0.5)
            hint = f" (did you mean {near!r}?)" if near else ""
            problem = f"has an unknown setting {where!r}{hint}; `langchain-uno recipe` prints all"
        raise ConfigError(f"The recipe {name_or_path!r} {problem}.") from error


def _shipped(name: str) -> bytes:
    return (resources.files("langchain_uno") / "recipes" / f"{name}.toml").read_bytes()


def _refuse_gone(name: str, data: dict[str, Any]) -> None:
    """Refuse settings that earlier versions had, each with what to do instead.

    Raises:
        ConfigError: there are some.
    """
    gone, named = read_toml(_shipped("gone"))["settings"], _flat(data)
    told = [f"{key}: {gone[key]}." for key in gone if key in named]
    if told:
        raise ConfigError(
            f"The recipe {name!r} has settings of earlier versions. {' '.join(told)} "
            "`langchain-uno recipe` prints today's settings."
        )


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        inner = isinstance(value, dict)
        out |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return out


def changed_settings(then: dict[str, Any], now: Recipe) -> dict[str, tuple[str, str]]:
    """Return the settings that differ from those of an earlier refresh, as ``--set`` takes them.

    Args:
        then: the earlier recipe, as its release stores it; older ones lack settings.
        now: the recipe at hand.

    Returns:
        The former and the present value by dotted name; a recipe's own name is no setting.
    """
    old, new = _flat(then), _flat(now.model_dump(mode="json"))
    shared = [key for key in new if key in old and key != "name"]
    return {k: (_written(old[k]), _written(new[k])) for k in shared if old[k] != new[k]}


def _written(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings with others on top."""
    out = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out
