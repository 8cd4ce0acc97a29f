"""Bytes to disk so that a crash leaves the whole file or none, and nobody's file is ever overwritten."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_STALE_SECONDS = 24 * 3600

Content = bytes | memoryview | Callable[[int], object]


def owner_name() -> str:
    """`<host>.<pid>.<random>`: names a writer, so that its leftovers can be told from those of the living."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()) or "host"
    return f"{host}.{os.getpid()}.{secrets.token_hex(4)}"


def publish(content: Content, final: Path, tmp: Path) -> bool:
    """Writes `content` under the name `final`. True: ours is there now. False: somebody was first, theirs is untouched.

    `content` is bytes, or writes itself into the descriptor of an empty file. Order: write in `tmp`, fsync, link to the
    final name, fsync the folder. When this returns, a power cut loses nothing. Raises OSError (disk full, no
    permission), or what `content` raises, with nothing left behind.
    """
    unfinished = tmp / f"{final.name}.{owner_name()}"
    try:
        _write_synced(content, unfinished)
        try:
            os.link(unfinished, final)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if not _renamed_without_replacing(unfinished, final):
                return False
        sync_folder(final.parent)
        return True
    finally:
        unfinished.unlink(missing_ok=True)


def replace(data: bytes, final: Path, tmp: Path) -> None:
    """Writes `data` over `final` in one step: a reader sees the old file or the new one, never a mixture."""
    unfinished = tmp / f"{final.name}.{owner_name()}"
    try:
        _write_synced(data, unfinished)
        os.replace(unfinished, final)
        sync_folder(final.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes the folder and its parents, and makes each new name durable (fsync of the folder that holds it)."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """fsync of a folder: without it a power cut can forget the name of a file whose bytes are safe."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(tmp: Path) -> list[str]:
    """Removes what dead writers left in `tmp` (owner gone on this host, or older than a day); returns the names."""
    here = owner_name().split(".")[0]
    removed = []
    for entry in sorted(tmp.iterdir()) if tmp.is_dir() else []:
        parts = entry.name.rsplit(".", 3)
        if len(parts) != 4 or not parts[2].isdigit():
            continue
        try:
            stale = time.time() - entry.lstat().st_mtime > _STALE_SECONDS
            if stale or (parts[1] == here and not _alive(int(parts[2]))):
                entry.unlink()
                removed.append(entry.name)
        except FileNotFoundError:  # its owner finished, or another writer swept it
            continue
    return removed


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """All of `data` at this place of the file, whatever one call manages (at most 2 GiB, less on a disk that fills)."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + (1 << 30)], offset + done)


def _write_synced(content: Content, path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        if callable(content):
            content(descriptor)
        else:
            write_at(descriptor, content, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _renamed_without_replacing(source: Path, final: Path) -> bool:
    """renameat2(RENAME_NOREPLACE): plain rename would overwrite silently. For file systems without hard links."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        raise OSError(
            errno.ENOTSUP, "This file system has neither hard links nor renameat2; choose another.", str(final)
        )
    if library.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(final), _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        return False
    raise OSError(number, os.strerror(number), str(final))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # exists, but belongs to another user
        return True
    return True
