"""A recipe: every setting of a refresh in one typed, versioned file.

``recipes/paper.toml`` holds the authors' settings and is the default for real models;
``recipes/bundled.toml`` holds those of the bundled model. A home's ``settings.toml`` and the
command line override single values; unknown keys are refused.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_uno.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

__all__ = [
    "ClusterSettings",
    "EvolveSettings",
    "FilterSettings",
    "GapSettings",
    "LoraSettings",
    "PairSettings",
    "Recipe",
    "VerifySettings",
    "load_recipe",
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterSettings(_Section):
    """Which logs may be learnt from at all."""

    min_query_chars: int = 2
    min_answer_chars: int = 1
    max_query_chars: int = 200_000
    max_answer_chars: int = 200_000
    max_feedback_chars: int = 50_000
    """Of all the words of one log's feedback together."""
    max_perplexity: float | None = None
    """Answers more surprising to the base model than this are left out; None: not measured."""
    languages: list[str] = Field(default_factory=lambda: ["en", "zh"])
    ignore: list[str] = Field(default_factory=list)
    """Verdict reasons that shall not keep a log out (``["duplicate"]``, say)."""


class ClusterSettings(_Section):
    """Stage 4. Mode "stable": our default cut; "paper": Ward at a fixed threshold; "one": none."""

    mode: Literal["stable", "paper", "one"] = "stable"
    threshold: float = 4.0
    """The paper's Ward distance threshold (mode "paper" only)."""
    rule_weight: float | Literal["auto"] = "auto"
    """Weight of the rule half against the query half; "auto" chooses it from unlabelled data."""
    merge_alike: bool = True
    """Whether neighbouring clusters whose people want the same, or that no query tells apart, are
    joined (mode "stable" only)."""
    min_size: int | None = None
    """Smallest cluster that gets a module; None grows it slowly with the number of logs."""
    routing: Literal["discriminant", "centroid"] = "discriminant"
    """A query goes to the nearest centroid: in the directions that tell the clusters apart, or
    ("centroid": paper) in the embeddings as they are."""
    unseen_quantile: float = 0.995
    """A query farther from its centroid than this quantile of held-in distances is unseen."""
    aggregate_support: float = 0.25
    """Share of a cluster's logs that must name a rule before it counts as recurring."""
    votes: Literal["logs", "users"] = "users"
    """Whose share that is: with "users" everybody has one vote, however much they write."""
    min_users: int = 3
    """So many people must name a rule before it counts as recurring. Where fewer than twice as
    many people name any rule at all, a home is personal: this, ``own_rules`` and ``personal_from``
    protect nobody there, and are off."""
    own_rules: Literal["all", "supported"] = "supported"
    """Whether a log also teaches rules that only its own user named ("all": paper). "supported"
    does not: what one person plants is then learnt by no module."""
    personal_from: int = 3
    """What somebody asks for in so many clusters (by query alone), and less than
    ``aggregate_support`` of all people ask for at all, is a personal wish and taught to no module.
    0: nothing is (paper)."""


class GapSettings(_Section):
    """Stage 5."""

    threshold: float = 0.45
    max_guessed_rules: int = 5
    over_rules: Literal["min", "mean"] = "min"
    """A log's novelty is the smallest (paper) or the mean over its rules. The smallest says "one
    wish was guessed": it falls with the number of wishes that a user names in one breath."""


class PairSettings(_Section):
    """Stages 2 and 3."""

    candidates_from_feedback: int = 3
    candidates_from_rules: int = 3
    temperature: float = 1.0
    top_p: float = 0.9
    max_answer_tokens: int = 2048
    min_chosen_score: float = 6.0
    """A best candidate below this score is not worth imitating; the log gives no pair."""
    min_kept: float = 0.0
    """A candidate must keep this share of the words that the logged answer quotes from the request
    (:func:`langchain_uno.learning.content.kept_share`). The paper has no such check: 0."""
    liked_weight: float = 1.0
    max_pairs_per_cluster: int | None = None
    practice: int = 0
    """So many of a cluster's latest requests that nobody reacted to, by users it trains on, are
    practised on too, with the rules that recur: pairs for an expert, examples for a critic. 0:
    none (paper)."""


class LoraSettings(_Section):
    """Stages 6 and 8: one expert or critic."""

    rank: int = 64
    alpha: int = 128
    dropout: float = 0.05
    learning_rate: float = 5e-4
    warmup_ratio: float = 0.0
    epochs: int = 8
    min_steps: int = 0
    """Epochs are added until so many optimiser steps are reached (small clusters need them)."""
    max_steps: int | None = None
    batch_size: int = 1
    accumulation: int = 32
    max_length: int = 12_000
    max_grad_norm: float = 1.0
    beta: float = 0.1
    dpo_weight: float = 0.5
    sft_weight: float = 0.5
    gradient_checkpointing: bool = True
    bf16: bool = True


class VerifySettings(_Section):
    """Stage 7."""

    held_out: float = 0.2
    judgements: int = 3
    judge_temperature: float = 0.7
    win_rate: float = 0.53
    min_length_ratio: float = 0.1
    min_bleu: float = 0.05
    max_length_ratio: float = 0.0
    """An answer longer than so many times the base answer has run on, past its end, and counts as
    one that lost content. 0: not looked at (paper)."""
    min_kept: float = 0.0
    """An answer that keeps less of what the base answer quotes from the request has lost content:
    it neither wins nor ties. 0: not looked at (paper)."""
    max_lost: float = 1.0
    """A module fails when more than this share of its answers lost content, however many wins it
    has: rules obeyed do not pay for facts. 1: any share may (paper)."""
    max_overreach: float = 1.0
    """A module fails when more than this share of its answers obey a rule of its cluster that does
    not hold for the request, of those to requests for which one does not. 1: not looked at (paper).
    """
    max_queries: int = 200
    unlabelled: int = 2000
    """So many of the latest requests that nobody reacted to may serve as held-out queries, with
    their cluster's recurring rules as the standard (unless that is "own"). They cost no label, and
    a small cluster has few others. 0: none."""
    standard: Literal["own", "mixed", "completed"] = "mixed"
    """The judge's standard on a held-out log: "own" takes its user's rules and leaves logs without
    any out; "mixed" gives those the rules that recur in training; "completed" adds these to all."""
    confidence: float = 0.95
    decision: Literal["interval", "point"] = "interval"
    """"point" is the paper's rule: the best epoch's win rate reaches ``win_rate``. "interval" asks
    besides that the lower end of its cross-fitted interval lies above 0.5."""
    max_epochs: int | None = None
    """Try at most so many of an expert's epochs, spread over the later half; None tries all."""


class EvolveSettings(_Section):
    """Stage 10: what a refresh takes over from the release that is current."""

    keep: bool = True
    """Keep the module of a cluster whose rules are what they were and that has not grown by more
    than ``max_growth``, if it passes verification again; and never replace a module by one with
    a lower win rate on the same queries. One that these are too few to decide on stays while
    nothing decided can replace it. False: every module is made anew."""
    max_growth: float = 0.5
    """New training logs, as a share of those that the module was trained on."""


class Recipe(_Section):
    """All settings of a refresh. ``name`` and ``version`` are stored in every release."""

    name: str
    version: int = 1
    prompt_set: str = "real"
    max_rule_tokens: int = 512
    max_judge_tokens: int = 512
    max_critique_tokens: int = 512
    critique_temperature: float = 0.1
    revision_min_kept: float = 0.0
    """A revision that keeps less than this share of the words which the draft quotes from the
    request is thrown away, and the draft answers. Above 0, revisions are shown when they are
    whole: their tokens do not stream. 0: every revision stands (paper)."""
    remind: bool = False
    """Whether the revision follows, besides what a critic suggests, the recurring rules that hold
    for the request (:mod:`langchain_uno.learning.remind`). False: the critique alone (paper)."""
    memory: bool = False
    """Whether a cluster without an expert first tries to get by on its recurring rules alone: the
    base drafts and, told the rules that hold for the request, revises. Where that passes
    verification no critic is trained: an answer costs two generations instead of three, and there
    is no adapter. False: a critic (paper)."""
    everything: bool = False
    """Make and verify every kind of module for every cluster, and keep them: for studies of what
    the gap and the verifier are worth. What is released stays the same."""
    seed: int = 0
    filter: FilterSettings = Field(default_factory=FilterSettings)
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    gap: GapSettings = Field(default_factory=GapSettings)
    pairs: PairSettings = Field(default_factory=PairSettings)
    expert: LoraSettings = Field(default_factory=LoraSettings)
    critic: LoraSettings = Field(default_factory=lambda: LoraSettings(max_length=8000))
    verify: VerifySettings = Field(default_factory=VerifySettings)
    evolve: EvolveSettings = Field(default_factory=EvolveSettings)


def load_recipe(name_or_path: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Load ``"paper"``, ``"bundled"`` or a TOML file; ``overrides`` is a nested dict on top.

    Raises:
        ConfigError: no such recipe, not TOML, an unknown key or a value of the wrong type.
    """
    bundled = resources.files("langchain_uno") / "recipes" / f"{name_or_path}.toml"
    source = Path(name_or_path)
    if name_or_path.isidentifier() and bundled.is_file():
        text = bundled.read_text(encoding="utf-8")
    elif source.is_file():
        text = source.read_text(encoding="utf-8")
    else:
        raise ConfigError(
            f"There is no recipe {name_or_path!r}: give 'paper', 'bundled' or a TOML file's path."
        )
    try:
        data = tomllib.loads(text)
        return Recipe.model_validate(_merged(data, overrides or {}))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The recipe {name_or_path!r} is not valid TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"The recipe {name_or_path!r} has a bad value at {where!r}: {first['msg']}."
        ) from error


def _merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = _merged(out[key], value)
        else:
            out[key] = value
    return out
