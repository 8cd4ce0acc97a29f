"""A process that is killed with SIGKILL, at a random moment or at a random system call.

Forked from a parent in which everything is imported and warm, so that a trial costs milliseconds, and so that a guard
that was taken out in the parent is out in the child.
"""

from __future__ import annotations

import itertools
import os
import random
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# What a commit asks of the system; in the child these count down to the kill.
CALLS = ("open", "write", "pwrite", "ftruncate", "posix_fallocate", "fsync", "close", "link", "rename", "replace")
CALLS += ("unlink", "mkdir", "rmdir")
_WRITES = ("write", "pwrite")
_TOO_LONG = 240.0  # seconds; nothing here takes a tenth of it on a busy core

Tell = Callable[[str], None]
Work = Callable[[Tell], None]


@dataclass(frozen=True)
class Fate:
    """When a child dies: at its `call`-th system call (before it, behind it, or in the middle of a write), or `seconds`
    after it has told `told` times. None of both: never."""

    call: int | None = None
    how: str = "before"
    told: int = 0
    seconds: float | None = None

    @classmethod
    def drawn(cls, chance: random.Random, calls: int, seconds: float, told: int = 3) -> Fate:
        """Half of them at one of the next `calls` calls, half within `seconds` of having told some."""
        if chance.random() < 0.5:
            return cls(call=chance.randrange(calls), how=chance.choice(("before", "behind", "torn")))
        return cls(told=chance.randrange(told), seconds=chance.uniform(0.0, seconds))


NEVER = Fate()


@dataclass(frozen=True)
class Outcome:
    """What became of a child: killed or not, what it told, and the error that ended it instead."""

    killed: bool
    told: list[str]
    error: str


def forked(work: Work, fate: Fate) -> Outcome:
    """Runs `work(tell)` in a forked child that meets this fate. Raises RuntimeError for a child that hangs."""
    return started(work, fate).ended(fate)


def started(work: Work, fate: Fate = NEVER) -> Child:
    """A child that runs `work(tell)`; a line that it told stands for what it was promised."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _live(work, writing, fate)
    os.close(writing)
    return Child(pid, reading)


@dataclass(frozen=True)
class Child:
    """A forked process and what it says."""

    pid: int
    reading: int

    def ended(self, fate: Fate = NEVER) -> Outcome:
        """Waits for its end, which comes by `fate.seconds` from outside. Raises RuntimeError for one that hangs."""
        try:
            said = self._listened(fate)
        finally:
            os.close(self.reading)
        _, status = os.waitpid(self.pid, 0)
        lines = said.decode().split("\n")[:-1]  # what stands behind the last newline was never told whole
        told, errors = [line for line in lines if line[:1] != "!"], [line for line in lines if line[:1] == "!"]
        failed = not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 0
        return Outcome(os.WIFSIGNALED(status), told, "".join(errors) or (f"!exit {status}" if failed else ""))

    def _listened(self, fate: Fate) -> bytes:
        """All that the child says until it ends; kills it when its time has come."""
        said, end = b"", time.monotonic() + _TOO_LONG
        kill_at: float | None = None
        while True:
            if kill_at is None and fate.seconds is not None and said.count(b"\n") >= fate.told:
                kill_at = time.monotonic() + fate.seconds
            left = (end if kill_at is None else kill_at) - time.monotonic()
            if not select.select([self.reading], [], [], max(left, 0.0))[0]:
                os.kill(self.pid, signal.SIGKILL)
                if kill_at is None:
                    os.waitpid(self.pid, 0)
                    raise RuntimeError(f"A child did nothing for {_TOO_LONG:.0f} s; it had told {said!r}.")
                kill_at, end, fate = None, time.monotonic() + _TOO_LONG, NEVER
            elif piece := os.read(self.reading, 1 << 16):
                said += piece
            else:
                return said


def _live(work: Work, writing: int, fate: Fate) -> None:
    """The child; never returns."""
    status, write = 1, os.write
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if fate.call is not None:
            count_down(fate)
        work(lambda text: (write(writing, f"{text}\n".encode()), None)[1])
        status = 0
    except BaseException:
        write(writing, ("!" + traceback.format_exc().strip().replace("\n", " | ") + "\n").encode())
    finally:
        os._exit(status)


def count_down(fate: Fate) -> None:
    """From now on this process dies at its `fate.call`-th call of the system."""
    counter = itertools.count()

    def fatal(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if next(counter) != fate.call:
                return call(*arguments, **named)
            if fate.how == "torn" and name in _WRITES:
                data = memoryview(arguments[1]).cast("B")
                call(arguments[0], data[: len(data) // 2], *arguments[2:])
            elif fate.how != "before":
                call(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("a killed process goes on")

        return counted

    for name in CALLS:
        if hasattr(os, name):
            setattr(os, name, fatal(name, getattr(os, name)))
