"""Logs in and out of a home, through the journal alone: no model, no Chroma, no lease.

result = import_file(Path("chats.jsonl"), home)
for line in export_lines(home): print(line)
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from langchain_uno.errors import InputError
from langchain_uno.home import Home, load_settings
from langchain_uno.logs.filters import Supports, judge_all
from langchain_uno.logs.join import FOLLOW_UP, join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.redaction import Redactor, redactor_of
from langchain_uno.logs.rows import FORMAT, parse_row
from langchain_uno.logs.store import pending
from langchain_uno.models.prompts import get_prompt_set
from langchain_uno.recipe import FilterSettings
from langchain_uno.records import Interaction, utc_now

__all__ = ["ImportResult", "export_lines", "export_row", "find", "import_file", "stats"]

_BATCH = 100


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
    languages: dict[str, int] = field(default_factory=dict)
    redacted: dict[str, int] = field(default_factory=dict)
    bad: list[tuple[int, str]] = field(default_factory=list)
    """(line number from 1, reason); the other rows went in."""


def import_file(
    path: Path | str,
    home: Home,
    *,
    redactor: Redactor | None = None,
    on_row: Callable[[int], None] | None = None,
) -> ImportResult:
    """Read a JSONL file into the home's journal. Importing it again changes nothing.

    Args:
        path: the file; ``"-"`` reads standard input.
        home: made if missing.
        redactor: takes personal data out first; None: the default one.
        on_row: told how many more lines were read.

    Raises:
        InputError: the file can't be read. (Bad rows are in the result instead.)
        HomeError, StoreError: the home can't be written; the rows before stay in.
    """
    redact = redactor_of(home, redactor)
    result = ImportResult()
    now = utc_now()
    try:
        # No "with" for standard input: it isn't ours to close.
        source: BinaryIO = sys.stdin.buffer if str(path) == "-" else open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"The file {str(path)!r} can't be read ({error.strerror or error})."
        ) from error
    batch: list[tuple[Interaction, dict[str, int]]] = []
    try:
        with Journal(home.ensure().journal) as journal:
            for number, line in enumerate(source, 1):
                if line.strip():
                    result.rows += 1
                    try:
                        # Rows without a time of their own keep the order of the file.
                        at = now + timedelta(microseconds=20 * number)
                        found = parse_row(_json(line, number), at, home.namespace)
                    except InputError as error:
                        result.bad.append((number, str(error)))
                    else:
                        interactions, feedback = found
                        batch += [redact.interaction(i) for i in interactions]
                        for one in feedback:
                            clean, redacted = redact.feedback(one)
                            result.feedback += journal.append_feedback(
                                clean, redacted=redacted, replace=False
                            )
                if len(batch) >= _BATCH:
                    _write(journal, batch, result)
                if on_row:
                    on_row(1)
            _write(journal, batch, result)
    except IsADirectoryError as error:
        raise InputError(f"{str(path)!r} is a folder, not a file.") from error
    finally:
        if source is not sys.stdin.buffer:
            source.close()
    return result


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
        wanted: set[str] | None = None
        if usable_only:
            settings = FilterSettings()
            logs = list(read(journal, joined))
            judged = judge_all(journal, joined, logs, settings, _supports(home))
            wanted = {i.run_id for i, v in zip(logs, judged, strict=True) if v.usable}
        for interaction in read(journal, joined):
            if wanted is None or interaction.run_id in wanted:
                yield json.dumps(export_row(interaction), ensure_ascii=False)


def find(home: Home, run: str) -> dict[str, Any]:
    """Return one interaction as its export row, with its verdict and whether the index has it.

    Args:
        home: must exist.
        run: model run id, root run id (the answer that its user saw is shown) or message id.

    Raises:
        InputError: there is no such run.
        HomeError, StoreError: there is no home, or its journal can't be read.
    """
    with Journal(home.require().journal, readonly=True) as journal:
        joined = join(journal)
        wanted = journal.run_named(run)
        ids = [r.run_id for r in journal.rows() if wanted in (r.run_id, r.root_run_id)]
        if not ids:
            raise InputError(f"There is no run {wanted!r} in {str(home.path)!r}.")
        [log] = read(journal, joined, ids[-1:])
        settings = FilterSettings()
        [judged] = judge_all(journal, joined, [log], settings, _supports(home))
        known = journal.indexed().get(log.run_id)
        return {
            **export_row(log),
            "verdict": judged.model_dump(mode="json"),
            "indexed": known is not None and known == joined.digest(log.run_id),
        }


def stats(
    home: Home, settings: FilterSettings | None = None, *, verdict_counts: bool = True
) -> dict[str, Any]:
    """Count what a home's journal holds; see ``python -m langchain_uno.logs stats --help``.

    Raises:
        HomeError, StoreError: there is no home, or its journal can't be read.
    """
    settings = settings or FilterSettings()
    with Journal(home.require().journal, readonly=True) as journal:
        joined = join(journal)
        logs = list(read(journal, joined))
        judged = (
            judge_all(journal, joined, logs, settings, _supports(home)) if verdict_counts else []
        )
        feedback = [f for log in logs for f in log.feedback]
        reasons = Counter(v.reason for v in judged)
        return {
            "home": str(home.path),
            "namespace": home.namespace,
            "interactions": len(logs),
            "usable": reasons.get("ok", 0),
            "verdicts": _sorted(reasons),
            "languages": _sorted(Counter(log.language for log in logs)),
            "feedback": len(feedback),
            "feedback_kinds": _sorted(Counter(f.key for f in feedback)),
            "follow_ups": sum(1 for f in feedback if f.key == FOLLOW_UP),
            "corrections": sum(1 for f in feedback if f.correction),
            "scores": sum(1 for f in feedback if f.score is not None),
            "waiting_feedback": len(joined.waiting),
            "users": len({log.user_id for log in logs if log.user_id}),
            "threads": len({log.thread_id for log in logs if log.thread_id}),
            "models": _sorted(Counter(log.model or "unknown" for log in logs)),
            "routes": _sorted(Counter(log.route for log in logs if log.route)),
            "datasets": _sorted(Counter(d for log in logs if (d := log.tags.get("dataset")))),
            "errors": sum(1 for log in logs if log.error),
            "redacted": journal.redacted(),
            "pending": pending(journal, joined),
            "first": min((log.created_at for log in logs), default=None),
            "last": max((log.created_at for log in logs), default=None),
        }


def _supports(home: Home) -> Supports:
    """The languages that the home's prompt set has prompts for."""
    name = load_settings(home).recipe.get("prompt_set", "real")
    return get_prompt_set(name).supports


def _write(
    journal: Journal, batch: list[tuple[Interaction, dict[str, int]]], result: ImportResult
) -> None:
    if not batch:
        return
    done = journal.append_many(batch)
    result.interactions += done.interactions
    result.feedback += done.feedback
    result.forgotten += done.forgotten
    result.known += len(batch) - done.interactions - done.forgotten
    for interaction, redacted in batch:
        language = interaction.language
        result.languages[language] = result.languages.get(language, 0) + 1
        for kind, n in redacted.items():
            result.redacted[kind] = result.redacted.get(kind, 0) + n
    batch.clear()


def _json(line: bytes, number: int) -> Any:
    try:
        return json.loads(
            line.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_refuse
        )
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error.msg} at character {error.pos})") from error
    except RecursionError as error:
        raise InputError("nested too deeply") from error
    except InputError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"not JSON ({error})") from error


def _refuse(word: str) -> Any:
    raise InputError(f"{word} is not JSON")


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
