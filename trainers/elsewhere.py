"""After the verifier: a module that gets worse where nobody asked for anything does not ship.

    side = base_answers(exam)  # once a refresh
    report = look_elsewhere(exam, report, adapter, side, strays)

A module that beat the base on its own cluster's requests is asked twice more. *General
instructions* (``general.json``) are a fixed set, English and Chinese, each checked by a program: a
list of so many items, a word that must or must not stand there, JSON, a language, a number that is
the right answer. *Strays* are held-out requests of other clusters that serving would send to an
expert all the same, judged by these clusters' own standard. The others of theirs never reach it,
and where clusters want opposite things it has to do worse on them.

Of each the exact test of :mod:`langchain_uno.trainers.deciding` asks whether the module does worse
than the base, one-sided: the unit is the instruction, or the person. A module that is no worse is
held back by chance in at most ``LEVEL`` of the cases, by each of the two.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from langchain_uno.logs.conversation import detect_language
from langchain_uno.records import Elsewhere, Message, VerifierReport
from langchain_uno.trainers.deciding import least_people, p_values
from langchain_uno.trainers.verifier import Exam, HeldOut

LEVEL = 0.05
"""How often a module that is no worse than the base is held back, by each of the two tests."""

LEAST = least_people(LEVEL)
"""So many losses and no gain, five, are the fewest that prove anything (1 of 32)."""

MOST_TOKENS = 512
"""Of an answer to an instruction: all ask for a few words. Room for thinking is in it."""

SOFTER = 0.5
"""Share of its change to the base model with which a module is tried again that is better for its
own requests and worse elsewhere. It keeps most of what it learnt (arXiv 2109.01903)."""

# -- General instructions --------------------------------------------------------------------------

_ITEM = re.compile(r"(?m)^\s*(?:[-*•]|\d+[.)、])\s*\S")
_SENTENCE = re.compile(r"[^.!?。！？\n]*\w[^.!?。！？\n]*")
_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+")  # each ideograph is one
_FENCE = re.compile(r"\A```\w*\s*|\s*```\Z")


def _words(text: str, wanted: Sequence[str | Sequence[str]]) -> bool:
    """Whether every word stands there; of a list of words, one of them."""
    low = text.lower()
    either = [[one] if isinstance(one, str) else one for one in wanted]
    return all(any(word.lower() in low for word in words) for words in either)


def _json(text: str, keys: Sequence[str]) -> bool:
    found = json.loads(_FENCE.sub("", text))
    return isinstance(found, dict) and set(keys) <= set(found)


def _number(text: str, right: int) -> bool:
    found = re.findall(r"\d+", text)
    return bool(found) and int(found[-1]) == right


_CHECKS: Mapping[str, Callable[[str, Any], bool]] = {
    "words": _words,
    "without": lambda text, words: not any(_words(text, [word]) for word in words),
    "items": lambda text, n: len(_ITEM.findall(text)) == n,
    "sentences": lambda text, n: len(_SENTENCE.findall(text)) == n,
    "most": lambda text, n: len(_WORD.findall(text)) <= n,
    "json": _json,
    "number": _number,
    "case": lambda text, case: text == (text.upper() if case == "upper" else text.lower()),
    "begins": lambda text, start: text.startswith(start),
    "ends": lambda text, end: text.endswith(end),
    "language": lambda text, language: detect_language(text) == language,
}


@dataclass(frozen=True)
class Instruction:
    """A request, and what a program looks for in an answer to it."""

    request: str
    language: str
    checks: Mapping[str, Any]
    """Names of ``_CHECKS`` with what each is given; all must hold."""

    def is_kept(self, answer: str) -> bool:
        """Whether an answer follows the instruction; empty and unreadable ones do not."""
        text = answer.strip()
        try:
            return bool(text) and all(_CHECKS[name](text, of) for name, of in self.checks.items())
        except (ValueError, RecursionError):  # no JSON, or too deep; a number too long to read
            return False


@cache
def instructions() -> tuple[Instruction, ...]:
    """Return the general instructions, in their order."""
    text = files("langchain_uno.trainers").joinpath("general.json").read_text(encoding="utf-8")
    return tuple(Instruction(**row) for row in json.loads(text))


def base_answers(exam: Exam) -> list[str]:
    """Return the base model's answers to the instructions.

    Raises:
        EngineError: the model can't answer.
    """
    return [one.text for one in _short(exam).by_expert(_items(instructions()), None)]


def _short(exam: Exam) -> Exam:
    most = min(MOST_TOKENS, exam.recipe.answer_tokens)
    return replace(exam, recipe=exam.recipe.model_copy(update={"answer_tokens": most}))


def _items(asked: Sequence[Instruction]) -> list[HeldOut]:
    return [
        HeldOut(str(n), [Message(role="user", content=one.request)], [], one.language)
        for n, one in enumerate(asked)
    ]


# -- The two looks ---------------------------------------------------------------------------------


def look_elsewhere(
    exam: Exam,
    report: VerifierReport,
    adapter: Path,
    general: Sequence[str],
    strays: Sequence[HeldOut] = (),
) -> VerifierReport:
    """Return a module's report with how it does elsewhere, passed only if it is no worse there.

    Args:
        exam: asks and judges.
        report: of a module that passed on its own cluster's requests.
        adapter: the module's folder.
        general: the base's answers to the instructions (:func:`base_answers`).
        strays: held-out requests of other clusters that serving would send to an expert. Of fewer
            people than ``LEAST`` they are not asked; of more than ``verify.max_queries`` a sample.

    Raises:
        EngineError: the model can't answer.
    """
    found = Elsewhere(base_kept=sum(_kept(general)))
    harm: list[str] = []
    if found.base_kept >= LEAST:
        kept = _kept(_answers(exam, report, adapter, general))
        found.asked, found.kept = len(kept), sum(kept)
        if _is_worse([float(a) - b for a, b in zip(kept, _kept(general), strict=True)]):
            harm.append(
                f"general instructions: {found.kept} of {found.asked} kept, "
                f"{found.base_kept} by the base"
            )
    if len({item.voice for item in strays}) >= LEAST:
        gains = list(exam.gains(exam.answer_as_base(strays), adapter).values())
        found.people = len(gains)
        found.win_rate = 0.5 + sum(gains) / len(gains) if gains else None
        if _is_worse(gains):
            harm.append(
                f"strays from other clusters: win rate {found.win_rate:.2f} against the base, "
                f"{found.people} people"
            )
    found.harm = "; ".join(harm)
    told = "; ".join(["worse elsewhere", *harm, report.reason]) if harm else report.reason
    return report.model_copy(update={"elsewhere": found, "passed": not harm, "reason": told})


def softened(adapter: Path) -> Path:
    """Write beside an adapter one with :data:`SOFTER` of its change to the base; return it."""
    folder = adapter.with_name(f"{adapter.name}-{SOFTER}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_bytes())
    config["lora_alpha"] *= SOFTER
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    return folder


def _kept(answers: Sequence[str]) -> list[bool]:
    return [one.is_kept(answer) for one, answer in zip(instructions(), answers, strict=True)]


def _answers(
    exam: Exam, report: VerifierReport, adapter: Path, general: Sequence[str]
) -> list[str]:
    """Return a module's answers to the instructions; the base's where a critic can't be asked."""
    short, items = _short(exam), _items(instructions())
    if report.kind == "expert":
        return [one.text for one in short.by_expert(items, adapter)]
    spoken = [n for n, item in enumerate(items) if exam.prompts.supports(item.language)]
    drafts = [general[n] for n in spoken]
    done = short.by_critic([items[n] for n in spoken], drafts, adapter)
    revised = {n: one.text for n, one in zip(spoken, done, strict=True)}
    return [revised.get(n, draft) for n, draft in enumerate(general)]


def _is_worse(gains: Sequence[float]) -> bool:
    """Whether gains, one a unit, are so low that it is not luck; units without any say nothing."""
    lost = np.array([-gain for gain in gains if gain])
    return len(lost) >= LEAST and float(p_values(lost[None, :, None])[0]) <= LEVEL
