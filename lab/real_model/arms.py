"""Other ways to use a week's feedback: the same logs, learnt by another recipe.

An arm is a refresh of its own home, which holds the week's journal. What stands in one arm alone is
what the study shows the worth of: a method (the authors' recipe, critics, experts that nobody
verified), or ``default`` without one of its mechanisms.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np

from langchain_uno.home import Home
from langchain_uno.learning import cluster, train
from langchain_uno.learning.work import Work, WorkFolder
from langchain_uno.logs.journal import Journal
from langchain_uno.models.protocols import Embedder
from langchain_uno.records import RuleSet, run_of

__all__ = ["ARMS", "NEAREST", "Arm", "home_of", "nearest_rules"]

NEAREST = 3
"""Logs whose rules RAG over feedback takes."""


@dataclass(frozen=True)
class Arm:
    """How one refresh differs from the study's."""

    changes: tuple[str, ...] = ()
    """Settings, as ``--set`` takes them."""
    recipe: str = "default"
    high_gap: bool = False
    """Whether every gap counts as high. A small model's reranker can measure none, and an unknown
    gap lets an expert be tried first."""
    elsewhere: bool = True
    """Whether a module must be no worse than the base at general instructions."""
    foretold: bool = True
    """Whether clusters are split where requests foretell the rules."""

    @contextmanager
    def changed(self) -> Iterator[None]:
        """Let the refreshes inside do as this arm does, where no setting says so."""
        with ExitStack() as stack:
            if self.high_gap:
                stack.enter_context(patch.object(Work, "is_low", lambda *_: False))
            if not self.elsewhere:
                passed = lambda work, cluster, report, adapter: report  # noqa: E731
                stack.enter_context(patch.object(train, "look_outside", passed))
            if not self.foretold:
                kept = lambda q, r, labels, *_: labels  # noqa: E731
                stack.enter_context(patch.object(cluster, "split_foretold", kept))
            yield


_CRITIC = ("critic.min_steps=20",)

ARMS: dict[str, Arm] = {
    "UNO (paper)": Arm(recipe="paper"),
    "experts, not verified": Arm(("verify.level=none", "verify.win_rate=0")),
    "critics": Arm((*_CRITIC, "critic.distil=false"), high_gap=True),
    "experts taught by critics": Arm(_CRITIC, high_gap=True),
    "experts taught by critics, not asked elsewhere": Arm(_CRITIC, high_gap=True, elsewhere=False),
    "without stable clusters": Arm(("cluster.cut=ward",)),
    "without foretold splits": Arm(foretold=False),
    "without an unseen limit": Arm(("cluster.unseen=0",)),
    "without completed rules": Arm(("rules.support=none",)),
    "without people's votes": Arm(("rules.voices=logs", "rules.min_users=1")),
    "without a least score": Arm(("pairs.min_score=0",)),
    "without a level": Arm(("verify.level=none",)),
    "without unlabelled requests": Arm(("verify.unlabelled=0",)),
    "with three candidates": Arm(("pairs.candidates=3",)),
}
"""By the name in the tables."""


def home_of(arm: str, week: Home) -> Home:
    """Return an arm's home, which holds the week's journal."""
    name = "".join(c if c.isalnum() else "-" for c in arm)
    home = Home.locate(week.path.with_name(f"{week.path.name}-arms") / name)
    if not home.path.exists():
        shutil.copytree(week.journal, home.journal)
    return home


def nearest_rules(
    home: Home, refresh_id: str, requests: Sequence[str], embedder: Embedder
) -> list[list[str]]:
    """Return the rules of the :data:`NEAREST` logs of each request, nearest first.

    Args:
        home: where the logs were distilled.
        refresh_id: by which refresh.
        requests: for which rules are looked up.
        embedder: of queries and requests.
    """
    work = WorkFolder(home.work / refresh_id)
    said = [r for r in work.read_records("distilled.jsonl", RuleSet) if r.with_feedback]
    with Journal(home.journal) as journal:
        queries = [log.query for log in journal.interactions([run_of(r.run_id) for r in said])]
    past = embedder.embed(queries)
    near = np.argsort(-(embedder.embed(list(requests)) @ past.T), axis=1, kind="stable")
    return [
        list(dict.fromkeys(r.text for i in row[:NEAREST] for r in said[int(i)].with_feedback))
        for row in near
    ]
