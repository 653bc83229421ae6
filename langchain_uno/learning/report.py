"""The report of a refresh, collected from what its stages left.

    report = make_report(work, notes)
    write_report(work.home, report)

It is written after the release is published and before the refresh counts as over, so that a
refresh that was killed in between writes it with the next call.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from langchain_uno.learning.controls import scorer_figures
from langchain_uno.learning.decisions import INDEX, RULE_ROWS, RuleRow, read_decisions
from langchain_uno.learning.rules import lone_thumbs
from langchain_uno.learning.train import Decision, read_decision
from langchain_uno.learning.verify import held_out
from langchain_uno.learning.work import ClusterData, Work
from langchain_uno.logs.redaction import Redactor, redactor_of
from langchain_uno.records import Interaction, RuleSet, last_asked, mean_of, run_of
from langchain_uno.releases.load import find_manifest, read_manifest
from langchain_uno.releases.manifest import Manifest, lineage_key, opaque_id
from langchain_uno.reports.render import counted
from langchain_uno.reports.store import (
    Change,
    ClusterReport,
    Example,
    Funnel,
    MapPoint,
    Report,
    RuleTold,
)
from langchain_uno.trainers.verifier import Compared

SHOWN = 100
"""Clusters that are told one by one."""
POINTS = 400
"""Logs on the map."""
EXAMPLES = 3
SINGLE_RULES = 8
"""Rules of a cluster that do not recur, and refused ones, that are shown; the others are counted.
Those that recur are held by enough people to be few."""
NAME_CHARS, REQUEST_CHARS, ANSWER_CHARS, RULE_CHARS = 120, 1500, 3000, 300
_ORDER: tuple[Change, ...] = ("gained", "replaced", "lost", "kept", "none")


def make_report(work: Work, notes: Sequence[str] = ()) -> Report:
    """Collect the report of a refresh whose release is published.

    Args:
        work: all stages are done.
        notes: what a person should read about it.

    Raises:
        StoreError: an artefact of the refresh is damaged.
        ReleaseError: the release can't be read.
    """
    released = work.counts("release")
    manifest = read_manifest(work.home, released["release"])
    return _Reporter(work, manifest).report(promoted=released["promoted"], notes=notes)


class _Reporter:
    """What all parts of one report need."""

    def __init__(self, work: Work, manifest: Manifest) -> None:
        self.work, self.manifest = work, manifest
        self.redact: Redactor = redactor_of(work.home)
        self.key = lineage_key(work.home)
        parent = find_manifest(work.home, manifest.parent)
        self.parent = {c.id: c for c in parent.clusters} if parent else {}
        self.refused_acts = set(work.folder.read_json("refused-acts.json"))
        self.clusters = {c.id: c for c in manifest.clusters}
        self.excluded = _excluded(work)
        self.sizes = {adapter.cluster: adapter.n_bytes for adapter in manifest.adapters}

    def report(self, *, promoted: bool, notes: Sequence[str]) -> Report:
        work, manifest = self.work, self.manifest
        found = work.clusters()
        decisions = {c.id: read_decision(work, c.id) for c in found}
        changes = {c.id: self.change(c.id, decisions[c.id]) for c in found}
        found.sort(key=lambda c: (_ORDER.index(changes[c.id]), -len(c.run_ids), c.id))
        told = [self.cluster(c, decisions[c.id], changes[c.id]) for c in found[:SHOWN]]
        routes = Counter(d.route for d in decisions.values())
        points, explained = self.points(found, decisions)
        own_judge = work.teacher.fingerprint == work.engine.fingerprint
        drawn = {i for c in found for i in (*c.run_ids, *c.unlabelled)}
        return Report(
            release=manifest.id,
            parent=manifest.parent,
            created=manifest.created,
            promoted=promoted,
            base_model=work.engine.model_name,
            judge="" if own_judge else work.teacher.model_name,
            recipe=manifest.recipe,
            verdict=_verdict(routes, [d.report for d in decisions.values()], promoted=promoted),
            changes=self.changes(found, changes),
            people=len(set(work.voices.values())),
            funnel=self.funnel(found),
            points=points,
            explained=explained,
            routes={str(route): n for route, n in routes.items()},
            clusters=told,
            not_shown=len(found) - len(told),
            coverage=manifest.figures.get("coverage"),
            scorers={str(name): figures for name, figures in scorer_figures(work).items()},
            adapter_bytes=sum(self.sizes.values()),
            seconds=work.seconds,
            notes=list(notes),
            logs=sorted({self.opaque(i) for i in drawn}),
        )

    def opaque(self, log_id: str) -> str:
        return opaque_id(self.key, run_of(log_id))

    def words(self, text: str, most: int) -> str:
        """Return a text redacted, whole or with the number of characters that are left out."""
        clean = self.redact(text.encode("utf-8", "replace").decode())[0].strip()
        left = len(clean) - most
        return clean if left <= 0 else f"{clean[:most]} … ({left:,} more characters)"

    # -- The whole ---------------------------------------------------------------------------------

    def change(self, name: str, decision: Decision) -> Change:
        """Return what became of a cluster's module."""
        before = self.parent.get(name)
        had = before is not None and before.route != "base"
        if decision.kept is not None:
            return "kept"
        if decision.route == "base":
            return "lost" if had else "none"
        return "replaced" if had else "gained"

    def changes(self, found: Sequence[ClusterData], changes: dict[str, Change]) -> list[str]:
        """Return what changed against the parent release, in sentences."""
        parent = self.manifest.parent
        against = f"release {parent}" if parent else "the base model, which answered everything"
        told = [f"Compared with {against}."]
        if parent and not self.parent:
            told.append("That release can't be read, so every cluster counts as new.")
        words = {
            "gained": "gained a module",
            "replaced": "got a new module in place of the old one",
            "lost": "lost the module",
            "kept": "kept the module",
        }
        for change, what in words.items():
            names = [c.id for c in found if changes[c.id] == change]
            if names:
                told.append(f"{counted(len(names), 'cluster')} {what}: {_listed(names)}.")
        now, old = {c.id: set(c.rules) for c in found}, self.parent
        more = sum(len(rules - set(old[i].rules if i in old else ())) for i, rules in now.items())
        less = sum(len(set(c.rules) - now.get(i, set())) for i, c in old.items())
        told.append(f"Rules that recur: {more} came, {less} went.")
        gone = sorted(set(old) - set(now))
        new = [c.id for c in found if c.id not in old] if old else []
        told += [f"{counted(len(new), 'cluster')} began: {_listed(new)}."] if new else []
        told += [f"{counted(len(gone), 'cluster')} ended: {_listed(gone)}."] if gone else []
        return told

    def funnel(self, found: Sequence[ClusterData]) -> Funnel:
        counts = self.work.counts("filter")
        train, held = sum(len(c.train) for c in found), sum(len(c.verify) for c in found)
        counts |= {"unlabelled": sum(len(c.unlabelled) for c in found)}
        return Funnel(
            **counts,
            asking=sum(bool(rules.with_feedback) for rules in self.work.distilled.values()),
            train=train,
            held_out=held,
            left_out=counts["usable"] - train - held,
        )

    def points(
        self, found: Sequence[ClusterData], decisions: dict[str, Decision]
    ) -> tuple[list[MapPoint], float | None]:
        """Return a sample of the logs in the two directions of most variance, and its share."""
        whose = [(i, c.id) for c in found for i in c.run_ids]
        whose = whose[:: -(-len(whose) // POINTS)]
        x = np.asarray(self.work.queries[[self.work.rows[i] for i, _ in whose]], dtype=np.float64)
        if len(x) < 3:
            return [], None
        x -= x.mean(axis=0)
        left, size, _ = np.linalg.svd(x, full_matrices=False)
        whole = float((size**2).sum())
        flat = np.zeros((len(x), 2))
        flat[:, : min(2, len(size))] = (left * size)[:, :2]
        points = [
            MapPoint(x=x, y=y, cluster=name, route=decisions[name].route)
            for (_, name), (x, y) in zip(whose, flat.round(4).tolist(), strict=True)
        ]
        return points, float((size[:2] ** 2).sum()) / whole if whole > 0 else None

    # -- One cluster -------------------------------------------------------------------------------

    def cluster(self, data: ClusterData, decision: Decision, change: Change) -> ClusterReport:
        work, before = self.work, self.parent.get(data.id)
        typical = work.typical(data)
        told = self.rules(data.id, data.train, work.taught, data.rules)
        recurring = [
            *(RuleTold(text=t, people=0, logs=0, by=by) for t, by in data.own.items()),
            *(rule for rule in told if rule.recurs),
        ]
        if data.by_thumbs:
            people, logs = data.people, len(lone_thumbs(work, data.train))
            recurring = [
                RuleTold(text=self.words(t, RULE_CHARS), people=people, logs=logs, recurs=True)
                for t in data.rules
            ]
        single = [rule for rule in told if not rule.recurs]
        refused = self.rules(data.id, data.train, {i: _left_out(work, i) for i in data.train})
        compared = _compared(work, data.id, decision)
        outcomes = Counter(one.outcome for one in compared if one.outcome is not None)
        was = set(before.rules) if before else set()
        return ClusterReport(
            **self.clusters[data.id].model_dump(exclude={"run_ids", "trained_on"}),
            request=self.name(typical),
            request_log=self.opaque(typical),
            change=change,
            route_before=before.route if before else None,
            train=len(data.train),
            held_out=len(data.verify),
            unlabelled=len(data.unlabelled),
            by_thumbs=data.by_thumbs,
            acting=data.acting,
            low=work.is_low(data),
            told=[*recurring, *single[:SINGLE_RULES]],
            told_not_shown=max(0, len(single) - SINGLE_RULES),
            rules_added=[self.words(r, RULE_CHARS) for r in data.rules if before and r not in was],
            rules_removed=[self.words(r, RULE_CHARS) for r in sorted(was - set(data.rules))],
            refused=refused[:SINGLE_RULES],
            refused_not_shown=max(0, len(refused) - SINGLE_RULES),
            acts_refused=len(self.refused_acts & set(data.train)),
            decided=decision.report,
            won=outcomes[1.0],
            tied=outcomes[0.5],
            lost=outcomes[0.0],
            examples=self.examples(data, compared),
            base_tokens=mean_of([one.base.usage.output_tokens for one in compared]),
            module_tokens=mean_of([one.module.usage.output_tokens for one in compared]),
            module_bytes=self.sizes.get(data.id),
            pairs=len(work.pairs(data)),
            seconds=decision.seconds,
        )

    def name(self, log_id: str) -> str:
        """Return what a log asks, as a name: on one line, short, ending with a whole word."""
        line = " ".join(self.words(_asked(self.work.logs[log_id]), REQUEST_CHARS).split())
        if len(line) <= NAME_CHARS:
            return line
        return (line[:NAME_CHARS].rpartition(" ")[0] or line[:NAME_CHARS]) + " …"

    def rules(
        self,
        cluster: str,
        log_ids: Sequence[str],
        sets: dict[str, RuleSet],
        recurring: Sequence[str] = (),
    ) -> list[RuleTold]:
        """Return the rules that logs name, those that recur first, then by people."""
        named: dict[str, list[str]] = defaultdict(list)
        for log_id in log_ids:
            own = sets[log_id].wanted or sets[log_id].with_feedback
            for text in dict.fromkeys(r.text for r in own if r.source in ("feedback", "edit")):
                named[text].append(log_id)
        people = {t: len({self.work.voices[i] for i in ids}) for t, ids in named.items()}
        told = [
            RuleTold(
                text=self.words(text, RULE_CHARS),
                people=people[text],
                logs=len(ids),
                recurs=text in recurring,
                named_in=[]
                if text in recurring and people[text] > 1
                else sorted({self.opaque(i) for i in ids}),
                by=self.excluded.get((cluster, text), ""),
            )
            for text, ids in named.items()
        ]
        return sorted(told, key=lambda one: (not one.recurs, -one.people, -one.logs, one.text))

    def examples(self, data: ClusterData, compared: Sequence[Compared]) -> list[Example]:
        """Return some of what was compared: one that was won, one lost and one tied, then others.

        Only answers that differ show anything, so they come before those that do not.
        """
        items = {item.id: item for item in held_out(self.work, data)} if compared else {}
        left = sorted(compared, key=lambda one: one.module.text.strip() == one.base.text.strip())
        first = {one.outcome: one for one in reversed(left)}
        chosen = [first[outcome] for outcome in (1.0, 0.0, 0.5) if outcome in first]
        chosen += [one for one in left if one not in chosen]
        told = []
        for one in (c for c in chosen[:EXAMPLES] if c.id in items):
            item = items[one.id]
            log = self.work.logs.get(one.id) or self.work.unheard[one.id]
            rated = item.rated
            told.append(
                Example(
                    log=self.opaque(one.id),
                    request=self.words(_asked(log), REQUEST_CHARS),
                    base=self.words(one.base.text, ANSWER_CHARS),
                    answer=self.words(one.module.text, ANSWER_CHARS),
                    suggestions=[self.words(s, RULE_CHARS) for s in one.module.suggestions],
                    outcome=one.outcome,
                    score=None if rated else one.module.score,
                    base_score=None if rated else one.base.score,
                    rules=[self.words(r, RULE_CHARS) for r in item.rules],
                    edit=self.words(item.edit, ANSWER_CHARS) if item.edit else None,
                    rated=self.words(rated.answer, ANSWER_CHARS) if rated else None,
                    liked=rated.liked if rated else None,
                )
            )
        return told


def _compared(work: Work, cluster_id: str, decision: Decision) -> list[Compared]:
    """Return what was compared: of what answers, or of the last try where the base does."""
    tried = ["incumbent"]
    if decision.kept is None and decision.report is not None:
        expert = decision.report.kind == "expert"
        tried = ["distilled", "expert", *tried] if expert else ["critic", *tried]
    for name in (f"clusters/{cluster_id}/{one}-compared.jsonl" for one in tried):
        if work.folder.has(name):
            return work.folder.read_records(name, Compared)
    return []


def _excluded(work: Work) -> dict[tuple[str, str], str]:
    """Return who excluded a wording in a cluster, for those that a person excluded."""
    made = {one.id: one for one in read_decisions(work.home)}
    rows = iter(work.folder.read_records(RULE_ROWS, RuleRow))
    found: dict[tuple[str, str], str] = {}
    for cluster in work.folder.read_json(INDEX)["clusters"]:
        for row in islice(rows, cluster["rules"]):
            decided = [made[i] for i in row.decided if i in made]
            for one in (d for d in decided if d.what == "exclude"):
                found |= {(cluster["id"], text): one.by for text in row.wordings}
    return found


def _left_out(work: Work, log_id: str) -> RuleSet:
    """Return the rules that a log named and that are taught to nobody."""
    distilled = work.distilled[log_id]
    taught = {rule.text for rule in work.taught[log_id].with_feedback}
    left = [rule for rule in distilled.with_feedback if rule.text not in taught]
    return distilled.model_copy(update={"with_feedback": left})


def _asked(log: Interaction) -> str:
    """Return what the user said last, as the user said it."""
    return log.asked or last_asked(log.messages) or log.query


def _verdict(routes: Counter[Any], reports: Sequence[Any], *, promoted: bool) -> str:
    """Say in one sentence what answers; ``reports`` has what was found of each cluster, or None."""
    total = sum(routes.values())
    modules = total - routes["base"]
    if not modules:
        why = "passed its check" if any(reports) else "was made"
        said = f"No module {why}, so the base model answers everything as before."
    else:
        rest = ", the base model answers the others as before" if routes["base"] else ""
        verb = "is" if modules == 1 else "are"
        kinds = ((n, kind) for kind, n in sorted(routes.items(), reverse=True) if kind != "base")
        made = " and ".join(counted(n, kind) for n, kind in kinds)
        said = (
            f"{modules} of {counted(total, 'cluster')} {verb} answered by a module ({made}){rest}."
        )
    if promoted:
        return said
    return f"{said} The release waits for a person: `langchain-uno releases promote` promotes it."


def _listed(names: Sequence[str], most: int = 20) -> str:
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left:,} more" if left > 0 else "")
