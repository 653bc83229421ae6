"""A refresh under way: its parts, its folder, its clock, and what it reports.

Every stage is a function ``stage(work)``. It reads what the stages before it wrote into the work
folder, writes its own artefact, and returns its counts, which :meth:`Work.once` writes last. A file
appears whole or not at all, so the presence of the counts means that the stage is done: a refresh
that was killed is finished by calling it again. No pickle: JSON lines for records, ``.npy`` for
arrays.
"""

from __future__ import annotations

import gc
import io
import json
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from langchain_uno.errors import PausedError, StoreBusyError, StoreError
from langchain_uno.home import Home, locked
from langchain_uno.logs.heard import Heard
from langchain_uno.models.protocols import Embedder, Engine, FloatArray, OnDone, Reranker
from langchain_uno.models.roles import PromptSet
from langchain_uno.recipe import Recipe
from langchain_uno.records import (
    STAGES,
    Interaction,
    PreferencePair,
    Route,
    RuleSet,
    digest_of,
    run_of,
    voices_of,
)
from langchain_uno.releases.history import read_lines
from langchain_uno.releases.traffic import write_atomic

FORMAT = 29
"""Raised when the files of a work folder change, so that an old one is not taken up."""

DISTILLED = "distilled.jsonl"
"""In ``work/``: what was distilled of each log, once for all refreshes."""

RESULT = "result.json"
"""In a refresh's folder: written when it is over."""
UNTIL = "until.json"
"""Likewise: the stage after which it was told to stop, until it goes on."""

CALL = "options.json"
"""Likewise: the options of the command that goes on with it. The home is not among them: it may be
moved or copied."""

Record = TypeVar("Record", bound=BaseModel)
_REFRESH = re.compile(r"refresh-[0-9a-f]{16}\Z")


class RefreshProgress(Protocol):
    """Is told of the progress of a refresh; ``langchain_uno.cli.progress`` shows it."""

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
    """One cluster as the stages so far have left it; ids in the order of the logs."""

    id: str
    run_ids: list[str]
    train: list[str]
    verify: list[str]
    unlabelled: list[str] = Field(default_factory=list)
    """Requests near the cluster that nobody reacted to, of nobody who is in training."""
    parent: str | None = None
    """The cluster of the current release whose module answers its requests."""
    people: int = 0
    """Voices in training that asked for anything; where thumbs teach, that gave one."""
    acting: int = 0
    """Voices in training that edited an answer, or chose another one."""
    thumbs: tuple[int, int] = (0, 0)
    """Voices in training whose thumbs up stand alone, and whose thumbs down do."""
    by_thumbs: bool = False
    """Whether an expert is trained on these thumbs, because too few people said more."""
    rules: list[str] = Field(default_factory=list)
    """The rules that recur, most supported first, and those that people added for it."""
    own: dict[str, str] = Field(default_factory=dict)
    """The rules that people added, and who did."""
    overruled: bool = False
    """Whether the parent's module learnt something that a person has taken out since."""
    restored: bool = False
    """Whether a person took back a decision that the parent's module was made under."""
    gap: float | None = None
    """None: nothing could be compared."""
    n_gap_logs: int = 0
    unmeasured: bool = False
    """No reranker could be believed about any of its logs."""


class ClusterResult(BaseModel):
    """What came of one cluster, for the summary and ``--json``."""

    id: str
    size: int
    train: int
    verify: int
    unlabelled: int = 0
    people: int = 0
    gap: float | None = None
    route: Route = "base"
    pairs: int = 0
    epoch: int | None = None
    win_rate: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    judged: int = 0
    needed: int | None = None
    """About how many more held-out people would decide it, where it is undecided."""
    seconds: float = 0.0
    rules: list[str] = Field(default_factory=list)
    failed: bool = False
    """Whether an error kept it from being decided: the same call again tries it again."""
    note: str = ""


class RefreshResult(BaseModel):
    """What a refresh did."""

    refresh_id: str
    release: str | None = None
    """None: stopped before the release."""
    current: str | None = None
    """The release that answers now; None: the base model does."""
    resumed: list[str] = Field(default_factory=list)
    """Stages whose results an earlier, unfinished call had left."""
    unchanged: bool = False
    """Nothing new since the last refresh: nothing was done."""
    interactions: int = 0
    usable: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    """Logs left out of training, by reason."""
    waiting: int = 0
    """Pieces of feedback whose answer is not in the log (yet)."""
    waits_for: str | None = None
    """One of the names under which feedback waits."""
    without_user: int = 0
    """Logs with feedback that no user is known for."""
    newer: int = 0
    """Logs with feedback that came after this refresh began: the next one learns from it."""
    guarded: bool = True
    """False: so few people that nothing tells a plant from a wish."""
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The counts of every stage that is done."""
    clusters: list[ClusterResult] = Field(default_factory=list)
    report: str | None = None
    """The page that tells all this to people; None: there is none."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """By stage, of the call that finished it."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Logs that a stage failed on, and why, by id. The same call again tries those of "distil"
    again; those of "pairs" are tried by the next refresh that learns something new."""
    notes: list[str] = Field(default_factory=list)
    """What a person should read."""


Spread = Callable[["Work", Sequence[ClusterData]], list[str]]
"""Tries clusters in other processes, as :func:`langchain_uno.learning.train.try_cluster` does.

It returns what to tell of those that failed; the process of the refresh tries them then."""


@dataclass
class Work:
    """The parts of one refresh. ``id`` is known once the filter stage has taken its snapshot."""

    home: Home
    engine: Engine
    embedder: Embedder
    reranker: Reranker
    teacher: Engine
    prompts: PromptSet
    teacher_prompts: PromptSet
    recipe: Recipe
    progress: RefreshProgress
    max_steps: int | None = None
    """Cap on the optimiser steps of every training."""
    promote: bool = True
    """Whether the release answers users at once."""
    spread: Spread | None = None
    """Tries the clusters elsewhere; None: this process tries them, one after the other."""
    stop_at: float | None = None
    """When (``time.monotonic()``) to stop; None: when it is done."""
    call: Sequence[str] | None = None
    """The options of the command that goes on with this refresh; None: there is none."""
    min_free_gb: float | None = None
    """GB that stay free on the home's disk; None: it may fill up."""
    scorers: Any = None
    """How many control questions reranker and judge got right (``learning/controls.py``)."""
    id: str = ""
    logs: Mapping[str, Interaction] = field(default_factory=dict)
    """The usable logs by id, each with the feedback of one person; set by the filter stage. A log
    is read when it is asked for."""
    heard: dict[str, Heard] = field(default_factory=dict)
    """What is known of each of them."""
    unheard: dict[str, Interaction] = field(default_factory=dict)
    """Requests that nobody reacted to, by run id, the latest last; set by the filter stage."""
    newer: int = 0
    """Logs with feedback that came after this refresh began; set by the filter stage."""
    resumed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def folder(self) -> WorkFolder:
        """The folder of this refresh (``id`` must be set)."""
        assert self.id, "the work folder is known only after the snapshot"
        return WorkFolder(self.home.work / self.id)

    @cached_property
    def fit(self) -> str:
        """A digest of recipe and models: what one refresh settled holds for another of the same."""
        return digest_of(
            FORMAT,
            self.recipe.model_dump_json(),
            self.max_steps,
            self.engine.fingerprint,
            self.embedder.fingerprint,
            self.teacher.fingerprint,
            self.prompts.fingerprint,
            self.teacher_prompts.fingerprint,
            getattr(self.reranker, "fingerprint", type(self.reranker).__name__),
        )

    def once(self, stage: str, make: Callable[[Work], dict[str, Any]]) -> None:
        """Run ``make`` unless ``<stage>.json`` is there; it returns the counts written there.

        A count called ``note`` is what the progress says when the stage ends.
        """
        name = f"{stage}.json"
        if self.folder.has(name):
            self.resumed.append(stage)
            self.seconds[stage] = self.folder.read_json(name).get("seconds", 0.0)
            self.progress.finish(stage, "done before")
            return
        self.check_limits()
        start = time.perf_counter()
        counts = make(self)
        self.seconds[stage] = round(time.perf_counter() - start, 3)
        self.folder.write_json(name, {**counts, "seconds": self.seconds[stage]})
        self.progress.finish(stage, str(counts.get("note", "")))

    def check_limits(self) -> None:
        """Stop here if the time is over or the disk too full; called between two units of work.

        Raises:
            PausedError: says which limit it was.
        """
        why = None
        if self.stop_at is not None and time.monotonic() >= self.stop_at:
            why = "the time given is over (--max-minutes)"
        elif self.min_free_gb is not None:
            free = shutil.disk_usage(self.home.path).free / 1e9
            if free < self.min_free_gb:
                why = f"{free:.2f} GB are free, and --min-free-gb is {self.min_free_gb:g}"
        if why:
            raise PausedError(
                f"Stopped: {why}. What is finished is kept: call it again and it goes on."
            )

    @cached_property
    def _places(self) -> dict[str, str]:
        ids = [one.id for one in self.clusters()]
        return {one: f"cluster {n} of {len(ids)}" for n, one in enumerate(ids, 1)}

    def trying(self, cluster: ClusterData, what: str, total: int | None = None) -> None:
        """Show which cluster is tried, of how many, and what is done, ``total`` steps long."""
        self.progress.start("train", total, f"{self._places[cluster.id]}: {what}")

    def counts(self, stage: str) -> dict[str, Any]:
        """Return what a finished stage counted."""
        return dict(self.folder.read_json(f"{stage}.json"))

    def counter(self, stage: str, *, kept: bool = False) -> OnDone:
        """Return a callback that moves the stage's bar on.

        Args:
            stage: its name.
            kept: whether every item is kept as it comes, so that limits may stop it in between.
        """

        def on_done(n: int) -> None:
            self.progress.advance(stage, n)
            if kept:
                self.check_limits()

        return on_done

    def supports(self, language: str) -> bool:
        """Whether logs in ``language`` can be learnt from: by the teacher and by the base model."""
        return self.teacher_prompts.supports(language) and self.prompts.supports(language)

    # What earlier stages left; read once, since every later stage needs it.

    @cached_property
    def queries(self) -> FloatArray:
        """The logs' query embeddings, shape (n, d), in the order of :attr:`logs`."""
        return self.folder.read_array("queries.npy")

    @cached_property
    def distilled(self) -> dict[str, RuleSet]:
        """The distilled rules of every log, by id."""
        return {r.run_id: r for r in self.folder.read_records("distilled.jsonl", RuleSet)}

    @cached_property
    def taught(self) -> dict[str, RuleSet]:
        """:attr:`distilled` without what is taught to nobody, training logs completed; by id."""
        return {r.run_id: r for r in self.folder.read_records("taught.jsonl", RuleSet)}

    @cached_property
    def voices(self) -> dict[str, str]:
        """Whose vote each log is, by id; in the mode "logs" every log is a voice of its own."""
        voices = self.recipe.rules.voices
        if voices == "logs":
            return {log_id: log_id for log_id in self.logs}
        return voices_of(list(self.logs.values()), threads=voices == "threads")

    @cached_property
    def rows(self) -> dict[str, int]:
        """Each log's row in :attr:`queries`, by id."""
        return {log_id: row for row, log_id in enumerate(self.logs)}

    def typical(self, cluster: ClusterData) -> str:
        """Return the training log whose request is nearest to the cluster's middle."""
        among = cluster.train or cluster.run_ids
        middle = self.queries[[self.rows[i] for i in cluster.run_ids]].mean(axis=0)
        own = self.queries[[self.rows[i] for i in among]]
        return among[int(((own - middle) ** 2).sum(axis=1).argmin())]

    def clusters(self) -> list[ClusterData]:
        """The clusters as the latest finished stage left them."""
        for stage in ("gap", "rules", "cluster"):
            if self.folder.has(f"{stage}.json"):
                return self.folder.read_records(f"clusters-{stage}.jsonl", ClusterData)
        raise AssertionError("no stage has written clusters yet")

    def pairs(self, cluster: ClusterData) -> list[PreferencePair]:
        """A cluster's preference pairs; none when it trains no expert."""
        name = f"clusters/{cluster.id}/pairs.jsonl"
        return self.folder.read_records(name, PreferencePair) if self.folder.has(name) else []

    def is_low(self, cluster: ClusterData) -> bool:
        """Whether the cluster's gap is low enough for an expert (paper, stage 5).

        Where more people acted than spoke their wishes show in answers, which a critic can't be
        taught. Thumbs say nothing that a critic could be taught either.
        """
        if cluster.unmeasured:
            return True  # the cheaper module is tried first
        gap = self.recipe.gap.unknown if cluster.gap is None else cluster.gap
        acted = cluster.by_thumbs or cluster.acting > cluster.people
        return acted or gap < self.recipe.gap.threshold


class WorkFolder:
    """Reads and writes the results of one refresh; names may contain ``/``.

    Raises (all methods that write):
        HomeError: the folder can't be written (full, or read-only).
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Return where ``name`` lies."""
        return self.root / name

    def has(self, name: str) -> bool:
        """Whether the step that writes ``name`` is finished."""
        return self.path(name).exists()

    def write_records(self, name: str, records: Iterable[BaseModel]) -> None:
        """Write records as JSON lines."""
        lines = [record.model_dump_json() + "\n" for record in records]
        write_atomic(self.path(name), "".join(lines).encode("utf-8", "surrogatepass"))

    def read_records(self, name: str, kind: type[Record]) -> list[Record]:
        """Read what :meth:`write_records` wrote.

        Raises:
            StoreError: the file is damaged.
        """
        with _damage_told(self.path(name)), self.path(name).open("rb") as file:
            return [kind.model_validate_json(line) for line in file if line.strip()]

    def write_json(self, name: str, data: Any) -> None:
        """Write one JSON value."""
        # With an indent it takes several times as long.
        text = json.dumps(data, ensure_ascii=False, sort_keys=True)
        write_atomic(self.path(name), text.encode("utf-8", "surrogatepass"))

    def read_json(self, name: str) -> Any:
        """Read what :meth:`write_json` wrote.

        Raises:
            StoreError: the file is damaged.
        """
        with _damage_told(self.path(name)):
            return json.loads(self.path(name).read_bytes())

    def result(self) -> RefreshResult | None:
        """Return what its refresh told when it was over (see :meth:`read_json`); else None."""
        return RefreshResult.model_validate(self.read_json(RESULT)) if self.has(RESULT) else None

    def write_array(self, name: str, array: FloatArray) -> None:
        """Write one numeric array."""
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        write_atomic(self.path(name), file.getvalue())

    def read_array(self, name: str) -> FloatArray:
        """Read what :meth:`write_array` wrote.

        Raises:
            StoreError: the file is damaged.
        """
        with _damage_told(self.path(name)):
            array: FloatArray = np.load(self.path(name), allow_pickle=False)
            return array

    def fresh_folder(self, name: str) -> Path:
        """Return an empty folder for a step that writes many files (an adapter's training)."""
        folder = self.path(name)
        self.remove(name)
        folder.mkdir(parents=True)
        return folder

    def remove(self, name: str) -> None:
        """Remove a file or folder if it is there."""
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one error that says what to do."""
    try:
        yield
    except (ValueError, ValidationError, EOFError, OSError) as error:
        raise StoreError(
            f"{str(path)!r} is damaged: delete the folder {str(path.parent)!r} and call the "
            "refresh again."
        ) from error


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage.

    It walks through all that is loaded whenever many objects are made, and would find none.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def refresh_folders(work: Path) -> list[WorkFolder]:
    """Return the folders of the refreshes that lie in ``work``, by name."""
    found = sorted(p for p in work.iterdir() if _REFRESH.match(p.name)) if work.is_dir() else []
    return [WorkFolder(path) for path in found]


def stopped_at(folder: WorkFolder) -> str | None:
    """Return the stage that a refresh has still to finish; None: it is over, or never began."""
    if folder.has(RESULT) or not folder.has("snapshot.json"):
        return None
    return next((stage for stage in STAGES if not folder.has(f"{stage}.json")), STAGES[-1])


def refresh_line(home: Home) -> str | None:
    """Say that a refresh is running, or was stopped and can go on; None: neither. It is cheap."""
    with suppress(OSError):  # it ends meanwhile
        begun = {f.path("snapshot.json"): f for f in refresh_folders(home.work) if stopped_at(f)}
        busy = (home.work / "refresh.lock").exists()
        with suppress(StoreBusyError), locked(home, "refresh", 0, "") if busy else nullcontext():
            busy = False
        if begun:
            last = max(begun, key=lambda path: path.parent.stat().st_mtime)
            since = datetime.fromtimestamp(last.stat().st_mtime, timezone.utc)
            stage, call = stopped_at(begun[last]), "the same call"
            if begun[last].has(CALL):
                ns = ["--namespace", home.namespace] * (home.namespace != "default")
                options = ["--home", str(home.root.absolute()), *ns, *begun[last].read_json(CALL)]
                call = f"`{shlex.join(['langchain-uno', 'train', *options])}`"
            if busy:
                return f"a refresh is running (since {since:%Y-%m-%d %H:%M} UTC, stage {stage})"
            if begun[last].has(UNTIL):
                return f"a refresh waits before stage {stage}, as --until said: {call} goes on"
            return f"a refresh was stopped before stage {stage} ended: {call} goes on"
        if busy:
            return "a refresh reads the log, or another command keeps refreshes out for a moment"
    return None


def given_up(work: Work) -> list[str]:
    """Say which stopped refreshes a new one does not go on with."""
    folders = [f for f in refresh_folders(work.home.work) if f.root.name != work.id]
    return [
        f"A refresh that was stopped in stage {stage} had other settings or models. This one "
        "begins anew and deletes its work when it is over; a call with those settings and models "
        "goes on with it."
        for folder in folders
        if (stage := stopped_at(folder))
        and folder.read_json("snapshot.json").get("fit") != work.fit
    ]


def clear_work(work: Path, run_ids: Iterable[str], *, whole: bool) -> None:
    """Remove what refreshes made of these logs, under the refresh's lock.

    What was distilled of other logs stays: it holds nothing of these.

    Args:
        work: the home's ``work`` folder.
        run_ids: of the logs, and of those whose feedback goes.
        whole: remove every refresh under way; else only those that the logs are part of.
    """
    gone = set(run_ids)
    for path in list(work.iterdir()):
        if path.name == DISTILLED:
            _keep_distilled(path, gone)
        elif path.name.endswith(".lock") or path.name.startswith("vectors.sqlite3"):
            continue
        elif path.is_dir() and not path.is_symlink():
            if whole or _reads(WorkFolder(path), gone):
                shutil.rmtree(path)
        else:
            path.unlink()


def _reads(folder: WorkFolder, run_ids: set[str]) -> bool:
    """Whether one of these logs is part of a refresh; also where its folder can't tell."""
    try:
        snapshot = folder.read_json("snapshot.json")
        known = {run_of(log_id) for log_id in (*snapshot["logs"], *snapshot["unheard"])}
    except (StoreError, KeyError, TypeError):
        return True
    return bool(known & run_ids)


def _keep_distilled(path: Path, gone: set[str]) -> None:
    """Write the cache anew without these logs, and without lines that can't be read."""
    kept = []
    for row in read_lines(path):
        with suppress(KeyError, TypeError, AttributeError):
            if run_of(row["rules"]["run_id"]) not in gone:
                kept.append(json.dumps(row).encode() + b"\n")
    write_atomic(path, b"".join(kept))


def sweep_work(work: Path, keep: Sequence[str]) -> None:
    """Remove the folders of other refreshes, finished or given up (under the refresh's lock)."""
    for folder in refresh_folders(work):
        if folder.root.name not in keep:
            shutil.rmtree(folder.root, ignore_errors=True)
