"""What stands in for a guard that a test takes out."""

from __future__ import annotations

import os
import stat
from typing import Any


class Without:
    """A module as another module sees it, but for a few names."""

    def __init__(self, module: Any, **changes: Any) -> None:
        self.__dict__.update(changes, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)  # looked up anew each time: a recorder may have taken its place


class Anything:
    """Equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


def folders_only(descriptor: int) -> None:
    """fsync of folders, and of no file."""
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.fsync(descriptor)
