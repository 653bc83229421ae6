"""Logs in and out of a home, through the journal alone: no model, no Chroma, no lock.

result = import_file(Path("chats.jsonl"), home)
for line in export_lines(home): print(line)
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.logs.containers import Groups, read_rows
from langchain_uno.logs.filters import judge_all, supports_of
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.kept import KeptLog
from langchain_uno.logs.readers import OURS, reader_named
from langchain_uno.logs.readers.base import FORMAT, Reader, TableRow, Thumb
from langchain_uno.logs.redaction import Redactor, pseudonym, redactor_of
from langchain_uno.logs.repeats import Answers
from langchain_uno.logs.rows import Parsed, group_of, parse_group, parse_row
from langchain_uno.logs.stats import stats as stats  # for callers that count what they import
from langchain_uno.recipe import FilterSettings
from langchain_uno.records import Feedback, Interaction, utc_now

_BATCH = 100
_UNNAMED = ("score", "comment", "rating")
"""Keys of ratings that their file gives no key."""
_MAX_THUMBS = 10_000
"""A key with so many thumbs is no scale: memory does not grow with the file."""
_MAX_BAD = 1000
"""Bad rows that are kept one by one; all are counted."""


@dataclass
class ImportResult:
    """What an import did; counts of rows, interactions and feedbacks."""

    rows: int = 0
    interactions: int = 0
    """New ones; the rest of the file's was there already."""
    feedback: int = 0
    known: int = 0
    forgotten: int = 0
    """Interactions left out because somebody had them forgotten."""
    formats: Counter[str] = field(default_factory=Counter)
    """Rows by format."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """What was understood and holds nothing to import, by reason (``tie``, ``no_answer``, ...)."""
    unread: list[str] = field(default_factory=list)
    """Columns of a table that the reader does not know; their texts may be kept as tags."""
    languages: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)
    stars: int = 0
    """Ratings of a scale that goes above 1, new or known: values, which teach nothing."""
    waiting: int = 0
    """Feedback of the home whose answer is not in it."""
    without_user: int = 0
    """Interactions of the home that name no user."""
    bad_rows: int = 0
    bad_reasons: Counter[str] = field(default_factory=Counter)
    """Bad rows by reason, numbers in the reasons left out."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """(number from 1, reason) of the first thousand; the other rows went in."""


def import_file(
    path: Path | str,
    home: Home,
    *,
    format: str | None = None,
    redactor: Redactor | None = None,
    on_row: Callable[[int], None] | None = None,
) -> ImportResult:
    """Read a file of any known format into the home's journal. Again, it changes nothing.

    Args:
        path: JSON lines, a JSON array, CSV or Parquet, also gzipped; ``"-"`` reads standard input.
        home: made if missing.
        format: the rows' format (:mod:`langchain_uno.logs.readers`); None: each row's shape tells.
        redactor: takes personal data out first; None: the default one.
        on_row: told how many more rows were read.

    Raises:
        InputError: the file can't be read, or there is no such format. (Bad rows are in the result
            instead.)
        HomeError, StoreError: the home can't be written; the rows before stay in.
    """
    reader = reader_named(format) if format else None
    redact = redactor_of(home, redactor)
    rows = read_rows(path)
    first = list(islice(rows, 1))  # before the home is made: there may be no such file
    with Journal(home.ensure().journal) as journal, closing(Answers(journal)) as answers:
        work = _Import(journal, answers, redact, home.namespace, reader)
        for number, row in chain(first, rows):
            work.take(number, row)
            if on_row:
                on_row(1)
        work.finish()
        work.result.unread = sorted(work.columns - work.read)
        work.result.stars = work.scales.stars
        work.result.waiting = len(journal.waiting())
        work.result.without_user = journal.nameless()
    return work.result


class _Scales:
    """Ratings of one file that go above 1, by key: there a 1 is one star, and no thumb up."""

    def __init__(self) -> None:
        self.late: list[Feedback] = []
        """Feedback that was taken for a thumb before its key was known to be a scale."""
        self.stars = 0
        self.thumbs: set[str] = set()
        """Ids of the feedback at hand that is no number of a scale."""
        self._scales: set[str] = set()
        self._thumbs: dict[str, list[Feedback]] = defaultdict(list)

    def take(self, said: Feedback) -> Feedback:
        """Return a rating of a scale as a value, other feedback as it is."""
        if said.feedback_id in self.thumbs:
            return said
        key = "" if said.key in _UNNAMED else said.key
        above = isinstance(said.value, int | float) and said.value > 1
        if said.score is None and above:
            self._scales.add(key)
            before = self._thumbs.pop(key, [])
            self.late += before
            self.stars += len(before) + 1
        if said.value is None and said.score in (0.0, 1.0):
            if key in self._scales:
                self.stars += 1
                return _as_value(said)
            if len(self._thumbs[key]) < _MAX_THUMBS:
                self._thumbs[key].append(said)
        return said


def _as_value(said: Feedback) -> Feedback:
    return said.model_copy(update={"value": said.score, "score": None})


@dataclass
class _Import:
    """One import under way."""

    journal: Journal
    answers: Answers
    redact: Redactor
    namespace: str
    reader: Reader | None
    result: ImportResult = field(default_factory=ImportResult)
    now: datetime = field(default_factory=utc_now)
    batch: list[tuple[Interaction, dict[str, int]]] = field(default_factory=list)
    groups: Groups | None = None
    scales: _Scales = field(default_factory=_Scales)
    columns: set[str] = field(default_factory=set)
    """Of a table, with ``read`` those that a reader looked at."""
    read: set[str] = field(default_factory=set)

    def take(self, number: int, row: Any) -> None:
        """Read one row; a message of a conversation is kept until the end of the file."""
        self.result.rows += 1
        try:
            if isinstance(row, InputError):
                raise row
            if group := group_of(row, self.reader):
                self.groups = self.groups or Groups()
                self.groups.add(*group, number, row)
                return
            self._store(parse_row(row, self._at(number), self.namespace, self.reader))
            if isinstance(row, TableRow):
                self.read |= row.read
                self.columns.update(row)
        except InputError as error:
            self._refuse(number, error)

    def finish(self) -> None:
        """Read the conversations that came a message a row, and write what is left.

        The root of a trace is no answer of its own where the journal has the trace's model runs.
        """
        if self.groups is not None:
            self._write()
            with closing(self.groups) as groups:
                for number, reader, rows in groups.read():
                    try:
                        found = parse_group(rows, self._at(number), self.namespace, reader)
                        if found.interactions and self._known(found.interactions):
                            found = Parsed(found.format, passed=Counter({"not_a_model_run": 1}))
                        self._store(found, rows=len(rows))
                    except InputError as error:
                        self._refuse(number, error)
        self._write()
        for one in self.scales.late:
            kept = self.journal.feedback_of(one.feedback_id)
            if kept and kept.value is None and kept.score == one.score:
                later = kept.created_at + timedelta(microseconds=1)  # the later-made one stands
                value = _as_value(kept).model_copy(update={"created_at": later})
                self.journal.append_feedback(value)

    def _known(self, roots: Sequence[Interaction]) -> bool:
        """Whether the journal has model runs of a trace; what gave an answer back names its run.

        The root of a whole trace also names the only run.
        """
        trace, own = str(roots[0].root_run_id), {root.run_id for root in roots}
        rows = self.journal.rows_where("root_run_id = ? AND run_id != root_run_id", trace)
        runs = [row.run_id for row in rows if row.run_id not in own]
        same = {i.answer.strip(): i.run_id for i in self.journal.interactions(runs)}
        for root in roots if runs else ():
            only = runs[0] if root.run_id == trace and len(runs) == 1 else None
            run = same.get(self.redact.interaction(root)[0].answer.strip(), only)
            names = [n for n in (trace, root.run_id) if run and self.journal.run_named(n) != run]
            if names:
                self.journal.append_names([(name, str(run)) for name in names])
        return bool(runs)

    def _at(self, number: int) -> datetime:
        """Rows without a time of their own keep the order of the file."""
        return self.now + timedelta(microseconds=20 * number)

    def _refuse(self, number: int, error: InputError) -> None:
        result, reason = self.result, str(error)
        result.bad_rows += 1
        if len(result.bad) < _MAX_BAD:
            result.bad.append((number, reason))
        kind = re.sub(r"\d+", "N", reason)
        if kind not in result.bad_reasons and len(result.bad_reasons) >= _MAX_BAD:
            kind = "other"
        result.bad_reasons[kind] += 1

    def _store(self, found: Parsed, rows: int = 1) -> None:
        self.result.formats[found.format] += rows
        self.result.passed_over.update(found.passed)
        sure = Feedback if found.format == OURS.name else Thumb  # our scores are no stars
        every = chain(found.feedback, *(log.feedback for log in found.interactions))
        rated = [f.feedback_id for f in every if isinstance(f, sure) and f.score is not None]
        self.scales.thumbs = {*rated, *map(pseudonym, rated)}  # an e-mail address in it is redacted
        for interaction in found.interactions:
            clean, redacted = self.redact.interaction(interaction)
            settled = self.answers.settle(clean, may_repeat=found.repeats)
            if isinstance(settled, Interaction):
                settled.feedback[:] = map(self.scales.take, settled.feedback)
                self.batch.append((settled, redacted))
            else:  # the answer is there already; what was said of it joins it
                self.result.known += 1
                for one in settled:
                    self._file(one)
        for one in found.feedback:
            one.run_id = self.answers.name_of(one.run_id)
            said, redacted = self.redact.feedback(one)
            # Earlier releases named a vote by its message alone.
            old = self.journal.feedback_of(one.feedback_id.removesuffix(f"-{one.user_id}"))
            if old is None or old.user_id != said.user_id or old.feedback_id == said.feedback_id:
                self._file(said, redacted)
        if len(self.batch) >= _BATCH:
            self._write()

    def _file(self, said: Feedback, redacted: dict[str, int] | None = None) -> None:
        said = self.scales.take(said)
        self.result.feedback += self.journal.append_feedback(said, redacted=redacted, replace=False)

    def _write(self) -> None:
        result, batch = self.result, self.batch
        if not batch:
            return
        done = self.journal.append_many(batch)
        result.interactions += done.interactions
        result.feedback += done.feedback
        result.forgotten += done.forgotten
        result.known += len(batch) - done.interactions - done.forgotten
        for interaction, redacted in batch:
            result.languages[interaction.language] += 1
            result.redacted.update(redacted)
        batch.clear()


def export_row(interaction: Interaction) -> dict[str, Any]:
    """Return one interaction as a JSON object: ``messages`` is the prompt and, last, the answer."""
    row = interaction.model_dump(mode="json", exclude_none=True, exclude={"verdict"})
    answer: dict[str, Any] = {"role": "assistant", "content": interaction.answer}
    if interaction.tool_calls:
        answer["tool_calls"] = interaction.tool_calls
    prompt = [{k: v for k, v in m.items() if k != "tool_calls" or v} for m in row.pop("messages")]
    first = {"format": FORMAT, "run_id": row.pop("run_id"), "messages": [*prompt, answer]}
    return {**first, "feedback": row.pop("feedback"), **row}


def export_lines(home: Home, *, usable_only: bool = False) -> Iterator[str]:
    """Yield one JSON line an interaction, in the order of arrival.

    Args:
        home: must exist.
        usable_only: leave out what the filters flag.

    Raises:
        HomeError, StoreError: there is no home, or its journal can't be read.
    """
    with Journal(home.require().journal, readonly=True) as journal:
        joined = join(journal)
        logs: Iterable[Interaction] = read(journal, joined)
        if usable_only:
            every = list(logs)
            judged = judge_all(journal, joined, every, FilterSettings(), supports_of(home))
            logs = [log for log, one in zip(every, judged, strict=True) if one.usable]
        for log in logs:
            yield json.dumps(export_row(log), ensure_ascii=False)


def find(home: Home, run: str) -> dict[str, Any]:
    """Return one interaction as its export row, with its verdict and whether the index has it.

    Args:
        home: must exist.
        run: model run id, root run id (the answer that its user saw is shown) or message id.

    Raises:
        InputError: there is no such run.
        HomeError, StoreError: there is no home, or its journal can't be read.
    """
    with Journal(home.require().journal, readonly=True) as journal, KeptLog(home, journal) as kept:
        wanted = journal.run_named(run)
        rows = journal.rows_where("run_id = ? OR root_run_id = ?", wanted, wanted)
        if not rows:
            raise InputError(f"There is no run {wanted!r} in {str(home.path)!r}.")
        joined = kept.joined([rows[-1].run_id])
        [log] = read(journal, joined)
        [judged] = judge_all(journal, joined, [log], FilterSettings(), supports_of(home))
        known = journal.indexed().get(log.run_id)
        return {
            **export_row(log),
            "verdict": judged.model_dump(mode="json"),
            "indexed": known is not None and known == joined.digest(log.run_id),
        }


def last(home: Home, most: int = 10) -> list[dict[str, Any]]:
    """Return the youngest interactions as export rows, the youngest first.

    Raises:
        HomeError, StoreError: there is no home, or its journal can't be read.
    """
    with Journal(home.require().journal, readonly=True) as journal, KeptLog(home, journal) as kept:
        chosen = kept.latest(lambda facts: True, most, equal=True)
        return [export_row(log) for log in read(journal, kept.joined(chosen), chosen)]
