"""The records that travel the whole way: log -> rules -> pairs -> clusters -> release.

They are plain pydantic models, frozen where identity matters, and carry a schema version where they
are stored. ``routing_text`` is the one text that clustering, verification and serving embed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "REFLECTIVE",
    "SCHEMA_VERSION",
    "Cluster",
    "Feedback",
    "Interaction",
    "Message",
    "ModuleKind",
    "PreferencePair",
    "Route",
    "Rule",
    "RuleSet",
    "Usage",
    "Verdict",
    "VerifierReport",
    "routing_text",
    "utc_now",
]

SCHEMA_VERSION = 1

Role = Literal["system", "user", "assistant", "tool"]
ModuleKind = Literal["expert", "memory", "critic"]
"""What answers a cluster in place of the base model alone; a memory is the one without adapter."""
Route = Literal["expert", "memory", "critic", "base"]
REFLECTIVE: tuple[Route, ...] = ("memory", "critic")
"""The routes that draft and revise."""


def utc_now() -> datetime:
    """Return the present time, timezone-aware, in UTC."""
    return datetime.now(timezone.utc)


class Message(BaseModel):
    """One turn of a chat, in OpenAI's shape."""

    model_config = ConfigDict(extra="ignore")

    role: Role
    content: str
    name: str | None = None
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    """``[{"name": str, "args": dict, "id": str}]`` as in LangChain's ``AIMessage.tool_calls``."""
    tool_call_id: str | None = None


class Usage(BaseModel):
    """Tokens spent, in LangChain's ``usage_metadata`` names."""

    input_tokens: int = 0
    output_tokens: int = 0


class Feedback(BaseModel):
    """What somebody said or did about one answer; field names are LangSmith's.

    ``key`` tells the kind: ``"comment"``, ``"score"``, ``"correction"``, ``"follow_up"`` (the next
    user turn: the paper's signal), or an implicit action (``"like"``, ``"dislike"``, ``"copy"``,
    ``"regenerate"``, ``"session"``).
    """

    model_config = ConfigDict(extra="ignore")

    feedback_id: str = Field(default_factory=lambda: uuid4().hex)
    run_id: str
    key: str = "comment"
    score: float | None = None
    """In [0, 1]; 0 is thumbs down, 1 is thumbs up."""
    value: str | float | bool | None = None
    comment: str | None = None
    correction: str | None = None
    """The answer as the user would have written it."""
    source: str = "api"
    user_id: str | None = None
    created_at: datetime = Field(default_factory=utc_now)


class Verdict(BaseModel):
    """Whether a log may be learnt from, and if not, why. Flagged logs stay in the store."""

    usable: bool
    reason: str = "ok"
    """A short stable word: ``ok``, ``too_short``, ``empty_answer``, ``praise_only``, ..."""
    detail: str = ""


class Interaction(BaseModel):
    """One answer of a model: the messages it saw, what it said, and what was said about it."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int = SCHEMA_VERSION
    run_id: str = Field(default_factory=lambda: str(uuid4()))
    """The model run's id: unique, the identity of the record."""
    root_run_id: str | None = None
    """The id of the trace's root run (what an app passes as ``run_id``)."""
    messages: list[Message]
    """The prompt, system message included, answer excluded."""
    answer: str
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    feedback: list[Feedback] = Field(default_factory=list)
    namespace: str = "default"
    thread_id: str | None = None
    user_id: str | None = None
    model: str | None = None
    language: str = "en"
    usage: Usage | None = None
    latency_s: float | None = None
    error: str | None = None
    release: str | None = None
    cluster: str | None = None
    route: Route | None = None
    adapter: str | None = None
    verdict: Verdict | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    """Scalars the app wants kept (a data set's name, say); never used for learning."""
    created_at: datetime = Field(default_factory=utc_now)

    @property
    def query(self) -> str:
        """The text that clustering and routing embed (see :func:`routing_text`)."""
        return routing_text(self.messages)

    @property
    def feedback_turns(self) -> list[str]:
        """The words of the feedback in order of arrival: comments and follow-up turns."""
        ordered = sorted(self.feedback, key=lambda f: f.created_at)
        return [f.comment.strip() for f in ordered if f.comment and f.comment.strip()]

    @property
    def score(self) -> float | None:
        """The mean of the scores given, in [0, 1]; None when nobody scored."""
        scores = [f.score for f in self.feedback if f.score is not None]
        return sum(scores) / len(scores) if scores else None

    @property
    def correction(self) -> str | None:
        """The last edit of the answer by a user, if any."""
        edits = [f for f in self.feedback if f.correction and f.correction.strip()]
        return max(edits, key=lambda f: f.created_at).correction if edits else None


class Rule(BaseModel):
    """One affirmative, executable instruction about answers to a query (paper, stage 1)."""

    model_config = ConfigDict(frozen=True)

    text: str
    source: Literal["feedback", "prior", "aggregated"] = "feedback"


class RuleSet(BaseModel):
    """What distilling one log gave: rules with feedback, and rules without (the model's guess)."""

    run_id: str
    with_feedback: list[Rule] = Field(default_factory=list)
    without_feedback: list[Rule] = Field(default_factory=list)
    wanted: list[Rule] = Field(default_factory=list)
    """``with_feedback`` completed by the rules that recur among similar logs of the cluster."""
    novelty: float | None = None
    """min over rules of 1 - P(covered); None when either list is empty (paper, stage 5)."""


class PreferencePair(BaseModel):
    """One training example for DPO + SFT: the better answer against the logged one."""

    run_id: str
    messages: list[Message]
    chosen: str
    rejected: str
    rules: list[Rule] = Field(default_factory=list)
    origin: Literal["revised", "edited", "liked"] = "revised"
    chosen_score: float | None = None
    rejected_score: float | None = None
    weight: float = 1.0


class VerifierReport(BaseModel):
    """How a module did against the base on held-out queries of its cluster."""

    kind: ModuleKind
    n: int
    win_rate: float
    interval: tuple[float, float]
    """95 % interval of the win rate."""
    passed: bool
    undecided: bool = False
    """Not passed for want of queries alone: nothing that was seen speaks against the module."""
    epoch: int | None = None
    reason: str = ""
    lost: int = 0
    """Answers that lost content of the base answer."""
    overreached: int = 0
    """Answers that obey a rule on a request which it does not hold for."""
    mean_score: float | None = None
    mean_base_score: float | None = None


class Cluster(BaseModel):
    """A group of similar logs, and how queries near it are answered."""

    id: str
    size: int
    run_ids: list[str] = Field(default_factory=list)
    gap: float = 0.0
    n_gap_logs: int = 0
    route: Route = "base"
    adapter: str | None = None
    radius: float | None = None
    """Largest distance of a member's query to the centroid."""
    rules: list[str] = Field(default_factory=list)
    """The recurring rules, most supported first: for people, and for whoever is reminded of them
    (the routes ``"memory"`` and ``"critic"``)."""
    conditions: list[list[str]] = Field(default_factory=list)
    """For each rule the words of a request of which one must be there for it; none: always."""
    rivals: list[tuple[str, str]] = Field(default_factory=list)
    """Pairs of these rules that hardly anyone wants together."""
    trained_on: list[str] = Field(default_factory=list)
    """The logs that the module learnt from (a part of ``run_ids``); none without a module."""
    made_in: str | None = None
    """The release whose refresh made the module; None: this one."""
    reports: list[VerifierReport] = Field(default_factory=list)
    note: str = ""


def routing_text(messages: Sequence[Message]) -> str:
    """Return the one text that clustering, verification and serving embed.

    System and user turns joined by blank lines (paper, stage 4: "the whole prompt"), assistant and
    tool turns left out, so that "make it shorter" lands where its conversation belongs.
    """
    return "\n\n".join(
        m.content.strip() for m in messages if m.role in ("system", "user") and m.content.strip()
    )
