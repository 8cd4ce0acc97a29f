"""Files of moments that nobody should load: a sound one with something hostile in it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from hostile_hdf5 import CONTENTS
from hostile_weights import sound_model

import workbench as wb
from workbench.subspace.streamed_file import _ATTRIBUTE, _HASH, _hash, save_moments

Make = Callable[[Path], Path]


@functools.cache
def _sound() -> bytes:
    model = wb.load_model(*sound_model(), check=False)
    prompts = [wb.Prompt(f"p{n}", text="word " * n, label="ab"[n % 2]) for n in range(1, 9)]
    folder = Path(tempfile.mkdtemp(prefix="sound-"))
    return save_moments(wb.moments(model, prompts, progress=False), folder / "m.h5").read_bytes()


def moments(folder: Path) -> Path:
    """A sound file."""
    (folder / "m.h5").write_bytes(_sound())
    return folder / "m.h5"


def _with(content: Callable[..., None], folder: Path) -> Path:
    path = moments(folder)
    (folder / "secret.h5").write_bytes(_sound())
    with h5py.File(path, "r+", libver="latest") as file:
        content(file, "more", folder / "secret.h5")
    return path


def _put(name: str, array: np.ndarray) -> Make:
    """The file with another array of this name, and a hash that fits."""

    def make(folder: Path) -> Path:
        path = moments(folder)
        with h5py.File(path, "r+", libver="latest") as file:
            del file[name]
            file.create_dataset(name, data=array).attrs[_HASH] = np.bytes_(_hash(array))
        return path

    return make


def _told(old: bytes, new: bytes) -> Make:
    """The description with other words."""

    def make(folder: Path) -> Path:
        with h5py.File(moments(folder)) as file:
            said = bytes(file["described"][()])  # type: ignore[index]
        assert old in said
        return _put("described", np.frombuffer(said.replace(old, new, 1), np.uint8))(folder)

    return make


def _other_kind(folder: Path) -> Path:
    path = moments(folder)
    with h5py.File(path, "r+", libver="latest") as file:
        file.attrs[_ATTRIBUTE] = np.bytes_("something else")
    return path


def _flipped(folder: Path) -> Path:
    data = bytearray(moments(folder).read_bytes())
    data[len(data) // 2] ^= 255
    (folder / "m.h5").write_bytes(data)
    return folder / "m.h5"


MOMENTS: dict[str, tuple[Make, str]] = {
    **{content.__name__: (partial(_with, content), says) for content, says in CONTENTS.items()},
    "splits without end": (_told(b'"splits":', b'"splits":9999999'), "fit together"),
    "a list for its words": (_put("described", np.frombuffer(b"[1]", np.uint8)), "fit together"),
    "deep words": (_put("described", np.frombuffer(b"[" * 9000 + b"]" * 9000, np.uint8)), "nested too deep"),
    "classes of nobody": (_put("class_of", np.full(8, 7, np.int32)), "fit together"),
    "counts of text": (_put("0/counts", np.array([b"ab", b"cd"])), "fit together|type"),
    "counts of another length": (_put("0/counts", np.zeros(99, np.int64)), "fit together"),
    "another kind of file": (_other_kind, "expected misalignment-workbench-moments"),
    "a flipped byte": (_flipped, "not what was written|cannot be read|not a readable|fit together"),
}
