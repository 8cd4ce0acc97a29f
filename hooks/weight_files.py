""".safetensors files from elsewhere: the header is judged before anything is made of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hooks.plain_files import Refused, opened, parsed

LARGEST_HEADER = 16 * 2**20  # bytes: one of 100,000 tensors has about 10 MiB
_END = "it is no whole .safetensors file; expected whole ones"


def header_of(path: str | Path, largest: int | None = None) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (type, shape) of every tensor, from the header alone. Raises FileNotFoundError, and Refused for a file
    above `largest` bytes, a header above LARGEST_HEADER, and tensors that the file has no room for."""
    with opened(path, largest) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= size - 8:
            raise Refused(f"{path} cannot be read ({size:,} bytes, of which its header claims {length:,}): {_END}.")
        if length > LARGEST_HEADER:
            raise Refused(f"{path} has a header of {length:,} bytes: expected at most {LARGEST_HEADER:,}.")
        raw = file.read(length)
    try:
        told = parsed(raw)
    except Refused as error:
        raise Refused(f"{path} cannot be read (its header is {error}): {_END}.") from None
    told.pop("__metadata__", None) if isinstance(told, dict) else None
    if not isinstance(told, dict) or not all(_fits(one, size - 8 - length) for one in told.values()):
        raise Refused(f"{path} cannot be read (its header names tensors that it cannot hold): {_END}.")
    return {name: (one["dtype"], tuple(one["shape"])) for name, one in told.items()}


def _fits(one: Any, room: int) -> bool:
    """Whether this is a type, a shape and a place inside the file."""
    if not isinstance(one, dict) or not isinstance(one.get("dtype"), str):
        return False
    shape, place = one.get("shape"), one.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(place, list) or len(place) != 2:
        return False
    return all(type(each) is int and each >= 0 for each in (*shape, *place)) and place[0] <= place[1] <= room


def tensors_of(path: str | Path, largest: int | None = None) -> dict[str, Any]:
    """The file's tensors by name, on the CPU. Raises as `header_of` does, and Refused for what is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header_of(path, largest)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise Refused(f"{path} cannot be read ({error}): {_END}.") from None
