"""Control questions: a scorer is believed only where it gets plain cases right.

Small models often say yes to every question, or give every answer the same score. So before a
refresh spends hours it asks its two scorers a dozen questions in each language of its logs:

- the *reranker*: six pairs of rules that ask for the same, six that ask for different things;
- the *judge*: six answers that follow a rule, each compared with one that follows none and with one
  that follows another rule.

A scorer passes with five right of six of each kind; a coin does that 1 time in 84. Without a
reranker near wordings alone count as one rule, and gaps are unknown. Without a judge nothing is
learnt or verified that needs one; where nothing else teaches, the refresh stops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Literal, cast, get_args

import numpy as np

from langchain_uno.errors import EngineError
from langchain_uno.home import read_toml
from langchain_uno.learning.acts import edited_pairs, liked_pairs, rated_answers, thumbs_teach
from langchain_uno.learning.work import Work, WorkFolder
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.models.protocols import Engine, Reranker
from langchain_uno.models.roles import PromptSet
from langchain_uno.models.teacher import calls_of, check_answered
from langchain_uno.recipe import Recipe
from langchain_uno.records import Message, digest_of

Scorer = Literal["reranker", "judge"]
Figure = tuple[int, int]
"""How many of six were right, twice. Reranker: of the pairs that ask for the same, and of the
others. Judge: against an answer that follows no rule, and against one that follows another."""

_ASKED = read_toml(files("langchain_uno.learning").joinpath("controls.toml").read_bytes())
SAME = {lang: [(rule, other) for rule, other, _ in of["rules"]] for lang, of in _ASKED.items()}
"""By language: pairs that ask for the same. Two texts of different pairs do not."""
ANSWERS = {
    lang: {rule: form.format(of["plain"]) for rule, _, form in of["rules"]}
    for lang, of in _ASKED.items()
}
"""By language and rule: an answer that follows this rule and no other one of them."""
_RIGHT = 5
_FILE = "scorers.json"


def passes(figure: Sequence[int]) -> bool:
    """Return whether a scorer that was right so often is believed."""
    return min(figure) >= _RIGHT


def reranker_figure(reranker: Reranker, language: str) -> Figure:
    """Ask a reranker the control questions in a language ("en" or "zh").

    Raises:
        EngineError: it can't answer.
    """
    same = SAME[language]
    apart = [(same[i - 1][0], wording) for i, (_, wording) in enumerate(same)]
    yes = np.asarray(reranker.covered([*same, *apart])) > 0.5
    return int(yes[: len(same)].sum()), int((~yes[len(same) :]).sum())


def judge_figure(engine: Engine, prompts: PromptSet, recipe: Recipe, language: str) -> Figure:
    """Ask a judge the control questions in a language ("en" or "zh").

    Raises:
        EngineError: it can't answer, or left out most of them.
    """
    asked = [Message(role="user", content=_ASKED[language]["request"])]
    answers = list(ANSWERS[language].values())
    items = [
        JudgeItem(asked, [rule], answer, language)
        for i, rule in enumerate(ANSWERS[language])
        for answer in (answers[i], _ASKED[language]["plain"], answers[i - 1])
    ]
    before = calls_of(engine)
    scores = [score or math.nan for score in judge(items, engine, prompts, recipe)]
    check_answered(engine, before)
    good, plain, other = scores[::3], scores[1::3], scores[2::3]
    return (
        sum(g > b for g, b in zip(good, plain, strict=True)),
        sum(g > b for g, b in zip(good, other, strict=True)),
    )


def believed(work: Work, scorer: Scorer, language: str) -> bool:
    """Return whether a scorer of this refresh passed the control questions in a language.

    It is asked only in languages of logs that need it, and is not believed in others.
    """
    return passes(scorer_figures(work)[scorer].get(_asked_in(language), (0, 0)))


def look_at_scorers(work: Work, *, judged: bool) -> None:
    """Ask the control questions.

    Args:
        work: the filter stage is done.
        judged: whether this call reaches a stage that judges answers.

    Raises:
        EngineError: the judge is needed, fails in every language, and nothing teaches without it;
            the message names it, its figures and the remedy.
    """
    figures = scorer_figures(work)["judge"]
    if not judged or any(map(passes, figures.values())):
        return
    logs = list(work.logs.values())
    words = any(log.feedback_turns for log in logs)
    rated = rated_answers([log for log in logs if not log.feedback_turns], work.voices)
    acted = edited_pairs(logs) or liked_pairs(logs) or thumbs_teach(rated, work.recipe)
    if words and not acted:
        raise EngineError(_USELESS.format(work.teacher.model_name, _told(figures)))


def scorer_notes(work: Work) -> list[str]:
    """Return what a person should read about the scorers."""
    found = []
    figures_of = scorer_figures(work)
    if figures_of["judge"] and work.teacher.fingerprint == work.engine.fingerprint:
        found.append(_ITSELF)
    for scorer, figures in figures_of.items():
        failed = {lang: figure for lang, figure in figures.items() if not passes(figure)}
        if failed and scorer == "judge":
            found.append(_USELESS.format(work.teacher.model_name, _told(failed)))
        elif failed:
            found.append(_BLIND.format(_told(failed)))
    return found


_ITSELF = (
    "The judge is the model itself: win rates are its own opinion of its own answers. "
    "--teacher NAME names an independent one."
)
_USELESS = (
    "The judge {!r} can't judge: in control questions, where one of two answers plainly follows a "
    "rule, it scored {} above the other one. Nothing is taught or verified by its scores. Name a "
    "stronger model (--teacher NAME)."
)
_BLIND = (
    "The reranker does not tell control pairs apart ({} right), so only near wordings count as one "
    "rule, gaps are unknown, and experts are tried first: name another one (--reranker NAME)."
)


def _told(figures: dict[str, Figure]) -> str:
    return ", ".join(f"{sum(figure)} of 12 ({lang})" for lang, figure in figures.items())


def _asked_in(language: str) -> str:
    return "zh" if language.startswith("zh") else "en"


def scorer_figures(work: Work) -> dict[Scorer, dict[str, Figure]]:
    """Return both scorers' figures by the languages of the logs that they are needed for.

    Figures that pass are kept in the home's ``work/``: the same models are asked once.
    """
    if work.scorers is None:
        work.scorers = _figures(work)
    return cast(dict[Scorer, dict[str, Figure]], work.scorers)


def _figures(work: Work) -> dict[Scorer, dict[str, Figure]]:
    said = {_asked_in(one.facts.language) for one in work.heard.values() if one.words}
    if {_asked_in(one.facts.language) for one in work.heard.values()} - said:
        silent = [log for log_id, log in work.logs.items() if not work.heard[log_id].words]
        rated = rated_answers(silent, work.voices)
        if thumbs_teach(rated, work.recipe):
            said |= {_asked_in(work.logs[one.run_id].language) for one in rated}
    by = digest_of(
        getattr(work.reranker, "fingerprint", type(work.reranker).__name__),
        work.teacher.fingerprint,
        work.teacher_prompts.fingerprint,
        work.recipe.role_tokens,
    )
    kept = WorkFolder(work.home.work)
    known = kept.read_json(_FILE) if kept.has(_FILE) else {}
    if not isinstance(known, dict) or known.get("by") != by:
        known = {"by": by, "reranker": {}, "judge": {}}
    for lang in sorted(said - known["judge"].keys()):
        judged = judge_figure(work.teacher, work.teacher_prompts, work.recipe, lang)
        known["reranker"][lang] = reranker_figure(work.reranker, lang)
        known["judge"][lang] = judged
        if all(map(passes, known["judge"].values())):  # a bad minute of a judge is not kept
            kept.write_json(_FILE, known)
    return {kind: {lang: known[kind][lang] for lang in sorted(said)} for kind in get_args(Scorer)}
