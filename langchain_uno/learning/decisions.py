"""What people decided about rules, pairs and logs, and how a refresh applies it.

Decisions are lines of ``HOME/review.jsonl``. Lines are only added; an erasure takes some out. The
latest decision on a thing counts. The stages "rules" and "pairs" apply decisions, so a refresh with
new decisions begins again at "rules" (:func:`take_up_decisions`).

A decision on a rule holds for all its wordings: for those that it names, and for those that the
refresh finds to be the same rule. It holds in all clusters, or in those that have the logs of its
cluster today: clusters change their names, logs do not.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, Field, ValidationError

from langchain_uno.errors import StoreError, reason_of
from langchain_uno.home import Home, locked
from langchain_uno.learning.work import RESULT, ClusterData, Work
from langchain_uno.records import STAGES, PreferencePair, Rule, RuleSet, digest_of, run_of, utc_now
from langchain_uno.releases.history import append_lines, read_lines
from langchain_uno.releases.traffic import write_atomic

_FILE = "review.jsonl"
INDEX = "review.json"
"""In a refresh's folder: which decisions its rules were made under, and how long its table is."""
RULE_ROWS = "review-rules.jsonl"
"""In a refresh's folder: a :class:`RuleRow` a line, cluster after cluster."""
SCHEMA = 1
ANCHORS = 50
"""Logs by which a decision finds its cluster again, and by which it knows who said a wording."""
SHARE = 0.25
"""A decision on a rule holds in every cluster that has so much of its anchor's logs."""

FOUND = "pairs-and-refused.jsonl"
"""In a cluster's folder: its :class:`PairsFound`."""

Kind = Literal["rule", "pair", "log"]
KINDS: tuple[Kind, ...] = ("rule", "pair", "log")


class Decision(BaseModel):
    """One line of ``review.jsonl``."""

    schema_version: int = SCHEMA
    id: str = Field(default_factory=lambda: uuid4().hex[:16])
    at: datetime = Field(default_factory=utc_now)
    by: str
    why: str = ""
    what: Literal["exclude", "restore", "edit", "add", "remove"]
    kind: Kind
    row: str
    """The id of the row that it is about."""
    cluster: str = ""
    """What the cluster was called then."""
    text: str | None = None
    """The rule or the answer to teach instead; of "add" and "remove", the person's own rule."""
    wordings: dict[str, list[str]] = Field(default_factory=dict)
    """Of a rule: what people said, and some of the runs in whose feedback they did."""
    drawn: list[str] = Field(default_factory=list)
    """The wordings that were drawn from all of their runs together, and may quote any of them."""
    anchor: list[str] = Field(default_factory=list)
    """Of a rule: some runs of its cluster; none: it holds everywhere."""
    log: str | None = None
    """Of a pair or log: its run."""
    chosen: str | None = None
    """Of a pair: a digest of the better answer as it was found."""

    def repeats(self, other: Decision | None) -> bool:
        """Whether it says what another one does, whoever made them, when and why."""
        made = {"id", "at", "by", "why"}
        return other is not None and self.model_dump(exclude=made) == other.model_dump(exclude=made)


class RuleRow(BaseModel):
    """A rule of a cluster as the stage "rules" found it, before any decision."""

    text: str
    wordings: dict[str, list[str]]
    """What people said, and the runs in whose feedback they did."""
    people: int
    drawn: bool = False
    """Drawn from the answers of all these runs together, whose people gave thumbs."""
    refused: bool = False
    """Taught to nobody: one person repeats it and few share it."""
    decided: list[str] = Field(default_factory=list)
    """Ids of the decisions that were about it."""


class PairsFound(BaseModel):
    """The preference pairs of a cluster's training logs, before any decision of a person."""

    pairs: list[PreferencePair] = Field(default_factory=list)
    refused: list[PreferencePair] = Field(default_factory=list)
    """Edits and likes that are taught to nobody."""
    cut: int = 0
    """Revisions that were cut at the limit."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Logs that a model failed on, and why, by id."""

    @property
    def every(self) -> list[PreferencePair]:
        """All of them."""
        return [*self.pairs, *self.refused]


def read_decisions(home: Home) -> list[Decision]:
    """Return all decisions, oldest first; a line that a crash cut short is left out.

    Raises:
        StoreError: a newer version wrote one: what it excludes must not be taught.
    """
    found = []
    for line in read_lines(home.path / _FILE):
        if line.get("schema_version", SCHEMA) != SCHEMA:
            raise StoreError(
                f"{str(home.path / _FILE)!r} has decisions of schema {line['schema_version']!r}, "
                f"this software knows {SCHEMA}: upgrade langchain-uno."
            )
        try:
            found.append(Decision.model_validate(line))
        except ValidationError as error:
            raise StoreError(
                f"{str(home.path / _FILE)!r} has a decision that can't be read "
                f"({reason_of(error)}): mend the line with the id {line.get('id')!r}."
            ) from error
    return found


def take_up_decisions(work: Work) -> bool:
    """Let a refresh begin again at "rules" if decisions changed since; return whether they did.

    What was made of clusters stays until :func:`write_review` knows which of them changed.
    """
    folder = work.folder
    if not folder.has("rules.json"):
        return False
    if folder.read_json(INDEX)["known"] == [one.id for one in read_decisions(work.home)]:
        return False
    # The mark of "rules" last: a kill in between leaves this to be done again.
    later = STAGES[STAGES.index("rules") :]
    for name in (RESULT, "release-id.json", *(f"{stage}.json" for stage in reversed(later))):
        folder.remove(name)
    work.__dict__.pop("taught", None)  # it was read before
    return True


class Rulings:
    """The decisions of a home as they hold for the clusters of a refresh.

    Args:
        decisions: all, oldest first.
        clusters: with all their logs.
    """

    def __init__(self, decisions: Sequence[Decision], clusters: Sequence[ClusterData]) -> None:
        self.decisions = list(decisions)
        self.touched: dict[str, set[str]] = defaultdict(set)
        """Id of each decision against something, and the logs that it was about."""
        self.own: dict[str, dict[str, Decision]] = {c.id: {} for c in clusters}
        """Cluster to the rules that people added to it."""
        self.main: dict[str, str] = {}
        """Id of each decision with an anchor, and the cluster that holds most of it."""
        self._logs: dict[str, Decision] = {}
        self._pairs: dict[tuple[str, str], Decision] = {}
        self._rules: list[tuple[Decision, Collection[str]]] = []
        here = {run_of(i): c.id for c in clusters for i in c.run_ids}
        for one in decisions:
            if one.kind == "log":
                self._logs[str(one.log)] = one
            elif one.kind == "pair":
                self._pairs[str(one.log), str(one.chosen)] = one
            elif one.what in ("add", "remove"):
                for place in self._placed(one, here)[:1]:
                    self.own[place].pop(str(one.text), None)
                    if one.what == "add":
                        self.own[place][str(one.text)] = one
            else:
                self._rules.append((one, self._placed(one, here) if one.anchor else [""]))
        by_run: dict[str | None, list[str]] = defaultdict(list)
        for one in (*self._logs.values(), *self._pairs.values()):
            if one.what != "restore":
                by_run[one.log].append(one.id)
        for log_id in (i for c in clusters for i in c.run_ids):
            for decision_id in by_run.get(run_of(log_id), ()):
                self.touched[decision_id].add(log_id)

    def _placed(self, one: Decision, here: Mapping[str, str]) -> list[str]:
        """Return the clusters that hold a good part of a decision's anchor, the main one first."""
        held = Counter(here[run] for run in one.anchor if run in here).most_common()
        if held:
            self.main[one.id] = held[0][0]
        least = SHARE * sum(n for _, n in held)
        return [cluster for cluster, n in held if n >= least or cluster == held[0][0]]

    @property
    def texts(self) -> list[str]:
        """The wordings that rules were decided on by."""
        return list(dict.fromkeys(text for one, _ in self._rules for text in one.wordings))

    def is_out(self, log_id: str) -> bool:
        """Whether a log is excluded altogether."""
        found = self._logs.get(run_of(log_id))
        return found is not None and found.what == "exclude"

    def on_pair(self, pair: PreferencePair) -> Decision | None:
        """Return the decision on a pair as it was found."""
        return self._pairs.get((run_of(pair.run_id), digest_of(pair.chosen)))

    def on_pairs_of(self, cluster: ClusterData) -> list[str]:
        """Return the ids of the decisions on pairs of a cluster's logs."""
        runs = {run_of(i) for i in cluster.run_ids}
        return sorted(one.id for (run, _), one in self._pairs.items() if run in runs)

    def on_rules(self, same: Mapping[str, str]) -> Callable[[str, str], Decision | None]:
        """Return what tells the decision on a rule, from cluster and wording.

        Args:
            same: which wordings are one rule; :attr:`texts` are among them.
        """
        latest: dict[tuple[str, str], tuple[int, Decision]] = {}
        for n, (one, places) in enumerate(self._rules):
            for text in one.wordings:
                for place in places:
                    latest[place, same.get(text, text)] = n, one

        def find(cluster: str, text: str) -> Decision | None:
            keys = [(place, same.get(text, text)) for place in ("", cluster)]
            found = [latest[key] for key in keys if key in latest]
            return max(found, key=lambda one: one[0])[1] if found else None

        return find

    def teach(
        self,
        rules: RuleSet,
        decision_on: Callable[[str], Decision | None],
        is_refused: Callable[[str], bool],
    ) -> RuleSet:
        """Return a log's rules as they are taught, and note what the decisions were about.

        Args:
            rules: of the log, as they were distilled.
            decision_on: tells the decision on a wording in the log's cluster.
            is_refused: whether a wording is taught to nobody anyway.
        """
        left: dict[str, Rule] = {}
        for rule in rules.with_feedback:
            found = decision_on(rule.text)
            if found is not None and found.what != "restore":
                self.touched[found.id].add(rules.run_id)
            text = instead(rule.text, found)
            if text is not None and not is_refused(rule.text):
                left.setdefault(text, rule.model_copy(update={"text": text}))
        return rules.model_copy(update={"with_feedback": list(left.values())})


def rulings_taken_up(work: Work) -> Rulings:
    """Return the decisions that the rules of this refresh know; later ones are the next call's."""
    known = set(work.folder.read_json(INDEX)["known"])
    return Rulings([d for d in read_decisions(work.home) if d.id in known], work.clusters())


def instead(text: str, decision: Decision | None) -> str | None:
    """Return what is taught in place of a rule after a decision on it; None: nothing."""
    if decision is None or decision.what == "restore":
        return text
    return decision.text if decision.what == "edit" else None


def some_runs(cluster: ClusterData) -> list[str]:
    """Return some of a cluster's runs, from all over it."""
    runs = list(dict.fromkeys(run_of(i) for i in cluster.run_ids))
    return runs[:: -(-len(runs) // ANCHORS)]


def rule_rows(
    cluster: ClusterData,
    work: Work,
    same: Mapping[str, str],
    is_refused: Callable[[str, str], bool],
    decision_on: Callable[[str, str], Decision | None],
) -> list[RuleRow]:
    """Return the rules of a cluster's training logs, what most people want first.

    Args:
        cluster: without the logs that are excluded.
        work: the refresh.
        same: which wordings are one rule.
        is_refused: whether a log's wording is taught to nobody.
        decision_on: tells the decision on a wording in a cluster.
    """
    said: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    people: dict[str, set[str]] = defaultdict(set)
    taught: set[str] = set()
    for log_id in cluster.train:
        for rule in work.distilled[log_id].with_feedback:
            head = same.get(rule.text, rule.text)
            said[head][rule.text].append(run_of(log_id))
            people[head].add(work.voices[log_id])
            if not is_refused(log_id, rule.text):
                taught.add(head)
    rows = []
    for head, wordings in said.items():
        found = decision_on(cluster.id, head)
        rows.append(
            RuleRow(
                text=head,
                wordings=wordings,
                people=len(people[head]),
                refused=head not in taught,
                decided=[found.id] if found else [],
            )
        )
    return sorted(rows, key=lambda row: (-row.people, row.text))


def write_review(
    work: Work, clusters: Sequence[ClusterData], rulings: Rulings, rows: Sequence[Sequence[RuleRow]]
) -> None:
    """Write what the table is read from: a line in the index a cluster, and the rules' rows."""
    where = {log_id: c.id for c in clusters for log_id in c.run_ids}
    in_force: dict[str, set[str]] = defaultdict(set)
    for decision_id, logs in rulings.touched.items():
        for log_id in logs:
            in_force[where[log_id]].add(decision_id)
    work.folder.write_records(RULE_ROWS, [one for own in rows for one in own])
    index = {
        "known": [one.id for one in rulings.decisions],
        "in_force": {c: sorted(ids) for c, ids in in_force.items()},
        "own": {c: [one.id for one in own.values()] for c, own in rulings.own.items() if own},
        "clusters": [
            {
                "id": c.id,
                "about": work.logs[work.typical(c)].query,
                "rules": len(own),
                "logs": len({*map(run_of, c.run_ids)}),
            }
            for c, own in zip(clusters, rows, strict=True)
        ],
    }
    work.folder.write_json(INDEX, index)


def renew_anchors(
    work: Work, clusters: Sequence[ClusterData], rulings: Rulings, rows: Sequence[Sequence[RuleRow]]
) -> None:
    """Let decisions on rules lean on today's logs where few of those that they name are left.

    Else a decision would end with the logs that it was made on, as retention takes them.
    """
    today = {run_of(i) for i in work.logs}
    by_id = {c.id: c for c in clusters}
    said: dict[str, dict[str, list[str]]] = defaultdict(dict)
    drawn: dict[str, list[str]] = defaultdict(list)
    for row in (row for own in rows for row in own):
        for one_id in row.decided:
            said[one_id] |= {text: runs[-ANCHORS:] for text, runs in row.wordings.items()}
            drawn[one_id] += row.wordings if row.drawn else ()

    def few(runs: Iterable[str]) -> bool:
        return len(today.intersection(runs)) < ANCHORS // 2

    renewed = []
    for one in rulings.decisions:
        anchor, wordings = one.anchor, one.wordings
        if one.id in rulings.main and few(anchor):
            anchor = list(dict.fromkeys([*anchor, *some_runs(by_id[rulings.main[one.id]])]))
        if few(run for runs in wordings.values() for run in runs):
            wordings = {**wordings, **said[one.id]}
        together = [*one.drawn, *(t for t in drawn[one.id] if t not in one.wordings)]
        update = {"anchor": anchor, "wordings": wordings, "drawn": together}
        renewed.append(one.model_copy(update=update))
    if renewed != rulings.decisions:
        with deciding(work.home):
            new = {one.id: one for one in renewed}
            _rewrite(work.home, [new.get(one.id, one) for one in read_decisions(work.home)])


_UNDECIDED = {FOUND, "base-side.json"}
_UNDECIDED |= {"incumbent", "incumbent.json", "incumbent-compared.jsonl"}
"""What no decision on a pair changes."""


def remove_what_changed(
    work: Work, clusters: Sequence[ClusterData], rulings: Rulings, *parts: Mapping[str, Any]
) -> None:
    """Remove what an earlier call made of the clusters that decisions changed.

    What it made of the others stays, however long it took.

    Args:
        work: the refresh.
        clusters: as the stage "rules" leaves them.
        rulings: the decisions.
        parts: what else the later stages read, by log id.
    """
    now = {}
    for c in clusters:
        read = [str(part.get(i)) for i in (*c.train, *c.verify) for part in parts]
        now[c.id] = [digest_of(c.model_dump_json(), *read), digest_of(*rulings.on_pairs_of(c))]
    name = "inputs.json"
    then = work.folder.read_json(name) if work.folder.has(name) else {}
    for cluster_id, (whole, pairs) in then.items():
        folder = work.folder.path(f"clusters/{cluster_id}")
        if not folder.is_dir() or now.get(cluster_id) == [whole, pairs]:
            continue
        kept = _UNDECIDED if now.get(cluster_id, [None])[0] == whole else set()
        for path in folder.iterdir():
            if path.name not in kept:
                work.folder.remove(str(path.relative_to(work.folder.root)))
    work.folder.write_json(name, now)


def deciding(home: Home) -> AbstractContextManager[None]:
    """Keep others from writing ``review.jsonl``; they wait half a minute."""
    return locked(home, "review", 30, f"Somebody else decides in {str(home.path)!r}: try again.")


def append_decisions(home: Home, made: Sequence[Decision]) -> None:
    """Write decisions durably, all of them or none (inside :func:`deciding`).

    Raises:
        HomeError: the file can't be written.
    """
    append_lines(home.path / _FILE, [one.model_dump(mode="json") for one in made])


def forget_decisions(
    home: Home, run_ids: Collection[str], left: Collection[str], *, whole: bool
) -> None:
    """Take out of ``review.jsonl`` what quotes these runs or names them.

    A decision on a rule stays as long as somebody else said a wording of it. A wording that was
    drawn from several runs goes with any of them. A decision that takes a pair or log out, which
    quotes nobody, stays as long as the run does.

    Args:
        home: the namespace.
        run_ids: runs that go, and those that lose feedback.
        left: runs that stay.
        whole: False where retention takes them: then somebody else's run is enough for a wording
            that was drawn, too.
    """
    if not (home.path / _FILE).exists():
        return
    gone, kept_runs = set(run_ids), set(left)
    with deciding(home):
        told = read_decisions(home)
        kept = [one for old in told if (one := _without(old, gone, kept_runs, whole))]
        _rewrite(home, kept)  # also where none goes: a line that was cut off may quote them


def _rewrite(home: Home, decisions: Sequence[Decision]) -> None:
    lines = [json.dumps(one.model_dump(mode="json")).encode() + b"\n" for one in decisions]
    write_atomic(home.path / _FILE, b"".join(lines))


def _without(one: Decision, gone: set[str], left: Collection[str], whole: bool) -> Decision | None:
    """Return a decision without these runs; None: nothing of it is left."""
    if one.log is not None:
        quotes = one.what == "edit" or one.log not in left
        return None if one.log in gone and quotes else one
    anchor = [run for run in one.anchor if run not in gone]
    quoting = [t for t in one.drawn if whole and not gone.isdisjoint(one.wordings.get(t, ()))]
    said = {text: [r for r in runs if r not in gone] for text, runs in one.wordings.items()}
    said = {text: runs for text, runs in said.items() if runs and text not in quoting}
    if (one.anchor and not anchor) or (one.wordings and not said):
        return None
    drawn = [text for text in one.drawn if text in said]
    return one.model_copy(update={"anchor": anchor, "wordings": said, "drawn": drawn})
