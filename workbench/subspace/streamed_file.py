"""Streamed moments in one HDF5 file: written whole or not at all, and read through the stores' safe door."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from hooks.plain_files import parsed
from hooks.site import Site
from stores import StoreCorrupted, StoreMismatch, canonical_json
from stores.array_file import array_file
from stores.files import write_file
from stores.publish import make_folder
from stores.safe_h5 import Limits, SafeFile, opened
from workbench.subspace.streamed import StreamedMoments
from workbench.subspace.sums import Sums

FORMAT, VERSION = "misalignment-workbench-moments", "1"
LIMITS = Limits(array_bytes=64 << 30)
_ATTRIBUTE, _HASH = "format", "xxh3_128"
_PARTS = ("counts", "half_counts", "rows_of", "pilot", "sums", "halves", "energy", "norms")
_MAYBE = ("scatter", "rows", "filled", "slack")
MEND = "Mend: delete this file and run the same command again."


def save_moments(stats: StreamedMoments, path: str | Path) -> Path:
    """Writes the file beside `path` and renames it, so that a file of this name is always whole. Raises OSError, with
    the old file untouched, when the disk cannot hold it (through libhdf5 a full disk would end the process)."""
    if any(len(part.counts) != len(stats.chosen) for part in stats.parts):
        raise ValueError("these are chosen groups: expected whole moments. Save first, then where(...).")
    path = Path(path)
    make_folder(path.parent)
    arrays = _arrays(stats)
    needed, free = sum(array.nbytes for array in arrays.values()), shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(f"{path} needs {needed / 1e9:.2f} GB, and the disk has {free / 1e9:.2f} GB left.")
    return write_file(path, array_file({_ATTRIBUTE: f"{FORMAT} {VERSION}"}, arrays, {_HASH: _hash}))


def load_moments(path: str | Path, *, unfinished: bool = False) -> StreamedMoments:
    """What `save_moments` wrote. Raises StoreMissing, UnsafeFile, StoreCorrupted, and ValueError for a run that was
    stopped, unless `unfinished` is welcome."""
    path = Path(path)
    with opened(path, LIMITS) as file:
        kind = file.text(_ATTRIBUTE)
        if kind != f"{FORMAT} {VERSION}":
            raise StoreMismatch(f"{path} holds {kind[:60]!r}: expected {FORMAT} of version {VERSION}.")
        try:
            stats = _built(file)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise StoreCorrupted(f"{path} holds no moments that fit together ({error}). {MEND}") from error
    done, planned = stats.info.get("units", (0, 0))
    if done < planned and not unfinished:
        raise ValueError(
            f"{path} is of a run that was stopped ({done} of {planned} units): the same wb.moments(..., to=...) goes "
            "on from there."
        )
    return stats


def _arrays(stats: StreamedMoments) -> dict[str, np.ndarray]:
    """Every array by its name in the file; a scatter is one dataset a site, so that none is huge."""
    described = {
        "variants": list(stats.variants),
        "classes": [dict(one) for one in stats.classes],
        "prompts": list(stats.prompts),
        "groups": [list(group) for group in stats.groups],
        "info": dict(stats.info),
        "parts": [{"sites": [str(site) for site in part.sites], "cells": list(part.cells)} for part in stats.parts],
    }
    out = {
        "described": np.frombuffer(canonical_json(described).encode(), np.uint8),
        "class_of": stats.class_of,
        "half": np.packbits(stats.half, axis=1),
    }
    for number, part in enumerate(stats.parts):
        held = part.arrays()
        scatter = held.pop("scatter", None)
        out |= {f"{number}/{name}": array for name, array in held.items()}
        if scatter is not None:
            out |= {f"{number}/scatter/{site}": matrix for site, matrix in enumerate(scatter)}
    return {name: np.ascontiguousarray(array) for name, array in out.items()}


def _built(file: SafeFile) -> StreamedMoments:
    told = parsed(_read(file, "described").tobytes())
    splits, prompts, parts = int(told["info"]["splits"]), len(told["prompts"]), []
    for number, one in enumerate(told["parts"]):
        there = file.children(f"/{number}")
        held: dict[str, Any] = {name: _read(file, f"{number}/{name}") for name in _PARTS}
        held |= {name: _read(file, f"{number}/{name}") for name in _MAYBE if name != "scatter" and name in there}
        if "scatter" in there:
            held["scatter"] = np.stack([_read(file, f"{number}/scatter/{i}") for i in range(len(one["sites"]))])
        parts.append(Sums(tuple(map(Site.parse, one["sites"])), cells=tuple(one["cells"]), **held))
        _check(parts[-1], groups=len(told["groups"]), prompts=prompts, splits=splits)
    class_of, half = _read(file, "class_of"), _read(file, "half")
    if class_of.shape != (prompts,) or len(half) != prompts or not parts:
        raise ValueError(f"{prompts} prompts, but classes of {class_of.shape} and halves of {half.shape}")
    _check_told(told, class_of, half, splits)
    return StreamedMoments(
        variants=tuple(told["variants"]),
        classes=tuple(told["classes"]),
        prompts=tuple(told["prompts"]),
        class_of=class_of,
        half=np.unpackbits(half, axis=1, count=splits).astype(bool),
        groups=tuple((int(v), int(c)) for v, c in told["groups"]),
        parts=tuple(parts),
        info=told["info"],
        chosen=tuple(range(len(told["groups"]))),
    )


def _check_told(told: Any, class_of: np.ndarray, half: np.ndarray, splits: int) -> None:
    """Numbers that count, or point to, something else in the file stay within it."""
    classes, variants = len(told["classes"]), len(told["variants"])
    if half.dtype != np.uint8 or half.ndim != 2 or not 0 <= splits <= 8 * half.shape[1]:
        raise ValueError(f"{splits} splits, but halves of {half.shape} {half.dtype}")
    if class_of.dtype.kind not in "iu" or (class_of.size and not -1 <= class_of.min() <= class_of.max() < classes):
        raise ValueError(f"{classes} classes, but prompts of others")
    if any(not (0 <= int(v) < variants and -1 <= int(c) < classes) for v, c in told["groups"]):
        raise ValueError(f"{variants} variants of {classes} classes, but groups of others")
    done, planned = map(int, told["info"].get("units", (0, 0)))
    if not 0 <= done <= planned:
        raise ValueError(f"{done} of {planned} units")


def _check(part: Sums, *, groups: int, prompts: int, splits: int) -> None:
    sites, d, cells = len(part.sites), part.d_model, len(set(part.cells))
    expected: Mapping[str, tuple[int, ...]] = {
        "counts": (groups,),
        "half_counts": (groups, splits),
        "pilot": (sites, groups, d),
        "sums": (sites, groups, d),
        "halves": (sites, groups, splits, d),
        "energy": (sites, groups),
        "scatter": (sites, cells, d, d),
        "filled": (sites, cells),
        "slack": (sites, cells),
    }
    for name, array in part.arrays().items():
        if name in expected and array.shape != expected[name]:
            raise ValueError(f"{name} has shape {array.shape}, expected {expected[name]}")
    if len(part.rows_of) != prompts or len(part.cells) not in (0, groups):
        raise ValueError(f"{prompts} prompts and {groups} groups, but rows of {len(part.rows_of)}, {len(part.cells)}")


def _read(file: SafeFile, name: str) -> np.ndarray:
    array = file.array(f"/{name}")
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{name} holds {array.dtype}, expected numbers")
    if file.text(_HASH, f"/{name}") != _hash(array):
        raise StoreCorrupted(f"{file.path}: {name} is not what was written. {MEND}")
    return array


def _hash(array: np.ndarray) -> str:
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).data if array.size else b"")
