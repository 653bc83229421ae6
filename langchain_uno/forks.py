"""What survives a fork: locks are made anew in the child, and what they guard is never cut in half.

    self._lock = ForkLock()                                  # open again in a child
    survive_forks(self, child=MyClass._in_child, hold=...)   # whatever else has to be done

A child process has one thread, and a copy of every lock as it was: one that another thread held
stays locked for ever. So before a fork the locks that guard native state (an SQLite connection, a
forward pass) are taken, and in the child each object renews itself.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")
_LONGEST_S = 10.0
"""A fork waits for all locks together this long at most; a forward pass may take seconds."""


@dataclass(frozen=True)
class _Survivor:
    """One object, and what a fork does with it."""

    owner: weakref.ref[Any]
    hold: Callable[[Any], Any] | None
    before: Callable[[Any], None] | None
    child: Callable[[Any, bool], None]


_known: dict[int, _Survivor] = {}
_held: list[tuple[_Survivor, Any, Any]] = []
"""Of the fork under way: survivor, owner, and its lock when it could be taken (else None)."""
_forking = threading.Lock()


def survive_forks(
    owner: _T,
    *,
    child: Callable[[_T, bool], None],
    hold: Callable[[_T], Any] | None = None,
    before: Callable[[_T], None] | None = None,
) -> None:
    """Have an object renewed in every child process that is forked while it lives.

    Args:
        owner: the object; only a weak reference is kept.
        child: called in the child with the object and whether ``hold``'s lock was taken. It makes
            the object's locks anew. It must be quick and start no thread.
        hold: returns a lock that is taken before a fork and given back after it in the parent.
        before: called before a fork while that lock is held.
    """
    number = id(owner)
    _known[number] = _Survivor(
        weakref.ref(owner, lambda _: _known.pop(number, None)), hold, before, child
    )


class ForkLock:
    """A lock that is open in a child process, whoever held it in the parent.

    Args:
        wait: a fork waits until the lock is free, so that what it guards is whole in the child.
    """

    def __init__(self, *, wait: bool = False) -> None:
        self._lock = threading.Lock()
        survive_forks(self, hold=(lambda one: one._lock) if wait else None, child=ForkLock._renew)

    def _renew(self, _: bool) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        """Take the lock."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._lock.release()


def _before() -> None:
    _forking.acquire()
    deadline = time.monotonic() + _LONGEST_S
    for survivor in list(_known.values()):
        owner = survivor.owner()
        if owner is None:
            continue
        lock = survivor.hold(owner) if survivor.hold is not None else None
        if lock is not None and not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            lock = None
        if lock is not None and survivor.before is not None:
            survivor.before(owner)
        _held.append((survivor, owner, lock))


def _after_in_parent() -> None:
    for _, _, lock in reversed(_held):
        if lock is not None:
            lock.release()
    _held.clear()
    _forking.release()


def _after_in_child() -> None:
    global _forking
    _forking = threading.Lock()
    for survivor, owner, lock in _held:
        survivor.child(owner, lock is not None)
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
