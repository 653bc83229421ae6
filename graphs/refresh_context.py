"""What the nodes of a refresh share: its parts, its folder, its clock, and its result."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from pydantic import BaseModel, Field

from langchain_uno.graphs.checkpoints import WorkFolder
from langchain_uno.home import Home
from langchain_uno.learning.cluster import default_min_size
from langchain_uno.learning.split import Split
from langchain_uno.models.protocols import Embedder, Engine, FloatArray, OnDone, Reranker
from langchain_uno.models.roles import PromptSet
from langchain_uno.recipe import Recipe
from langchain_uno.records import Interaction, PreferencePair, Route, RuleSet

__all__ = [
    "STAGES",
    "ClusterData",
    "ClusterResult",
    "RefreshContext",
    "RefreshProgress",
    "RefreshResult",
    "Silent",
    "refresh_id",
]

STAGES = (
    "drain",
    "filter",
    "distil",
    "cluster",
    "aggregate",
    "gap",
    "evolve",
    "pairs",
    "train",
    "release",
)
"""The nodes, in the order that they run."""

_FORMAT = 14
"""Raised when the files of a work folder change, so that an old one is not taken up."""


class RefreshProgress(Protocol):
    """Hears how a refresh comes on; :class:`langchain_uno.cli.progress.Bars` draws it."""

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        """A stage begins; ``total`` items are expected (None: unknown)."""

    def advance(self, stage: str, n: int = 1) -> None:
        """``n`` more items are done."""

    def finish(self, stage: str, note: str = "") -> None:
        """A stage is done; ``note`` says what came of it."""


class Silent:
    """Progress that nobody watches."""

    def start(self, stage: str, total: int | None, note: str = "") -> None:
        """Do nothing."""

    def advance(self, stage: str, n: int = 1) -> None:
        """Do nothing."""

    def finish(self, stage: str, note: str = "") -> None:
        """Do nothing."""


class ClusterData(BaseModel):
    """One cluster as the cluster stage found it; run ids in the order of the logs."""

    id: str
    run_ids: list[str]
    train: list[str]
    verify: list[str]
    left_out: list[str] = Field(default_factory=list)
    unlabelled: list[str] = Field(default_factory=list)
    """Requests near the cluster that nobody reacted to, by nobody who is in training."""
    practice: list[str] = Field(default_factory=list)
    """The same by users who are in training: see ``recipe.pairs.practice``."""
    split_by: str = "user"
    edited: bool = False
    """Whether more of its people edited than said a word: edits are what it is verified on."""
    gap: float | None = None
    n_gap_logs: int = 0
    rules: list[str] = Field(default_factory=list)
    conditions: list[list[str]] = Field(default_factory=list)
    """For each rule the words of which a request must have one; none: always."""
    rivals: list[tuple[str, str]] = Field(default_factory=list)
    """Pairs of these rules that hardly anyone wants together."""
    parent: str | None = None
    """The cluster of the current release (``parent.json``) whose module answers its requests."""

    @classmethod
    def of(cls, cluster_id: str, run_ids: Sequence[str], split: Split) -> ClusterData:
        """Join a cluster's members and their split, checking that nobody is on both sides."""
        train, verify = set(split.train), set(split.verify)
        assert not train & verify, f"cluster {cluster_id}: a log is on both sides of the split"
        assert train | verify | set(split.left_out) == set(run_ids), "a split lost a log"
        return cls(
            id=cluster_id,
            run_ids=list(run_ids),
            train=split.train,
            verify=split.verify,
            left_out=split.left_out,
            split_by=split.by,
        )

    def is_low(self, threshold: float) -> bool:
        """Whether the gap is low enough to train an expert (paper, stage 5).

        Where the wishes show in edits, no gap is known, and no critic could be taught them.
        """
        assert self.gap is not None, "the gap stage has not run"
        return self.gap < threshold or self.edited or not self.rules


class ClusterResult(BaseModel):
    """What came of one cluster, for the summary table and ``--json``."""

    id: str
    size: int
    train: int
    verify: int
    unlabelled: int = 0
    gap: float
    gap_logs: int
    route: Route
    pairs: int = 0
    epoch: int | None = None
    win_rate: float | None = None
    interval: tuple[float, float] | None = None
    judged: int = 0
    seconds: float = 0.0
    rules: list[str] = Field(default_factory=list)
    note: str = ""


class RefreshResult(BaseModel):
    """What a refresh did."""

    refresh_id: str
    release: str | None = None
    resumed: list[str] = Field(default_factory=list)
    """Stages whose results an earlier, unfinished call had left."""
    unchanged: bool = False
    """Nothing new since the last refresh: its release stands, nothing was done."""
    interactions: int = 0
    usable: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    """Logs left out of training, by reason."""
    distilled: dict[str, int] = Field(default_factory=dict)
    """Counts of :class:`langchain_uno.learning.distil.DistilStats`."""
    clusters: list[ClusterResult] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict)
    """By stage, of the call that finished it."""


@dataclass
class RefreshContext:
    """The parts of one refresh. ``work`` and ``id`` are known once the journal is drained."""

    home: Home
    engine: Engine
    embedder: Embedder
    reranker: Reranker
    teacher: Engine
    prompts: PromptSet
    teacher_prompts: PromptSet
    recipe: Recipe
    progress: RefreshProgress
    id: str = ""
    resumed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def work(self) -> WorkFolder:
        """The folder of this refresh (``id`` must be set)."""
        assert self.id, "the work folder is known only after draining"
        return WorkFolder(self.home.work / self.id)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a stage; its seconds are kept once it is done."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)
        if self.id:
            self.work.write_json(f"seconds-{stage}.json", self.seconds[stage])

    def once(self, stage: str, name: str, make: Callable[[], str]) -> None:
        """Run ``make`` unless ``name`` is there already; it writes ``name`` and returns a note."""
        if self.work.has(name):
            self.resumed.append(stage)
            if self.work.has(f"seconds-{stage}.json"):  # written last: a kill may come before it
                self.seconds[stage] = self.work.read_json(f"seconds-{stage}.json")
            self.progress.finish(stage, "done before")
            return
        with self.timed(stage):
            note = make()
        self.progress.finish(stage, note)

    def counter(self, stage: str) -> OnDone:
        """Return a callback that moves the stage's bar on."""
        return lambda n: self.progress.advance(stage, n)

    def supports(self, language: str) -> bool:
        """Whether logs in ``language`` can be learnt from: by the teacher and by the base model."""
        return self.teacher_prompts.supports(language) and self.prompts.supports(language)

    def smallest_cluster(self) -> int:
        """Return how many logs a cluster needs for a module of its own."""
        return self.recipe.cluster.min_size or default_min_size(len(self.logs))

    # What earlier nodes left; read once, since every later node needs it.

    @cached_property
    def logs(self) -> dict[str, Interaction]:
        """The usable logs by run id, in the order of the store."""
        kept = self.work.read_records("logs.jsonl", Interaction)
        return {log.run_id: log for log in kept}

    @cached_property
    def unheard(self) -> dict[str, Interaction]:
        """Requests that nobody reacted to, by run id; usable, first turns only, latest last."""
        return {log.run_id: log for log in self.work.read_records("unheard.jsonl", Interaction)}

    @cached_property
    def queries(self) -> FloatArray:
        """The logs' query embeddings, shape (n, d), in the order of :attr:`logs`."""
        return self.work.read_array("queries.npy")

    @cached_property
    def rules(self) -> dict[str, RuleSet]:
        """The distilled rules of every log, by run id."""
        return {r.run_id: r for r in self.work.read_records("rules.jsonl", RuleSet)}

    @cached_property
    def wishes(self) -> dict[str, RuleSet]:
        """:attr:`rules` without personal wishes, by run id; known once clusters are."""
        return {r.run_id: r for r in self.work.read_records("wishes.jsonl", RuleSet)}

    @cached_property
    def given(self) -> dict[str, list[str]]:
        """Run id -> the rules that the module knew which answered; known once clusters are."""
        found: dict[str, list[str]] = self.work.read_json("given.json")
        return found

    def clusters(self) -> list[ClusterData]:
        """The clusters as the latest finished stage left them."""
        for name in ("gaps.jsonl", "aggregated.jsonl", "clusters.jsonl"):
            if self.work.has(name):
                return self.work.read_records(name, ClusterData)
        raise AssertionError("no stage has written clusters yet")

    def training(self, cluster: ClusterData) -> tuple[list[Interaction], list[RuleSet]]:
        """A cluster's training logs, those practised on last, and their aggregated rule sets.

        An edit shows all that somebody wants, so those of people with personal wishes are left out.
        """
        rules = self.work.read_records(f"clusters/{cluster.id}/rules.jsonl", RuleSet)
        personal = set(self.work.read_json("personal.json"))
        logs = [self.logs.get(r.run_id) or self.unheard[r.run_id] for r in rules]
        return [_unedited(log) if log.run_id in personal else log for log in logs], rules

    def pairs(self, cluster: ClusterData) -> list[PreferencePair]:
        """A cluster's preference pairs; none when it trains no expert."""
        name = f"clusters/{cluster.id}/pairs.jsonl"
        return self.work.read_records(name, PreferencePair) if self.work.has(name) else []

    def is_low(self, cluster: ClusterData) -> bool:
        """Whether an expert is trained for the cluster; see :meth:`ClusterData.is_low`."""
        return cluster.is_low(self.recipe.gap.threshold)


def _unedited(log: Interaction) -> Interaction:
    plain = [one.model_copy(update={"correction": None}) for one in log.feedback]
    return log.model_copy(update={"feedback": plain})


def refresh_id(ctx: RefreshContext, logs: Sequence[Interaction]) -> str:
    """Return the name of the refresh over exactly these logs, this recipe and these models.

    A second call with the same three finds the first one's folder and goes on in it.
    """
    digest = hashlib.sha256()

    def add(*parts: Any) -> None:
        for part in parts:
            digest.update(str(part).encode("utf-8", "surrogatepass") + b"\0")

    add(_FORMAT, ctx.recipe.model_dump_json(), ctx.engine.fingerprint, ctx.embedder.fingerprint)
    add(ctx.teacher.fingerprint, ctx.prompts.fingerprint, ctx.teacher_prompts.fingerprint)
    add(getattr(ctx.reranker, "fingerprint", type(ctx.reranker).__name__))
    for log in sorted(logs, key=lambda one: one.run_id):
        add(log.model_dump_json(exclude={"verdict"}))
    return f"refresh-{digest.hexdigest()[:16]}"
