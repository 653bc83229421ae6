"""What a home's journal holds, counted: no model, no Chroma, no lock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from langchain_uno.home import Home
from langchain_uno.logs.filters import REASONS, supports_of
from langchain_uno.logs.join import FOLLOW_UP
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.kept import KeptLog
from langchain_uno.logs.store import lacking


def stats(home: Home) -> dict[str, Any]:
    """Count what a home's journal holds; see ``python -m langchain_uno.logs stats --help``.

    Raises:
        HomeError, StoreError: there is no home, or its journal can't be read.
    """
    with Journal(home.require().journal, readonly=True) as journal, KeptLog(home, journal) as kept:
        supports = supports_of(home)
        facts = [(one, n) for _, one, n in kept.facts()]
        reasons = summed((one.reason(supports), n) for one, n in facts)
        distinct = kept.distinct(supports)
        reasons.update({"duplicate": reasons["ok"] - distinct, "ok": distinct - reasons["ok"]})
        by_models = journal.model_verdicts()
        first = kept.first_of_equals(supports)
        for run_id, (digest, one) in by_models.items():
            if first.get(run_id) == digest and one.reason in REASONS:
                reasons.update({"ok": -1, one.reason: 1})
        feedback = [(*said, n) for one, n in facts for said in one.said]
        total, threads, earliest, latest = kept.span()
        asked = "SELECT count(*), count(DISTINCT user_id) FROM interactions WHERE user_id > ''"
        with_user, users = journal.database.read(asked)[0]
        return {
            "home": str(home.path),
            "namespace": home.namespace,
            "interactions": total,
            "usable": reasons["ok"],
            "verdicts": _sorted(reasons),
            "languages": _sorted(summed((one.language, n) for one, n in facts)),
            "feedback": journal.counts()[1],
            "feedback_kinds": _sorted(summed((key, n) for key, *_, n in feedback)),
            "follow_ups": sum(n for key, *_, n in feedback if key == FOLLOW_UP),
            "corrections": sum(n for _, edit, _, n in feedback if edit),
            "scores": sum(n for *_, score, n in feedback if score),
            "waiting_feedback": len(journal.waiting()),
            "without_user": total - with_user,
            "users": users,
            "threads": threads,
            "models": _sorted(summed((one.model or "unknown", n) for one, n in facts)),
            "routes": _sorted(summed((one.route, n) for one, n in facts if one.route)),
            "datasets": _sorted(summed((one.dataset, n) for one, n in facts if one.dataset)),
            "errors": sum(n for one, n in facts if one.failed),
            "redacted": journal.redacted(),
            "pending": len(lacking(journal, kept)),
            "first": _moment(earliest),
            "last": _moment(latest),
        }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def summed(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    """Return the sum of the numbers that stand with each name."""
    counts: Counter[str] = Counter()
    for name, n in pairs:
        counts[name] += n
    return counts


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted((+counts).items(), key=lambda item: (-item[1], item[0])))
