"""Trying a home's model: a chat whose answers are journalled, beside the base model's own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal

_MOST_TALKS = 100
_MOST_TURNS = 50
_MOST_CHARS = 20_000


@dataclass
class Turn:
    """One question, both answers, and what its reader said of the first."""

    asked: str
    answer: str
    base: str
    run_id: str
    told: dict[str, Any]
    """Release, cluster and route of the answer."""
    score: float | None = None
    comment: str = ""
    correction: str = ""


@dataclass
class Talk:
    """One browser's conversation. It lives in memory; the journal keeps what was said."""

    erased: int
    """How many erasures the journal knew when it began."""
    thread: str = field(default_factory=lambda: str(uuid4()))
    turns: list[Turn] = field(default_factory=list)
    asking: threading.Lock = field(default_factory=threading.Lock)


class Talks:
    """The conversations of one console, and the model that answers in them.

    Args:
        home: whose current release answers; its journal gets answers and feedback.
        model: a ``UNOChatModel`` over this home, or a base model as that takes it; None: the
            bundled one.
        embedder: as ``UNOChatModel`` takes it.
    """

    def __init__(self, home: Home, model: Any = None, embedder: Any = None) -> None:
        self._home, self._model, self._embedder = home, model, embedder
        self._talks: OrderedDict[str, Talk] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None
        self._handler: Any = None

    @property
    def model_name(self) -> str:
        """The base model's name."""
        return str(getattr(self._model, "model_name", self._model) or "bundled")

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._loaded is not None

    def of(self, sid: str, keep: bool = False) -> Talk:
        """Return a session's conversation, or a new one: after an erasure too, whoever asked it.

        Args:
            sid: of the session.
            keep: keep a new one; the conversation that was kept longest ago makes room.
        """
        with Journal(self._home.journal, readonly=True) as journal:
            ((erased,),) = journal.database.read("SELECT count(*) FROM erasures")
        with self._lock:
            talk = self._talks.get(sid)
            if talk is None or talk.erased != erased:
                talk = Talk(erased)
            if keep:
                self._talks[sid] = talk
                self._talks.move_to_end(sid)
                while len(self._talks) > _MOST_TALKS:
                    self._talks.popitem(last=False)
            return talk

    def begin(self, sid: str) -> None:
        """Begin a new conversation."""
        with self._lock:
            self._talks.pop(sid, None)

    def forget_all(self) -> None:
        """Drop every conversation: something in them may have been forgotten."""
        with self._lock:
            self._talks.clear()

    def ask(self, sid: str, who: str, text: str) -> None:
        """Ask the model and the base model; the first answer is journalled as ``who``'s.

        Raises:
            InputError: the text is empty or too long, or the conversation is.
            UNOError: the model can't be loaded, or can't answer.
        """
        text = text.strip()
        if not text or len(text) > _MOST_CHARS:
            raise InputError(f"Write a message of 1 to {_MOST_CHARS:,} characters.")
        model, base = self._models()
        talk = self.of(sid, keep=True)
        with talk.asking:  # one question after another
            if self.of(sid) is not talk:
                raise InputError("This conversation ended meanwhile: ask again.")
            self._answer(talk, who, text, model, base)

    def _answer(self, talk: Talk, who: str, text: str, model: Any, base: Any) -> None:
        if len(talk.turns) >= _MOST_TURNS:
            raise InputError(f"A conversation ends after {_MOST_TURNS} turns: begin a new one.")
        messages: list[BaseMessage] = []
        for turn in talk.turns:
            messages += [HumanMessage(turn.asked), AIMessage(turn.answer)]
        messages.append(HumanMessage(text))
        config: Any = {
            "callbacks": [self._handler],
            "metadata": {"user_id": who, "thread_id": talk.thread},
        }
        answer = model.invoke(messages, config=config)
        plain = base.invoke(messages)
        told = {k: answer.response_metadata.get(k) for k in ("release", "cluster", "route")}
        run_id = str(answer.id or "")
        talk.turns.append(Turn(text, str(answer.text), str(plain.text), run_id, told))

    def rate(
        self,
        sid: str,
        who: str,
        run_id: str,
        *,
        score: float | Literal[""] | None = None,
        comment: str | None = None,
        correction: str | None = None,
    ) -> None:
        """Record feedback on an answer of this conversation, as from an app.

        Thumb, comment and correction stand beside each other; of each, the last stands. None says
        nothing. An empty text, or as correction the answer as it is, takes back what was said.

        Raises:
            InputError: this conversation has no such answer, or it can't be stored.
            StoreError: it could not be written.
        """
        turn = next((t for t in self.of(sid).turns if t.run_id == run_id), None)
        if turn is None:
            raise InputError("This answer is of an older conversation: ask again to rate it.")
        if correction == turn.answer.strip():
            correction = ""
        said: dict[str, Any] = {"score": score, "comment": comment, "correction": correction}
        for name, value in said.items():
            nothing = None if name == "score" else ""
            new = nothing if value == "" else value
            if value is None or new == getattr(turn, name):
                continue
            parts = "\0".join((run_id, who, name)).encode()
            self._handler.feedback(
                run_id,
                name,
                **({} if new == nothing else {name: new}),
                source="app",
                user_id=who,
                feedback_id=f"console-{blake2b(parts, digest_size=16).hexdigest()}",
            )
            setattr(turn, name, new)

    def close(self) -> None:
        """Close the handler's journal."""
        if self._handler is not None:
            self._handler.close()

    def _models(self) -> tuple[Any, Any]:
        """Load the model at the first question; whoever asks meanwhile waits."""
        from langchain_uno.callbacks import UNOFeedbackHandler
        from langchain_uno.chat_models import UNOChatModel

        with self._loading:
            if self._loaded is None:
                place: Any = {"home": self._home.root, "namespace": self._home.namespace}
                model = self._model
                if not isinstance(model, UNOChatModel):
                    model = UNOChatModel(**place, model=model, embedder=self._embedder)
                model.warm()
                self._handler = UNOFeedbackHandler(**place)
                # An app's own model captures under the app's names: here the console does.
                asked = model.model_copy(update={"callbacks": None, "metadata": None})
                self._loaded = (asked, asked.model_copy(update={"mode": "base"}))
            return self._loaded
