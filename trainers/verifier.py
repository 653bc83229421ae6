"""Stage 7: the simulated performance verifier. No module ships that was not seen to beat the base.

    exam = Exam(engine, judge_engine, prompts, recipe)
    side = exam.answer_as_base(items)
    report = exam.verify_expert(side, epochs, kinds=2)
    shipped = may_ship([cluster_p_value(reports) for reports in every_clusters_reports], level)

Held-out queries are answered by the base model and by the module; the judge scores both with the
users' rules as the standard. A critic passes the same check over its whole draft-critique-revise
path, the base's answer being the draft. The judge is the model's own (or a teacher's): the figures
are its opinion, never the truth.

Where thumbs alone teach, the sign of the implicit reward (DPO, arXiv 2305.18290; KTO, 2402.01306)
decides: a module wins on a liked answer that it finds likelier than the base does, and on a
disliked one that it finds less likely. As many people liked as disliked (``evened`` in
``learning/train.py``), so a module that makes all answers likelier, or all less likely, wins half.
Its own answers must not be empty, lose content, or be far longer or shorter than liked ones.

**What is decided.** Every person counts once, with the mean outcome of their queries (win 1, tie
0.5, loss 0). If a module is no better than the base, all of a person's comparisons could as well
have come out the other way round. So the sum over people of (mean outcome - 0.5) is compared with
what it would be if any of them had: an exact test for every number of people and of queries a
person, however much a person's own queries agree, as long as gains and losses are spread alike over
people. The best of several epochs is compared with the best one under the same swaps (nearly exact:
their outcomes hang together). Of several kinds tried for a cluster, each one's p-value is
multiplied by their number (Bonferroni).

**What a release promises**, at ``recipe.verify.level`` 0.05: if nothing helps, at most 5 % of
refreshes ship anything at all; and of what ships, at most 5 % is expected to be no better than the
base (Benjamini-Hochberg over the clusters tested, :func:`may_ship`). ``lab/verifier_levels.py``
measures both. Where the level is None the best epoch's plain win rate decides (paper).
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from langchain_uno.messages import without_thinking
from langchain_uno.models.judge import JudgeItem, judge_averaged
from langchain_uno.models.protocols import (
    BASE,
    Engine,
    GenerateRequest,
    Generation,
    OnDone,
    Sampling,
)
from langchain_uno.models.roles import PromptSet
from langchain_uno.recipe import Recipe
from langchain_uno.records import ANONYMOUS, Message, ModuleKind, VerifierReport
from langchain_uno.reflect import (
    Reflected,
    bleu4,
    kept_share,
    reflect,
    request_text,
    run_together,
)

__all__ = [
    "BaseSide",
    "Exam",
    "HeldOut",
    "Outcome",
    "Rated",
    "cluster_p_value",
    "decide",
    "lower_bound",
    "may_ship",
    "outcome_of",
    "p_values",
    "wilson",
]

MIN_LENGTH_RATIO = 0.1
"""An answer shorter than this share of the base's says something else (paper; with min_bleu)."""

MAX_LOST = 0.05
"""The share of queries on which a module may lose content where ``recipe.min_kept`` is looked at,
or where answers are not judged (thumbs): wishes met do not pay for facts lost."""

MAX_STRETCH = 2.0
"""Where thumbs are the standard: so many times the longest liked answer, or this part of the
shortest, is too far from liked answers."""

MARGIN = 0.1
"""An expert that a critic taught may lose so much more than half of the comparisons with it: what
the critic's path costs in tokens pays for no more."""

_BITS = 14
"""Swaps are enumerated for so many people; for more, a group of 2 ** 14 of them is (exact too)."""

Outcome = float | None
"""The module's side of one comparison: 1 won, 0.5 tied, 0 lost; None: no readable judgement."""

Rows = list[list[float | None]]  # scores: a row an epoch, a column a query
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rated:
    """An answer that was given to a held-out query, and its thumb."""

    answer: str
    liked: bool
    span: tuple[int, int]
    """Characters of the shortest and of the longest answer that people liked in training."""


@dataclass(frozen=True)
class HeldOut:
    """One held-out query with its standard; nobody's who taught the module."""

    id: str
    messages: Sequence[Message]
    rules: Sequence[str]
    language: str = "en"
    voice: str = ANONYMOUS
    """Whose it is (``records.voice_of``)."""
    edit: str | None = None
    """What the user made of the answer. Where there are no rules it is the standard: the better
    answer is the one nearer to it (BLEU-4)."""
    rated: Rated | None = None
    """The standard where there are thumbs alone; then every item has one."""


@dataclass(frozen=True)
class BaseSide:
    """The base model's answers to the items, and their scores: made once, used for every module."""

    items: list[HeldOut]
    answers: list[str]
    scores: list[float | None]
    cut: list[bool] = field(default_factory=list)
    """Which answers ended at the length limit; empty: nobody looked."""


# -- Asking ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exam:
    """Who answers, who judges, and by which settings.

    Args:
        engine: answers; adapters are loaded under names of their own, and unloaded at the end.
        judge_engine: judges (the base model itself, or a teacher).
        prompts: words the judge's prompt.
        recipe: ``verify``, ``min_kept``, token limits, seed.
        on_done: hears of one item per answer, critique and revision, and one per judgement.

    Raises (all methods):
        EngineError: the model can't answer.
    """

    engine: Engine
    judge_engine: Engine
    prompts: PromptSet
    recipe: Recipe
    on_done: OnDone | None = None

    def answer_as_base(self, items: Sequence[HeldOut]) -> BaseSide:
        """Answer and judge the items with the base model.

        More than ``recipe.verify.max_queries`` items are cut to a seeded sample that keeps as many
        people as it can.
        """
        chosen = _sample(items, self.recipe.verify.max_queries, self.recipe.seed)
        answers, cut = self._answers(chosen, BASE)
        scores = self._rated(chosen) or self._scores(chosen, answers)
        return BaseSide(chosen, answers, scores, cut)

    def verify_expert(
        self, side: BaseSide, epochs: Sequence[Path], *, kinds: int = 1
    ) -> VerifierReport:
        """Compare an expert's epochs with the base; the report names the one that would ship.

        Args:
            side: the base's side of the held-out queries.
            epochs: adapter folders, first epoch first. All are tried, or where epochs were added
                to reach ``min_steps`` the last.
            kinds: how many kinds of module may be tried for this cluster.

        Returns:
            The report; its ``epoch`` counts from 1.
        """
        # Epochs that were added to reach ``min_steps`` belong to one short training, which is
        # unfinished before the end of its learning-rate schedule.
        added = len(epochs) > self.recipe.lora.epochs
        tried = [len(epochs) - 1] if added else range(len(epochs))
        answers: list[tuple[list[str], list[bool]]] = []
        rated: Rows = []
        for index in tried:
            with _loaded(self.engine, epochs[index]) as name:
                answers.append(self._answers(side.items, name))
                rated.append(self._rated(side.items, name))
        report = self._compare("expert", side, answers, kinds, rated)
        return report.model_copy(update={"epoch": tried[report.epoch or 0] + 1})

    def verify_critic(self, side: BaseSide, adapter: Path, *, kinds: int = 1) -> VerifierReport:
        """Compare the whole draft-critique-revise path of a critic with the base answer, its draft.

        The arguments are those of :meth:`verify_expert`. A draft that the critic would leave as it
        is, is a tie.
        """
        done = self.by_critic(side.items, side.answers, adapter)
        # A draft that stands is the base's own answer, cut or not.
        answers = [one.text for one in done], [one.revised and _cut(one) for one in done]
        report = self._compare("critic", side, [answers], kinds, [])
        return report.model_copy(update={"epoch": None})

    def by_critic(
        self, items: Sequence[HeldOut], drafts: Sequence[str | None], adapter: Path
    ) -> list[Reflected]:
        """Answer queries by draft, critique and revision; a draft that is None is written."""
        recipe = self.recipe
        with _loaded(self.engine, adapter) as name:
            plans = [
                reflect(
                    GenerateRequest(item.messages, BASE, Sampling(max_tokens=recipe.answer_tokens)),
                    self.prompts,
                    critic=name,
                    draft=draft,
                    critique_tokens=recipe.role_tokens,
                    revision=Sampling(max_tokens=recipe.revision_tokens),
                    min_kept=recipe.min_kept,
                    language=item.language,
                )
                for item, draft in zip(items, drafts, strict=True)
            ]
            return run_together(plans, self.engine, self.on_done)

    def falls_behind(self, side: BaseSide, expert: Path, critic: Path) -> str:
        """Say why an expert is not as good as the critic that taught it; empty: it is.

        It is where, with 95 % confidence by person (one-sided t), it loses to the critic's whole
        path at most ``MARGIN`` of the comparisons more than an even split.
        """
        done = self.by_critic(side.items, side.answers, critic)
        taught = [one.text for one in done]
        with _loaded(self.engine, expert) as name:
            own, cut = self._answers(side.items, name)
        size = len(side.items)
        scores = self._scores([*side.items, *side.items], [*own, *taught])
        gains: dict[str, list[float]] = {}
        for n, item in enumerate(side.items):
            one = outcome_of(item, own[n], taught[n], scores[n], scores[size + n], self.recipe)
            if one is not None and cut[n] and not _cut(done[n]):
                one = 0.0
            if one is not None:
                gains.setdefault(item.voice, []).append(one - 0.5)
        least = lower_bound([sum(each) / len(each) for each in gains.values()])
        if least >= -MARGIN:
            return ""
        lost = min(1.0, 0.5 - least)
        return f"may lose {lost:.2f} of the comparisons with the critic that taught it"

    def _answers(
        self, items: Sequence[HeldOut], adapter: str | None
    ) -> tuple[list[str], list[bool]]:
        """Both sides answer without chance, as long as an answer may be.

        Returns the texts, in which thoughts are no part, and which of them are cut.
        """
        sampling = Sampling(max_tokens=self.recipe.answer_tokens)
        requests = [GenerateRequest(item.messages, adapter, sampling) for item in items]
        made = self.engine.generate(requests, self.on_done)
        return [without_thinking(one.text) for one in made], [_cut(one) for one in made]

    def _rated(self, items: Sequence[HeldOut], adapter: str | None = None) -> list[float | None]:
        """Score by how likely the rated answers are, disliked ones negated; none without thumbs."""
        from langchain_uno.models.perplexity import log_likelihoods

        rated = [(item.messages, item.rated) for item in items if item.rated is not None]
        asked = [(messages, one.answer) for messages, one in rated]
        found = log_likelihoods(asked, self.engine, adapter, self.on_done) if asked else []
        return [x if one.liked else -x for x, (_, one) in zip(found, rated, strict=True)]

    def _scores(self, items: Sequence[HeldOut], answers: Sequence[str]) -> list[float | None]:
        """Score by the user's edit where there is one and no rule, else by the judge; 1 to 10."""
        scores: list[float | None] = [None] * len(items)
        todo: list[int] = []
        for i, (item, answer) in enumerate(zip(items, answers, strict=True)):
            if item.edit is not None and not item.rules:
                scores[i] = 10.0 * bleu4(answer, item.edit, item.language)
            else:
                todo.append(i)
        if self.on_done is not None and len(todo) < len(items):
            self.on_done(len(items) - len(todo))
        asked = [
            JudgeItem(items[i].messages, items[i].rules, answers[i], items[i].language)
            for i in todo
        ]
        judged = judge_averaged(
            asked, self.judge_engine, self.prompts, self.recipe, self.on_done, seed=self.recipe.seed
        )
        for i, judgement in zip(todo, judged, strict=True):
            scores[i] = None if judgement is None else judgement.score
        return scores

    def _compare(
        self,
        kind: ModuleKind,
        side: BaseSide,
        made: Sequence[tuple[list[str], list[bool]]],
        kinds: int,
        rated: Rows,
    ) -> VerifierReport:
        """Judge a module's answers (one row an epoch) and decide; ``epoch`` is the chosen row.

        An answer without its end loses against one that has it.
        """
        size, recipe = len(side.items), self.recipe
        answers = [row for row, _ in made]
        base_cut = side.cut or [False] * size
        worse = [[c and not b for c, b in zip(cut, base_cut, strict=True)] for _, cut in made]
        by_thumbs, scores = any(item.rated for item in side.items), rated
        if not by_thumbs:
            # All epochs in one go: they often say the same, and equal answers are judged once.
            flat = self._scores(side.items * len(answers), [one for row in answers for one in row])
            scores = [flat[i * size : (i + 1) * size] for i in range(len(answers))]
        known = list(zip(side.items, side.answers, side.scores, strict=True))
        outcomes = [
            [
                0.0 if unfinished else outcome_of(item, answer, base, score, base_score, recipe)
                for (item, base, base_score), answer, score, unfinished in zip(
                    known, row, scored, cut, strict=True
                )
            ]
            for row, scored, cut in zip(answers, scores, worse, strict=True)
        ]
        lost = [
            sum(_lost(*one, recipe) for one in zip(side.items, row, side.answers, strict=True))
            for row in answers
        ]
        # An epoch that lost too much can't ship: another one is chosen where there is one.
        allowed = MAX_LOST * size if recipe.min_kept > 0 or by_thumbs else math.inf
        report = decide(
            outcomes,
            [item.voice for item in side.items],
            kind=kind,
            scores=scores,
            lost=lost,
            among=[i for i, n in enumerate(lost) if n <= max(allowed, min(lost))],
            level=recipe.verify.level,
            win_rate=recipe.verify.win_rate,
            kinds=kinds,
            seed=recipe.seed,
        )
        epoch = report.epoch or 0
        reasons = [report.reason] if report.reason else []
        if lost[epoch] > allowed:
            reasons.append(f"{lost[epoch]} of {size} answers lost content")
        undecided = report.undecided and len(reasons) == 1
        told = [*reasons, f"{report.n} queries of {report.people} people"]
        return report.model_copy(
            update={
                "passed": not reasons,
                "undecided": undecided,
                "needed": report.needed if undecided else None,
                "reason": "; ".join(told),
                "lost": lost[epoch],
                "mean_score": None if by_thumbs else _mean(scores[epoch]),
                "mean_base_score": None if by_thumbs else _mean(side.scores),
            }
        )


def _cut(answer: Generation | Reflected) -> bool:
    return answer.finish_reason == "length"


def _sample(items: Sequence[HeldOut], at_most: int, seed: int) -> list[HeldOut]:
    """Everybody's first query (in a seeded order), then everybody's second, until it is enough."""
    if len(items) <= at_most:
        return list(items)
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, int]] = []
    for i in np.random.default_rng(seed).permutation(len(items)).tolist():
        ranked.append((turns[items[i].voice], i))
        turns[items[i].voice] += 1
    ranked.sort(key=lambda one: one[0])  # stable: by chance within a turn
    return [items[i] for i in sorted(i for _, i in ranked[:at_most])]


@contextmanager
def _loaded(engine: Engine, path: Path) -> Iterator[str]:
    """Load an adapter under a name that nothing else ever has, for the time of the block."""
    name = f"verify-{secrets.token_hex(6)}"
    engine.load_adapter(name, path)
    try:
        yield name
    finally:
        engine.unload_adapter(name)


# -- Comparing -------------------------------------------------------------------------------------


def outcome_of(
    item: HeldOut,
    answer: str,
    base_answer: str,
    score: float | None,
    base_score: float | None,
    recipe: Recipe,
) -> Outcome:
    """Return the module's outcome on one query: an answer that lost content never wins or ties."""
    if score is None or base_score is None:
        return None
    if answer.strip() == base_answer.strip() and item.rated is None:
        return 0.5
    if _lost(item, answer, base_answer, recipe):
        return 0.0
    if math.isclose(score, base_score, abs_tol=1e-9):
        return 0.5
    return 1.0 if score > base_score else 0.0


def _lost(item: HeldOut, answer: str, base_answer: str, recipe: Recipe) -> bool:
    """Whether an answer lost what the base's says; where that is empty there is nothing to lose.

    It did when it is empty, or keeps less than ``min_kept`` of what it quotes from the request.
    With ``verify.min_bleu`` (paper) also where it is shorter than ``MIN_LENGTH_RATIO`` of it, or
    its BLEU-4 against it is no more than that: both forbid to learn "one sentence". Where thumbs
    are the standard it also did when it is far longer or shorter than liked answers
    (``MAX_STRETCH``) while the base's is not.
    """
    base, new = base_answer.strip(), answer.strip()
    if item.rated is not None and new != base:
        least, most = item.rated.span[0] / MAX_STRETCH, item.rated.span[1] * MAX_STRETCH
        if not least <= len(new) <= most and (not new or least <= len(base) <= most):
            return True
    if not base or new == base:
        return False
    min_bleu = recipe.verify.min_bleu
    return (
        not new
        or (min_bleu > 0 and len(new) < MIN_LENGTH_RATIO * len(base))
        or (min_bleu > 0 and bleu4(new, base, item.language) <= min_bleu)
        or kept_share(request_text(item.messages), base, new) < recipe.min_kept
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


# -- Deciding --------------------------------------------------------------------------------------


def decide(
    outcomes: Sequence[Sequence[Outcome]],
    voices: Sequence[str],
    *,
    kind: ModuleKind = "expert",
    scores: Rows | None = None,
    lost: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
    level: float | None,
    win_rate: float,
    kinds: int = 1,
    seed: int = 0,
) -> VerifierReport:
    """Choose the best epoch and say whether it beats the base.

    Args:
        outcomes: one row an epoch, one column a query.
        voices: whose each query is.
        kind: of the module.
        scores: the judge's, in the same shape.
        lost: how many answers of each epoch lost content. Between epochs that win as often, the one
            with fewer is chosen, then the one with better scores, then the later one.
        among: the epochs that may be chosen; None: all. All are accounted for in the p-value.
        level: the chance that a module no better than the base passes; None: the paper's rule.
        win_rate: what the win rate has to reach besides.
        kinds: how many kinds of module are tried in the same cluster.
        seed: of the swaps where there are too many people to try them all.

    Returns:
        What is known of the best epoch; its ``epoch`` is a row of the outcomes. The interval is
        Wilson's with every person counting once, honest where outcomes are no plain yes or no.
        Where the best of E epochs was chosen it is wider (1 - 0.05 / E).
    """
    table = np.array([[np.nan if o is None else o for o in row] for row in outcomes], dtype=float)
    known = ~np.isnan(table)
    people, index = np.unique(list(voices), return_inverse=True)
    whose = np.eye(len(people))[index]  # (queries, people)
    counts, sums = known @ whose, np.where(known, table, 0.0) @ whose  # (epochs, people)
    gains = np.where(counts > 0, sums / np.maximum(counts, 1.0) - 0.5, 0.0)
    by_person = gains.sum(axis=1) / np.maximum((counts > 0).sum(axis=1), 1) + 0.5
    by_query = sums.sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
    rates = (by_query if level is None else by_person).round(9)  # sums of halves and thirds
    merit = [
        (rates[e], -lost[e] if lost else 0, _mean(scores[e]) or 0.0 if scores else 0.0, e)
        for e in (range(len(outcomes)) if among is None else among)
    ]
    epoch = max(merit)[-1]
    rate, n = float(rates[epoch]), int(counts[epoch].sum())
    voters = int((counts[epoch] > 0).sum())
    p_value, interval = None, (0.0, 1.0)
    undecided, needed, reason = False, None, ""
    if n == 0:
        rate, reason = 0.0, "the judge could not be read on any query"
    else:
        seen = p_values(gains.T[None], [gains[epoch].sum()], seed)[0]
        p_value = min(1.0, kinds * float(seen))
        interval = wilson(float(by_person[epoch]), voters, 1.0 - 0.05 / len(outcomes))
        if rate < win_rate:
            reason = f"win rate {rate:.2f} is below {win_rate:.2f}"
        elif level is not None and p_value > level:
            undecided, needed = True, _needed(gains, epoch, voters, level / kinds)
            reason = (
                f"not decided: {rate:.2f} may be luck with a chance of {p_value:.2g} ({level:g} is "
                f"allowed); about {needed} more people with feedback like this would decide"
            )
    return VerifierReport(
        kind=kind,
        n=n,
        people=voters,
        win_rate=rate,
        interval=interval,
        p_value=p_value,
        passed=not reason,
        undecided=undecided,
        needed=needed,
        epoch=epoch,
        reason=reason,
    )


def p_values(gains: Floats, sums: Sequence[float] | Floats | None = None, seed: int = 0) -> Floats:
    """Return how likely it is, if nothing helps, that the best epoch does as well.

    Args:
        gains: shape (cases, people, epochs): each person's mean outcome less 0.5.
        sums: for each case what the chosen epoch's gains sum to; None: the best epoch's sum.
        seed: of the swaps beyond 14 people. They form a group, so that the test stays exact.

    Returns:
        One p-value a case: the share of swaps (the identity among them) under which the best
        epoch's sum is no less.
    """
    cases, people, epochs = gains.shape
    seen = gains.sum(axis=1).max(axis=1) if sums is None else np.asarray(sums, dtype=float)
    flat = gains.transpose(1, 2, 0).reshape(people, -1)
    bits, codes = min(people, _BITS), 2 ** np.arange(_BITS)[:people]
    if people > _BITS:
        some = np.arange(1, 1 << _BITS)
        codes = np.random.default_rng(seed).choice(some, people, replace=people > len(some))
    as_good: Floats = np.zeros(cases)
    step = max(1, 4_000_000 // (people + cases * epochs))
    for start in range(0, 1 << bits, step):
        # Swap g turns the people round whose codes have an odd number of bits in common with it.
        # Any two swaps after each other are one of the swaps, whatever the codes.
        odd = np.arange(start, min(start + step, 1 << bits))[:, None] & codes
        for shift in (8, 4, 2, 1):
            odd ^= odd >> shift
        turned = ((1.0 - 2.0 * (odd & 1)) @ flat).reshape(-1, epochs, cases).max(axis=1)
        as_good += (turned >= seen - 1e-9).sum(axis=0)
    return as_good / float(1 << bits)


def _needed(gains: Floats, epoch: int, voters: int, level: float) -> int:
    """Return about how many more people like these would make the chance small enough.

    The sum grows with the people, its spread under swaps with their root. Fewer than log2(1 /
    level) people can't decide anything: that many all have to win.
    """
    least = math.ceil(math.log2(1.0 / level))
    total, spread = float(gains[epoch].sum()), float(np.sqrt((gains[epoch] ** 2).sum()))
    z = NormalDist().inv_cdf(1.0 - level / len(gains))
    enough = math.ceil(voters * (z * spread / total) ** 2) if total > 0 else least
    return max(1, max(least, enough) - voters)


def lower_bound(gains: Sequence[float], confidence: float = 0.95) -> float:
    """Return the one-sided lower t-bound of the mean of people's gains; -1 for fewer than two."""
    from scipy.stats import t

    n = len(gains)
    if n < 2:
        return -1.0
    spread = float(np.std(gains, ddof=1)) / math.sqrt(n)
    return float(np.mean(gains)) - float(t.ppf(confidence, n - 1)) * spread


def wilson(rate: float, n: float, confidence: float) -> tuple[float, float]:
    """Return Wilson's two-sided interval of a proportion; (0, 1) when ``n`` is 0."""
    if n <= 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    centre = rate + z * z / (2.0 * n)
    half = z * math.sqrt(rate * (1.0 - rate) / n + z * z / (4.0 * n * n))
    scale = 1.0 + z * z / n
    return (max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))


# -- Over a refresh --------------------------------------------------------------------------------


def cluster_p_value(reports: Sequence[VerifierReport]) -> float | None:
    """Return a cluster's p-value: of all the kinds tried for it, the one that would ship.

    1 where none would (whatever the reason: it lost content, say), None where nothing was compared.
    """
    found = [(r.passed, r.p_value) for r in reports if r.p_value is not None]
    return min((p for passed, p in found if passed), default=1.0) if found else None


def may_ship(p_values: Sequence[float | None], level: float | None) -> list[bool]:
    """Return which clusters' modules may ship together (Benjamini-Hochberg).

    Args:
        p_values: one a cluster (:func:`cluster_p_value`); None: nothing was tested there.
        level: ``recipe.verify.level``; None: all may.

    Returns:
        Whether each may ship, if it passed by itself: at most a share ``level`` of those that do is
        expected to be no better than the base.
    """
    if level is None:
        return [True] * len(p_values)
    ranked = sorted(p for p in p_values if p is not None)
    bound = max(
        (p for rank, p in enumerate(ranked, 1) if p <= level * rank / len(ranked)), default=-1.0
    )
    return [p is not None and p <= bound for p in p_values]
