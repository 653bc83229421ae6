"""What a report says, and where it lies: ``HOME/reports/<release>/``, never in the release.

A report quotes users. So ``report.json`` names by opaque ids all logs that the refresh drew on:
an erasure deletes every report that a forgotten log is in, and retention takes the words of logs
that are too old, and whole reports that are (:func:`take_out`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_uno.errors import HomeError
from langchain_uno.home import Home, safe_name
from langchain_uno.records import Cluster, Route, VerifierReport
from langchain_uno.releases.traffic import write_atomic

Change = Literal["gained", "replaced", "lost", "kept", "none"]
"""What became of a cluster's module since the parent release."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Funnel(BaseModel):
    """How many logs came through each check."""

    interactions: int
    heard: int
    """With feedback, counted once for each person who gave any."""
    dropped: dict[str, int] = Field(default_factory=dict)
    usable: int
    asking: int | None = None
    """Usable logs whose words or edits ask for something; None: nobody looked."""
    train: int
    held_out: int
    left_out: int
    """Usable, and good for neither side: a held-out person asked what somebody in training did."""
    unlabelled: int = 0
    """Requests without any reaction that verify besides."""
    waiting: int = 0
    without_user: int = 0


class MapPoint(_Part):
    """One log on the map of clusters."""

    x: float
    y: float
    cluster: str
    route: Route = "base"


class RuleTold(_Part):
    """A rule, and who stands behind it."""

    text: str
    people: int
    logs: int
    """Training logs that name it."""
    recurs: bool = False
    """Whether it completes the logs of its cluster that do not name it."""
    named_in: list[str] = Field(default_factory=list)
    """Opaque ids of these logs; none where it recurs among several people: it is nobody's own."""
    by: str = ""
    """Of those who review: who wrote it, or of a refused one, who excluded it."""


class Example(_Part):
    """A held-out request, answered by the base and by the module."""

    log: str
    """Opaque id."""
    request: str
    base: str
    answer: str
    suggestions: list[str] = Field(default_factory=list)
    """What a critic said about the base's answer."""
    outcome: float | None = None
    """1: the module's answer is better, by the rules, the edit or the thumb; 0.5: neither is."""
    score: float | None = None
    """Of the module's answer, from 1 to 10: the judge's, or how near it is to the edit."""
    base_score: float | None = None
    rules: list[str] = Field(default_factory=list)
    edit: str | None = None
    """What the user made of the answer that was given then."""
    rated: str | None = None
    liked: bool | None = None


class ClusterReport(Cluster):
    """What a refresh made of one cluster, and why, beside what the manifest says of it."""

    request: str = ""
    """A typical request, by which people know the cluster."""
    request_log: str | None = None
    """Opaque id of its log."""
    change: Change = "none"
    route_before: Route | None = None
    """In the parent release; None: it has no cluster of this name."""
    train: int
    held_out: int
    unlabelled: int = 0
    by_thumbs: bool = False
    acting: int = 0
    """People in training who edited an answer, or chose another one."""
    low: bool
    """Whether the gap is low, or counts as low: an expert is tried first."""
    told: list[RuleTold] = Field(default_factory=list)
    """What people in training ask for; the rules that recur come first."""
    told_not_shown: int = 0
    rules_added: list[str] = Field(default_factory=list)
    """Among those that recur."""
    rules_removed: list[str] = Field(default_factory=list)
    refused: list[RuleTold] = Field(default_factory=list)
    """Rules that are taught to nobody."""
    refused_not_shown: int = 0
    acts_refused: int = 0
    """Edits and liked answers that are not taught."""
    decided: VerifierReport | None = None
    """Of what answers, or of the last try where the base does."""
    won: int = 0
    tied: int = 0
    lost: int = 0
    examples: list[Example] = Field(default_factory=list)
    base_tokens: float | None = None
    """Written for one answer, on the mean of the held-out requests."""
    module_tokens: float | None = None
    """The same; a critic's path with draft, critique and revision."""
    module_bytes: int | None = None
    pairs: int = 0
    seconds: float = 0.0


class Report(_Part):
    """What one refresh changed, why, and on what evidence."""

    schema_version: Literal[1] = 1
    release: str
    parent: str | None = None
    created: datetime
    promoted: bool
    """Whether the release answered as soon as it was published."""
    base_model: str
    judge: str
    """The model that judged; empty: the base model itself."""
    recipe: dict[str, Any]
    """As the manifest has it."""
    verdict: str
    """In one sentence."""
    changes: list[str] = Field(default_factory=list)
    """What changed against the parent, in sentences."""
    people: int
    funnel: Funnel
    points: list[MapPoint] = Field(default_factory=list)
    explained: float | None = None
    """Share of the requests' variance that the map shows."""
    routes: dict[str, int] = Field(default_factory=dict)
    """All clusters by route."""
    clusters: list[ClusterReport] = Field(default_factory=list)
    """What changed first, then those with a module, then by size; at most a hundred."""
    not_shown: int = 0
    """Clusters that are not among these."""
    coverage: float | None = None
    scorers: dict[str, dict[str, tuple[int, int]]] = Field(default_factory=dict)
    """Right answers of six and six control questions, by scorer and language."""
    adapter_bytes: int = 0
    seconds: dict[str, float] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    logs: list[str] = Field(default_factory=list)
    """Opaque ids of all logs that the refresh drew on, sorted."""

    def without(self, gone: Collection[str]) -> Report:
        """Return the report without the words of these logs (opaque ids)."""
        taken = set(gone)

        def left(rules: list[RuleTold]) -> list[RuleTold]:
            return [rule for rule in rules if not taken & set(rule.named_in)]

        clusters = [
            c.model_copy(
                update={
                    "examples": [e for e in c.examples if e.log not in taken],
                    "told": left(c.told),
                    "refused": left(c.refused),
                    **({"request": "", "request_log": None} if c.request_log in taken else {}),
                }
            )
            for c in self.clusters
        ]
        return self.model_copy(update={"clusters": clusters})


class ReportPaths(NamedTuple):
    """The files of one report."""

    json: Path
    html: Path
    markdown: Path


def report_paths(home: Home, release_id: str) -> ReportPaths:
    """Return where the report of a release lies, if there is one.

    Raises:
        NameError_: the id is not a safe name.
    """
    folder = home.reports / safe_name(release_id, "release")
    return ReportPaths(folder / "report.json", folder / "report.html", folder / "report.md")


def write_report(home: Home, report: Report) -> ReportPaths:
    """Write a report and its two pages, each file atomically.

    The data come last: where they say less than before, the pages do too.

    Raises:
        HomeError: the home can't be written.
    """
    from langchain_uno.reports.render import render_html, render_markdown

    paths = report_paths(home, report.release)
    html, markdown = render_html(report), render_markdown(report)
    for path, text in (
        (paths.markdown, markdown),
        (paths.html, html),
        (paths.json, report.model_dump_json() + "\n"),
    ):
        write_atomic(path, text.encode("utf-8", "replace"))
    return paths


def read_report(home: Home, release_id: str) -> Report | None:
    """Return the report of a release; None: there is none.

    Raises:
        NameError_: the id is not a safe name.
        HomeError: it can't be read, or is of a newer version.
    """
    path = report_paths(home, release_id).json
    try:
        return Report.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise HomeError(
            f"{str(path)!r} can't be read: it is damaged, or a newer version wrote it. Delete its "
            "folder; the release does not need it."
        ) from error


def find_report(home: Home, release_id: str, say: Callable[[str], Any] = str) -> Report | None:
    """Return what :func:`read_report` does; None where it can't, and ``say`` is told why."""
    try:
        return read_report(home, release_id)
    except (HomeError, ValueError) as error:
        say(str(error))
        return None


def take_out(
    home: Home, opaque: Collection[str], *, whole: bool, before: datetime | None = None
) -> None:
    """Remove what the reports of a home hold of logs. May be repeated.

    A report that can't be read can't tell what it holds, and goes.

    Args:
        home: the namespace.
        opaque: the logs' opaque ids.
        whole: delete every report that one of them is in; else only what it quotes of them.
        before: delete older reports; None: however old.

    Raises:
        OSError, HomeError: the home can't be written.
    """
    gone = set(opaque)
    found = sorted(home.reports.iterdir()) if home.reports.is_dir() else []
    for folder in (one for one in found if one.is_dir() and not one.is_symlink()):
        report = find_report(home, folder.name)
        if (
            report is None
            or (whole and gone & set(report.logs))
            or (before is not None and report.created < before)
        ):
            shutil.rmtree(folder)
            continue
        for left in folder.glob(".*"):  # by a write that was killed
            left.unlink()
        if (less := report.without(gone)) != report:
            write_report(home, less)
