"""Disk: recorded calls played back, with what a crash may leave of them.

A file's bytes are safe once it was synced, a name once its folder was synced. Of all else each write, each change of
length and each change of a name may be there or not, whatever came before or after it, and a write may be there in
part. That is more than any file system in use loses.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from recorder import ROOT, Call, Change, Cut, Enter, Leave, Sync, Write

Tree = dict[str, bytes | None]
"""path -> content; None: a folder. A folder comes before what is in it"""
Kept = Callable[[Change], Change | None]


def everything(change: Change) -> Change:
    """A kill without a power cut: the kernel writes what it was given."""
    return change


class Disk:
    """What is safe, and what is still on its way."""

    def __init__(
        self,
        start: Mapping[str, int] | None = None,
        content: Mapping[str, bytes | None] | None = None,
        unsafe: bool = False,
    ) -> None:
        """`start`: path -> number of what was there before the first call, with its content. All of it is safe; if
        `unsafe`, the names alone, and no byte of a file."""
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {ROOT: {}}
        self._waiting: dict[int, list[Change]] = {}
        numbers = dict(start or {})
        for path, node in sorted(numbers.items()):
            if path == "":
                continue
            self._folders[numbers[os.path.dirname(path)]][os.path.basename(path)] = node
            held = (content or {})[path]
            if held is None:
                self._folders[node] = {}
            elif unsafe:
                self._files[node], self._waiting[node] = b"", [Write(node, 0, held)]
            else:
                self._files[node] = held

    def play(self, call: Call) -> None:
        """One more call."""
        for change in call.changes:
            if isinstance(change, Sync):
                waiting = self._waiting.pop(change.node, [])
                if change.node in self._folders:
                    _named(self._folders[change.node], waiting)
                else:
                    self._files[change.node] = _written(self._files[change.node], waiting)
                continue
            if isinstance(change, Enter) and change.made == "folder":
                self._folders[change.target] = {}
            elif isinstance(change, Enter) and change.made:
                self._files[change.target] = b""
            self._waiting.setdefault(change.node, []).append(change)

    @property
    def waiting(self) -> list[Change]:
        """What a power cut may take."""
        return [change for changes in self._waiting.values() for change in changes]

    def left(self, kept: Kept = everything) -> Tree:
        """The folder as it is found after a crash of which these changes are kept."""
        found: Tree = {}
        paths = [("", ROOT)]
        while paths:
            path, node = paths.pop()
            changes = [change for waiting in self._waiting.get(node, ()) if (change := kept(waiting)) is not None]
            if node in self._files:
                found[path] = _written(self._files[node], changes)
                continue
            if path:
                found[path] = None
            names = dict(self._folders[node])
            _named(names, changes)
            paths += [(os.path.join(path, name), target) for name, target in sorted(names.items(), reverse=True)]
        return found


def _written(safe: bytes, changes: list[Change]) -> bytes:
    if not changes:
        return safe  # the same object: its hash is known already
    data = bytearray(safe)
    for change in changes:
        if isinstance(change, Write):
            data.extend(bytes(max(0, change.offset - len(data))))
            data[change.offset : change.offset + len(change.data)] = change.data
        elif isinstance(change, Cut):
            data = data[: change.size].ljust(change.size, b"\0")
    return bytes(data)


def _named(names: dict[str, int], changes: list[Change]) -> None:
    for change in changes:
        if isinstance(change, Enter):
            names[change.name] = change.target
        elif isinstance(change, Leave):
            names.pop(change.name, None)


def tree_of(root: Path) -> Tree:
    """What stands in a real folder."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        found[str(path.relative_to(root))] = None if path.is_dir() else path.read_bytes()
    return found


class Shown:
    """A real folder that is made to hold one tree after the other; what stays the same is not written again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: Tree = {}
        folder.mkdir(parents=True)

    def show(self, tree: Tree) -> Path:
        for path in sorted(self._held, reverse=True):
            if path not in tree or (tree[path] is None) != (self._held[path] is None):
                gone = self.folder / path
                shutil.rmtree(gone) if self._held[path] is None else gone.unlink(missing_ok=True)
                del self._held[path]
        for path, content in tree.items():
            at = self.folder / path
            if content is None:
                at.mkdir(exist_ok=True)
            elif path not in self._held or self._held[path] != content:
                at.write_bytes(content)
        self._held = dict(tree)
        return self.folder
