"""Which wishes one person repeats and few share: a personal taste, or a plant.

Told by meaning: an embedder finds wishes that are near each other, and a reranker, where there is
one, says which of these are the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langchain_uno.learning.wordings import BACKGROUND, centred, confirmed, plain
from langchain_uno.models.protocols import Embedder, Reranker
from langchain_uno.records import Interaction

# Cosines of centred vectors. Measured on the rules of 200 real dialogs with a sentence embedder,
# with wishes planted by two people in ten wordings (lab/results/rules.md).
SHARED = 0.55
"""Two people have the same wish."""
REPEATED = 0.5
"""One person has the same wish on two requests."""
BELONGS = 0.4
"""A wish belongs to those that one person repeats: to the mean of them."""
RECURS = 2
"""Requests on which a voice must have a wish before it is more than a wish about one of them."""
SPREAD = 3
"""Clusters in which a voice must have a wish to have it whatever the request is."""
WITNESSES = 32
"""Voices of whom a reranker is asked whether they have a wish, at most."""
POPULAR = 0.25
"""Share of all voices that make a wish everybody's, wherever they ask for it."""

_SENTENCE = re.compile(r"(?<=[.!?。！？])\s*|\n+")


class Mention(NamedTuple):
    """One wish as one voice said it on one request."""

    text: str
    voice: str
    request: str
    cluster: str = ""
    """Where the request belongs."""


def request_of(log: Interaction) -> str:
    """Return what tells one request from another: how the conversation began, and its thread.

    A thread alone does not: its id is the client's to choose, and any number of requests may be
    sent under one.
    """
    first = next((m.content for m in log.messages if m.role == "user"), "")
    return f"{log.thread_id or ''}\0{plain(first)}"


def added(before: str, after: str) -> list[str]:
    """Return the sentences that one answer has and another one before it has not."""
    known = {plain(part) for part in _SENTENCE.split(before)}
    new = [part.strip() for part in _SENTENCE.split(after)]
    return [part for part in new if plain(part) and plain(part) not in known]


def repeated_by_few(
    mentions: Sequence[Mention],
    embedder: Embedder,
    min_users: int,
    reranker: Reranker | None = None,
) -> NDArray[np.bool_]:
    """Return which mentions are of a wish that its voice repeats and too few people share, (n,).

    A wish is shared where mentions of ``min_users`` voices lie around it and, if there is a
    reranker, are the same wish: to an embedder "name the source" is near "name the deadline". A
    voice that has it in :data:`SPREAD` clusters asks for it whatever the request is, and does not
    count, unless so many voices have the wish (:data:`POPULAR`) that it is everybody's.

    Of the wishes that are not shared, those of one voice that are alike are taken as one. If that
    one is said on several requests it is marked, with all other unshared wishes of this voice that
    belong to it. What another voice says once is not marked: nobody strikes out others' wishes by
    repeating them. Whoever repeats what few share does not count for any other wish either, in
    words, edits or likes.
    """
    out = np.zeros(len(mentions), dtype=np.bool_)
    if not mentions:
        return out
    texts = list(dict.fromkeys(m.text for m in mentions))
    place = {text: i for i, text in enumerate(texts)}
    x = centred(embedder.embed([*texts, *BACKGROUND]))[: len(texts)]
    who: list[dict[str, set[str]]] = [defaultdict(set) for _ in texts]
    for m in mentions:
        who[place[m.text]][m.voice].add(m.cluster)
    same = dict[int, list[int]]()
    if reranker is not None:
        suspected = {i for _, i in _repeated(mentions, place, x, np.zeros(len(x), dtype=np.bool_))}
        same = {i: [i] for i in suspected}
        for i, j in confirmed([*_witnesses(suspected, x, who)], texts, reranker):
            same[i].append(j)
    bad = _repeated(mentions, place, x, _shared(x, same, who, min_users))
    if repeating := {voice for voice, _ in bad}:
        others = [{v: c for v, c in by.items() if v not in repeating} for by in who]
        bad |= _repeated(mentions, place, x, _shared(x, same, others, min_users))
    return np.array([(m.voice, place[m.text]) in bad for m in mentions], dtype=np.bool_)


def _repeated(
    mentions: Sequence[Mention],
    place: Mapping[str, int],
    x: NDArray[np.float64],
    shared: NDArray[np.bool_],
) -> set[tuple[str, int]]:
    """Return the unshared wishes that their voice repeats, as (voice, row of ``x``)."""
    spoken: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for m in mentions:
        if not shared[place[m.text]]:
            spoken[m.voice][place[m.text]].add(m.request)
    bad: set[tuple[str, int]] = set()
    for voice, said in spoken.items():
        rows = np.array(sorted(said))
        labels = np.arange(len(rows))
        for alike, _ in _near(x[rows], REPEATED):
            if np.ptp(own := labels[alike]):
                labels[np.isin(labels, own)] = own.min()
        for label in np.unique(labels):
            part = rows[labels == label]
            if len(set().union(*(said[i] for i in part))) < RECURS:
                continue
            mean = x[part].mean(axis=0)
            near = x[rows] @ (mean / max(float(np.linalg.norm(mean)), 1e-12)) >= BELONGS
            bad.update((voice, i) for i in {*part.tolist(), *rows[near].tolist()})
    return bad


def _near(x: NDArray[np.float64], least: float) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the rows around each row, itself among them, and their cosines."""
    for start in range(0, len(x), 256):  # all at once would take room for the square of the rows
        for cosines in x[start : start + 256] @ x.T:
            rows = np.flatnonzero(cosines >= least)
            yield rows, cosines[rows]


def _witnesses(
    suspected: Collection[int], x: NDArray[np.float64], who: Sequence[Mapping[str, set[str]]]
) -> Iterator[tuple[int, int]]:
    """Yield each wish with those around it, nearest first, of a voice that no nearer one has."""
    for i, (near, cosines) in enumerate(_near(x, SHARED)):
        heard = set(who[i])
        for j in near[np.argsort(-cosines, kind="stable")].tolist() if i in suspected else ():
            if len(heard) >= WITNESSES:
                break
            if not who[j].keys() <= heard:
                heard |= who[j].keys()
                yield i, j


def _shared(
    x: NDArray[np.float64],
    same: Mapping[int, Sequence[int]],
    who: Sequence[Mapping[str, set[str]]],
    min_users: int,
) -> NDArray[np.bool_]:
    """Return which wishes enough voices vouch for, (n,).

    Those of ``same`` may, where a reranker was asked; of ``who`` are the clusters of each voice.
    """
    out = np.zeros(len(x), dtype=np.bool_)
    many = POPULAR * len(set().union(*(set(by) for by in who)))
    for i, (rows, _) in enumerate(_near(x, SHARED)):
        where: dict[str, set[str]] = defaultdict(set)
        for j in (around := rows.tolist()):
            for voice, clusters in who[j].items():
                where[voice] |= clusters
        voices = set().union(*(who[j] for j in same.get(i, around)))
        vouching = sum(len(where[voice]) < SPREAD for voice in voices)
        out[i] = vouching >= min_users or len(voices) >= max(many, min_users)
    return out
