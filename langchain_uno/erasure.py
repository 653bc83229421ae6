"""Forgetting: a user's, a thread's or a run's records go from everywhere, and stay away.

    receipt = forget(home, user_id="u-17")
    receipt = forget_older(home, days=90)

In this order, so that nothing can be learnt from half-forgotten data and a kill at any moment is
made good by the next call (:func:`resume`): the journal deletes the records and notes what is left
to do, in one transaction; releases that learnt from them are revoked and emptied; the reports that
they are in, the Chroma index, the vector cache, the refreshes' work and what people decided about
the records go; the journal's file is written anew, so that the bytes are gone too. No refresh and
no drain runs meanwhile. Records that quote forgotten ones (later turns of the same conversation,
other calls of the same trace) go with them. Runs that began before are not recorded when they end.
Every host has a journal of its own: forget on each of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from langchain_uno.errors import InputError
from langchain_uno.home import MAX_RETENTION_DAYS, Home, load_settings, refresh_lock
from langchain_uno.logs import erase
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import forget_in_index, store_lock
from langchain_uno.logs.tombstones import Kind, plant, taught_before
from langchain_uno.records import utc_now
from langchain_uno.releases.history import note
from langchain_uno.releases.manifest import lineage_key, opaque_id
from langchain_uno.reports.render import counted
from langchain_uno.reports.store import take_out

STEPS = ("journal", "releases", "reports", "index", "vectors", "work", "bytes")
OnStep = Callable[[str], None]


def _silent(step: str) -> None:
    """Nobody is told of it."""


def forget(
    home: Home,
    *,
    user_id: str | int | UUID | None = None,
    thread_id: str | int | UUID | None = None,
    run_ids: Collection[str] = (),
    on_step: OnStep = _silent,
    by: str = "",
) -> dict[str, Any]:
    """Forget a user, a thread or runs; return the receipt: counts and a time, nobody's ids.

    Its ``releases`` are those that are revoked, ``answers`` says who answers which share of the
    requests since (nothing: the base model answers all).

    Tombstones keep an old export from bringing anything back. What the same user or thread does
    afterwards is recorded anew. Where nothing is found nothing else changes, and the receipt's
    ``found`` is False.

    Args:
        home: the namespace.
        user_id: all that this user asked, and the feedback this user gave on any run.
        thread_id: all of this conversation.
        run_ids: these runs: model runs, root runs, or message ids.
        on_step: is told of each of :data:`STEPS` when it begins.
        by: who asks for it, for the history; the name of the process's user by default.

    Raises:
        InputError: not exactly one of the three is given.
        HomeError: there is no such home.
        StoreBusyError: a refresh, a drain or an endless reader is at it.
        StoreError: the journal or Chroma can't be used; call again, it goes on.
    """
    what, named = _named(user_id, thread_id, run_ids)
    with _alone(home), Journal(home.journal) as journal:
        _finish_all(home, journal)
        on_step("journal")
        # First, so that a run which ends while it is looked for is not recorded.
        journal.database.transaction(lambda db: plant(db, named, time.time()))
        chosen, before = _chosen(journal, named)
        return _take_out(home, journal, chosen, what, on_step, before, by)


def forget_preview(
    home: Home,
    *,
    user_id: str | int | UUID | None = None,
    thread_id: str | int | UUID | None = None,
    run_ids: Collection[str] = (),
) -> dict[str, Any]:
    """Tell what :func:`forget` would take; nothing is changed.

    Args:
        home: the namespace.
        user_id: as for :func:`forget`.
        thread_id: likewise.
        run_ids: likewise.

    Returns:
        The receipt, of what would be.

    Raises:
        InputError, HomeError, StoreError: as for :func:`forget`.
    """
    from langchain_uno.releases.taint import tainted_by

    what, named = _named(user_id, thread_id, run_ids)
    with Journal(home.require().journal) as journal:
        chosen, before = _chosen(journal, named)
    receipt, tainted = _receipt(what, chosen, before), []
    if receipt["found"] and any(home.releases.glob("*/")):
        key = lineage_key(home)
        taught = {opaque_id(key, run_id) for run_id in chosen.touched}
        tainted = list(tainted_by(home, {*taught, *before}))
    return {**receipt, **_revoked(home, tainted), "finished": False}


def _named(
    user_id: Any, thread_id: Any, run_ids: Collection[str]
) -> tuple[str, list[tuple[Kind, str]]]:
    """Return what kind of thing is named, and the names of its tombstones."""
    given: dict[Kind, Any] = {"user": user_id, "thread": thread_id, "run": run_ids or None}
    said = [(kind, ids) for kind, ids in given.items() if ids is not None]
    if len(said) != 1:
        raise InputError("Name what to forget: a user, a thread or runs, one of the three.")
    [(kind, ids)] = said
    if kind == "run":
        return "runs", erase.named(kind, ids)
    return kind, erase.named(kind, [str(ids)])


def _chosen(journal: Journal, named: Sequence[tuple[Kind, str]]) -> tuple[erase.Chosen, list[str]]:
    """Return what goes, and the lineage ids of what retention took of it before."""
    chosen = erase.choose(journal, named)
    return chosen, journal.database.transaction(lambda db: taught_before(db, chosen.names))


def forget_older(home: Home, *, days: float, on_step: OnStep = _silent) -> dict[str, Any]:
    """Forget all records older than ``days``; return the receipt.

    Retention ends the storing: releases that learnt meanwhile stay, and there are no tombstones.
    Reports that are older go; younger ones lose what they quote of these records.
    Whoever asks to be forgotten later has these releases revoked all the same.

    Raises:
        InputError: ``days`` is not positive, or above a hundred years.
        HomeError, StoreBusyError, StoreError: as for :func:`forget`.
    """
    if not 0 < days <= MAX_RETENTION_DAYS:
        raise InputError(
            f"Retention is a number of days above 0 and up to {MAX_RETENTION_DAYS:,}, not {days!r}."
        )
    with _alone(home), Journal(home.journal) as journal:
        _finish_all(home, journal)
        on_step("journal")
        chosen = erase.choose_older(journal, time.time() - days * 86_400)
        take_out(home, (), whole=False, before=utc_now() - timedelta(days=days))
        return _take_out(home, journal, chosen, "retention", on_step)


def resume(home: Home, on_step: OnStep = _silent) -> list[dict[str, Any]]:
    """Finish erasures that were interrupted; return their receipts (usually none).

    Raises:
        HomeError, StoreBusyError, StoreError: as for :func:`forget`.
    """
    with Journal(home.require().journal) as journal:
        if not erase.pending(journal):
            return []
    with _alone(home), Journal(home.journal) as journal:
        return _finish_all(home, journal, on_step)


def keep_promises(home: Home) -> None:
    """Finish what was interrupted, and forget what the settings say is too old.

    Raises:
        ConfigError: ``settings.toml`` is wrong.
        HomeError, StoreBusyError, StoreError: as for :func:`forget`.
    """
    resume(home)
    days = load_settings(home).logs.retention_days
    if days is not None:
        forget_older(home, days=days)


@contextmanager
def _alone(home: Home) -> Any:
    """Hold what a refresh and a drain hold."""
    home.require()
    refreshes = refresh_lock(home, "which must not learn from what is being forgotten")
    with refreshes, store_lock(home):
        yield


def _take_out(
    home: Home,
    journal: Journal,
    chosen: erase.Chosen,
    what: str,
    on_step: OnStep,
    before: Collection[str] = (),
    by: str = "",
) -> dict[str, Any]:
    receipt = _receipt(what, chosen, before)
    if not receipt["found"]:
        return {**receipt, **_revoked(home, ()), "finished": True}
    key = lineage_key(home)
    erase.take_out(
        journal, chosen, lambda run_id: opaque_id(key, run_id), receipt, also=before, at=time.time()
    )
    done = _finish_all(home, journal, on_step)[-1]
    named = what if what == "retention" else f"forget {what}"
    note(home, named, None, counts_of(done), by)
    return done


def counts_of(receipt: dict[str, Any]) -> str:
    """Say what a receipt counts."""
    return (
        f"{counted(receipt['interactions'], 'answer')}, "
        f"{counted(receipt['feedback'], 'piece of feedback', 'pieces of feedback')}, "
        f"{counted(receipt['releases_tainted'], 'release')} revoked"
    )


def _receipt(what: str, chosen: erase.Chosen, before: Collection[str]) -> dict[str, Any]:
    return {
        "what": what,
        "at": utc_now().isoformat(timespec="seconds"),
        "found": bool(chosen or before),
        "interactions": len(chosen.run_ids),
        "of_these_quoting": chosen.quoting,
        "feedback": len(chosen.feedback_ids),
    }


def _revoked(home: Home, tainted: Collection[str]) -> dict[str, Any]:
    """Return what a receipt says of releases: which are revoked, and who answers then."""
    from langchain_uno.releases.publish import traffic_without

    answers = traffic_without(home, tainted).answers
    return {"releases_tainted": len(tainted), "releases": [*tainted], "answers": answers}


def _finish_all(home: Home, journal: Journal, on_step: OnStep = _silent) -> list[dict[str, Any]]:
    """Do what the journal says is left to do; every step may be repeated."""
    from langchain_uno.learning.decisions import forget_decisions
    from langchain_uno.learning.work import clear_work
    from langchain_uno.logs.vectors import keep_only
    from langchain_uno.releases.taint import taint

    receipts = []
    for one in erase.pending(journal):
        receipt = one.receipt
        tainted: list[str] = []
        if receipt["what"] != "retention":
            on_step("releases")
            tainted = taint(home, one.opaque)
        on_step("reports")
        take_out(home, one.opaque, whole=receipt["what"] != "retention")
        on_step("index")
        forget_in_index(home, journal, one.run_ids)
        on_step("vectors")
        left = [row.run_id for row in journal.rows()]
        keep_only(home.work / "vectors.sqlite3", (log.query for log in journal.interactions(left)))
        on_step("work")
        clear_work(home.work, one.run_ids, whole=receipt["what"] != "retention")
        forget_decisions(home, one.run_ids, left, whole=receipt["what"] != "retention")
        on_step("bytes")
        erase.shrink(journal)
        receipt = {**receipt, **_revoked(home, tainted), "finished": True}
        erase.finish(journal, one.seq, receipt)
        erase.shrink(journal)  # the note of what was left to do had ids in it
        receipts.append(receipt)
    return receipts
