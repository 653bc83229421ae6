"""A teacher: any chat model that LangChain can start, standing where an engine generates.

    teacher = load_teacher("openai:gpt-4.1-mini")

It distils, revises and judges in place of the base model; answers, guesses and training stay the
base model's own. Only ``generate`` reaches it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_uno.errors import EngineDownError, EngineError, ModelNotFoundError
from langchain_uno.models.answers import Answers, key_of
from langchain_uno.models.chat_format import as_openai, in_turn
from langchain_uno.models.protocols import Engine, GenerateRequest, Generation, OnDone
from langchain_uno.models.together import ask_together
from langchain_uno.records import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage

_CUT_OFF = {"length", "max_tokens", "MAX_TOKENS"}
_STRICT = ("system", "late", "repeats", "greeting")
_WITHHELD = {"content_filter", "refusal", "SAFETY"}
_WIDTH = 8
"""Requests under way at a time."""
PAUSE_S = 2.0
"""Seconds before a call that failed is tried once more; chat models try by themselves too."""
GIVE_UP = 5
"""Calls that fail one after the other before nobody believes in single accidents."""
_OF_ONE = (400, 413, 422)
"""Refusals of one request: a content filter, a context that is too long."""
_FINAL = (*_OF_ONE, 401, 403, 404)
"""Refusals that are the same again."""
DOWN = 2
"""Calls that fail one after the other before none is made once more."""


def load_teacher(name: str) -> Teacher:
    """Start a chat model by its ``init_chat_model`` string, such as ``"openai:gpt-4.1-mini"``.

    Args:
        name: ``provider:model``, or a model name whose provider LangChain can infer.

    Raises:
        ModelNotFoundError: no such provider, its package or its credentials are missing.
    """
    from langchain.chat_models import init_chat_model

    try:
        model = init_chat_model(name)
    except Exception as error:  # every provider has its own errors
        raise ModelNotFoundError(
            f"The teacher {name!r} can't be started: {str(error).rstrip('.')}. Give an "
            "init_chat_model string such as 'openai:gpt-4.1-mini', install its package and set its "
            "credentials."
        ) from error
    return Teacher(model, name)


def teacher_notes(teacher: Engine) -> list[str]:
    """Return what a person should read about calls of a teacher that failed."""
    failures = teacher.failures if isinstance(teacher, Teacher) else None
    if not failures:
        return []
    kinds = ", ".join(f"{n} {kind}" for kind, n in failures.most_common())
    return [
        f"{failures.total()} calls of the teacher {teacher.model_name!r} failed and count for "
        f"nothing ({kinds})."
    ]


def forget(engine: Engine, request: GenerateRequest) -> None:
    """Let a request whose answer can't be read be asked again by the next call.

    Args:
        engine: what answered; only a teacher keeps answers.
        request: what it was asked.

    Raises:
        StoreError: the file of answers can't be used.
    """
    if isinstance(engine, Teacher):
        engine.forget(request)


def calls_of(engine: Engine) -> tuple[int, int]:
    """Return how much a teacher was asked so far, and how much of it without an answer."""
    return (engine.asked, engine.unanswered) if isinstance(engine, Teacher) else (0, 0)


def check_answered(engine: Engine, since: tuple[int, int] = (0, 0)) -> None:
    """Check that a teacher answered most of what it was asked.

    Args:
        engine: only a teacher leaves something without an answer.
        since: :func:`calls_of` it before.

    Raises:
        EngineError: it left out more than half.
    """
    asked, lost = (now - then for now, then in zip(calls_of(engine), since, strict=True))
    if 2 * lost > asked:
        raise EngineError(
            f"The teacher {engine.model_name!r} gave no answer to {lost} of {asked} requests. "
            "Check its credentials, limits and filters, then call again; the refresh goes on from "
            "there."
        )


class Teacher(Engine):
    """Wraps a LangChain chat model as an engine that only generates."""

    model_name = ""
    """The string it was started by."""
    fingerprint = ""
    """The name alone: what a hosted model is today can't be known."""

    def __init__(self, model: BaseChatModel, name: str) -> None:
        self._model = model
        self.model_name = name
        self.fingerprint = f"teacher:{name}"
        self._refused: tuple[str, ...] = ()
        """What it is not told in this form (:func:`~.chat_format.in_turn`)."""
        self.failures: Counter[str] = Counter()
        """Calls that failed for good, by the kind of error."""
        self.asked = self.unanswered = 0
        """Requests so far, kept answers among them, and those that got no answer."""
        self._in_a_row = 0
        self._answers: Answers | None = None
        urls = [one for _, one in model if isinstance(one, str) and one.startswith("http")]
        client = getattr(model, "root_client", None)  # OpenAI's, which reads the environment itself
        served = (self.fingerprint, *urls, str(getattr(client, "base_url", "")))
        self._served = " ".join(filter(None, served))
        """Name and address: another server may know another model by the same name."""

    @property
    def keeps(self) -> bool:
        """Whether every answer is kept as soon as it is there."""
        return self._answers is not None

    def keep_answers(self, path: Path) -> None:
        """Keep every answer in a file, and take from it what was asked before.

        Args:
            path: see :class:`langchain_uno.models.answers.Answers`.

        Raises:
            StoreError: the file can't be used.
        """
        self._answers = Answers(path)

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: OnDone | None = None
    ) -> list[Generation]:
        """Answer many requests, some at a time; results in the order of the requests.

        A call that fails, and fails again, gives an empty answer with ``finish_reason="failed"``;
        so do an empty answer and one that the provider withheld.

        Raises:
            EngineDownError: several calls failed one after the other, none for its own request's
                sake.
            EngineError: a request names an adapter.
            StoreError: answers are to be kept, and can't be.
        """
        if any(request.adapter is not None for request in requests):
            raise EngineError(f"The teacher {self.model_name!r} has no adapters.")
        return ask_together(self._ask, requests, _WIDTH, on_done)

    def _ask(self, request: GenerateRequest) -> Generation:
        """Answer one request, from what is kept if it is there."""
        key = key_of(self._served, request)
        self.asked += 1
        if self._answers is not None and (known := self._answers.get(key)) is not None:
            return known
        try:
            answer = _generation(self._call(request))
        except Exception as error:  # noqa: BLE001 - every provider has its own errors
            return self._failed(error)
        self._in_a_row = 0
        if answer.finish_reason == "failed":
            self.failures["empty or withheld"] += 1
            self.unanswered += 1
        elif self._answers is not None:
            self._answers.put(key, answer)
        return answer

    def forget(self, request: GenerateRequest) -> None:
        """Drop the answer kept of a request; see :func:`forget`."""
        if self._answers is not None:
            self._answers.drop(key_of(self._served, request))

    def _failed(self, error: Exception) -> Generation:
        """Count a failed call; it costs its own answer, and where several fail in a row all.

        A refusal of one request says nothing about the others.
        """
        self.failures[type(error).__name__] += 1
        self.unanswered += 1
        if getattr(error, "status_code", None) not in _OF_ONE:
            self._in_a_row += 1
        if self._in_a_row >= GIVE_UP:
            raise EngineDownError(
                f"The teacher {self.model_name!r} failed to answer {GIVE_UP} times in a "
                f"row: {type(error).__name__}. Check its credentials and limits, then call again; "
                "the refresh goes on from there."
            ) from error
        return Generation(text="", finish_reason="failed")

    def _call(self, request: GenerateRequest) -> AIMessage:
        """Ask the chat model, once more where that may help.

        Seeds and schemas are left out: many providers refuse them, and the real prompt set asks for
        JSON in words and reads it back strictly.
        """
        from langchain_core.messages import convert_to_messages

        rows, sampling = as_openai(request.messages), request.sampling

        def invoke(refused: tuple[str, ...]) -> AIMessage:
            return self._model.invoke(
                convert_to_messages(in_turn(rows, refused)),
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
            )

        refused = self._refused
        try:
            return invoke(refused)
        except Exception as error:  # every provider has its own errors
            status = getattr(error, "status_code", None)
            if status in (400, 422) and not refused and in_turn(rows, _STRICT) != rows:
                answer = invoke(_STRICT)  # served by a template without a system role, say
                self._refused = _STRICT
                return answer
            if status in _FINAL or self._in_a_row >= DOWN:  # nobody waits for one that is down
                raise
        time.sleep(PAUSE_S)
        return invoke(refused)

    def close(self) -> None:
        """Close the file of answers; the chat model is its owner's."""
        if self._answers is not None:
            self._answers.close()


def _generation(answer: AIMessage) -> Generation:
    usage = Usage.model_validate(answer.usage_metadata or {})
    about = answer.response_metadata
    reason = about.get("finish_reason") or about.get("stop_reason")
    text = str(answer.text)
    if reason in _WITHHELD or not text.strip():
        return Generation(text="", usage=usage, finish_reason="failed")
    return Generation(
        text=text, usage=usage, finish_reason="length" if reason in _CUT_OFF else "stop"
    )
