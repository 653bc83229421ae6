"""Preferences: pairs of a chosen and a rejected answer, thumbs of a data set, judged answers.

The rejected answer becomes the record and the chosen one its correction: that is an edit, and edits
teach as pairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.logs.readers.base import (
    Chat,
    Found,
    Passed,
    Reader,
    Row,
    about,
    corrected,
    first,
    literal,
    number,
    read_all,
    thumb,
    without,
)
from langchain_uno.logs.readers.bodies import asked
from langchain_uno.records import Message

_SPEAKER = re.compile(r"\n\n(Human|Assistant|System):")


def _told(row: Row) -> dict[str, Any]:
    name = first(row, "id", "prompt_id", "question_id")
    return {"id": str(name or ""), **about(row, row.get("metadata"))}


def _transcript(text: str) -> list[Message] | None:
    """The turns of hh-rlhf's texts; None: it is none."""
    parts = _SPEAKER.split("\n\n" + text.lstrip())
    if len(parts) < 3 or parts[0].strip():
        return None
    turns = zip(parts[1::2], parts[2::2], strict=True)
    found = read_all([{"role": role, "content": said.strip()} for role, said in turns])
    return found[:-1] if found[-1].role == "assistant" and not found[-1].content else found


def _column(value: Any) -> Any:
    """What a CSV cell holds where it is a list or an object."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return literal(value, "column")
        except InputError:
            return value  # words that begin with a bracket
    return value


def prompt_of(row: Row) -> list[Message]:
    """Return what was asked, in the names of Alpaca, TRL, LLaMA-Factory, ms-swift and others.

    Raises:
        InputError: a part of it is of another form.
    """
    system = first(row, "system", "system_prompt")
    history = _column(row.get("history")) or []
    names = ("prompt", "conversations", "messages", "instruction", "query", "question",
             "user_query", "input")  # fmt: skip
    name = next((n for n in names if row.get(n) is not None), "")
    given = _column(row.get(name))
    more = first(row, "context") if name == "input" else first(row, "input", "context")
    if isinstance(given, str) and isinstance(more, str) and more.strip():
        given = f"{given}\n\n{more}"
    turns: list[Message] = []
    if isinstance(given, str):
        turns = _transcript(given) or [Message(role="user", content=given)]
    elif given:
        turns = read_all(given)
    for pair in reversed(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError("'history' must be a list of pairs of a question and its answer")
        turns = [
            Message(role="user", content=str(pair[0])),
            Message(role="assistant", content=str(pair[1] or "")),
            *turns,
        ]
    if system and turns and turns[0].role != "system":
        turns = [Message(role="system", content=str(system)), *turns]
    return turns


def _side(prompt: Sequence[Message], value: Any, name: str) -> list[Message]:
    """One side of a pair as a whole conversation."""
    value = _column(value)
    if isinstance(value, str):
        if whole := _transcript(value):
            return whole
        if not prompt:
            raise InputError(f"there is no 'prompt', and {name!r} is no conversation")
        return [*prompt, Message(role="assistant", content=value)]
    if isinstance(value, Mapping):
        if not {"role", "from"} & value.keys():
            value = {"role": "assistant", **value}
        value = [value]
    turns = read_all(value)
    if turns[0].role in ("user", "system"):
        alone = turns[0].role == "user" and prompt and prompt[0].role == "system"
        return [prompt[0], *turns] if alone else turns
    if not prompt:
        raise InputError(f"there is no 'prompt', and {name!r} begins with an answer")
    return [*prompt, *turns]


_BETTER = ("chosen", "chosen_response", "preferred_output")
_WORSE = ("rejected", "rejected_response", "non_preferred_output")


def _pair(row: Row) -> Iterable[Found]:
    scores = (
        first(row, "score_chosen", "chosen_score", "chosen_rating", "chosen-rating"),
        first(row, "score_rejected", "rejected_score", "rejected_rating", "rejected-rating"),
    )
    if None not in scores and scores[0] == scores[1]:
        raise Passed("tie")
    chosen, rejected = first(row, *_BETTER), first(row, *_WORSE)
    if not chosen or not rejected:
        raise Passed("no_answer")
    prompt = prompt_of(without(row, {"messages"}))
    yield corrected(
        _side(prompt, chosen, "chosen"), _side(prompt, rejected, "rejected"), **_told(row)
    )


def _openai(row: Row) -> Iterable[Found]:
    prompt = asked(row.get("input"))
    if prompt is None:
        raise InputError("'input' has no 'messages'")
    beside = row["input"] if isinstance(row["input"], Mapping) else {}
    yield from _pair({**row, **beside, "prompt": prompt, "input": None})


def _rated(row: Row) -> Iterable[Found]:
    """An answer with a thumb, or with a worse one beside it."""
    answer = first(row, "completion", "response", "output")
    if row.get("messages") or answer is None:
        chosen = prompt_of(row)
        prompt = chosen[:-1]
    else:
        prompt = prompt_of(row)
        chosen = _side(prompt, answer, "completion")
    worse = first(row, "rejected_response", "rejected_messages")
    if worse:
        if isinstance(worse, list) and all(isinstance(w, str) for w in worse):
            worse = worse[0]
        yield corrected(chosen, _side(prompt, worse, "rejected_response"), **_told(row))
        return
    label = first(row, "label", "kto_tag")
    score = thumb(label)
    if label is not None and score is None:
        raise InputError(f"the label {str(label)[:40]!r} is neither true nor false")
    said = [{"key": "thumb", "score": score}] if score is not None else []
    yield Chat(chosen, feedback=said, **_told(row))


def _is_ms_swift(row: Row) -> bool:
    rejected = bool({"rejected_response", "rejected_messages"} & row.keys())
    return ("messages" in row and (rejected or _is_label(row))) or (
        {"query", "response"} <= row.keys() and "messages" not in row
    )


def _is_label(row: Row) -> bool:
    """Whether the label is a thumb: a number may be the class of a classifier."""
    return str(row.get("label")).lower() in ("true", "false")


# -- LMArena ---------------------------------------------------------------------------------------


def _arena(row: Row) -> Iterable[Found]:
    winner = str(row.get("winner", "")).lower()
    if not winner:  # a column a winner, as on Kaggle
        columns = ("winner_model_a", "winner_model_b", "winner_tie")
        winner = next((c[7:] for c in columns if thumb(row.get(c)) == 1), "")
    if "tie" in winner or "bad" in winner:
        raise Passed("tie")
    if winner not in ("model_a", "model_b"):
        raise InputError(f"the winner {winner[:40]!r} is neither model_a, model_b nor a tie")
    if row.get("toxic") is True or is_flagged(row.get("openai_moderation")):
        raise Passed("toxic")
    sides = {name: _arena_side(row, name) for name in ("a", "b")}
    won, lost = ("a", "b") if winner == "model_a" else ("b", "a")
    about = {**_told(row), "model": row.get(f"model_{lost}")}
    about["user"] = about["user"] or row.get("judge")
    yield corrected(sides[won], sides[lost], **about)


def _arena_side(row: Row, name: str) -> list[Message]:
    if row.get(f"conversation_{name}") is not None:
        return read_all(_column(row[f"conversation_{name}"]))
    asked_, answers = _column(row.get("prompt")), _column(row.get(f"response_{name}"))
    asked_ = asked_ if isinstance(asked_, list) else [asked_]
    answers = answers if isinstance(answers, list) else [answers]
    out: list[Message] = []
    for question, answer in zip(asked_, answers, strict=False):
        out.append(Message(role="user", content=str(question or "")))
        out.append(Message(role="assistant", content=str(answer or "")))
    if not out:
        raise InputError(f"there is neither 'conversation_{name}' nor 'response_{name}'")
    return out


def is_flagged(value: Any) -> bool:
    """Whether OpenAI's moderation flagged a turn, or one of a list of them."""
    if isinstance(value, Mapping):
        return value.get("flagged") is True or any(map(is_flagged, value.values()))
    return isinstance(value, list) and any(map(is_flagged, value))


# -- UltraFeedback ---------------------------------------------------------------------------------


def _ultrafeedback(row: Row) -> Iterable[Found]:
    prompt = prompt_of({k: row[k] for k in ("instruction", "prompt", "system") if k in row})
    completions = [c for c in _column(row["completions"]) if isinstance(c, Mapping)]
    if not prompt or not completions:
        raise InputError("there is no instruction, or no completion that is an object")
    rated = [(c, number(c.get("overall_score"))) for c in completions]
    scores = [score for _, score in rated if score is not None]
    best = next((c for c, s in rated if scores and s == max(scores)), None)
    worst = next((c for c, s in rated if scores and s == min(scores) < max(scores)), None)
    for one, score in rated:
        text = first(one, "response", "completion", "text")
        if not isinstance(text, str) or not text.strip():
            yield Passed("no_answer")
            continue
        said: dict[str, Any] = {}
        if score is not None:  # of 1 to 10
            said["score"] = min(1.0, max(0.0, (score - 1) / 9))
        if words := _critique(one):
            said["comment"] = words
        if one is worst and best is not None and best.get("response"):
            said["correction"] = best["response"]
        yield Chat(
            [*prompt, Message(role="assistant", content=text)],
            feedback=[{"key": "critique", **said}] if said else [],
            tags={"dataset": str(row["source"])} if row.get("source") else {},
            **{**_told(row), "model": one.get("model")},
        )


def _critique(one: Row) -> str:
    """The words about a completion: its critique, else the reasons of its ratings."""
    if isinstance(one.get("critique"), str) and one["critique"].strip():
        return str(one["critique"])
    notes = one.get("annotations")
    found = notes.values() if isinstance(notes, Mapping) else notes or []
    reasons = [r for n in found if isinstance(n, Mapping) and (r := n.get("Rationale"))]
    return "\n".join(str(r) for r in reasons)


OPENAI_PREFERENCE = Reader("openai-preference", lambda row: "preferred_output" in row, _openai)
PAIRS = Reader(
    "pairs", lambda row: any(k in row for k in _BETTER) and any(k in row for k in _WORSE), _pair
)
KTO = Reader(
    "kto", lambda row: "kto_tag" in row or {"prompt", "completion", "label"} <= row.keys(), _rated
)
MS_SWIFT = Reader("ms-swift", _is_ms_swift, _rated)
LMARENA = Reader(
    "lmarena",
    lambda row: (
        {"conversation_a", "conversation_b"} <= row.keys()
        or {"response_a", "response_b"} <= row.keys()
    ),
    _arena,
)
ULTRAFEEDBACK = Reader(
    "ultrafeedback",
    lambda row: "completions" in row and bool({"instruction", "prompt"} & row.keys()),
    _ultrafeedback,
)
