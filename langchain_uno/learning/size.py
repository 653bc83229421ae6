"""The bound on the size of all modules of a release (``releases.max_percent`` of a home)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from langchain_uno.home import load_settings
from langchain_uno.learning.work import ClusterData, Work

if TYPE_CHECKING:
    from langchain_uno.learning.train import Decision


def bound_size(work: Work, clusters: Sequence[ClusterData], decided: Sequence[Decision]) -> None:
    """Leave to the base model what proves least, where all modules together are too large.

    Args:
        work: the refresh.
        clusters: all of them.
        decided: what the train stage settled for each; changed in place.
    """
    from langchain_uno.models.adapters import count_base, count_weights

    most = load_settings(work.home).releases.max_percent
    whole = count_base(cast(Any, work.engine).model)
    room = bound = most / 100 * whole

    def proven(n: int) -> float:
        report = decided[n].report
        return (report.interval[0] - 0.5) * len(clusters[n].run_ids) if report else 0.0

    for n in sorted(range(len(decided)), key=proven, reverse=True):
        one = decided[n]
        if one.adapter is None:
            continue
        size = count_weights(work.folder.path(one.adapter))
        if size <= room:
            room -= size
            continue
        present = None if one.kept else one.instead
        if present and (least := count_weights(work.folder.path(present.adapter))) <= room:
            room -= least
            one.keep(present, "kept, since what is new is too large (releases.max_percent)")
            continue
        alone = f"this one has {100 * size / whole:.3g} %"
        why = alone if size > bound else "others prove more"
        one.notes.append(
            f"{one.route}: left out, all modules may have {most:g} % of the base model's weights "
            f"(releases.max_percent) and {why}"
        )
        one.route, one.adapter, one.kept = "base", None, None
