"""The feedback of imported rows: lists of ours or LangSmith's form, and MemoryBench's actions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid5

from pydantic import ValidationError

from langchain_uno.errors import InputError
from langchain_uno.logs.capture import check_feedback
from langchain_uno.logs.conversation import run_ref
from langchain_uno.logs.row_values import SPACE, clean, literal, time_of
from langchain_uno.records import Feedback, Interaction

__all__ = ["add_explicit", "add_implicit"]


def add_explicit(row: Mapping[str, Any], out: list[Interaction], user: str | None) -> None:
    """Add the row's ``feedback`` to its interactions: objects, texts (comments) or scores.

    Raises:
        InputError: one of them can't be understood.
    """
    given = literal(row.get("feedback"), "feedback")
    if given is None or given == "":
        return
    for n, one in enumerate(given if isinstance(given, list) else [given]):
        if isinstance(one, str):
            one = {"comment": one}
        elif isinstance(one, bool | int | float):
            one = {"score": one}
        if not isinstance(one, Mapping):
            raise InputError(f"feedback {n} must be an object, a text or a score")
        fields = {k: one.get(k) for k in Feedback.model_fields if k in one}
        about = _about(one, out, n)
        stamp = time_of(fields.pop("created_at", None)) or about.created_at + timedelta(
            microseconds=2 + n
        )
        fields["run_id"] = about.run_id
        text = json.dumps(fields, sort_keys=True, default=str, ensure_ascii=False)
        fields.setdefault("feedback_id", uuid5(SPACE, f"{about.run_id}\0{n}\0{clean(text)}").hex)
        fields.setdefault("user_id", user)
        try:
            checked = check_feedback(**{k: v for k, v in fields.items() if v is not None})
        except (InputError, ValidationError) as error:
            raise InputError(f"feedback {n}: {error}") from error
        about.feedback.append(checked.model_copy(update={"created_at": stamp}))


def _about(one: Mapping[str, Any], out: list[Interaction], n: int) -> Interaction:
    """The answer that is meant: by run_id, by ``turn`` (of the answers, from 0), else the last."""
    if one.get("run_id"):
        wanted = run_ref(one["run_id"])
        for interaction in out:
            if interaction.run_id == wanted:
                return interaction
    turn = one.get("turn")
    if turn is None:
        return out[-1]
    if isinstance(turn, bool) or not isinstance(turn, int) or not -len(out) <= turn < len(out):
        raise InputError(f"feedback {n} names turn {turn!r}; there are {len(out)} answers")
    return out[turn]


def add_implicit(row: Mapping[str, Any], out: list[Interaction]) -> None:
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
        found: list[dict[str, Any]] = []
        for action in actions if isinstance(actions, list) else [actions]:
            if action in ("like", "dislike", "copy"):
                found.append({"key": action, "score": {"like": 1.0, "dislike": 0.0}.get(action)})
        satisfied = one.get("satisfaction_score")
        if isinstance(satisfied, int | float) and not isinstance(satisfied, bool):
            found.append({"key": "satisfaction", "value": float(satisfied)})
        for at, fields in enumerate(found):
            one_id = uuid5(SPACE, f"{about.run_id}\0implicit\0{n}\0{fields['key']}").hex
            checked = check_feedback(
                run_id=about.run_id, feedback_id=one_id, source="implicit", **fields
            )
            stamp = about.created_at + timedelta(microseconds=2 + 4 * n + at)
            about.feedback.append(checked.model_copy(update={"created_at": stamp}))
