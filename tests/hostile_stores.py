"""Hostile store folders: links and pipes in place of files, JSON that harms, plans and shards that lie.

Each takes the folder of a sound store (of two units) and makes it worse. Forged documents carry a digest that fits:
whoever forges one can make it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from lookup3 import resealed
from store_samples import shards

from stores import content_key, sealed_json

GIB = 1 << 30


def head_is_a_link(folder: Path) -> None:
    (folder / "store.json").rename(folder.parent / "elsewhere.json")
    (folder / "store.json").symlink_to(folder.parent / "elsewhere.json")


def head_is_an_endless_device(folder: Path) -> None:
    (folder / "store.json").unlink()
    (folder / "store.json").symlink_to("/dev/zero")


def head_is_a_pipe(folder: Path) -> None:
    (folder / "store.json").unlink()
    os.mkfifo(folder / "store.json")


def head_is_a_folder(folder: Path) -> None:
    (folder / "store.json").unlink()
    (folder / "store.json").mkdir()


def head_is_a_socket(folder: Path) -> None:
    (folder / "store.json").unlink()
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("store.json")
    finally:
        os.chdir(here)


def log_is_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "commits" / "host.1.00000000.jsonl")


def log_is_an_endless_device(folder: Path) -> None:
    (folder / "commits" / "host.1.00000000.jsonl").symlink_to("/dev/zero")


def log_with_an_endless_line(folder: Path) -> None:
    with open(folder / "commits" / "host.1.00000000.jsonl", "wb") as file:
        file.truncate(GIB)


def shard_is_a_pipe(folder: Path) -> None:
    shard = shards(folder)[0]
    shard.unlink()
    os.mkfifo(shard)


def shard_is_a_link(folder: Path) -> None:
    shard = shards(folder)[0]
    shard.rename(folder.parent / "elsewhere.h5")
    shard.symlink_to(folder.parent / "elsewhere.h5")


def shard_is_a_folder(folder: Path) -> None:
    shard = shards(folder)[0]
    shard.unlink()
    shard.mkdir()


def shard_is_another_units(folder: Path) -> None:
    first, second = shards(folder)
    shutil.copy(first, second)
    _without_logs(folder)


def folder_is_a_link(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).rename(folder.parent / f"elsewhere_{name}")
        (folder / name).symlink_to(folder.parent / f"elsewhere_{name}")

    return _named(make, f"{name}_is_a_link")


def folder_of_a_shard_is_a_link(folder: Path) -> None:
    inner = shards(folder)[0].parent
    inner.rename(folder.parent / "elsewhere")
    inner.symlink_to(folder.parent / "elsewhere")


def document(name: str, data: bytes | Callable[[bytes], bytes], file: str = "store.json") -> Callable[[Path], None]:
    """A store.json (or a file of plan/) of these bytes, or of what they make of the sound one."""

    def make(folder: Path) -> None:
        path = folder / file
        made = data(path.read_bytes()) if callable(data) else data
        path.unlink()
        path.write_bytes(made)

    return _named(make, name)


def forged(name: str, change: Callable[[dict[str, Any]], object], file: str = "store.json") -> Callable[[Path], None]:
    """A document in which `change` has changed something, with a digest that fits."""

    def make(folder: Path) -> None:
        found = sealed_json.read(folder / file)[0]
        del found["digest"]
        change(found)
        (folder / file).unlink()
        (folder / file).write_bytes(sealed_json.sealed(found))

    return _named(make, name)


def new_identity(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A store.json of another spec or other streams, and shards that say they belong to it."""

    def make(folder: Path) -> None:
        head, plan = (sealed_json.read(folder / file)[0] for file in ("store.json", "plan/000000.json"))
        places = {unit["key"]: _shard(folder, head["content_key"], unit["key"]) for unit in plan["units"]}
        change(head)
        streams = {stream["name"]: stream for stream in head["streams"]}
        identity = {"kind": head["kind"], "format_version": 1, "spec": head["spec"], "streams": streams}
        head["content_key"] = content_key(identity)
        for file, found in (("store.json", head), ("plan/000000.json", plan)):
            del found["digest"]
            if "follows" in found:
                found["follows"] = sealed_json.read(folder / "store.json")[1]
            (folder / file).unlink()
            (folder / file).write_bytes(sealed_json.sealed(found))
        for key, path in places.items():
            with h5py.File(path, "r+", libver="latest") as file:
                file.attrs["content_key"] = np.bytes_(head["content_key"])
            moved = _shard(folder, head["content_key"], key)
            moved.parent.mkdir(exist_ok=True)
            path.rename(moved)
        _without_logs(folder)

    return _named(make, name)


def _shard(folder: Path, content: str, unit: str) -> Path:
    name = hashlib.sha256(f"{content}\0{unit}".encode()).hexdigest()[:32]
    return folder / "shards" / name[:2] / f"{name}.h5"


def giant_head(folder: Path) -> None:
    with open(folder / "store.json", "ab") as file:
        file.truncate(2 * GIB)


def log_line_of_many_lists(folder: Path) -> None:
    """An own check that fits, and JSON that would fill the memory: a line that cannot be read is a fault."""
    text = b'{"unit": "x", "rows": [' + b"[]," * 5_000_000 + b"0]"
    line = text + b', "line": "' + xxhash.xxh3_64_hexdigest(text).encode() + b'"}\n'
    (folder / "commits" / "host.1.00000000.jsonl").write_bytes(line)


def chunks_that_share_their_bytes(folder: Path) -> None:
    """Many chunks of values, one set of bytes: a small file that fills the memory it declares."""
    with h5py.File(path := shards(folder)[0], "r+", libver="latest") as file:
        group = file["activations/resid_post"]
        shape, chunk, kind = group["values"].shape, group["values"].chunks, group["values"].dtype
        del group["values"]
        made = group.create_dataset("values", shape=shape, chunks=chunk, dtype=kind)
        made[:] = 1
        same = xxhash.xxh3_128_digest(np.ones(chunk, kind).tobytes())
        file["chunk_xxh3_128/resid_post"][:] = np.frombuffer(same, np.uint8)
    raw = path.read_bytes()
    at = raw.rindex(b"FADB") + 14  # signature, version, client, address of the header; then the chunks' addresses
    addresses = raw[at : at + 8] * shape[0]
    block = resealed(raw[at - 14 : at] + addresses)
    path.write_bytes(raw[: at - 14] + block + raw[at - 14 + len(block) :])
    _without_logs(folder)


def column(name: str, at: str, data: Any) -> Callable[[Path], None]:
    """Other values in a column, and hashes that fit them: what only the meaning of a column refuses."""

    def make(folder: Path) -> None:
        for path in shards(folder):
            with h5py.File(path, "r+", libver="latest") as file:
                old = file[at][()]
                del file[at]
                file.create_dataset(at, data=data(old) if callable(data) else data, track_times=False)
                rehashed(file)
        _without_logs(folder)

    return _named(make, name)


def rehashed(file: h5py.File) -> None:
    """Gives the index of an opened shard the hash that belongs to it, by the arithmetic of the stores themselves."""
    from stores.columns import _hash, _paths
    from stores.shard import index_hash

    if "columns" in file:
        order = bytes(file["column_order"][()])
        try:
            kinds = dict(json.loads(order))
            stored = {path: file[path][()] for name, kind in kinds.items() for path in _paths(name, kind)}
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        file.attrs["index_xxh3_128"] = np.bytes_(_hash(order.decode(), stored))
    else:
        group = file["activations/resid_post"]
        names = ("layer", "prompt_id", "variant", "position", "token_id")
        group.attrs["index_xxh3_128"] = np.bytes_(index_hash([group[name][()] for name in names]))


def _without_logs(folder: Path) -> None:
    for log in (folder / "commits").iterdir():
        log.unlink()


def _named(make: Callable[[Path], None], name: str) -> Callable[[Path], None]:
    make.__name__ = name
    return make
