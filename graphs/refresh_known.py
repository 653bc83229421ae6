"""Rules that an earlier refresh of the home has distilled, so that no log is distilled twice.

Rules are taken over where everything that they came of is the same: the log with its feedback, the
models, the prompts, the recipe's settings for it. A log whose words gave no rule is asked again: it
is not noted whether they ask for nothing or the model's answer could not be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from langchain_uno.errors import StoreError
from langchain_uno.graphs.checkpoints import WorkFolder
from langchain_uno.graphs.refresh_context import RefreshContext
from langchain_uno.records import Interaction, RuleSet

__all__ = ["known_rules", "note_rules"]

_FILE = "distilled.json"


def known_rules(ctx: RefreshContext, logs: Sequence[Interaction]) -> dict[str, RuleSet]:
    """Return the rule sets that need not be distilled again, by run id."""
    found: dict[str, RuleSet] = {}
    wanted = {log.run_id: _digest(log) for log in logs}
    for folder in sorted(ctx.home.work.glob("refresh-*")):
        other = WorkFolder(folder)
        if folder.name == ctx.id or not (other.has(_FILE) and other.has("rules.jsonl")):
            continue
        try:
            noted = other.read_json(_FILE)
            if noted["by"] != _by(ctx):
                continue
            for rules in other.read_records("rules.jsonl", RuleSet):
                same = noted["logs"].get(rules.run_id) == wanted.get(rules.run_id, "")
                if same and rules.with_feedback:
                    found[rules.run_id] = rules
        except StoreError:  # a damaged file of a refresh that is over: its logs are asked again
            continue
    return found


def note_rules(ctx: RefreshContext, logs: Sequence[Interaction]) -> None:
    """Note what this refresh's rules came of."""
    ctx.work.write_json(_FILE, {"by": _by(ctx), "logs": {log.run_id: _digest(log) for log in logs}})


def _by(ctx: RefreshContext) -> str:
    parts = (
        f"{ctx.recipe.max_rule_tokens} {ctx.recipe.gap.max_guessed_rules}",
        ctx.engine.fingerprint,
        ctx.teacher.fingerprint,
        ctx.prompts.fingerprint,
        ctx.teacher_prompts.fingerprint,
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _digest(log: Interaction) -> str:
    text = log.model_dump_json(exclude={"verdict"})
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
