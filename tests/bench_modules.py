"""The modules of tests/bench for its tests: scripts that lie beside each other, and no package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parent / "bench"


def bench_modules() -> Iterator[dict[str, ModuleType]]:
    """By name; a generator for a fixture, which takes them out of `sys.modules` again: their names are short."""
    names = ("clocks", "pairs", "lines", "measure", "run", "table")
    path, before = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if str(FOLDER) in str(getattr(sys.modules[name], "__file__", None)):
                del sys.modules[name]
