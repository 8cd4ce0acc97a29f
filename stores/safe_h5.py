"""The one door through which an HDF5 file is opened for reading. A file is walked whole before a value of it is read.

HDF5 can point out of a file in four ways (soft, external, virtual, external raw storage; the last returns the bytes of
any file on the machine), can declare terabytes in a kilobyte, and loads shared objects for unknown filters. A sealed
shard has none of these, so each is refused by name (`UnsafeFile`). The file is read through an open descriptor, so the
bytes that were checked are the bytes that are read. No check here makes libhdf5 itself safe against a malformed file:
what comes from strangers belongs into a process of its own (`stores.untrusted`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5pl, h5s, h5t  # pyright: ignore[reportAttributeAccessIssue]

from stores import safe_text
from stores.errors import StoreCorrupted, StoreError, UnsafeFile
from stores.limits import LIMITS as LIMITS
from stores.limits import Limits as Limits
from stores.safe_chunks import check_packed
from stores.safe_objects import Declared, check_size_in_memory, walk
from stores.safe_text import open_descriptor as open_descriptor

MEND = "Mend: delete this shard and run the same command again; only this unit is done anew."
_H5_FAULTS = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError,
              SystemError, AssertionError)  # fmt: skip
_SIGNATURE, _NOWHERE = b"\x89HDF\r\n\x1a\n", b"\xff" * 8

# An unknown filter makes libhdf5 search these folders for a shared object and run it: there is nothing to find now.
while h5pl.size():
    h5pl.remove(0)


@dataclass
class SafeFile:
    """A file that has passed the walk: its datasets by path, each already checked. Valid inside `opened` only."""

    path: Path
    descriptor: int
    size: int
    limits: Limits
    file: h5py.File
    sources: frozenset[str] = frozenset()
    datasets: dict[str, h5d.DatasetID] = field(default_factory=dict)
    declared: dict[str, Declared] = field(default_factory=dict)
    groups: dict[str, h5g.GroupID] = field(default_factory=dict)

    def children(self, group: str) -> list[str]:
        """Names of the objects directly inside a group, sorted; empty when there is no such group."""
        prefix = group.rstrip("/") + "/"
        names = [path[len(prefix) :] for path in (*self.datasets, *self.groups) if path.startswith(prefix)]
        return sorted(name for name in names if name and "/" not in name)

    def dataset(self, path: str) -> h5d.DatasetID:
        if path not in self.datasets:
            raise StoreCorrupted(f"{self.path}: dataset {path} is missing; expected a whole shard. {MEND}")
        return self.datasets[path]

    def array(self, path: str, shape: tuple[int, ...] | None = None, kinds: str = "") -> np.ndarray:
        """The whole dataset; `shape` is what the schema expects (-1: any size), `kinds` are NumPy's letters for the
        types that it may have ("iu", "S"). For indexes, never for activations."""
        dataset = self.dataset(path)
        found = self.declared[path].shape
        fits = shape is None or (
            len(found) == len(shape) and all(want in (-1, have) for want, have in zip(shape, found, strict=True))
        )
        if not fits:
            raise StoreCorrupted(f"{self.path}: {path} has shape {found}, expected {shape}. {MEND}")
        with self.guarded(path):
            dtype = dataset.dtype
            if kinds and dtype.kind not in kinds:
                raise StoreCorrupted(f"{self.path}: {path} holds {dtype}, expected one of the kinds {kinds!r}. {MEND}")
            check_size_in_memory(self, path, self.declared[path])
            check_packed(self, path, self.declared[path])
            out = np.empty(found, dtype=dtype)
            if out.nbytes:
                dataset.read(h5s.ALL, h5s.ALL, out)
        return out.view(np.uint8) != 0 if dtype.kind == "b" else out

    def text(self, name: str, of: str = "/") -> str:
        """A fixed-length text attribute of the object `of`."""
        owner = self.groups.get(of) or self.datasets.get(of)
        if owner is None or not h5a.exists(owner, name.encode()):
            raise StoreCorrupted(f"{self.path}: attribute {name!r} of {of} is missing; expected a whole shard. {MEND}")
        with self.guarded(f"{of}@{name}"):
            attribute = h5a.open(owner, name.encode())
            if not isinstance(attribute.get_type(), h5t.TypeStringID) or attribute.shape != ():
                raise StoreCorrupted(f"{self.path}: attribute {name!r} of {of} is not one text. {MEND}")
            out = np.empty((), dtype=attribute.dtype)
            attribute.read(out)
            return bytes(out[()]).decode("utf-8", "surrogatepass")

    def json(self, name: str, of: str = "/") -> Any:
        return safe_text.parsed(self.text(name, of), f"{self.path}: attribute {name!r} of {of}", self.limits)

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """libhdf5 reports damage as OSError or RuntimeError alike; both become StoreCorrupted that names the place."""
        try:
            yield
        except StoreError:
            raise
        except _H5_FAULTS as error:
            raise StoreCorrupted(f"{self.path}: {what} cannot be read ({error}). {MEND}") from error


@contextmanager
def opened(
    path: str | Path, limits: Limits = LIMITS, *, sha256: str | None = None, sources: Collection[str] = ()
) -> Iterator[SafeFile]:
    """The file, walked and checked. Raises StoreMissing, UnsafeFile, or StoreCorrupted when libhdf5 cannot read it.

    `sha256`: the digest that its bytes must have, before libhdf5 sees them. `sources`: names of the files that virtual
    datasets may point to, relative to its folder (an index over shards); none by default.
    """
    path = Path(path)
    with os.fdopen(open_descriptor(path), "rb", buffering=0) as raw:
        if sha256 is not None and (came := hashlib.file_digest(raw, "sha256").hexdigest()) != sha256:  # pyright: ignore[reportArgumentType]
            raise StoreCorrupted(f"{path} has sha256 {came}, expected {sha256}. {MEND}")
        size = os.fstat(raw.fileno()).st_size
        _check_beginning(path, os.pread(raw.fileno(), 48, 0), size)
        raw.seek(0)
        try:
            file = h5py.File(raw, mode="r", locking=False)
        except _H5_FAULTS as error:
            raise StoreCorrupted(f"{path} is not a readable HDF5 file ({error}). {MEND}") from error
        with file:
            safe = SafeFile(path, raw.fileno(), size, limits, file, frozenset(sources))
            with safe.guarded("the tree of groups"):
                walk(safe)
            yield safe


def _check_beginning(path: Path, head: bytes, size: int) -> None:
    """The superblock of format 2 or 3, at the very beginning, whose metadata has checksums. Raises UnsafeFile for what
    else a superblock can announce: other content before it, drivers, shared messages, images of a cache, other files'
    bytes behind its end."""
    if head[:8] != _SIGNATURE or len(head) < 48:
        raise StoreCorrupted(f"{path} is not a readable HDF5 file (it does not begin as one). {MEND}")
    version, offsets, lengths, flags = head[8:12]
    if version not in (2, 3):
        raise UnsafeFile(
            f"{path}: superblock of version {version}; expected version 2 or 3 (libver='latest'), in which all "
            "metadata has checksums."
        )
    base, extension, end = head[12:20], head[20:28], int.from_bytes(head[28:36], "little")
    if (offsets, lengths) != (8, 8) or any(base) or extension != _NOWHERE:
        raise UnsafeFile(
            f"{path}: its superblock has addresses of {offsets} and {lengths} bytes, a base address or an extension; "
            "a sealed shard has addresses of 8 bytes, and neither."
        )
    if flags & 0x7:
        raise StoreCorrupted(f"{path} was not closed by its writer (flags {flags}). {MEND}")
    if end != size:
        raise StoreCorrupted(f"{path} has {size} bytes and announces {end}. {MEND}")
