"""Work that is killed again and again on one path until it is done, and what must hold behind each kill."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counts import counted
from killing import NEVER, Fate, Tell, forked

from stores import StoreError, StoreMissing

Units = Mapping[str, Mapping[Any, bytes]]
"""unit -> row -> its bits"""
MADE = ""
"""what is told when a store was made: from then on it opens"""


@dataclass(frozen=True)
class Task:
    """Work that goes on from whatever it finds at a path and tells what it was promised: `MADE`, and the keys of units.
    It is killed within `calls` calls of the system, or `seconds` behind having told fewer than `told` lines."""

    work: Callable[[Path, Tell], None]
    read: Callable[[Path], Units]
    sound: Callable[[Path], list[str]]  # looks at every byte of what is finished
    calls: int = 70
    seconds: float = 0.03
    told: int = 3


@dataclass
class Run:
    """One task under way."""

    task: Task
    path: Path
    whole: Units
    counts: Counter[str]
    promised: set[str] = field(default_factory=set)
    done: bool = False

    def go(self, fate: Fate) -> None:
        """A child that meets its fate, and a look at what it left."""
        outcome = forked(lambda tell: self.task.work(self.path, tell), fate)
        self.counts["kills"] += outcome.killed
        self.promised |= set(outcome.told)
        self.done = not outcome.killed
        if outcome.error:  # what a killed writer left must not stop the next one
            self._fault("unreadable", outcome.error)
        elif self._look() and self.done:
            self._compare()

    def _look(self) -> bool:
        """Whether there is something that can be read."""
        try:
            found = self.task.read(self.path)
        except (StoreError, OSError) as error:
            if self.promised or not isinstance(error, StoreMissing):
                self._fault("unreadable", repr(error))
            return False
        for key in self.promised - {MADE}:
            if found.get(key) != self.whole[key]:
                self._fault("lost", f"unit {key} was acknowledged")
        if wrong := [key for key in found.keys() - self.promised if found[key] != self.whole.get(key)]:
            self._fault("bad", f"unit {wrong[0]} is there with other rows")
        return True

    def _compare(self) -> None:
        """Behind the end: the rows of an uninterrupted run in its order, one shard a unit, nothing left over."""
        found = self.task.read(self.path)
        if list(found.items()) != list(self.whole.items()):
            self._fault("resume_differs", f"units {list(found)}, expected {list(self.whole)}")
        if faults := self.task.sound(self.path):
            self._fault("unreadable", faults[0])
        shards = len(list((self.path / "shards").glob("*/*.h5")))
        self.counts["duplicates"] += max(shards - len(self.whole), 0)
        left = [entry.name for tmp in self.path.rglob("tmp") for entry in tmp.iterdir()]
        left += [
            entry.name for hidden in (".*", "*.training") for entry in self.path.rglob(hidden) if entry.name != ".lock"
        ]
        if left:
            self._fault("bad", f"left over: {left}")

    def _fault(self, key: str, words: str) -> None:
        self.counts[key] += 1
        print(f"  kills: {key}: {self.path.name}: {words}", flush=True)


def whole_runs(tasks: Mapping[str, Task], scratch: Path) -> dict[str, Units]:
    """What each task gives when nobody stops it. Raises RuntimeError for one that does not run at all."""
    found = {}
    for name, task in tasks.items():
        ended = forked(lambda tell, at=scratch / name, task=task: task.work(at, tell), NEVER)
        if ended.error:
            raise RuntimeError(f"{name} does not run at all: {ended.error}")
        found[name] = task.read(scratch / name)
    return found


def killed_in_turn(part: str, tasks: Mapping[str, Task], n: int, scratch: Path, seed: int) -> dict[str, int]:
    """n kills over all tasks; whatever was begun is finished in the end, and compared."""
    chance, counts, made = random.Random(seed), Counter[str](), 0
    whole, under_way = whole_runs(tasks, scratch), dict[str, Run]()
    for i in counted(part, n):
        name = list(tasks)[i % len(tasks)]
        while counts["kills"] <= i:
            if name not in under_way:
                made += 1
                under_way[name] = Run(tasks[name], scratch / f"{name}-{made}", whole[name], counts)
            run = under_way[name]
            run.go(Fate.drawn(chance, run.task.calls, run.task.seconds, run.task.told))
            if run.done:
                shutil.rmtree(under_way.pop(name).path, ignore_errors=True)
    for run in under_way.values():
        run.go(NEVER)
    return {"lost": 0, "unreadable": 0, "resume_differs": 0, "bad": 0, "duplicates": 0, **counts}
