"""Stage "distil": logs into rules (paper, stage 1).

From query, answer and feedback the model writes *rules with feedback*: short affirmative
instructions that concern the query only, none when the feedback says nothing usable. Its empty list
is the verdict on thanks, small talk and new questions. From the query alone it writes *rules
without feedback*: what it would have guessed. It guesses only where there is a rule to compare the
guess with.

Logs with words are distilled, and logs with an edit whose words gave no rule: what the edit changes
is a wish (as in PRELUDE, arXiv 2404.15269). A rule of an edit is kept if a judge, going by the
rule, scores the edit above the old answer. An edit without such a rule teaches as a pair alone.

What was distilled is kept in the home's ``work/distilled.jsonl``, under a digest of all that it was
made of: log, feedback, models, prompts. No refresh pays for a log twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from langchain_uno.errors import EmptyLogError
from langchain_uno.learning.acts import (
    edited_pairs,
    liked_pairs,
    rated_answers,
    thumbs_of,
    thumbs_teach,
)
from langchain_uno.learning.controls import believed
from langchain_uno.learning.troubles import left_out_notes, stage_failed, without_breakers
from langchain_uno.learning.work import DISTILLED, Work, refresh_folders, uncollected
from langchain_uno.logs.filters import acted_on
from langchain_uno.logs.journal import Journal
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.models.protocols import Engine, GenerateRequest, OnDone, Sampling
from langchain_uno.models.roles import PromptSet, RoleError
from langchain_uno.models.teacher import calls_of, forget
from langchain_uno.models.together import ask_once
from langchain_uno.recipe import Recipe
from langchain_uno.records import (
    Interaction,
    Message,
    Rule,
    RuleSet,
    Verdict,
    content_of,
    digest_of,
    run_of,
)
from langchain_uno.releases.history import append_lines
from langchain_uno.reports.render import counted

GUESSED_RULES = 5
"""At most so many rules are guessed for a query (paper)."""
CHUNK = 64
"""Logs distilled between two saves: on a large model some minutes' work."""
FEW = 5
"""Empty lists for so many logs, and for no log a rule, are no chance: the distiller is broken. So
are so many failures, where nothing or less came of the others."""
UNREADABLE = "unreadable answer"
"""Why a log is left out of which a teacher wrote no list: it is likelier weak than broken."""
_SPACE = re.compile(r"\s+")


def distil_stage(work: Work) -> dict[str, Any]:
    """Write the rules of every usable log to ``distilled.jsonl``.

    Raises:
        EmptyLogError: no rule came of any feedback, nobody edited or re-chose an answer, and too
            few people gave thumbs.
        EngineError: the models fail on every log that they are asked about in this call, on five
            or more that no refresh was over without; or on most logs with words.
    """
    work.progress.start("distil", 2 * len(work.logs), "rules with and without feedback")
    keys = distil_keys(work, {log_id: one.plain for log_id, one in work.heard.items()})
    known = known_rules(work.home.work / DISTILLED, set(keys.values()))
    new = [work.logs[log_id] for log_id, key in keys.items() if key not in known]
    work.progress.advance("distil", 2 * (len(keys) - len(new)))
    new.sort(key=lambda log: not log.feedback_turns)  # a broken model shows at once
    left_out: dict[str, str] = {}
    failed: dict[str, str] = {}
    before = heard = _heard(known)
    # A teacher may refuse some logs for good: earlier refreshes went on without them.
    over = [one for one in refresh_folders(work.home.work) if one.has("distil.json")]
    refused = {i for one in over for i in one.read_json("distil.json").get("left_out", ())}
    for start in range(0, len(new), CHUNK):
        work.check_limits()
        made, left = _distil_and_keep(work, new[start : start + CHUNK], keys)
        known |= made
        left_out |= left
        heard = _heard(known) - {keys[log_id] for log_id in left_out}
        failed = {i: why for i, why in left_out.items() if why != UNREADABLE}
        if len(failed.keys() - refused) >= FEW and heard <= before:
            raise stage_failed("distil", left_out)
    if len(failed) > max(FEW - 1, len(heard)):
        raise stage_failed("distil", left_out, len(heard))
    logs = list(work.logs.values())
    out = [
        known.get(keys[log.run_id]) or RuleSet(run_id=log.run_id, outcome="failed") for log in logs
    ]
    outcomes = Counter(rules.outcome for rules in out)
    n_rules = sum(len(rules.with_feedback) for rules in out)
    notes = _look_at_distiller(work, logs, out)
    alone = [log for log, rules in zip(logs, out, strict=True) if not rules.with_feedback]
    rated = rated_answers(alone, work.voices)
    taught = n_rules or edited_pairs(logs) or liked_pairs(logs)
    if not taught and not thumbs_teach(rated, work.recipe):
        if failed and not heard:
            raise stage_failed("distil", left_out)
        raise EmptyLogError(_nothing(work, outcomes, notes, thumbs_of(rated)))
    work.folder.write_records("distilled.jsonl", out)
    _note_verdicts(work, logs, out)
    return {
        "logs": len(logs),
        "taken_over": len(logs) - len(new),
        "rules": n_rules,
        "outcomes": dict(outcomes),
        "lone_thumbs": len(rated),
        "left_out": left_out,
        "notes": [*notes, *left_out_notes("distil", left_out)],
        "note": _ledger(logs, out, {one.run_id for one in rated}),
    }


def _ledger(logs: Sequence[Interaction], out: Sequence[RuleSet], rated: set[str]) -> str:
    """Say what came of all logs; every log is counted once.

    Args:
        logs: the usable ones.
        out: their rules.
        rated: the ids of those whose answer somebody plainly liked or disliked.
    """
    silent = dict.fromkeys(rated, "thumb") | {p.run_id: "edit" for p in edited_pairs(logs)}
    told_by = [
        silent.get(r.run_id, "nothing") if r.outcome == "no_words" else r.outcome for r in out
    ]
    count = Counter(told_by)
    n_rules = sum(len(rules.with_feedback) for rules in out)
    told = f"{counted(n_rules, 'rule')} from {counted(count['rules'], 'log')}"
    others = [counted(count[what], *words) for what, words in _OTHERS.items() if count[what]]
    return f"{told}; of the others {', '.join(others)}" if others else told


_OTHERS = {
    "empty": ("asks for nothing", "ask for nothing"),
    "edit": ("is an edit alone", "are edits alone"),
    "thumb": ("is a lone thumb", "are lone thumbs"),
    "unparsable": ("got no readable rules", "got no readable rules"),
    "failed": ("failed", "failed"),
    "nothing": ("has nothing to learn from", "have nothing to learn from"),
}
"""What came of logs without rules, of one and of many."""


def _heard(known: Mapping[str, RuleSet]) -> set[str]:
    """Return the keys of the logs that a model was asked about."""
    return {key for key, one in known.items() if one.outcome != "no_words"}


def distilled_at_last(work: Work) -> bool:
    """Whether any log that this refresh failed to distil can be distilled by now.

    Args:
        work: a refresh that is over; what is distilled of it is kept for the next stage.
    """
    left = [work.logs[i] for i in work.counts("distil")["left_out"] if i in work.logs]
    if not left:
        return False
    keys = distil_keys(work, {log.run_id: content_of(log) for log in left})
    if known_rules(work.home.work / DISTILLED, set(keys.values())):
        return True  # a call that was killed distilled it
    work.progress.start("distil", 2 * len(left), "what was left out the last time")
    made, lost = _distil_and_keep(work, left, keys)
    return any(one.run_id not in lost for one in made.values())


def _distil_and_keep(
    work: Work, logs: Sequence[Interaction], keys: Mapping[str, str]
) -> tuple[dict[str, RuleSet], dict[str, str]]:
    """Distil logs and keep what came of them for every refresh.

    Returns:
        The rules by key; and the logs that may be distilled yet, with the reason, of which nothing
        is kept. The base model's own unreadable answer would be the same again.
    """
    (made, again), broken = without_breakers(logs, partial(_distilled, work))
    why = {"failed": "no answer"}
    if work.teacher is not work.engine:
        why["unparsable"] = UNREADABLE
    left = {log.run_id: reason for log, reason in broken}
    left |= {one.run_id: why[one.outcome] for one in made if one.outcome in why}
    rows = [
        _Known(key=keys[one.run_id], rules=one).model_dump(mode="json")
        for one in made
        if one.run_id not in left and one.run_id not in again
    ]
    append_lines(work.home.work / DISTILLED, rows)
    return {keys[one.run_id]: one for one in made}, left


def distil_keys(work: Work, contents: Mapping[str, str]) -> dict[str, str]:
    """Return, by log id, a digest of all that distilling a log comes of.

    Args:
        work: the refresh.
        contents: :func:`~langchain_uno.records.content_of` each log, by id.
    """
    by = digest_of(
        work.recipe.role_tokens,
        work.engine.fingerprint,
        work.teacher.fingerprint,
        work.prompts.fingerprint,
        work.teacher_prompts.fingerprint,
    )
    return {log_id: digest_of(by, content) for log_id, content in contents.items()}


def _distilled(work: Work, logs: Sequence[Interaction]) -> tuple[list[RuleSet], set[str]]:
    """Return the rules of logs, and which logs a later refresh has to ask about again."""
    made = distil(
        logs,
        work.teacher,
        work.teacher_prompts,
        work.recipe,
        work.counter("distil"),
        predictor=work.engine,
        predictor_prompts=work.prompts,
    )
    return made, _distil_edits(work, logs, made)


def edits_to_read(logs: Sequence[Interaction], prompts: PromptSet) -> list[list[Message]]:
    """Return, for each log, the prompt that distils its edit; empty where there is none to read."""
    out: list[list[Message]] = []
    for log in logs:
        asked = None
        for pair in edited_pairs([log]):
            asked = prompts.distil_edit_prompt(log.messages, log.answer, pair.chosen, log.language)
        out.append(asked or [])
    return out


def _distil_edits(work: Work, logs: Sequence[Interaction], made: Sequence[RuleSet]) -> set[str]:
    """Distil the edits of logs whose words gave no rule, and keep the rules that a judge confirms.

    A rule is confirmed if the judge scores the edit above the old answer by it: a weak model writes
    a rule of any edit. Where no judge is believed nothing is asked.

    Returns:
        The logs that no judge could say anything about.
    """
    teacher, words = work.teacher, work.teacher_prompts
    silent = [
        (log, own, prompt)
        for log, own, prompt in zip(logs, made, edits_to_read(logs, words), strict=True)
        if prompt and own.outcome in ("no_words", "empty")
    ]
    open_ = {log.run_id for log, *_ in silent if not believed(work, "judge", log.language)}
    read = [one for one in silent if one[0].run_id not in open_]
    found = ask_for_rules(teacher, words, [prompt for *_, prompt in read], work.recipe)
    todo = [
        (log, own, rule)
        for (log, own, _), rules in zip(read, found, strict=True)
        for rule in (rules if not isinstance(rules, str) else ())
    ]
    for (_, own, _), rules in zip(read, found, strict=True):
        own.outcome = "failed" if rules == "failed" else own.outcome
    items = [
        JudgeItem(log.messages, [rule], answer, log.language)
        for log, _, rule in todo
        for answer in (edited_pairs([log])[0].chosen, log.answer.strip())
    ]
    _, before = calls_of(teacher)
    scores = judge(items, teacher, words, work.recipe) if items else []
    unanswered = calls_of(teacher)[1] > before
    for (log, own, rule), new, old in zip(todo, scores[::2], scores[1::2], strict=True):
        if new is None or old is None:
            open_.add(log.run_id)
            own.outcome = "failed" if unanswered and not own.with_feedback else own.outcome
        elif new > old:
            own.with_feedback.append(Rule(text=rule, source="edit"))
            own.outcome = "rules"
    taught = [(log, own) for log, own, _ in read if own.with_feedback]
    _guess(taught, work.engine, work.prompts, work.recipe, None)
    return open_


def distil(
    interactions: Sequence[Interaction],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
    *,
    predictor: Engine | None = None,
    predictor_prompts: PromptSet | None = None,
) -> list[RuleSet]:
    """Return one rule set a log, in the order given; ``outcome`` says what came of each.

    Args:
        interactions: usable logs.
        engine: writes the rules with feedback (the base model, or a teacher).
        prompts: words both roles for ``engine``.
        recipe: ``role_tokens``.
        on_done: is told of every log twice: when its feedback was read, and when its guess was made
            or found unneeded (``2 * len(interactions)`` in all).
        predictor: guesses the rules without feedback; the *base* model, whatever the teacher is,
            because the gap is the base model's. Default: ``engine``.
        predictor_prompts: the prompt set of ``predictor``. Default: ``prompts``.

    Raises:
        EngineError: a model can't answer at all.
    """
    made = {log.run_id: RuleSet(run_id=log.run_id, outcome="no_words") for log in interactions}
    asked = [log for log in interactions if log.feedback_turns]
    if on_done is not None and len(interactions) > len(asked):
        on_done(2 * (len(interactions) - len(asked)))
    said = [
        prompts.distil_prompt(i.messages, i.answer, i.feedback_turns, i.language) for i in asked
    ]
    found = ask_for_rules(engine, prompts, said, recipe, on_done=on_done)
    for log, rules in zip(asked, found, strict=True):
        if isinstance(rules, str):
            made[log.run_id].outcome = rules
        else:
            made[log.run_id].outcome = "rules" if rules else "empty"
            made[log.run_id].with_feedback = [Rule(text=text) for text in rules]
    said_something = [(g, made[g.run_id]) for g in asked if made[g.run_id].with_feedback]
    guesser = predictor_prompts or prompts
    _guess(said_something, predictor or engine, guesser, recipe, on_done)
    if on_done is not None and len(asked) > len(said_something):
        on_done(len(asked) - len(said_something))
    return [made[log.run_id] for log in interactions]


def _guess(
    logs: Sequence[tuple[Interaction, RuleSet]],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None,
) -> None:
    """Fill in the rules without feedback."""
    said = [prompts.predict_prompt(log.messages, log.language) for log, _ in logs]
    guesses = ask_for_rules(engine, prompts, said, recipe, GUESSED_RULES, on_done)
    for (_, own), found in zip(logs, guesses, strict=True):
        texts = [] if isinstance(found, str) else found[:GUESSED_RULES]
        own.without_feedback = [Rule(text=text, source="prior") for text in texts]


def unique_rules(texts: Sequence[str]) -> list[str]:
    """Return the rules trimmed, in order, without empty ones and without repetitions.

    Two rules are the same when they differ only in case, spaces or the final full stop.
    """
    seen: dict[str, str] = {}
    for text in texts:
        trimmed = _SPACE.sub(" ", text).strip()
        key = trimmed.casefold().rstrip(".。 ")
        if key:
            seen.setdefault(key, trimmed)
    return list(seen.values())


def ask_for_rules(
    engine: Engine,
    prompts: PromptSet,
    asked: Sequence[Sequence[Message]],
    recipe: Recipe,
    max_rules: int | None = None,
    on_done: OnDone | None = None,
) -> list[list[str] | Literal["unparsable", "failed"]]:
    """Ask for one list of rules a prompt, greedily; equal prompts once.

    Args:
        engine: writes the rules.
        prompts: reads what it writes.
        asked: the prompts.
        recipe: ``role_tokens``.
        max_rules: the longest list that the form of the answer allows; None: any.
        on_done: is told of every prompt.

    Returns:
        In the order of the prompts: the rules, each once; ``"unparsable"`` for a text that is no
        list, ``"failed"`` for a call that failed.

    Raises:
        EngineError: the model can't answer at all.
    """
    requests = [
        GenerateRequest(
            messages=messages,
            sampling=Sampling(max_tokens=recipe.role_tokens),
            json_schema=prompts.rules_schema(max_rules),
        )
        for messages in asked
    ]
    read: list[list[str] | Literal["unparsable", "failed"]] = []
    for request, made in zip(requests, ask_once(engine, requests, on_done), strict=True):
        try:
            read.append(unique_rules(prompts.parse_rules(made.text)))
        except RoleError:
            forget(engine, request)
            read.append("failed" if made.finish_reason == "failed" else "unparsable")
    return read


def _look_at_distiller(
    work: Work, logs: Sequence[Interaction], out: Sequence[RuleSet]
) -> list[str]:
    """Say so where the model wrote no rule for any words: it is likelier broken than they."""
    silent = [
        (log, rules)
        for log, rules in zip(logs, out, strict=True)
        if rules.outcome in ("empty", "unparsable") and log.feedback_turns
    ]
    if len(silent) < FEW or any(rules.outcome == "rules" for rules in out):
        return []
    shown = "; ".join(
        f"{_short(log.feedback_turns[-1])!r} ({rules.outcome})" for log, rules in silent[:3]
    )
    return [
        f"The distiller looks broken: {work.teacher.model_name!r} wrote no rule for {len(silent)} "
        f"of {len(silent)} logs with words, for example {shown}. Small models often can't distil: "
        "name a stronger one (--teacher NAME)."
    ]


def _short(text: str) -> str:
    line = _SPACE.sub(" ", text).strip()
    return line if len(line) <= 60 else line[:57] + "..."


def _nothing(
    work: Work, outcomes: Counter[Any], notes: Sequence[str], thumbs: tuple[int, int]
) -> str:
    if notes:
        return f"There is nothing to learn from. {notes[0]}"
    return (
        f"None of the {len(work.logs)} usable logs has feedback to learn from: in "
        f"{outcomes.get('empty', 0)} the words ask for nothing, {outcomes.get('no_words', 0)} have "
        f"no words, for {outcomes.get('unparsable', 0)} the model wrote no readable rules. "
        f"{thumbs[0]} people gave lone thumbs up and {thumbs[1]} down: to learn from these takes "
        f"{work.recipe.rules.min_users} of each."
    )


def _note_verdicts(work: Work, logs: Sequence[Interaction], out: Sequence[RuleSet]) -> None:
    """Keep in the journal what the models found: answers too odd, words that ask for nothing.

    A record has such a verdict where none of those who spoke of it said anything to learn from.
    """
    odd = work.folder.read_json("by-model.json")
    said = {log_id: Verdict.model_validate(one) for log_id, one in odd.items()}
    nothing = Verdict(usable=False, reason="nothing_asked", detail="no rule came of the words")
    for log, rules in zip(logs, out, strict=True):
        words_alone = log.score is None and not (log.correction or "").strip()
        if rules.outcome == "empty" and words_alone and not acted_on(log):
            said[log.run_id] = nothing
    learnt_from = {run_of(log.run_id) for log in logs if log.run_id not in said}
    snapshot = work.folder.read_json("snapshot.json")["logs"]
    found = {
        run_of(log_id): (bytes.fromhex(snapshot[log_id]["of_all_feedback"]), one)
        for log_id, one in said.items()
        if run_of(log_id) not in learnt_from
    }
    with Journal(work.home.journal) as journal:
        journal.set_model_verdicts(found)


@uncollected()
def known_rules(path: Path, wanted: set[str]) -> dict[str, RuleSet]:
    """Return what is known of the wanted keys; a line that a kill cut short counts for nothing."""
    found: dict[str, RuleSet] = {}
    with suppress(OSError), path.open("rb") as file:
        for line in file:
            with suppress(ValidationError):
                one = _Known.model_validate_json(line)
                if one.key in wanted:
                    found[one.key] = one.rules
    return found


class _Known(BaseModel):
    """One line of what was distilled."""

    key: str
    rules: RuleSet
