"""The modules of tests/soak for its tests: scripts that lie beside each other, and no package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parent / "soak"


@contextmanager
def soak_modules(*names: str) -> Iterator[list[ModuleType]]:
    """These modules; they, and those they import from beside them, leave `sys.modules` at the end: their names are
    short, and tests/bench has some of the same.

        @pytest.fixture(scope="module")
        def flips():
            with soak_modules("flips") as (module,):
                yield module
    """
    path, before = list(sys.path), dict(sys.modules)
    for name in {file.stem for file in FOLDER.glob("*.py")}:
        sys.modules.pop(name, None)
    sys.path.insert(0, str(FOLDER))
    try:
        yield [importlib.import_module(name) for name in names]
    finally:
        sys.path[:] = path
        for name in {file.stem for file in FOLDER.glob("*.py")}:
            sys.modules.pop(name, None)
            if name in before:
                sys.modules[name] = before[name]
