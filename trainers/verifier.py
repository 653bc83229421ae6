"""Stage 7: the simulated performance verifier. Only a module that is seen to beat the base ships.

    exam = Exam(engine, judge_engine, prompts, recipe)
    side = exam.answer_as_base(items)
    report = exam.verify_expert(side, epochs, kinds=2)

Held-out queries are answered by the base model and by the module; the judge scores both with the
users' rules as the standard. A critic passes the same check over its whole draft-critique-revise
path, the base's answer being the draft. The judge is the base model or a teacher: the figures are
its opinion, never the truth.

Where thumbs alone teach and gave no rule, the sign of the implicit reward (DPO, arXiv 2305.18290;
KTO, 2402.01306) decides: a module wins on a liked answer that it finds likelier than the base does,
and on a disliked one that it finds less likely. As many people who liked are taken as people who
disliked (:func:`evened`), so a module that makes all answers likelier, or all less likely, wins
half. Its own answers must not be empty, lose content, or be far longer or shorter than liked ones.

What comes of the comparisons is decided in ``trainers/deciding.py``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from langchain_uno.messages import without_thinking
from langchain_uno.models.judge import JudgeItem, judge_averaged
from langchain_uno.models.protocols import BASE, Engine, GenerateRequest, OnDone, Sampling
from langchain_uno.models.roles import PromptSet
from langchain_uno.models.teacher import calls_of, check_answered
from langchain_uno.recipe import Recipe
from langchain_uno.records import ANONYMOUS, Message, ModuleKind, Usage, VerifierReport, mean_of
from langchain_uno.reflect import Reflected, bleu4, kept_share, reflect, run_together, total
from langchain_uno.trainers.deciding import Outcome, decide, lower_bound

MIN_LENGTH_RATIO = 0.1
"""An answer shorter than this share of the base's says something else (paper; with min_bleu)."""

MAX_LOST = 0.05
"""The share of queries on which a module may lose content, where ``recipe.min_kept`` is set or
rated answers are the standard: met wishes do not make up for lost facts."""

MAX_STRETCH = 2.0
"""Where rated answers are the standard: so many times an answer may be longer than the longest
liked one, or shorter than the shortest."""

MARGIN = 0.1
"""An expert that a critic taught may lose half of the comparisons with it and so much more: the
tokens that it saves are worth no more."""


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
    """The standard where thumbs teach and gave no rule; then every item has one."""


class Said(BaseModel):
    """What the base or a module says to one held-out query."""

    text: str
    """Without thoughts."""
    score: float | None = None
    """From 1 to 10: the judge's. Where an edit is the standard: ten times BLEU-4 against it. Where
    rated answers are: the mean log-probability a token of the rated answer, negated where it is
    disliked. None: nobody could tell."""
    cut: bool = False
    """Whether it ended at the length limit: such an answer loses against one that did not."""
    usage: Usage = Field(default_factory=Usage)
    """Of all generations that it took."""
    suggestions: list[str] = Field(default_factory=list)
    """What a critic said about the base's answer."""


@dataclass(frozen=True)
class BaseSide:
    """What the base model says to the items: made once, used for every module."""

    items: list[HeldOut]
    said: list[Said]


class Compared(BaseModel):
    """One held-out query, as the base and the chosen epoch of a module answered it."""

    id: str
    base: Said
    module: Said
    outcome: Outcome = None


# -- Asking ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exam:
    """Who answers, who judges, and by which settings.

    Args:
        engine: answers; adapters are loaded under names of their own, and unloaded at the end.
        judge_engine: judges (the base model itself, or a teacher).
        prompts: words the critic's part, and the judge's.
        recipe: ``verify``, ``min_kept``, token limits, seed.
        on_done: is told of one item per answer, critique and revision, and one per judgement.
        on_compared: is given the answers of the base and of each module's chosen epoch.
        judge_prompts: words the judge's prompt where the judge needs other words.

    Raises (all methods):
        EngineError: the model can't answer, or the judge left most answers without a judgement.
    """

    engine: Engine
    judge_engine: Engine
    prompts: PromptSet
    recipe: Recipe
    on_done: OnDone | None = None
    on_compared: Callable[[list[Compared]], None] | None = None
    judge_prompts: PromptSet | None = None

    def answer_as_base(self, items: Sequence[HeldOut]) -> BaseSide:
        """Answer and judge the items with the base model.

        More than ``recipe.verify.max_queries`` items are cut to a seeded sample that keeps as many
        people as it can.
        """
        chosen = _sample(items, self.recipe.verify.max_queries, self.recipe.seed)
        return BaseSide(chosen, self._scored(chosen, self._answers(chosen, BASE)))

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
        rows = [self.by_expert(side.items, epochs[index]) for index in tried]
        report = self._compare("expert", side, rows, kinds)
        return report.model_copy(update={"epoch": tried[report.epoch or 0] + 1})

    def verify_critic(self, side: BaseSide, adapter: Path, *, kinds: int = 1) -> VerifierReport:
        """Compare a critic's draft-critique-revise path with the base's answers, its drafts.

        The arguments are those of :meth:`verify_expert`, with one adapter folder for the epochs. A
        draft that the critic leaves as it is is a tie.
        """
        report = self._compare("critic", side, [self._by_path(side, adapter)], kinds)
        return report.model_copy(update={"epoch": None})

    def _by_path(self, side: BaseSide, critic: Path) -> list[Said]:
        """Answer by draft, critique and revision; the base's answers are the drafts."""
        done = self.by_critic(side.items, [draft.text for draft in side.said], critic)
        return [
            Said(
                text=one.text,
                cut=one.finish_reason == "length",
                usage=total(draft.usage, one.usage),
                suggestions=list(one.suggestions),
            )
            for draft, one in zip(side.said, done, strict=True)
        ]

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

        It is as good if, with 95 % confidence by person (one-sided t), it loses at most half of the
        comparisons with the critic's whole path and ``MARGIN`` more.
        """
        path = BaseSide(side.items, self._scored(side.items, self._by_path(side, critic)))
        least = lower_bound(list(self.gains(path, expert).values()))
        if least >= -MARGIN:
            return ""
        lost = min(1.0, 0.5 - least)
        return f"may lose {lost:.2f} of the comparisons with the critic that taught it"

    def gains(self, side: BaseSide, expert: Path) -> dict[str, float]:
        """Return each person's mean outcome of an expert against a side, less 0.5.

        Who has no query that could be judged is left out.
        """
        own = self._scored(side.items, self.by_expert(side.items, expert))
        found: dict[str, list[float]] = {}
        for item, new, old in zip(side.items, own, side.said, strict=True):
            outcome = _between(item, new, old, self.recipe)
            if outcome is not None:
                found.setdefault(item.voice, []).append(outcome - 0.5)
        return {voice: sum(each) / len(each) for voice, each in found.items()}

    def by_expert(self, items: Sequence[HeldOut], expert: Path | None) -> list[Said]:
        """Answer queries with an expert; None: with the base. The judge is not asked."""
        if expert is None:
            return self._answers(items, BASE)
        with _loaded(self.engine, expert) as name:
            return self._answers(items, name)

    def _answers(self, items: Sequence[HeldOut], adapter: str | None) -> list[Said]:
        """Both sides answer without chance, as long as an answer may be; thoughts are no part."""
        sampling = Sampling(max_tokens=self.recipe.answer_tokens)
        requests = [GenerateRequest(item.messages, adapter, sampling) for item in items]
        made = self.engine.generate(requests, self.on_done)
        return [
            Said(
                text=without_thinking(one.text),
                score=score,
                cut=one.finish_reason == "length",
                usage=one.usage,
            )
            for one, score in zip(made, self._likelihoods(items, adapter), strict=True)
        ]

    def _likelihoods(self, items: Sequence[HeldOut], adapter: str | None) -> list[float | None]:
        """Return how likely the rated answers are, disliked ones negated; None where not rated."""
        from langchain_uno.models.perplexity import log_likelihoods

        rated = [(item.messages, item.rated) for item in items if item.rated is not None]
        if not rated:
            return [None] * len(items)
        asked = [(messages, one.answer) for messages, one in rated]
        found = log_likelihoods(asked, self.engine, adapter, self.on_done)
        return [x if one.liked else -x for x, (_, one) in zip(found, rated, strict=True)]

    def _scored(self, items: Sequence[HeldOut], said: Sequence[Said]) -> list[Said]:
        """Score by the user's edit where there is one and no rule, else by the judge.

        Where rated answers are the standard the scores are there already.
        """
        scores: list[float | None] = [one.score for one in said]
        todo: list[int] = []
        for i, (item, one) in enumerate(zip(items, said, strict=True)):
            if item.edit is not None and not item.rules:
                scores[i] = 10.0 * bleu4(one.text, item.edit, item.language)
            elif item.rated is None:
                todo.append(i)
        if self.on_done is not None and len(items) > len(todo):
            self.on_done(len(items) - len(todo))
        asked = [
            JudgeItem(items[i].messages, items[i].rules, said[i].text, items[i].language)
            for i in todo
        ]
        before = calls_of(self.judge_engine)
        words, recipe = self.judge_prompts or self.prompts, self.recipe
        judged = judge_averaged(
            asked, self.judge_engine, words, recipe, self.on_done, seed=recipe.seed
        )
        check_answered(self.judge_engine, before)
        for i, score in zip(todo, judged, strict=True):
            scores[i] = score
        pairs = zip(said, scores, strict=True)
        return [one.model_copy(update={"score": score}) for one, score in pairs]

    def _compare(
        self, kind: ModuleKind, side: BaseSide, made: Sequence[Sequence[Said]], kinds: int
    ) -> VerifierReport:
        """Judge a module's answers (one row an epoch) and decide; ``epoch`` is the chosen row."""
        items, size, recipe = side.items, len(side.items), self.recipe
        by_thumbs = any(item.rated for item in items)
        # All epochs in one go: they often say the same, and equal answers are judged once.
        flat = self._scored(items * len(made), [one for row in made for one in row])
        rows = [flat[i * size : (i + 1) * size] for i in range(len(made))]
        compared = [
            [
                Compared(id=item.id, base=old, module=new, outcome=_between(item, new, old, recipe))
                for item, new, old in zip(items, row, side.said, strict=True)
            ]
            for row in rows
        ]
        lost = [
            sum(
                _lost(item, one.module.text, one.base.text, recipe)
                for item, one in zip(items, row, strict=True)
            )
            for row in compared
        ]
        # An epoch that lost too much can't ship: another one is chosen where there is one.
        allowed = MAX_LOST * size if recipe.min_kept > 0 or by_thumbs else math.inf
        report = decide(
            [[one.outcome for one in row] for row in compared],
            [item.voice for item in items],
            kind=kind,
            scores=[[one.score for one in row] for row in rows],
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
        told = [*reasons, f"{report.n} held-out requests of {report.people} people"]
        if self.on_compared is not None:
            self.on_compared(compared[epoch])
        return report.model_copy(
            update={
                "passed": not reasons,
                "undecided": undecided,
                "needed": report.needed if undecided else None,
                "reason": "; ".join(told),
                "lost": lost[epoch],
                "mean_score": None if by_thumbs else mean_of([one.score for one in rows[epoch]]),
                "mean_base_score": None if by_thumbs else mean_of([b.score for b in side.said]),
            }
        )


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


def evened(items: Sequence[HeldOut], at_most: int, seed: int) -> list[HeldOut]:
    """Return rated items that speak for both directions alike, in their order.

    Who liked some answers and disliked others has as many of each; of the others as many people
    liked as disliked. There are ``at_most`` items, of as many people as can be.

    A module that knows nothing of the ratings wins then with chances q and 1 - q on two people of
    opposite directions. Such wins are no more spread than those of even chances (Hoeffding 1956),
    so the test of :func:`langchain_uno.trainers.deciding.decide` holds, whatever the module does to
    all answers.
    """
    order = [items[i] for i in np.random.default_rng(seed).permutation(len(items)).tolist()]
    people: dict[str, tuple[list[HeldOut], list[HeldOut]]] = {}
    for item in order:
        assert item.rated is not None
        people.setdefault(item.voice, ([], []))[not item.rated.liked].append(item)
    each = max(1, at_most // (2 * max(1, len(people))))
    both = [own for own in people.values() if all(own)][: at_most // 2]
    liked = [ups for ups, downs in people.values() if not downs]
    disliked = [downs for ups, downs in people.values() if not ups]
    n = min(len(liked), len(disliked), at_most // 2 - len(both))
    kept = [half[: min(map(len, own))] for own in both for half in own]
    kept += [*liked[:n], *disliked[:n]]
    chosen = {item.id for part in kept for item in part[:each]}
    return [item for item in items if item.id in chosen]


@contextmanager
def _loaded(engine: Engine, path: Path) -> Iterator[str]:
    """Load an adapter for the time of the block, under a name of its place and content.

    So after a kill the next call finds on a server what was left there, and removes it.
    """
    content = [file.read_bytes() for file in sorted(path.glob("adapter_*"))]
    name = "verify-" + sha256(b"".join([str(path).encode(), *content])).hexdigest()[:16]
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
    """Return the module's outcome on one query: 1 won, 0.5 tied, 0 lost; None: not judged.

    An answer that lost content (:func:`_lost`) loses.
    """
    if score is None or base_score is None:
        return None
    if answer.strip() == base_answer.strip() and item.rated is None:
        return 0.5
    if _lost(item, answer, base_answer, recipe):
        return 0.0
    if math.isclose(score, base_score, abs_tol=1e-9):
        return 0.5
    return 1.0 if score > base_score else 0.0


def compare_modules(
    items: Sequence[HeldOut],
    new: Mapping[str, Compared],
    old: Mapping[str, Compared],
    kind: ModuleKind,
    recipe: Recipe,
) -> VerifierReport:
    """Compare a module with the one that it would replace, by the test that it passed on the base.

    Nothing is asked anew. Comparisons with the base do not tell a better module from a worse one
    where both win nearly all of them.

    Args:
        items: the held-out queries; those that only one of them answered are left out.
        new: what the new module said, by the id of the query.
        old: what the present one said.
        kind: of the new module.
        recipe: ``verify``, ``min_kept``, seed.

    Returns:
        How the new one does against the old; ``epoch`` means nothing there.
    """
    both = [item for item in items if item.id in new and item.id in old]
    outcomes = [_of_two(item, new[item.id], old[item.id], recipe) for item in both]
    return decide(
        [outcomes],
        [item.voice for item in both],
        kind=kind,
        level=recipe.verify.level,
        win_rate=recipe.verify.win_rate,
        seed=recipe.seed,
    )


def _of_two(item: HeldOut, new: Compared, old: Compared, recipe: Recipe) -> Outcome:
    if item.rated is None:
        return _between(item, new.module, old.module, recipe)
    # Each is likelier than the base to give what people liked, or is not.
    if new.outcome is None or old.outcome is None:
        return None
    return 0.5 + (new.outcome - old.outcome) / 2


def _between(item: HeldOut, new: Said, old: Said, recipe: Recipe) -> Outcome:
    """Return the outcome of a query; an answer without its end loses against one that has it."""
    if new.cut and not old.cut:
        return 0.0
    return outcome_of(item, new.text, old.text, new.score, old.score, recipe)


def _lost(item: HeldOut, answer: str, base_answer: str, recipe: Recipe) -> bool:
    """Whether an answer lost content of the base's answer; an empty base answer has none.

    - It is empty, or it keeps less than ``min_kept`` of what the base's quotes from the request.
    - With ``verify.min_bleu`` (paper): it is shorter than ``MIN_LENGTH_RATIO`` of the base's, or
      its BLEU-4 against the base's is no more than ``min_bleu``. Both forbid "one sentence".
    - Where rated answers are the standard: it is empty, or far longer or shorter than liked answers
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
        or kept_share(item.messages, base, new) < recipe.min_kept
    )
