"""One owner of an embedded store at a time, by construction: an operating-system file lock.

The kernel frees the lock when its holder dies, however it dies, so a lease never has to be broken
by hand. Who holds it stands in a file beside, for the message only.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from langchain_uno.errors import StoreBusyError, StoreError

__all__ = ["Lease"]


class Lease:
    """Take the lease on ``folder`` (the lock lies beside it, so that the folder may be replaced).

    Args:
        folder: what is guarded.
        timeout_s: how long to wait for another holder.

    Raises:
        StoreBusyError: another process, or another opener in this one, holds it.
        StoreError: the lock can't be made (a read-only folder, say).
    """

    def __init__(self, folder: Path, timeout_s: float = 10.0) -> None:
        self._holder = folder.with_name(folder.name + ".holder")
        lock = FileLock(str(folder.with_name(folder.name + ".lease")), thread_local=False)
        try:
            lock.acquire(timeout=max(timeout_s, 0.0), poll_interval=0.05)
        except Timeout as error:
            raise StoreBusyError(
                f"The store {str(folder)!r} is in use by {self._who()}: wait for it to finish, or "
                "stop it. Capturing goes on meanwhile."
            ) from error
        except OSError as error:
            raise StoreError(
                f"The store {str(folder)!r} can't be locked ({error.strerror or error}): choose "
                "another --home, or mend its permissions."
            ) from error
        self._lock = lock
        self._pid = os.getpid()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._holder.write_text(f"process {self._pid} on {socket.gethostname()} since {stamp}\n")

    def check(self) -> None:
        """Raise unless this very process took the lease.

        Raises:
            StoreError: this is a forked child of the holder.
        """
        if os.getpid() != self._pid:
            raise StoreError(
                "This store was opened before the process forked: open it in the child instead."
            )

    def release(self) -> None:
        """Give the lease back; twice is fine."""
        if os.getpid() == self._pid and self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release()

    def _who(self) -> str:
        try:
            return self._holder.read_text().strip() or "another process"
        except OSError:
            return "another process"
