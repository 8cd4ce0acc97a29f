"""Recorder: every system call of a run that changes a disk, in order and with its data, inside one folder.

The calls are made; their names in `os` are replaced while it records. Whether it missed any is not a matter of trust:
`replay.Disk` plays them back, and what comes out must be the folder that is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = 0


@dataclass(frozen=True)
class Write:
    """Bytes at an offset of a file."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Cut:
    """A file made this long."""

    node: int
    size: int


@dataclass(frozen=True)
class Enter:
    """A name put into a folder; for a file or folder that is new, `made` says which."""

    node: int
    name: str
    target: int
    made: str = ""


@dataclass(frozen=True)
class Leave:
    """A name taken out of a folder."""

    node: int
    name: str


@dataclass(frozen=True)
class Sync:
    """fsync of a file or folder: all that was done to it before is durable."""

    node: int


Change = Write | Cut | Enter | Leave | Sync


@dataclass(frozen=True)
class Call:
    """One system call and what it changed (a rename: two names at once); or `told`, what the run then promised."""

    name: str
    changes: tuple[Change, ...] = ()
    told: Any = None


class Killed(BaseException):
    """What a call raises in place of the process being killed: no `except Exception` may see it, nothing is tidied."""


@dataclass
class Recorder:
    """Records what happens below `root`. Files are known by number, whatever names they have."""

    root: Path
    calls: list[Call] = field(default_factory=list)
    left: int | None = None
    """how many more calls until the accident; None: there is none"""
    accident: BaseException | None = None
    """what the next call then raises, once; None: the process is killed, and makes no other call"""

    def __post_init__(self) -> None:
        self.root = Path(os.path.abspath(self.root))
        self._names: dict[tuple[int, str], int] = {}
        self._numbers: dict[int, int] = {}
        self._count = ROOT
        for folder, folders, files in os.walk(self.root):
            at = self._node(Path(folder))
            for name in (*folders, *files):
                self._names[at, name] = self._next()

    def told(self, what: Any) -> None:
        """From here on the run may not lose this."""
        self.calls.append(Call("told", told=what))

    def starting_at(self) -> dict[str, int]:
        """Path below the root -> number, as it is now."""
        found, waiting = {"": ROOT}, [("", ROOT)]
        while waiting:
            path, node = waiting.pop()
            for (folder, name), target in self._names.items():
                if folder == node:
                    found[os.path.join(path, name)] = target
                    waiting.append((os.path.join(path, name), target))
        return found

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While inside, `os` is ours. Threads must not write at the same time."""
        mine = {name: getattr(self, f"_{name}") for name in _CALLS}
        real = {name: getattr(os, name) for name in (*_CALLS, "close")}
        try:
            for name, call in mine.items():
                setattr(os, name, self._guarded(call, real[name], real["open"]))
            os.close = self._closing(real["close"])
            yield
        finally:
            for name, call in real.items():
                setattr(os, name, call)

    def _guarded(self, mine: Callable[..., Any], real: Callable[..., Any], opening: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.left is None:
                return mine(real, *arguments, **named)
            before = len(self.calls)
            if self.left <= 0:
                if self.accident is None:
                    raise Killed
                if real is opening and not arguments[1] & os.O_CREAT:
                    return mine(real, *arguments, **named)  # it changes nothing
                self.left = None
                raise self.accident
            out = mine(real, *arguments, **named)
            self.left -= len(self.calls) - before
            return out

        return call

    def _closing(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def close(descriptor: int) -> None:
            self._numbers.pop(descriptor, None)
            real(descriptor)

        return close

    # The calls: each made first, and noted when it has succeeded

    def _open(self, real: Callable[..., int], path: Any, flags: int, mode: int = 0o777, *, dir_fd=None) -> int:
        place = self._place(path, dir_fd)
        descriptor = real(path, flags, mode, dir_fd=dir_fd)
        if place is None:
            self._numbers.pop(descriptor, None)
            return descriptor
        if flags & os.O_CREAT and place not in self._names:
            self._note("create", self._entered(place, self._next(), "file"))
        elif flags & os.O_TRUNC and place in self._names:
            self._note("truncate", Cut(self._names[place], 0))
        node = ROOT if place == _ABOVE else self._names.get(place)
        if node is not None:
            self._numbers[descriptor] = node
        return descriptor

    def _write(self, real: Callable[..., int], descriptor: int, data: Any) -> int:
        count = real(descriptor, data)
        if descriptor in self._numbers:
            end = os.lseek(descriptor, 0, os.SEEK_CUR)
            self._note(
                "write", Write(self._numbers[descriptor], end - count, bytes(memoryview(data).cast("B")[:count]))
            )
        return count

    def _pwrite(self, real: Callable[..., int], descriptor: int, data: Any, offset: int) -> int:
        count = real(descriptor, data, offset)
        if descriptor in self._numbers:
            self._note("pwrite", Write(self._numbers[descriptor], offset, bytes(memoryview(data).cast("B")[:count])))
        return count

    def _ftruncate(self, real: Callable[..., None], descriptor: int, size: int) -> None:
        real(descriptor, size)
        if descriptor in self._numbers:
            self._note("ftruncate", Cut(self._numbers[descriptor], size))

    def _fsync(self, real: Callable[..., None], descriptor: int) -> None:
        real(descriptor)
        if descriptor in self._numbers:
            self._note("fsync", Sync(self._numbers[descriptor]))

    def _link(self, real: Callable[..., None], source: Any, target: Any, **named: Any) -> None:
        real(source, target, **named)
        old, new = self._place(source, named.get("src_dir_fd")), self._place(target, named.get("dst_dir_fd"))
        if new is not None:
            assert old is not None and old in self._names, f"{source} is linked from outside {self.root}"
            self._note("link", self._entered(new, self._names[old]))

    def _rename(self, real: Callable[..., None], source: Any, target: Any, **named: Any) -> None:
        real(source, target, **named)
        old, new = self._place(source, named.get("src_dir_fd")), self._place(target, named.get("dst_dir_fd"))
        if old is not None and new is not None:
            entered = self._entered(new, self._names.pop(old))
            self._note("rename", entered, Leave(*old))

    _replace = _rename

    def _unlink(self, real: Callable[..., None], path: Any, **named: Any) -> None:
        real(path, **named)
        if (place := self._place(path, named.get("dir_fd"))) is not None:
            self._names.pop(place, None)
            self._note("unlink", Leave(*place))

    _remove = _rmdir = _unlink

    def _mkdir(self, real: Callable[..., None], path: Any, mode: int = 0o777, **named: Any) -> None:
        real(path, mode, **named)
        if (place := self._place(path, named.get("dir_fd"))) is not None:
            self._note("mkdir", self._entered(place, self._next(), "folder"))

    # Names and numbers

    def _note(self, name: str, *changes: Change) -> None:
        self.calls.append(Call(name, changes))

    def _entered(self, place: tuple[int, str], node: int, made: str = "") -> Enter:
        self._names[place] = node
        return Enter(*place, node, made)

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _place(self, path: Any, folder: int | None = None) -> tuple[int, str] | None:
        """(number of the folder, name in it); None for what lies outside the root."""
        path = os.fspath(path)
        path = os.fsdecode(path) if isinstance(path, bytes) else path
        if folder is not None and not os.path.isabs(path):
            return (self._numbers[folder], path) if folder in self._numbers else None
        whole = Path(os.path.abspath(path))
        if whole == self.root:
            return _ABOVE
        return (self._node(whole.parent), whole.name) if self.root in whole.parents else None

    def _node(self, path: Path) -> int:
        node = ROOT
        for name in path.relative_to(self.root).parts:
            node = self._names[node, name]
        return node


_ABOVE = (-1, "")
_CALLS = (
    "open",
    "write",
    "pwrite",
    "ftruncate",
    "fsync",
    "link",
    "rename",
    "replace",
    "unlink",
    "remove",
    "mkdir",
    "rmdir",
)
