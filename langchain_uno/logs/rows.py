"""From one row of a file to records.

A reader of :mod:`langchain_uno.logs.readers` finds the conversations and the feedback in the row;
here every answer becomes an ``Interaction`` and each later user turn feedback of the answer before.

Run ids are made from the row's id and content (UUID version 5), so a row read twice is one record;
logs of runs keep theirs, so that feedback lands whichever comes first.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid5

from pydantic import ValidationError

from langchain_uno.errors import InputError, bad_value
from langchain_uno.logs.capture import check_feedback, feedback_key
from langchain_uno.logs.conversation import MAX_ID, language_of, run_name, run_ref, user_turn
from langchain_uno.logs.filters import is_evaluator
from langchain_uno.logs.join import follow_up
from langchain_uno.logs.names import USER_KEYS, first_name
from langchain_uno.logs.readers import OURS, reader_of
from langchain_uno.logs.readers.base import (
    COMMENTS,
    FORMAT,
    MADE,
    RATINGS,
    SPACE,
    Chat,
    Found,
    Passed,
    Reader,
    Row,
    Thumb,
    as_object,
    feedback_in,
    feedback_of,
    first,
    literal,
    number,
    read_each,
    thumb,
    time_of,
    told_as_input,
)
from langchain_uno.logs.readers.bodies import REASONS, cut_off
from langchain_uno.messages import clean_text, map_texts, without_thinking
from langchain_uno.records import SCHEMA_VERSION, Feedback, Interaction, Message

_WORDS = ("text", "content", "reason", "rationale", "explanation", "note")
_SPEAKERS = ("wb_user_id", "created_by", "source_id")
"""Fields of a piece of feedback that hold its words, and whoever gave it."""
_MIN_UNIQUE = 16
"""A message's own id is taken for unique from this length on: "m2" is in every conversation."""


@dataclass
class Parsed:
    """What a row holds."""

    format: str
    interactions: list[Interaction] = field(default_factory=list)
    """With their feedback, oldest first."""
    feedback: list[Feedback] = field(default_factory=list)
    """By itself: its answer lies elsewhere."""
    passed: Counter[str] = field(default_factory=Counter)
    """What was passed over, by reason."""
    repeats: bool = True
    """Whether an answer may be one that another row has already; runs with ids are not."""


def parse_row(row: Any, now: datetime, namespace: str, reader: Reader | None = None) -> Parsed:
    """Return what a row holds.

    Args:
        row: a parsed JSON object.
        now: when the import began; used where the row names no time.
        namespace: of the home that takes them in.
        reader: of the row's format; None: the shape tells.

    Raises:
        InputError: the row has none of the known forms, or its words or its answer can't be found;
            the message says what is wrong.
    """
    with told_as_input():
        if not isinstance(row, Mapping):
            raise InputError(f"a row must be a JSON object, not {type(row).__name__}")
        if row.get("format") == FORMAT:
            return Parsed(OURS.name, [_own(row, namespace)], repeats=False)
        reader = reader or reader_of(row)
        return _records(reader.name, reader.read(row), now, namespace)


def group_of(row: Any, reader: Reader | None = None) -> tuple[Reader, str] | None:
    """Return the conversation that a row is one message of; None: the row is whole.

    Raises:
        InputError: the row has none of the known forms, or names no conversation.
    """
    if not isinstance(row, Mapping) or row.get("format") == FORMAT:
        return None
    with told_as_input():
        reader = reader or reader_of(row)
        name = reader.group(row) if reader.group else None
    return (reader, clean_text(name)) if name is not None else None


def parse_group(rows: Sequence[Row], now: datetime, namespace: str, reader: Reader) -> Parsed:
    """Return what the messages of one conversation hold together; see :func:`parse_row`.

    Raises:
        InputError: as :func:`parse_row`.
    """
    assert reader.join is not None
    with told_as_input():
        return _records(reader.name, reader.join(rows), now, namespace)


def _records(name: str, found: Iterable[Found], now: datetime, namespace: str) -> Parsed:
    out = Parsed(name)
    try:
        for one in found:
            if isinstance(one, Feedback):
                out.feedback.append(one)
            elif isinstance(one, Passed):
                out.passed[str(one)] += 1
            else:
                out.repeats = not one.last_only
                out.interactions += _dialog(one, now, namespace, out.passed)
    except Passed as passed:
        out.passed[str(passed)] += 1
    return out


def _own(row: Row, namespace: str) -> Interaction:
    schema = row.get("schema_version")
    if not isinstance(schema, int) or schema > SCHEMA_VERSION:
        raise InputError(
            f"its schema_version is {schema!r}, this release knows up to {SCHEMA_VERSION}: upgrade "
            "langchain-uno if it was exported by a newer release"
        )
    fields = {**row, "verdict": None}
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("'messages' must be the prompt followed by the answer")
    fields["messages"] = messages[:-1]
    fields["namespace"] = namespace
    try:
        found = Interaction.model_validate(map_texts(fields, clean_text))
    except ValidationError as error:
        raise InputError(bad_value(error)) from error
    found.run_id = _without_nul(found.run_id)
    found.root_run_id = found.root_run_id and _without_nul(found.root_run_id)
    found.message_ids = [_without_nul(one) for one in found.message_ids]
    for f in found.feedback:
        f.feedback_id, f.run_id = _without_nul(f.feedback_id), _without_nul(f.run_id)
        if f.score is not None and not 0.0 <= f.score <= 1.0:
            raise InputError(f"a score must lie between 0 and 1, not {f.score!r}")
    for name in (found.run_id, *(f.feedback_id for f in found.feedback)):
        if not 0 < len(name) <= MAX_ID:
            raise InputError(f"an id must have 1 to {MAX_ID} characters")
    return found


def _dialog(chat: Chat, now: datetime, namespace: str, passed: Counter[str]) -> list[Interaction]:
    """Return a record an answer, with feedback; ``passed`` counts what holds none, by reason.

    Raises:
        InputError: a message can't be read, or nobody asked or answered.
    """
    found = _with_words(chat, passed)
    if found is None:
        return []
    turns, about, whole, lost = found
    answers = [n for n, m in enumerate(turns) if m.role == "assistant"]
    if not answers:
        raise InputError("there is no assistant turn")
    # A greeting of the app answers nobody.
    answers = [n for n in answers if any(m.role == "user" for m in turns[:n])]
    if not answers:
        raise InputError("there is no user turn before the first answer")
    if chat.last_only:
        answers = answers[-1:]
    tags = {clean_text(str(k)): clean_text(str(v)) for k, v in chat.tags.items()}
    # "lang": what a person said of the row; "en"/"english" and the like are understood.
    language = _language(chat.language)
    thread, user, model = (_id(v) for v in (chat.thread, chat.user, chat.model))
    start = _time(chat.created_at, passed) or now
    own_id = run_ref(_id(chat.run_id)) if chat.run_id else None
    who_where = [tags.get("dataset", ""), thread or "", user or ""]
    out: list[Interaction] = []
    for at in answers:
        prompt, said = turns[:at], turns[at]
        # A call of a tool is one step of its user's conversation, in whichever rows it stands.
        told_apart = "" if user and not said.content.strip() else clean_text(chat.id)
        name = "\0".join([told_apart, *who_where])
        run_id = _unique(about[at].get("id")) or _run_id(name, turns[: at + 1])
        ids = [_unique(about[at].get("id")), *(chat.names if at == answers[-1] else ())]
        stamp = _time(first(about[at], *MADE), passed) or start
        if out and stamp <= out[-1].created_at:
            stamp = out[-1].created_at + timedelta(microseconds=1)
        error = cut_off(about[at])
        if whole and at == answers[-1]:
            error = _id(chat.error) or error or cut_off({k: tags.get(k) for k in REASONS})
        run_id = own_id if own_id and at == answers[-1] else run_id
        out.append(
            Interaction(
                run_id=run_id,
                message_ids=[one for one in dict.fromkeys(ids) if one and one != run_id],
                root_run_id=_id(chat.root_run_id),
                messages=prompt,
                answer=said.content,
                tool_calls=said.tool_calls,
                namespace=namespace,
                thread_id=thread,
                user_id=_asker(about[:at], user),
                model=model,
                language=language
                or language_of([m.content for m in prompt if m.role == "user"], said.content),
                error=error,
                tags=tags,
                created_at=stamp,
            )
        )
    for n, (one, later) in enumerate(pairwise(out)):
        if text := _between(turns[answers[n] + 1 : answers[n + 1]]):
            one.feedback.append(follow_up(one.run_id, later, text))
    end = out[-1]
    if last := _between(turns[answers[-1] + 1 :]):
        later = end.model_copy(
            update={
                "run_id": str(uuid5(SPACE, end.run_id + "\0" + last)),
                "user_id": _asker(about, user),
                "created_at": end.created_at + timedelta(microseconds=1),
            }
        )
        end.feedback.append(follow_up(end.run_id, later, last))
    for one, at in zip(out, answers, strict=True):
        _add_explicit(feedback_in(about[at]), [one], one.user_id, passed)
    _add_explicit(chat.feedback, out, user, passed, lost)
    _add_implicit(chat.implicit, out)
    return out


def _with_words(
    chat: Chat, passed: Counter[str]
) -> tuple[list[Message], list[Row], bool, int] | None:
    """Return the turns up to one without words, and for each the message that it comes from.

    Nobody can say what was answered after such a turn. Where what is told of the last answer would
    go to another one, nothing can be imported: it is counted.

    Returns:
        The turns; their messages; whether nothing is left out; how many answers at the end have no
        words. None: there is nothing to import.

    Raises:
        InputError: a message can't be read.
    """
    turns, about = _turns(chat)
    lost = 0  # answers to a user turn that nothing is left of
    while turns and turns[-1].role != "tool" and _is_empty(turns[-1]):
        own = chat.last_only or chat.run_id or all(m.role != "assistant" for m in turns[:-1])
        if turns.pop().role != "assistant":
            continue
        if own:
            passed["no_answer"] += 1
            return None
        passed["no_answer"] += len(feedback_in(about[len(turns)]))
        lost += turns[-1].role != "assistant"
    spoken = ("user", "assistant")
    empty = next((n for n, m in enumerate(turns) if m.role in spoken and _is_empty(m)), None)
    if empty is None:
        return turns, about, not lost, lost
    passed["empty_turn"] += 1
    # What is told of the last answer must not go to another one.
    told = chat.last_only or chat.run_id or chat.feedback or chat.implicit
    if told or all(m.role != "assistant" for m in turns[:empty]):
        return None
    return turns[:empty], about, False, lost


def _asker(about: Sequence[Row], user: str | None) -> str | None:
    """Return whom the latest message names that names anybody, else the conversation's user."""
    return next((who for m in reversed(about) if (who := _id(m.get("user_id")))), user)


def _turns(chat: Chat) -> tuple[list[Message], list[Row]]:
    """The turns with words, and for each the message that it comes from.

    Raises:
        InputError: a message can't be read.
    """
    turns: list[Message] = []
    about: list[Row] = []
    for given, found in zip(chat.messages, read_each(chat.messages), strict=True):
        own = given if isinstance(given, Mapping) else {}
        # Steps with tools share a message; its id and feedback are the last one's.
        step = {"user_id": own.get("user_id"), "created_at": first(own, *MADE)}
        for at, one in enumerate(found, 1):
            if one.role != "system" or one.content.strip():
                tried = turns and turns[-1].role == one.role == "assistant"
                if tried and _is_empty(turns[-1]):  # a first try without words
                    turns.pop()
                    about.pop()
                turns.append(one)
                about.append(own if at == len(found) else step)
    return turns, about


def _time(value: Any, passed: Counter[str]) -> datetime | None:
    """The time that a value names; a text that names none is counted, and costs no more."""
    try:
        return time_of(value)
    except InputError:
        passed["bad_time"] += 1
        return None


def _is_empty(message: Message) -> bool:
    return not without_thinking(message.content).strip() and not message.tool_calls


def _between(turns: Sequence[Message]) -> str:
    return user_turn([Message(role="assistant", content="."), *turns])


def _id(value: Any) -> str | None:
    text = _without_nul(clean_text(str(value)))
    return text[:MAX_ID] if value not in (None, "") else None


def _without_nul(text: str) -> str:
    return text.replace("\0", "\ufffd")  # see run_ref


def _unique(value: Any) -> str | None:
    if not isinstance(value, str) or not _MIN_UNIQUE <= len(value) <= MAX_ID:
        return None
    return run_ref(clean_text(value))


def _run_id(name: str, turns: Sequence[Message]) -> str:
    content = json.dumps(
        [[m.role, m.content, m.tool_calls, m.tool_call_id] for m in turns],
        ensure_ascii=False,
        sort_keys=True,
    )
    return str(uuid5(SPACE, name + "\0" + content))


def _language(value: Any) -> str | None:
    word = re.split("[-_]", value.strip().lower())[0] if isinstance(value, str) else ""
    chinese = ("chinese", "mandarin", "cn", "zho", "chi", "cmn")  # zho, eng: as in FLORES
    none = dict.fromkeys(("und", "mul", "mis", "zxx"), "")  # ISO 639: unknown, several, no language
    word = {"english": "en", "eng": "en", **none, **dict.fromkeys(chinese, "zh")}.get(word, word)
    # Of another name ("Simplified Chinese") nothing is made: what is said tells the language.
    return word if word.isalpha() and word.isascii() and len(word) in (2, 3) else None


# -- feedback --------------------------------------------------------------------------------------


def _add_explicit(
    given: Any, out: list[Interaction], user: str | None, passed: Counter[str], lost: int = 0
) -> None:
    """Add feedback to a row's interactions: objects, texts (comments) or scores.

    ``lost``: so many answers after the last of them had no words; feedback on those is counted.

    Raises:
        InputError: one of them can't be understood.
    """
    if given is None or given == "":
        return
    for n, one in enumerate(given if isinstance(given, list) else [given]):
        if isinstance(one, str):
            rates = thumb(one) is not None or number(one) is not None
            one = {"rating" if rates else "comment": one}
        elif isinstance(one, bool | int | float):
            one = {"score" if 0 <= one <= 1 else "rating": one}
        if not isinstance(one, Mapping):
            raise InputError(f"feedback {n} must be an object, a text or a score")
        for inner in ("payload", "feedback", "source"):  # of Weave and MLflow
            one = {**one, **as_object(one.get(inner))}
        fields = {k: one.get(k) for k in Feedback.model_fields if k in one}
        if "value" in one and (name := first(one, "key", "name", "assessment_name")):
            fields["key"] = name
        fields.pop("source", None)
        sources = (one.get(k) for k in ("source_type", "annotator_kind", "source"))
        if source := next((name for name in sources if isinstance(name, str)), None):
            fields["source"] = source
        fields["user_id"] = first_name((*USER_KEYS, *_SPEAKERS), one) or user
        if is_evaluator(source):
            fields["user_id"] = None
        fields["created_at"] = first(one, *MADE)
        kind = Thumb if _add_rating(one, fields) else Feedback
        said = feedback_key({**fields, "key": one.get("key")}) or fields.get("value") is not None
        if not said and any(k in one for k in (*RATINGS, "value", *COMMENTS)):
            passed["empty_rating"] += 1
            continue
        about = _about(one, out, n, lost)
        if about is None:
            passed["no_answer"] += 1
            continue
        later = about.created_at + timedelta(microseconds=2 + n)
        stamp = _time(fields.pop("created_at", None), passed) or later
        fields["run_id"] = about.run_id
        text = json.dumps(fields, sort_keys=True, default=str, ensure_ascii=False)
        own_id = uuid5(SPACE, f"{about.run_id}\0{n}\0{clean_text(text)}").hex
        fields.setdefault("feedback_id", own_id)
        try:
            checked = check_feedback(**{k: v for k, v in fields.items() if v is not None})
        except (InputError, ValidationError) as error:
            raise InputError(f"feedback {n}: {error}") from error
        about.feedback.append(kind(**{**checked.model_dump(), "created_at": stamp}))


def _add_rating(one: Row, fields: dict[str, Any]) -> bool:
    """Read what apps call a score and a comment; a rating outside 0 to 1 is a value.

    Returns:
        Whether the score was told by a word or a truth value: no scale has those.
    """
    rating = fields.get("score")
    if rating in (-1, "-1"):
        fields["score"] = 0.0
    elif isinstance(rating, str):
        fields["score"] = None
    if fields.get("score") is None:
        # A value that is called nothing is a rating, as Portkey and Chainlit have it.
        rating = first(one, *RATINGS, "emoji", *(() if one.get("key") else ("value",)))
        if (score := _fraction(rating)) is not None:
            fields["score"] = score
            fields.pop("value", None)
        elif rating not in (None, ""):
            stars = number(rating)
            fields.setdefault("value", rating if stars is None else stars)
            fields.setdefault("key", "rating")
    if isinstance(one.get("question"), str) and one.get("content"):  # Dify: an edited answer
        fields["correction"] = one["content"]
    elif fields.get("comment") is None and (words := first(one, *COMMENTS, *_WORDS)) is not None:
        fields["comment"] = words
    return isinstance(rating, bool) or (isinstance(rating, str) and number(rating) is None)


def _fraction(rating: Any) -> float | None:
    """A thumb or a number from 0 to 1 as a score; None: the rating has another scale."""
    score = thumb(rating)
    share = number(rating) if score is None else score
    return share if share is not None and 0 <= share <= 1 else None


def _about(one: Row, out: list[Interaction], n: int, lost: int) -> Interaction | None:
    """The answer that is meant: by run_id, by ``turn`` (of the answers, from 0), else the last.

    None: it is one of the ``lost`` answers that came after them.
    """
    if one.get("run_id"):
        wanted = run_name(one["run_id"])
        for interaction in out:
            if run_name(interaction.run_id) == wanted:
                return interaction
    count = len(out) + lost
    turn = -1 if one.get("turn") is None else one["turn"]
    if isinstance(turn, bool) or not isinstance(turn, int) or not -count <= turn < count:
        raise InputError(f"feedback {n} names turn {turn!r}; there are {count} answers")
    at = turn % count
    return out[at] if at < len(out) else None


def _add_implicit(row: Row, out: list[Interaction]) -> None:
    """Add MemoryBench's ``{round, implicit_action(s), terminated, satisfaction_score}``.

    Raises:
        InputError: the column is no list of objects.
    """
    name = next((k for k in row if k.startswith("implicit_feedback")), None)
    given = literal(row.get(name), name) if name else None
    if given in (None, ""):
        return
    if not isinstance(given, list) or not all(isinstance(g, Mapping) for g in given):
        raise InputError(f"{name!r} must be a list of objects")
    rounds = [g.get("round") for g in given]
    first = min((r for r in rounds if isinstance(r, int)), default=0)
    for n, one in enumerate(given):
        turn = rounds[n] - min(first, 1) if isinstance(rounds[n], int) else n
        if not 0 <= turn < len(out):
            continue  # a round that was cut off before its answer
        about = out[turn]
        actions = one.get("implicit_actions", one.get("implicit_action")) or []
        told = actions if isinstance(actions, list) else [actions]
        scores = {"like": 1.0, "dislike": 0.0, "copy": None}
        found: list[dict[str, Any]] = [
            {"key": one, "score": scores[one]} for one in told if one in tuple(scores)
        ]
        satisfied = one.get("satisfaction_score")
        if isinstance(satisfied, int | float) and not isinstance(satisfied, bool):
            found.append({"key": "satisfaction", "value": float(satisfied)})
        for at, fields in enumerate(found):
            one_id = uuid5(SPACE, f"{about.run_id}\0implicit\0{n}\0{fields['key']}").hex
            stamp = about.created_at + timedelta(microseconds=2 + 4 * n + at)
            said = feedback_of(about.run_id, one_id, stamp, source="implicit", **fields)
            about.feedback.append(said)
