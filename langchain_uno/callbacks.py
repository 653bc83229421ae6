"""``UNOFeedbackHandler``: put it among the callbacks of any chat model, agent or LangGraph graph.

    handler = UNOFeedbackHandler(home="~/uno")
    answer = model.invoke("...", config={"callbacks": [handler], "metadata": {"user_id": "u1"}})
    handler.feedback(answer.id, score=0.0, comment="Please answer in bullet points.")

Every answer is appended to the home's journal with its prompt, tool calls, usage, latency, ids and
model. The request path writes nothing else: a refresh, or ``langchain-uno logs drain``, embeds the
records and fills Chroma later. The callbacks never raise into the app.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any
from uuid import UUID, uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables.config import var_child_runnable_config

from langchain_uno.errors import ForgottenError, InputError, StoreError, UNOError
from langchain_uno.forks import ForkLock, survive_forks
from langchain_uno.home import Home
from langchain_uno.logs.background import start_draining
from langchain_uno.logs.capture import Capture, Started, check_feedback
from langchain_uno.logs.conversation import is_further, run_ref
from langchain_uno.logs.database import Closing
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.names import asked_by
from langchain_uno.logs.redaction import Redactor, redactor_of
from langchain_uno.logs.trace import OWN_CALL, Inside, Trace, traced_around, turns_of
from langchain_uno.metrics import answered, captured, waiting
from langchain_uno.records import Feedback

_log = logging.getLogger("langchain_uno")
_Write = Callable[[float | None], None]
"""Writes one thing into the journal, waiting so many seconds at most for other writers."""
_SHORT_WAIT_S = 0.005
"""Longest wait for other writers in an event loop, and while records wait in memory already."""
_STEP = "graph:step:"
"""A tag of the steps of LangGraph's graphs: an app is not told their ids."""
_MAX_OPEN = 50_000
"""Runs remembered between their start and their end; the oldest are forgotten beyond."""


class UNOFeedbackHandler(BaseCallbackHandler, Closing):
    """Captures every model run into the journal. Thread-safe; sync, async and streaming.

    ``thread_id`` and ``user_id`` are taken from the run's ``metadata``, else from ``configurable``
    of the chain or graph around it. On a LangGraph server the user that its auth names comes first.

    Args:
        home: the home folder; None: the environment variable ``LANGCHAIN_UNO_HOME``.
        namespace: the tenant.
        user_id: of runs whose metadata names no ``user_id``.
        tags: scalars kept with every record (an app's version, say); never used for learning.
        redactor: takes personal data out before storing; None: what the home's ``settings.toml``
            says (by default e-mail, payment card, IP address, phone, secrets); False: takes nothing
            out.
        sample_rate: share of traces to record, 0 to 1 (whole traces, chosen by their id).
        record_content: False keeps ids, usage and latency, but no text.
        max_chars: longest text kept of one message; the rest is cut off and marked.
        full_sync: fsync every record (see :class:`~langchain_uno.logs.journal.Journal`).
        max_waiting: records kept in memory while the journal can't be written (disk full, locked);
            beyond, the oldest is dropped and counted.
        drain_every: seconds between two runs of a background thread that embeds new records and
            writes them into Chroma; None: the app embeds nothing, a refresh does.
        embedder: of that thread: the LangChain ``Embeddings`` or ``Embedder`` that refreshes use;
            None: the bundled model's.

    Raises:
        InputError: no home is given, or an argument is out of range.
        ConfigError: the home's ``settings.toml`` is wrong.
        HomeError: the home can't be written.
        StoreError: the journal can't be opened.
    """

    @property
    def run_inline(self) -> bool:  # type: ignore[override]
        """Whether async apps run the handler in the event loop (tens of microseconds).

        LangChain takes a thread instead while records wait for a locked journal, and where blocking
        calls in a loop are forbidden (``langgraph dev`` forbids them by blockbuster).
        """
        return not self._waiting and "blockbuster" not in sys.modules

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        namespace: str = "default",
        *,
        user_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        redactor: Redactor | bool | None = None,
        sample_rate: float = 1.0,
        record_content: bool = True,
        max_chars: int = 1_000_000,
        full_sync: bool = False,
        max_waiting: int = 1000,
        drain_every: float | None = None,
        embedder: Any = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in _SETTINGS}
        super().__init__()
        self.home = Home.locate(home, namespace).ensure()
        self._settings = {**given, "home": self.home.root}
        self._redactor = redactor_of(self.home, redactor)
        self._capture = Capture(
            namespace=namespace,
            user_id=user_id,
            tags=dict(tags or {}),
            redactor=self._redactor,
            sample_rate=sample_rate,
            record_content=record_content,
            max_chars=max_chars,
        )
        self._journal = Journal(self.home.journal, full_sync=full_sync, timeout_s=0.25)
        self._open: dict[UUID, Started | None] = {}
        """None: two open runs have this id, and nothing tells them apart."""
        self._roots: dict[UUID, Inside] = {}
        """Of every open run that is no model's: the trace it belongs to."""
        self._waiting: deque[_Write] = deque()
        self._max_waiting = max_waiting
        self._lock = ForkLock()
        self._counts = {"recorded": 0, "feedback": 0, "dropped": 0, "errors": 0}
        self._closed = False
        self._drain = start_draining(self.home, drain_every, embedder)
        # A forked child leaves what waits here to its parent.
        survive_forks(self, child=lambda handler, _: handler._waiting.clear())

    def __copy__(self) -> UNOFeedbackHandler:
        """Return self: a copied chat model or agent records where the first one does."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> UNOFeedbackHandler:
        """Return self."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings; loading opens the journal of the same home."""
        return _made_again, (type(self), self._settings)

    # -- feedback -----------------------------------------------------------------------------

    def feedback(
        self,
        run_id: str | UUID | BaseMessage | None,
        key: str | None = None,
        score: float | bool | None = None,
        value: str | float | bool | None = None,
        comment: str | None = None,
        correction: str | None = None,
        source: str = "api",
        user_id: str | int | UUID | None = None,
        feedback_id: str | UUID | None = None,
    ) -> Feedback:
        """Record what somebody said or did about one answer; the names are LangSmith's.

        Args:
            run_id: the message itself, its ``AIMessage.id`` (LangChain's or the provider's), the
                model run's id, or the trace's root run id, which names the answer that the user was
                shown. The run need not be known yet. None is refused.
            key: the kind; None: ``correction``, ``comment`` or ``score`` by what is given. Implicit
                actions: ``like``, ``dislike``, ``copy``, ``regenerate``, ``session``.
            score: in [0, 1]; True and False are thumbs up and down.
            value: any scalar beside the score; it is kept and teaches nothing.
            comment: words.
            correction: the answer as the user would have written it.
            source: where it came from.
            user_id: who said it; several people may rate one run.
            feedback_id: names this piece of feedback, so that a later call of the same person can
                replace it; another person's is kept beside it, under an id of its own.

        Returns:
            The record as stored (redacted). Where stored feedback of this ``feedback_id`` is
            younger by its clock, that one is returned and kept, and a warning is logged.

        Raises:
            InputError: nothing usable is given, a value is out of range, the ``feedback_id`` is
                that of feedback on another answer, or the id that of a further one (``n > 1``).
            ForgottenError: somebody had the answer forgotten; nothing is recorded.
            StoreError: it could not be written; nothing is recorded.
        """
        named = run_id.id if isinstance(run_id, BaseMessage) else run_id
        if not isinstance(named, str | UUID | int | None):
            raise InputError(f"{type(named).__name__} names no answer: give its id, a text.")
        if is_further(named):
            raise InputError(f"{named!r} is one of further answers (n > 1): the first is recorded.")
        checked = check_feedback(
            run_id=run_ref("" if named is None else named),
            key=key,
            score=score,
            value=value,
            comment=comment,
            correction=correction,
            source=source,
            user_id=str(user_id) if user_id is not None else None,
            feedback_id=str(feedback_id) if feedback_id is not None else uuid4().hex,
        )
        clean, redacted = self._redactor.feedback(checked)
        try:
            clean = clean.model_copy(update={"feedback_id": self._journal.own_id(clean)})
            if self._journal.append_feedback(clean, redacted=redacted):
                self._count("feedback")
                return clean
            return self._not_taken(clean)
        except StoreError:
            self._count("errors")
            raise

    def _not_taken(self, given: Feedback) -> Feedback:
        """Say why feedback was not recorded; return what stands in its place."""
        stands = self._journal.feedback_of(given.feedback_id)
        if stands is None:
            raise ForgottenError(
                f"The answer {given.run_id!r}, or this feedback, was forgotten at somebody's wish: "
                "nothing is recorded."
            )
        if stands.run_id != self._journal.run_named(given.run_id):
            raise InputError(
                f"The feedback_id {given.feedback_id!r} belongs to feedback on another answer "
                f"({stands.run_id!r}): give one of its own."
            )
        self._count("outdated")
        _log.warning(
            "Feedback was not changed: what stands is of %s, the new one of %s by this clock.",
            stands.created_at.isoformat(),
            given.created_at.isoformat(),
        )
        return stands

    async def afeedback(self, run_id: str | UUID | BaseMessage | None, **said: Any) -> Feedback:
        """Like :meth:`feedback`, in a thread: for event loops that forbid blocking calls."""
        return await asyncio.to_thread(self.feedback, run_id, **said)

    def flush(self) -> None:
        """Write what waits in memory because the journal could not be written; never raises.

        Everything else is in the journal as soon as its call has returned.
        """
        self._flush(None)

    def _flush(self, patience_s: float | None) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    return
                item = self._waiting.popleft()
            if not self._append(item, patience_s):
                with self._lock:
                    self._waiting.appendleft(item)
                return
            waiting(-1)

    def close(self) -> None:
        """Flush and close the journal; later runs are counted as dropped. Closing twice is fine."""
        if not self._closed:
            self.flush()
            self._closed = True
            if self._drain is not None:
                self._drain.stop()
            with self._lock:
                self._counts["dropped"] += len(self._waiting)
                self._waiting.clear()
            self._journal.close()

    def stats(self) -> dict[str, int]:
        """Return counts since this handler was made: recorded, feedback, waiting, dropped, errors.

        ``waiting`` counts records in memory while the journal can't be written. It does not count
        feedback on an answer that the journal lacks: ``logs stats`` counts that as *waiting
        feedback*.

        With ``drain_every`` there is ``drained`` too. Where it happened there are ``renamed``
        (answers whose run id another run had already) and ``outdated`` (feedback older than what is
        stored).
        """
        with self._lock:
            found = {**self._counts, "waiting": len(self._waiting)}
        return found if self._drain is None else {**found, "drained": self._drain.drained}

    # -- what LangChain calls -----------------------------------------------------------------

    def on_chat_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> Any:
        """Remember the prompt until the run ends."""
        self._start(run_id, list(messages[0]) if messages else [], kwargs)

    def on_llm_start(
        self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any
    ) -> Any:
        """The same for completion models: the prompt is one user message."""
        self._start(run_id, prompts[0] if prompts else "", kwargs)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> Any:
        """Append the finished run to the journal."""
        self._finish(run_id, response, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> Any:
        """Append the failed or cancelled run, with what it had said so far."""
        partial = kwargs.get("response")
        self._finish(run_id, partial if isinstance(partial, LLMResult) else None, error)

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kwargs: Any) -> Any:
        """Remember which trace the run belongs to, and of a root run what the user said."""
        self._enter(run_id, kwargs, inputs)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> Any:
        """Forget the run; note which of the answers in it was shown."""
        self._leave(run_id, outputs)

    def on_chain_error(self, *said: Any, run_id: UUID, **kwargs: Any) -> Any:
        """Forget the run; of a run below the root, note the likeliest answer in it."""
        self._leave(run_id, None)

    def on_tool_start(self, serialized: Any, input_str: Any, *, run_id: UUID, **kwargs: Any) -> Any:
        """Remember which trace the tool belongs to: it may call models, and be a root itself."""
        self._enter(run_id, kwargs, kwargs.get("inputs") or input_str)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> Any:
        """As for a chain."""
        self._leave(run_id, output)

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, **kwargs: Any
    ) -> Any:
        """Remember which trace the retriever belongs to (it may call models)."""
        self._enter(run_id, kwargs)

    on_tool_error = on_retriever_end = on_retriever_error = on_chain_error

    # -- inside -------------------------------------------------------------------------------

    def _enter(self, run_id: UUID, told: Mapping[str, Any], inputs: Any = None) -> None:
        """Remember a run that is no model's; ``told`` is what LangChain says beside the inputs."""
        with self._never_raise():
            parent = told.get("parent_run_id")
            above = self._above(parent, told.get("metadata") or {})
            if above is None:
                # The inputs of a run whose parent was not seen may be the app's, not the user's.
                trace = traced_around(parent) if parent else Trace(run_id, turns_of(inputs))
                above = Inside(trace)
            is_step = run_id == above.trace.root or any(
                tag.startswith(_STEP) for tag in told.get("tags") or ()
            )
            self._roots[run_id] = above if is_step else above.run(run_id)
            _trim(self._roots)

    def _above(self, parent: UUID | None, metadata: Mapping[str, Any]) -> Inside | None:
        """Return the place of the open run that another one runs in; None: none is known.

        RunnableWithFallbacks gives its runs no parent (langchain #36072), but its context. A task
        that an app starts has the context of its start as long as it runs: a request in such a task
        is inside that run unless the run is over, or the request names another user or thread.
        """
        if parent is not None:
            return self._roots.get(parent)
        config: Mapping[str, Any] = var_child_runnable_config.get() or {}
        around = getattr(config.get("callbacks"), "parent_run_id", None)
        found = self._roots.get(around) if isinstance(around, UUID) else None
        if found is None:
            return None
        told = config.get("metadata") or {}
        known = asked_by(told, {}), asked_by(told, config.get("configurable") or {})
        same = zip(asked_by(metadata, {}), *known, strict=True)
        return found if all(one is None or one in names for one, *names in same) else None

    def _leave(self, run_id: UUID, outputs: Any) -> None:
        inside = self._roots.pop(run_id, None)
        if inside is None:
            return
        with self._never_raise():
            names = inside.trace.names(run_id, outputs)
            if names and not self._closed:
                clean = [(self._redactor.reference(name, {}) or "", one) for name, one in names]
                self._store(partial(self._journal.append_names, clean))

    def _start(
        self, run_id: UUID, prompt: Sequence[BaseMessage] | str, told: Mapping[str, Any]
    ) -> None:
        """Remember a model's run; ``told`` is what LangChain says of it beside the prompt."""
        with self._never_raise():
            config: Mapping[str, Any] = var_child_runnable_config.get() or {}
            metadata = told.get("metadata") or {}
            inside = self._inside_of(run_id, told.get("parent_run_id"), config, metadata)
            if not self._capture.wants(inside.trace.root):
                return
            if run_id in self._open:
                self._open[run_id] = None
                self._count("dropped")
                return
            self._open[run_id] = Started(
                prompt,
                inside.trace,
                metadata,
                told.get("invocation_params") or {},
                told.get("tags") or (),
                config.get("configurable") or {},
                inside.runs,
            )
            _trim(self._open)

    def _inside_of(
        self,
        run_id: UUID,
        parent: UUID | None,
        config: Mapping[str, Any],
        metadata: Mapping[str, Any],
    ) -> Inside:
        if found := self._above(parent, metadata):
            return found
        if parent is None:
            return Inside(Trace(run_id))
        # A handler on the model alone sees no chains; LangGraph may say whose run it is.
        runtime = (config.get("configurable") or {}).get("__pregel_runtime")
        told = getattr(getattr(runtime, "execution_info", None), "run_id", None)
        try:
            return Inside(Trace(UUID(str(told or metadata.get("run_id")))))
        except ValueError:
            return Inside(traced_around(parent))

    def _finish(
        self, run_id: UUID, response: LLMResult | None, error: BaseException | None
    ) -> None:
        if run_id not in self._open:
            return
        started = self._open.pop(run_id)
        ended = time.perf_counter()

        with self._never_raise():
            if started is None:
                raise InputError("two runs at once had one id")
            item = self._capture.record(run_id, started, ended, response, error)
            answered(item[0])
            self._store(partial(self._record, *item))
            if started.trace.unseen and item[2] != OWN_CALL and not started.inside:
                names = [(name, str(run_id)) for name in started.trace.unseen]
                self._store(partial(self._journal.append_names, names))

    def _store(self, item: _Write) -> None:
        """Write an item after those that wait, or let it wait with them."""
        patience_s = _SHORT_WAIT_S if self._waiting or _in_event_loop() else None
        if self._waiting:
            self._flush(patience_s)
        if self._waiting or not self._append(item, patience_s):
            self._keep(item)

    def _append(self, item: _Write, patience_s: float | None) -> bool:
        if self._closed:
            return False
        try:
            item(patience_s)
        except UNOError as problem:
            self._complain(problem)
            return False
        return True

    def _record(
        self,
        record: dict[str, Any],
        redacted: dict[str, int],
        rank: int | None,
        patience_s: float | None,
    ) -> None:
        stored = self._journal.append_record(
            record, redacted=redacted, rank=rank, timeout_s=patience_s
        )
        if stored is None:
            return
        self._count("recorded")
        if stored != record["run_id"]:
            self._count("renamed")
            _log.warning(
                "The run id %s was used before: the new answer is kept under %s, and feedback "
                "under the old id is about it. Give every run an id of its own.",
                record["run_id"],
                stored,
            )

    def _keep(self, item: _Write) -> None:
        with self._lock:
            self._waiting.append(item)
            full = self._closed or len(self._waiting) > self._max_waiting
            if full:
                self._waiting.popleft()
        if full:
            self._count("dropped")
        else:
            waiting(1)

    @contextmanager
    def _never_raise(self) -> Iterator[None]:
        try:
            yield
        except Exception as problem:  # noqa: BLE001 - the app must not suffer from our trouble
            self._count("dropped")
            self._complain(problem)

    def _complain(self, problem: Exception) -> None:
        """Log every hundredth error, without its message where that may quote somebody."""
        self._count("errors")
        if self._counts["errors"] % 100 == 1:
            detail = str(problem) if isinstance(problem, StoreError) else type(problem).__name__
            _log.warning("UNOFeedbackHandler could not record a run (%s); the app goes on.", detail)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + 1
        captured(name)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_SETTINGS = signature(UNOFeedbackHandler).parameters


def _made_again(kind: type[UNOFeedbackHandler], settings: dict[str, Any]) -> UNOFeedbackHandler:
    handler = kind.__new__(kind)
    UNOFeedbackHandler.__init__(handler, **settings)
    return handler


def _trim(runs: dict[UUID, Any]) -> None:
    # Runs whose end never comes (a killed task) must not pile up; dicts keep insertion order.
    if len(runs) > _MAX_OPEN:
        for key in list(runs)[: _MAX_OPEN // 10]:
            runs.pop(key, None)
