"""Stage "pairs": better answers, and preference pairs made of them (paper, stages 2 and 3).

A log gives at most one pair, from the surest source it has:

- *edited*: a user rewrote the answer. The edit is ``chosen`` as it stands; nobody judges it.
- *liked*: an answer was disliked or replaced, and a later answer to the same messages in the same
  thread was liked. The two make a pair as they stand.
- *revised*: candidates are written from the raw feedback without the old answer (a fresh start),
  and from rules, feedback and old answer (a careful edit). They are sampled, so that the judge has
  a choice; seeds depend on recipe, log and number alone, so that a refresh can be repeated. Judged
  with the wanted rules as the standard, the best is ``chosen`` only if it scores above the logged
  answer *and* well enough to be worth imitating; otherwise the log gives nothing.
- *retained*, with ``pairs.retention`` (paper): a log without rules is paired with itself. The SFT
  half of the loss then holds the expert to the answers that nobody complained about.

Within a cluster every voice weighs the same, however much it writes (:func:`balanced`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from langchain_uno.learning.acts import edited_pairs, liked_pairs, pair_of
from langchain_uno.learning.controls import believed
from langchain_uno.learning.decisions import FOUND, PairsFound, Rulings, instead, rulings_taken_up
from langchain_uno.learning.rules import wanted_rules
from langchain_uno.learning.troubles import left_out_notes, stage_failed, without_breakers
from langchain_uno.learning.work import ClusterData, Work
from langchain_uno.messages import without_thinking
from langchain_uno.models.judge import JudgeItem, judge, stable_seed
from langchain_uno.models.protocols import Engine, GenerateRequest, OnDone, Sampling
from langchain_uno.models.roles import PromptSet
from langchain_uno.models.teacher import Teacher
from langchain_uno.recipe import Recipe
from langchain_uno.records import Interaction, Message, PreferencePair, RatedAnswer, RuleSet, run_of
from langchain_uno.reflect import kept_share
from langchain_uno.reports.render import counted

_Example = TypeVar("_Example", PreferencePair, RatedAnswer)


def pairs_stage(work: Work) -> dict[str, Any]:
    """Make preference pairs for the clusters that will train an expert, one cluster at a time.

    Raises:
        EngineError: the models fail on every log.
    """
    from langchain_uno.learning.train import trains_expert

    refused = set(work.folder.read_json("refused-acts.json"))
    unjudged = {i for i, log in work.logs.items() if not believed(work, "judge", log.language)}
    todo: list[Any] = []
    asked: set[str] = set()
    for cluster in work.clusters():
        needed = trains_expert(work, cluster)
        if needed is False:
            continue
        logs = [work.logs[i] for i in cluster.train]
        rules = [work.taught[i] for i in cluster.train]
        if needed:
            acted = {pair.run_id for pair in (*liked_pairs(logs), *edited_pairs(logs))}
            asked |= {
                log.run_id
                for log, own in zip(logs, rules, strict=True)
                if log.run_id not in (acted - refused) | unjudged
                and count_work([log], [own], work.recipe)
            }
        todo.append((cluster, logs, rules, count_work(logs, rules, work.recipe)))
    work.progress.start("pairs", sum(n for *_, n in todo), "revising and judging")
    rulings = rulings_taken_up(work)
    counts: dict[str, int] = {}
    shown: dict[str, int] = {}
    origins: Counter[str] = Counter()
    left_out: dict[str, str] = {}
    cut = excluded = 0
    for cluster, logs, rules, n in todo:
        name = f"clusters/{cluster.id}/{FOUND}"
        if work.folder.has(name):
            work.progress.advance("pairs", n)
        else:
            work.check_limits()
            make = partial(_found, work, refused, unjudged)
            made, broken = without_breakers(list(zip(logs, rules, strict=True)), make)
            made.left_out |= {log.run_id: why for (log, _), why in broken}
            work.folder.write_records(name, [made])
        [found] = work.folder.read_records(name, PairsFound)
        excluded += _settle(work, cluster, found, rulings)
        counts[cluster.id] = len(work.pairs(cluster))
        shown[cluster.id] = len({(run_of(p.run_id), p.chosen) for p in found.every})
        origins.update(p.origin for p in work.pairs(cluster))
        cut += found.cut
        left_out |= found.left_out
    if len(asked) > 1 and asked <= left_out.keys() and len(left_out) > sum(counts.values()):
        for cluster, *_ in todo:
            for name in ("pairs.jsonl", FOUND):
                work.folder.remove(f"clusters/{cluster.id}/{name}")
        raise stage_failed("pairs", left_out)
    total = sum(counts.values())
    return {
        "pairs": total,
        "by_cluster": counts,
        "found": shown,
        "excluded_in_review": excluded,
        "by_origin": dict(origins),
        "cut": cut,
        "left_out": left_out,
        "notes": [
            *([_CUT.format(cut, work.recipe.revision_tokens)] if cut else ()),
            *left_out_notes("pairs", left_out),
        ],
        "note": f"{counted(total, 'pair')} in {counted(len(counts), 'cluster')}"
        if counts
        else "none: no cluster trains an expert on pairs (its gap is high, too few people are "
        "held out, thumbs teach it, or its module stays)",
    }


def _found(
    work: Work,
    refused: Collection[str],
    unjudged: Collection[str],
    some: Sequence[tuple[Interaction, RuleSet]],
) -> PairsFound:
    """Return the pairs of some logs."""
    made = build_pairs(
        [log for log, _ in some],
        [rules for _, rules in some],
        work.teacher,
        work.teacher,
        work.teacher_prompts,
        work.recipe,
        work.counter("pairs", kept=isinstance(work.teacher, Teacher) and work.teacher.keeps),
        refused=refused,
        unjudged=unjudged,
    )
    if work.teacher is work.engine:  # its unreadable judgement would be the same again
        made.left_out = {}
    return made


def _settle(work: Work, cluster: ClusterData, found: PairsFound, rulings: Rulings) -> int:
    """Write the pairs that are taught, unless they are there; return how many are excluded."""
    name = f"clusters/{cluster.id}/pairs.jsonl"
    kept = [one for pair in found.pairs if (one := _reviewed(pair, rulings))]
    if not work.folder.has(name):
        voiced = [p.model_copy(update={"voice": work.voices[p.run_id]}) for p in kept]
        work.folder.write_records(name, weighted(voiced))
    return len(found.pairs) - len(kept)


_CUT = (
    "{} revised answers were cut at revision_tokens = {} and not used: an answer without its end "
    "must not be imitated. Raise it (--set revision_tokens=...) if these are many."
)


def _reviewed(pair: PreferencePair, rulings: Rulings) -> PreferencePair | None:
    """Return a pair as it is taught after the decisions on it; None: it is excluded."""
    chosen = instead(pair.chosen, rulings.on_pair(pair))
    if chosen == pair.chosen or chosen is None:
        return pair if chosen else None
    scores = {"chosen_score": None, "rejected_score": None}  # of another answer
    return pair.model_copy(update={"chosen": chosen, **scores})


def balanced(voices: Sequence[str]) -> list[float]:
    """Return a weight for each example, so that all voices weigh the same and the mean is 1."""
    each = Counter(voices)
    share = len(voices) / max(1, len(each))
    return [share / each[voice] for voice in voices]


def weighted(examples: Sequence[_Example]) -> list[_Example]:
    """Return examples with the weights of their voices (:func:`balanced`)."""
    weights = balanced([one.voice for one in examples])
    return [one.model_copy(update={"weight": w}) for one, w in zip(examples, weights, strict=True)]


def build_pairs(
    interactions: Sequence[Interaction],
    rule_sets: Sequence[RuleSet],
    engine: Engine,
    judge_engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
    *,
    refused: Collection[str] = (),
    unjudged: Collection[str] = (),
) -> PairsFound:
    """Make at most one pair a log: edits, liked regenerations, judged revisions, retained logs.

    Give the *training* logs of one cluster.

    Args:
        interactions: usable logs.
        rule_sets: one a log, in the same order, ``wanted`` set by the rules stage.
        engine: writes the candidates.
        judge_engine: scores them.
        prompts: the prompt set of both.
        recipe: ``pairs``, ``seed``, token limits, temperature, ``min_kept``.
        on_done: is told of written candidates and of judged answers; see :func:`count_work`.
        refused: ids of logs whose edits and likes are taught to nobody.
        unjudged: ids of logs about which the judge is not believed: nothing is revised for them.

    Raises:
        EngineError: a model can't answer at all.
    """
    acted = [*liked_pairs(interactions), *edited_pairs(interactions)]
    found = PairsFound(refused=[pair for pair in acted if pair.run_id in refused])
    made = {pair.run_id: pair for pair in acted if pair.run_id not in refused}
    # A log whose own feedback asked for nothing says nothing about its answer.
    todo = [
        (log, rules)
        for log, rules in zip(interactions, rule_sets, strict=True)
        if log.run_id not in made and rules.with_feedback and log.run_id not in unjudged
    ]
    logs, rules = [log for log, _ in todo], [r for _, r in todo]
    candidates = revise(logs, rules, engine, prompts, recipe, on_done, found)
    for pair in _judged(logs, rules, candidates, judge_engine, prompts, recipe, on_done, found):
        made[pair.run_id] = pair
    if recipe.pairs.retention:
        for log, own in zip(interactions, rule_sets, strict=True):
            if log.run_id in made or own.with_feedback or log.cut:
                continue
            if log.answer.strip():
                made[log.run_id] = pair_of(log, log.answer.strip(), "retained")
    found.pairs = [made[log.run_id] for log in interactions if log.run_id in made]
    found.left_out = {i: why for i, why in found.left_out.items() if i not in made}
    return found


def count_work(
    interactions: Sequence[Interaction], rule_sets: Sequence[RuleSet], recipe: Recipe
) -> int:
    """Return about how many items :func:`build_pairs` will report (an upper bound)."""
    total = 0
    for log, rules in zip(interactions, rule_sets, strict=True):
        candidates = recipe.pairs.candidates * (2 if log.feedback_turns else 1)
        if candidates and wanted_rules(rules):
            total += 2 * candidates + 1
    return total


def _judged(
    logs: Sequence[Interaction],
    rule_sets: Sequence[RuleSet],
    candidates: Sequence[Sequence[str]],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None,
    found: PairsFound,
) -> list[PreferencePair]:
    """Judge originals and candidates in one go, and keep the logs whose best candidate wins.

    Logs without a readable judgement are noted in ``found``.
    """
    todo = []
    for log, rules, texts in zip(logs, rule_sets, candidates, strict=True):
        # A candidate keeps what the logged answer quotes from the request.
        kept = [c for c in texts if kept_share(log.messages, log.answer, c) >= recipe.min_kept]
        if kept:
            todo.append((log, rules, kept))
    items = [
        JudgeItem(log.messages, wanted_rules(rules), answer, log.language)
        for log, rules, tries in todo
        for answer in (log.answer, *tries)
    ]
    scores = iter(judge(items, engine, prompts, recipe, on_done))
    out = []
    for log, _, tries in todo:
        original = next(scores)
        read = [(one, text) for text in tries if (one := next(scores)) is not None]
        if original is None or not read:
            found.left_out[log.run_id] = "no readable judgement"
            continue
        score, best = max(read, key=lambda r: r[0])  # the first of equals: order is seeded
        strict = recipe.pairs.min_score > 0
        if strict and (score <= original or score < recipe.pairs.min_score):
            continue
        out.append(pair_of(log, best, "revised", scores=(score, original)))
    return out


def revise(
    interactions: Sequence[Interaction],
    rule_sets: Sequence[RuleSet],
    engine: Engine,
    prompts: PromptSet,
    recipe: Recipe,
    on_done: OnDone | None = None,
    found: PairsFound | None = None,
) -> list[list[str]]:
    """Return the usable candidates of every log, in the order given (possibly none).

    Thoughts are no part of a candidate. Empty candidates are dropped, those cut off at the length
    limit (an answer without its end must not be imitated), those equal to the logged answer and
    repetitions.

    Args:
        interactions: logs; those in a language the prompt set lacks get no candidates.
        rule_sets: one a log; ``wanted`` is used where it is set, and a log without rules gets no
            candidates.
        engine: the writer (the base model, or a teacher).
        prompts: words the two inputs.
        recipe: ``pairs`` (numbers, temperature, top-p, length) and ``seed``.
        on_done: is told of every candidate (:func:`count_work` a log).
        found: notes candidates that were cut, and logs of which one did not come.

    Raises:
        EngineError: the model can't answer at all.
    """
    requests: list[GenerateRequest] = []
    owners: list[int] = []
    for i, (log, rules) in enumerate(zip(interactions, rule_sets, strict=True)):
        for k, messages in enumerate(_prompts_of(log, rules, prompts, recipe)):
            sampling = Sampling(
                temperature=recipe.temperature,
                top_p=recipe.top_p,
                max_tokens=recipe.revision_tokens,
                seed=stable_seed(recipe.seed, log.run_id, str(k)),
            )
            requests.append(GenerateRequest(messages=messages, sampling=sampling))
            owners.append(i)
    out: list[list[str]] = [[] for _ in interactions]
    made = engine.generate(requests, on_done) if requests else []
    for i, generation in zip(owners, made, strict=True):
        text = without_thinking(generation.text).strip()
        if found is not None and generation.finish_reason == "length":
            found.cut += 1
        if found is not None and generation.finish_reason == "failed":
            found.left_out[interactions[i].run_id] = "no answer"
        known = [*out[i], interactions[i].answer.strip()]
        if text and generation.finish_reason == "stop" and text not in known:
            out[i].append(text)
    return out


def _prompts_of(
    log: Interaction, rule_set: RuleSet, prompts: PromptSet, recipe: Recipe
) -> list[list[Message]]:
    """List the inputs of a log's candidates."""
    rules, words = wanted_rules(rule_set), log.feedback_turns
    if not rules:
        return []
    made = [prompts.revise_rules_prompt(log.messages, log.answer, rules, words, log.language)]
    if words:
        made.insert(0, prompts.revise_feedback_prompt(log.messages, words, log.language))
    return [prompt for prompt in made for _ in range(recipe.pairs.candidates)]
