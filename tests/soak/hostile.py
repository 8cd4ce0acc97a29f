"""Every hostile file with every public loader that could meet it, each in a forked child that is measured.

Refused means: one of the loader's own errors, in less than a second, with less than 300 MiB more memory than before.
Whatever else happens (read, another exception, a crash, a hang) counts as accepted.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hostile_files
import hostile_inputs
from counts import counted
from hostile_files import Hostile, Loader

SOUND = {**hostile_files.SOUND, **hostile_inputs.SOUND}
SECONDS, MEMORY, KILLED_AFTER = 1.0, 300 << 20, 20


@dataclass(frozen=True)
class Outcome:
    """What a loader made of a file. `fault` is empty when it was refused as it should be."""

    file: str
    loader: str
    fault: str
    seconds: float = 0.0
    memory: int = 0
    words: str = ""


def run(n: int, scratch: Path, seed: int = 0) -> dict[str, int]:
    """At most `n` files, spread over the corpus. Raises RuntimeError when a loader refuses what is sound: its refusals
    would then mean nothing."""
    files, loaders = corpus()
    step = max(1, len(files) // n)
    chosen, accepted = files[seed % step :: step][: max(n, 1)], 0
    for loader in loaders:
        _check_accepts(loader, scratch)
    for i in counted("hostile", len(chosen)):
        for outcome in tried(chosen[i], loaders, scratch):
            if outcome.fault:
                accepted += 1
                print(f"  hostile: {outcome.loader} and {outcome.file}: {outcome.fault}", file=sys.stderr, flush=True)
    return {"hostile": len(chosen), "accepted": accepted}


def corpus() -> tuple[list[Hostile], list[Loader]]:
    """All files and loaders, those of `hostile_inputs` with them."""
    return [*hostile_files.HOSTILE, *hostile_inputs.HOSTILE], [*hostile_files.LOADERS, *hostile_inputs.LOADERS]


def tried(file: Hostile, loaders: list[Loader], scratch: Path) -> Iterator[Outcome]:
    """The file, made anew for each loader that meets its kind."""
    for loader in loaders:
        if file.kind in loader.meets:
            shutil.rmtree(folder := scratch / "hostile", ignore_errors=True)
            folder.mkdir(parents=True)
            yield in_a_child(file.name, loader, file.make(folder))
            shutil.rmtree(folder, ignore_errors=True)


def in_a_child(name: str, loader: Loader, path: Path) -> Outcome:
    """Loads in a fork of this process, which is warm: imports are not what is measured."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(KILLED_AFTER)
            os.write(writer, json.dumps(_measured(loader, path)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        words = said.read()
    status = os.waitpid(child, 0)[1]
    if not words:
        return Outcome(name, loader.name, f"the process died ({os.waitstatus_to_exitcode(status)})")
    return Outcome(name, loader.name, **json.loads(words))


def _measured(loader: Loader, path: Path) -> dict[str, str | float | int]:
    before, start, fault, words = _resident(), time.perf_counter(), "it was read", ""
    try:
        loader.load(path)
    except loader.errors as error:
        fault, words = "", str(error)[:400]
    except BaseException as error:
        fault = f"no named error: {type(error).__name__}: {str(error)[:200]}"
    seconds = time.perf_counter() - start
    memory = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
    if not fault and seconds >= SECONDS:
        fault = f"refused after {seconds:.1f} s"
    if not fault and memory >= MEMORY:
        fault = f"refused with {memory >> 20} MiB"
    return {"fault": fault, "seconds": seconds, "memory": memory, "words": words}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _check_accepts(loader: Loader, scratch: Path) -> None:
    for kind, sound in SOUND.items():
        if kind in loader.meets:
            shutil.rmtree(folder := scratch / "sound", ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                loader.load(sound(folder))
            except loader.errors as error:
                raise RuntimeError(f"{loader.name} refuses a sound file of kind {kind!r}: {error}") from error
            finally:
                shutil.rmtree(folder, ignore_errors=True)
