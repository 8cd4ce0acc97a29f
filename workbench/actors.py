"""Actors: the units of a work, done by warm workers of a Ray cluster, each of which builds the work once (loads the
model) and then takes units until none is left.

A unit leaves its result on disk under a name of its own, and one that stands there is taken as it is; so a unit may run
twice, and a worker or a machine that dies loses nothing: what it had in hand is done again elsewhere.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stores import StoreError
from workbench.parallel import ATTEMPTS, ENGINES, cluster
from workbench.progress import Progress

MOST = 64  # units that a worker is given at once: what it has in hand when it dies
TOO_MANY = 32  # units that failed for good: the work stops, for a full disk or a broken judge fails them all


class Work(Protocol):
    """What workers do. Built from data by every worker; all of them list the same units."""

    @property
    def planned(self) -> int: ...  # units in all, those that are done among them
    def left(self) -> list[str]: ...  # keys of the units to do, in order, as the disk is now
    def run(self, keys: Sequence[str]) -> Iterator[str]: ...  # does them; they stand on disk when it ends


@dataclass(frozen=True)
class Ray:
    """The engine "ray" with its details. `actors`: workers at once (default: as many as the cluster has room for), each
    with `gpus` (default: 1, or 0 in a cluster without any; 2 and more for a model that is spread over them) and `cpus`
    (default: as many as it uses threads, without a GPU; with one 1). `threads`: of torch in each, by default as many as
    here, for the last bits of sums on a CPU depend on their number. `patience`: seconds without a worker after which
    it gives up."""

    actors: int | None = None
    gpus: float | int | None = None
    cpus: float | int | None = None
    threads: int | None = None
    patience: float | int = 600


def ray_asked(engine: str | Ray) -> Ray | None:
    """The details of the engine "ray"; None for "process". Raises ValueError for another."""
    if isinstance(engine, Ray):
        return engine
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: expected {' or '.join(map(repr, ENGINES))}, or wb.Ray(gpus=2).")
    return Ray() if engine == "ray" else None


class UnitsFailed(RuntimeError):
    """Units that failed every time, each with its last traceback in `failures`; fewer than TOO_MANY: the others are
    done."""

    def __init__(self, name: str, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        key, why = next(iter(self.failures.items()))
        super().__init__(
            f"{name}: {len(failures)} units failed {ATTEMPTS} times each. What was finished is kept, and the same "
            f"command tries the others again. The first, {key!r}:\n{why}"
        )


def run_by_actors(
    build: Callable[..., Work], arguments: Mapping[str, Any], engine: Ray, *, name: str, progress: bool = True
) -> None:
    """Has all units of `build(**arguments)` done. `build` is a function or class of a module, `arguments` are data.

    In the cluster of RAY_ADDRESS (`ray start`), where it is set, else in one on this machine that ends with the work.
    All machines need this package and see the same folders. A unit that raises is tried ATTEMPTS times, and so is one
    whose worker dies; raises UnitsFailed at the end for those that never came, what `build` raises where the user can
    mend it (ValueError, TypeError), TimeoutError when no machine has room for a worker.
    """
    with cluster() as ray:
        crew = _Crew(ray, build, arguments, engine, name, progress)
        try:
            crew.work()
        finally:
            crew.dismiss()


class _Crew:
    """The workers, what they have in hand, and what is left. `_given` maps a call that is out to (worker, what it was
    asked, the keys it was given)."""

    def __init__(
        self, ray: Any, build: Callable[..., Work], arguments: Mapping[str, Any], engine: Ray, name: str, show: bool
    ) -> None:
        self._ray, self._engine, self._name, self._show = ray, engine, name, show
        gpus, cpus, threads, room = _sizes(ray, engine)
        self._needs = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, scheduling_strategy="SPREAD")(Warm)
        self._handed = build, ray.put(dict(arguments)), threads
        self._size = engine.actors or room
        self._workers: list[Any] = []
        self._idle: list[Any] = []
        self._given: dict[Any, tuple[Any, str, list[str]]] = {}
        self._queue: deque[str] | None = None  # unknown until the first worker has begun
        self._planned = 0
        self._alone: set[str] = set()  # keys that were in hand when something went wrong: given one by one
        self._tries: Counter[str] = Counter()
        self._failures: dict[str, str] = {}
        self._lost, self._why = 0, ""  # workers, since one did something

    def work(self) -> None:
        for _ in range(self._size):
            self._hire()
        bar: Progress | None = None
        heard = time.monotonic()
        try:
            while self._goes_on():
                ready, _ = self._ray.wait(list(self._given), num_returns=1, timeout=5)
                if ready or self._asked("begin") or self._asked("run"):
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._engine.patience:
                    raise TimeoutError(
                        f"{self._name}: no worker in {self._engine.patience:g} s; each needs {self._needs}. Expected a "
                        "cluster with as much room (`ray status` shows it), or wb.Ray(cpus=..., gpus=...) that asks "
                        "less."
                    )
                done = sum(self._came(call) for call in ready)
                if bar is None and self._queue is not None:
                    before = self._planned - len(self._queue)
                    bar = Progress(self._name, self._planned, done=before, show=self._show, unit="unit")
                if bar is not None:
                    bar.update(done)
                while self._idle and self._queue:
                    self._give(self._idle.pop(), self._queue)
        finally:
            if bar is not None:
                bar.__exit__()
        if self._failures:
            raise UnitsFailed(self._name, self._failures)
        if self._queue or self._queue is None:
            raise RuntimeError(f"{self._name}: no worker is left; the last one: {self._why}")

    def _goes_on(self) -> bool:
        some = self._queue is None or bool(self._queue) or self._asked("run")
        return bool(self._given) and some and len(self._failures) < TOO_MANY

    def dismiss(self) -> None:
        """Ends every worker. What one had in hand is whole on disk, or not there."""
        for worker in self._workers:
            self._ray.kill(worker)

    def _asked(self, what: str) -> bool:
        return any(asked == what for _, asked, _ in self._given.values())

    def _hire(self) -> None:
        worker = self._remote.remote(*self._handed)
        self._workers.append(worker)
        self._given[worker.here.remote()] = worker, "here", []

    def _came(self, call: Any) -> int:
        """Deals with what a call gave; returns how many units are done by it."""
        worker, asked, keys = self._given.pop(call)
        try:
            found = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:  # what the worker itself raised
            self._refused(error)
            return 0
        except self._ray.exceptions.RayError as error:  # the worker is gone, or its machine
            self._gone(worker, keys, f"{type(error).__name__}: {error}")
            return 0
        if asked == "here":
            self._given[worker.begin.remote()] = worker, "begin", []
            return 0
        self._lost = 0
        self._idle.append(worker)
        if asked == "begin":
            if self._queue is None:
                left, self._planned = found
                self._queue = deque(left)
        elif found is None:
            return len(keys)
        else:  # a traceback
            self._again(keys, found)
        return 0

    def _refused(self, error: Any) -> None:
        """The work could not be built there. What the user can mend is the same everywhere; another machine's trouble
        is its own, while there are others."""
        cause = getattr(error, "cause", None) or error
        self._why = str(error)
        if isinstance(cause, ValueError | TypeError | StoreError) or not (self._given or self._idle):
            raise cause from None
        self._say(f"a worker could not begin, and is left out: {type(cause).__name__}: {cause}")

    def _gone(self, worker: Any, keys: list[str], why: str) -> None:
        self._lost, self._why = self._lost + 1, why
        self._ray.kill(worker)  # where it only was out of reach, it shall not come back
        self._say(f"a worker was lost with {len(keys)} units, which others do ({why.splitlines()[0][:160]})")
        self._again(keys, why)
        if self._lost < ATTEMPTS * self._size:
            self._hire()

    def _again(self, keys: Sequence[str], why: str) -> None:
        """Puts units back, to be done one by one; those that failed alone too often are left out."""
        for key in keys:
            self._tries[key] += len(keys) == 1  # in company, who knows which one it was
            if self._tries[key] >= ATTEMPTS:
                self._failures[key] = why
            elif self._queue is not None:
                self._alone.add(key)
                self._queue.appendleft(key)  # at once: where all fail, that shall be known soon

    def _give(self, worker: Any, queue: deque[str]) -> None:
        """Some of what is left: much at first, so that a worker's own pipeline runs; single units at the end, so that
        all end together."""
        keys, size = [queue.popleft()], min(MOST, len(queue) // (2 * self._size))
        again = keys[0] in self._alone
        while not again and len(keys) < size and queue[0] not in self._alone:
            keys.append(queue.popleft())
        self._given[worker.run.remote(keys, again)] = worker, "run", keys

    def _say(self, line: str) -> None:
        if self._show:
            print(f"  {self._name}: {line}", file=sys.stderr, flush=True)


class Warm:
    """In the worker: the work, built when it begins and kept."""

    def __init__(self, build: Callable[..., Work], arguments: Mapping[str, Any], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._build, self._arguments = build, arguments
        self._work: Work | None = None

    def here(self) -> None:
        """It has a machine."""

    def begin(self) -> tuple[list[str], int]:
        """Builds the work; what is left to do, and how many units there are."""
        work = self._work = self._build(**self._arguments)
        return work.left(), work.planned

    def run(self, keys: Sequence[str], again: bool) -> str | None:
        """None when they stand on disk, else the traceback. `again`: they may stand there already."""
        assert self._work is not None
        try:
            if again:
                left = set(self._work.left())
                keys = [key for key in keys if key in left]
            for _ in self._work.run(keys):
                pass
        except Exception:
            return f"on {socket.gethostname()}, process {os.getpid()}:\n{traceback.format_exc()}"
        return None


def _sizes(ray: Any, engine: Ray) -> tuple[float | int, float | int, int, int]:
    """GPUs, CPUs and threads of a worker, and how many workers the cluster has room for (at least 1: machines may still
    join)."""
    import torch

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")}
    gpus = engine.gpus if engine.gpus is not None else min(1, most["GPU"])
    threads = engine.threads or torch.get_num_threads()
    cpus = engine.cpus if engine.cpus is not None else 1 if gpus else max(1, min(threads, most["CPU"]))
    rooms = [
        min(int(node.get(kind, 0) / size) for kind, size in (("CPU", cpus), ("GPU", gpus)) if size) for node in nodes
    ]
    return gpus, cpus, threads, max(1, sum(rooms))
