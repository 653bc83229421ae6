"""One trace while it is open: who asked what, which runs answered, and what its user was shown.

An app asks models for itself too: titles, guards, summaries, searches. LangChain's metadata and
tags tell such calls, or the user turn does: the trace's root was given what the user said, and an
answer to something else was not the user's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.messages import BaseMessage, convert_to_messages

from langchain_uno.logs.conversation import run_ref
from langchain_uno.logs.names import fields_of
from langchain_uno.messages import text_of, without_thinking

OWN_CALL, OTHER_TURN, QUOTES_IT, SAME_TURN = range(4)
"""How far a request is the user's turn: the app's own call by its metadata or tags; another text;
a text with the turn in it; the turn itself. The further, the likelier its answer was shown."""

_HIDDEN = "langsmith:hidden"
_NO_STREAM = ("nostream", "langsmith:nostream")
_HOOKS = ("pre_model_hook", "post_model_hook", ".before_agent", ".before_model", ".after_model",
          ".after_agent")  # fmt: skip
"""Nodes of create_react_agent and of create_agent's middleware, which stand beside the model's."""
_ROLES = {"human": "user", "ai": "assistant"}
_MOST = 100
"""Answers remembered of one trace; a service's loop may be a trace without end."""
_DEPTH = 3
_ANSWERS = ("answer", "output", "response", "generation", "result")
"""Fields of a graph's state in which LangChain's and LangGraph's guides keep the answer."""


def own_call(metadata: Mapping[str, Any], tags: Iterable[str], rank: int | None) -> str | None:
    """Return why a model call is the app's own, and not an answer to the user; None: it may be one.

    Args:
        metadata: the run's.
        tags: the run's.
        rank: how far its request is the user's turn; None: unknown.
    """
    if source := metadata.get("lc_source"):
        return str(source)
    if "lc_internal_call" in metadata:  # of middleware of other packages
        return "internal"
    node = metadata.get("langgraph_node")
    if isinstance(node, str) and node.endswith(_HOOKS):
        return node
    for tag in tags:
        # An app may stop the streaming of its answers as well.
        if tag == _HIDDEN or (tag in _NO_STREAM and rank != SAME_TURN):
            return tag
    return None


class Answered(NamedTuple):
    """An answer of the trace."""

    run_id: str
    names: frozenset[str]
    text: str
    rank: int | None
    inside: Sequence[UUID]
    """The runs around it, below the root."""


@dataclass(slots=True)
class Trace:
    """What is known of a root run and of the runs below it."""

    root: UUID
    turns: tuple[str, ...] = ()
    """What the user may have said: the root's last user message, else the texts of its inputs."""
    users: set[str] = field(default_factory=set)
    threads: set[str] = field(default_factory=set)
    unseen: tuple[str, ...] = ()
    """Runs around it below the root that no callback tells of: LangSmith's traced functions."""
    answers: deque[Answered] = field(default_factory=lambda: deque(maxlen=_MOST))

    def rank(self, prompt: Sequence[BaseMessage] | str) -> tuple[int | None, str | None]:
        """Return how far a request is what the user said; None: nobody knows what that was.

        With it, what of a longer request is the user's, where one of the inputs alone is in it.
        """
        if not self.turns:
            return None, None
        asked = (prompt if isinstance(prompt, str) else _last_user(prompt) or "").strip()
        if asked in self.turns:
            return SAME_TURN, None
        quoted = {turn for turn in self.turns if turn in asked}
        if not quoted:
            return OTHER_TURN, None
        return QUOTES_IT, quoted.pop() if len(quoted) == 1 else None

    def names(self, run: UUID, outputs: Any) -> list[tuple[str, str]]:
        """Return further names of this trace's answers, by what a run gave back.

        Args:
            run: the root, or a run below it.
            outputs: what it gave back; None: it failed.

        Returns:
            Pairs (name, run id): ids that the app gave to the messages, and the run's own for the
            answer that was shown. A root has no name where it has one answer, or gave none back.
        """
        is_root = run == self.root
        # A copy: runs beside this one may end meanwhile.
        answers = [one for one in tuple(self.answers) if is_root or run in one.inside]
        if not answers:
            return []
        found: list[tuple[str, str]] = []
        shown: list[Answered] = []
        given = [(run_ref(i) if i else "", text) for i, text in _said(outputs)]
        known = [(name, _named(answers, name) or _saying(answers, text)) for name, text in given]
        if not any(one for _, one in known):
            known = [(name, _within(answers, text)) for name, text in given]
        for name, one in known:
            if one is None:
                continue
            shown.append(one)
            if name and name != one.run_id and name not in one.names:
                found.append((name, one.run_id))
        if is_root:
            likely = shown if len(answers) > 1 else []
        else:  # no reader of the journal can tell what was inside it
            likely = shown or [one for one in answers if one.rank != OWN_CALL]
            likely = [one for one in likely if one.text] or likely
        if likely:
            best = max(likely_rank(one.rank) for one in likely)
            last = [one for one in likely if likely_rank(one.rank) == best][-1]
            found += [(name, last.run_id) for name in (str(run), *self.unseen)]
        return found


def _named(answers: Sequence[Answered], name: str) -> Answered | None:
    return next((a for a in answers if name == a.run_id or name in a.names), None)


def _saying(answers: Sequence[Answered], text: str) -> Answered | None:
    return next((a for a in reversed(answers) if text and a.text == text), None)


def _within(answers: Sequence[Answered], text: str) -> Answered | None:
    """Return the longest answer that stands whole in the text: apps add sources, say."""
    inside = [a for a in reversed(answers) if a.text and a.text in text]
    return max(inside, key=lambda a: len(a.text), default=None)


class Inside(NamedTuple):
    """Where in a trace something runs."""

    trace: Trace
    runs: tuple[UUID, ...] = ()
    """The runs around it below the root whose ids an app may know: it may have chosen them."""

    def run(self, run_id: UUID) -> Inside:
        """Return the place inside a further run."""
        return Inside(self.trace, (*self.runs, run_id))


def traced_around(parent: UUID) -> Trace:
    """Return the trace of a run whose parent was not seen: LangSmith may trace a function."""
    from langsmith.run_helpers import get_current_run_tree  # slow to import, and mostly not needed

    tree = get_current_run_tree()
    if tree is None or tree.id != parent:
        return Trace(parent)
    _, *unseen = (part[-36:] for part in tree.dotted_order.split("."))
    return Trace(tree.trace_id, unseen=tuple(unseen))


def likely_rank(rank: int | None) -> int:
    """Return how far a request is the user's turn, where nobody may know it."""
    return QUOTES_IT if rank is None else rank


def turns_of(inputs: Any, depth: int = 0) -> tuple[str, ...]:
    """Return what a root run's inputs have of the user's: the last user message, else all texts."""
    if state := _state(inputs):
        if "messages" in state:
            return turns_of(state["messages"], depth + 1)
        if depth >= _DEPTH:
            return ()
        texts = [
            text
            for value in state.values()
            if isinstance(value, str | BaseMessage) or fields_of(value)
            for text in turns_of(value, depth + 1)
        ]
        return tuple(text for text in texts if len(text) >= 3)
    last = inputs if isinstance(inputs, str) else _last_user(_messages(inputs))
    said = (last or "").strip()
    return (said,) if said else ()


def _said(outputs: Any, depth: int = 0) -> Iterator[tuple[str | None, str]]:
    """Yield (message id, text) of what a root run gave back after the user's turn."""
    if isinstance(outputs, str):
        yield None, outputs.strip()
    elif state := _state(outputs):
        if "messages" in state:
            yield from _said(state["messages"], depth + 1)
        elif depth < _DEPTH:
            # Of several that are as likely, the last is taken for what was shown.
            for name in sorted(state, key=lambda name: name in _ANSWERS):
                yield from _said(state[name], depth + 1)
    else:
        messages = _messages(outputs)
        roles = [_role(one) for one in messages]
        start = len(roles) - roles[::-1].index("user") if "user" in roles else 0
        for one, role in zip(messages[start:], roles[start:], strict=True):
            if role == "assistant":
                yield one.id, without_thinking(text_of(one.content, role)).strip()


def _state(value: Any) -> Mapping[str, Any] | None:
    """Return the fields of a graph's state, whatever it is made of; None: it is messages."""
    if isinstance(value, BaseMessage) or hasattr(value, "to_messages") or _is_message(value):
        return None
    return fields_of(value)


def _messages(value: Any) -> list[BaseMessage]:
    """Return the messages in a value, in whichever form LangChain takes them."""
    if isinstance(value, list | tuple) and not _is_pair(value):
        found = list(value)
    elif isinstance(value, BaseMessage) or _is_message(value) or _is_pair(value):
        found = [value]
    elif callable(to_messages := getattr(value, "to_messages", None)):
        found = list(to_messages())
    else:
        inner = getattr(value, "messages", None)
        found = list(inner) if isinstance(inner, list | tuple) else []
    return [message for one in found if (message := _message(one)) is not None]


def _message(value: Any) -> BaseMessage | None:
    try:
        return convert_to_messages([value])[0]
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError):
        return None  # something else than a message


def _last_user(messages: Sequence[BaseMessage]) -> str | None:
    return next((text_of(m.content) for m in reversed(messages) if _role(m) == "user"), None)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and "content" in value and ("role" in value or "type" in value)
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, str) for v in value)


def _role(message: BaseMessage) -> str:
    # Summaries and notices that LangChain writes for itself stand under the user's role.
    own = message.additional_kwargs.get("lc_source")
    return "" if own else _ROLES.get(message.type.removesuffix("MessageChunk").lower(), "")
