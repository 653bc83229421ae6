"""The records that travel the whole way: log -> rules -> pairs -> clusters -> release.

They are plain pydantic models, frozen where identity matters, and carry a schema version where they
are stored. ``routing_text`` is the one text that clustering, verification and serving embed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, get_args
from unicodedata import normalize
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

Role = Literal["system", "user", "assistant", "tool"]
ModuleKind = Literal["expert", "memory", "critic"]
"""What answers a cluster in place of the base model alone. A memory (the base revises by the
cluster's rules, without an adapter) comes from releases of older versions only."""
Route = Literal["expert", "memory", "critic", "base"]
REFLECTIVE: tuple[Route, ...] = ("memory", "critic")
"""The routes that draft and revise."""


Stage = Literal["filter", "distil", "cluster", "rules", "gap", "pairs", "train", "release"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""Of a refresh, in the order that they run."""


def utc_now() -> datetime:
    """Return the present time, timezone-aware, in UTC."""
    return datetime.now(timezone.utc)


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None: nothing is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def person(name: str | None) -> str | None:
    """Return the one form of a user's id: without blanks, an e-mail address in small letters."""
    name = normalize("NFC", name).strip() if name else ""
    is_address = "." in name.partition("@")[2]  # other ids may differ by their case alone
    return (name.lower() if is_address else name) or None


Person = Annotated[str | None, AfterValidator(person)]
"""Who asked or said something, in the one form of :func:`person`."""
Time = Annotated[datetime, AfterValidator(_aware)]
"""A time with its zone; one without a zone is UTC."""


class Message(BaseModel):
    """One turn of a chat, in OpenAI's shape."""

    model_config = ConfigDict(extra="ignore")

    role: Role
    content: str
    name: str | None = None
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    """``[{"name": str, "args": dict, "id": str}]`` as in LangChain's ``AIMessage.tool_calls``."""
    tool_call_id: str | None = None


def last_asked(messages: Sequence[Message]) -> str:
    """Return the last user message, as it is; "" where there is none."""
    return next((m.content for m in reversed(messages) if m.role == "user"), "")


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
    user_id: Person = None
    created_at: Time = Field(default_factory=utc_now)


class Verdict(BaseModel):
    """Whether a log may be learnt from, and if not, why. Logs that may not stay in the store."""

    usable: bool
    reason: str = "ok"
    """A short stable word: ``ok``, ``too_short``, ``duplicate``, ``nothing_asked``, ..."""
    detail: str = ""


AT_LIMIT = "incomplete: a token limit cut the answer"
"""The ``error`` of an answer whose model had no more tokens to finish it with."""


class Interaction(BaseModel):
    """One answer of a model: the messages it saw, what it said, and what was said about it."""

    model_config = ConfigDict(extra="ignore")

    schema_version: int = SCHEMA_VERSION
    run_id: str = Field(default_factory=lambda: str(uuid4()))
    """The model run's id: unique, the identity of the record."""
    root_run_id: str | None = None
    """The id of the trace's root run (what an app passes as ``run_id``)."""
    message_ids: list[str] = Field(default_factory=list)
    """Other ids of the answer: the provider's (``resp_...``, ``chatcmpl-...``), say."""
    messages: list[Message]
    """The prompt, system message included, answer excluded."""
    asked: str | None = None
    """What the user said last, where the app wraps it into a longer request."""
    answer: str
    """What the user is shown: text in think tags is left out."""
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    feedback: list[Feedback] = Field(default_factory=list)
    namespace: str = "default"
    thread_id: str | None = None
    user_id: Person = None
    model: str | None = None
    language: str = "en"
    usage: Usage | None = None
    latency_s: float | None = None
    error: str | None = None
    release: str | None = None
    cluster: str | None = None
    route: Route | None = None
    adapter: str | None = None
    canary: str | None = None
    """The canary that chose the release, also where no cluster took the request."""
    verdict: Verdict | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    """Scalars the app wants kept (a data set's name, say); never used for learning.

    The tag ``own_call`` says why the request counts as the app's own and not the user's."""
    created_at: Time = Field(default_factory=utc_now)

    @property
    def cut(self) -> bool:
        """Whether a token limit cut the answer. What is said of it counts; it is not imitated."""
        return self.error == AT_LIMIT

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
        return mean_of(f.score for f in self.feedback)

    @property
    def correction(self) -> str | None:
        """The last edit of the answer by a user, if any."""
        edits = [f for f in self.feedback if f.correction and f.correction.strip()]
        return max(edits, key=lambda f: f.created_at).correction if edits else None


class Rule(BaseModel):
    """One affirmative, executable instruction about answers to a query (paper, stage 1)."""

    model_config = ConfigDict(frozen=True)

    text: str
    source: Literal["feedback", "edit", "prior", "aggregated", "own", "thumbs"] = "feedback"
    """``feedback``: distilled from words. ``edit``: distilled from a user's edit. ``prior``: the
    model's guess. ``aggregated``: recurs in the cluster. ``own``: added in review. ``thumbs``:
    drawn from lone thumbs."""


class RuleSet(BaseModel):
    """What distilling one log gave: rules with feedback, and rules without (the model's guess)."""

    run_id: str
    outcome: Literal["rules", "empty", "unparsable", "no_words", "failed"] = "rules"
    """What came of the words. ``rules``: rules. ``empty``: an empty list. ``unparsable``: a text
    that is no list. ``no_words``: there were none, nor an edit that gave rules. ``failed``: the
    call failed and is made again."""
    with_feedback: list[Rule] = Field(default_factory=list)
    without_feedback: list[Rule] = Field(default_factory=list)
    wanted: list[Rule] = Field(default_factory=list)
    """``with_feedback`` completed by the rules that recur among similar logs of the cluster."""
    novelty: float | None = None
    """Least 1 - P(covered) of the rules; None when either list is empty (paper, stage 5)."""


Origin = Literal["revised", "edited", "liked", "retained"]
"""Where the better answer of a pair comes from."""


class PreferencePair(BaseModel):
    """One training example for DPO + SFT: the better answer against the logged one."""

    run_id: str
    messages: list[Message]
    chosen: str
    rejected: str
    origin: Origin = "revised"
    chosen_score: float | None = None
    rejected_score: float | None = None
    voice: str = ""
    """Who asked for it."""
    weight: float = 1.0


class RatedAnswer(BaseModel):
    """One training example for KTO: an answer that somebody liked or did not like."""

    run_id: str
    messages: list[Message]
    answer: str
    liked: bool
    voice: str = ""
    """Who rated it."""
    weight: float = 1.0


class Elsewhere(BaseModel):
    """How a module did against the base on what its cluster's users do not ask."""

    asked: int = 0
    """General instructions asked; 0: the base keeps too few of them for a loss to show."""
    kept: int = 0
    """Of these, by the module."""
    base_kept: int = 0
    """Of all general instructions, by the base."""
    people: int = 0
    """People whose held-out requests belong to other clusters and would reach this module."""
    win_rate: float | None = None
    """On these requests, every person counting once; None: too few people to ask."""
    harm: str = ""
    """Where the module is worse than the base; empty: nowhere."""


class VerifierReport(BaseModel):
    """How a module did against the base on held-out queries of its cluster."""

    kind: ModuleKind
    n: int
    """Queries that could be compared."""
    people: int = 0
    """People whose queries these were."""
    win_rate: float
    """Ties count half. Every person counts once; by the paper's rule every query does."""
    interval: tuple[float, float]
    """95 % interval of the win rate."""
    p_value: float | None = None
    """How likely a module no better than the base looks so good; None: nothing was compared."""
    passed: bool
    undecided: bool = False
    """Not passed only because there were too few people: nothing speaks against the module."""
    needed: int | None = None
    """About how many more held-out people would decide; None unless undecided."""
    epoch: int | None = None
    reason: str = ""
    lost: int = 0
    """Answers that lost content of the base answer."""
    mean_score: float | None = None
    """The judge's; None where rated answers were the standard."""
    mean_base_score: float | None = None
    elsewhere: Elsewhere | None = None
    """None: not asked, because the module failed, by the paper's rule, or in an old release."""


class Cluster(BaseModel):
    """A group of similar logs, and how queries near it are answered."""

    id: str
    size: int
    run_ids: list[str] = Field(default_factory=list)
    gap: float | None = None
    """None: nothing could be compared."""
    n_gap_logs: int = 0
    route: Route = "base"
    adapter: str | None = None
    rules: list[str] = Field(default_factory=list)
    """The rules that recur among its people, most supported first."""
    people: int = 0
    """How many people's feedback it was made of."""
    trained_on: list[str] = Field(default_factory=list)
    """The logs that the module learnt from (a part of ``run_ids``); empty without a module."""
    made_in: str | None = None
    """The release whose refresh made the module; None: this one."""
    learnt: list[str] | None = None
    """The rules that a module of an earlier release was taught; None: ``rules``."""
    reports: list[VerifierReport] = Field(default_factory=list)
    note: str = ""


ANONYMOUS = "anonymous"
"""The one voice of all feedback that nobody can be named for."""


def speaker_of(one: Feedback, log: Interaction) -> str | None:
    """Return who said a piece of feedback: its own user, else whoever asked; None: nobody known."""
    return one.user_id or log.user_id


def voice_of(log: Interaction, *, threads: bool = False) -> str:
    """Return whose vote a log is: who said the feedback, else who asked, else one anonymous voice.

    Give logs with the feedback of one person (:func:`by_speaker`).

    Args:
        log: with its feedback.
        threads: whether a thread without any user is a voice of its own. It is in a home in which
            nobody is named; beside named people all anonymous feedback has one voice together.
    """
    said = sorted(log.feedback, key=lambda f: f.created_at)
    named = next((f.user_id for f in reversed(said) if f.user_id), None) or log.user_id
    if named:
        return f"user:{named}"
    return f"thread:{log.thread_id}" if threads and log.thread_id else ANONYMOUS


def voices_of(logs: Sequence[Interaction], *, threads: bool = False) -> dict[str, str]:
    """Return the voice of every log of a home, by run id; see :func:`voice_of`.

    Args:
        logs: all logs of the home.
        threads: whether threads without a user are voices beside named people too.
    """
    threads = threads or not any_named(logs)
    return {log.run_id: voice_of(log, threads=threads) for log in logs}


def any_named(logs: Iterable[Interaction]) -> bool:
    """Whether any of these logs names who asked or who said something of it."""
    return any(log.user_id or any(f.user_id for f in log.feedback) for log in logs)


_SPEAKER = "#said-by-"


def by_speaker(log: Interaction) -> list[Interaction]:
    """Return a log once for each person who said something about it, with their feedback alone.

    Whoever comments on other people's answers has a vote of their own. The log of the first speaker
    keeps the run id, the others' have a number behind it (:func:`run_of`). A run id that looks like
    one of these gets a number too.
    """
    alike = _SPEAKER in log.run_id
    said: dict[str | None, list[Feedback]] = {}
    for one in sorted(log.feedback, key=lambda f: f.created_at):
        said.setdefault(speaker_of(one, log), []).append(one)
    if list(said) in ([], [log.user_id]) and not alike:
        return [log]
    return [
        log.model_copy(
            update={
                "run_id": f"{log.run_id}{_SPEAKER}{n}" if n or alike else log.run_id,
                "feedback": theirs,
                "user_id": who,
            }
        )
        for n, (who, theirs) in enumerate(said.items() or [(log.user_id, [])])
    ]


def run_of(log_id: str) -> str:
    """Return the run id of a log that :func:`by_speaker` may have given a number."""
    return log_id.rpartition(_SPEAKER)[0] or log_id


def routing_text(messages: Sequence[Message]) -> str:
    """Return the one text that clustering, verification and serving embed.

    System and user turns joined by blank lines (paper, stage 4: "the whole prompt"), assistant and
    tool turns left out, so that "make it shorter" lands where its conversation belongs.
    """
    return "\n\n".join(
        m.content.strip() for m in messages if m.role in ("system", "user") and m.content.strip()
    )


def digest_of(*parts: Any) -> str:
    """Return 16 hex digits that stand for the parts' texts."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(str(part).encode("utf-8", "surrogatepass") + b"\0")
    return whole.hexdigest()[:16]


def content_of(log: Interaction) -> str:
    """Return a digest of a log with its feedback."""
    return digest_of(log.model_dump_json(exclude={"verdict", "language"}))
