"""Engines: independent units of work in this process, or as tasks of a Ray cluster (the extra `ray`).

A unit is a call that leaves its result on disk under a name of its own and takes what is there as it is, so that a
unit may run twice and nothing is lost with a worker: its call is made again elsewhere, and goes on from what is there.
"""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

ENGINES = ("process", "ray")
ATTEMPTS = 3  # of a unit under Ray, its first among them: after an exception, or with its worker
STORE = 80 * 2**20  # bytes of Ray's object store on this machine: units are handed over as data, results lie on disk
Unit = tuple[Callable[..., Any], Mapping[str, Any]]


def done_units(
    units: Mapping[str, Unit], engine: str = "process", *, gpus: float | int = 0
) -> Iterator[tuple[str, str | None]]:
    """Runs every unit (name -> function and named arguments) and gives its name when it is over, with None or the
    traceback of its failure; the others run all the same.

    `engine="process"` runs them here, one after the other, each once. `"ray"` makes each a task, of which as many run
    at once as the cluster has room for, with `gpus` each: the cluster of RAY_ADDRESS (`ray start`), where it is set,
    else one on this machine that ends with the units. What a unit needs has to be data: functions of modules, paths,
    numbers, prompts. Failed units are tried ATTEMPTS times, those of lost workers too. All machines need this package
    and see the same folders. Raises ValueError for other engines, ModuleNotFoundError without Ray.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: expected {' or '.join(map(repr, ENGINES))}.")
    if engine == "ray":
        yield from _by_ray(units, gpus)
        return
    for name, (run, arguments) in units.items():
        try:
            run(**arguments)
        except Exception:  # whatever it was: the others are run
            yield name, traceback.format_exc()
        else:
            yield name, None


@contextmanager
def cluster() -> Iterator[Any]:
    """The module `ray`, joined to a cluster; one that was begun here ends here. Raises ModuleNotFoundError without
    Ray."""
    try:
        ray: Any = importlib.import_module("ray")  # an extra: the only place that asks for it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"engine='ray' needs Ray ({error}): pip install -e '.[ray]', or engine='process'."
        ) from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(**_cluster())
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _by_ray(units: Mapping[str, Unit], gpus: float | int) -> Iterator[tuple[str, str | None]]:
    with cluster() as ray:
        # Retried by hand: Ray's own retry_exceptions would give no traceback of the attempts before the last.
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(_called)
        left = dict.fromkeys(units, ATTEMPTS)
        running = {task.remote(*units[name]): name for name in units}
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            name = running.pop(ready)
            left[name] -= 1
            try:
                why = ray.get(ready)
            except ray.exceptions.RayError as error:  # its worker died, and so did those that Ray gave it to since
                why = f"{type(error).__name__}: {error}"
                left[name] = 0
            if why is None or not left[name]:
                yield name, why
            else:
                running[task.remote(*units[name])] = name


def _cluster() -> dict[str, Any]:
    """RAY_ADDRESS is read by Ray itself; without it a small cluster of this machine, that looks at no other."""
    if os.environ.get("RAY_ADDRESS"):
        return {"log_to_driver": False}
    return {"address": "local", "include_dashboard": False, "log_to_driver": False, "object_store_memory": STORE}


def _called(run: Callable[..., Any], arguments: Mapping[str, Any]) -> str | None:
    """In the worker: None, or the traceback. Nothing else is sent back; what a unit makes lies on disk."""
    try:
        run(**arguments)
    except Exception:
        return traceback.format_exc()
    return None
