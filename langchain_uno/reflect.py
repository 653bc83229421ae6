"""Draft, critique, revise: the reflective path (paper, stage 9).

    plan = reflect(GenerateRequest(messages), prompts, critic="r1-c0-critic")
    [result] = run_together([plan], engine)

The base model drafts, a critic writes suggestions, the base model revises. A plan is a generator
for one request: it yields the generation that it wants (:class:`Ask`) and is sent the result.
Serving drives one plan, token by token or at once; :func:`run_together` drives many, in full
batches. Whether the draft or the revision is the answer is decided here for both.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langchain_uno.logs.conversation import language_of
from langchain_uno.messages import without_thinking
from langchain_uno.models.protocols import Engine, GenerateRequest, Generation, OnDone, Sampling
from langchain_uno.models.roles import PromptSet, RoleError
from langchain_uno.records import Message, Usage

CRITIQUE_TEMPERATURE = 0.1
"""The authors' temperature of critiques: nearly greedy, without its endless loops."""

Stage = Literal["answer", "draft", "critique", "revise"]


@dataclass(frozen=True)
class Ask:
    """A generation that a plan wants."""

    request: GenerateRequest
    stage: Stage
    final: bool = False
    """Whether its text is surely the answer, so that its tokens can be shown as they come."""
    suggestions: tuple[str, ...] = ()
    """What a revision is asked to follow."""


@dataclass(frozen=True)
class Reflected:
    """The result of a plan."""

    text: str
    """The answer."""
    draft: str
    suggestions: tuple[str, ...] = ()
    revised: bool = False
    """Whether the answer is the revision; otherwise the draft stands."""
    kept: float | None = None
    """The share of the draft's quotes that the revision keeps; None where it was not checked."""
    usage: Usage = field(default_factory=Usage)
    """Summed over all the generations asked for."""
    finish_reason: str = "stop"
    tool_calls: list[dict[str, Any]] = field(default_factory=list)


Plan = Generator[Ask, Generation, Reflected]


def reflect(
    request: GenerateRequest,
    prompts: PromptSet,
    *,
    critic: str | None = None,
    suggestions: Sequence[str] = (),
    draft: str | None = None,
    critique_tokens: int = 512,
    revision: Sampling | None = None,
    min_kept: float = 0.0,
    language: str | None = None,
) -> Plan:
    """Plan the reflective answer to one request.

    The draft stands when it is empty or calls a tool, when there are no suggestions, when the
    critique has no readable form, and when the revision is empty or keeps less than ``min_kept`` of
    what the draft quotes from the request. Thoughts are no part of draft and revision.

    Args:
        request: the base model's request for the draft.
        prompts: writes the prompts of critique and revision.
        critic: name of the loaded adapter that writes the critique; None: there is no critique.
        suggestions: what to revise by where there is no critique.
        draft: the base model's answer when it is known already.
        critique_tokens: the most tokens of the critique.
        revision: how the revision is decoded; None: as the draft.
        min_kept: from 0 (not checked) to 1. Where it is 0, and where the draft quotes nothing, the
            revision's tokens can be shown as they come.
        language: of the conversation; None: detected from its words.

    Yields:
        What to generate, one after the other.

    Returns:
        The answer and how it came about.
    """
    first, used = Generation(draft or ""), Usage()
    if draft is None:
        first = yield Ask(request, "draft")
        used = first.usage
    told, said = tuple(suggestions), without_thinking(first.text)
    if first.tool_calls or not said.strip():
        return result_of(first, first, used)
    spoken = language or language_of(
        [m.content for m in request.messages if m.role == "user"], said
    )
    if critic is not None:
        prompt = prompts.critique_prompt(request.messages, said, spoken)
        # Greedy requests have no seed, and their answers must be repeatable.
        greedy = request.sampling.temperature == 0 and request.sampling.seed is None
        sampling = Sampling(
            temperature=CRITIQUE_TEMPERATURE,
            max_tokens=critique_tokens,
            seed=0 if greedy else request.sampling.seed,
        )
        critique = yield Ask(GenerateRequest(prompt, critic, sampling), "critique")
        used = total(used, critique.usage)
        try:
            told = tuple(prompts.parse_critique(critique.text))
        except RoleError:
            told = ()
    if not told:
        return result_of(first, first, used)
    second = yield Ask(
        replace(
            request,
            messages=prompts.revise_draft_prompt(request.messages, said, told, spoken),
            sampling=revision or request.sampling,
            tools=(),
            tool_choice="auto",
        ),
        "revise",
        final=min_kept <= 0 or not quoted(request.messages, said),
        suggestions=told,
    )
    used = total(used, second.usage)
    revised = without_thinking(second.text)
    if not revised.strip():
        return result_of(first, first, used, told)
    kept = kept_share(request.messages, said, revised) if min_kept > 0 else None
    answer = second if kept is None or kept >= min_kept else first
    return result_of(first, answer, used, told, kept)


def run_together(
    plans: Sequence[Plan], engine: Engine, on_done: OnDone | None = None
) -> list[Reflected]:
    """Drive many plans at once: each round generates what all of them want next, in one batch.

    Args:
        plans: fresh plans.
        engine: generates.
        on_done: is told of every generation.

    Returns:
        One result a plan, in their order, without thoughts.

    Raises:
        EngineError: the model can't answer.
    """
    results: dict[int, Reflected] = {}
    sent: dict[int, Generation | None] = dict.fromkeys(range(len(plans)))
    while sent:
        asks: dict[int, Ask] = {}
        for i, generation in sent.items():
            try:
                asks[i] = next(plans[i]) if generation is None else plans[i].send(generation)
            except StopIteration as stop:
                one: Reflected = stop.value
                said, draft = without_thinking(one.text), without_thinking(one.draft)
                results[i] = replace(one, text=said, draft=draft)
        made = engine.generate([ask.request for ask in asks.values()], on_done) if asks else []
        sent = dict(zip(asks, made, strict=True))
    return [results[i] for i in range(len(plans))]


def result_of(
    first: Generation,
    answer: Generation,
    used: Usage,
    told: tuple[str, ...] = (),
    kept: float | None = None,
) -> Reflected:
    """Return the result of a plan whose last generation is ``answer``."""
    return Reflected(
        text=answer.text,
        draft=first.text,
        suggestions=told,
        revised=answer is not first,
        kept=kept,
        usage=used,
        finish_reason=answer.finish_reason,
        tool_calls=answer.tool_calls,
    )


def total(a: Usage, b: Usage) -> Usage:
    """Return the tokens of both."""
    return Usage(
        input_tokens=a.input_tokens + b.input_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
    )


# -- What an answer keeps of another one -----------------------------------------------------------

# Latin words and numbers whole; scripts without spaces one character at a time.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def bleu4(answer: str, reference: str, language: str) -> float:
    """Return sentence BLEU-4 in [0, 1] by sacrebleu (exponential smoothing, effective order).

    Tokens are mteval-13a's, or sacrebleu's ``zh`` (Chinese characters one by one) for Chinese.
    """
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize="zh" if language.startswith("zh") else "13a", effective_order=True)
    return float(metric.sentence_score(answer, [reference]).score) / 100.0


def kept_share(request: Sequence[Message], first: str, answer: str) -> float:
    """Return the share of the words quoted from the request that the answer still has, in [0, 1].

    A judge checks rules better than digits and names, and misses the slips of a writer that is the
    same model. This check sees these slips and nothing else.

    Args:
        request: what was asked; its user turns count.
        first: the answer to compare with. Its words that also stand in the request count as quoted;
            where there are none the share is 1.
        answer: the new answer. Case, order and added words do not count.
    """
    words = quoted(request, first)
    return len(words & _words(answer)) / len(words) if words else 1.0


def quoted(request: Sequence[Message], answer: str) -> set[str]:
    """Return the words of an answer that stand in the user turns of its request as well."""
    return _words(answer) & _words("\n".join(m.content for m in request if m.role == "user"))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))
