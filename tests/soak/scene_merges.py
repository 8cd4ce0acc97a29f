"""Two parts of one run, each in a store of its own, joined into a third one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replay import tree_of
from scenes import MADE, UNIT, Activations, Promise, Tell, stubbornly

from stores.merging import merge_stores


class Merge:
    """The units of a capture by turns in two stores, which came over a network: what copied them synced nothing."""

    unsafe = True

    def __init__(self, shards: int, link: bool = True) -> None:
        self.whole, self.link = Activations(shards, folder="runs/whole"), link
        self.parts = [Activations(shards, folder=f"part {i}") for i in range(2)]

    def prepare(self, root: Path) -> None:
        for i, part in enumerate(self.parts):
            store = part.opened(root, len(part.keys))
            for key in part.keys[i::2]:
                part.commit(store, key)
        self.copies = tree_of(root)

    def run(self, root: Path, tell: Tell) -> None:
        for path, content in self.copies.items():  # what a power cut took is fetched again
            file = root / path
            if content is not None and (not file.exists() or file.read_bytes() != content):
                file.unlink(missing_ok=True)
                file.write_bytes(content)
        sources = [root / part.folder for part in self.parts]
        stubbornly(lambda: merge_stores(sources, root / self.whole.folder, link=self.link))
        tell((MADE, len(self.whole.keys)))
        for key in self.whole.keys:
            tell((UNIT, key))

    def faults(self, root: Path, promises: Sequence[Promise]) -> list[str]:
        return self.whole.faults(root, promises)

    def finished(self, root: Path) -> list[str]:
        return self.whole.finished(root)
