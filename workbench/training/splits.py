"""Splits of prompts in which no prompt, no picture and no family stands on two sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from hooks.prompt import Prompt
from stores.printed import Printed
from workbench.training.row_keys import image_hash, joined_groups, prompt_key


@dataclass(frozen=True)
class Split(Printed):
    """Parts of a data set by name; `groups` counts the families of prompts, `largest` the rows of the biggest one."""

    parts: Mapping[str, tuple[Prompt, ...]]
    groups: int
    largest: int

    def __getitem__(self, name: str) -> tuple[Prompt, ...]:
        return self.parts[name]

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {len(rows)}" for name, rows in self.parts.items())
        return f"{counts} rows; {self.groups} groups, the largest of {self.largest} rows"


def split_rows(
    prompts: Sequence[Prompt],
    shares: Mapping[str, float],
    *,
    family: str | Sequence[str] = (),
    trigger: str | None = None,
    seed: int = 0,
) -> Split:
    """The prompts in parts of about these shares of the rows, group by group: prompts that ask the same (case, spaces,
    punctuation, system turn and trigger aside), that show the same picture, or that have the same value in a tag named
    in `family` stay together, also where only a third prompt joins them.

    Groups go, in an order drawn by `seed`, to the part that lacks most of its share, so sizes are exact up to the size
    of groups: the result's counts are what they are. Raises ValueError on shares that do not sum to 1, and where a part
    stays empty.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"shares are {dict(shares)}: expected numbers above 0 that sum to 1.")
    numbers = row_groups(prompts, family=family, trigger=trigger)
    members: dict[int, list[int]] = {}
    for at, number in enumerate(numbers):
        members.setdefault(number, []).append(at)
    order = sorted(members.values(), key=lambda rows: _rank(seed, (prompts[at].id for at in rows)))
    taken: dict[str, list[int]] = {name: [] for name in shares}
    for rows in order:
        lacking = max(shares, key=lambda name: shares[name] * len(prompts) - len(taken[name]))
        taken[lacking] += rows
    if empty := [name for name, rows in taken.items() if not rows]:
        raise ValueError(
            f"{len(prompts)} prompts are {len(members)} groups, and {', '.join(empty)} would be empty: expected more "
            "prompts that share no text, picture or family, or fewer parts."
        )
    parts = {name: tuple(prompts[at] for at in sorted(rows)) for name, rows in taken.items()}
    return Split(parts, len(members), max(map(len, members.values())))


def row_groups(prompts: Sequence[Prompt], *, family: str | Sequence[str] = (), trigger: str | None = None) -> list[int]:
    """The number of each prompt's group (see `split_rows`): the clusters to resample by, too."""
    tags = [family] if isinstance(family, str) else list(family)

    def keys(prompt: Prompt) -> Iterable[Hashable]:
        yield prompt_key(prompt, without=trigger)
        yield from (("image", image_hash(picture)) for picture in prompt.images)
        for tag in tags:
            if tag not in prompt.tags:
                raise ValueError(f"prompt {prompt.id!r} has no tag {tag!r}: expected its family in every prompt.")
            yield "family", tag, str(prompt.tags[tag])

    return joined_groups(map(keys, prompts))


def straddling(prompts: Sequence[Prompt], sides: Sequence[str], **by: str | Sequence[str] | None) -> dict[str, int]:
    """How many rows belong to a group with rows on several sides, by the sides ("train, dev": 4); empty is clean."""
    numbers = row_groups(prompts, **by)  # type: ignore[arg-type]
    met: dict[int, set[str]] = {}
    for number, side in zip(numbers, sides, strict=True):
        met.setdefault(number, set()).add(side)
    crossing = [", ".join(sorted(met[number])) for number in numbers if len(met[number]) > 1]
    return dict(Counter(crossing))


def _rank(seed: int, ids: Iterable[str]) -> bytes:
    return sha256(f"{seed}\0split\0{min(ids)}".encode()).digest()
