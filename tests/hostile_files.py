"""The corpus of hostile files, and the public loaders that meet them: all built by code, nothing is shipped.

A file has a kind, a loader names the kinds that it meets; `tests/soak/hostile.py` tries each with each. What is no
HDF5 and no store (pictures, prompts, adapters, pages) stands in `hostile_inputs.py`, in the same form.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import h5py
import hostile_stores as folders
import numpy as np
from hostile_chunks import ARRAYS, PATCHES
from hostile_forgeries import DOCUMENTS, FORGED_ACTIVATIONS, FORGED_RESULTS
from hostile_hdf5 import CONTENTS
from store_samples import everything, filled_store, shards

from stores import ActivationStore, ResultTable, StoreCorrupted, StoreError, safe_h5
from stores.about import store_info
from stores.exporting import export_store, index_store
from stores.merging import merge_stores
from stores.opening import open_store
from stores.repairing import repair_store
from stores.untrusted import verify_untrusted


@dataclass(frozen=True)
class Hostile:
    """`make(empty folder)` builds it and returns what a loader is given; `says`: words of the error, a regex."""

    name: str
    kind: str
    make: Callable[[Path], Path]
    says: str = ""


@dataclass(frozen=True)
class Loader:
    """`load` raises one of `errors` for what it refuses, and accepts what `SOUND` makes of each kind that it meets."""

    name: str
    meets: frozenset[str]
    load: Callable[[Path], object]
    errors: tuple[type[BaseException], ...] = (StoreError,)


def alone(folder: Path) -> Path:
    """A sound HDF5 file with one array."""
    with h5py.File(folder / "file.h5", "w", libver="latest") as file:
        file["real"] = np.arange(3)
    return folder / "file.h5"


def activations(folder: Path) -> Path:
    """A sound store of activations, of two units."""
    return _written("activations", folder)


def results(folder: Path) -> Path:
    """A sound table of results, of two units, with a column of every kind."""
    return _written("results", folder)


SOUND = {"hdf5": alone, "activations": activations, "results": results, "values": activations}


def _written(kind: str, folder: Path) -> Path:
    for name, data in _template(kind).items():
        (folder / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "store" / name).write_bytes(data)
    (folder / "store" / "tmp").mkdir()
    return folder / "store"


@cache
def _template(kind: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "store"
        if kind == "activations":
            filled_store(path, 8)
        else:
            table = ResultTable.create(path, spec={"model": "tiny"}, plan=["a", "b"], provenance={})
            for key in table.missing():
                table.commit(key, [_row(i) for i in range(5)])
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def _row(i: int) -> dict[str, str | int | float | bool | None]:
    return {"x": i, "y": f"text {i}", "z": i / 2, "b": i > 2, "n": None, "m": [1, "a"][i % 2]}


def _secret(folder: Path) -> Path:
    with h5py.File(folder / "secret.h5", "w") as file:
        file["real"] = np.arange(3)
    return folder / "secret.h5"


COLUMN = {"hdf5": "real", "activations": "activations/resid_post/position", "results": "columns/x"}


def _with(content: Callable[[h5py.Group, str, Path], None], kind: str, in_place: bool, folder: Path) -> Path:
    """A sound file or store, with the content in it: in the place of a column that is read, or beside all others."""
    path = SOUND[kind](folder)
    for file in [path] if kind == "hdf5" else shards(path):
        with h5py.File(file, "r+", libver="latest") as opened:
            group, _, name = COLUMN[kind].rpartition("/")
            if in_place:
                del opened[COLUMN[kind]]
            content(opened[group or "/"], name if in_place else "more", _secret(folder))
    _forget(path)
    return path


def _patched(patch: Callable[[bytes], bytes], kind: str, folder: Path) -> Path:
    path = SOUND[kind](folder)
    for file in [path] if kind == "hdf5" else shards(path):
        file.write_bytes(patch(file.read_bytes()))
    _forget(path)
    return path


def _forget(path: Path) -> None:
    """Takes the logs out, which know the size and the hash of each shard: a forger writes his own."""
    for log in path.glob("commits/*"):
        log.unlink()


def _folder(change: Callable[[Path], None], kind: str, folder: Path) -> Path:
    path = SOUND[kind](folder)
    change(path)
    return path


ANY_STORE: dict[Callable[[Path], None], str] = {
    folders.head_is_a_link: "regular file",
    folders.head_is_an_endless_device: "regular file",
    folders.head_is_a_pipe: "not a regular file",
    folders.head_is_a_folder: "regular file",
    folders.head_is_a_socket: "regular file",
    folders.giant_head: "expected at most",
    folders.log_is_a_pipe: "regular file",
    folders.log_is_an_endless_device: "regular file",
    folders.log_with_an_endless_line: "a line of more than",
    folders.shard_is_a_pipe: "regular file|bytes, expected",
    folders.shard_is_a_link: "regular file|bytes, expected",
    folders.shard_is_a_folder: "regular file|bytes, expected",
    folders.shard_is_another_units: "expected .* unit",
    folders.folder_of_a_shard_is_a_link: "symbolic link|gone",
    **{folders.folder_is_a_link(name): "symbolic link" for name in ("shards", "commits", "plan", "tmp")},
    **DOCUMENTS,
}
OF_VALUES = {"hashes_of_zero"}  # met only by those who read the values themselves
OF_ACTIVATIONS = {folders.chunks_that_share_their_bytes: "share their bytes", **FORGED_ACTIVATIONS}


def _files() -> Iterator[Hostile]:
    for kind in COLUMN:
        for content, says in CONTENTS.items():
            yield Hostile(f"{kind}: {content.__name__}", kind, partial(_with, content, kind, False), says)
        for content, says in ARRAYS.items():
            yield Hostile(f"{kind}: {content.__name__}", kind, partial(_with, content, kind, True), says)
        for patch, says in PATCHES.items():
            yield Hostile(f"{kind}: {patch.__name__}", kind, partial(_patched, patch, kind), says)
    for kind, own in (("activations", OF_ACTIVATIONS), ("results", FORGED_RESULTS)):
        for change, says in {**ANY_STORE, **own}.items():
            meant = "values" if change.__name__ in OF_VALUES else kind
            yield Hostile(f"{kind}: {change.__name__}", meant, partial(_folder, change, kind), says)


HOSTILE = list(_files())


def _read_file(path: Path) -> None:
    with safe_h5.opened(path) as file:
        for name in file.datasets:
            file.array(name)


def _read_results(path: Path) -> None:
    json.dumps(ResultTable.open(path).rows())


def _findings(verified: Callable[[Path], list[str]]) -> Callable[[Path], None]:
    """A loader out of what lists faults instead of raising."""

    def load(path: Path) -> None:
        if found := verified(path):
            raise StoreCorrupted("\n".join(found))

    return load


VALUES = frozenset({"activations", "values"})
STORES = VALUES | {"results"}
LOADERS = [
    Loader("safe_h5.opened", frozenset({"hdf5"}), _read_file),
    Loader("ActivationStore.values", VALUES, everything),
    Loader("ResultTable.rows", frozenset({"results"}), _read_results),
    Loader("verify", STORES, _findings(lambda path: open_store(path).verify(deep=True))),
    Loader("verify_untrusted", STORES | {"hdf5"}, _findings(verify_untrusted)),
    Loader("merge_stores", STORES, lambda path: merge_stores([path], path.parent / "merged")),
    Loader("export_store", STORES, lambda path: export_store(path, path.parent / "sealed.h5")),
    Loader("index_store", frozenset({"activations"}), index_store),
    Loader("ActivationStore.to_xarray", VALUES, lambda path: ActivationStore.open(path).to_xarray()),
    Loader("repair_store", STORES, _findings(repair_store)),
    Loader("store_info", STORES - {"values"}, store_info),
]
