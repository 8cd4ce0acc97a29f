"""Zip files that hold arrays, `.pt` and `.npz`: read without running code from them, and never larger than the file."""

from __future__ import annotations

import math
import pickletools
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hooks.plain_files import Refused, opened

LARGEST_FILE = 2**32  # bytes
MOST_ENTRIES = 10_000
LARGEST_PICKLE = 16 * 2**20  # bytes of a .pt file's pickle: it holds names and shapes, the numbers lie beside it
MOST_PARTS = 1_000_000  # of the pickle, with every reference written out


def torch_tensors(path: Path) -> Any:
    """What torch.save wrote, a tensor or a dict of tensors, on the CPU. Raises FileNotFoundError, and Refused for
    anything but tensors and plain containers, compressed entries, and tensors of more bytes than the file has."""
    import torch

    with opened(path, LARGEST_FILE) as file:
        held = _entries(path, file)
        if held is None:
            raise Refused(
                f"{path} is no plain tensor file: it is read without running code from it, and that failed (no zip "
                "file). Expected what torch.save(tensor, path) writes, since PyTorch 1.6."
            )
        with zipfile.ZipFile(file) as archive:
            pickles = [one for one in held if one.filename.endswith("data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
                raise Refused(f"{path} has {len(pickles)} pickles, or a large one: expected what torch.save writes.")
            parts = written_out(archive.read(pickles[0]))
        if parts > MOST_PARTS:
            raise Refused(f"{path}: its pickle has more than {MOST_PARTS:,} parts with all references written out.")
        size = file.seek(0, 2)
        file.seek(0)
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise Refused(
                f"{path} is no plain tensor file: it is read without running code from it, and that failed "
                f"({str(error).splitlines()[0][:200]}). Expected what torch.save(tensor, path) writes."
            ) from error
    for one in found.values() if isinstance(found, dict) else [found]:
        if isinstance(one, torch.Tensor) and one.layout == torch.strided and one.numel() * one.element_size() > size:
            raise Refused(f"{path} has {size:,} bytes and a tensor {tuple(one.shape)}: expected whole tensors.")
    return found


def npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file that is not compressed. Raises FileNotFoundError, and Refused for pickled objects and
    whatever is no whole file of arrays."""
    with opened(path, LARGEST_FILE) as file:
        if _entries(path, file) is None:
            raise Refused(f"{path} is no zip file: expected an .npz file.")
        try:
            with np.load(file, allow_pickle=False) as held:
                return {name: np.asarray(held[name]) for name in held.files}
        except (ValueError, KeyError, EOFError, OSError, MemoryError, OverflowError, zipfile.BadZipFile) as error:
            raise Refused(f"{path} holds no whole arrays ({str(error)[:200]}): expected an .npz file.") from None


def _entries(path: Path, file: BinaryIO) -> list[zipfile.ZipInfo] | None:
    """The entries of the zip file, None where it is none. Raises Refused for what unpacks to more than it is."""
    try:
        with zipfile.ZipFile(file) as archive:
            held = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeDecodeError, OverflowError):
        return None
    size = file.seek(0, 2)
    file.seek(0)
    names = [one.filename for one in held]
    packed = any(one.compress_type != zipfile.ZIP_STORED or one.file_size != one.compress_size for one in held)
    if packed or len(set(names)) < len(names) or len(names) > MOST_ENTRIES:
        raise Refused(f"{path} holds compressed entries, one name twice, or too many: expected plain entries.")
    if sum(one.file_size for one in held) > size:
        raise Refused(f"{path} declares entries of more bytes than it has ({size:,}): expected a whole file.")
    return held


def written_out(pickled: bytes) -> int:
    """How many parts the pickle's largest object has when every reference to an earlier one is written out: a hash of
    nested tuples visits them all, and a hundred bytes can stand for billions. Nothing is built."""
    stack: list[float] = []  # sizes; a mark is -1
    memo: dict[Any, float] = {}
    largest = 0.0
    try:
        for code, argument, _ in pickletools.genops(pickled):
            if code.name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif code.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if argument is None else argument] = stack[-1]
            else:
                before = list(code.stack_before)
                taken = 1.0
                if pickletools.markobject in before:
                    while (top := stack.pop()) >= 0:
                        taken += top
                    before = before[: before.index(pickletools.markobject)]
                taken += sum(stack.pop() for _ in before)
                stack += [-1 if one is pickletools.markobject else taken for one in code.stack_after]
            largest = max(largest, *stack[-2:], 0)
    except (IndexError, KeyError, ValueError, OverflowError):
        return MOST_PARTS + 1  # no pickle that anything could read
    return int(min(largest, math.ldexp(1, 62)))
