"""Items for choosing and items for confirming, with no prompt family and no image on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Images = Sequence[Hashable | Iterable[Hashable] | None]


@dataclass(frozen=True)
class Split(Generic[Item]):
    """Items of both sides in their given order, the side of each item, and how many groups could not be divided."""

    dev: tuple[Item, ...]
    confirm: tuple[Item, ...]
    sides: tuple[str, ...]
    groups: int

    def __str__(self) -> str:
        return f"{len(self.dev)} dev and {len(self.confirm)} confirm items, of {self.groups} indivisible groups"


def dev_confirm(
    items: Sequence[Item],
    families: Sequence[Hashable],
    images: Images | None = None,
    *,
    share: float = 0.25,
    seed: int = 0,
) -> Split[Item]:
    """Splits items so that paraphrases of a prompt (a family) stay together, and so do all uses of an image.

    `families` has one name an item; `images` one name (better: a content hash) an item, several of them, or None. Items
    that share any of these, even by way of third items, form a group. Groups are ranked by a hash of their names and
    `seed`, and fill the dev side up to `share` of the items: the order of the items does not matter. Raises ValueError
    when everything hangs together, an item has no family, or lengths differ.
    """
    if len(families) != len(items) or (images is not None and len(images) != len(items)):
        given = f"{len(families)} families" + ("" if images is None else f" and {len(images)} images")
        raise ValueError(
            f"dev_confirm: expected one family (and entry of images) an item: {len(items)} items, {given}."
        )
    if not 0 < share < 1:
        raise ValueError(f"share={share} is the dev side's part of the items: expected more than 0, less than 1.")
    names = [_names(families[i], None if images is None else images[i]) for i in range(len(items))]
    group_of = _joined(names)
    ranked = _ranked(names, group_of, seed)
    if len(ranked) < 2:
        raise ValueError(
            f"dev_confirm: all {len(items)} items hang together by family and image, so no side would be fresh. "
            "Give finer families, or drop the images that everything shares."
        )
    chosen = _filled(ranked, round(share * len(items)))
    sides = tuple("dev" if group in chosen else "confirm" for group in group_of)
    by_side = [tuple(item for item, at in zip(items, sides, strict=True) if at == side) for side in ("dev", "confirm")]
    return Split(by_side[0], by_side[1], sides, len(ranked))


def _names(family: Hashable, images: Hashable | Iterable[Hashable] | None) -> list[tuple[str, str]]:
    if family is None:
        raise ValueError("dev_confirm: an item has no family; expected the name of its prompt at least.")
    several = images if isinstance(images, list | tuple | set | frozenset) else [] if images is None else [images]
    return [("family", repr(family)), *sorted(("image", repr(image)) for image in several)]


def _joined(names: Sequence[Sequence[tuple[str, str]]]) -> list[tuple[str, str]]:
    """For each item a name that stands for its group: connected components, by union and find."""
    parent = {name: name for own in names for name in own}

    def root(name: tuple[str, str]) -> tuple[str, str]:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for own in names:
        for name in own[1:]:
            parent[root(name)] = root(own[0])
    return [root(own[0]) for own in names]


def _ranked(
    names: Sequence[Sequence[tuple[str, str]]], group_of: Sequence[tuple[str, str]], seed: int
) -> list[tuple[str, tuple[str, str], int]]:
    """(hash, group, items) in the order of the hashes; a group's hash is the least of its names' hashes."""
    hashes: dict[tuple[str, str], str] = {}
    sizes: dict[tuple[str, str], int] = {}
    for own, group in zip(names, group_of, strict=True):
        mine = min(hashlib.sha256("\0".join((str(seed), *name)).encode()).hexdigest() for name in own)
        hashes[group] = min(mine, hashes.get(group, mine))
        sizes[group] = sizes.get(group, 0) + 1
    return sorted((hashes[group], group, sizes[group]) for group in sizes)


def _filled(ranked: Sequence[tuple[str, tuple[str, str], int]], room: int) -> set[tuple[str, str]]:
    """Groups of the dev side: those that still fit, in order; the smallest one when none does."""
    chosen: set[tuple[str, str]] = set()
    for _, group, size in ranked:
        if size <= room and len(chosen) < len(ranked) - 1:
            chosen.add(group)
            room -= size
    return chosen or {min(ranked, key=lambda each: each[2])[1]}
