"""Which rows of a base and a fine-tuned model belong together, and the matrix that each named decomposition is of."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from hooks.site import Site
from workbench.subspace.rows import Join, RowSource, joined, prompt_sums

BothWays = tuple[Float[np.ndarray, "left d_model"], Float[np.ndarray, "right d_model"]]


@dataclass(frozen=True)
class Variant:
    """One reading of "the PCA of the shift". `joins`: what pairs a base row with a tuned one, None where rows need no
    partner. `mean`: whether the mean shift is part of what is decomposed. `matrix`: it in words."""

    joins: Literal["position", "prompt"] | None
    mean: bool
    matrix: str


VARIANTS: dict[str, Variant] = {
    "paired_shift_centered": Variant("position", False, "tuned - base of each row, around its mean"),
    "paired_shift_raw": Variant("position", True, "tuned - base of each row, its mean kept"),
    "stacked": Variant("position", False, "base and tuned rows together, around their common mean"),
    "between_class": Variant("position", True, "means of the classes, around the common mean"),
    "harmful_only": Variant(None, False, "tuned rows, around their own mean"),
    "unpaired": Variant(None, True, "tuned rows, around the mean of the base rows"),
    "text_minus_base_text": Variant(
        "prompt", True, "tuned on its own texts - base on its own texts, means over each prompt's rows"
    ),
}


@dataclass(frozen=True, eq=False)
class Pairs:
    """Row numbers that a decomposition uses, in sorted order of their keys: `left[i]` of the base and `right[i]` of the
    tuned rows are partners. `tuned` lists the tuned rows of variants that need no partner. `prompts` names the prompt
    of each pair; `only_base` and `only_tuned` count the rows that found no partner, `left_out` the pairs (or rows) that
    equal n cost."""

    variant: str
    left: Int[np.ndarray, " pair"]
    right: Int[np.ndarray, " pair"]
    tuned: Int[np.ndarray, " n"]
    prompts: tuple[str, ...]
    only_base: int
    only_tuned: int
    left_out: int

    @property
    def joins(self) -> str | None:
        return VARIANTS[self.variant].joins

    def values(self, base: RowSource, tuned: RowSource, site: Site) -> BothWays:
        """The paired rows at one site, row i of both for the same prompt (and position), float64."""
        if self.joins == "prompt":
            found = []
            for rows in (base, tuned):
                sums, counts = prompt_sums(rows, site, self.prompts)
                found.append(sums / counts[:, None])
            return found[0], found[1]
        return (
            np.asarray(base.values(site, np.float64), np.float64)[self.left],
            np.asarray(tuned.values(site, np.float64), np.float64)[self.right],
        )


def paired(base: RowSource, tuned: RowSource, variant: str, at_most: int | None, seed: int) -> Pairs:
    """The rows that `variant` decomposes, joined by prompt id and position (by prompt alone for texts of one's own).

    With `at_most` the same keys are drawn whatever else is there: those of least sha256(seed, key). Raises ValueError
    when a key occurs twice on a side, or nothing matches and the variant needs pairs.
    """
    kind = VARIANTS[variant]
    names = ("the base rows", "the tuned rows")
    if kind.joins == "prompt":
        prompts = [list(dict.fromkeys(rows.prompt_ids)) for rows in (base, tuned)]
        join = joined(prompts[0], prompts[1], names)
        chosen = _chosen(join.keys, at_most, seed)
        named = tuple(str(join.keys[i]) for i in chosen)
        nothing = np.zeros(0, np.intp)
        over = len(join.keys) - len(chosen)
        return Pairs(variant, nothing, nothing, nothing, named, join.only_left, join.only_right, over)
    keys = [list(zip(rows.prompt_ids, np.asarray(rows.positions).tolist(), strict=True)) for rows in (base, tuned)]
    join = _joined_or_none(keys, names) if kind.joins is None else joined(keys[0], keys[1], names)
    chosen = _chosen(join.keys, at_most, seed) if kind.joins else np.arange(len(join.keys))
    # Sorted by key, as the pairs are: the order of capture decides nothing.
    order = sorted(range(len(keys[1])), key=lambda row: str(keys[1][row]))
    rows = np.array(order, np.intp)
    if kind.joins is None:
        rows = rows[_chosen([keys[1][row] for row in order], at_most, seed)]
    over = len(join.keys) - len(chosen) if kind.joins else len(keys[1]) - len(rows)
    return Pairs(
        variant,
        join.left[chosen],
        join.right[chosen],
        rows if kind.joins is None else np.zeros(0, np.intp),
        tuple(str(keys[0][row][0]) for row in join.left[chosen]),
        join.only_left,
        join.only_right,
        over,
    )


def available(base: RowSource, tuned: RowSource, variant: str) -> int:
    """How many rows `variant` would decompose (pairs, where it is of pairs)."""
    found = paired(base, tuned, variant, None, 0)
    return len(found.prompts) if found.joins else len(found.tuned)


def class_names(pairs: Pairs, rows: RowSource, classes: str | None) -> list[Any]:
    """The class of each pair beside base and tuned: its label or tag; one for all without `classes`."""
    if classes is None:
        return [None] * len(pairs.left)
    column = rows.labels if classes == "label" else rows.tag(classes)
    return [column[row] for row in pairs.left]


def _chosen(keys: Sequence[Hashable], at_most: int | None, seed: int) -> Int[np.ndarray, " n"]:
    if at_most is None or len(keys) <= at_most:
        return np.arange(len(keys))
    if at_most < 2:
        raise ValueError(f"at_most={at_most} rows: expected at least 2, which a spectrum needs.")
    drawn = [hashlib.sha256(f"{seed} shift {key}".encode()).digest() for key in keys]
    return np.sort(np.array(sorted(range(len(keys)), key=drawn.__getitem__)[:at_most], np.intp))


def _joined_or_none(keys: list[list[tuple[str, int]]], names: tuple[str, str]) -> Join:
    """As `joined`, but rows of other prompts are no fault where nothing is subtracted row by row."""
    if set(keys[0]) & set(keys[1]):
        return joined(keys[0], keys[1], names)
    nothing = np.zeros(0, np.intp)
    return Join((), nothing, nothing, len(keys[0]), len(keys[1]))
