"""From what LangChain's callbacks hand over to an Interaction: the request path, kept quick."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langchain_uno.errors import InputError
from langchain_uno.logs.conversation import MAX_ID, run_ref
from langchain_uno.logs.names import SERVER_USER, asked_by
from langchain_uno.logs.redaction import Redactor
from langchain_uno.logs.trace import OWN_CALL, Answered, Trace, own_call
from langchain_uno.messages import clean_text, incomplete, message_fields, text_of, without_thinking
from langchain_uno.records import SCHEMA_VERSION, Feedback, Route, person, utc_now

_ROUTES = get_args(Route)
_MAX_DEPTH = 40
"""Of a tool's arguments; ``messages.map_texts``, which redacts them, goes a little deeper."""
_ENDS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_SAY_ENDS = ("openai", "anthropic", "google_genai", "ollama")
"""Providers (LangChain's names) that say of every whole answer how it ended."""


@dataclass(slots=True)
class Started:
    """A run between its start and its end."""

    prompt: Sequence[BaseMessage] | str
    trace: Trace
    metadata: Mapping[str, Any]
    params: Mapping[str, Any]
    tags: Sequence[str] = ()
    configurable: Mapping[str, Any] = field(default_factory=dict)
    """Of the run's config; LangChain copies a part of it into the metadata."""
    inside: Sequence[UUID] = ()
    """The runs around it, below the root."""
    created_at: datetime = field(default_factory=utc_now)
    clock: float = field(default_factory=time.perf_counter)


@dataclass
class Capture:
    """What a handler keeps of a run; see ``UNOFeedbackHandler`` for the meaning of the fields."""

    namespace: str
    user_id: str | None
    tags: dict[str, str]
    redactor: Redactor
    sample_rate: float
    record_content: bool
    max_chars: int

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InputError: one is out of range.
        """
        if not 0.0 <= self.sample_rate <= 1.0:
            raise InputError(f"sample_rate must lie between 0 and 1, not {self.sample_rate!r}.")
        if self.max_chars < 1:
            raise InputError(f"max_chars must be at least 1, not {self.max_chars!r}.")

    def wants(self, root: UUID) -> bool:
        """Whether the trace is in the sample: its own id decides, so a trace is whole or absent."""
        # The last bits: ids that grow with time (UUIDv7) are random only there.
        return self.sample_rate >= 1.0 or (root.int & 0xFFFFFFFF) < self.sample_rate * 2**32

    def record(
        self,
        run_id: UUID,
        started: Started,
        ended: float,
        response: LLMResult | None,
        error: BaseException | None,
    ) -> tuple[dict[str, Any], dict[str, int], int | None]:
        """Return the finished run as the plain dict of an Interaction, redacted.

        With it, what was taken out by kind, and how far the request is the user's turn.
        """
        redacted: dict[str, int] = {}
        answer, calls, message = _answer_of(response)
        info = (message.response_metadata or {}) if message is not None else {}
        metadata = started.metadata
        prompt = started.prompt
        if isinstance(prompt, str):
            messages = [{"role": "user", "content": self._text(prompt)}]
        else:
            messages = [self._message(m) for m in prompt]
        trace = started.trace
        user, thread = self._names(started)
        rank, asked = trace.rank(prompt)
        said = without_thinking(answer)
        route = info.get("route")
        tags = dict(self.tags)
        if node := metadata.get("langgraph_node"):
            tags["node"] = clean_text(str(node))[:MAX_ID]
        ended_by = next((end for key in _ENDS if (end := _name(info.get(key)))), None)
        if ended_by:
            tags["finish_reason"] = ended_by
        if own := own_call(metadata, started.tags, rank):
            tags["own_call"], rank = clean_text(own)[:MAX_ID], OWN_CALL
        names = _message_ids(run_id, message, response)
        trace.answers.append(
            Answered(str(run_id), frozenset(names), said.strip(), rank, started.inside)
        )
        record: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "run_id": str(run_id),
            "root_run_id": str(trace.root),
            "message_ids": names or None,
            "messages": messages,
            "asked": self._text(asked or "") or None,
            "answer": self._text(said),
            "tool_calls": self._calls(calls),
            "namespace": self.namespace,
            "thread_id": thread,
            "user_id": user,
            "model": _name(info.get("model_name") or info.get("model"))
            or _name(metadata.get("ls_model_name"))
            or _name(started.params.get("model") or started.params.get("model_name")),
            "usage": _usage(message, response),
            "latency_s": round(ended - started.clock, 6),
            "error": self._error(error, redacted) or _cut_off(message, ended_by),
            "release": _name(info.get("release")),
            "cluster": _name(info.get("cluster")),
            "route": route if route in _ROUTES else None,
            "adapter": _name(info.get("adapter")),
            "canary": _name(info.get("canary")),
            "tags": tags,
            "created_at": started.created_at,
        }
        record = {k: v for k, v in record.items() if v is not None}
        return self.redactor.record(record, redacted, self.max_chars), redacted, rank

    def _names(self, started: Started) -> tuple[str | None, str | None]:
        """Return who asked and in which thread; runs of one trace tell each other."""
        trace = started.trace
        user, thread = map(_name, asked_by(started.metadata, started.configurable))
        if SERVER_USER not in started.metadata:
            user = user or _only(trace.users) or person(self.user_id)
        thread = thread or _only(trace.threads)
        if user:
            trace.users.add(user)
        if thread:
            trace.threads.add(thread)
        return user, thread

    def _message(self, message: BaseMessage) -> dict[str, Any]:
        out = message_fields(message)
        out["content"] = self._text(out["content"])
        for key in ("name", "tool_call_id"):
            if key in out:
                out[key] = _name(out[key])
        if "tool_calls" in out:
            out["tool_calls"] = self._calls(out["tool_calls"])
        return out

    def _text(self, text: str) -> str:
        return clean_text(text) if self.record_content else ""

    def _calls(self, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "name": _name(call.get("name")) or "",
                "args": self._json(call.get("args") or {}),
                "id": _name(call.get("id")),
            }
            for call in calls
        ]

    def _json(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping | list | tuple) and depth > _MAX_DEPTH:
            return "[...]"
        if isinstance(value, Mapping):
            return {clean_text(str(k)): self._json(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._json(v, depth + 1) for v in value]
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return self._text(str(value))

    def _error(self, error: BaseException | None, redacted: dict[str, int]) -> str | None:
        if error is None:
            return None
        name = type(error).__name__
        if name in ("CancelledError", "GeneratorExit", "KeyboardInterrupt"):
            return f"cancelled ({name})"
        # Redacted before it is cut: half an address is still somebody's.
        text = self.redactor.text(self._text(str(error)), redacted)[:500]
        return f"{name}: {text}" if text else name


def check_feedback(**fields: Any) -> Feedback:
    """Return the feedback if its values make sense.

    Raises:
        InputError: no run id, nothing said, or a value of the wrong type or range.
    """
    given = {
        k: clean_text(v) if isinstance(v, str) else v for k, v in fields.items() if v is not None
    }
    if isinstance(given.get("correction"), str):
        given["correction"] = without_thinking(given["correction"])
    run_id, score = given.get("run_id"), given.get("score")
    if not isinstance(run_id, str) or not 0 < len(run_id) <= MAX_ID:
        raise InputError("Feedback needs the run_id of an answer (or its AIMessage.id).")
    for name in ("key", "comment", "correction", "source", "user_id", "feedback_id"):
        text = given.get(name, "")
        if not isinstance(text, str):
            raise InputError(f"Feedback's {name} must be text, not {type(text).__name__}.")
        if name not in ("comment", "correction") and len(text) > MAX_ID:
            raise InputError(f"Feedback's {name} is longer than {MAX_ID} characters.")
    if score is not None:
        if not isinstance(score, bool | int | float) or not 0 <= score <= 1:
            raise InputError(
                f"Feedback's score must be a number from 0 (bad) to 1 (good), not {score!r}: "
                "of one to five stars give (stars - 1) / 4. What is in value teaches nothing."
            )
        given["score"] = float(score)
    value = given.get("value")
    if value is not None and not isinstance(value, str | bool | int | float):
        raise InputError(f"Feedback's value must be a scalar, not {type(value).__name__}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"Feedback's value must be finite, not {value!r}.")
    if (key := feedback_key(given)) is None:
        raise InputError("Feedback says nothing: give a score, comment, correction or key.")
    return Feedback.model_validate({**given, "key": key})


def feedback_key(given: Mapping[str, Any]) -> str | None:
    """Return the kind of feedback: its ``key``, else what it consists of; None: it says nothing.

    A text of blanks says nothing.
    """
    said = {k: str(v).strip() for k, v in given.items() if v is not None}
    kinds = ("correction", "comment", "score")
    return said.get("key") or next((k for k in kinds if said.get(k)), None)


def _only(names: set[str]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None


def _message_ids(run_id: UUID, message: AIMessage | None, response: LLMResult | None) -> list[str]:
    """Return the ids that a provider gave to the answer; LangChain's own is the run's."""
    found = []
    if message is not None:
        found += [message.id, (message.response_metadata or {}).get("id")]
    if response is not None and response.llm_output:
        found.append(response.llm_output.get("id"))
    named = [run_ref(one) for one in found if isinstance(one, str) and one.strip()]
    return list(dict.fromkeys(clean_text(one) for one in named if one != str(run_id)))


def _cut_off(message: AIMessage | None, ended_by: str | None) -> str | None:
    """Return what is wrong with an answer that is not whole.

    LangChain's clients read a stream that a server or a proxy cut off as a whole answer, but
    without the reason of its end.
    """
    if message is None:
        return None
    info = message.response_metadata or {}
    details = info.get("incomplete_details")  # of OpenAI's responses
    why = _name(details.get("reason")) if isinstance(details, Mapping) else None
    end = ended_by or why or _name(info.get("status"))
    if broken := incomplete(end):
        return broken
    provider = info.get("model_provider")
    # ChatAnthropic(stream_usage=False) leaves the reason out with the usage.
    told = provider in _SAY_ENDS and (provider != "anthropic" or message.usage_metadata)
    if told and message.content and not end and not info.get("done"):
        return "incomplete: the stream ended without a finish reason"
    return None


def _answer_of(
    response: LLMResult | None,
) -> tuple[str, Sequence[Mapping[str, Any]], AIMessage | None]:
    if response is None or not response.generations or not response.generations[0]:
        return "", [], None
    generation = response.generations[0][0]
    if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
        message = generation.message
        return text_of(message.content, "assistant"), message.tool_calls, message
    return generation.text, [], None


def _usage(message: AIMessage | None, response: LLMResult | None) -> dict[str, int] | None:
    found: Any = message.usage_metadata if message is not None else None
    if not found and response is not None and response.llm_output:
        counts = response.llm_output.get("token_usage")
        if isinstance(counts, Mapping):
            found = {
                "input_tokens": counts.get("prompt_tokens"),
                "output_tokens": counts.get("completion_tokens"),
            }
    if not found:
        return None
    return {name: int(found.get(name) or 0) for name in ("input_tokens", "output_tokens")}


def _name(value: Any) -> str | None:
    return clean_text(str(value))[:MAX_ID] if value not in (None, "") else None
