"""What a command says: words for people, facts for scripts, and an exit code."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

# Exit codes. What a script may rely on stands in docs/commands.md.
DONE = 0
REFUSED = 1  # not done; the message says what was expected and how to mend it
USAGE = 2  # no such command or option (argparse)
FAULTY = 3  # done, and what was looked at is not as it should be: a broken model, a damaged store, wrong data
UNFORESEEN = 4  # an error that nobody foresaw: the traceback is printed
STOPPED = 130  # Ctrl-C


@dataclass(frozen=True)
class Said:
    """What came of a command. `text` is printed, or with --json the `facts`, which are JSON-plain. `then` is a command
    that goes on from there."""

    text: str
    facts: Mapping[str, Any]
    code: int = DONE
    then: str = ""


Runs = Callable[[argparse.Namespace], Said]


@runtime_checkable
class Add(Protocol):
    """Adds a command: its name, what runs it, what it says of itself, and an example that works. `resumes`: the same
    command goes on from what it has finished."""

    def __call__(
        self, name: str, run: Runs, says: str, example: str, *, resumes: bool = False
    ) -> argparse.ArgumentParser: ...


def without_nan(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
