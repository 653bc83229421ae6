"""A home with logs, a tiny *real* engine to train, and a teacher that speaks the toy language."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_uno.graphs.refresh import run_refresh
from langchain_uno.graphs.refresh_context import RefreshResult
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.models.loading import load_embedder, load_engine
from langchain_uno.models.protocols import Engine
from langchain_uno.recipe import (
    ClusterSettings,
    LoraSettings,
    PairSettings,
    Recipe,
    VerifySettings,
)
from langchain_uno.records import Interaction
from tests.unit_tests.learning.toy_language import ToyEngine, ToyPrompts, ToyReranker, log

LORA = LoraSettings(
    rank=4,
    alpha=8,
    dropout=0.0,
    learning_rate=1e-3,
    epochs=2,
    batch_size=4,
    accumulation=1,
    max_length=1024,
    gradient_checkpointing=False,
    bf16=False,
)
RECIPE = Recipe(
    name="toy",
    prompt_set="toy",
    max_rule_tokens=16,
    max_judge_tokens=16,
    max_critique_tokens=16,
    cluster=ClusterSettings(min_size=4),
    pairs=PairSettings(candidates_from_feedback=1, candidates_from_rules=1, max_answer_tokens=24),
    expert=LORA,
    critic=LORA,
    verify=VerifySettings(held_out=0.25, judgements=1),
)


def logs(n: int = 24) -> list[Interaction]:
    """Two families of requests; each wants a rule of its own; every sixth log is noise."""
    out = []
    for i in range(n):
        travel = i % 2 == 0
        query = (
            f"plan a trip to place {i} by train and boat with hotels"
            if travel
            else f"FIX BUG {i}: STACK TRACE, NULL POINTER, CRASH!"
        )
        words = "thanks" if i % 6 == 5 else f"please {'sing' if travel else 'dance'}"
        answer = f"answer {i}"
        out.append(log(f"run-{i:03d}", query, answer, words, user_id=f"user-{i % 8}"))
    return out


def make_home(root: Path, interactions: Sequence[Interaction], namespace: str = "default") -> Home:
    home = Home(root, namespace).ensure()
    journal = Journal(home.journal)
    for one in interactions:
        journal.append_interaction(one.model_copy(update={"feedback": []}))
        for feedback in one.feedback:
            journal.append_feedback(feedback)
    journal.close()
    return home


def refresh(home: Home, engine: Engine, recipe: Recipe = RECIPE, **more: Any) -> RefreshResult:
    more = {"teacher": ToyEngine(), "reranker": ToyReranker(), "max_steps": 2, **more}
    return run_refresh(
        home, engine, load_embedder(None, engine), prompts=ToyPrompts(), recipe=recipe, **more
    )


def tiny_engine(path: Path) -> Engine:
    return load_engine(str(path), device="cpu")
