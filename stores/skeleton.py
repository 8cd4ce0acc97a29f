"""Skeleton: an HDF5 file in memory of which libhdf5 writes the metadata alone, while the values stay where they are."""

from __future__ import annotations

import io
import os
from bisect import bisect_right


class Skeleton(io.RawIOBase):
    """A file object for `h5py.File(skeleton, "w")`. Space that is allocated and never written takes no memory here: the
    values of a shard are then written past libhdf5, from the arrays that hold them, and a full disk is an OSError of
    that write (inside libhdf5 it ends the process).
    """

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self._at = 0
        self._writes: list[tuple[int, bytes]] = []

    def pieces(self) -> list[tuple[int, bytes]]:
        """What was written, as (offset, bytes) in file order, without overlap; of two writes to one place the later
        one stands. All else in the file, up to `size`, is unwritten."""
        runs: list[tuple[int, bytearray]] = []
        for start, stop in sorted((offset, offset + len(data)) for offset, data in self._writes):
            if runs and start <= (end := runs[-1][0] + len(runs[-1][1])):
                runs[-1][1].extend(bytes(max(0, stop - end)))
            else:
                runs.append((start, bytearray(stop - start)))
        starts = [start for start, _ in runs]
        for offset, data in self._writes:
            start, run = runs[bisect_right(starts, offset) - 1]
            run[offset - start : offset - start + len(data)] = data
        return [(start, bytes(run)) for start, run in runs]

    # What h5py's driver for Python files calls

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._writes.append((self._at, bytes(data)))
        self._at += len(self._writes[-1][1])
        self.size = max(self.size, self._at)
        return len(self._writes[-1][1])

    def readinto(self, buffer) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        view = memoryview(buffer).cast("B")
        stop = max(self._at, min(self._at + len(view), self.size))
        count = stop - self._at
        view[:count] = bytes(count)
        for offset, data in self._writes:
            low, high = max(self._at, offset), min(stop, offset + len(data))
            if low < high:
                view[low - self._at : high - self._at] = data[low - offset : high - offset]
        self._at = stop
        return count

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        self._writes = [(offset, data[: self.size - offset]) for offset, data in self._writes if offset < self.size]
        return self.size

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
