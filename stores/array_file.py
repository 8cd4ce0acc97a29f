"""array_file: named arrays as one HDF5 file, which libhdf5 lays out in memory and never writes to the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import h5py
import numpy as np
from h5py import h5t  # pyright: ignore[reportAttributeAccessIssue]

from stores import h5_write, publish
from stores.skeleton import Skeleton


def array_file(
    attributes: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
    described: Mapping[str, Callable[[np.ndarray], str]] | None = None,
) -> Callable[[int], None]:
    """What writes the file into the descriptor of an empty one (`stores.files.write_file`), from the arrays where they
    lie: nothing of them is copied, and a full disk is an OSError of the write.

    A name may be a path, "0/sums". `described` gives each array attributes made from it, such as its hash.
    """
    skeleton, places = Skeleton(), []
    with h5py.File(skeleton, "w", libver="latest") as file:
        for name, text in attributes.items():
            h5_write.write_text(file.id, name, text)
        for name, array in arrays.items():
            folder, _, own = name.rpartition("/")
            parent = h5_write.group(file.id, folder) if folder else file.id
            dataset = h5_write.reserved(parent, own, h5t.py_create(array.dtype, logical=True), array.shape)
            for attribute, made in (described or {}).items():
                h5_write.write_text(dataset, attribute, made(array))
            if array.size:
                places.append((dataset.get_offset(), np.ascontiguousarray(array)))
    pieces = skeleton.pieces()

    def write(descriptor: int) -> None:
        os.ftruncate(descriptor, skeleton.size)
        for offset, data in pieces:
            publish.write_at(descriptor, data, offset)
        for offset, array in places:
            publish.write_at(descriptor, array.reshape(-1).view(np.uint8).data, offset)

    return write
