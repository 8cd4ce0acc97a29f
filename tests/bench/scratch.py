"""Folders that captures write to: a new one for each, the old ones removed outside the clock."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path


class Scratch:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers = count()

    def new(self) -> Path:
        """A path that does not exist yet."""
        return self.root / f"{next(self._numbers):05d}"

    def clear(self) -> None:
        """Removes what was written; for `paired(..., between=scratch.clear)`."""
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def scratch(in_memory: bool = False) -> Iterator[Scratch]:
    """Under the system's folder for temporary files, or, where there is one, in a file system that is memory."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if in_memory and memory.is_dir() else None) as folder:
        yield Scratch(Path(folder))
