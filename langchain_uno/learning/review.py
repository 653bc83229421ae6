"""The table of what a refresh is about to teach, and how a person decides about it.

    page = review_table(home, kind="rule")
    decide(home, [{"id": page.rows[0].id, "decision": "exclude"}], by="ann", why="off topic")

What decisions are and how they hold in a refresh: :mod:`langchain_uno.learning.decisions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

from pydantic import BaseModel, Field

from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.learning.decisions import (
    ANCHORS,
    FOUND,
    INDEX,
    KINDS,
    Decision,
    Kind,
    PairsFound,
    RuleRow,
    append_decisions,
    deciding,
    read_decisions,
    some_runs,
)
from langchain_uno.learning.work import RESULT, ClusterData, WorkFolder, refresh_folders
from langchain_uno.logs.filters import spoken
from langchain_uno.logs.join import read
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.kept import KeptLog
from langchain_uno.messages import clean_text
from langchain_uno.records import Interaction, by_speaker, digest_of, last_asked, run_of
from langchain_uno.releases.history import note, present_user

State = Literal["in", "excluded", "edited", "own", "refused"]


class ReviewRow(BaseModel):
    """One line of the table."""

    id: str
    """Stable; letters, digits and one hyphen."""
    kind: Kind
    cluster: str
    about: str
    """A typical request of the cluster."""
    text: str | None = None
    """Of a rule: the rule; of a log: the rules that came of its feedback."""
    run: str | None = None
    """Of a pair or log: the answer's run, as `logs show` takes it."""
    request: str | None = None
    rejected: str | None = None
    """The answer as it was logged."""
    chosen: str | None = None
    """The better answer; of a log: the answer as a user rewrote it."""
    said: str | None = None
    """Of a log: what people said of the answer, oldest first; thumbs by their key and score."""
    edited: str | None = None
    """What a person wrote to be taught instead of ``text`` or ``chosen``."""
    people: int = 0
    source: Literal["words", "edit", "like", "thumb", "revised", "retained", "own"] = "words"
    """Where it comes from; of a log: the most that its people gave, words before an edit, an edit
    before a thumb."""
    scores: tuple[float | None, float | None] | None = None
    """The judge's, of the better answer and of the logged one."""
    state: State = "in"
    reason: str = ""
    """Why it is refused, or excluded without a decision of its own; of a log: if it is held out."""
    decision: Decision | None = None
    """The last one about it."""


class ReviewPage(BaseModel):
    """A part of the table."""

    refresh: str | None = None
    """None: no refresh's work is there."""
    finished: bool = False
    """Whether that refresh made its release already."""
    pending: int = 0
    """Decisions that the next `train` has still to apply."""
    total: int = 0
    """Rows in all, of the kind and cluster asked for."""
    clusters: list[str] = Field(default_factory=list)
    """All clusters of the refresh."""
    rows: list[ReviewRow] = Field(default_factory=list)


class _Table:
    """The rows of a refresh, read a cluster at a time."""

    def __init__(self, home: Home, folder: WorkFolder, decisions: Sequence[Decision]) -> None:
        self.home, self.folder, self.decisions = home, folder, decisions
        self.index: dict[str, Any] = folder.read_json(INDEX)
        self.read: dict[str, list[bytes]] = {}
        self.logs: dict[str, Interaction] = {}
        clusters = self.index["clusters"]
        self.about = {one["id"]: one["about"] for one in clusters}
        self.number = {one["id"]: n for n, one in enumerate(clusters)}
        ends = list(accumulate(one["rules"] for one in clusters))
        self.rules = {
            one["id"]: (end - one["rules"], end) for one, end in zip(clusters, ends, strict=True)
        }
        known = set(self.index["known"])
        self.by_id = {one.id: one for one in decisions}
        self.new = [one for one in decisions if one.id not in known]
        self.pairs: dict[str, int] = {}
        if folder.has("pairs.json"):
            found = folder.read_json("pairs.json")["found"].items()
            self.pairs = {c: n for c, n in found if folder.has(f"clusters/{c}/{FOUND}")}
        self.last = {one.row: one for one in decisions if one.kind != "rule"}

    def counted(self, kind: Kind, cluster: Mapping[str, Any]) -> int:
        """Return how many rows a cluster has."""
        if kind == "pair":
            return self.pairs.get(cluster["id"], 0)
        if kind == "log":
            return int(cluster["logs"])
        return int(cluster["rules"]) + len(self._own(cluster["id"]))

    def ids(self, kind: Kind, cluster: str) -> dict[str, Any]:
        """Return what the rows of a cluster are made of, by the rows' ids."""
        if kind == "rule":
            found = {f"rule-{digest_of(cluster, row.text)}": row for row in self._rules(cluster)}
            own = {f"rule-{digest_of('own', cluster, d.text)}": d for d in self._own(cluster)}
            return {**found, **own}
        if kind == "log":
            whole = self._cluster(cluster)
            held, said = set(whole.verify), self._said(cluster)
            return {
                f"log-{digest_of(run)}": (run, log_id in held, said.get(run))
                for log_id in whole.run_ids
                if (run := run_of(log_id))
            }
        made = {}
        if cluster in self.pairs:
            [pairs] = self.folder.read_records(f"clusters/{cluster}/{FOUND}", PairsFound)
            for n, pair in enumerate(pairs.every):
                run = run_of(pair.run_id)
                row_id = f"pair-{digest_of(run, digest_of(pair.chosen))}"
                made[row_id] = (pair, n >= len(pairs.pairs))
        return made

    def rows(self, kind: Kind, cluster: str, ids: Mapping[str, Any]) -> list[ReviewRow]:
        """Return rows as they stand after all decisions."""
        if kind == "log" and ids:
            at = self.home.journal
            with Journal(at, readonly=True) as journal, KeptLog(self.home, journal) as kept:
                joined = kept.joined([run for run, *_ in ids.values()])
                self.logs = {log.run_id: spoken(log) for log in read(journal, joined)}
        return [self._row(kind, cluster, row_id, made_of) for row_id, made_of in ids.items()]

    def _row(self, kind: Kind, cluster: str, row_id: str, made_of: Any) -> ReviewRow:
        told: dict[str, Any] = {"id": row_id, "kind": kind, "cluster": cluster}
        told["about"] = self.about[cluster]
        if isinstance(made_of, Decision):
            state: dict[str, Any] = {"source": "own", "state": "own", "decision": made_of}
            return ReviewRow(**told, text=made_of.text, **state)
        if kind == "rule":
            last = self._on_rule(cluster, made_of)
            reason = _REFUSED if made_of.refused else ""
            told |= {"text": made_of.text, "people": made_of.people}
            return ReviewRow(**told, **_standing(last, reason))
        if kind == "log":
            run, held, said = made_of
            standing = _standing(self.last.get(row_id))
            if held:
                standing |= {"reason": "held out for verification"}
            found = _reacted(self.logs[run]) if run in self.logs else {"people": 1}
            return ReviewRow(**told, run=run, text=said, **found, **standing)
        pair, refused = made_of
        whole = self.last.get(f"log-{digest_of(run_of(pair.run_id))}")
        state = _standing(self.last.get(row_id), _REFUSED if refused else "")
        if whole is not None and whole.what == "exclude":
            state |= {"state": "excluded", "reason": "its log is excluded"}
        scores = (pair.chosen_score, pair.rejected_score)
        return ReviewRow(
            **told,
            run=run_of(pair.run_id),
            request=last_asked(pair.messages),
            rejected=pair.rejected,
            chosen=pair.chosen,
            people=1,
            source={"edited": "edit", "liked": "like"}.get(pair.origin, pair.origin),
            scores=scores if pair.chosen_score is not None else None,
            **state,
        )

    def anchor(self, cluster: str) -> list[str]:
        """Return the runs by which a decision finds a cluster again."""
        return some_runs(self._cluster(cluster))

    def _cluster(self, cluster: str) -> ClusterData:
        line = self._lines("clusters-rules.jsonl")[self.number[cluster]]
        return ClusterData.model_validate_json(line)

    def _rules(self, cluster: str) -> list[RuleRow]:
        start, end = self.rules[cluster]
        lines = self._lines("review-rules.jsonl")[start:end]
        return [RuleRow.model_validate_json(line) for line in lines]

    def _lines(self, name: str) -> list[bytes]:
        if name not in self.read:
            self.read[name] = self.folder.path(name).read_bytes().split(b"\n")
        return self.read[name]

    def _own(self, cluster: str) -> list[Decision]:
        """Return the decisions that added the rules of a cluster's own which stand."""
        held = [self.by_id[i] for i in self.index["own"].get(cluster, ()) if i in self.by_id]
        found = {one.text: one for one in held}
        for one in self.new:
            if one.cluster == cluster and one.what in ("add", "remove"):
                found.pop(one.text, None)
                if one.what == "add":
                    found[one.text] = one
        return list(found.values())

    def _on_rule(self, cluster: str, row: RuleRow) -> Decision | None:
        about = [self.by_id[i] for i in row.decided if i in self.by_id]
        for one in self.new:
            if one.what in ("exclude", "restore", "edit") and one.wordings.keys() & row.wordings:
                about += [one] if not one.anchor or one.cluster == cluster else []
        return about[-1] if about else None

    def _said(self, cluster: str) -> dict[str, str]:
        """Return what was asked for in the feedback on each of a cluster's training runs."""
        said: dict[str, str] = {}
        for row in self._rules(cluster):
            for text, runs in row.wordings.items():
                said |= {run: f"{said[run]} {text}" if run in said else text for run in runs}
        return said


_REFUSED = "whoever asks for it repeats it, and too few other people want it"


def _standing(last: Decision | None, refused: str = "") -> dict[str, Any]:
    """Return state, reason and edited text after the last decision."""
    if last is None or last.what == "restore" or (refused and last.what == "edit"):
        state: State = "refused" if refused else "in"
        return {"state": state, "reason": refused, "decision": last}
    edited = last.what == "edit"
    state = "edited" if edited else "excluded"
    return {"state": state, "decision": last, "edited": last.text if edited else None}


def _reacted(log: Interaction) -> dict[str, Any]:
    """Return the answer of a log and all that its people said and did."""
    said = []
    for one in sorted(log.feedback, key=lambda one: one.created_at):
        act = [str(part) for part in (one.key, one.score, one.value) if part is not None]
        if words := (one.comment or "").strip() or ("" if one.correction else " ".join(act)):
            said.append(words)
    return {
        "request": last_asked(log.messages),
        "rejected": log.answer,
        "chosen": log.correction,
        "said": "\n".join(said) or None,
        "people": len(by_speaker(log)),
        "source": "words" if log.feedback_turns else "edit" if log.correction else "thumb",
    }


def _table(home: Home, decisions: Sequence[Decision]) -> _Table | None:
    """Return the table of the refresh under way, else of the last one that is over."""
    marks = ("rules.json", INDEX)  # the index alone: decisions are being applied
    folders = [one for one in refresh_folders(home.work) if all(map(one.has, marks))]
    if not folders:
        return None
    last = max(folders, key=lambda one: (not one.has(RESULT), one.path(INDEX).stat().st_mtime))
    return _Table(home, last, decisions)


def review_table(
    home: Home,
    *,
    kind: Kind | None = None,
    cluster: str | None = None,
    offset: int = 0,
    limit: int | None = 100,
) -> ReviewPage:
    """Return rows of the refresh under way, else of the last one whose work is still there.

    All rules come first, then the pairs, then the logs, each by cluster.

    Args:
        home: the namespace.
        kind: rows of one kind alone.
        cluster: rows of one cluster alone.
        offset: rows to leave out at the start.
        limit: rows at most; None: all.

    Raises:
        HomeError: there is no such home.
        InputError: the refresh has no such cluster.
        StoreError: ``review.jsonl``, the journal or the refresh's folder can't be read.
    """
    table = _table(home.require(), decisions := read_decisions(home))
    if table is None:
        return ReviewPage(pending=len(decisions))
    _check_cluster(table, cluster)
    page = ReviewPage(
        refresh=table.folder.root.name,
        finished=table.folder.has(RESULT),
        pending=len(table.new),
        clusters=list(table.about),
    )
    end = None if limit is None else offset + limit
    for each in (kind,) if kind else KINDS:
        for one in table.index["clusters"]:
            if cluster not in (None, one["id"]):
                continue
            start, page.total = page.total, page.total + table.counted(each, one)
            if page.total <= offset or (end is not None and start >= end):
                continue
            part = slice(max(0, offset - start), None if end is None else end - start)
            some = dict(list(table.ids(each, one["id"]).items())[part])
            page.rows += table.rows(each, one["id"], some)
    return page


def _check_cluster(table: _Table, cluster: str | None) -> None:
    if cluster is not None and cluster not in table.about:
        raise InputError(f"There is no cluster {cluster!r}: they are {', '.join(table.about)}.")


def decide(
    home: Home, decisions: Sequence[Mapping[str, Any]], by: str = "", why: str = ""
) -> list[Decision]:
    """Write decisions, all of them or none; return what was written: nothing twice in a row.

    Args:
        home: the namespace.
        decisions: each ``{"id": row, "decision": "exclude" | "restore" | "edit"}``, an edit with
            ``"text"``, the rule or answer to teach instead; or ``{"decision": "add", "cluster":
            name, "text": rule}`` for a rule of one's own. ``"everywhere": True`` lets a decision on
            a rule hold in all clusters; ``"why"`` takes the place of ``why``; ``"place"`` is what
            an error calls it ("row 7"). A row's ``"cluster"`` makes it quicker to find.
        by: who decides; the name of the process's user by default.
        why: in their words.

    Raises:
        HomeError: there is no such home, or it can't be written.
        InputError: some of them can't be; the message names each with the reason.
        StoreError: ``review.jsonl`` or the refresh's folder can't be read.
    """
    if not all(isinstance(one, Mapping) for one in decisions):
        raise InputError(
            "Nothing was decided. Decisions are a list of objects, each with an id and a decision."
        )
    with deciding(home.require()):
        before = read_decisions(home)
        table, last = _table(home, before), {one.row: one for one in before}
        if table is None:
            raise InputError(
                "There is nothing to review: `langchain-uno train --until pairs` makes the table."
            )
        rows = _find(table, decisions)
        made: list[Decision] = []
        wrong = []
        for n, wanted in enumerate(decisions, 1):
            who = {"by": clean_text(by) or present_user()}
            who["why"] = clean_text(str(wanted.get("why") or why))
            try:
                for one in _made(table, wanted, rows.get(str(wanted.get("id"))), who):
                    if not one.repeats(last.get(one.row)):
                        made.append(one)
                    last[one.row] = one
            except InputError as error:
                wrong.append(f"{wanted.get('place') or f'decision {n}'}: {error}")
        if wrong:
            raise InputError("Nothing was decided. " + "\n".join(wrong))
        if made:
            append_decisions(home, made)
    if made:
        note(home, f"review: {len(made)} decided", None, "", by)
    return made


def _find(
    table: _Table, decisions: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[ReviewRow, Any]]:
    """Return the rows that decisions name, each with what it is made of."""
    wanted = {str(one.get("id")) for one in decisions}
    likely = {str(one.get("cluster")) for one in decisions}
    found: dict[str, tuple[ReviewRow, Any]] = {}
    for kind in KINDS:
        mine = {row_id for row_id in wanted if row_id.startswith(f"{kind}-")}
        for cluster in sorted(table.about, key=lambda one: one not in likely):
            if mine <= found.keys():
                break
            some = {i: one for i, one in table.ids(kind, cluster).items() if i in mine}
            for row in table.rows(kind, cluster, some):
                found[row.id] = row, some[row.id]
    return found


def _made(
    table: _Table,
    wanted: Mapping[str, Any],
    found: tuple[ReviewRow, Any] | None,
    who: Mapping[str, Any],
) -> list[Decision]:
    """Return what one wanted decision is written as.

    Raises:
        InputError: it can't be; says why.
    """
    what, text = wanted.get("decision"), clean_text(str(wanted.get("text") or "")).strip()
    if what == "add":
        cluster, text = str(wanted.get("cluster")), " ".join(text.split())
        _check_cluster(table, cluster)
        if not text:
            raise InputError("a rule of one's own needs a text.")
        _check_rule(text)
        return [_own(table, "add", cluster, text, who)]
    if what not in ("exclude", "restore", "edit"):
        raise InputError(f"the decision {what!r} is none of exclude, restore, edit and add.")
    if found is None:
        raise InputError(
            f"there is no row {wanted.get('id')!r}: the table may be of another refresh, so list "
            "or export it again."
        )
    row, made_of = found
    if what == "edit":
        text = _edited(row, text)
        if isinstance(made_of, RuleRow) and made_of.refused:
            raise InputError(f"{_REFUSED}, so it is not taught: `add` a rule of your own instead.")
    told: dict[str, Any] = {**who, "what": what, "kind": row.kind, "row": row.id}
    told |= {"cluster": row.cluster, "text": text if what == "edit" else None}
    if row.source == "own":
        own = str(row.text)
        gone = [_own(table, "remove", row.cluster, own, who)] if what != "restore" else []
        return [*gone, _own(table, "add", row.cluster, text, who)] if what == "edit" else gone
    if isinstance(made_of, RuleRow):
        told["wordings"] = {said: runs[-ANCHORS:] for said, runs in made_of.wordings.items()}
        told["drawn"] = list(made_of.wordings) if made_of.drawn else []
        told["anchor"] = [] if wanted.get("everywhere") else table.anchor(row.cluster)
    elif row.kind == "log":
        told["log"] = made_of[0]
    else:
        told["log"], told["chosen"] = run_of(made_of[0].run_id), digest_of(made_of[0].chosen)
    return [Decision(**told)]


def _own(
    table: _Table, what: Literal["add", "remove"], cluster: str, text: str, who: Mapping[str, Any]
) -> Decision:
    return Decision(
        **who,
        what=what,
        kind="rule",
        row=f"rule-{digest_of('own', cluster, text)}",
        cluster=cluster,
        text=text,
        anchor=table.anchor(cluster),
    )


def _edited(row: ReviewRow, text: str) -> str:
    """Return the text of an edit as it is taught.

    Raises:
        InputError: it can't be.
    """
    if row.kind == "log":
        raise InputError("a log can be excluded, not edited.")
    if row.kind == "rule":
        text = " ".join(text.split())
        _check_rule(text)
    if not text:
        raise InputError("an edit needs a text; `exclude` takes the row out.")
    if text in (row.edited or row.chosen or row.text, row.rejected):
        raise InputError("its text is not another one: nothing was edited.")
    return text


_RULE_CHARS = 500


def _check_rule(text: str) -> None:
    """Refuse what is no rule that a prompt could hold.

    Raises:
        InputError: it is too long, or has no letter.
    """
    if len(text) > _RULE_CHARS:
        raise InputError(f"a rule may have {_RULE_CHARS} characters, and this has {len(text)}.")
    if text and not any(c.isalnum() for c in text):
        raise InputError("a rule needs a letter.")
