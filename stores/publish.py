"""Bytes to disk so that a crash leaves the whole file or none, and nobody's file is ever overwritten."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stores.errors import StoreError, WriteFailed

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
_STALE_SECONDS = 24 * 3600
_LEVELS = 4

Content = bytes | memoryview | Callable[[int], object]


def owner_name() -> str:
    """`<host>.<pid>.<random>`: names a writer, so that its leftovers can be told from those of the living."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname()) or "host"
    return f"{host}.{os.getpid()}.{secrets.token_hex(4)}"


def publish(content: Content, final: Path, tmp: Path) -> bool:
    """Writes `content` under the name `final`. True: ours is there now. False: somebody was first, theirs is untouched.

    `content` is bytes, or writes itself into the descriptor of an empty file. Order: write in `tmp`, fsync, link to the
    final name, fsync the folder. When this returns, a power cut loses nothing. Raises WriteFailed (disk full, no
    permission), or what `content` raises, with nothing left behind.
    """
    unfinished = tmp / f"{final.name}.{owner_name()}"
    with named(final), _removed(unfinished):
        _write_synced(content, unfinished)
        try:
            os.link(unfinished, final)
            ours = True
        except FileExistsError:
            ours = False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            ours = _renamed_without_replacing(unfinished, final)
        sync_folder(final.parent)  # theirs too: its writer may have been killed before it came to that
        return ours


def replace(content: Content, final: Path, tmp: Path, durable: bool = True) -> None:
    """Writes `content` over `final` in one step: a reader sees the old file or the new one, never a mixture. Raises
    WriteFailed; then the old one stands there still. `durable=False` leaves out fsync: a kill tears nothing, a power
    cut may (for what is made anew when its hash does not fit)."""
    unfinished = tmp / f".{final.name}.{owner_name()}"
    with named(final), _removed(unfinished):
        _write_synced(content, unfinished, durable)
        os.replace(unfinished, final)
        if durable:
            sync_folder(final.parent)


def make_folder(path: Path, *, sure: bool = False) -> None:
    """Makes the folder and its parents, and makes each new name durable (fsync of the folder that holds it). `sure`:
    also the names of those that are there, since a writer that was killed may have made them, and not have come to
    sync them."""
    if path.is_dir():
        if sure:
            sync_above(path)
        return
    make_folder(path.parent, sure=sure)
    with named(path):
        try:
            path.mkdir()
        except FileExistsError as error:
            if not path.is_dir():  # else another writer was first
                raise NotADirectoryError(f"{path} is a file: expected a folder, or nothing.") from error
        sync_folder(path.parent)


def sync_above(path: Path) -> None:
    """Makes the name of the folder durable, and those of some above it; folders of others, which may not be opened,
    were there before."""
    for above in path.resolve().parents[:_LEVELS]:
        try:
            sync_folder(above)
        except WriteFailed as error:
            if error.errno not in (errno.EACCES, errno.EPERM):
                raise


def sync_folder(path: Path) -> None:
    """fsync of a folder: without it a power cut can forget the name of a file whose bytes are safe."""
    with named(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(tmp: Path, of: str | None = None) -> list[str]:
    """Removes what dead writers left in `tmp` (owner gone on this host, or older than a day); returns the names. `of`:
    only what was to become this file or folder."""
    removed = []
    for entry in sorted(tmp.glob(f"{glob.escape(of)}.*" if of else "*")) if tmp.is_dir() else []:
        parts = entry.name.rsplit(".", 3)
        if len(parts) != 4 or not parts[2].isdigit() or parts[0] != (of or parts[0]):
            continue
        try:
            if abandoned(".".join(parts[1:]), entry):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
                removed.append(entry.name)
        except OSError:  # its owner finished, another writer swept it, or it is not ours to remove
            continue
    return removed


def abandoned(owner: str, path: Path) -> bool:
    """Whether the writer of this `owner_name()` is gone from this host, or has left `path` alone for a day."""
    host, pid, _ = owner.split(".")
    stale = time.time() - path.lstat().st_mtime > _STALE_SECONDS
    return stale or (host == owner_name().split(".")[0] and not _alive(int(pid)))


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """All of `data` at this place of the file, whatever one call manages (at most 2 GiB, less on a disk that fills)."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + (1 << 30)], offset + done)


@contextmanager
def named(final: Path) -> Iterator[None]:
    """What the system refuses inside becomes WriteFailed, which says what was not written and what to do."""
    try:
        yield
    except (StoreError, FileExistsError, NotADirectoryError):  # these say by themselves what is wrong
        raise
    except OSError as error:
        raise WriteFailed.of(final, error) from error


@contextmanager
def _removed(unfinished: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):  # it is swept later; what was published stays published
            unfinished.unlink()


def _write_synced(content: Content, path: Path, durable: bool = True) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        if callable(content):
            content(descriptor)
        else:
            write_at(descriptor, content, 0)
        if durable:
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
