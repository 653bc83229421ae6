"""Systems that need no training of their own: a rule that picks each cluster's route.

Experts, memories and critics of every cluster were made and answered already (``everywhere.py``).
What UNO, the paper's rule or an ablation would have shipped is a choice among those answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lab.studies.everywhere import Kept, was_made
from langchain_uno.demo.asking import Answered
from langchain_uno.graphs.refresh_modules import best_of
from langchain_uno.graphs.refresh_trials import Trial
from langchain_uno.records import ModuleKind, Route

__all__ = ["CHOICES", "compose", "routes_of"]

_Trials = Mapping[ModuleKind, Trial]
Choose = Callable[[bool, _Trials, float], Route]
"""(gap is low, the cluster's trials, the paper's win rate) -> route."""


def _passed(low: bool, trials: _Trials) -> dict[ModuleKind, Trial]:
    return {k: t for k, t in trials.items() if t.passed and (low or k != "expert")}


def _made(trials: _Trials, kind: ModuleKind) -> bool:
    return was_made(trials.get(kind), kind)


def _uno(low: bool, trials: _Trials, bar: float) -> Route:
    return best_of(_passed(low, trials)) or "base"


def _no_memory(low: bool, trials: _Trials, bar: float) -> Route:
    return best_of({k: t for k, t in _passed(low, trials).items() if k != "memory"}) or "base"


def _single(low: bool, trials: _Trials, bar: float) -> Route:
    return "expert" if "expert" in _passed(low, trials) else "base"


def _paper(low: bool, trials: _Trials, bar: float) -> Route:
    """Experts by the win rate's point, critics unverified (paper, stages 7 and 8)."""
    report = trials["expert"].report if "expert" in trials else None
    if low and report is not None and report.win_rate >= bar:
        return "expert"
    return "critic" if _made(trials, "critic") else "base"


def _no_gap(low: bool, trials: _Trials, bar: float) -> Route:
    return _uno(True, trials, bar)


def _no_verifier(low: bool, trials: _Trials, bar: float) -> Route:
    if low and _made(trials, "expert"):
        return "expert"
    if _made(trials, "memory"):
        return "memory"
    return "critic" if _made(trials, "critic") else "base"


CHOICES: dict[str, Choose] = {
    "uno": _uno,
    "no memory": _no_memory,
    "single": _single,
    "paper's rule": _paper,
    "no gap": _no_gap,
    "no verifier": _no_verifier,
}
"""Name -> how it picks a cluster's route."""


def routes_of(name: str, kept: Kept) -> dict[str, Route]:
    """Return each cluster's route under a choice."""
    recipe = kept.release.manifest.recipe
    threshold, bar = recipe["gap"]["threshold"], recipe["verify"]["win_rate"]
    return {
        cluster.id: CHOICES[name](
            cluster.is_low(float(threshold)), kept.trials[cluster.id], float(bar)
        )
        for cluster in kept.clusters
    }


def compose(
    routes: Mapping[str, Route],
    base: Sequence[Answered],
    modules: Mapping[ModuleKind, Sequence[Answered]],
) -> list[Answered]:
    """Return what a system answers that sends each cluster where ``routes`` says.

    ``modules`` are the answers of each kind of module everywhere.
    """
    pools: dict[str, Sequence[Answered]] = {"base": base}
    pools.update(modules.items())
    out = []
    for i, one in enumerate(modules["expert"]):  # the base's own answers name no cluster
        route = routes.get(one.cluster or "", "base")
        picked = pools[route][i]
        out.append(picked.model_copy(update={"route": route, "cluster": one.cluster}))
    return out
