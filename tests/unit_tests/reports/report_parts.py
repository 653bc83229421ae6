"""A report in which everything stands that a report can say."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from langchain_uno.records import VerifierReport
from langchain_uno.reports.store import (
    ClusterReport,
    Example,
    Funnel,
    MapPoint,
    Report,
    RuleTold,
)

RELEASE = "r20260301-120000-4f1c9a"


def verified(**more: Any) -> VerifierReport:
    known = {"kind": "expert", "n": 9, "people": 8, "win_rate": 0.75, "interval": (0.4, 0.9)}
    return VerifierReport.model_validate({**known, "p_value": 0.03, "passed": True, **more})


def cluster(name: str = "c0", text: str = "plain", **more: Any) -> ClusterReport:
    rule = RuleTold(text=text, people=3, logs=4, recurs=True)
    single = RuleTold(text=f"{text} once", people=1, logs=1, named_in=["log-single"])
    example = Example(
        log="log-example",
        request=text,
        base=text,
        answer=text,
        suggestions=[text],
        outcome=1.0,
        rules=[text],
        edit=text,
        rated=text,
        liked=True,
    )
    known: dict[str, Any] = {
        "id": name,
        "request": text,
        "request_log": "log-typical",
        "change": "gained",
        "route": "expert",
        "size": 20,
        "people": 5,
        "train": 15,
        "held_out": 5,
        "gap": 0.2,
        "n_gap_logs": 7,
        "low": True,
        "told": [rule, single],
        "rules_removed": [text],
        "refused": [RuleTold(text=text, people=1, logs=3, named_in=["log-refused"])],
        "acts_refused": 2,
        "reports": [verified(), verified(kind="critic", passed=False, reason=text)],
        "decided": verified(),
        "note": text,
        "won": 6,
        "tied": 2,
        "lost": 1,
        "examples": [example],
        "base_tokens": 40.0,
        "module_tokens": 60.0,
        "module_bytes": 1_300_000,
    }
    return ClusterReport.model_validate({**known, **more})


def report(text: str = "plain", clusters: int = 1, **more: Any) -> Report:
    told = [cluster(f"c{n}", text) for n in range(clusters)]
    known: dict[str, Any] = {
        "release": RELEASE,
        "created": datetime(2026, 3, 1, 12, tzinfo=timezone.utc),
        "promoted": True,
        "base_model": text,
        "judge": text,
        "recipe": {"name": text, "seed": 1, "verify": {"level": 0.05, "win_rate": 0.53}},
        "verdict": text,
        "changes": [text],
        "people": 12,
        "funnel": Funnel(
            interactions=50,
            heard=30,
            dropped={"too_short": 4},
            usable=26,
            asking=20,
            train=18,
            held_out=6,
            left_out=2,
        ),
        "points": [MapPoint(x=i, y=i * i % 7, cluster=f"c{i % 2}") for i in range(9)],
        "explained": 0.3,
        "routes": {"expert": clusters},
        "clusters": told,
        "scorers": {"judge": {"en": (6, 5)}, "reranker": {}},
        "notes": [text],
        "logs": ["log-example", "log-refused", "log-single", "log-typical"],
    }
    return Report.model_validate({**known, **more})
