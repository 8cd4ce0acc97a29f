"""Bits turned over, words inverted, files cut, exchanged and lost: what a disk, a cable or a careless copy does.

After each, everything is read that a reader can get, by objects made anew. It raises a named error, or gives what it
gave before, bit for bit; and `verify(deep=True)` has a line about it whatever byte it was. Else it is `silent`, and an
error without a name `bad`. Words of 0x0000 and 0xFFFF are inverted because fletcher32, which guards HDF5's small
arrays, takes them for the same.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
from counts import counted
from scenes import Activations, Results, Scene

from stores import ActivationStore, ResultTable, StoreError

_WORDS = {b"\x00\x00": b"\xff\xff", b"\xff\xff": b"\x00\x00"}


@dataclass(frozen=True)
class Damage:
    """What one file holds instead of what was written; None: it is gone."""

    what: str
    file: Path
    data: bytes | None


@dataclass
class Subject:
    """A whole store, what a reader gets out of it, and how it is read."""

    path: Path
    read: Callable[[Path], Any]
    verify: Callable[[Path, bool], list[str]]

    def __post_init__(self) -> None:
        self.files = {file: file.read_bytes() for file in sorted(self.path.rglob("*")) if file.is_file()}
        self.truth = self.read(self.path)

    def shards(self) -> list[Path]:
        return [file for file in self.files if file.suffix == ".h5"]

    def tried(self, damage: Damage) -> dict[str, int]:
        """What comes of it; the store is whole again afterwards."""
        if damage.data is None:
            damage.file.unlink()
        else:
            damage.file.write_bytes(damage.data)
        try:
            return self._seen(damage)
        finally:
            if damage.file in self.files:
                damage.file.write_bytes(self.files[damage.file])
            else:
                damage.file.unlink()
            for log in (self.path / "commits").iterdir():  # a verify may have added what it found lacking
                if log not in self.files:
                    log.unlink()
                elif log.stat().st_size != len(self.files[log]):
                    log.write_bytes(self.files[log])

    def _seen(self, damage: Damage) -> dict[str, int]:
        name = f"{damage.what} of {damage.file.relative_to(self.path)}"
        try:
            if self.read(self.path) != self.truth and (damage.data is not None or damage.file.parent.name != "plan"):
                return said(f"{name}: other content, and no error", silent=1)
        except StoreError:
            pass
        except Exception as error:
            return said(f"{name}: {type(error).__name__}: {error}", bad=1)
        try:
            # Names and sizes are what a fast verify looks at: a lost, a strange or a shortened file is what it is for.
            deep = damage.data is not None and len(damage.data) == len(self.files.get(damage.file, b""))
            found = self.verify(self.path, deep)
        except StoreError:
            return {}
        except Exception as error:
            return said(f"{name}: verify: {type(error).__name__}: {error}", bad=1)
        # A log may be lost, and one without an end looks as a kill leaves it; shards are known without it.
        needed = damage.file.parent.name != "commits" or (damage.data or b"").endswith(b"\n")
        return {} if found or not needed else said(f"{name}: verify found nothing", silent=1)


def said(line: str, **counts: int) -> dict[str, int]:
    print(f"  {line}", flush=True)
    return counts


def run(n: int, scratch: Path, seed: int = 0) -> dict[str, int]:
    """About `n` of them: three quarters single bits, spread over every byte of every file, one quarter words; and what
    can happen to whole files, all of it."""
    chance, counts = random.Random(seed), {"flips": 0, "silent": 0, "bad": 0}
    subjects = subjects_in(scratch)
    share = n // (4 * len(subjects))
    for subject in subjects:
        whole = list(whole_files(subject, chance))
        damages = chain(whole, words(subject, share, chance), bits(subject, 3 * share, chance))
        progress = counted(f"flips, {subject.path.parts[-3]}", len(whole) + 4 * share)
        for damage, _ in zip(damages, progress, strict=False):
            counts["flips"] += 1
            for kind, count in subject.tried(damage).items():
                counts[kind] += count
    return counts


def subjects_in(scratch: Path) -> list[Subject]:
    """A store of activations, one sealed with xxh3, and a table: two shards each, the second of them appended."""
    scenes: Mapping[str, tuple[Scene, str]] = {
        "activations": (Activations(2), "runs/store"),
        "bulk": (Activations(2, bulk=True), "runs/store"),
        "results": (Results(2), "runs/table"),
    }
    found = []
    for name, (scene, folder) in scenes.items():
        (scratch / name).mkdir(parents=True)
        scene.run(scratch / name, lambda promise: None)
        read, verify = (read_table, verify_table) if name == "results" else (read_store, verify_store)
        found.append(Subject(scratch / name / folder, read, verify))
    return found


def read_store(path: Path) -> list[Any]:
    """All that a reader gets."""
    store = ActivationStore.open(path)
    columns = [store.prompt_ids, store.variants, store.labels, store.positions.tolist(), store.token_ids.tolist()]
    about = [store.spec, store.provenance, store.prompts, store.plan, store.missing(), store.info]
    return [*about, *columns, *(store.values(site).tobytes() for site in store.sites)]


def read_table(path: Path) -> list[Any]:
    table = ResultTable.open(path)
    return [table.spec, table.provenance, table.plan, table.missing(), table.columns, table.rows()]


def verify_store(path: Path, deep: bool) -> list[str]:
    return ActivationStore.open(path).verify(deep=deep)


def verify_table(path: Path, deep: bool) -> list[str]:
    return ResultTable.open(path).verify(deep=deep)


def bits(subject: Subject, n: int, chance: random.Random, suffix: str = "") -> Iterator[Damage]:
    """Every byte of every file (of this suffix) once before any comes twice, in no order."""
    chosen = [file for file in subject.files if file.name.endswith(suffix)]
    places = [(file, place) for file in chosen for place in range(len(subject.files[file]))]
    for at in range(n):
        if at % len(places) == 0:
            chance.shuffle(places)
        file, place = places[at % len(places)]
        data, bit = bytearray(subject.files[file]), chance.randrange(8)
        data[place] ^= 1 << bit
        yield Damage(f"bit {bit} of byte {place}", file, bytes(data))


def words(subject: Subject, n: int, chance: random.Random) -> Iterator[Damage]:
    """Those of the index columns first, where fletcher32 stands guard, then any."""
    inside, outside = [], []
    for file in subject.shards():
        whole, columns = subject.files[file], column_bytes(file)
        inside += [(file, at) for a, b in columns for at in range(a, b - 1, 2) if whole[at : at + 2] in _WORDS]
        outside += [(file, at) for at in range(0, len(whole) - 1, 2) if whole[at : at + 2] in _WORDS]
    chance.shuffle(inside)
    chance.shuffle(outside)
    for file, place in [*inside[: n // 2], *outside[: n - min(n // 2, len(inside))]]:
        data = bytearray(subject.files[file])
        data[place : place + 2] = _WORDS[bytes(data[place : place + 2])]
        yield Damage(f"word at byte {place}", file, bytes(data))


def column_bytes(shard: Path) -> list[tuple[int, int]]:
    """Where the chunks lie that fletcher32 guards."""
    found: list[tuple[int, int]] = []

    def note(_: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset) and thing.fletcher32:
            thing.id.chunk_iter(lambda chunk: found.append((chunk.byte_offset, chunk.byte_offset + chunk.size - 4)))

    with h5py.File(shard, "r", locking=False) as file:
        file.visititems(note)
    return found


def whole_files(subject: Subject, chance: random.Random) -> Iterator[Damage]:
    """Each file cut, grown, emptied, zeroed and lost; each shard exchanged for others; one shard too many."""
    for file, whole in subject.files.items():
        for size in sorted({0, 1, len(whole) // 2, len(whole) - 1, chance.randrange(len(whole))}):
            yield Damage(f"cut to {size} bytes", file, whole[:size])
        yield Damage("grown by a byte", file, whole + b"\0")
        yield Damage("zeroed", file, bytes(len(whole)))
        yield Damage("lost", file, None)
    first, second = subject.shards()
    yield Damage("a stray copy", first.with_stem("copy"), subject.files[first])
    yield Damage("exchanged for another unit's", first, subject.files[second])
    yield Damage("exchanged for another unit's", second, subject.files[first])
    yield from (Damage("exchanged for another store's", file, data) for file, data in of_another_spec(subject).items())


def of_another_spec(subject: Subject) -> dict[Path, bytes]:
    """Shards of the same units, whole, of a store that was made with another spec and holds other numbers."""
    folder = subject.path.parent / "elsewhere"
    shutil.rmtree(folder, ignore_errors=True)
    scene: Any = (Activations if subject.read is read_store else Results)(2, folder="elsewhere")
    same_length = {"model": "tina", "scope": "last"} if subject.read is read_store else {"sweep": "tina"}
    made = scene.opened(subject.path.parent, 2, spec=same_length)
    for key in scene.keys:
        scene.commit(made, key, spoiled=True)
    theirs = {unit_of(file): file.read_bytes() for file in folder.rglob("*.h5")}
    return {file: theirs[unit_of(file)] for file in subject.shards()}


def unit_of(shard: Path) -> str:
    with h5py.File(shard, "r", locking=False) as file:
        unit = file.attrs["unit"]
        return unit.decode() if isinstance(unit, bytes) else str(unit)
