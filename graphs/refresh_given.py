"""What the modules knew that answered: the rules that nobody had to ask them for.

Once a module obeys a rule, people stop asking for it. Counted as if nobody wanted it any more, the
rule would be unlearnt, missed, asked for and learnt again, round after round (it was:
lab/experiments.md). An interaction names the release and cluster that answered; the release says
which rules that module was trained on.
"""

from __future__ import annotations

from langchain_uno.errors import NameError_, ReleaseError
from langchain_uno.graphs.refresh_context import RefreshContext
from langchain_uno.learning.conditions import rules_for
from langchain_uno.records import Interaction
from langchain_uno.releases.load import read_manifest
from langchain_uno.releases.manifest import Manifest

__all__ = ["given_rules"]


def given_rules(ctx: RefreshContext) -> dict[str, list[str]]:
    """Return, for every log that a module answered, the rules it knew for that request.

    Logs whose release is gone, or that the base answered, are left out.
    """
    releases: dict[str, Manifest | None] = {}
    out: dict[str, list[str]] = {}
    for run_id, log in ctx.logs.items():
        if log.release is None or log.route in (None, "base"):
            continue
        if log.release not in releases:
            releases[log.release] = _manifest(ctx, log.release)
        known = _known(releases[log.release], log)
        if known:
            out[run_id] = known
    return out


def _known(release: Manifest | None, log: Interaction) -> list[str]:
    """Return the rules for this request of the module that answered; none when it can't be told."""
    for cluster in release.clusters if release else ():
        if cluster.id == log.cluster and cluster.route == log.route:
            return rules_for(log.query, cluster.rules, cluster.conditions)
    return []


def _manifest(ctx: RefreshContext, name: str) -> Manifest | None:
    try:
        return read_manifest(ctx.home, name)
    except (ReleaseError, NameError_):  # deleted or revoked since
        return None
