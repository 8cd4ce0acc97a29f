"""The one door through which an HDF5 file is opened for reading. A file is walked whole before a value of it is read.

HDF5 can point out of a file in four ways (soft, external, virtual, external raw storage; the last returns the bytes of
any file on the machine), can declare terabytes in a kilobyte, and loads shared objects for unknown filters. A sealed
shard has none of these, so each is refused by name (`UnsafeFile`). The file is read through an open descriptor, so the
bytes that were checked are the bytes that are read. No check here makes libhdf5 itself safe against a malformed file:
what comes from strangers belongs into a process of its own.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z  # pyright: ignore[reportAttributeAccessIssue]

from stores.errors import StoreCorrupted, StoreMissing, UnsafeFile
from stores.schema import bfloat16_type

_H5_FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError, SystemError)
_FILTERS = {h5z.FILTER_FLETCHER32, h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_LZF}
_LAYOUTS = {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED}
_SCALE_LINKS = {b"DIMENSION_LIST", b"REFERENCE_LIST"}  # references, written by the dimension scales and never followed


@dataclass(frozen=True)
class Limits:
    """What a file may declare. The defaults are far above what a shard of ours holds."""

    dataset_bytes: int = 64 << 30
    array_bytes: int = 1 << 30
    chunk_bytes: int = 256 << 20
    attribute_bytes: int = 1 << 20
    objects: int = 100_000
    depth: int = 16
    expansion: int = 1000
    """declared / stored bytes of one dataset, above 1 GiB declared"""


LIMITS = Limits()


@dataclass
class SafeFile:
    """A file that has passed the walk: its datasets by path, each already checked. Valid inside `opened` only."""

    path: Path
    descriptor: int
    limits: Limits
    file: h5py.File
    datasets: dict[str, h5d.DatasetID] = field(default_factory=dict)
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

    def array(self, path: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """The whole dataset; `shape` is what the schema expects (-1: any size). For indexes, never for activations."""
        dataset = self.dataset(path)
        found = dataset.shape
        fits = shape is None or (
            len(found) == len(shape) and all(want in (-1, have) for want, have in zip(shape, found, strict=True))
        )
        if not fits:
            raise StoreCorrupted(f"{self.path}: {path} has shape {found}, expected {shape}. {MEND}")
        size = math.prod(found) * dataset.get_type().get_size()
        if size > self.limits.array_bytes:
            raise UnsafeFile(f"{self.path}: {path} declares {size} bytes, expected at most {self.limits.array_bytes}.")
        if size and dataset.get_storage_size() == 0:
            raise UnsafeFile(f"{self.path}: {path} declares {size} bytes and stores none.")
        out = np.empty(found, dtype=dataset.dtype)
        if size:
            with self.guarded(path):
                dataset.read(h5s.ALL, h5s.ALL, out)
        return out

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
        return json.loads(self.text(name, of))

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """libhdf5 reports damage as OSError or RuntimeError alike; both become StoreCorrupted that names the place."""
        try:
            yield
        except _H5_FAULTS as error:
            if isinstance(error, StoreCorrupted | UnsafeFile | StoreMissing):
                raise
            raise StoreCorrupted(f"{self.path}: {what} cannot be read ({error}). {MEND}") from error


MEND = "Mend: delete this shard and run the same command again; only this unit is done anew."


def open_descriptor(path: Path) -> int:
    """A read-only descriptor of a regular file; symbolic links, pipes and devices are refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise StoreMissing(f"{path} is not there: expected a sealed shard. {MEND}") from None
    except OSError as error:
        raise UnsafeFile(f"{path} cannot be opened as a regular file ({error.strerror}).") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafeFile(f"{path} is not a regular file.")
    return descriptor


@contextmanager
def opened(path: str | Path, limits: Limits = LIMITS) -> Iterator[SafeFile]:
    """The file, walked and checked. Raises StoreMissing, UnsafeFile, or StoreCorrupted when libhdf5 cannot read it."""
    path = Path(path)
    with os.fdopen(open_descriptor(path), "rb", buffering=0) as raw:
        try:
            file = h5py.File(raw, mode="r", locking=False)
        except _H5_FAULTS as error:
            raise StoreCorrupted(f"{path} is not a readable HDF5 file ({error}). {MEND}") from error
        with file:
            safe = SafeFile(path, raw.fileno(), limits, file)
            with safe.guarded("the tree of groups"):
                _walk(safe)
            yield safe


def _walk(safe: SafeFile) -> None:
    """Every object once, one link at a time: h5py would follow a link in the middle of a path without a word."""
    root = h5g.open(safe.file.id, b"/")
    safe.groups["/"] = root
    _check_attributes(safe, "/", root)
    seen = {h5o.get_info(root).addr}
    waiting = [("", root, 1)]
    while waiting:
        prefix, group, depth = waiting.pop()
        links: list[tuple[bytes, Any]] = []
        if len(seen) + group.get_num_objs() > safe.limits.objects:
            raise UnsafeFile(f"{safe.path}: more than {safe.limits.objects} objects.")
        group.links.iterate(lambda name, info, links=links: links.append((name, info.type)), info=True)
        for name, kind in links:
            path = f"{prefix}/{name.decode('utf-8', 'backslashreplace')}"
            if kind != h5l.TYPE_HARD:
                words = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link"}
                raise UnsafeFile(
                    f"{safe.path}: {path} is {words.get(kind, 'a user-defined link')}; expected hard links."
                )
            if depth > safe.limits.depth:
                raise UnsafeFile(f"{safe.path}: {path} lies more than {safe.limits.depth} groups deep.")
            thing = h5o.open(group, name)
            address = h5o.get_info(thing).addr
            if address in seen:
                raise UnsafeFile(f"{safe.path}: {path} is a second name of another object (a cycle or an alias).")
            seen.add(address)
            if not isinstance(thing, h5g.GroupID | h5d.DatasetID):
                raise UnsafeFile(f"{safe.path}: {path} is neither group nor dataset ({type(thing).__name__}).")
            _check_attributes(safe, path, thing)
            if isinstance(thing, h5g.GroupID):
                safe.groups[path] = thing
                waiting.append((path, thing, depth + 1))
            else:
                _check_dataset(safe, path, thing)
                safe.datasets[path] = thing


def _check_dataset(safe: SafeFile, path: str, dataset: h5d.DatasetID) -> None:
    plist = dataset.get_create_plist()
    layout = plist.get_layout()
    if layout == h5d.VIRTUAL:
        raise UnsafeFile(f"{safe.path}: {path} is a virtual dataset: it would read other files.")
    if layout not in _LAYOUTS:
        raise UnsafeFile(f"{safe.path}: {path} has the unknown layout {layout}.")
    if plist.get_external_count():
        raise UnsafeFile(f"{safe.path}: {path} has external raw storage: it would read other files.")
    for i in range(plist.get_nfilters()):
        if (code := plist.get_filter(i)[0]) not in _FILTERS:
            raise UnsafeFile(f"{safe.path}: {path} uses filter {code}; expected fletcher32, shuffle, gzip or lzf.")
    kind = dataset.get_type()
    if not _plain_type(kind):
        raise UnsafeFile(f"{safe.path}: {path} has a type that shards never hold (class {kind.get_class()}).")
    limits = safe.limits
    declared = math.prod(dataset.shape) * kind.get_size()
    if declared > limits.dataset_bytes:
        raise UnsafeFile(
            f"{safe.path}: {path} declares {declared} bytes, expected at most {limits.dataset_bytes}; "
            "a larger file needs Limits(dataset_bytes=...)."
        )
    if declared > 1 << 30 and declared > limits.expansion * dataset.get_storage_size():
        raise UnsafeFile(f"{safe.path}: {path} declares {declared} bytes and stores {dataset.get_storage_size()}.")
    if layout == h5d.CHUNKED:
        chunk = math.prod(plist.get_chunk()) * kind.get_size()
        if chunk > limits.chunk_bytes:
            raise UnsafeFile(f"{safe.path}: {path} has chunks of {chunk} bytes, expected at most {limits.chunk_bytes}.")


def _check_attributes(safe: SafeFile, path: str, owner: h5g.GroupID | h5d.DatasetID) -> None:
    for i in range(h5a.get_num_attrs(owner)):
        attribute = h5a.open(owner, index=i)
        if attribute.get_storage_size() > safe.limits.attribute_bytes:
            raise UnsafeFile(
                f"{safe.path}: attribute {attribute.name!r} of {path} has {attribute.get_storage_size()} bytes, "
                f"expected at most {safe.limits.attribute_bytes}."
            )
        if attribute.name not in _SCALE_LINKS and not _plain_type(attribute.get_type()):
            raise UnsafeFile(f"{safe.path}: attribute {attribute.name!r} of {path} has a type that shards never hold.")


def _plain_type(kind: h5t.TypeID) -> bool:
    """Integers, IEEE floats, bfloat16, booleans and fixed-length text; nothing compound, ragged, opaque or
    referring."""
    if isinstance(kind, h5t.TypeEnumID):
        return kind.get_size() == 1 and kind.get_nmembers() == 2
    if isinstance(kind, h5t.TypeStringID):
        return not kind.is_variable_str() and kind.get_size() <= 1 << 20
    if isinstance(kind, h5t.TypeIntegerID):
        return kind.get_size() <= 8
    floats = (h5t.IEEE_F16LE, h5t.IEEE_F32LE, h5t.IEEE_F64LE, h5t.IEEE_F32BE, bfloat16_type())
    return isinstance(kind, h5t.TypeFloatID) and any(kind.equal(known) for known in floats)
