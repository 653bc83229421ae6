"""The one thread that owns a model: every forward pass and every change of adapters happens here.

Two threads with different adapters on one PEFT model silently answer each other's requests, so
nobody else touches the model. Callers hand in :class:`Call` objects; rows of all calls share
passes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

from langchain_uno.errors import EngineError
from langchain_uno.forks import survive_forks
from langchain_uno.models.adapters import AdapterSet
from langchain_uno.models.batch import RunningBatch
from langchain_uno.models.protocols import Chunk
from langchain_uno.models.rows import Call, Row
from langchain_uno.models.sampling import pick_tokens

T = TypeVar("T")
_log = logging.getLogger(__name__)
REGROW_S = 60.0
"""After so long without out of memory a quarter more answers are made at a time: another process
may have had the memory."""


class Scheduler:
    """Owns the model's thread, the queue before it and the batch in it."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        end_tokens: frozenset[int],
        pad_token: int,
        *,
        max_batch: int,
        max_prompt_tokens: int,
    ) -> None:
        self.adapters = AdapterSet(model)
        self.ready: set[str] = set()
        """Names that new requests may use; changed with :meth:`offer` and :meth:`retire`."""
        self._tokenizer = tokenizer
        self._end = end_tokens
        self._batch = RunningBatch(model, self.adapters, pad_token)
        self._max_batch = self._most = max_batch
        self._shrunk = 0.0
        self._max_prompt_tokens = max_prompt_tokens
        self._unusable: str | None = None
        self._closing = False
        self._threads: int | None = None
        """How many the process computed with before its last fork."""
        self._begin()
        survive_forks(
            self,
            hold=lambda one: one._between,
            before=Scheduler._before_fork,
            child=Scheduler._in_child,
        )

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._between = threading.Lock()
        """Held during a pass, so that a fork comes between two."""
        self._calls: deque[Call] = deque()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._hold: threading.Event | None = None
        self._held = threading.Event()
        self._thread: threading.Thread | None = None

    def _before_fork(self) -> None:
        self._threads = max(self._threads or 1, torch.get_num_threads())

    def _in_child(self, held: bool) -> None:
        """The weights are there, shared with the parent; the thread and its callers are not."""
        device = self.adapters.model.device.type
        if device != "cpu":
            self._unusable = (
                f"This process was forked after the model was loaded on {device!r}, which does not "
                "work after a fork: load it in each worker (gunicorn without --preload, "
                "multiprocessing with 'spawn')."
            )
        elif self._hold is not None or not held:
            self._unusable = (
                "This process was forked while its model was being trained or in the middle of a "
                "pass: load the model anew in the child."
            )
        self._begin()
        self._batch.clear()
        # OpenMP's threads did not come along, and a thread that had used them would wait for ever;
        # the owner thread is a new one.
        torch.set_num_threads(1)

    @property
    def is_owner(self) -> bool:
        """Whether the calling thread is the owner itself."""
        return threading.current_thread() is self._thread

    def submit(self, call: Call) -> None:
        """Queue a call.

        Raises:
            EngineError: the engine is closed, or has no such adapter.
        """
        with self._changed:
            self._refuse_when_closed()
            for row in call.waiting:
                if row.adapter is not None and row.adapter not in self.ready:
                    raise EngineError(
                        f"There is no adapter {row.adapter!r} here: load it first (load_adapter)."
                    )
            self._awake()
            self._calls.append(call)
            self._changed.notify_all()

    def cancel(self, call: Call) -> None:
        """Stop a call: rows waiting are dropped, rows under way leave after this step."""
        with self._changed:
            call.cancelled = True
            self._changed.notify_all()

    def call_in_owner(self, job: Callable[[], T]) -> T:
        """Run ``job`` on the owner thread between two steps and return its result."""
        if self.is_owner:
            return job()
        future: Future[T] = Future()
        with self._changed:
            self._refuse_when_closed()
            self._awake()
            self._jobs.append((job, future))
            self._changed.notify_all()
        return future.result()

    def offer(self, name: str) -> None:
        """Let new requests use a mounted adapter."""
        with self._changed:
            self.ready.add(name)

    def retire(self, name: str) -> None:
        """Refuse new requests for an adapter and wait until those that use it are done."""
        with self._changed:
            self.ready.discard(name)
        while name in self.call_in_owner(self._busy_adapters):
            time.sleep(0.005)

    def _busy_adapters(self) -> set[str]:
        with self._changed:
            waiting = [row for call in self._calls for row in call.waiting]
        return {row.adapter for row in [*self._batch.live, *waiting] if row.adapter is not None}

    def pause(self) -> Callable[[], None]:
        """Finish what is under way, then stand still; returns the function that goes on.

        New calls queue up meanwhile.
        """
        release = threading.Event()
        with self._changed:
            self._changed.wait_for(lambda: self._hold is None or self._closing)
            self._refuse_when_closed()
            self._awake()
            self._hold = release
            self._held.clear()
            self._changed.notify_all()

        def resume() -> None:
            with self._changed:
                self._hold = None
                release.set()
                self._changed.notify_all()

        try:
            while not self._held.wait(0.2):
                with self._changed:
                    self._refuse_when_closed()
        except BaseException:  # Ctrl-C while waiting must not leave the engine standing still
            resume()
            raise
        return resume

    def close(self) -> None:
        """Stop the thread; calls under way fail with EngineError. Safe to call twice."""
        with self._changed:
            self._closing = True
            if self._hold is not None:
                self._hold.set()
            self._changed.notify_all()
        if self._thread is not None and not self.is_owner:
            self._thread.join(timeout=60)

    def _refuse_when_closed(self) -> None:
        if self._closing:
            raise EngineError("The engine is closed: load it again.")
        if self._unusable is not None:
            raise EngineError(self._unusable)

    def _awake(self) -> None:
        """Start the owner thread where there is none: at first use, also in a forked child."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="uno-engine", daemon=True)
            self._thread.start()

    # -- the owner thread ------------------------------------------------------------------------

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._closing:
                    break
                jobs, hold = list(self._jobs), self._hold
                self._jobs.clear()
            with self._between:
                for job, future in jobs:
                    _settle(job, future)
            if hold is not None and not self._batch.live:
                self._held.set()
                hold.wait()
                continue
            with self._between:
                self._turn(admit=hold is None)
        error = EngineError("The engine was closed while this request was under way.")
        with self._changed:
            calls = {*self._calls, *(row.call for row in self._batch.live)}
            jobs, self._jobs = list(self._jobs), deque()
        self._fail(calls, error)
        for _, future in jobs:
            future.set_exception(error)

    def _has_work(self) -> bool:
        return bool(self._closing or self._jobs or self._hold or self._calls or self._batch.live)

    def _turn(self, admit: bool) -> None:
        """One pass: prompts of new rows when there is room for them, else one token of each row."""
        self._drop_cancelled()
        if self._max_batch < self._most and time.monotonic() - self._shrunk > REGROW_S:
            self._max_batch = min(self._max_batch + max(1, self._max_batch // 4), self._most)
            self._shrunk = time.monotonic()
        fresh = self._next_rows() if admit else []
        live = self._batch.live
        if not fresh and not live:
            return
        try:
            try:
                logits = self._batch.start(fresh) if fresh else self._batch.step()
            except torch.OutOfMemoryError:
                if len(live) + len(fresh) < 2:
                    raise
                self._shrink([*live, *fresh])
                return
            self._take(logits, fresh or live)
        except Exception as error:  # noqa: BLE001 (a model raises what it likes; callers get it)
            _log.exception(
                "A forward pass failed; %d requests are answered with the error.", len(live)
            )
            self._fail({row.call for row in [*fresh, *live]}, error)

    def _shrink(self, rows: list[Row]) -> None:
        """Let half of these rows go on at a time for now, from where they are."""
        self._max_batch, self._shrunk = len(rows) // 2, time.monotonic()
        _log.warning("Out of memory: %d answers at a time for now.", self._max_batch)
        self._batch.clear()
        with self._changed:
            for row in reversed(rows):
                row.call.waiting.appendleft(row)
                if row.call not in self._calls:
                    self._calls.append(row.call)

    def _next_rows(self) -> list[Row]:
        """Rows to start now, taken from the waiting calls in turn.

        While others are under way, a prompt pass makes them wait: so rows join in groups of a
        quarter batch, unless all that wait can start together.
        """
        live = len(self._batch.live)
        if live and not self._batch.can_join:
            return []
        free = self._max_batch - live
        with self._changed:
            waiting = sum(len(call.waiting) for call in self._calls)
            if not waiting or free <= 0 or (live and free < min(waiting, self._max_batch // 4)):
                return []
            rows: list[Row] = []
            longest = 0
            while self._calls and len(rows) < free:
                call = self._calls[0]
                longest = max(longest, call.waiting[0].length)
                if rows and longest * (len(rows) + 1) > self._max_prompt_tokens:
                    break
                rows.append(call.waiting.popleft())
                self._calls.popleft()
                if call.waiting:
                    self._calls.append(call)
            return rows

    def _take(self, logits: torch.Tensor, rows: list[Row]) -> None:
        weighing = [i for i, row in enumerate(rows) if row.options is not None]
        for i in weighing:
            row = rows[i]
            probs = torch.softmax(logits[i, row.options].float(), -1)
            row.call.deliver(row, probs.cpu().numpy())
        if len(weighing) == len(rows):
            return
        if weighing:
            keep = [i for i in range(len(rows)) if i not in set(weighing)]
            logits, rows = logits[keep], [rows[i] for i in keep]
        for row, token in zip(rows, pick_tokens(logits, [row.picker for row in rows]), strict=True):
            call = row.call
            if row.picker.error is not None:
                self._batch.leave(row)
                call.cancelled = True  # its other rows leave with the next turn
                call.fail(_told(row.picker.error))
                continue
            piece = row.take(token, self._end)
            if piece and call.show is not None:
                call.show(Chunk(piece))
            if row.finish_reason is not None:
                self._batch.leave(row)
                if row.stream is not None and (rest := row.stream.finish()) and call.show:
                    call.show(Chunk(rest))
                call.deliver(row, row.generation(self._tokenizer, self._end))

    def _drop_cancelled(self) -> None:
        for row in self._batch.live:
            if row.call.cancelled:
                self._batch.leave(row)
        with self._changed:
            self._calls = deque(call for call in self._calls if not call.cancelled)

    def _fail(self, calls: set[Call], error: Exception) -> None:
        self._batch.clear()
        with self._changed:
            self._calls = deque(call for call in self._calls if call not in calls)
        for call in calls:
            call.fail(_told(error))


def _told(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    told = EngineError(f"The model failed: {error}")
    told.__cause__ = error
    return told


def _settle(job: Callable[[], Any], future: Future[Any]) -> None:
    try:
        result = job()
    except BaseException as error:  # noqa: BLE001 (handed to the caller that waits)
        future.set_exception(error)
    else:
        future.set_result(result)
