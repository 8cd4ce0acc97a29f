"""Which rows of two models belong together: by prompt, by token, or by tokens of two tokenizers; and which are held
out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int

from stores.printed import Printed
from workbench.interventions.transfer_tokens import TokenPairs
from workbench.subspace.rows import RowSource, joined

FEWEST_PROMPTS = 8  # 6 to fit on and 2 to hold out: below that neither the map nor its R² means anything
PairBy = Literal["prompt", "token"] | TokenPairs


@dataclass(frozen=True, eq=False)
class Matched(Printed):
    """Row numbers of two sources that belong together, with the prompt of each pair, the family that it is held out
    with, and what stayed over."""

    left: Int[np.ndarray, " match"]
    right: Int[np.ndarray, " match"]
    prompts: tuple[str, ...]
    families: tuple[str, ...]
    only_left: int
    only_right: int

    def __len__(self) -> int:
        return len(self.left)

    def numbered(self, wanted: Bool[np.ndarray, " match"]) -> Int[np.ndarray, " n"]:
        """The families of the chosen pairs as numbers, equal for rows of one family."""
        chosen = [family for family, one in zip(self.families, wanted, strict=True) if one]
        return np.unique(chosen, return_inverse=True)[1]


def family_tag(rows: RowSource) -> str | None:
    """The tag that says which prompts are one question in other words, or under other personas: `family`, else `item`;
    None where no prompt has either."""
    for name in ("family", "item"):
        try:
            rows.tag(name)
        except (LookupError, ValueError):  # no prompt has it: a store, and rows in memory
            continue
        return name
    return None


def families_of(rows: RowSource, index: Int[np.ndarray, " n"], family: str | None) -> tuple[str, ...]:
    """What each of these rows is held out with: the value of the tag `family`, the prompt itself where it has none."""
    ids = rows.prompt_ids
    prompts = [str(ids[i]) for i in index]
    if family is None:
        return tuple(prompts)
    tags = rows.tag(family)
    values = [tags[i] for i in index]
    return tuple(prompt if one is None else f"{family} {one}" for prompt, one in zip(prompts, values, strict=True))


def matched_rows(source: RowSource, target: RowSource, pair_by: PairBy, family: str | None = None) -> Matched:
    """The pairs of rows. Variants pair by name where a prompt (or token) has several rows, else whatever their names.

    "token": the same position of the same prompt with the same token id, position 0 left out (its norm drowns the
    others). Raises ValueError when nothing matches or a prompt has several rows a variant.
    """
    if not (isinstance(pair_by, TokenPairs) or pair_by in ("prompt", "token")):
        raise ValueError(f"pair_by={pair_by!r} is unknown: expected 'prompt', 'token', or wb.token_pairs(...).")
    sides = [_keyed(rows, pair_by, side) for side, rows in enumerate((source, target))]
    keys = [[key for _, key in side] for side in sides]
    if any(len(set(side)) < len(side) for side in keys):
        variants = [rows.variants for rows in (source, target)]
        keys = [[(key, each[place]) for place, key in side] for each, side in zip(variants, sides, strict=True)]
    join = joined(keys[0], keys[1], names=("the source", "the target"))
    left, right = (
        np.array([side[i][0] for i in index], np.intp)
        for side, index in zip(sides, (join.left, join.right), strict=True)
    )
    prompts, families = families_of(source, left, None), families_of(source, left, family)
    return Matched(left, right, prompts, families, len(source) - len(left), len(target) - len(right))


def _keyed(rows: RowSource, pair_by: PairBy, side: int) -> list[tuple[int, Hashable]]:
    """(row number, key) of the rows that can have a partner."""
    if pair_by == "prompt":
        return list(enumerate(rows.prompt_ids))
    positions = np.asarray(rows.positions)
    if (positions < 0).all():
        raise ValueError(
            f"the {('source', 'target')[side]}'s rows are pooled, one a prompt: they have no tokens to pair by. "
            "Capture with pool='none' and a scope of many tokens, such as at='all', or use pair_by='prompt'."
        )
    if isinstance(pair_by, TokenPairs):
        place = pair_by.places(side)
        keys = ((prompt, place.get((prompt, int(at)))) for prompt, at in zip(rows.prompt_ids, positions, strict=True))
        return [(i, key) for i, key in enumerate(keys) if key[1] is not None]
    listed = zip(rows.prompt_ids, positions.tolist(), _token_ids(rows), strict=True)
    return [(i, key) for i, key in enumerate(listed) if key[1] > 0]


def _token_ids(rows: Any) -> list[int]:
    found = getattr(rows, "token_ids", None)
    if found is None:
        raise ValueError("these rows do not know their token ids: pair_by='token' needs the rows of a store.")
    return [int(one) for one in found]


def held_out_mask(families: Sequence[str], share: float, rng: np.random.Generator) -> Bool[np.ndarray, " match"]:
    """Mask of the held-out rows; all rows of a prompt, or of a family of prompts, fall on the same side."""
    names = sorted(set(families))
    if len(names) < FEWEST_PROMPTS:
        raise ValueError(
            f"{len(names)} prompts (or families of them) match: expected at least {FEWEST_PROMPTS} to fit a map and to "
            "test it."
        )
    count = min(max(2, round(share * len(names))), len(names) - 2)
    held = {names[i] for i in rng.permutation(len(names))[:count]}
    return np.array([family in held for family in families])


def one_scope(source: RowSource, target: RowSource, at: str | None) -> str:
    """The token scope of both sides. Raises ValueError when they differ, or differ from `at`."""
    scopes = [str(rows.info["scope"]) for rows in (source, target) if rows.info.get("scope")]
    # A store of both towers states a scope for each: "language last, vision image".
    wrong = at is not None and any(at != one and f"language {at}" not in one.split(", ") for one in scopes)
    if len(set(scopes)) > 1 or wrong:
        raise ValueError(
            f"the rows come from the scopes {scopes}{f' and at={at!r} was asked for' if wrong else ''}: a map needs "
            "one scope on both sides. Capture both with the same at=."
        )
    return next(iter(scopes), at or "")
