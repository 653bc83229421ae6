"""The noise verdicts on labelled feedback: python -m lab.benchmarks.bench_noise

tests/data/feedback_labels.jsonl, written by us in the spirit of naturally occurring feedback,
English and Chinese: "dev" is what patterns were set on, "test" was written before them and only
counted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_uno.logs.filters import verdict
from langchain_uno.recipe import FilterSettings
from langchain_uno.records import Feedback, Interaction, Message
from langchain_uno.trainers.verifier import wilson

LABELS = Path(__file__).parents[1] / "data" / "feedback_labels.jsonl"
NOISE = ("praise_only", "small_talk", "vague", "hostile", "new_question", "prompt_injection")


def judged(row: dict[str, Any]) -> str:
    """Return the reason that the filters give for one labelled turn ("ok": it is kept)."""
    log = Interaction(
        run_id="r",
        messages=[Message(role="user", content=row["query"])],
        answer=row["answer"],
        language=row["language"],
        feedback=[Feedback(run_id="r", key="follow_up", comment=row["text"])],
    )
    return verdict(log, FilterSettings(), lambda language: True).reason


def rows(split: str) -> list[dict[str, Any]]:
    lines = LABELS.read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


def share(hits: int, n: int) -> str:
    if not n:
        return "-"
    low, high = wilson(hits / n, n, 0.95)
    return f"{100 * hits / n:.0f} % ({100 * low:.0f} to {100 * high:.0f}) of {n}"


def table(labelled: Sequence[dict[str, Any]], said: Sequence[str]) -> list[str]:
    """Return markdown rows: precision and recall per reason, and of "noise" as a whole."""
    pairs = [(row["label"], got) for row, got in zip(labelled, said, strict=True)]
    out = []
    for reason in (*NOISE, "noise"):

        def is_it(label: str, reason: str = reason) -> bool:
            return label == reason if reason != "noise" else label != "ok"

        both = sum(is_it(a) and is_it(b) for a, b in pairs)
        out.append(
            f"| {reason} | {share(both, sum(is_it(b) for _, b in pairs))} "
            f"| {share(both, sum(is_it(a) for a, _ in pairs))} |"
        )
    useful = [b for a, b in pairs if a == "ok"]
    out.append(f"| useful feedback kept | | {share(useful.count('ok'), len(useful))} |")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wrong", action="store_true", help="also list what dev gets wrong")
    given = parser.parse_args()
    for split in ("dev", "test"):
        for language in ("en", "zh", None):
            labelled = [r for r in rows(split) if language in (None, r["language"])]
            said = [judged(row) for row in labelled]
            print(f"\n{split}, {language or 'both languages'} ({len(labelled)} lines)\n")
            print("| reason | precision | recall |\n|---|---|---|")
            print("\n".join(table(labelled, said)))
            if given.wrong and split == "dev" and language is None:
                for row, got in zip(labelled, said, strict=True):
                    if got != row["label"]:
                        print(f"{row['label']} -> {got}: {row['text']}")


if __name__ == "__main__":
    main()
