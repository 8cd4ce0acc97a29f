"""A store of whatever kind stands at a path, and how its shards are checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from stores import schema
from stores.errors import StoreError, StoreMissing
from stores.folder import ShardFolder
from stores.limits import LIMITS, Limits
from stores.plan import Unit
from stores.results import ResultTable
from stores.seals import Span
from stores.store import ActivationStore
from stores.verifying import faults


def open_store(path: str | Path, limits: Limits = LIMITS) -> ActivationStore | ResultTable:
    """The store at `path`, of activations or of results. Raises StoreMissing, StoreMismatch, StoreCorrupted,
    UnsafeFile."""
    return of_folder(ShardFolder.open(path, limits=limits))


def nested_stores(path: str | Path) -> list[Path]:
    """Stores inside of this one (the answers that a capture generated): verified, mended and merged with it."""
    found = sorted(Path(path).glob(f"*/{schema.MANIFEST}"))
    return [manifest.parent for manifest in found if not manifest.parent.is_symlink()]


def verify_store(path: str | Path, deep: bool = False, limits: Limits = LIMITS) -> list[str]:
    """One line a fault of the store at `path`, of whatever kind, and of those inside of it; see ActivationStore.verify.
    A store that cannot be opened is a fault as well. Raises StoreMissing when there is none."""
    try:
        folder = ShardFolder.open(path, limits=limits, whole=False)
        found = faults(folder, check_of(folder), deep)
    except StoreMissing:
        raise
    except StoreError as error:
        found = [str(error)]
    return found + [line for inner in nested_stores(path) for line in verify_store(inner, deep, limits)]


def of_folder(folder: ShardFolder) -> ActivationStore | ResultTable:
    if folder.manifest.kind == schema.KIND_ACTIVATIONS:
        return ActivationStore(folder)
    return ResultTable(folder, folder.manifest.spec, folder.manifest.provenance)


def check_of(folder: ShardFolder) -> Callable[[Unit], Sequence[Span]]:
    """What reads a whole shard of this folder and raises when it is not sound, as `verify(deep=True)` does."""
    return of_folder(folder).checked
