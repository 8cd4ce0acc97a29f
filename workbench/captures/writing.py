"""Writing: one thread that writes units of work, in order, while the next ones are computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

Slot = TypeVar("Slot")
Job = TypeVar("Job")


class Writer(AbstractContextManager["Writer[Any, Any]"], Generic[Slot, Job]):
    """Calls `write(job)` for each job that is put, one after the other, on a thread of its own.

    A job stands in a slot (the memory of one unit) from `free_slot()` until it is written, so no more units are on
    their way than there are slots: who computes faster than the disk writes waits for it. What `write` raises stops
    the work: the next call here raises that very error, and jobs behind it are dropped. Leaving the body, by whatever
    way, waits until what was put is written. `threaded=False` writes at once, in the caller's thread.
    """

    def __init__(self, write: Callable[[Job], object], slots: Sequence[Slot], *, threaded: bool = True) -> None:
        self._write, self._threaded = write, threaded
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[tuple[Slot, Job] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        for slot in slots:
            self._free.put(slot)

    def free_slot(self) -> Slot:
        """A slot that no job stands in; waits for one."""
        slot = self._free.get()
        self._refuse_failed()
        return slot

    def put(self, slot: Slot, job: Job) -> None:
        """Has the job written, behind those that were put before."""
        self._refuse_failed()
        if self._threaded:
            self._work.put((slot, job))
        else:
            self._write(job)
            self._free.put(slot)

    def _refuse_failed(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            slot, job = work
            try:
                if self._error is None:
                    self._write(job)
            except BaseException as error:  # KeyboardInterrupt too: the caller's thread is where it can be dealt with
                self._error = error
            finally:
                del job, work
                self._free.put(slot)  # after an error too: nobody may wait for ever

    def __enter__(self) -> Writer[Slot, Job]:
        if self._threaded:
            self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not self._threaded:
            return
        self._work.put(None)
        try:
            self._thread.join()
        except BaseException as impatient:  # a second Ctrl-C: the job in hand ends by itself, the others are dropped
            self._error = self._error or impatient
            raise
        if error is None:
            self._refuse_failed()
