"""What the serving graph's nodes do: classify, answer, reflect.

No waiting in here: a plan yields the generations that it wants and is sent what they gave, so that
sync and async, streaming or not (``respond_run.py``), share every line.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from langchain_core.messages import convert_to_messages
from typing_extensions import TypedDict

from langchain_uno.learning.content import kept_share, request_text
from langchain_uno.learning.remind import remind
from langchain_uno.logs.conversation import language_of
from langchain_uno.models.protocols import GenerateRequest, Generation, Sampling
from langchain_uno.models.roles import RoleError
from langchain_uno.records import REFLECTIVE, Message, Route, Usage, routing_text
from langchain_uno.serving.hot_swap import Serving, Snapshot
from langchain_uno.serving.messages import from_langchain

__all__ = [
    "Ask",
    "Mode",
    "RespondContext",
    "RespondInput",
    "RespondState",
    "Writer",
    "classify",
    "plan_of",
    "read_messages",
]

Writer = Callable[[Any], None]
"""Sends a custom stream event."""

Mode = Literal["uno", "single", "base"]


@dataclass(frozen=True)
class RespondContext:
    """One request's settings (plain JSON, so that a graph server can take them)."""

    mode: Mode = "uno"
    """``"single"``: reflective clusters fall back to the base; ``"base"``: everything does."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int | None = None
    stop: Sequence[str] = ()
    tools: Sequence[dict[str, Any]] = ()
    """Tools in OpenAI's JSON form."""
    tool_choice: str = "auto"
    """``"auto"``, ``"required"``, or the name of the one tool to call."""
    json_schema: dict[str, Any] | None = None
    timeout: float | None = None
    """Seconds that the answer may take once its cluster is known; None: as long as it takes."""
    stream: bool = True
    """Whether tokens are sent as custom stream events."""

    def request(self, messages: Sequence[Message], adapter: str | None = None) -> GenerateRequest:
        """Return the request for one answer with these settings."""
        sampling = Sampling(
            self.temperature, self.top_p, self.max_tokens, self.seed, tuple(self.stop)
        )
        return GenerateRequest(
            messages, adapter, sampling, tuple(self.tools), self.tool_choice, self.json_schema
        )


class RespondInput(TypedDict):
    """What comes in."""

    messages: list[Any]
    """OpenAI-style dicts or LangChain messages."""


class RespondState(TypedDict, total=False):
    """What travels through the graph; ``messages`` comes in, the rest is filled."""

    messages: list[Any]
    """OpenAI-style dicts or LangChain messages."""
    release: str | None
    """The release this request is served from, from its start to its end."""
    cluster: str | None
    distance: float | None
    """Euclidean, to the nearest centroid (also when that was too far: an unseen query)."""
    route: Route
    adapter: str | None
    answer: str
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    usage: dict[str, int]
    """Summed over draft, critique and revision."""
    revised: bool
    """Whether the answer is a revision of the draft."""


@dataclass
class Ask:
    """A generation that a node wants; the drivers below run it, in either colour."""

    request: GenerateRequest
    final: bool
    """Its tokens are the answer's, so they are shown."""
    pieces: list[str] = field(default_factory=list)


Plan = Generator[Ask, Generation, RespondState]


def classify(
    serving: Serving, snapshot: Snapshot, messages: list[Message], mode: Mode
) -> RespondState:
    """Find a conversation's cluster, and with it the route."""
    found = RespondState(
        release=snapshot.release, cluster=None, distance=None, route="base", adapter=None
    )
    if mode == "base":
        return found
    choice = serving.route(snapshot, messages)
    if choice is None:
        return found
    found["distance"] = float(choice.distance)
    if choice.cluster_id is None:
        return found
    found["cluster"] = choice.cluster_id
    found["route"], found["adapter"] = snapshot.path_of(choice.cluster_id, mode)
    return found


def _answer(
    state: RespondState, snapshot: Snapshot, context: RespondContext, write: Writer
) -> Plan:
    """The expert answers, or the base model."""
    done = yield Ask(context.request(read_messages(state), state.get("adapter")), final=True)
    return _result(done, done.usage)


def _reflect(
    state: RespondState, snapshot: Snapshot, context: RespondContext, write: Writer
) -> Plan:
    """The base drafts, the critic suggests, the base revises (paper, stage 9).

    A memory has no critic: what is suggested are the cluster's rules that hold for the request.
    """
    messages = read_messages(state)
    prompts = snapshot.prompts
    assert prompts is not None, "a release with clusters has prompts"
    write({"type": "progress", "stage": "draft"})
    ask = Ask(context.request(messages), final=False)
    draft = yield ask
    used = draft.usage
    if draft.tool_calls or not draft.text.strip():
        return _as_it_is(ask, draft, used, write)

    language = language_of([m.content for m in messages if m.role == "user"], draft.text)
    cluster = snapshot.clusters.get(state["cluster"] or "")
    remembers = state["route"] == "memory"
    suggestions: list[str] = []
    if not remembers:
        write({"type": "progress", "stage": "critique"})
        sampling = Sampling(
            temperature=snapshot.critique_temperature,
            max_tokens=snapshot.max_critique_tokens,
            # A request that asks for a repeatable answer gets one: greedy requests have no seed.
            seed=0 if context.seed is None and context.temperature == 0 else context.seed,
        )
        prompt = prompts.critique_prompt(messages, draft.text, language)
        critique = yield Ask(GenerateRequest(prompt, state["adapter"], sampling), final=False)
        used = _sum(used, critique.usage)
        try:
            suggestions = prompts.parse_critique(critique.text)
        except RoleError:  # not a critique: the draft was worth showing before it
            suggestions = []
    if cluster is not None and (snapshot.remind or remembers):
        suggestions = remind(suggestions, routing_text(messages), cluster)
    if not suggestions:
        return _as_it_is(ask, draft, used, write)

    write({"type": "progress", "stage": "revise", "suggestions": suggestions})
    prompt = prompts.revise_draft_prompt(messages, draft.text, suggestions, language)
    request = replace(context.request(prompt), tools=(), tool_choice="auto")
    guarded = snapshot.revision_min_kept > 0  # then nothing is shown before it is whole
    second = Ask(request, final=not guarded)
    revised = yield second
    used = _sum(used, revised.usage)
    if not revised.text.strip():
        return _as_it_is(ask, draft, used, write)
    if guarded:
        kept = kept_share(request_text(messages), draft.text, revised.text)
        if kept < snapshot.revision_min_kept:
            write({"type": "progress", "stage": "keep draft", "kept": kept})
            return _as_it_is(ask, draft, used, write)
        return {**_as_it_is(second, revised, used, write), "revised": True}
    return {**_result(revised, used), "revised": True}


def _as_it_is(ask: Ask, text: Generation, used: Usage, write: Writer) -> RespondState:
    """A text that was held back stands: show it in the pieces it was written in."""
    for piece in ask.pieces:
        write({"type": "token", "text": piece})
    return _result(text, used)


def _result(done: Generation, used: Usage) -> RespondState:
    return RespondState(
        answer=done.text,
        tool_calls=done.tool_calls,
        finish_reason=done.finish_reason,
        usage=used.model_dump(),
        revised=False,
    )


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(
        input_tokens=a.input_tokens + b.input_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
    )


def read_messages(state: RespondState) -> list[Message]:
    """The conversation in our shape, whatever shape it came in."""
    given = state["messages"]
    if all(isinstance(m, dict) and _is_ours(m) for m in given):
        return [Message.model_validate(m) for m in given]
    return from_langchain(convert_to_messages(given))


def _is_ours(message: dict[str, Any]) -> bool:
    return (
        message.get("role") in ("system", "user", "assistant", "tool")
        and isinstance(message.get("content"), str)
        and not any("function" in call for call in message.get("tool_calls") or ())
    )


def plan_of(
    state: RespondState, snapshot: Snapshot, context: RespondContext, write: Writer
) -> Plan:
    """Return the plan of the state's route."""
    steps = _reflect if state["route"] in REFLECTIVE else _answer
    return steps(state, snapshot, context, write)
