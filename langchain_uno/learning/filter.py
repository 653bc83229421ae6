"""Stage "filter": what a refresh learns from. It reads the log once and takes a snapshot of it.

Every log with feedback is read, one for each person who said something, and checked
(:mod:`langchain_uno.logs.filters`). Whether the words ask for anything is decided by the distiller.
Nothing is embedded here, and an index in a folder is not opened: "cluster" does that. Where the
index is on a server, new records go there first, and those of other hosts are read.

A refresh that was killed goes on with the logs that it began with: what arrived or changed since
belongs to the next refresh.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_uno.errors import EmptyLogError, TemplateError
from langchain_uno.learning.decisions import take_up_decisions
from langchain_uno.learning.distil import distilled_at_last
from langchain_uno.learning.work import RESULT, Work, given_up, refresh_folders, uncollected
from langchain_uno.logs.filters import spoken
from langchain_uno.logs.heard import Facts, Heard, Logs, facts_of, known_of
from langchain_uno.logs.join import feedback_digest
from langchain_uno.logs.journal import EMPTY
from langchain_uno.logs.kept import KeptLog
from langchain_uno.logs.store import LogStore
from langchain_uno.records import Interaction, Verdict, digest_of, run_of, speaker_of
from langchain_uno.releases.load import revocation_file
from langchain_uno.releases.traffic import answering
from langchain_uno.reports.render import counted


@uncollected()
def filter_stage(work: Work) -> None:
    """Read the log, take (or take up) a snapshot, and keep what may be learnt from.

    Sets ``work.id``, ``work.logs`` and ``work.unheard``.

    Raises:
        EmptyLogError: there are no interactions, nobody reacted to one, or none may be learnt from.
    """
    work.progress.start("filter", None, "reading the log")
    with LogStore.open(work.home, work.embedder, later=True) as store:
        if store.shared:
            store.drain(work.counter("filter"))
        heard = store.heard(whole=work.recipe.rules.voices == "logs")
        if not heard:
            raise EmptyLogError(
                nothing_heard(str(work.home.path), store.count_all(), store.journal.waiting())
            )
        contents = sorted(f"{one.log_id} {one.content}" for one in heard)
        work.id = f"refresh-{digest_of(work.fit, *contents)}"
        snapshot = _begun(work, heard, store) or _new_snapshot(work, heard, store)
        chosen, changed = _restricted(work, heard, snapshot["logs"], store)
        known = {one.log_id: one for one in chosen}
        logs = Logs({**store.logs(chosen), **changed})
        had = {said for one in snapshot["logs"].values() for said in one["feedback"]}
        work.newer = sum(not had.issuperset(one.said) for one in heard)
        work.unheard = {log.run_id: log for log in store.interactions(snapshot["unheard"])}
        if not work.folder.has("by-model.json"):
            kept, dropped, by_model = _checked(work, store.kept, chosen, logs)
            if not kept:
                raise EmptyLogError(why_none(work, [one.facts.language for one in chosen], dropped))
            work.folder.write_json("usable.json", [one.log_id for one in kept])
            work.folder.write_json("dropped.json", dict(dropped))
            work.folder.write_json("by-model.json", by_model)
    usable = work.folder.read_json("usable.json")
    work.logs, work.heard = logs.only(usable), {log_id: known[log_id] for log_id in usable}
    work.once("filter", lambda _: _counts(work, snapshot))
    if work.folder.has(RESULT) and not was_taken_back(work):
        _retry(work)
    take_up_decisions(work)


def _retry(work: Work) -> None:
    """Let a refresh that is over begin again after "filter" if it can distil what it left out.

    The mark of "distil" goes first, and what says that the refresh is over goes last: where only
    the first is gone, a kill came in between, and the rest goes.
    """
    if not work.folder.has("distil.json") or distilled_at_last(work):
        names = {path.name for path in work.folder.root.iterdir()} - _OWN - {"distil.json", RESULT}
        for name in ("distil.json", *sorted(names), RESULT):
            work.folder.remove(name)


_OWN = {"snapshot.json", "usable.json", "dropped.json", "by-model.json", "filter.json"}
_OWN |= {"unheard.npy", "queries.npy"}
"""What this stage writes, and the vectors, which stay the same."""


def was_taken_back(work: Work) -> bool:
    """Whether the release of a refresh that is over was current, and a person chose another."""
    if not work.folder.has("release.json"):  # a kill on the way to publishing it again
        return False
    told = work.counts("release")
    promoted: bool = told.get("promoted", True)
    return promoted and answering(work.home) != told["release"]


def is_unchanged(work: Work) -> bool:
    """Whether a refresh of exactly these logs, decisions, recipe and models is over already.

    A release that somebody deleted is made again; one that was revoked is not.
    """
    if not work.folder.has(RESULT):
        return False
    release: str = work.folder.read_json(RESULT)["release"]
    there = (work.home.releases / release / "manifest.json").is_file()
    if there or revocation_file(work.home, release).exists():
        return True
    # Last what says that the refresh is over: a kill in between leaves it to be done again.
    for name in ("release.json", "release-id.json", RESULT):
        work.folder.remove(name)
    return False


def nothing_heard(where: str, n: int, waiting: Sequence[str]) -> str:
    """Say why there is no feedback in a log of ``n`` interactions."""
    if not n:
        return EMPTY.format(where)
    if waiting:
        return (
            f"None of the {n} interactions in {where!r} has feedback. All feedback "
            f"({len(waiting)}) waits for answers that are not in this log: for "
            f"{waiting[0]!r}, say. Name answers by the AIMessage.id that the model gave back."
        )
    return (
        f"None of the {n} interactions in {where!r} has feedback: record it with "
        "UNOFeedbackHandler.feedback(run_id, ...)."
    )


def _begun(work: Work, heard: Sequence[Heard], store: LogStore) -> dict[str, Any] | None:
    """Return the snapshot of a refresh to go on with, and set ``work.id``; None: there is none.

    It is one with this recipe and these models: over and of just the present logs, which its name
    tells, or unfinished. An unfinished one goes on as long as its logs and their feedback are
    there, though feedback came or was changed meanwhile: the next refresh learns that. Where they
    are not, its folder goes.
    """
    for folder in refresh_folders(work.home.work):
        over, name = folder.has(RESULT), folder.root.name
        if not folder.has("snapshot.json") or (over and name != work.id):
            continue
        snapshot: dict[str, Any] = folder.read_json("snapshot.json")
        if snapshot.get("fit") != work.fit:
            continue
        then = snapshot["logs"]
        found = [] if over else _restricted(work, heard, then, store)[0]
        here = {one.log_id for one in found if len(one.said) == len(then[one.log_id]["feedback"])}
        if over or here == set(then):
            work.id = name
            return snapshot
        shutil.rmtree(folder.root)
    return None


def _new_snapshot(work: Work, heard: Sequence[Heard], store: LogStore) -> dict[str, Any]:
    logs = {
        one.log_id: {
            "feedback": one.said,
            "content": one.content,
            "of_all_feedback": one.digest.hex(),
        }
        for one in heard
    }
    waiting = store.journal.waiting()
    snapshot = {
        "fit": work.fit,
        "embedder": work.embedder.fingerprint,
        "logs": logs,
        "unheard": [log.run_id for log in _unheard(work, store)],
        "interactions": store.count_all(),
        "waiting": len(waiting),
        "waits_for": waiting[0] if waiting else None,
        "without_user": store.kept.nameless,
    }
    for told in given_up(work):
        work.progress.finish("settings", told)
    work.folder.write_json("snapshot.json", snapshot)
    return snapshot


def _restricted(
    work: Work, heard: Sequence[Heard], wanted: Mapping[str, Mapping[str, Any]], store: LogStore
) -> tuple[list[Heard], dict[str, Interaction]]:
    """Return the logs of a snapshot, as far as they are there, with the feedback they had then.

    They are told apart by their feedback: the numbers of ``records.by_speaker`` go by who spoke
    first, and that may be another person by now.

    Returns:
        What is known of them, and those that are not as they are in the log today.
    """
    today = {one.log_id: one for one in heard if one.log_id in wanted}
    same = {i for i, one in today.items() if one.content == wanted[i]["content"]}
    others = {_run(work, log_id) for log_id in wanted if log_id not in same}
    records = {log.run_id: log for log in store.interactions(list(others))} if others else {}
    found, changed = [], {}
    for log_id, one in wanted.items():
        if log_id in same:
            found.append(today[log_id])
        elif (log := records.get(_run(work, log_id))) and log.feedback:
            then = set(one["feedback"])
            feedback = [f for f in log.feedback if f.feedback_id in then]
            who = log.user_id
            if feedback and work.recipe.rules.voices != "logs":
                who = speaker_of(feedback[0], log)
            update = {"run_id": log_id, "feedback": feedback, "user_id": who}
            was = log.model_copy(update=update)
            found.append(known_of(was, log.run_id, feedback_digest(log.feedback)))
            changed[log_id] = spoken(was)
    return sorted(found, key=lambda one: one.order), changed


def _run(work: Work, log_id: str) -> str:
    """Return the run of a log; in the mode "logs" none is told apart by who spoke."""
    return log_id if work.recipe.rules.voices == "logs" else run_of(log_id)


def _unheard(work: Work, store: LogStore) -> list[Interaction]:
    """Return the latest requests without any reaction; verification may ask them again.

    First turns only: what somebody says later in a conversation may itself be a reaction.
    """
    most, settings = work.recipe.verify.unlabelled, work.recipe.filter
    ignore = [*settings.ignore, "no_feedback"]

    def passing(one: Facts) -> bool:
        usable = one.reason(work.supports, ignore) == "ok"
        return usable and one.first and not one.said

    found = [log for log in store.others() if passing(facts_of(log))]
    refused = _refused(work, store.kept, {log.run_id: log for log in found})
    found = [log for log in found if log.run_id not in refused]
    skipped, wanted = 0, most + len(found)
    while len(found) < wanted:
        ids = store.kept.latest(passing, most, skipped, equal="duplicate" in settings.ignore)
        if not ids:
            break
        skipped += len(ids)
        page = store.interactions(ids)
        refused = _refused(work, store.kept, {log.run_id: log for log in page})
        found += [log for log in page if log.run_id not in refused]
    found.sort(key=lambda log: (log.created_at, log.run_id))
    return found[-most:] if most else []


def _checked(
    work: Work, kept: KeptLog, heard: Sequence[Heard], logs: Logs
) -> tuple[list[Heard], Counter[str], dict[str, Any]]:
    """Return the usable logs, the reasons of the others, and the model's verdicts among these."""
    work.progress.start("filter", len(heard), "checks")
    ignore = work.recipe.filter.ignore
    usable: dict[str, Heard] = {}
    seen: set[bytes] = set()
    dropped: Counter[str] = Counter()
    all_facts = {id(one.facts): one.facts for one in heard}  # many logs share them
    by_facts = {key: facts.reason(work.supports, ignore) for key, facts in all_facts.items()}
    for one in heard:
        reason = by_facts[id(one.facts)]
        if reason == "ok" and one.same in seen and "duplicate" not in ignore:
            reason = "duplicate"
        if reason == "ok":
            usable[one.log_id] = one
            seen.add(one.same)
        else:
            dropped[reason] += 1
    work.progress.advance("filter", len(heard))
    odd = _refused(work, kept, logs.only(list(usable)))
    odd |= _surprising(work, kept, logs.only([i for i in usable if i not in odd]))
    dropped.update(one.reason for one in odd.values())
    by_model = {i: odd[i].model_dump(mode="json") for i in usable if i in odd}
    return [one for i, one in usable.items() if i not in odd], dropped, by_model


def _refused(work: Work, kept: KeptLog, logs: Mapping[str, Interaction]) -> dict[str, Verdict]:
    """Return a verdict for the conversations that the base model's chat template refuses."""
    from langchain_uno.models.chat_format import render
    from langchain_uno.models.local import LocalEngine

    engine = work.engine
    if not isinstance(engine, LocalEngine):
        return {}

    def check(new: Sequence[Interaction]) -> dict[str, Verdict]:
        out: dict[str, Verdict] = {}
        for log in new:
            try:
                render(engine.tokenizer, log.messages)
            except Exception as error:  # noqa: BLE001 - a template is its makers' program
                ours = isinstance(error, TemplateError)
                told = str(error)[:200] if ours else type(error).__name__
                out[log.run_id] = Verdict(usable=False, reason="refused_by_template", detail=told)
        return out

    by = digest_of("template", engine.fingerprint, engine.tokenizer.chat_template)
    return kept.checked(by, logs, check)


def _surprising(work: Work, kept: KeptLog, logs: Mapping[str, Interaction]) -> dict[str, Verdict]:
    """Return a verdict for answers that the base model finds too surprising, if that matters."""
    most = work.recipe.filter.max_perplexity
    if most is None or "high_perplexity" in work.recipe.filter.ignore:
        return {}
    from langchain_uno.models.perplexity import perplexities

    def check(new: Sequence[Interaction]) -> dict[str, Verdict]:
        work.progress.start("filter", len(new), "perplexity of the answers")
        asked = [(log.messages, log.answer) for log in new]
        found = perplexities(asked, work.engine, work.counter("filter"))
        return {
            log.run_id: Verdict(
                usable=False, reason="high_perplexity", detail=f"{value:.1f}, at most {most:g}"
            )
            for log, value in zip(new, found, strict=True)
            if value > most
        }

    return kept.checked(digest_of("perplexity", work.engine.fingerprint, most), logs, check)


def why_none(work: Work, languages: Sequence[str], reasons: Counter[str]) -> str:
    """Say why no log with feedback can be learnt from, given the language of each."""
    n, foreign = len(languages), sorted(set(languages))
    if not any(work.supports(language) for language in foreign):
        return (
            f"All feedback, on {counted(n, 'log')}, is in {', '.join(foreign)}, "
            f"for which the prompt set {work.prompts.fingerprint!r} has no prompts: a real model "
            "(--model NAME) has those for en and zh, and --set "
            "'filter.ignore=[\"unsupported_language\"]' learns from any with the English ones."
        )
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    return (
        f"None of the {n} logs with feedback can be learnt from ({counts}): see "
        "langchain-uno logs stats, and [filter] in the recipe."
    )


def _counts(work: Work, snapshot: Mapping[str, Any]) -> dict[str, Any]:
    dropped: dict[str, int] = work.folder.read_json("dropped.json")
    usable = len(work.logs)
    return {
        "interactions": snapshot["interactions"],
        "heard": len(snapshot["logs"]),
        "usable": usable,
        "dropped": dropped,
        "unlabelled": len(work.unheard),
        "waiting": snapshot["waiting"],
        "waits_for": snapshot.get("waits_for"),
        "without_user": snapshot["without_user"],
        "note": f"{usable} usable, {sum(dropped.values())} left out",
    }
