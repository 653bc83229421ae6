"""What a reader of a format gives, and the small things that several readers need."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import zip_longest
from typing import Any, TypeGuard
from uuid import UUID, uuid5

from pydantic import TypeAdapter, ValidationError

from langchain_uno.errors import InputError, reason_of
from langchain_uno.logs.capture import check_feedback
from langchain_uno.logs.conversation import run_ref
from langchain_uno.logs.filters import EVALUATED, is_evaluator
from langchain_uno.logs.names import THREAD_KEYS, USER_KEYS, first_name
from langchain_uno.messages import clean_text, map_texts, read_turns
from langchain_uno.records import Feedback, Message

_WRONG_TYPES = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a reader raises where a field is a text that should be a list, say."""
Row = Mapping[str, Any]
FORMAT = "langchain-uno.interaction"
"""The ``format`` field of our own export."""
SPACE = UUID("6f0e1f5c-64f5-5c0e-9d39-6c0f1b8f5a11")
"""The name space of ids made from imported content; changing it would import everything anew."""


@dataclass
class Chat:
    """A conversation of a file; every answer in it becomes a record."""

    messages: Sequence[Any]
    """Objects for ``messages.read_turns``, or ``Message`` records. An object may carry ``id``,
    ``created_at``, ``user_id`` and a list ``feedback`` of its own."""
    id: str = ""
    """Tells conversations with the same words apart."""
    run_id: str | None = None
    """Of the last answer; the others' ids are made from what was said."""
    root_run_id: str | None = None
    names: Sequence[str] = ()
    """Other ids of the last answer: a provider's, or the trace's that gave it back."""
    user: str | None = None
    thread: str | None = None
    model: str | None = None
    created_at: Any = None
    language: Any = None
    feedback: Any = None
    """As in a chat row: objects, texts or scores, about the last answer unless they say so."""
    tags: Row = field(default_factory=dict)
    implicit: Row = field(default_factory=dict)
    """A row with MemoryBench's column of implicit feedback."""
    error: str | None = None
    """What was wrong with the last answer."""
    last_only: bool = False
    """Earlier answers in the prompt are other rows' answers."""


class Passed(Exception):
    """Something that was understood and holds nothing to import; raised where no more comes.

    Its text is the reason, a short stable word.
    """


Found = Chat | Feedback | Passed


@dataclass(frozen=True)
class Reader:
    """How the rows of one format are read."""

    name: str
    matches: Callable[[Row], bool]
    """Whether a row has the format's shape."""
    read: Callable[[Row], Iterable[Found]]
    """Raises InputError where something can't be found in the row, and :class:`Passed`."""
    group: Callable[[Row], str | None] | None = None
    """Names the conversation where a row is a single message of one; None: it is whole."""
    join: Callable[[Sequence[Row]], Iterable[Found]] | None = None
    """Reads the messages of one conversation together, in the order of the file."""


class TableRow(dict[str, Any]):
    """A row of a table, which notes the columns that its reader asks for by name."""

    def __init__(self, cells: Mapping[str, Any], read: set[str] | None = None) -> None:
        super().__init__(cells)
        self.read = set() if read is None else read

    def __getitem__(self, column: str) -> Any:
        self.read.add(column)
        return super().__getitem__(column)

    def get(self, column: str, default: Any = None) -> Any:
        """Return a cell, as a dictionary does."""
        self.read.add(column)
        return super().get(column, default)

    def __iter__(self) -> Iterator[str]:  # makes {**row} ask for each cell
        return super().__iter__()


def without(row: Row, names: Collection[str]) -> dict[str, Any]:
    """Return a row without some fields; what it is asked for counts as asked of the row."""
    left = {k: v for k, v in row.items() if k not in names}
    return TableRow(left, row.read) if isinstance(row, TableRow) else left


@contextmanager
def told_as_input() -> Iterator[None]:
    """Say what was wrong with the row, whatever a reader stumbled over."""
    try:
        yield
    except OverflowError as error:
        raise InputError(f"a number or a time is out of range ({error})") from error
    except InputError:
        raise
    except _WRONG_TYPES as error:
        raise InputError(f"a field is of another type than the format has ({error})") from error


def first(source: Row, *keys: str) -> Any:
    """Return the first value under ``keys`` that is there and not null."""
    return next((source[k] for k in keys if source.get(k) is not None), None)


def objects(value: Any) -> TypeGuard[list[Row]]:
    """Whether it is a list of at least one object, and of nothing else."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def as_object(value: Any) -> Row:
    """Return the value where it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def is_chat(value: Any) -> bool:
    """Whether it is a list of objects that name who spoke."""
    return objects(value) and any(
        k in value[0] for k in ("role", "from", "type", "sender", "kwargs")
    )


_MODEL = ("model", "ai_model", "provided_model_name", "providedModelName", "default_model_slug",
          "ls_model_name", "modelId", "model_name", "engine")  # fmt: skip
MADE = ("startTime", "start_time", "created_at", "createdAt", "timestamp", "tstamp", "create_time",
        "created_date", "request_created_at", "created", "createdDate", "started_at",
        "request_start_time", "request_time", "time")  # fmt: skip


def about(row: Row, *more: Any) -> dict[str, Any]:
    """Return what a row says of its conversation: user, thread, model, time and language.

    Args:
        row: the row.
        more: where user, thread and model are looked for besides: its metadata, say.
    """
    return {
        "user": first_name(USER_KEYS, row, *more),
        "thread": first_name(THREAD_KEYS, row, *more),
        "model": first_name(_MODEL, row, *more),
        "created_at": first(row, *MADE),
        "language": first(row, "language", "lang"),
    }


def read_all(messages: Any) -> list[Message]:
    """Return the turns of a list of messages.

    Raises:
        InputError: it is no list, or one of them can't be read; the message says which.
    """
    messages = literal(messages, "messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("'messages' must be a list of at least one message")
    return [turn for turns in read_each(messages) for turn in turns]


def read_each(messages: Sequence[Any]) -> Iterator[list[Message]]:
    """Yield the turns of each message.

    Raises:
        InputError: one of them can't be read; says which.
    """
    for n, one in enumerate(messages):
        try:
            if isinstance(one, Message):
                yield [one.model_copy(update={"content": clean_text(one.content)})]
            else:
                yield read_turns(one)
        except InputError as error:
            raise InputError(f"message {n} {error}") from error


def corrected(chosen: Sequence[Message], rejected: Sequence[Message], **told: Any) -> Chat:
    """Return the rejected answer with the chosen one as its correction.

    Where the conversations part earlier than at their last answers, the first answers that differ
    are taken: up to there both answered the same.

    Raises:
        Passed: both are equal, or one is empty.
        InputError: nothing in them can be compared.
    """
    for n, (better, worse) in enumerate(zip(chosen, rejected, strict=False)):
        if better.role != worse.role:
            break
        if better.content.strip() == worse.content.strip():
            continue
        if worse.role != "assistant":
            raise InputError("the two conversations differ before their answers do")
        if not better.content.strip() or not worse.content.strip():
            raise Passed("no_answer")
        edit = {"correction": better.content}
        return Chat(list(rejected[: n + 1]), feedback=[edit], **told)
    if [m.content.strip() for m in chosen] == [m.content.strip() for m in rejected]:
        raise Passed("tie")
    raise InputError("the two conversations have no answers that can be compared")


class Thumb(Feedback):
    """Feedback whose score, if any, is a thumb for sure: a word or a truth value told it."""


def feedback_of(run_id: Any, name: Any, stamp: Any, **fields: Any) -> Feedback:
    """Return a row of feedback by itself; a score outside 0 to 1 becomes a value.

    Args:
        run_id: names the answer, as in ``handler.feedback``.
        name: the row's own id; None: one is made of what it says.
        stamp: its time, for :func:`time_of`.
        fields: of ``records.Feedback``; None leaves one out.

    Raises:
        InputError: it says nothing, names no run, or a value is of the wrong type.
    """
    fields = {k: map_texts(v, clean_text) for k, v in fields.items() if v is not None}
    score = fields.get("score")
    kind = Thumb if isinstance(score, bool) or number(score) is None else Feedback
    if isinstance(score, str):  # in a table
        read = number(score) if thumb(score) is None else thumb(score)
        if read is None:
            raise InputError(f"the score {score[:40]!r} is no number")
        score = fields["score"] = read
    if isinstance(score, int | float) and not isinstance(score, bool) and not 0 <= score <= 1:
        fields.setdefault("value", fields.pop("score"))
    if isinstance(fields.get("value"), Mapping | list):
        fields["value"] = json.dumps(fields["value"], ensure_ascii=False)
    if isinstance(fields.get("value"), float) and not math.isfinite(fields["value"]):
        raise InputError("the value is not finite")
    if is_evaluator(fields.get("source")):
        fields.pop("user_id", None)
    run = run_ref(run_id) if isinstance(run_id, str) else ""
    # The id of a row without one is made of what LangSmith's rows have; source and user are not.
    said_ = {k: v for k, v in fields.items() if k not in ("source", "user_id")}
    text = json.dumps(said_, sort_keys=True, default=str, ensure_ascii=False)
    try:
        checked = check_feedback(
            run_id=run,
            feedback_id=str(name) if name else uuid5(SPACE, f"{run}\0{clean_text(text)}").hex,
            **fields,
        )
    except ValidationError as error:
        raise InputError(reason_of(error)) from error
    return kind(**{**checked.model_dump(), "created_at": time_of(stamp) or checked.created_at})


def scores_in(row: Row) -> list[Any]:
    """Return the scores of a row that has them by name: Langfuse's, Braintrust's, Helicone's.

    Nothing says who gave them, and most are evaluators'.
    """
    return [
        {"name": name, "value": as_object(value).get("value", value), "source": EVALUATED}
        for name, values in as_object(row.get("scores")).items()
        for value in (values if isinstance(values, list) else [values])
        if value is not None
    ]


RATINGS = ("rating", "thumb", "thumbs", "vote", "score", "feedback_rating", "feedback_score",
           "feedbackScore")  # fmt: skip
COMMENTS = ("comment", "feedback_comment", "feedback_text", "feedbackContent")
"""Fields by which apps rate an answer, beside it or in its feedback."""
FEEDBACK = ("feedback", "feedbacks", "user_feedback", "request_feedback", "feedback_scores",
             "assessments")  # fmt: skip
"""Fields in which apps keep what was said of an answer."""
_RESPONSES = ".responses"


def feedback_in(row: Row) -> list[Any]:
    """Return what a row or a message says of its answer: its feedback, and a rating beside it."""
    weave = as_object(as_object(row.get("summary")).get("weave"))
    note = as_object(row.get("annotation"))  # Open WebUI's and Dify's
    found: list[Any] = []
    scores = row["scores"] if objects(row.get("scores")) else ()
    scores = [{"source": one.get("type"), **one} for one in scores]  # Literal AI's
    for given in (*map(row.get, FEEDBACK), note, scores, weave.get("feedback")):
        if given not in (None, "", {}):
            found += given if isinstance(given, list) else [given]
    found = [one for one in found if not _is_other(as_object(one))]
    found += _responses(row)
    beside = {"rating": first(row, *RATINGS), "comment": first(row, *COMMENTS)}
    known = {k: v for k, v in beside.items() if isinstance(v, str | bool | int | float) and v != ""}
    return [*found, known] if known else found


def _responses(row: Row) -> Iterator[Row]:
    """What annotators handed in on a record of Argilla: a column a question, a list of answers."""
    for column in row:
        answers = row[column] if column.endswith(_RESPONSES) else None
        if not isinstance(answers, list):
            continue
        beside = (row.get(f"{column}.{name}") for name in ("users", "status"))
        users, ends = (one if isinstance(one, list) else [] for one in beside)
        for value, who, end in zip_longest(answers, users, ends):
            told = as_object(value)  # of a record; a table has the value alone
            value, who = told.get("value", value), told.get("user_id", who)
            if told.get("status", end) not in (None, "submitted"):
                continue
            words = isinstance(value, str) and thumb(value) is None
            if isinstance(value, Mapping | list):  # several labels, a ranking, spans
                value = json.dumps(value, ensure_ascii=False)
            given = {"value": None if words else value, "comment": value if words else None}
            yield {"name": column.removesuffix(_RESPONSES), "user_id": who, **given}


def _is_other(one: Row) -> bool:
    """Whether it is a result of Weave's scorers, or MLflow's ground truth, and no feedback."""
    return str(one.get("feedback_type")).startswith("wandb.runnable.") or "expectation" in one


_UP = {"true", "1", "1.0", "up", "thumbsup", "thumb_up", "thumbs_up", "positive", "like", "liked",
       "👍", "upvote", "good"}  # fmt: skip
_DOWN = {"false", "0", "0.0", "-1", "-1.0", "down", "thumbsdown", "thumb_down", "thumbs_down",
         "negative", "dislike", "disliked", "👎", "downvote", "bad"}  # fmt: skip


_SKIN = re.compile("[\U0001f3fb-\U0001f3ff\ufe0f]")
"""What a keyboard adds to a thumb: its colour, and that it is a picture."""


def thumb(value: Any) -> float | None:
    """Return 1 for a thumb up, 0 for a thumb down, in the words of the formats; None: neither."""
    word = _SKIN.sub("", str(value)).strip().strip(": ").lower().replace(" ", "_")
    word = word.replace("-", "_" if word[:1] != "-" else "-")
    return 1.0 if word in _UP else 0.0 if word in _DOWN else None


def literal(value: Any, name: str) -> Any:
    """Return what a text column holds: JSON, or a Python literal (MemoryBench on the hub).

    Raises:
        InputError: it is neither.
    """
    if not isinstance(value, str):
        return value
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return parse(value)
    raise InputError(f"{name!r} is a text that is neither JSON nor a Python literal")


def number(value: Any) -> float | None:
    """Return the finite number that a value is or names; None: it is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""From this number on since 1970 it counts nano-, micro- or milliseconds: seconds would be the year
5000."""


def time_of(value: Any) -> datetime | None:
    """Return the time that a value names; None for None and empty text.

    Args:
        value: ISO 8601 text (UTC where it names no zone), seconds, milli-, micro- or nanoseconds
            since 1970 as a number or text, or MongoDB's ``{"$date": ...}``.

    Raises:
        InputError: it is no time.
    """
    if isinstance(value, Mapping):
        value = first(value, "$date", "$numberLong", "seconds", "_seconds")
        if isinstance(value, Mapping):
            value = value.get("$numberLong")
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    try:
        if isinstance(value, str) and value.strip().lstrip("-").replace(".", "", 1).isdecimal():
            value = float(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = next((value / unit for least, unit in _UNITS if abs(value) >= least), value)
            return datetime.fromtimestamp(seconds, timezone.utc)
        found = _parsed_time(str(value).strip())
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise InputError(
            f"{str(value)[:40]!r} is not a time (give ISO 8601 or seconds since 1970)"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


_OFFSET = re.compile(r"(:\d\d(?:\.\d+)?) ?([+-]\d\d):?(\d\d)?$")
_ISO = TypeAdapter(datetime)
_JAVASCRIPT = re.compile(r"\w{3} (\w{3}) (\d+) (\d{4}) ([\d:]+) GMT([+-]\d{4}).*")


def _parsed_time(text: str) -> datetime:
    if told := _JAVASCRIPT.fullmatch(text):  # as a Date becomes a text
        month, day, year, clock, zone = told.groups()
        return parsedate_to_datetime(f"{day} {month} {year} {clock} {zone}")
    if text[:1].isalpha():  # of HTTP and mail
        return parsedate_to_datetime(text)
    # With "+00" and "+0000" behind a blank, which pydantic's ISO 8601 lacks.
    text = _OFFSET.sub(lambda m: f"{m[1]}{m[2]}:{m[3] or '00'}", text.removesuffix(" UTC"))
    return _ISO.validate_python(text)
