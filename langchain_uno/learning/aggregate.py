"""Rules that recur within a cluster, so that partial mentions do not make partial modules.

A user names some of their wishes, not all. Trained on what each log happens to say, a module would
learn to do a part each time. So the wishes of a cluster's *training* logs are put together: equal
wordings are merged, a rule recurs when enough of the logs with any rule name it, and a rule that is
named on some queries only is bound to a condition on the query
(:mod:`langchain_uno.learning.conditions`).

    rules = aggregate_rules(rule_sets, queries, embedder=embedder)
    rules.complete(rule_set, query)      # a training log: its own rules and what else recurs
    rules.wanted_for(query)              # a query without feedback: what recurs, where it holds
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from langchain_uno.errors import InputError
from langchain_uno.learning.conditions import Condition, Vocabulary, find_condition
from langchain_uno.learning.drift import find_change, find_swap
from langchain_uno.learning.kinds import Kind, find_kinds, more_telling
from langchain_uno.learning.wordings import group_wordings, plain
from langchain_uno.models.protocols import Embedder, OnDone, Reranker
from langchain_uno.records import Rule, RuleSet

__all__ = ["ClusterRules", "RecurringRule", "aggregate_rules"]

MIN_MENTIONS = 2
"""A rule named once does not recur, however few the logs."""
ALPHA = 0.02
"""Accepted chance of a false condition on a rule that may well hold for all queries."""
WEAK_ALPHA = 0.2
"""The same for a rule named too seldom for that: "always" would be wrong for most queries."""
RIVAL_P = 0.01
GONE_ALPHA, COME_ALPHA = 0.05, 0.03
"""Accepted chance of taking a wish that never changed for one that went, or came later."""
SWAP_ALPHA = 0.05
"""The same for one wish of a cluster that gave way to another."""


class RecurringRule(BaseModel):
    """A wish that many logs of a cluster share."""

    model_config = ConfigDict(frozen=True)

    text: str
    """The most frequent of its wordings."""
    wordings: tuple[str, ...] = ()
    mentions: int
    """Training logs that name it."""
    users: int
    support: float
    """Share of the logs with any rule that name it, in [0, 1]."""
    condition: Condition | None = None
    """On which queries it is wanted; None: on all."""


class ClusterRules(BaseModel):
    """What a cluster's training logs say about its queries. Plain data, to be stored as JSON."""

    model_config = ConfigDict(frozen=True)

    recurring: tuple[RecurringRule, ...] = ()
    """The most supported first."""
    same: dict[str, str] = Field(default_factory=dict)
    """Wording -> text of its rule, for every wording seen in training."""
    rivals: tuple[tuple[str, str], ...] = ()
    """Recurring rules that hardly anyone wants together (two layouts, say): (rarer, commoner)."""
    gone: tuple[str, ...] = ()
    """Rules that were wanted once, and no longer (:mod:`langchain_uno.learning.drift`)."""
    own_rules: bool = True
    """Whether a log's own rules that do not recur are kept."""
    n_logs: int = 0
    n_voting: int = 0
    """Logs with at least one rule."""

    def wanted_for(self, query: str) -> list[Rule]:
        """Return the rules wanted for a query of the cluster that has no feedback (yet)."""
        return self._wanted(query, ())

    def idle_for(self, query: str, wanted: Collection[str]) -> list[str]:
        """Return the rules whose condition a query does not meet, less those wanted all the same.

        ``wanted`` are wordings: a user may name a rule where its condition does not hold.
        """
        named = {self.same.get(text, text) for text in wanted}
        return [
            rule.text
            for rule in self.recurring
            if rule.condition and not rule.condition.holds(query) and rule.text not in named
        ]

    def complete(self, rules: RuleSet, query: str) -> RuleSet:
        """Return a copy of a log's rules with ``wanted`` set.

        First what recurs and holds for the query, and the log's own mentions of recurring rules,
        in the cluster's order and words; then the log's own other rules as they are. Rules that
        the log did not name have the source ``aggregated``. Without ``own_rules`` those others go,
        from ``with_feedback`` too, and so do wishes that have gone.
        """
        known = {rule.text for rule in self.recurring}
        own = [
            rule
            for rule in self.still_wanted(rules.with_feedback)
            if self.own_rules or self.same.get(rule.text, rule.text) in known
        ]
        wanted = self._wanted(query, [rule.text for rule in own])
        return rules.model_copy(update={"with_feedback": own, "wanted": wanted})

    def still_wanted(self, rules: Sequence[Rule]) -> list[Rule]:
        """Return a log's rules less those that have gone since."""
        return [rule for rule in rules if self.same.get(rule.text, rule.text) not in self.gone]

    def _wanted(self, query: str, own: Sequence[str]) -> list[Rule]:
        named = list(dict.fromkeys(self.same.get(text, text) for text in own))
        chosen: list[Rule] = []
        for rule in self.recurring:
            if rule.text in named:
                chosen.append(Rule(text=rule.text, source="feedback"))
            elif rule.condition is None or rule.condition.holds(query):
                taken = {r.text for r in chosen} | set(named)
                if not any(self._are_rivals(rule.text, other) for other in taken):
                    chosen.append(Rule(text=rule.text, source="aggregated"))
        if not self.own_rules:
            return chosen
        known = {rule.text for rule in chosen}
        return chosen + [Rule(text=text, source="feedback") for text in named if text not in known]

    def _are_rivals(self, a: str, b: str) -> bool:
        return (a, b) in self.rivals or (b, a) in self.rivals


def aggregate_rules(
    rule_sets: Sequence[RuleSet],
    queries: Sequence[str],
    *,
    embedder: Embedder | None = None,
    reranker: Reranker | None = None,
    user_ids: Sequence[str | None] | None = None,
    min_support: float = 0.25,
    min_users: int = 1,
    votes: Literal["logs", "users"] = "logs",
    own_rules: bool = True,
    same: dict[str, str] | None = None,
    given: Sequence[Collection[str]] | None = None,
    common: Collection[str] = (),
    told: Collection[str] = (),
    times: Sequence[float] | None = None,
    kinds: bool = True,
    seed: int = 0,
    on_done: OnDone | None = None,
) -> ClusterRules:
    """Learn a cluster's recurring rules from its training logs (never from verification logs).

    Args:
        rule_sets: one a log; ``with_feedback`` is read, nothing is changed.
        queries: the logs' texts (``routing_text``), in the same order.
        embedder: proposes wordings that mean the same; None: equal texts only.
        reranker: decides on these proposals; None: high cosine decides.
        user_ids: who gave the feedback; None (or None for a log) is a person of their own.
        min_support: share of the logs with any rule that must name a rule.
        min_users: number of people that must name it.
        votes: whose share ``min_support`` is: the logs', or the people's with one vote each.
        own_rules: whether a log keeps rules of its own that do not recur.
        same: which wordings are one rule, if known (``group_wordings`` over the same logs).
        given: for each log the rules that the module which answered was trained on. Nobody asks
            for what he has got: whether such a log wants the rule is not known, unless it names it.
        common: words that other clusters' queries have too (``conditions.common_words``).
        told: words that are conditions in other clusters.
        times: when each log was answered, in seconds; None: nothing is known of drift.
        kinds: whether to look for two kinds of request with wishes of their own (``kinds.py``).
        seed: of the searches for conditions and drift.
        on_done: hears of the reranker's questions.

    Raises:
        InputError: the lists differ in length.
    """
    if len(rule_sets) != len(queries) or (user_ids is not None and len(user_ids) != len(queries)):
        raise InputError(
            f"Aggregation needs one query and user a log: got {len(rule_sets)} logs, "
            f"{len(queries)} queries, {len(user_ids) if user_ids is not None else 'no'} users."
        )
    texts = [[rule.text for rule in rules.with_feedback] for rules in rule_sets]
    if same is None:
        same = group_wordings(texts, embedder, reranker, on_done)
    voting = [i for i, rules in enumerate(texts) if any(t in same for t in rules)]
    if not voting:
        return ClusterRules(n_logs=len(rule_sets))
    names = list(dict.fromkeys(same.values()))
    column = {name: j for j, name in enumerate(names)}
    mentions = np.zeros((len(voting), len(names)), dtype=np.bool_)
    for row, i in enumerate(voting):
        mentions[row, [column[same[t]] for t in texts[i] if t in same]] = True
    people = [f"u:{user_ids[i]}" if user_ids and user_ids[i] else f"l:{i}" for i in voting]
    known = ~_given(voting, given, same, column) | mentions
    asked = [queries[i] for i in voting]
    kind_of = _kinds(mentions, known, asked, people, min_users, seed) if kinds else {}
    gone: set[int] = set()
    if times is not None:
        held = {j: kind.holds(asked) for j, kind in kind_of.items()}
        when = np.array([times[i] for i in voting])
        gone = _mark_drift(mentions, known, when, people, held, seed)
    recurring, columns = _recurring(
        names, mentions, known, asked, people, same, min_support, min_users, votes, seed, common,
        told, gone, kind_of,
    )  # fmt: skip
    return ClusterRules(
        recurring=tuple(recurring),
        same=same,
        gone=tuple(names[j] for j in sorted(gone)),
        rivals=_rivals(recurring, mentions[:, columns], known[:, columns]),
        own_rules=own_rules,
        n_logs=len(rule_sets),
        n_voting=len(voting),
    )


def _given(
    voting: Sequence[int],
    given: Sequence[Collection[str]] | None,
    same: dict[str, str],
    column: dict[str, int],
) -> NDArray[np.bool_]:
    """Whether each voting log was answered by a module that knew the rule, shape (logs, rules)."""
    out = np.zeros((len(voting), len(column)), dtype=np.bool_)
    by_words = {plain(text): name for text, name in same.items()}
    for row, i in enumerate(voting if given else ()):
        assert given is not None
        for text in given[i]:
            name = by_words.get(plain(text))
            if name is not None:
                out[row, column[name]] = True
    return out


def _recurring(
    names: list[str],
    mentions: NDArray[np.bool_],
    known: NDArray[np.bool_],
    queries: list[str],
    people: list[str],
    same: dict[str, str],
    min_support: float,
    min_users: int,
    votes: Literal["logs", "users"],
    seed: int,
    common: Collection[str],
    told: Collection[str],
    gone: Collection[int],
    kind_of: Mapping[int, Kind],
) -> tuple[list[RecurringRule], list[int]]:
    named, asked = mentions, known
    if votes == "users":
        _, person = np.unique(people, return_inverse=True)
        named, asked = (_by_person(person, one) for one in (mentions, known))
    support = named.sum(axis=0) / np.maximum(asked.sum(axis=0), 1)
    vocabularies: dict[bytes, Vocabulary] = {}
    found: list[tuple[RecurringRule, int]] = []
    for j, name in enumerate(names):
        count, users = int(mentions[:, j].sum()), _users(mentions[:, j], people)
        if count < MIN_MENTIONS or users < min_users or j in gone:
            continue
        rows = known[:, j]
        there = [q for q, row in zip(queries, rows, strict=True) if row]
        key = rows.tobytes()
        if key not in vocabularies:
            vocabularies[key] = Vocabulary(there, seed, common)
        general = _may_be_general(count, int(rows.sum()), float(support.max()))
        alpha = ALPHA if general else WEAK_ALPHA
        condition = find_condition(
            vocabularies[key], mentions[rows, j], alpha=alpha, seed=seed, told=told
        )
        if j in kind_of:
            condition = more_telling(kind_of[j], condition, there, mentions[rows, j])
        if condition is None and support[j] < min_support:
            continue
        values: dict[str, Any] = {"mentions": count, "users": users, "support": float(support[j])}
        wordings = tuple(sorted(w for w, head in same.items() if head == name))
        rule = RecurringRule(text=name, wordings=wordings, condition=condition, **values)
        found.append((rule, j))
    found.sort(key=lambda pair: (-pair[0].support, pair[0].text))
    return [rule for rule, _ in found], [j for _, j in found]


def _kinds(
    mentions: NDArray[np.bool_],
    known: NDArray[np.bool_],
    queries: list[str],
    people: list[str],
    min_users: int,
    seed: int,
) -> dict[int, Kind]:
    """Return the kind of request of each rule (column) that one of two kinds alone wants."""
    often = [j for j, column in enumerate(mentions.T) if _users(column, people) >= min_users]
    rows = np.logical_and.reduce(known[:, often], axis=1)
    vocabulary = Vocabulary([q for q, row in zip(queries, rows, strict=True) if row], seed)
    kinds = find_kinds(vocabulary, mentions[rows][:, often], seed=seed)
    return {often[i]: kind for kind in kinds for i in kind.rules}


def _users(named: NDArray[np.bool_], people: list[str]) -> int:
    return len({people[i] for i in np.flatnonzero(named)})


def _mark_drift(
    mentions: NDArray[np.bool_],
    known: NDArray[np.bool_],
    times: NDArray[np.float64],
    people: Sequence[str],
    held: Mapping[int, NDArray[np.bool_]],
    seed: int,
) -> set[int]:
    """Return the rules that are wanted no more; what came later is not known of before it came.

    ``held`` says where a rule of a kind is looked at: that the other kind is asked for more than
    before is no change of wishes.
    """
    _, person = np.unique(people, return_inverse=True)
    order = np.argsort(times, kind="stable")
    gone: set[int] = set()
    same: list[int] = []

    def came(j: int, earlier: NDArray[np.int64]) -> None:
        known[earlier[~mentions[earlier, j]], j] = False

    for j in np.flatnonzero(mentions.sum(axis=0) >= MIN_MENTIONS).tolist():
        asked = known[:, j] & held[j] if j in held else known[:, j]
        rows = order[asked[order]]
        change = find_change(
            mentions[rows, j], times[rows], person[rows], alpha=GONE_ALPHA, seed=seed
        )
        if change is None:
            if j not in held:
                same.append(j)
        elif change.kind == "gone":
            gone.add(j)
        elif change.p_value <= COME_ALPHA:
            came(j, rows[: change.at])
    # Of those that did not change by themselves: did one give way to another?
    rows = order[known[order][:, same].all(axis=1)]
    swap = find_swap(
        mentions[rows][:, same], times[rows], person[rows], alpha=SWAP_ALPHA, seed=seed
    )
    if swap is not None:
        gone.add(same[swap.gone])
        came(same[swap.come], rows[: swap.at])
    return gone


def _by_person(person: NDArray[np.int64], logs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each person (rows) what is true of any of that person's logs."""
    out = np.zeros((int(person.max()) + 1, logs.shape[1]), dtype=np.bool_)
    np.logical_or.at(out, person, logs)
    return out


def _may_be_general(count: int, n: int, best: float) -> bool:
    """Whether a rule named ``count`` times may be as widely wanted as the most named one.

    People name a wish that they have at about one rate. A rule far below that rate is wanted by
    some, or on some queries: there a condition is believed on weaker evidence.
    """
    from scipy.stats import binom

    return bool(binom.cdf(count, n, best) >= 0.05)


def _rivals(
    rules: Sequence[RecurringRule], mentions: NDArray[np.bool_], known: NDArray[np.bool_]
) -> tuple[tuple[str, str], ...]:
    """Pairs named together far less often than chance would have it, where both could be named."""
    from scipy.stats import hypergeom

    pairs = []
    for b in range(len(rules)):
        for a in range(b):
            told = mentions[known[:, a] & known[:, b]]
            n = len(told)
            both = int((told[:, a] & told[:, b]).sum())
            na, nb = int(told[:, a].sum()), int(told[:, b].sum())
            seldom = n > 0 and both <= 0.25 * na * nb / n
            if seldom and hypergeom.cdf(both, n, na, nb) < RIVAL_P:
                pairs.append((rules[b].text, rules[a].text))
    return tuple(pairs)
