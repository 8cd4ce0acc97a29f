"""What can go wrong with a store, by name. Every message says what was expected, what came and how to mend it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


class StoreError(Exception):
    """Any fault of a store; the classes below say which."""


class StoreMissing(StoreError, FileNotFoundError):
    """There is no store (or no shard that the log promises) at this path."""


class StoreMismatch(StoreError, ValueError):
    """The store at this path was made from another spec, plan or prompt set."""


class StoreCorrupted(StoreError):
    """Bytes on disk are not the bytes that were committed."""


class UnsafeFile(StoreError):
    """A file holds something that a sealed shard never holds (links out, foreign types, giant shapes); it was not
    read."""


class UnknownName(StoreError, LookupError):
    """No site, stream, tag, variant or column of this name; the message lists those that exist."""


class NoRows(StoreError, LookupError):
    """The conditions match nothing; the message lists the values that exist."""


class NotFinite(StoreError, ValueError):
    """A block holds NaN or infinity."""


class WriteFailed(StoreError, OSError):
    """The system refused a write, fsync or publish (disk full, no permission, input/output error); `errno` says which.

    Nothing half-written stands under the final name, and what was committed before is untouched.
    """

    @classmethod
    def of(cls, final: Path, error: OSError) -> WriteFailed:
        """The same fault with the name of what was to be written, and the mend."""
        number = error.errno or errno.EIO
        if number in _NO_ROOM:
            mend = "make room on this disk"
        elif number in _NOT_ALLOWED:
            mend = "make its folder writable"
        else:
            mend = "check the disk"
        why = os.strerror(number) if error.errno else str(error)
        return cls(
            number,
            f"{final} was not written: {why}. Nothing half-written stands under this name, and all that was committed "
            f"before is there. Mend: {mend}, and run the same command again; it goes on from there.",
        )

    def __str__(self) -> str:
        return str(self.strerror)
