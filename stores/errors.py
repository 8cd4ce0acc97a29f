"""What can go wrong with a store, by name. Every message says what was expected, what came and how to mend it."""

from __future__ import annotations


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
